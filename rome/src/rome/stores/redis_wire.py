"""Commands to the Redis server, or to that node of a Redis Cluster, which has a database.

All keys of a database lie in one hash slot, so one socket at a time is enough.  redis-py
connects it (TLS, authentication, errors); commands then go over the socket through
hiredis, as redis-py's own path costs more than the server's answer takes.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import hiredis
import redis
import redis.connection

from rome.errors import InternalError, OperationalError
from rome.stores.base import Traffic

Address = tuple[str, int]

# Answers of a node that may be right a moment later: it loads its data, or a failover runs.
# While keys move to another node (ASK), a script would see only some of them.
_PASSING = ("ASK", "LOADING", "CLUSTERDOWN", "TRYAGAIN", "MASTERDOWN", "BUSY", "READONLY")


@dataclass(frozen=True)
class Server:
    """Where Redis is, and who asks.

    `patience` is how many seconds a command may wait for a failover or a restart, from the
    first trouble on; `timeout` how many for one answer.
    """

    addresses: tuple[Address, ...]
    username: str | None = None
    password: str | None = None
    tls: bool = False
    tls_ca: str | None = None
    timeout: float = 30.0
    connect_timeout: float = 5.0
    patience: float = 15.0


class Lost(Exception):
    """The connection broke; whether the last command was done is not known."""


class Wire:
    """One connection.  Not for two threads at once."""

    def __init__(self, server: Server, traffic: Traffic) -> None:
        self.server = server
        self.traffic = traffic
        self._address: Address | None = None
        self._connection: Any = None
        self._socket: socket.socket | None = None
        self._reader = hiredis.Reader()
        self._process = os.getpid()
        self.connections = 0  # that were made so far
        # Whether something was sent, since this was set to False, that had no answer.
        self.in_doubt = False

    # ------------------------------------------------------------ commands

    def call(self, *command: str | bytes | int) -> Any:
        """One command's answer.

        Sent again after a lost connection: only for commands that may be done twice.
        Raises OperationalError.
        """
        return self.pipeline([command])[0]

    def pipeline(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """The answers of several commands in one round trip; the first error is raised."""
        packed = b"".join(hiredis.pack_command(tuple(command)) for command in commands)
        deadline: float | None = None
        attempt = 0
        while True:
            if attempt == 1:
                deadline = time.monotonic() + self.server.patience
            attempt += 1
            try:
                answers = self._exchange(packed, len(commands))
            except Lost as lost:
                self._wait(deadline, attempt, str(lost))
                continue
            error = next((a for a in answers if isinstance(a, hiredis.ReplyError)), None)
            if error is None:
                return answers
            text = str(error)
            word = text.split(" ", 1)[0]
            if word == "MOVED":
                host, _, port = text.split(" ")[2].rpartition(":")
                self.close()
                self._address = (host or self._last_host, int(port))
                if attempt > 5:
                    self._wait(deadline, attempt, text)
                continue
            if word in _PASSING:
                if word == "READONLY":
                    self.close()
                    self._address = None
                self._wait(deadline, attempt, text)
                continue
            if word == "NOSCRIPT":
                return answers
            raise OperationalError(f"Redis: {text}")

    def _wait(self, deadline: float | None, attempt: int, why: str) -> None:
        if deadline is not None and time.monotonic() >= deadline:
            raise OperationalError(
                f"no answer from Redis: {why} (waited {self.server.patience:g} s)"
            )
        time.sleep(min(0.5, 0.01 * 2 ** min(attempt, 10)) * (0.5 + random.random() / 2))

    # ------------------------------------------------------------ bytes

    def _exchange(self, packed: bytes, count: int) -> list[Any]:
        if self._socket is None or self._process != os.getpid():
            self._connect()
        if self._socket is None:
            raise InternalError("no socket")
        traffic = self.traffic
        done = False
        try:
            self._socket.sendall(packed)
            traffic.round_trips += 1
            traffic.sent += len(packed)
            answers: list[Any] = []
            reader = self._reader
            while len(answers) < count:
                data = self._socket.recv(262144)
                if not data:
                    raise Lost("it closed the connection")
                traffic.received += len(data)
                reader.feed(data)
                while (answer := reader.gets()) is not False:
                    answers.append(answer)
            done = True
            return answers
        except (OSError, hiredis.ProtocolError) as error:
            raise Lost(error) from error
        finally:
            if not done:
                self.in_doubt = True
                # Whatever it was, also an interruption from outside: what is still to come
                # on this socket must not be taken for the next command's answer.
                self.close()
                self._address = None  # that node may be gone, or hang: ask all others

    def _connect(self) -> None:
        if self._process != os.getpid():
            # A socket of the parent: it goes on there, so it is closed, but not shut down.
            self._connection = self._socket = self._address = None
            self._process = os.getpid()
        self._reader = hiredis.Reader()
        problems = []
        candidates = [self._address] if self._address else list(self.server.addresses)
        for address in candidates:
            try:
                self._open(address)
                return
            except redis.AuthenticationError as error:
                raise OperationalError(
                    f"Redis at {address[0]}:{address[1]} refuses the user or password: {error}"
                ) from error
            except (redis.RedisError, OSError) as error:
                problems.append(f"{address[0]}:{address[1]}: {error}")
        self._address = None  # the node that had the database may be gone: ask the others
        raise Lost("; ".join(problems))

    def _open(self, address: Address) -> None:
        server = self.server
        options: dict[str, Any] = {
            "host": address[0],
            "port": address[1],
            "username": server.username,
            "password": server.password,
            # Also for the answers to its greeting: a node that hangs may still accept.
            "socket_timeout": server.connect_timeout,
            "socket_connect_timeout": server.connect_timeout,
            "protocol": 2,
        }
        kind: Any = redis.connection.Connection
        if server.tls:
            kind = redis.connection.SSLConnection
            options |= {"ssl_ca_certs": server.tls_ca}
        connection = kind(**options)
        connection.connect()
        self._connection = connection
        self._socket = connection._sock
        connection._sock.settimeout(server.timeout)
        self._address = address
        self.connections += 1
        self._last_host = address[0]

    def close(self) -> None:
        """End the connection; the next command makes another."""
        connection, self._connection, self._socket = self._connection, None, None
        if connection is not None and self._process == os.getpid():
            with contextlib.suppress(Exception):
                connection.disconnect()
