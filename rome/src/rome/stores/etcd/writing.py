"""Transactions that write: their limits, their leases, and what a lost answer leaves open."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from rome.errors import OperationalError, OutcomeUnknown
from rome.stores.etcd.commit import VOID, arranged
from rome.stores.etcd.connection import LeaseLost, Refused, Wire, is_lease_lost, remedy
from rome.stores.etcd.operations import (
    Compare,
    Delete,
    Json,
    Put,
    Range,
    Txn,
    is_absent,
    unpack_ranges,
)

# Fewer operations in a transaction than these would leave no room for a commit.
LEAST_OPERATIONS = 32
# Outcomes that one lease has at most: etcd removes all of them in one step when it ends.
_KEYS_OF_A_LEASE = 4000


class Writing:
    """The writes of one connection.

    remember: seconds that the outcome of a commit can be asked for.
    """

    def __init__(self, wire: Wire, remember: int) -> None:
        self._wire = wire
        self._remember = remember

    def write(self, conditions: Sequence[Compare], writes: Sequence[Put | Delete]) -> bool:
        """Do what may be done twice; tell whether the conditions held."""
        return bool(self.send(arranged(conditions, writes, (), (), self.most)).get("succeeded"))

    @property
    def most(self) -> int:
        """How many operations a transaction may have."""
        return self._wire.server.txn_ops

    def send(self, txn: Txn) -> Json:
        """Return the answer to a transaction.  Raises LeaseLost, OperationalError."""
        writes = bool(txn.then)
        try:
            return self._wire.call("/v3/kv/txn", txn.request(), writes)
        except Refused as refused:
            if is_lease_lost(refused):
                self._wire.server.hints.lease = None
                raise LeaseLost from refused
            text = str(refused)
            raise OperationalError(f"etcd: {text}{remedy(text, self.most)}") from refused

    def lease(self, remember: int = 0) -> int:
        """Return a lease that goes on for as long as an outcome has to be remembered."""
        seconds = max(self._remember, remember)
        hints, now = self._wire.server.hints, time.monotonic()
        if hints.lease is not None:
            number, taken, length = hints.lease
            if now - taken < length - seconds and hints.keys_of_lease < _KEYS_OF_A_LEASE:
                hints.keys_of_lease += 1
                return number
        length = 2 * seconds
        hints.lease, hints.keys_of_lease = (self._grant(length), now, length), 1
        return hints.lease[0]

    def lease_of_holds(self, seconds: float) -> tuple[int, float]:
        """Return a lease for rows that are held for so many seconds, and when it ends at the
        earliest, on the monotonic clock."""
        hints, now = self._wire.server.hints, time.monotonic()
        if hints.lease_of_holds is None or hints.lease_of_holds[1] < now + seconds:
            length = max(math.ceil(2 * seconds), 1)
            hints.lease_of_holds = self._grant(length), now + length
        return hints.lease_of_holds

    def _grant(self, seconds: int) -> int:
        try:
            answer = self._wire.call("/v3/lease/grant", {"TTL": seconds})
        except Refused as refused:
            text = f"{refused}{remedy(str(refused), self.most)}"
            raise OperationalError(f"etcd grants no lease: {text}") from refused
        return int(answer["ID"])

    # ------------------------------------------------------------ outcomes

    def begin(self) -> None:
        """Begin a write whose outcome must be known in the end."""
        self._wire.in_doubt = False

    def ended(self, what: str, action: Callable[[], Any]) -> Any:
        """Return what an action does.  Raises OutcomeUnknown if nobody knows if it was done."""
        try:
            return action()
        except OutcomeUnknown:
            raise
        except OperationalError as error:
            if self._wire.in_doubt:
                raise OutcomeUnknown(
                    f"{error}; whether the {what} was done is not known"
                ) from error
            raise

    def outcome(self, key: bytes) -> bytes | None:
        """Return the outcome under a token's key, and see to it that there will be no other.

        What was refused after a lost answer must not be done later, by a request that is still
        under way: then its outcome is VOID from now on.  None: there was no such request.
        """
        if not self._wire.in_doubt:
            return None
        while True:
            try:
                void = Txn([is_absent(key)], [Put(key, VOID, self.lease())], [Range(key)])
                answer = self.send(void)
                break
            except LeaseLost:
                continue
        self._wire.in_doubt = False
        if answer.get("succeeded"):
            return VOID
        (found,) = unpack_ranges(answer.get("responses", ()))
        return found.pairs[0].value if found.pairs else VOID
