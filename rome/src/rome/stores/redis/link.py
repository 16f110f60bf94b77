"""Sockets to Redis: connecting, TLS, the greeting, and which of several nodes to use.

The greeting asks in one round trip for all that decides whether a node is the right one: its
role, and in a Redis Cluster who has the database's slot.  Several candidates are tried side by
side, each a moment after the one before, so one that hangs delays the others by that moment only.
"""

from __future__ import annotations

import binascii
import contextlib
import errno
import os
import re
import selectors
import socket
import ssl
import time
import weakref
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import hiredis

from rome.errors import OperationalError

Address = tuple[str, int]

# Seconds until the next candidate is tried as well, and until nodes that have answered are
# asked again while the one that they named is silent.
_STAGGER_S = 0.2
_AGAIN_S = 0.5
_SLOTS = 16384
_PATIENCE_S = 15.0


@dataclass
class Hints:
    """What a process has learned of a server: its last known master, all nodes, its timeout.

    epoch: the highest configuration epoch of a master that has told it (0: none has).  It rises
    with each failover, and with each move of the slot: a master of a lower one was replaced, and
    may not know it yet.
    """

    master: Address | None = None
    nodes: tuple[Address, ...] = ()
    node_timeout_ms: int = 0
    epoch: int = 0


@dataclass(frozen=True)
class Server:
    """Where Redis is, and who asks.

    `patience` is how many seconds a command may wait for a failover or a restart, from the
    first trouble on, None for as long as those of the cluster take; `timeout` how many for one
    answer; `hold` for how many rows are held at most.  `node_timeout` is the cluster's, in
    seconds, 0 for commits without a lease, None to ask the node.  Its repr shows no password.
    """

    addresses: tuple[Address, ...]
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_check_hostname: bool = True
    timeout: float = 30.0
    connect_timeout: float = 5.0
    patience: float | None = None
    node_timeout: float | None = None
    hold: float | None = None
    hints: Hints = field(default_factory=Hints, compare=False, repr=False)

    @property
    def patience_s(self) -> float:
        """Seconds that a command may wait: where none are given, for a failover at its slowest,
        in which the master's silence is noticed after one and a half node timeouts."""
        if self.patience is not None:
            return self.patience
        return max(_PATIENCE_S, 2 * self.hints.node_timeout_ms / 1000)

    def candidates(self) -> list[Address]:
        """Return every node that may have the database: last known master, given, learned."""
        master = (self.hints.master,) if self.hints.master else ()
        return list(dict.fromkeys((*master, *self.addresses, *self.hints.nodes)))


@dataclass(frozen=True)
class Node:
    """The node at the other end of a socket.

    `id`: its name in a cluster, empty outside of one; None if it refuses to tell whether it is
    in one.  `timeout_ms`: the cluster's node timeout; None where the node refuses to tell it.
    `epoch`: its configuration epoch as it was connected; 0 where it doesn't tell it.  `run`: the id
    of the process, "" where it doesn't tell it.
    """

    address: Address
    id: str | None = ""
    timeout_ms: int | None = None
    epoch: int = 0
    run: str = ""


@dataclass(frozen=True)
class Link:
    """A socket whose greeting is done; closed with its last reference."""

    socket: socket.socket
    node: Node

    def __post_init__(self) -> None:
        # Not __del__: in a cycle of garbage the socket might be finalized before this.
        weakref.finalize(self, self.socket.close).atexit = False


class Unreachable(Exception):
    """No candidate is the master, or none answers; the text says why for each."""


class _NotTheMaster(Exception):
    """A node that answers but doesn't take the database's writes; it may know who does."""

    def __init__(self, text: str, master: Address | None = None) -> None:
        super().__init__(text)
        self.master = master


def slot_of(tag: str) -> int:
    """Return the hash slot of a hash tag in a Redis Cluster."""
    return binascii.crc_hqx(tag.encode(), 0) % _SLOTS


def connect(
    server: Server,
    slot: int,
    candidates: Iterable[Address],
    avoid: Address | None = None,
    seconds: float | None = None,
) -> Link:
    """Return a link to the master that has the slot, or to the master outside of a cluster.

    The node `avoid` isn't taken, whoever names it.  Raises Unreachable after `seconds` (default:
    the server's connect_timeout) or as soon as every candidate has said no; OperationalError if
    the user, the password or TLS files are refused.
    """
    limit = server.connect_timeout if seconds is None else seconds
    race = _Race(server, slot, candidates, avoid, time.monotonic() + limit)
    try:
        return race.run()
    finally:
        race.close()


