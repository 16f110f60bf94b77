"""Commands to the Redis server, or to that node of a Redis Cluster, which has a database.

All keys of a database lie in one hash slot, so one socket at a time is enough.  Commands are
packed and answers parsed by hiredis.  While an answer is outstanding for long, the other nodes
are asked who the master is, so that a node that hangs is given up as soon as it is replaced.  What
one connection has found out counts for all of a process: none goes on with a master that another
one knows to be replaced, nor takes an answer of it.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import hiredis

from rome.errors import OperationalError
from rome.stores.base import Traffic
from rome.stores.redis.link import Address, Link, Node, Server, Unreachable, close, connect

# Answers of a node that may be right a moment later: it loads its data, or a failover runs.
# While keys move to another node (ASK), a script would see only some of them.  LEASE is what
# lease.lua answers: the node can't be sure that it is still the master.
_PASSING = ("ASK", "LOADING", "CLUSTERDOWN", "TRYAGAIN", "MASTERDOWN", "BUSY", "READONLY", "LEASE")
# Of these, the ones after which another node may be the master.
_ELSEWHERE = ("CLUSTERDOWN", "MASTERDOWN", "READONLY", "LEASE")

# Seconds of silence after which the other nodes are asked who the master is, and again; how
# many they get to answer; and the least between two such questions.
HUNG_S = 1.0
_ASK_S = 1.0
_ASK_AGAIN_S = 0.4

# Commands, or what makes them for the node that they go to.
Command = Sequence[Any]
Commands = Sequence[Command] | Callable[[Node], Sequence[Command]]


class Lost(Exception):
    """The connection broke; whether the last command was done is not known."""


class Wire:
    """One connection.  Not for two threads at once."""

    def __init__(self, server: Server, traffic: Traffic, slot: int = 0) -> None:
        """Connect when first asked; `slot`: the database's hash slot, for a cluster."""
        self.server = server
        self.traffic = traffic
        self.slot = slot
        self._link: Link | None = None
        self._next: Link | None = None  # to the master that others named while this one hung
        self._moved_to: Address | None = None
        self._asked = 0.0  # when others were asked for the last time
        self._reader = hiredis.Reader()
        self._process = os.getpid()
        self._owed = 0  # answers that are still to come, for which nobody waits
        # How many connections were made: a new one may lead to another server, with other
        # cursors, and without what a failover has lost.
        self.connections = 0
        # Whether a whole command was sent, since this was set to False, that had no answer.
        self.in_doubt = False
        self.took = 0.0  # seconds from sending the last commands to their answers

    @property
    def node(self) -> Node | None:
        """The node at the other end, None while there is no connection."""
        return self._link.node if self._link else None

    # ------------------------------------------------------------ commands

    def call(self, *command: str | bytes | int) -> Any:
        """Return one command's answer.

        It is sent again after a lost connection: only for commands that may be done twice.
        Raises OperationalError.
        """
        return self.pipeline([command])[0]

    def pipeline(self, commands: Commands, stop: bytes | None = None) -> list[Any]:
        """Return the answers of several commands in one round trip; raise the first error.

        `commands` may be a function that makes them for the node that they go to; it is called
        again if they are sent again.  If the first answer begins with the word `stop`, the
        others aren't waited for.
        """
        deadline: float | None = None
        attempt = 0
        while True:
            if attempt == 1:
                deadline = time.monotonic() + self.server.patience_s
            attempt += 1
            try:
                answers = self._exchange(commands, stop)
            except Lost as lost:
                if self._next is None:
                    self._wait(deadline, attempt, str(lost))
                continue
            text = _trouble(answers)
            if text is None:
                return answers
            word = text.split(" ", 1)[0]
            if word == "MOVED":
                host, _, port = text.split(" ")[2].rpartition(":")
                last = self.node.address[0] if self.node else ""
                self._moved_to = (host or last, int(port))
                self._drop()
                if attempt > 5:
                    self._wait(deadline, attempt, text)
                continue
            if word in _PASSING:
                if word in _ELSEWHERE and self._elsewhere():
                    continue
                if word == "READONLY":
                    self._drop()
                self._wait(deadline, attempt, text)
                continue
            if word == "NOSCRIPT":
                return answers
            raise OperationalError(f"Redis: {text}")

    def post(self, *command: Any) -> None:
        """Send a command for whose answer nobody waits; it may be lost."""
        link = self._link
        if link is None or self._process != os.getpid():
            return
        packed = hiredis.pack_command(command)
        try:
            link.socket.sendall(packed)
        except OSError:
            self._drop()
            return
        self.traffic.sent += len(packed)
        self._owed += 1

    def _wait(self, deadline: float | None, attempt: int, why: str) -> None:
        if deadline is not None and time.monotonic() >= deadline:
            # A cluster that was made anew begins with low epochs.
            self.server.hints.epoch = 0
            raise OperationalError(
                f"no answer from Redis: {why} (waited {self.server.patience_s:g} s)"
            )
        time.sleep(min(0.5, 0.01 * 2 ** min(attempt, 10)) * (0.5 + random.random() / 2))

    # ------------------------------------------------------------ bytes

    def _exchange(self, commands: Commands, stop: bytes | None) -> list[Any]:
        link = self._link
        if link is not None and self._is_replaced(link):
            self._drop()
            link = None
        if link is None or self._process != os.getpid():
            link = self._connect()
        batch = commands(link.node) if callable(commands) else commands
        pieces = [hiredis.pack_command(tuple(command)) for command in batch]
        packed = b"".join(pieces)
        sock, traffic = link.socket, self.traffic
        answers: list[Any] = []
        sent = 0
        stopped = False
        since: float | None = None
        started = time.monotonic()
        try:
            while sent < len(packed):
                try:
                    sent += sock.send(memoryview(packed)[sent:])
                except TimeoutError:
                    since = self._silent(since)
            traffic.round_trips += 1
            traffic.sent += len(packed)
            reader = self._reader
            while len(answers) < len(pieces):
                try:
                    data = sock.recv(262144)
                except TimeoutError:
                    since = self._silent(since)
                    continue
                if not data:
                    raise Lost("it closed the connection")
                traffic.received += len(data)
                reader.feed(data)
                while (answer := reader.gets()) is not False:
                    if self._owed:
                        self._owed -= 1
                    else:
                        answers.append(answer)
                if stop is not None and answers and _begins(answers[0], stop):
                    stopped = True
                    break
            self.took = time.monotonic() - started
            if self._is_replaced(link):
                answers.clear()
                raise Lost("another node is the master now")
            return answers
        except (OSError, hiredis.ProtocolError) as error:
            raise Lost(error) from error
        finally:
            if len(answers) < len(pieces):
                # Whatever it was, also an interruption from outside: what is still to come
                # on this socket must not be taken for the next command's answer.
                self._drop()
                if sent >= len(pieces[0]) and not stopped:
                    self.in_doubt = True

    def _is_replaced(self, link: Link) -> bool:
        """Tell whether this process knows a later master of the database."""
        return 0 < link.node.epoch < self.server.hints.epoch

    def _silent(self, since: float | None) -> float:
        """Give the node up if another is the master or the time for an answer has passed.

        Return the time since which it has said nothing; raise Lost, TimeoutError.
        """
        now = time.monotonic()
        if since is None:
            since = now - self._pause()
        if now - since >= self.server.timeout:
            raise TimeoutError("timed out")
        if self._elsewhere():
            raise Lost("it hangs, and another node is the master now")
        return since

    def _pause(self) -> float:
        return min(HUNG_S, self.server.timeout)

    def _elsewhere(self) -> bool:
        """Tell whether other nodes know another master: then the next command goes there."""
        node, now = self.node, time.monotonic()
        if node is None or now - self._asked < _ASK_AGAIN_S:
            return False
        self._asked = now
        others = [a for a in self.server.candidates() if a != node.address]
        if not others:
            return False
        try:
            link = connect(self.server, self.slot, others, avoid=node.address, seconds=_ASK_S)
        except (Unreachable, OperationalError):
            return False
        self._drop()
        self._next = link
        return True

    def _connect(self) -> Link:
        if self._process != os.getpid():
            self.close()  # sockets of the parent, which goes on to use them
            self._process = os.getpid()
        link, self._next = self._next, None
        if link is None:
            candidates = self.server.candidates()
            if self._moved_to is not None:
                candidates.insert(0, self._moved_to)
                self._moved_to = None
            try:
                link = connect(self.server, self.slot, candidates)
            except Unreachable as error:
                raise Lost(error) from error
        self._reader = hiredis.Reader()
        self._owed = 0
        link.socket.settimeout(self._pause())
        self._link = link
        self.connections += 1
        return link

    def _drop(self) -> None:
        """End the connection to this node, not the one to the node that comes next."""
        link, self._link = self._link, None
        if link is not None:
            close(link, shutdown=self._process == os.getpid())

    def close(self) -> None:
        """End the connection; the next command makes another."""
        self._drop()
        self._link, self._next = self._next, None
        self._drop()


def _begins(answer: Any, word: bytes) -> bool:
    return isinstance(answer, list) and bool(answer) and answer[0] == word


def _trouble(answers: list[Any]) -> str | None:
    """Return the first error among the answers; None if there is none."""
    for answer in answers:
        if isinstance(answer, hiredis.ReplyError):
            return str(answer)
    if _begins(answers[0], b"lease"):
        return "LEASE the master can't tell whether it still is, as it hears no majority"
    return None
