"""The two that are compared: MariaDB through PyMySQL, and ROME on Redis."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from . import proxy, servers

MARIADB, ROME = "MariaDB", "ROME"
# ROME as well, where it stands beside ROME on Redis.
ETCD = "etcd"
DATABASES = ("nova_api", "nova", "nova_cell0", "placement", "hot_row")
_HERE = Path(__file__).resolve()


class Failed(Exception):
    """What a worker could not do, in one line, and all that it said."""

    def __init__(self, line: str, details: str = "") -> None:
        super().__init__(line)
        self.details = details


@dataclass(frozen=True)
class Python:
    """The environment that the workers run in."""

    executable: str
    variables: dict[str, str]
    commit: str = ""  # that ROME is of; a plus: and changed since

    def start(self, module: str, *arguments: str) -> subprocess.Popen[str]:
        """A process of this package's."""
        return subprocess.Popen(
            [self.executable, "-W", "ignore", "-m", f"{__package__}.{module}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_HERE.parents[1],
            env={
                **os.environ,
                **self.variables,
                "OS_NOVA_DISABLE_EVENTLET_PATCHING": "true",  # as its services run by default
            },
        )


class Worker:
    """A process that does orders, one at a time."""

    def __init__(self, python: Python, module: str, *arguments: str) -> None:
        self._process = python.start(module, *arguments)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._orders: IO[str] = self._process.stdin
        self._answers: IO[str] = self._process.stdout
        self._answer()

    def ask(self, order: str, **arguments: Any) -> Any:
        """What it answers, or Failed."""
        self.tell(order, **arguments)
        return self._answer()

    def tell(self, order: str, **arguments: Any) -> None:
        """Without waiting; `answer` has the answer."""
        self._orders.write(json.dumps({"do": order, **arguments}) + "\n")
        self._orders.flush()

    def answer(self) -> Any:
        """To what it was told."""
        return self._answer()

    def _answer(self) -> Any:
        line = self._answers.readline()
        if not line:
            raise Failed(f"a worker ended with code {self._process.wait()}; its words are above")
        answer = json.loads(line)
        if "failed" in answer:
            words: str = answer["failed"]
            lines = [line for line in words.splitlines() if re.match(r"[\w.]+(:|$)", line)]
            raise Failed((lines or [words])[-1][:300], words)
        return answer["done"]

    def close(self) -> None:
        """End it."""
        self._orders.close()
        self._process.wait()


@dataclass(frozen=True)
class Backend:
    """A running server, with the proxy before it."""

    name: str
    server: servers.Server
    proxy: proxy.Handle
    scheme: str

    def url(self, database: str, delay: float | None) -> str:
        """Of a database; with a delay of None, straight to the server, not through the proxy."""
        port = self.server.port if delay is None else self.proxy.port
        return self.scheme.format(port=port, database=database)

    def urls(self, delay: float | None, options: str = "") -> str:
        """Of all databases, as workers want them."""
        return json.dumps({name: self.url(name, delay) + options for name in DATABASES})


@contextlib.contextmanager
def running(*, sides: Sequence[str] = (MARIADB, ROME)) -> Iterator[dict[str, Backend]]:
    """Start servers of their own, empty, by the names MARIADB and ROME.

    `sides` says which of the two each is: for a control, a second MariaDB stands in for ROME; for
    a comparison of ROME with another version of itself, a second Redis for MariaDB; for one of its
    stores, Redis for MariaDB and etcd for Redis.
    """
    # Whoever ends the program so wants the servers ended and their folders gone, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with contextlib.ExitStack() as stack:
        found = {}
        for name, side in zip((MARIADB, ROME), sides, strict=True):
            if side == MARIADB:
                server = stack.enter_context(servers.mariadb(DATABASES))
                scheme = "mysql+pymysql://bench@127.0.0.1:{port}/{database}?charset=utf8"
            elif side == ETCD:
                server = stack.enter_context(servers.etcd())
                scheme = "rome+etcd://127.0.0.1:{port}/{database}"
            else:
                server = stack.enter_context(servers.redis())
                scheme = "rome+redis://127.0.0.1:{port}/{database}"
            handle = proxy.Handle(server.port)
            stack.callback(handle.close)
            found[name] = Backend(name, server, handle, scheme)
        yield found


# ---------------------------------------------------------------- environment and command line


@contextlib.contextmanager
def environment(executable: str | None, checkout: Path | None = None) -> Iterator[Python]:
    """Make OpenStack of locks/rome-openstack.txt, and ROME as its source tree is now.

    checkout: where another source tree of this repository is.
    """
    if executable is not None:
        yield Python(executable, {})
        return
    # The same environment as that of OpenStack's own tests.
    builder = import_module("tests.openstack.environment")
    with contextlib.ExitStack() as stack:
        try:
            python = builder.ensure_environment()
            source = [checkout / "rome"] if checkout else []
            rome = stack.enter_context(builder.installed_rome(python, *source))
        except builder.Failed as error:
            raise Failed(str(error)) from None
        yield Python(str(python), {"PYTHONPATH": rome.path}, rome.commit)


def parser(words: str) -> argparse.ArgumentParser:
    """With what all programs take."""
    made = argparse.ArgumentParser(description=words.splitlines()[0])
    made.add_argument(
        "--python", help="one that has OpenStack and sqlalchemy-rome (or else it is made)"
    )
    made.add_argument(
        "--results", type=Path, default=_HERE.parent / "results", help="folder for what is written"
    )
    return made


def say(line: str) -> None:
    """To whoever waits."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
