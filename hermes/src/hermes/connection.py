"""One connection to a NATS server, kept up: what a process publishes and is subscribed to.

A thread of its own connects, reads, answers pings, and writes what didn't go out at once.  Callers
write to the socket themselves where nothing waits before them, which saves a change of threads; no
caller ever waits for a socket, but for room in the buffer, and no longer than it says.  What is
published while there is no connection waits in the buffer, too.

What a dying connection had taken may be lost: whoever needs to know gets an answer, or asks
(`hermes.session`).
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import random
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hermes import protocol
from hermes.errors import Closed, Full, ProtocolError, Refused

LOG = logging.getLogger(__name__)

_READ = 256 * 1024
_LONGEST_INFO = protocol.MOST_LINE
Callback = Callable[[protocol.Message], None]


@dataclass(frozen=True)
class Address:
    """Where a server listens, and who we are to it."""

    host: str
    port: int
    user: str = ""
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Settings:
    """How a connection is kept: times in seconds, sizes in bytes.

    A server that says nothing for `ping_every_s` is asked whether it is there, and given up when
    it doesn't answer for twice as long.
    """

    name: str = ""
    connect_within_s: float = 2.0
    ping_every_s: float = 5.0
    retry_first_s: float = 0.05
    retry_most_s: float = 2.0
    most_waiting: int = 64 * 2**20
    tls: ssl.SSLContext | None = None


@dataclass
class Subscription:
    """What is subscribed to; `callback` is called in the connection's thread, and must be quick."""

    sid: int
    subject: str
    group: str
    callback: Callback