class _Race:
    """Attempts to connect, side by side in one thread; the first master wins."""

    def __init__(
        self,
        server: Server,
        slot: int,
        candidates: Iterable[Address],
        avoid: Address | None,
        deadline: float,
    ) -> None:
        self._server, self._slot = server, slot
        self._waiting = [address for address in dict.fromkeys(candidates) if address != avoid]
        self._answered: list[Address] = []
        self._running: dict[Address, Generator[tuple[socket.socket, int], None, Link]] = {}
        self._problems: dict[Address, str] = {}
        self._refused: OperationalError | None = None
        self._avoid, self._deadline = avoid, deadline
        self._selector = selectors.DefaultSelector()

    def run(self) -> Link:
        """Return the winner's link."""
        next_start = again = 0.0
        while True:
            now = time.monotonic()
            if self._running and now >= again:
                # Somebody is silent: the others may know better by now.
                self._waiting += self._answered
                self._answered.clear()
                again = now + _AGAIN_S
            if self._waiting and (now >= next_start or not self._running):
                address = self._waiting.pop(0)
                if address not in self._running:
                    self._running[address] = _greeted(self._server, self._slot, address)
                    next_start, again = now + _STAGGER_S, now + _AGAIN_S
                    if (link := self._step(address)) is not None:
                        return link
                continue
            if not self._running:
                break
            if now >= self._deadline:
                for address in self._running:
                    self._problems[address] = "no answer"
                break
            wake = min(self._deadline, next_start if self._waiting else again)
            for key, _ in self._selector.select(max(0.0, wake - now)):
                self._selector.unregister(key.fileobj)
                before = len(self._waiting)
                if (link := self._step(key.data)) is not None:
                    return link
                if len(self._waiting) > before or not self._running:
                    next_start = 0.0
        if self._refused is not None:
            raise self._refused
        raise Unreachable("; ".join(f"{h}:{p}: {why}" for (h, p), why in self._problems.items()))

    def _step(self, address: Address) -> Link | None:
        attempt = self._running[address]
        try:
            ready, event = next(attempt)
            self._selector.register(ready, event, address)
            return None
        except StopIteration as stop:
            link: Link = stop.value
            del self._running[address]
            return link
        except _NotTheMaster as no:
            self._problems[address] = str(no)
            self._answered.append(address)
            master = no.master
            if master not in (None, self._avoid, address) and master not in self._running:
                # It is asked next, also if it has been asked before.
                self._waiting = [master, *(a for a in self._waiting if a != master)]
                self._answered = [a for a in self._answered if a != master]
        except OperationalError as error:
            self._refused = error  # unless another takes us: it may be no node of ours
        except (OSError, hiredis.ProtocolError) as error:
            self._problems[address] = str(error) or type(error).__name__
            self._answered.append(address)
        del self._running[address]
        return None

    def close(self) -> None:
        """End the attempts that are still under way."""
        for attempt in self._running.values():
            attempt.close()
        self._selector.close()


def _greeted(
    server: Server, slot: int, address: Address
) -> Generator[tuple[socket.socket, int], None, Link]:
    """Connect to a node and greet it; yields the socket and the event that it waits for."""
    problem: OSError = OSError("no address")
    for family, kind, protocol, _, place in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
        raw = socket.socket(family, kind, protocol)
        try:
            raw.setblocking(False)
            code = raw.connect_ex(place)
            if code == errno.EINPROGRESS:
                yield raw, selectors.EVENT_WRITE
                code = raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                problem = OSError(code, os.strerror(code))
                raw.close()
                continue
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if server.tls:
                raw = tls_context(server).wrap_socket(
                    raw, server_hostname=address[0], do_handshake_on_connect=False
                )
                yield from _until_done(raw, raw.do_handshake)
            answers = yield from _asked(raw, _greeting(server))
            return Link(raw, _node(server, slot, address, answers))
        except BaseException:
            raw.close()
            raise
    raise problem


def _until_done(
    ready: Any, action: Any, *arguments: Any
) -> Generator[tuple[socket.socket, int], None, Any]:
    """Return what a call on a socket that doesn't block returns, in the end."""
    while True:
        try:
            return action(*arguments)
        except ssl.SSLWantReadError:
            yield ready, selectors.EVENT_READ
        except (ssl.SSLWantWriteError, BlockingIOError):
            writes = action == ready.send
            yield ready, selectors.EVENT_WRITE if writes else selectors.EVENT_READ


def _asked(
    ready: Any, commands: list[tuple[Any, ...]]
) -> Generator[tuple[socket.socket, int], None, list[Any]]:
    """Yield the answers of commands, errors among them."""
    packed = b"".join(hiredis.pack_command(command) for command in commands)
    while packed:
        sent = yield from _until_done(ready, ready.send, packed)
        packed = packed[sent:]
    reader = hiredis.Reader()
    answers: list[Any] = []
    while len(answers) < len(commands):
        data = yield from _until_done(ready, ready.recv, 65536)
        if not data:
            raise OSError("it closed the connection")
        reader.feed(data)
        while (answer := reader.gets()) is not False:
            answers.append(answer)
    return answers


