"""Requests to a member of an etcd cluster, through its JSON gateway.

etcd speaks gRPC, and JSON over HTTP at the same port.  Python's gRPC library is larger than all of
ROME, and what is needed here is a POST on a connection that is kept, so the standard library does
it.  (etcd3gw, OpenStack's client of the gateway, asks one member only and leaves transactions to
its caller as JSON.)

Members are asked in the order of the URL: the first is the one of this site.  Where it doesn't
answer, or has no leader, the next one is asked; after a while the first one again.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import random
import select
import socket
import time
import weakref
from dataclasses import dataclass, field
from typing import Any

from rome.errors import OperationalError
from rome.stores.base import Traffic
from rome.stores.etcd.operations import Json
from rome.stores.etcd.seen import Seen

Address = tuple[str, int]

_PATIENCE_S = 15.0
# Seconds after which the first member is tried again, twice as many each time that it fails.
_RETURN_S, _RETURN_MOST_S = 10.0, 300.0
_HEALTH_S = 2.0
# etcd answers after 7 seconds at the latest (5 and two election timeouts of 1): then the cluster
# is what doesn't work.  Who is silent for longer hangs.
ANSWER_S = 10.0

# gRPC's codes: canceled, unknown, deadline exceeded, unavailable; permission denied, no token.
_PASSING = (1, 2, 4, 14)
_DENIED, _UNAUTHENTICATED = 7, 16
# Answers after which the request wasn't done and may be tried again.
_NOT_DONE = ("no leader", "not leader", "too many requests", "proposal dropped", "learner")
# Tokens that are too old, or that another member doesn't know.
_OLD_TOKEN = ("invalid auth token", "revision of auth store is old")


@dataclass
class Hints:
    """What the connections of an engine have learned of a cluster and of the database.

    revision: the highest one that an answer had: what is older isn't shown any more.  place: of the
    member that is asked, in the list of addresses.  away_since: when another than the first one was
    chosen, or the first one was tried again; away_for: seconds until that is done the next time.
    lease: an id, when it was taken, and for how many seconds; keys_of_lease: how many it has.
    lease_of_holds: an id, and until when it lasts at least.
    seen: rows, as they were last; counters: by their keys, what was last reserved and when.
    Times are in seconds of the monotonic clock.
    """

    revision: int = 0
    place: int = 0
    away_since: float = 0.0
    away_for: float = _RETURN_S
    lease: tuple[int, float, int] | None = None
    keys_of_lease: int = 0
    lease_of_holds: tuple[int, float] | None = None
    seen: Seen = field(default_factory=Seen)
    counters: dict[bytes, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Server:
    """Where etcd is, and who asks for one database; its repr shows no password.

    `patience` is how many seconds a request may wait for an election or a restart, from the first
    trouble on, `timeout` how many for one answer.  `local_reads`: whether reads show what the
    asked member has, which may lack the latest commits.  `txn_ops`: its `--max-txn-ops`.  `hold` is
    how many seconds rows are held at least.
    """

    addresses: tuple[Address, ...]
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    timeout: float = ANSWER_S
    connect_timeout: float = 5.0
    patience: float = _PATIENCE_S
    local_reads: bool = False
    txn_ops: int = 128
    hold: float | None = None
    hints: Hints = field(default_factory=Hints, compare=False, repr=False)


class Refused(Exception):
    """etcd has refused a request, and nothing was done; the text is etcd's."""


class LeaseLost(Exception):
    """The lease of a transaction is over, and nothing was done."""


class Trouble(Exception):
    """A member doesn't answer, or can't now; `done`: whether the request may have been done."""

    def __init__(self, text: str, done: bool) -> None:
        super().__init__(text)
        self.done = done


class _Stream(io.BufferedReader):
    """What comes on a socket.  HTTPResponse closes what it reads from, but several answers may
    follow each other here."""

    def makefile(self, _mode: str) -> _Stream:
        """Return what an answer is read from."""
        return self

    def close(self) -> None:
        """Do nothing: the socket is closed by its link."""


