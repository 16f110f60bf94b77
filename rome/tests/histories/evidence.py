"""What a history shows of each transaction: who wrote what, who saw it, and what was done.

A transaction was done if its commit was acknowledged.  One whose outcome is not known was done if
somebody saw a value of it, if another that was done built on it, or if only it explains that a
row is gone.  Anomalies that show without any order of versions are found here: G1a, lost-update
and resurrected (`versions` says what they are).
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Iterable

from tests.histories.model import (
    ABORTED,
    COMMITTED,
    UNKNOWN,
    Append,
    Delete,
    Detail,
    History,
    Insert,
    Read,
    Swap,
)

SETUP = -1  # the "transaction" that made what was there before the history


class Evidence:
    """What a history shows; transactions are named by their place in it.

    `happened`: transactions that were done, as far as anybody can tell.  `writers`: by value.
    `findings`: anomalies by name, in words.
    """

    def __init__(self, history: History) -> None:
        self.history = history
        self.transactions = history.transactions
        self.findings: dict[str, list[str]] = {}
        self.happened: set[int] = set()
        self.writers: dict[int, int] = dict.fromkeys(history.initial.values(), SETUP)
        # By value: who saw it, and when at the latest (ns).
        self._observed: dict[int, list[tuple[int, float]]] = defaultdict(list)
        self._collect()
        self._decide_unknown()
        self._find_aborted()
        self._find_double_replacements()

    def report(self, name: str, text: str) -> None:
        """Add an anomaly."""
        self.findings.setdefault(name, []).append(text)

    def name(self, number: int) -> str:
        """Return a transaction's name for people."""
        return "the setup" if number == SETUP else self.transactions[number].name

    # ------------------------------------------------------------ what was seen

    def _collect(self) -> None:
        for number, transaction in enumerate(self.transactions):
            for write in transaction.writes:
                for value in values_of(write):
                    self.writers[value] = number
        for number, transaction in enumerate(self.transactions):
            for step in transaction.steps:
                if isinstance(step.action, Read):
                    self._observe(step.action, number, step.ended)
        self._observe(self.history.final, SETUP, math.inf)

    def _observe(self, read: Read, reader: int, when: float) -> None:
        seen = [value for values in read.lists.values() for value in values]
        seen += [value for row in read.rows.values() if row for value in row if value is not None]
        for value in seen:
            if self.writers.get(value) != reader or reader == SETUP:
                self._observed[value].append((reader, when))

    def _decide_unknown(self) -> None:
        """Find the transactions that somebody saw, or that explain what was seen."""
        self.happened = {n for n, t in enumerate(self.transactions) if t.outcome == COMMITTED}
        self._spread(self.happened)
        unknown = {n for n, t in enumerate(self.transactions) if t.outcome == UNKNOWN}
        others = {n for n, t in enumerate(self.transactions) if t.outcome != COMMITTED}
        # One that was rolled back and is seen is an anomaly, and explains what follows it.
        self._spread(n for n in others if self.seen(n))
        # A version that is gone, which nobody else deleted.
        deleters: dict[int, list[int]] = defaultdict(list)
        for number in unknown - self.happened:
            for write in self.transactions[number].writes:
                if isinstance(write, Delete):
                    deleters[write.before].append(number)
        there = {row[0] for row in self.history.final.rows.values() if row}
        used = {b for n in self.happened for b in map(before_of, self.transactions[n].writes) if b}
        for value, candidates in deleters.items():
            writer = self.writers.get(value)
            is_real = writer == SETUP or writer in self.happened
            if is_real and value not in there and value not in used:
                # One that wrote nothing else explains most.
                self._spread([min(candidates, key=lambda n: len(self.transactions[n].writes))])

    def seen(self, number: int) -> bool:
        """Return whether anybody saw a value that a transaction wrote."""
        values = [v for write in self.transactions[number].writes for v in values_of(write)]
        return any(self._observed.get(value) for value in values)

    def _spread(self, numbers: Iterable[int]) -> None:
        """Add transactions, and those of unknown outcome whose writes they build on."""
        waiting = list(numbers)
        while waiting:
            number = waiting.pop()
            self.happened.add(number)
            transaction = self.transactions[number]
            when = math.inf if transaction.ended is None else transaction.ended
            for write in transaction.writes:
                before = before_of(write)
                writer = self.writers.get(before, SETUP) if before else SETUP
                if before is None or writer in (SETUP, number):
                    continue
                self._observed[before].append((number, when))
                if writer not in self.happened:
                    waiting.append(writer)

    def certain(self) -> set[int]:
        """Return the transactions that surely are there: the final state was built on them."""
        before = {
            write.after: write.before
            for number in self.happened
            for write in self.transactions[number].writes
            if isinstance(write, Swap | Detail)
        }
        final = self.history.final
        waiting = [value for values in final.lists.values() for value in values]
        waiting += [value for row in final.rows.values() if row for value in row if value]
        seen: set[int] = set()
        while waiting:
            value = waiting.pop()
            if value not in seen:
                seen.add(value)
                if value in before:
                    waiting.append(before[value])
        return {self.writers[value] for value in seen if value in self.writers} - {SETUP}

    def _find_double_replacements(self) -> None:
        replaced: dict[tuple[str, int], set[int]] = defaultdict(set)
        for number, transaction in enumerate(self.transactions):
            if transaction.outcome == COMMITTED:
                for write in transaction.writes:
                    if isinstance(write, Swap | Detail | Delete):
                        replaced[write.key, write.before].add(number)
        for (key, value), numbers in replaced.items():
            if len(numbers) > 1:
                names = ", ".join(self.name(number) for number in sorted(numbers))
                self.report("lost-update", f"{key}: {value} was replaced by each of {names}")
        for key, row in self.history.final.rows.items():
            for number, transaction in enumerate(self.transactions):
                if row is not None and number in replaced.get((key, row[0]), ()):
                    for write in transaction.writes:
                        if isinstance(write, Delete) and write.before == row[0]:
                            self.report(
                                "resurrected",
                                f"{key} {row} is there; {transaction.name} deleted it",
                            )

    def _find_aborted(self) -> None:
        for value, observers in self._observed.items():
            writer = self.writers.get(value)
            if writer is None:
                self.report("G1a", f"{self._who(observers)} {value}, which nobody committed")
            elif writer != SETUP and self.transactions[writer].outcome == ABORTED:
                self.report(
                    "G1a",
                    f"{self._who(observers)} {value} of {self.name(writer)}, which was rolled"
                    f" back ({self.transactions[writer].error or 'by itself'})",
                )

    def _who(self, observers: list[tuple[int, float]]) -> str:
        first = min(observers, key=lambda observer: observer[1])
        return "the final read saw" if first[0] == SETUP else f"{self.name(first[0])} saw"

    def earliest(self, number: int) -> float:
        """Return the moment (ns) after which a transaction took effect."""
        if number == SETUP:
            return -math.inf
        committing = self.transactions[number].committing
        return -math.inf if committing is None else committing

    @functools.cache  # noqa: B019 - lives as long as the history that is judged
    def latest(self, number: int) -> float:
        """Return the moment (ns) before which a transaction took effect."""
        if number == SETUP:
            return -math.inf
        transaction = self.transactions[number]
        if transaction.outcome == COMMITTED and transaction.ended is not None:
            return transaction.ended
        values = [v for write in transaction.writes for v in values_of(write)]
        seen = [when for v in values for reader, when in self._observed[v] if reader != number]
        return min(seen, default=math.inf)


def values_of(write: object) -> tuple[int, ...]:
    """Return the values that a write brings."""
    if isinstance(write, Append):
        return (write.value,)
    if isinstance(write, Insert):
        return (write.version, write.detail)
    if isinstance(write, Swap | Detail):
        return (write.after,)
    return ()


def before_of(write: object) -> int | None:
    """Return the value that a write replaces by a comparison with it."""
    return write.before if isinstance(write, Swap | Detail | Delete) else None
