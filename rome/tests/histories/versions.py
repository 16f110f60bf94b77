"""The order of the versions of each list, row and column, as a history tells it.

Lists tell it themselves: each read is the start of what the list is at the end.  A row's version
is only ever set by a comparison with the one before, so the versions form a chain from the
insert to the delete, a life; lives of one key are put in order by when they can have begun and
ended.  A row's detail has a chain within each life.

What contradicts such an order by itself is found here, by these names:

- lost: a commit was acknowledged, and what it wrote is not there, though nobody replaced it;
- lost after being read: the same of a commit whose outcome is not known, but which others saw;
- lost-update: two acknowledged commits replaced the same version;
- resurrected: a row is there whose deletion was acknowledged;
- G1a: a value is visible whose transaction was rolled back, or never reached its commit;
- partial: some writes of a transaction are there, others are not;
- twice: a value stands in a list twice;  order: a list was read in another order than it has;
- two lives: a row was inserted while one of its key was there;
- mixed: a row has the version of one life and the detail of another.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.histories.evidence import SETUP, Evidence, before_of
from tests.histories.model import (
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

# The state before anything was written: of a list, or of a key without a row.
START = 0


@dataclass(slots=True)
class Order:
    """The states of one thing in their order: a value (None: no row), and who made it.

    `uncertain` has the places whose predecessor may be another one.
    """

    states: list[tuple[int | None, int]]
    uncertain: set[int] = field(default_factory=set)
    places: dict[int | None, int] = field(init=False)

    def __post_init__(self) -> None:
        self.places = {value: place for place, (value, _) in enumerate(self.states)}

    def writer_after(self, place: int) -> int | None:
        """Return who replaced the state at a place, if somebody did and it is certain."""
        if place + 1 >= len(self.states) or place + 1 in self.uncertain:
            return None
        return self.states[place + 1][1]


@dataclass(slots=True)
class Life:
    """A row from its insert to its delete: versions with their writers, and who ended it."""

    versions: list[tuple[int, int]]
    ended_by: int | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """A happened transaction replaced a value; by None: it deleted the row."""

    writer: int
    after: int | None


class Versions(Evidence):
    """What a history's writes became.

    `orders`: by name of a list, by ("row", key) and ("detail", version that was inserted).
    `lost`: transactions that were acknowledged and are not there.  `roots`: by version and
    detail, the version with which its life began.  `undone`: versions that were replaced by what
    is lost or may have been: by a commit of unknown outcome of which nothing is there.
    `undone_rows`: the keys that such a one inserted or deleted.
    """

    def __init__(self, history: History) -> None:
        super().__init__(history)
        self.orders: dict[object, Order] = {}
        self.lost: set[int] = set()
        self.undone: set[int] = set()
        self.undone_rows: set[str] = set()
        self.roots: dict[int, int] = {}
        self._links: dict[int, list[Link]] = defaultdict(list)
        self._dead: dict[int, list[str]] = defaultdict(list)
        found = self.findings
        certain = self.certain()
        gone: dict[int, list[str]] = {}
        while True:
            # What is lost takes with it what was built on it, and the orders are made anew.
            self.findings = {}
            self._order_all()
            more = {n: texts for n, texts in self._dead.items() if n not in gone}
            more = {n: texts for n, texts in more.items() if n != SETUP and n not in certain}
            if not more:
                break
            gone |= more
            self.happened -= set(more)
        for name, texts in self.findings.items():
            found.setdefault(name, []).extend(texts)
        self.findings = found
        self._judge_writers(gone, certain)

    def _order_all(self) -> None:
        self.orders.clear()
        self.roots.clear()
        self._links.clear()
        self._dead.clear()
        self._link()
        self._order_lists()
        for key in sorted(self._keys()):
            self._order_row(key)
        # What was built on what isn't there.
        for number in sorted(self.happened):
            for write in self.transactions[number].writes:
                before = before_of(write)
                if before in self.writers and before not in self.roots:
                    self._dead[number].append(f"{write.key}, by a comparison with {before}")

    def _link(self) -> None:
        for number in sorted(self.happened):
            for write in self.transactions[number].writes:
                if isinstance(write, Swap | Detail):
                    self._links[write.before].append(Link(number, write.after))
                elif isinstance(write, Delete):
                    self._links[write.before].append(Link(number, None))

    # ------------------------------------------------------------ lists

    def _order_lists(self) -> None:
        for key, values in self.history.final.lists.items():
            self.orders[key] = Order(
                [(START, SETUP), *((v, self.writers.get(v, SETUP)) for v in values)]
            )
            for value, count in Counter(values).items():
                if count > 1:
                    self.report("twice", f"{key} has {value} {count} times")
        for number in self.happened:
            for write in self.transactions[number].writes:
                if not isinstance(write, Append):
                    continue
                if write.key in self.orders and write.value in self.orders[write.key].places:
                    continue
                self._dead[number].append(f"{write.value} at the end of {write.key}")
        for number, transaction in enumerate(self.transactions):
            for step in transaction.steps:
                if isinstance(step.action, Read):
                    for key, values in step.action.lists.items():
                        self._check_order(number, key, values)

    def _check_order(self, number: int, key: str, values: tuple[int, ...]) -> None:
        """Compare what was read with what the list became, but for what is lost."""
        if key not in self.orders:
            return
        places = self.orders[key].places
        known = [v for v in values if v in places and self.writers.get(v) != number]
        now = [v for v, writer in self.orders[key].states[1:] if writer != number]
        if known != now[: len(known)]:
            self.report(
                "order", f"{self.name(number)} read {known} of {key}, which is {now[: len(known)]}"
            )

    # ------------------------------------------------------------ rows

    def _keys(self) -> set[str]:
        keys = set(self.history.initial) | set(self.history.final.rows)
        for transaction in self.transactions:
            keys |= {w.key for w in transaction.writes if not isinstance(w, Append)}
        return keys

    def _order_row(self, key: str) -> None:
        final = self.history.final.rows.get(key)
        starts = [
            (write.version, number, write.detail)
            for number in sorted(self.happened)
            for write in self.transactions[number].writes
            if isinstance(write, Insert) and write.key == key
        ]
        lives = []
        if key in self.history.initial:
            first = self.history.initial[key]
            lives.append(self._life(key, first, SETUP, final[0] if final else None))
        for version, number, detail in starts:
            life = self._life(key, version, number, final[0] if final else None)
            is_last = final is not None and self.roots.get(final[0]) == version
            is_lost = life.ended_by is None and not is_last
            self._order_details(key, life, detail, final[1] if final and is_last else None, is_lost)
            if is_lost:
                # Nobody deleted it, so all of it is gone.
                for value, writer in life.versions:
                    self._dead[writer].append(f"version {value} of {key}")
            else:
                lives.append(life)
        if key in self.history.initial and (final is None and lives and lives[0].ended_by is None):
            self.report("lost", f"{key} is gone, and nobody deleted it")
        if final is not None and final[0] not in self.roots and final[0] in self.writers:
            self.report("order", f"{key} has version {final[0]}, which no insert led to")
        self._order_lives(key, lives)

    def _life(self, key: str, start: int, writer: int, final: int | None) -> Life:
        """Follow the versions of a row; where two replaced one, one of them is lost."""
        life = Life([(start, writer)])
        self._root(start, start)
        value: int | None = start
        while value is not None:
            link = self._next(key, value, value == final, final)
            if link is None:
                break
            if link.after is None:
                life.ended_by = link.writer
                break
            life.versions.append((link.after, link.writer))
            value = link.after
        return life

    def _root(self, start: int, root: int) -> None:
        for value in self._tree(start):
            self.roots[value] = root

    def _next(self, key: str, value: int, is_final: bool, final: int | None) -> Link | None:
        links = self._links.get(value, [])
        chosen = None
        if not is_final and links:
            chosen = links[0]
            if len(links) > 1:
                chosen = max(links, key=lambda link: self._weight(link, final))
        for link in links:
            if link is chosen:
                continue
            if link.after is None:
                self._dead[link.writer].append(f"the deletion of version {value} of {key}")
                continue
            for later in self._tree(link.after):
                self._dead[self.writers[later]].append(f"{later}, a value of {key}")
            for later in self._tree(link.after):
                for end in self._links.get(later, []):
                    if end.after is None:
                        self._dead[end.writer].append(f"the deletion of version {later} of {key}")
        return chosen

    def _weight(self, link: Link, final: int | None) -> tuple[bool, float]:
        """Return how likely a replacement is the one that lasted."""
        tree = [] if link.after is None else list(self._tree(link.after))
        writers = {link.writer, *(self.writers[value] for value in tree)}
        return final in tree, max(self.earliest(writer) for writer in writers)

    def _tree(self, start: int) -> Iterator[int]:
        waiting, seen = [start], {start}
        while waiting:
            value = waiting.pop()
            yield value
            for link in self._links.get(value, []):
                if link.after is not None and link.after not in seen:
                    seen.add(link.after)
                    waiting.append(link.after)

    def _order_details(
        self, key: str, life: Life, detail: int, final: int | None, is_lost: bool
    ) -> None:
        root, inserter = life.versions[0]
        self._root(detail, root)
        if is_lost:
            for each in self._tree(detail):
                self._dead[self.writers[each]].append(f"detail {each} of {key}")
            return
        states: list[tuple[int | None, int]] = [(detail, inserter)]
        value: int | None = detail
        while value is not None:
            link = self._next(key, value, value == final, final)
            if link is None or link.after is None:
                break
            states.append((link.after, link.writer))
            value = link.after
        if final is not None and states[-1][0] != final and final in self._tree(detail):
            self.report("order", f"{key} has detail {final}, but {states[-1][0]} is later")
        if life.ended_by is not None:
            states.append((None, life.ended_by))
        self.orders["detail", root] = Order(states)

    def _order_lives(self, key: str, lives: list[Life]) -> None:
        """Put the lives of one key in order by time; two can't have been at once."""

        def weight(life: Life) -> float:
            born = self.latest(life.versions[0][1])
            died = math.inf if life.ended_by is None else self.earliest(life.ended_by)
            return born + died

        states: list[tuple[int | None, int]] = []
        uncertain = set()
        before: Life | None = None
        if key not in self.history.initial:
            states.append((None, SETUP))
        for life in sorted(lives, key=weight):
            inserter = life.versions[0][1]
            if life.ended_by == inserter and all(w == inserter for _, w in life.versions):
                continue  # nobody but itself could see it
            if before is not None:
                if not self._may_precede(before, life):
                    self.report(
                        "two lives",
                        f"{key}: {self.name(inserter)} inserted {life.versions[0][0]} while"
                        f" {before.versions[-1][0]} was there,"
                        f" of {self.name(before.versions[-1][1])}",
                    )
                if self._may_precede(life, before):
                    uncertain |= {len(states) - 1, len(states)}
                if before.ended_by == inserter:
                    states.pop()  # deleted and inserted in one: nobody saw it absent
            states += life.versions
            if life.ended_by is not None:
                states.append((None, life.ended_by))
            before = life
        self.orders["row", key] = Order(states, uncertain)

    def _may_precede(self, first: Life, second: Life) -> bool:
        if first.ended_by is None:
            return False
        inserter = second.versions[0][1]
        if first.ended_by == inserter:
            return True
        if second.ended_by is not None and second.ended_by == first.versions[0][1]:
            return False
        return self.earliest(first.ended_by) < self.latest(inserter)

    # ------------------------------------------------------------ writers

    def _judge_writers(self, gone: dict[int, list[str]], certain: set[int]) -> None:
        for number, texts in sorted((self._dead | gone).items()):
            if number == SETUP:
                continue
            name, text = self.name(number), "; ".join(texts[:3])
            self._undo(number)
            if number in certain:
                self.report("partial", f"{name}: some of it is there, but not {text}")
            if self.transactions[number].outcome == COMMITTED:
                self.lost.add(number)
                self.report("lost", f"{name} was acknowledged: {text}")
            elif self.seen(number):
                self.report("lost after being read", f"{name}: {text}")
        for number, transaction in enumerate(self.transactions):
            if transaction.outcome == UNKNOWN and number not in self.happened:
                self._undo(number)

    def _undo(self, number: int) -> None:
        """Note what others may have seen replaced, inserted or deleted for a while."""
        writes = self.transactions[number].writes
        self.undone |= {before for before in map(before_of, writes) if before}
        self.undone_rows |= {w.key for w in writes if isinstance(w, Insert | Delete)}