def tls_context(server: Server) -> ssl.SSLContext:
    """Tell how TLS is spoken: the server's certificate is checked, its name unless that is switched
    off; raises OperationalError if a file can't be used."""
    try:
        context = ssl.create_default_context(cafile=server.tls_ca)
        context.check_hostname = server.tls_check_hostname
        if server.tls_cert:
            # A key with a passphrase would ask for it at the terminal.
            context.load_cert_chain(server.tls_cert, server.tls_key, password=_no_passphrase)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise OperationalError(f"TLS: a file of tls_ca, tls_cert or tls_key: {error}") from error
    return context


def _no_passphrase() -> str:
    raise ValueError("the key is encrypted: give one without a passphrase")


# ---------------------------------------------------------------- the greeting


def _greeting(server: Server) -> list[tuple[Any, ...]]:
    login: list[tuple[Any, ...]] = []
    if server.password is not None:
        user = (server.username,) if server.username else ()
        login = [("AUTH", *user, server.password)]
    return [
        *login,
        ("ROLE",),
        ("CLUSTER", "SLOTS"),
        ("CLUSTER", "MYID"),
        ("CLUSTER", "INFO"),
        ("INFO", "server"),
        ("CONFIG", "GET", "cluster-node-timeout"),
    ]


def _node(server: Server, slot: int, address: Address, answers: list[Any]) -> Node:
    """Return what the greeting tells of a node; raises _NotTheMaster, OperationalError."""
    place = f"Redis at {address[0]}:{address[1]}"
    login, (role, slots, name, cluster, info, timeout) = answers[:-6], answers[-6:]
    found = re.search(rb"run_id:(\w+)", info) if isinstance(info, bytes) else None
    run = found[1].decode() if found else ""
    for answer in (*login, role):
        if isinstance(answer, hiredis.ReplyError):
            text = str(answer)
            if answer in login and text.startswith(("WRONGPASS", "ERR", "NOAUTH")):
                raise OperationalError(f"{place} refuses the user or password: {text}")
            if text.startswith("NOAUTH"):
                raise OperationalError(f"{place} wants a password: {text}")
    for answer in (role, slots):
        if isinstance(answer, hiredis.ReplyError) and not _is_refusal(str(answer)):
            raise _NotTheMaster(str(answer))  # it loads its data, or is busy
    if isinstance(slots, list):
        timeout_ms = None
        if isinstance(timeout, list) and len(timeout) == 2:
            timeout_ms = int(timeout[1])
        node = _node_of_cluster(server, slot, address, slots, name, timeout_ms)
        return replace(_newest(server, node, cluster), run=run)
    if isinstance(role, list) and role[0] == b"slave":
        host, port = role[1].decode(), int(role[2])
        raise _NotTheMaster(f"it is a replica of {host}:{port}, which takes no writes")
    if isinstance(role, list) and role[0] == b"sentinel":
        raise _NotTheMaster("it is a Sentinel, which has no data")
    server.hints.master = address
    return Node(address, None if str(slots).startswith("NOPERM") else "", run=run)


def _is_refusal(text: str) -> bool:
    """Tell whether a node knows no cluster, or doesn't let this user ask."""
    return text.startswith(("NOPERM", "ERR"))


def _node_of_cluster(
    server: Server, slot: int, address: Address, slots: list[Any], name: Any, timeout: int | None
) -> Node:
    def place(entry: list[Any]) -> Address:
        # A node that doesn't know its own address gives none.
        host = (entry[0] or b"").decode()
        return (host if host not in ("", "?") else address[0], int(entry[1]))

    owner: list[Any] | None = None
    nodes: dict[Address, None] = {}
    for first, last, *holders in slots:
        for holder in holders:
            nodes[place(holder)] = None
        if first <= slot <= last:
            owner = holders[0]
    server.hints.nodes = tuple(nodes)
    server.hints.node_timeout_ms = timeout or 0
    if owner is None:
        raise _NotTheMaster("CLUSTERDOWN: nobody has the database's slot")
    is_bytes = isinstance(name, bytes)
    if owner[2] != name if is_bytes else place(owner) != address:
        host, port = place(owner)
        raise _NotTheMaster(f"it says that {host}:{port} has the database", (host, port))
    return Node(address, owner[2].decode(), timeout)


def _newest(server: Server, node: Node, cluster: Any) -> Node:
    """Return a master with its configuration epoch, which CLUSTER INFO has.

    Raises _NotTheMaster if this process has met a later master of the database.
    """
    found = re.search(rb"cluster_my_epoch:(\d+)", cluster) if isinstance(cluster, bytes) else None
    epoch = int(found[1]) if found else 0
    if epoch and epoch < server.hints.epoch:
        raise _NotTheMaster("another node has replaced it as the master, which it doesn't know yet")
    server.hints.epoch = max(server.hints.epoch, epoch)
    server.hints.master = node.address
    return replace(node, epoch=epoch)


def close(link: Link, shutdown: bool) -> None:
    """Close a link's socket; with `shutdown` also for processes that have a copy of it."""
    with contextlib.suppress(OSError):
        if shutdown:
            link.socket.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        link.socket.close()
