"""Judges a history: what was lost or came from nowhere, cycles, and real-time order.

The nodes of the graph of dependencies are what the isolation level promises to be one moment:

- SERIALIZABLE: a committed transaction, with all that it read and wrote;
- READ COMMITTED: the writes of a transaction, and each of its SELECTs by itself.  A SELECT's
  moment lies between the transaction's begin (its rows may have been prefetched; without
  prefetching: the statement's begin) and the statement's end.  It isn't before what the same
  thread has read or committed on another connection before the statement, nor before what the
  same process has committed to the same table.  No later SELECT may see an earlier moment, and
  all come before the transaction's own writes.  Where a master that was replaced may have answered
  without knowing it (`stale` of a history), the moment may lie before the transaction, but for what
  the same thread and process know.  So every cycle is an
  anomaly at this level too; what the level allows (read skew, write skew, lost updates by
  SELECT and SET of a constant) makes none, as its SELECTs are moments of their own.
- SELECTs of transactions that weren't committed, at both levels: each by itself.

A row or list that the transaction itself has written is left out of its later SELECTs, but for
its own values, which must be there.  (Where others have deleted the same row and inserted it
anew, the commit will fail; what such a transaction sees of the new row is not judged.)

Besides those of `versions` and `graph`, these anomalies are named:

- G1b: a state was seen that its transaction has itself replaced;
- own-writes: a transaction did not see what it had written;
- vanished: no row was seen, or a comparison failed, at no time when that can have been;
- phantom: an INSERT was refused for a key that cannot have been there;
- crash: a client met an error that no client should meet.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field

from tests.histories.graph import RW, TIME, WR, WW, Graph
from tests.histories.model import (
    ABORTED,
    COMMITTED,
    SERIALIZABLE,
    UNKNOWN,
    Append,
    Delete,
    Detail,
    History,
    Insert,
    Missed,
    Read,
    Row,
    Step,
    Swap,
    Taken,
    Transaction,
)
from tests.histories.versions import START, Order, Versions

Span = tuple[int, int, int | None]  # node, begin, end

CRASH = "crash: "  # how the error of a transaction begins that no client should meet


@dataclass(slots=True)
class Verdict:
    """Anomalies by name, in words; how many transactions ended how; those that were lost."""

    anomalies: dict[str, list[str]]
    committed: int
    aborted: int
    unknown: int
    unknown_done: int
    steps: int
    lost: list[Transaction] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """Return how many there are of each anomaly."""
        return {name: len(texts) for name, texts in sorted(self.anomalies.items())}


def check(history: History) -> Verdict:
    """Return what is wrong with a history."""
    checker = _Checker(history)
    checker.run()
    outcomes = [transaction.outcome for transaction in history.transactions]
    versions = checker.versions
    done = [n for n in versions.happened if history.transactions[n].outcome == UNKNOWN]
    return Verdict(
        anomalies=versions.findings,
        committed=outcomes.count(COMMITTED),
        aborted=outcomes.count(ABORTED),
        unknown=outcomes.count(UNKNOWN),
        unknown_done=len(done),
        steps=sum(len(transaction.steps) for transaction in history.transactions),
        lost=[history.transactions[number] for number in sorted(versions.lost)],
    )


@dataclass(slots=True)
class _Own:
    """What a transaction has written so far."""

    lists: dict[str, list[int]] = field(default_factory=dict)
    versions: dict[str, int | None] = field(default_factory=dict)
    details: dict[str, int] = field(default_factory=dict)
    born: set[str] = field(default_factory=set)

    def has_row(self, key: str) -> bool:
        return key in self.versions or key in self.details

    def add(self, action: object) -> None:
        if isinstance(action, Append):
            self.lists.setdefault(action.key, []).append(action.value)
        elif isinstance(action, Insert):
            if not self.has_row(action.key):
                self.born.add(action.key)
            self.versions[action.key] = action.version
            self.details[action.key] = action.detail
        elif isinstance(action, Swap):
            self.versions[action.key] = action.after
        elif isinstance(action, Detail):
            self.details[action.key] = action.after
        elif isinstance(action, Delete):
            self.details.pop(action.key, None)
            self.versions[action.key] = None
            if action.key in self.born:
                # Its own row is gone again: another's, that has come since, may be seen.
                self.born.remove(action.key)
                del self.versions[action.key]


class _Checker:
    def __init__(self, history: History) -> None:
        self.history = history
        self.versions = Versions(history)
        self.graph = Graph()
        self.writing: dict[int, int] = {}  # transaction -> the node of its writes
        self.spans: list[Span] = []
        # What a thread did, and what a process wrote to and read of a table.
        self.within: dict[object, list[Span]] = defaultdict(list)

    def run(self) -> None:
        whole = set()
        for number, transaction in enumerate(self.history.transactions):
            if transaction.error.startswith(CRASH):
                self.versions.report("crash", f"{transaction.name}: {transaction.error}")
            if number not in self.versions.happened:
                continue
            if transaction.level == SERIALIZABLE:
                whole.add(number)
                began = earliest = transaction.began
                if len(transaction.steps) == 1 and not transaction.writes:
                    # Its commit has nothing to check.
                    earliest = self._earliest(began, transaction.steps[0])
                self.writing[number] = self._node(transaction.name, began, transaction, earliest)
            elif transaction.writes:
                began = transaction.began
                if transaction.committing is not None:
                    began = transaction.committing
                name = f"{transaction.name}'s commit"
                self.writing[number] = self._node(name, began, transaction, began)
        for number, transaction in enumerate(self.history.transactions):
            self._steps(number, transaction, number in whole)
        for name, row in self.history.final.rows.items():
            self._mixed("the final read", name, row)
        for register, order in self.versions.orders.items():
            self._writes(register, order)
        self.graph.in_time(self.spans)
        for spans in self.within.values():
            self.graph.in_time(spans)
        certain = self.versions.certain()
        doubtful = {
            node
            for number, node in self.writing.items()
            if self.history.transactions[number].outcome == UNKNOWN and number not in certain
        }
        for name, text in self.graph.anomalies(doubtful):
            self.versions.report(name, text)

    def _node(self, name: str, began: int, transaction: Transaction, earliest: int) -> int:
        """Add a node; `earliest`: its moment may be as early to those who don't know its client."""
        node = self.graph.node(name)
        span = (node, began, transaction.ended if transaction.outcome == COMMITTED else None)
        self.spans.append((node, earliest, span[2]))
        thread, process = _client(transaction)
        for place in (thread, *((process, _table(write.key)) for write in transaction.writes)):
            if span not in self.within[place]:
                self.within[place].append(span)
        return node

    def _writes(self, register: object, order: Order) -> None:
        for place in range(1, len(order.states)):
            before, after = order.states[place - 1][1], order.states[place][1]
            if before in self.writing and after in self.writing and place not in order.uncertain:
                self.graph.edge(self.writing[before], self.writing[after], WW, _name(register))

    # ------------------------------------------------------------ what was seen

    def _steps(self, number: int, transaction: Transaction, whole: bool) -> None:
        own = _Own()
        last: int | None = None
        for place, step in enumerate(transaction.steps):
            action = step.action
            if not isinstance(action, Read | Missed | Taken):
                own.add(action)
                continue
            began = transaction.began if self.history.prefetches else step.began
            if not whole or len(transaction.steps) == 1:
                began = self._earliest(began, step)
            ended: float = step.ended
            if whole:
                # A replay at its commit may have seen the same again, of a later time.
                ended = math.inf
                if transaction.outcome == COMMITTED and transaction.ended is not None:
                    ended = transaction.ended
                node = self.writing[number]
            else:
                node = self.graph.node(f"{transaction.name}'s statement {place + 1}")
                self.spans.append((node, began, step.ended))
                self._within(node, transaction, step)
                if last is not None:
                    self.graph.edge(last, node, TIME, "later in the same transaction")
                last = node
            if isinstance(action, Read):
                self._read(node, number, action, own, (began, ended))
            elif not own.has_row(action.key):
                if isinstance(action, Missed):
                    self._missed(node, transaction, action)
                else:
                    self._taken(transaction, action, (began, ended))
        if last is not None and number in self.writing:
            self.graph.edge(last, self.writing[number], TIME, "later in the same transaction")

    def _earliest(self, began: int, step: Step) -> int:
        """Return the earliest moment that a statement may show: `began`, or a stale one."""
        begins = [b for b, ended in self.history.stale if b <= step.ended and step.began <= ended]
        return min([began, *begins])

    def _within(self, node: int, transaction: Transaction, step: Step) -> None:
        thread, process = _client(transaction)
        self.within[thread].append((node, step.began, step.ended))
        if isinstance(step.action, Read):
            for table in {_table(key) for key in (*step.action.lists, *step.action.rows)}:
                # Without an end: others needn't wait for it, it only has to see commits.
                self.within[process, table].append((node, step.began, None))

    def _read(self, node: int, number: int, read: Read, own: _Own, when: tuple[int, float]) -> None:
        name = self.history.transactions[number].name
        for key, values in read.lists.items():
            mine = own.lists.get(key)
            if mine:
                if list(values[-len(mine) :]) != mine:
                    self.versions.report(
                        "own-writes", f"{name} read {list(values)} of {key}, having added {mine}"
                    )
                continue
            order = self.versions.orders.get(key)
            if order is not None:
                value = values[-1] if values else START
                if value in order.places:  # else it is lost, or was never committed
                    self._saw(node, name, key, order, order.places[value])
        for key, row in read.rows.items():
            if own.has_row(key):
                self._own_row(self.history.transactions[number], key, row, own)
            else:
                self._row(node, name, key, row, when)

    def _own_row(self, transaction: Transaction, key: str, row: Row, own: _Own) -> None:
        seen = None if row is None else row[0]
        wrong = key in own.versions and seen != own.versions[key]
        if transaction.outcome == ABORTED and own.versions.get(key, 0) is None:
            # What it deleted another deleted too, and inserted anew: its commit will fail.
            return
        if not wrong and key in own.details:
            wrong = row is None or row[1] != own.details[key]
        if wrong:
            self.versions.report(
                "own-writes", f"{transaction.name} saw {row} of {key}, having written it"
            )

    def _row(self, node: int, name: str, key: str, row: Row, when: tuple[int, float]) -> None:
        order = self.versions.orders.get(("row", key))
        if order is None:
            return
        if row is None:
            self._absent(node, name, key, order, when)
            return
        self._mixed(name, key, row)
        version, detail = row
        if version in order.places:
            self._saw(node, name, key, order, order.places[version])
        details = self.versions.orders.get(("detail", self.versions.roots.get(version)))
        if details is not None and detail in details.places:
            self._saw(node, name, f"{key}'s detail", details, details.places[detail])

    def _mixed(self, name: str, key: str, row: Row) -> None:
        if row is None or row[1] is None:
            return
        roots = self.versions.roots
        first, second = roots.get(row[0]), roots.get(row[1])
        if first is not None and second is not None and first != second:
            self.versions.report(
                "mixed", f"{name}: {key} has version {row[0]} and, of another life, {row[1]}"
            )

    def _absent(
        self, node: int, name: str, key: str, order: Order, when: tuple[int, float]
    ) -> None:
        """No row was there: in which gap between two lives that was, if just one is possible."""
        gaps = []
        for place, (value, writer) in enumerate(order.states):
            if value is not None or self.versions.earliest(writer) > when[1]:
                continue
            last = place + 1 == len(order.states)
            if last or self.versions.latest(order.states[place + 1][1]) >= when[0]:
                gaps.append(place)
        if not gaps:
            # What is lost was there for a while, and so was what is there again.
            if not self._may_have_changed(key):
                self.versions.report("vanished", f"{name} saw no {key}, which was there")
        elif (
            len(gaps) == 1
            and not self._may_have_changed(key)
            and not {gaps[0], gaps[0] + 1} & order.uncertain
        ):
            self._saw(node, name, key, order, gaps[0])

    def _may_have_changed(self, key: str) -> bool:
        """Say whether a row may have been there, or gone, for a while of which nothing is left."""
        return bool(self.versions.lost) or key in self.versions.undone_rows

    def _missed(self, node: int, transaction: Transaction, missed: Missed) -> None:
        order = self.versions.orders.get(("row", missed.key))
        if order is None or missed.before not in order.places:
            return
        if missed.before in self.versions.undone:
            return  # it may have been gone for a while, and come back
        place = order.places[missed.before]
        if place + 1 == len(order.states):
            if not self.versions.lost:
                self.versions.report(
                    "vanished",
                    f"{transaction.name} didn't find version {missed.before} of {missed.key},"
                    " which nobody replaced",
                )
            return
        writer = order.states[place + 1][1]
        if writer in self.writing:
            self.graph.edge(self.writing[writer], node, WR, f"{missed.key} {missed.before} gone")

    def _taken(self, transaction: Transaction, taken: Taken, when: tuple[int, float]) -> None:
        order = self.versions.orders.get(("row", taken.key))
        if order is None or self._may_have_changed(taken.key):
            return
        for place, (value, writer) in enumerate(order.states):
            if value is None or self.versions.earliest(writer) > when[1]:
                continue
            last = place + 1 == len(order.states)
            if last or self.versions.latest(order.states[place + 1][1]) >= when[0]:
                return
        self.versions.report("phantom", f"{transaction.name} found {taken.key}, which wasn't there")

    def _saw(self, node: int, name: str, what: str, order: Order, place: int) -> None:
        value, writer = order.states[place]
        following = order.writer_after(place)
        if following == writer and self.writing.get(writer) != node and value != START:
            self.versions.report(
                "G1b",
                f"{name} saw {value} of {what}, in the middle of {self.versions.name(writer)}",
            )
        if writer in self.writing:
            self.graph.edge(self.writing[writer], node, WR, f"{what} {value}")
        if following is not None and following in self.writing:
            self.graph.edge(node, self.writing[following], RW, f"{what} {value}")


def _client(transaction: Transaction) -> tuple[str, str]:
    """Return the thread and the process of a transaction's name: P0.0/1-77."""
    thread = transaction.name.rsplit("-", 1)[0]
    return thread, thread.split("/", 1)[0]


def _table(key: str) -> str:
    """Return what all names of a table's rows or lists begin with."""
    return key.rsplit(" ", 1)[0]


def _name(register: object) -> str:
    if isinstance(register, tuple):
        return f"{register[0]} {register[1]}"
    return str(register)