class Connection:
    """A connection that comes back by itself, to one of several servers in turn.

    `on_state` is called in its thread: True once it is there (again), False when it is lost.
    """

    def __init__(
        self,
        servers: Sequence[Address],
        settings: Settings,
        on_state: Callable[[bool], None] = lambda _up: None,
    ) -> None:
        self.settings = settings
        self.max_payload = 2**20
        self.last_error = "not connected yet"
        self.reconnects = 0
        self._servers = list(servers)
        random.shuffle(self._servers)
        self._on_state = on_state
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._socket: socket.socket | None = None
        # Frames that wait, and how much of the first has gone out.
        self._waiting: collections.deque[bytes] = collections.deque()
        self._waiting_size = self._gone = 0
        self._subscriptions: dict[int, Subscription] = {}
        self._next_sid = 1
        self._pongs: collections.deque[threading.Event | None] = collections.deque()
        self._up = threading.Event()
        self._closing = False
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        os.set_blocking(self._wake_read, False)
        self._thread = threading.Thread(target=self._run, name="hermes", daemon=True)
        self._thread.start()

    # ------------------------------------------------ for callers

    @property
    def is_up(self) -> bool:
        """Tell whether there is a connection just now."""
        return self._up.is_set()

    def wait_until_up(self, within_s: float) -> bool:
        """Wait for a connection; tells whether there is one."""
        return self._up.wait(within_s)

    def publish(
        self,
        subject: str,
        payload: bytes,
        reply: str = "",
        deadline: float | None = None,
        identifier: str = "",
    ) -> None:
        """Send a message, or leave it for the thread to send.

        `deadline` is a moment of time.monotonic() until which room is waited for; None: not at all.
        Raises Full where there was none, Closed after `close`, ValueError where no server takes a
        payload of that size.
        """
        if len(payload) > self.max_payload:
            raise ValueError(f"{len(payload)} bytes, more than the {self.max_payload} of a message")
        self._send(protocol.publish(subject, payload, reply, identifier), deadline)

    def subscribe(self, subject: str, callback: Callback, group: str = "") -> Subscription:
        """Subscribe, now and after each reconnection, until `unsubscribe`."""
        with self._lock:
            made = Subscription(self._next_sid, subject, group, callback)
            self._next_sid += 1
            self._subscriptions[made.sid] = made
            if self._socket is not None:
                self._put(protocol.subscribe(subject, made.sid, group))
        return made

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription; what is on its way may still come."""
        with self._lock:
            if self._subscriptions.pop(subscription.sid, None) and self._socket is not None:
                self._put(protocol.unsubscribe(subscription.sid))

    def flush(self, within_s: float) -> bool:
        """Wait until the server has taken all that was said; tells whether it has."""
        done = threading.Event()
        with self._lock:
            if self._socket is None or self._closing:
                return False
            self._pongs.append(done)
            self._put(protocol.PING)
        return done.wait(within_s)

    def close(self, within_s: float = 5.0) -> None:
        """Send what waits, as far as that goes within a time, and end the connection for good."""
        if self.is_up:
            self.flush(within_s)
        with self._lock:
            self._closing = True
            self._room.notify_all()
        self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join(within_s + self.settings.connect_within_s + 1)

    def abandon(self) -> None:
        """Let go of a connection that is another process's: this one was forked from it."""
        self._closing = True
        connected, self._socket = self._socket, None
        descriptors = [self._wake_read, self._wake_write]
        if connected is not None:
            descriptors.append(connected.detach())  # TLS would say good-bye in the other's name
        for descriptor in descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    # ------------------------------------------------ writing

    def _send(self, frame: bytes, deadline: float | None) -> None:
        with self._lock:
            while self._waiting_size + len(frame) > self.settings.most_waiting:
                left = 0.0 if deadline is None else deadline - time.monotonic()
                if self._closing or left <= 0 or not self._room.wait(left):
                    break
            if self._closing:
                raise Closed("the connection is closed")
            if self._waiting_size + len(frame) > self.settings.most_waiting:
                raise Full(f"{self._waiting_size} bytes wait to be sent: {self.last_error}")
            self._put(frame)

    def _put(self, frame: bytes) -> None:
        """Send a frame or have it wait; the lock is held."""
        gone = 0
        if self._socket is not None and not self._waiting and self.settings.tls is None:
            try:
                gone = self._socket.send(frame)
            except BlockingIOError:
                pass
            except OSError:  # the thread sees it as well, and connects anew
                pass
            if gone == len(frame):
                return
        if not self._waiting:
            self._gone = gone
        self._waiting.append(frame)
        self._waiting_size += len(frame)
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._wake_write, b"x")

    def _write_waiting(self, connected: socket.socket) -> None:
        """Send what waits, as much as the socket takes."""
        with self._lock:
            while self._waiting:
                frame = self._waiting[0]
                try:
                    self._gone += connected.send(memoryview(frame)[self._gone :])
                except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                    return
                if self._gone == len(frame):
                    self._waiting.popleft()
                    self._waiting_size -= len(frame)
                    self._gone = 0
                    self._room.notify_all()

    # ------------------------------------------------ the thread

    def _run(self) -> None:
        wait_s, number = self.settings.retry_first_s, 0
        while not self._closing:
            address = self._servers[number % len(self._servers)]
            number += 1
            try:
                connected, parser = self._connect(address)
            except (OSError, ProtocolError, Refused, ValueError) as error:
                self.last_error = f"{address}: {error}"
                if number % len(self._servers) == 0:  # none of them takes us
                    self._rest(wait_s * random.uniform(0.5, 1.0))
                    wait_s = min(2 * wait_s, self.settings.retry_most_s)
                continue
            wait_s = self.settings.retry_first_s
            try:
                self._serve(connected, parser)
                self.last_error = f"{address}: closed"
            except (OSError, ProtocolError) as error:
                self.last_error = f"{address}: {error}"
                if not self._closing:
                    LOG.warning("lost the connection to %s", self.last_error)
            finally:
                self._lose(connected)
                number -= 1  # it may be back at once
        for descriptor in (self._wake_read, self._wake_write):
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _rest(self, seconds: float) -> None:
        """Wait, unless the connection is closed meanwhile."""
        latest = time.monotonic() + seconds
        while not self._closing and (left := latest - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))

    def _connect(self, address: Address) -> tuple[socket.socket, protocol.Parser]:
        """Return a socket whose server has taken us and our subscriptions."""
        connected = socket.create_connection(
            (address.host, address.port), self.settings.connect_within_s
        )
        try:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT,
                int(3000 * self.settings.ping_every_s),
            )  # fmt: skip
            info = _read_info(connected, self.settings.connect_within_s)
            if self.settings.tls is not None:
                connected = self.settings.tls.wrap_socket(connected, server_hostname=address.host)
            elif info.get("tls_required"):
                raise Refused("the server speaks TLS alone; write nats+tls://")
            if not info.get("headers"):
                raise Refused(f"NATS {info.get('version')} knows no headers; 2.2 is the first")
            most = info.get("max_payload")
            if isinstance(most, int):
                self.max_payload = min(most, protocol.MOST_PAYLOAD)
            connected.sendall(self._hello(address))
            parser = protocol.Parser()
            self._await_pong(connected, parser)
            connected.setblocking(False)
        except BaseException:
            connected.close()
            raise
        self._begin(connected)
        return connected, parser

    def _hello(self, address: Address) -> bytes:
        options: dict[str, object] = {
            "verbose": False, "pedantic": False, "lang": "python", "version": "hermes",
            "protocol": 1, "headers": True, "no_responders": True, "name": self.settings.name,
            "tls_required": self.settings.tls is not None,
        }  # fmt: skip
        if address.user:
            options |= {"user": address.user, "pass": address.password}
        return protocol.connect(options) + protocol.PING

    def _await_pong(self, connected: socket.socket, parser: protocol.Parser) -> None:
        """Wait until the server has taken us; raises Refused where it doesn't."""
        latest = time.monotonic() + self.settings.connect_within_s
        while True:
            connected.settimeout(max(0.001, latest - time.monotonic()))
            data = connected.recv(_READ)
            if not data:
                raise ConnectionError("it hung up")
            for event in parser.feed(data):
                if isinstance(event, protocol.Error):
                    raise Refused(event.words)
                if isinstance(event, protocol.Pong):
                    return

    def _begin(self, connected: socket.socket) -> None:
        """Have callers use a new socket, after all subscriptions."""
        with self._lock:
            subscriptions = b"".join(
                protocol.subscribe(each.subject, each.sid, each.group)
                for each in self._subscriptions.values()
            )
            self._gone = 0  # of the first frame that waits a part may have gone to another server
            if subscriptions:
                self._waiting.appendleft(subscriptions)
                self._waiting_size += len(subscriptions)
            self._pongs.clear()
            self._socket = connected

    def _serve(self, connected: socket.socket, parser: protocol.Parser) -> None:
        """Read and write until the connection is lost or closed."""
        self._write_waiting(connected)
        self._up.set()
        self._on_state(True)
        heard = time.monotonic()
        asked = 0
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_read, selectors.EVENT_READ)
            watched = selectors.EVENT_READ
            selector.register(connected, watched)
            while not self._closing:
                wanted = selectors.EVENT_READ
                if self._waiting:
                    wanted |= selectors.EVENT_WRITE
                if wanted != watched:
                    watched = wanted
                    selector.modify(connected, watched)
                silent_s = time.monotonic() - heard
                if silent_s >= (asked + 1) * self.settings.ping_every_s:
                    if asked >= 2:
                        raise ConnectionError(f"it has been silent for {silent_s:.1f} s")
                    asked += 1
                    with self._lock:
                        self._pongs.append(None)
                        self._put(protocol.PING)
                    continue
                ready = selector.select((asked + 1) * self.settings.ping_every_s - silent_s)
                for key, events in ready:
                    if key.fileobj == self._wake_read:
                        with contextlib.suppress(BlockingIOError):
                            os.read(self._wake_read, 4096)
                        continue
                    if events & selectors.EVENT_READ and self._read(connected, parser):
                        heard, asked = time.monotonic(), 0
                if self._waiting:
                    self._write_waiting(connected)

    def _read(self, connected: socket.socket, parser: protocol.Parser) -> bool:
        """Read once and hand on what came; raises ConnectionError at the end."""
        try:
            data = connected.recv(_READ)
            while isinstance(connected, ssl.SSLSocket) and connected.pending():
                data += connected.recv(connected.pending())
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        if not data:
            raise ConnectionError("it hung up")
        for event in parser.feed(data):
            self._handle(event)
        return True

    def _handle(self, event: protocol.Event) -> None:
        if isinstance(event, protocol.Message):
            subscription = self._subscriptions.get(event.sid)
            if subscription is None:
                return
            try:
                subscription.callback(event)
            except Exception:
                LOG.exception("a message on %s can't be handled", event.subject)
        elif isinstance(event, protocol.Ping):
            with self._lock:
                self._put(protocol.PONG)
        elif isinstance(event, protocol.Pong):
            with self._lock:
                waiting = self._pongs.popleft() if self._pongs else None
            if waiting is not None:
                waiting.set()
        elif isinstance(event, protocol.Error):
            LOG.warning("the server says: %s", event.words)
            self.last_error = event.words

    def _lose(self, connected: socket.socket) -> None:
        """Have nobody use a socket any more."""
        with self._lock:
            self._socket = None
            self._gone = 0
            self._pongs.clear()
        connected.close()
        was_up = self._up.is_set()
        self._up.clear()
        if was_up:
            self.reconnects += 1
            self._on_state(False)


def _read_info(connected: socket.socket, within_s: float) -> dict[str, object]:
    """Return what a server says first; TLS may begin right behind it, so no byte more is read."""
    latest = time.monotonic() + within_s
    line = bytearray()
    while not line.endswith(protocol.END):
        connected.settimeout(max(0.001, latest - time.monotonic()))
        byte = connected.recv(1)
        if not byte:
            raise ConnectionError("it hung up")
        line += byte
        if len(line) > _LONGEST_INFO:
            raise ProtocolError("it doesn't say who it is")
    for event in protocol.Parser().feed(line):
        if isinstance(event, protocol.Info):
            return dict(event.values)
    raise ProtocolError(f"no NATS server: {bytes(line[:80])!r}")
