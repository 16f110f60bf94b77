"""The data of this host's node of Galera while it is stopped: how far they came, and their end."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess

from .galera_positions import NOBODY, Position, made_safe, read_grastate, read_recovered
from .process import Failure, read

DATA = "/var/lib/mysql"
RECOVERY_S = 300


def recovered() -> Position:
    """Return how far the stopped node came.

    Raises Failure where its data can't be read.
    """
    if not os.path.isdir(f"{DATA}/mysql") or not os.path.exists(f"{DATA}/grastate.dat"):
        return Position()
    noted = read_grastate(read(f"{DATA}/grastate.dat"))
    if noted.uuid != NOBODY and noted.seqno >= 0:
        return noted
    found = _recover()
    # Galera forgets the history of data that it doesn't trust any more.
    doubtful = noted.uuid == NOBODY and found.uuid != NOBODY
    return Position(found.uuid, found.seqno, doubtful)


def _recover() -> Position:
    """Return the position that MariaDB finds in its data; raises Failure where it can't."""
    words = ["/usr/sbin/mariadbd", "--user=mysql", "--wsrep-recover", "--disable-log-error"]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=RECOVERY_S, errors="replace"
        )
    except subprocess.TimeoutExpired:
        raise Failure(f"mariadbd --wsrep-recover didn't end in {RECOVERY_S} s") from None
    found = read_recovered(done.stderr)
    if done.returncode or found is None:
        errors = [line for line in done.stderr.splitlines() if "[ERROR]" in line]
        raise Failure(f"its data can't be read: {' / '.join(errors[-3:]) or 'no position'}")
    return found


def make_safe() -> None:
    """Let the node start a cluster though others may have stopped after it."""
    with contextlib.suppress(FileNotFoundError):
        path = f"{DATA}/grastate.dat"
        text = made_safe(read(path))
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)


def forget_view() -> None:
    """Have the node ask who is there: the members of before may have another view by now."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{DATA}/gvwstate.dat")


def empty() -> None:
    """Remove all data."""
    for entry in os.scandir(DATA):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            os.unlink(entry.path)
