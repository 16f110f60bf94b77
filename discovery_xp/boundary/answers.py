"""What hosts answer, checked before it is used: types, sizes, and no control characters.

A host of an experiment may say anything.  What isn't what was asked for raises `Unfit`, which
whoever asked turns into a line about that host.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from discovery_xp.onhost.checks import (
    LARGEST as LARGEST,
)
from discovery_xp.onhost.checks import (
    LONGEST_TEXT as LONGEST_TEXT,
)
from discovery_xp.onhost.checks import (
    Unfit as Unfit,
)
from discovery_xp.onhost.checks import (
    listed as listed,
)
from discovery_xp.onhost.checks import (
    mapping as mapping,
)
from discovery_xp.onhost.checks import (
    number as number,
)
from discovery_xp.onhost.checks import (
    number_of as number_of,
)
from discovery_xp.onhost.checks import (
    one_of as one_of,
)
from discovery_xp.onhost.checks import (
    printable as printable,
)
from discovery_xp.onhost.checks import (
    shown as shown,
)
from discovery_xp.onhost.checks import (
    text as text,
)
from discovery_xp.onhost.checks import (
    whole as whole,
)
from discovery_xp.onhost.checks import (
    whole_of as whole_of,
)

LONGEST_JSON = 16 * 2**20


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
    output: dict[Any, list[bytes]] = {process.stdout: [], process.stderr: []}
    deadline, size, left = time.monotonic() + timeout_s, 0, memoryview(data)
    with process, selectors.DefaultSelector() as selector:
        try:
            for pipe in output:
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
                    output[key.fileobj].append(block)
                    size += len(block)
                    if size > most:
                        raise TooLarge
            process.wait(max(0.1, deadline - time.monotonic()))
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(
        list(command), process.returncode,
        b"".join(output[process.stdout]), b"".join(output[process.stderr]),
    )  # fmt: skip
