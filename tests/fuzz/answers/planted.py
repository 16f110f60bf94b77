"""Defects that are there on purpose: each has to be found, or the search is worth nothing."""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.fuzz.answers.common import Target, say


def _spin(_: Any) -> None:
    while True:
        pass


def _grow(_: Any) -> None:
    grown = []
    while True:
        grown.append(bytes(2**30))  # no page of it is touched: a busy machine may have few


def _open_outside(told: Any) -> None:
    Path(f"{told}").write_text("x")


def _link_outside(told: Any) -> None:
    Path("link").symlink_to(f"{told}")
    Path("link").write_text("x")


def _make_outside(_: Any) -> None:
    Path("../../owned").mkdir()


def _run(_: Any) -> None:
    subprocess.run(["true"], check=False)


def _connect(_: Any) -> None:
    socket.create_connection(("198.51.100.1", 80), 1)


def _complain(words: Any) -> None:
    sys.stderr.write(f"{words}; do another thing\n")
    sys.exit(2)


def _exit(code: Any) -> None:
    sys.exit(code)


def _leave(_: Any) -> None:
    tempfile.mkdtemp()


def _show(path: Any) -> None:
    say(Path(path).read_text())


def _write_page(words: Any) -> None:
    Path("page.html").write_text(words)


def _raise(_: Any) -> None:
    raise KeyError("x")


def _unpickle(_: Any) -> None:
    pickle.loads(b"cos\nsystem\n.")


# By name: what it does, what it is told, and the kinds of findings that there have to be.
PLANTED = {
    "raises": Target(_raise, None),
    "spins": Target(_spin, None),
    "waits": Target(lambda _: time.sleep(1000), None),
    "grows": Target(_grow, None),
    "writes outside": Target(_open_outside, "/tmp/fuzz-owned"),
    "writes through a link": Target(_link_outside, "/tmp/fuzz-owned"),
    "makes outside": Target(_make_outside, None),
    "runs a program": Target(_run, None),
    "connects": Target(_connect, None),
    "control characters": Target(_complain, "a\x1b[31mb"),
    "direction": Target(say, "a\u202eb"),
    "odd code": Target(_exit, 7),
    "leaves files": Target(_leave, None),
    "shows another file": Target(_show, "../outside/secret"),
    "writes markup": Target(_write_page, "<p><script>alert(1)</script></p>"),
    "writes control characters": Target(_write_page, "<p>\x1b[31m</p>"),
    "dies": Target(lambda _: __import__("os").abort(), None),
    "unpickles": Target(_unpickle, None),
}
EXPECTED = {
    "raises": {"traceback"},
    "spins": {"hang"},
    "waits": {"hang"},
    "grows": {"memory"},
    "writes outside": {"outside", "traceback"},
    "writes through a link": {"outside", "traceback"},
    "makes outside": {"outside", "traceback"},
    "runs a program": {"started", "traceback"},
    "connects": {"started", "traceback"},
    "control characters": {"control"},
    "direction": {"control"},
    "odd code": {"exit"},
    "leaves files": {"left"},
    "shows another file": {"leak"},
    "writes markup": {"markup"},
    "writes control characters": {"control"},
    "dies": {"traceback"},
    "unpickles": {"started"},
}
