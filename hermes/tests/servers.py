"""NATS servers of a test's own, on loopback: started, killed, frozen, with leaves at a hub."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PROGRAM = "/usr/sbin/nats-server"
_WITHIN_S = 30.0


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        port: int = own.getsockname()[1]
        return port


@dataclass
class NatsServer:
    """A server: `lines` are of its configuration, besides where it listens."""

    folder: Path
    lines: Sequence[str] = ()
    name: str = "server"
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        config = self.folder / f"{self.name}.conf"
        own = [f'listen: "127.0.0.1:{self.port}"', f'server_name: "{self.name}"', *self.lines]
        config.write_text("\n".join(own) + "\n")
        log = self.folder / f"{self.name}.log"
        self.process = subprocess.Popen(
            [program(), "-c", str(config), "-l", str(log)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        latest = time.monotonic() + _WITHIN_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                words = log.read_text()[-2000:] if log.exists() else ""
                assert self.process.poll() is None and time.monotonic() < latest, words
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(_WITHIN_S)
            self.process = None

    def restart(self) -> None:
        """Kill it and start it again at the same place."""
        self.kill()
        self.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop it for a while, with its connections as they are."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


def program() -> str:
    """Where nats-server is."""
    found = shutil.which("nats-server") or PROGRAM
    assert Path(found).exists(), "install Debian's nats-server"
    return found


@contextmanager
def nats_server(*lines: str, name: str = "server") -> Iterator[NatsServer]:
    """A server with these lines of configuration."""
    with tempfile.TemporaryDirectory(prefix="hermes-") as folder:
        server = NatsServer(Path(folder), lines, name)
        server.start()
        try:
            yield server
        finally:
            server.kill()


@dataclass
class Sites:
    """A hub, and a leaf node at each of two sites."""

    hub: NatsServer
    leaves: tuple[NatsServer, NatsServer]


@contextmanager
def hub_and_leaves() -> Iterator[Sites]:
    """A hub with two leaf nodes, each of which a site's clients connect to."""
    with tempfile.TemporaryDirectory(prefix="hermes-") as name:
        folder, port = Path(name), free_port()
        hub = NatsServer(folder, [f'leafnodes {{ listen: "127.0.0.1:{port}" }}'], "hub")
        remote = f'leafnodes {{ reconnect: 1, remotes: [{{ url: "nats://127.0.0.1:{port}" }}] }}'
        leaves = NatsServer(folder, [remote], "leaf1"), NatsServer(folder, [remote], "leaf2")
        try:
            for each in (hub, *leaves):
                each.start()
            yield Sites(hub, leaves)
        finally:
            for each in (hub, *leaves):
                each.kill()