class Link:
    """One HTTP connection to a member, closed with its last reference.

    owed: answers to come that nobody waits for.
    """

    def __init__(self, address: Address, seconds: float, timeout: float) -> None:
        self.address = address
        self.socket = socket.create_connection(address, seconds)
        self.socket.settimeout(timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.owed = 0
        self._stream: Any = _Stream(socket.SocketIO(self.socket, "r"))
        weakref.finalize(self, self.socket.close).atexit = False

    def is_over(self) -> bool:
        """Tell whether the member has closed it, so that a request on it would be in doubt."""
        try:
            while select.select([self.socket], [], [], 0)[0]:
                if not self.owed:
                    return True  # no answer is outstanding: what can be read is the end
                *_, ends = self.answer()
                self.owed -= 1
                if ends:
                    return True
        except (OSError, http.client.HTTPException):
            return True
        except ValueError:
            pass  # select knows no more than 1024 files
        return False

    def answer(self) -> tuple[int, bytes, int, bool]:
        """Return the status and the text of the next answer, the bytes of its head, and whether the
        member ends the connection with it.  Raises OSError, HTTPException."""
        response = http.client.HTTPResponse(self._stream, method="POST")
        try:
            response.begin()
            text = response.read()
        finally:
            response.close()
        head = sum(len(name) + len(value) + 4 for name, value in response.getheaders()) + 19
        return response.status, text, head, response.will_close

    def close(self, shutdown: bool) -> None:
        """Close it; with `shutdown` also for processes that have a copy of it."""
        with contextlib.suppress(OSError):
            if shutdown:
                self.socket.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self.socket.close()


class Wire:
    """One connection to a cluster.  Not for two threads at once."""

    def __init__(self, server: Server, traffic: Traffic) -> None:
        """Connect when first asked."""
        self.server = server
        self.traffic = traffic
        self._link: Link | None = None
        self._token = ""  # that the member gave for user and password
        self._asked: Address | None = None  # the member that got the last request
        self._process = os.getpid()
        # Whether a request that writes was sent, since this was set to False, of which nobody said
        # whether it was done.
        self.in_doubt = False
        self._writes = False  # whether the request that is being sent does

    # ------------------------------------------------------------ requests

    def call(self, path: str, body: Json, writes: bool = False) -> Json:
        """Return the answer to a request, which may be sent several times.

        Raises Refused, and OperationalError if nobody answers.
        """
        data = json.dumps(body, separators=(",", ":")).encode()
        self._writes = writes
        deadline: float | None = None
        attempt = 0
        while True:
            attempt += 1
            try:
                answer = self._exchange(path, data)
            except Trouble as trouble:
                self.in_doubt = self.in_doubt or (writes and trouble.done)
                now = time.monotonic()
                if deadline is None:
                    deadline = now + self.server.patience
                self._next_member(now)
                if now >= deadline:
                    raise OperationalError(
                        f"no answer from etcd: {trouble} (waited {self.server.patience:g} s)"
                    ) from trouble
                if attempt % len(self.server.addresses) == 0:
                    rounds = attempt // len(self.server.addresses)
                    time.sleep(min(0.5, 0.01 * 2 ** min(rounds, 10)) * (0.5 + random.random() / 2))
                continue
            revision = int(answer.get("header", {}).get("revision", 0))
            hints = self.server.hints
            hints.revision = max(hints.revision, revision)
            return answer

    def _exchange(self, path: str, data: bytes) -> Json:
        link = self._connected()
        if self.server.username is not None and not self._token:
            self._log_in(link)
        status, answer = self._post(link, path, data)
        if status != 200 and self._token and _is_old_token(answer):
            self._log_in(link)
            status, answer = self._post(link, path, data)
        if status == 200:
            return answer
        text = str(answer.get("error") or answer.get("message") or f"HTTP status {status}")
        code = answer.get("code")
        if any(words in text for words in _NOT_DONE):
            raise Trouble(text, done=False)
        if code in _PASSING or (code is None and status >= 500):
            raise Trouble(text, done=True)
        if "user name is empty" in text:
            raise OperationalError(f"{_place(link)} wants a user and a password: {text}")
        if code == _DENIED:
            raise OperationalError(f"{_place(link)} refuses this to the user: {text}")
        if code is None:
            raise OperationalError(
                f"{_place(link)} doesn't answer as etcd's JSON gateway does ({text}): is it etcd"
                " 3.4 or newer, without TLS, and not started with --enable-grpc-gateway=false?"
            )
        raise Refused(text)

    def _log_in(self, link: Link) -> None:
        body = {"name": self.server.username, "password": self.server.password or ""}
        status, answer = self._post(link, "/v3/auth/authenticate", json.dumps(body).encode())
        if status == 200:
            self._token = str(answer.get("token", ""))
            return
        text = str(answer.get("error") or f"HTTP status {status}")
        if answer.get("code") in _PASSING:
            raise Trouble(text, done=False)
        if "not enabled" in text:
            text += "; leave user and password out of the URL, or enable it"
        raise OperationalError(f"{_place(link)} refuses the user or password: {text}")

    def post(self, path: str, body: Json) -> None:
        """Send a request for whose answer nobody waits; it may be lost."""
        link = self._link
        if link is None or self._process != os.getpid():
            return
        request = self._packed(link, path, json.dumps(body, separators=(",", ":")).encode())
        try:
            link.socket.sendall(request)
        except OSError:
            self._drop()
            return
        self.traffic.sent += len(request)
        link.owed += 1

    def _packed(self, link: Link, path: str, data: bytes) -> bytes:
        host, port = link.address
        login = f"Authorization: {self._token}\r\n" if self._token else ""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
            f"{login}Content-Length: {len(data)}\r\n\r\n"
        )
        return head.encode() + data

    def _post(self, link: Link, path: str, data: bytes) -> tuple[int, Json]:
        """Return the status and the answer of one request on a connection.  Raises Trouble."""
        request = self._packed(link, path, data)
        traffic = self.traffic
        sent = answered = False
        try:
            link.socket.sendall(request)
            sent = True
            traffic.round_trips += 1
            traffic.sent += len(request)
            ends = False
            while link.owed and not ends:
                *_, ends = link.answer()
                link.owed -= 1
            if ends:
                raise http.client.RemoteDisconnected("")
            status, text, head, ends = link.answer()
            answered = True
            traffic.received += len(text) + head
            if ends:
                self._drop()
        except (OSError, http.client.HTTPException) as error:
            # Of half a request nothing is done.
            why = "it closed the connection" if _is_end(error) else str(error)
            raise Trouble(f"{_place(link)}: {why or type(error).__name__}", done=sent) from error
        finally:
            if not answered:
                # Whatever it was, also an interruption from outside: what is still to come must
                # not be taken for the next request's answer.
                self.in_doubt = self.in_doubt or (sent and self._writes)
                self._drop()
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            answer = {"error": text[:200].decode(errors="replace").strip()}
        return status, answer

    # ------------------------------------------------------------ members

    def _connected(self) -> Link:
        if self._process != os.getpid():
            self.close()  # sockets of the parent, which goes on to use them
            self._process = os.getpid()
        hints, addresses = self.server.hints, self.server.addresses
        if hints.place and time.monotonic() - hints.away_since > hints.away_for:
            self._try_to_return()
        link = self._link
        if link is not None and not hints.place and link.address != addresses[0]:
            self._drop()  # somebody has found that the first member works again
        elif link is not None and link.is_over():
            self._drop()
        if self._link is None:
            address = self._asked = addresses[hints.place]
            self._token = ""
            try:
                self._link = Link(address, self.server.connect_timeout, self.server.timeout)
            except OSError as error:
                host, port = address
                raise Trouble(f"{host}:{port}: {error}", done=False) from error
        return self._link

    def _next_member(self, now: float) -> None:
        """Ask another member than this connection has asked; all new connections do."""
        self._drop()
        hints, addresses = self.server.hints, self.server.addresses
        if addresses[hints.place] == self._asked:
            hints.place = (hints.place + 1) % len(addresses)
            hints.away_since = now

    def _try_to_return(self) -> None:
        """Ask the first member again, if it says that it works."""
        hints = self.server.hints
        hints.away_since = time.monotonic()
        hints.away_for = min(2 * hints.away_for, _RETURN_MOST_S)
        if is_healthy(self.server.addresses[0]):
            hints.place, hints.away_for = 0, _RETURN_S

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close(shutdown=self._process == os.getpid())

    def close(self) -> None:
        """End the connection; the next request makes another."""
        self._drop()


