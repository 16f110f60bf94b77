"""Runs scripts: anywhere, or only on a node that is sure to be the master."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import hiredis

from rome.errors import OperationalError, OutcomeUnknown
from rome.stores.base import Unbuilt
from rome.stores.redis.connection import Wire
from rome.stores.redis.link import Node
from rome.stores.redis.scripts import READ_LEASED, script

# An answer that took longer than this share of the cluster's node timeout may be of a node that
# was halted after it had looked at its lease, and that is the master no more.
_IN_TIME = 0.3
# Milliseconds that replicas get to confirm a commit.
WAIT_MS = 2000


class Runner:
    """Runs the scripts of one database.

    prefix: what its keys begin with.  built_on: the connection on which indexes are being built.
    """

    def __init__(self, wire: Wire, prefix: str) -> None:
        self.wire = wire
        self.prefix = prefix
        self.built_on: int | None = None

    def run(
        self,
        name: str,
        *arguments: bytes,
        frees: bool = False,
    ) -> Any:
        text, digest = script(name, frees)
        answers = self.wire.pipeline([("EVALSHA", digest, 1, self.prefix, *arguments)])
        if isinstance(answers[0], hiredis.ReplyError):  # NOSCRIPT
            answers = self.wire.pipeline([("EVAL", text, 1, self.prefix, *arguments)])
        return answers

    def run_on_master(
        self, name: str, argument: bytes, frees: bool = False, replicas: int = 0
    ) -> list[Any]:
        """Return the answers of a script of `FENCED`, and with `replicas` of a WAIT for them.

        Raises OperationalError or Unbuilt if it wasn't done, OutcomeUnknown if that is not known.
        """
        text, digest = script(name, frees)
        after: list[tuple[Any, ...]] = [("WAIT", replicas, WAIT_MS)] if replicas else []

        def by_name(node: Node) -> list[tuple[Any, ...]]:
            return [("EVALSHA", digest, 1, *with_lease(node)), *after]

        def by_text(node: Node) -> list[tuple[Any, ...]]:
            return [("EVAL", text, 1, *with_lease(node)), *after]

        def with_lease(node: Node) -> tuple[Any, ...]:
            if self.built_on not in (None, self.wire.connections) and name == "schema":
                self.built_on = None
                raise Unbuilt
            timeout = self._node_timeout_ms(node)
            who = (node.id if timeout else "", timeout)
            return (self.prefix, argument, *who, replicas or "", node.run)

        try:
            answers = self.wire.pipeline(by_name, stop=b"replicas")
            if isinstance(answers[0], hiredis.ReplyError):  # NOSCRIPT
                answers = self.wire.pipeline(by_text, stop=b"replicas")
        except (OperationalError, Unbuilt) as error:
            if self.wire.in_doubt:
                kind = "change of the schema" if name == "schema" else "commit"
                why = str(error) or "the connection was lost while the index was built"
                raise OutcomeUnknown(f"{why}; whether the {kind} was done is not known") from error
            raise
        return answers

    def run_leased(self, argument: bytes) -> Any:
        """Return the answer of a read that asks for leases of tables."""
        text, digest = script(READ_LEASED, False)

        def more(node: Node) -> tuple[Any, ...]:
            try:
                timeout = self._node_timeout_ms(node)
            except OperationalError:
                return (self.prefix, argument, "", 0, "", "")  # which gets none
            return (self.prefix, argument, node.id if timeout else "", timeout, "", node.run)

        answers = self.wire.pipeline(lambda node: [("EVALSHA", digest, 1, *more(node))])
        if isinstance(answers[0], hiredis.ReplyError):  # NOSCRIPT
            answers = self.wire.pipeline(lambda node: [("EVAL", text, 1, *more(node))])
        return answers[0]

    def _node_timeout_ms(self, node: Node) -> int:
        """Return the node timeout of the cluster that a node belongs to; 0: no lease is asked for.

        Raises OperationalError if it is in a cluster, or may be, and doesn't tell.
        """
        option = self.wire.server.node_timeout
        if node.id == "" or option == 0:
            return 0
        timeout = node.timeout_ms if option is None else int(option * 1000)
        if node.id is None or timeout is None:
            refused = "CLUSTER SLOTS" if node.id is None else "CONFIG GET cluster-node-timeout"
            raise OperationalError(
                f"the server refuses {refused}, so whether it is still the master can't be told,"
                " and nothing was written: allow it, or give the option node_timeout (seconds; 0:"
                " write without knowing)"
            )
        return timeout

    def run_each(self, name: str, arguments: Sequence[Sequence[bytes]]) -> list[Any]:
        """Return the answers of one script to several requests, in one round trip."""
        text, digest = script(name, False)
        commands = [("EVALSHA", digest, 1, self.prefix, *each) for each in arguments]
        answers = self.wire.pipeline(commands)
        if any(isinstance(answer, hiredis.ReplyError) for answer in answers):  # NOSCRIPT
            commands[0] = ("EVAL", text, 1, self.prefix, *arguments[0])
            answers = self.wire.pipeline(commands)
        return answers

    def in_time(self) -> bool:
        """Tell whether the last answer came while the lease that it was given under held."""
        node = self.wire.node
        timeout = self._node_timeout_ms(node) if node else 0
        return not timeout or self.wire.took * 1000 <= _IN_TIME * timeout

    def is_there(self, token: str) -> bool:
        """Tell whether the master has what was acknowledged late; False: it is lost."""
        deadline = time.monotonic() + self.wire.server.patience_s
        self.wire.in_doubt = True
        while True:
            word = self.run_on_master("confirm", token.encode())[0][0]
            if self.in_time():
                self.wire.in_doubt = word == b"done"
                return bool(word == b"done")
            if time.monotonic() > deadline:
                raise OutcomeUnknown(
                    "the master answers late; whether the commit lasts is not known"
                )
