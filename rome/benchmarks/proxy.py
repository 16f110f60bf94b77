"""A TCP proxy that puts a delay between a client and a database, and counts the turns.

Each piece of data is passed on half a round trip after it came, in order, however many
pieces are under way: bytes that follow without waiting are not delayed one after the other,
as on a long line.  What it does not imitate: bandwidth, loss, and the handshake of TCP, so
opening a connection costs only the turns of the database's own protocol.

A turn is a request that the client sends after it had an answer (or as its first word): a
wait of one round trip.  Requests sent together, without waiting, are one turn.  It is counted
here, in the same way for every database, and not in the drivers.

    python -m benchmarks.proxy --target PORT    says "PORT CONTROL", runs till its input ends
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import selectors
import socket
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

_PR_SET_TIMERSLACK = 29


# ---------------------------------------------------------------- the process


@dataclass
class Counts:
    """What went through since the proxy began."""

    turns: int = 0
    sent: int = 0  # bytes, by the clients
    received: int = 0
    connections: int = 0


class Line:
    """What the two ends of one connection share."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.client_spoke = False  # last


class End(asyncio.Protocol):
    """One end of a connection; passes on to the other what it gets."""

    def __init__(self, line: Line, *, client: bool) -> None:
        self.line = line
        self.client = client
        self.other: End | None = None
        self.transport: asyncio.Transport | None = None
        self.due = 0.0
        self.early: list[bytes] = []  # came before the other end was there

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        """Of asyncio: count, and let it go on its way."""
        counts = self.line.proxy.counts
        if self.client:
            counts.sent += len(data)
            if not self.line.client_spoke:
                counts.turns += 1
        else:
            counts.received += len(data)
        self.line.client_spoke = self.client
        if self.other is None:
            self.early.append(data)
        else:
            self._later(self.other.write, data)

    def write(self, data: bytes) -> None:
        """To the peer, now."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def close(self) -> None:
        """Once all is written."""
        if self.transport is not None:
            self.transport.close()

    def connection_lost(self, _error: Exception | None) -> None:
        """Of asyncio: the other end hears of it as late as of everything."""
        if self.other is not None:
            self._later(self.other.close)

    def join(self, other: End) -> None:
        """Both ends are there."""
        self.other = other
        for data in self.early:
            self._later(other.write, data)
        self.early.clear()

    def _later(self, act: Any, *args: Any) -> None:
        half = self.line.proxy.rtt / 2
        if not half:
            act(*args)
            return
        loop = asyncio.get_running_loop()
        self.due = max(self.due, loop.time() + half)
        loop.call_at(self.due, act, *args)


class Proxy:
    """Listens for clients, and for orders."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.rtt = 0.0
        self.counts = Counts()
        self._tasks: set[asyncio.Task[None]] = set()

    def accept(self) -> End:
        """A client: call the database for it."""
        line = Line(self)
        client = End(line, client=True)
        self.counts.connections += 1
        task = asyncio.get_running_loop().create_task(self._connect(line, client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return client

    async def _connect(self, line: Line, client: End) -> None:
        loop = asyncio.get_running_loop()
        server = End(line, client=False)
        server.other = client
        try:
            await loop.create_connection(lambda: server, "127.0.0.1", self.target)
        except OSError:
            client.close()
            return
        client.join(server)

    async def obey(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """`delay MILLISECONDS` (of a whole round trip) and `counts`; each has a line of answer."""
        while order := (await reader.readline()).decode().split():
            if order[0] == "delay":
                self.rtt = float(order[1]) / 1000
            writer.write(json.dumps(asdict(self.counts)).encode() + b"\n")
        writer.close()


async def _run(target: int) -> None:
    proxy = Proxy(target)
    loop = asyncio.get_running_loop()
    data = await loop.create_server(proxy.accept, "127.0.0.1", 0)
    control = await asyncio.start_server(proxy.obey, "127.0.0.1", 0)
    ports = [server.sockets[0].getsockname()[1] for server in (data, control)]
    sys.stdout.write(f"{ports[0]} {ports[1]}\n")
    sys.stdout.flush()
    ended = asyncio.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=wait_for_end, daemon=True).start()
    await ended.wait()


def main() -> None:
    """The process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", type=int, required=True, help="the database's port")
    target = parser.parse_args().target
    # The kernel may wake us 50 us late, which is 1 % of 5 ms; ask for 1 us.
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1000, 0, 0, 0)
    # epoll waits in whole milliseconds, select in microseconds.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    loop.run_until_complete(_run(target))


# ---------------------------------------------------------------- its handle


class Control:
    """The orders of a proxy that runs."""

    def __init__(self, port: int) -> None:
        self.control = port
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file: TextIO = self._socket.makefile("rw")
        self._lock = threading.Lock()

    def delay(self, milliseconds: float) -> None:
        """Of a whole round trip, for what comes from now on."""
        self._ask(f"delay {milliseconds}")

    def counts(self) -> Counts:
        """So far."""
        return Counts(**json.loads(self._ask("counts")))

    def _ask(self, order: str) -> str:
        with self._lock:
            self._file.write(order + "\n")
            self._file.flush()
            return self._file.readline()

    def close(self) -> None:
        """Give no more orders."""
        self._file.close()
        self._socket.close()


class Handle(Control):
    """A proxy in a process of its own."""

    def __init__(self, target: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.proxy", "--target", str(target)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        assert self._process.stdout is not None
        self.port, control = map(int, self._process.stdout.readline().split())
        super().__init__(control)

    def close(self) -> None:
        """End the process."""
        super().close()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def round_trips(delays: list[float]) -> dict[float, float]:
    """What a turn through a proxy takes at these delays: milliseconds, the median of some."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_echo, args=(server,), daemon=True).start()
        handle = Handle(server.getsockname()[1])
        found = {}
        with socket.create_connection(("127.0.0.1", handle.port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for delay in delays:
                handle.delay(delay)
                times = []
                for _ in range(30):
                    started = time.perf_counter()
                    connection.sendall(b"ping")
                    connection.recv(100)
                    times.append((time.perf_counter() - started) * 1000)
                found[delay] = round(statistics.median(times), 2)
        handle.close()
        return found


def _echo(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        while data := connection.recv(100):
            connection.sendall(data)


if __name__ == "__main__":
    main()