def is_healthy(address: Address) -> bool:
    """Tell whether a member has a leader and answers reads."""
    connection = http.client.HTTPConnection(*address, timeout=_HEALTH_S)
    try:
        connection.request("GET", "/health")
        answer: Any = json.loads(connection.getresponse().read())
        return isinstance(answer, dict) and answer.get("health") == "true"
    except (OSError, http.client.HTTPException, ValueError):
        return False
    finally:
        connection.close()


def remedy(text: str, most: int) -> str:
    """Return what to do about a refusal; most: operations that the URL promises."""
    if "too many operations" in text:
        return (
            f": the URL says that it takes {most} (?txn_ops=); say what the members'"
            " --max-txn-ops is"
        )
    if "too large" in text or "larger than max" in text:
        return (
            ": write in smaller portions or smaller values, or start etcd with a higher"
            " --max-request-bytes (1.5 MiB where nothing is said)"
        )
    if "space exceeded" in text:
        return (
            ": compact and defragment it (etcdctl compact, defrag), or raise"
            " --quota-backend-bytes; then etcdctl alarm disarm"
        )
    return ""


def is_lease_lost(refused: Refused) -> bool:
    """Tell whether a request was refused as the lease that it names is over."""
    return "lease not found" in str(refused)


def _is_old_token(answer: Json) -> bool:
    """Tell whether a member has forgotten a token, or doesn't know another member's."""
    text = str(answer.get("error"))
    return answer.get("code") == _UNAUTHENTICATED or any(words in text for words in _OLD_TOKEN)


def _place(link: Link) -> str:
    host, port = link.address
    return f"etcd at {host}:{port}"


def _is_end(error: Exception) -> bool:
    return isinstance(error, http.client.RemoteDisconnected | http.client.IncompleteRead)
