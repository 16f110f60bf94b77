"""What hosts answer, checked before it is used: types, sizes, and no control characters.

A host of an experiment may say anything.  What isn't what was asked for raises `Unfit`, which
whoever asked turns into a line about that host.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import selectors
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from discovery_xp.text import printable as printable

LONGEST_TEXT = 2000
LONGEST_JSON = 16 * 2**20
# Counters of bytes stay far below it, and every reader of JSON and Parquet takes it.
LARGEST = 2**53


class Unfit(ValueError):
    """An answer that isn't what was asked for; the message says why, in a few words."""


def shown(value: object, most: int = 60) -> str:
    """Return a short form of any value, for a message."""
    text = ascii(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def text(value: object, most: int = LONGEST_TEXT) -> str:
    """Return a text, shortened and printable; raises Unfit for anything else."""
    if not isinstance(value, str):
        raise Unfit(f"{shown(value)} is no text")
    return printable(value[:most])


def number(value: object) -> float:
    """Return a finite number; raises Unfit for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unfit(f"{shown(value)} is no number")
    if not math.isfinite(value) or abs(value) > LARGEST:
        raise Unfit(f"{shown(value)} is out of range")
    return float(value)


def whole(value: object) -> int:
    """Return a whole number of 0 or more; raises Unfit for anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST:
        raise Unfit(f"{shown(value)} is no count")
    return value


def number_of(words: str) -> float:
    """Return the finite number that a text is; raises Unfit for anything else."""
    try:
        return number(float(words[:50]))
    except ValueError:
        raise Unfit(f"{shown(words)} is no number") from None


def whole_of(words: str) -> int:
    """Return the whole number of 0 or more that a text is; raises Unfit for anything else."""
    if not re.fullmatch(r"[0-9]{1,16}", words):
        raise Unfit(f"{shown(words)} is no count")
    return whole(int(words))


def one_of(value: object, known: Sequence[str]) -> str:
    """Return one of some texts; raises Unfit for anything else."""
    if not isinstance(value, str) or value not in known:
        raise Unfit(f"{shown(value)} is none of {', '.join(known)}")
    return value


def mapping(value: object) -> dict[str, Any]:
    """Return a mapping by texts; raises Unfit for anything else."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise Unfit(f"{shown(value)} is no mapping")
    return value


def listed(value: object) -> list[Any]:
    """Return a list; raises Unfit for anything else."""
    if not isinstance(value, list):
        raise Unfit(f"{shown(value)} is no list")
    return value


def from_json(words: str | bytes, most: int = LONGEST_JSON) -> Any:
    """Return what JSON says; raises Unfit when it is none, or too large or nested too deeply."""
    if len(words) > most:
        raise Unfit(f"it is over {most} bytes")
    try:
        return json.loads(words)
    except (ValueError, RecursionError):
        raise Unfit("it is no JSON") from None


class TooLarge(Exception):
    """A command printed more than it may."""


def run_bounded(
    command: Sequence[str], data: bytes, timeout_s: float, most: int
) -> subprocess.CompletedProcess[bytes]:
    """Run a command whose output is a host's; at most `most` bytes of it are held.

    Raises TooLarge when it prints more, subprocess.TimeoutExpired when it takes longer; the
    command is killed then.
    """
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    said: dict[Any, list[bytes]] = {process.stdout: [], process.stderr: []}
    deadline, size, left = time.monotonic() + timeout_s, 0, memoryview(data)
    with process, selectors.DefaultSelector() as selector:
        try:
            for pipe in said:
                selector.register(pipe, selectors.EVENT_READ)
            if data:
                os.set_blocking(process.stdin.fileno(), False)
                selector.register(process.stdin, selectors.EVENT_WRITE)
            else:
                process.stdin.close()
            while selector.get_map():
                if time.monotonic() > deadline:
                    raise subprocess.TimeoutExpired(list(command), timeout_s)
                for key, _ in selector.select(max(0.0, deadline - time.monotonic())):
                    if key.fileobj is process.stdin:
                        try:
                            left = left[os.write(key.fd, left[: 2**16]) :]
                        except BrokenPipeError:
                            left = left[:0]
                        if not left:
                            selector.unregister(process.stdin)
                            with contextlib.suppress(BrokenPipeError):
                                process.stdin.close()
                        continue
                    block = os.read(key.fd, 2**16)
                    if not block:
                        selector.unregister(key.fileobj)
                        continue
                    said[key.fileobj].append(block)
                    size += len(block)
                    if size > most:
                        raise TooLarge
            process.wait(max(0.1, deadline - time.monotonic()))
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(
        list(command), process.returncode,
        b"".join(said[process.stdout]), b"".join(said[process.stderr]),
    )  # fmt: skip
