"""A commit as one transaction of etcd: conditions, and what is written if they hold.

A script in Redis looks, decides and writes in one step.  Here the client decides, from what it
knows of the keys, and makes it a condition that this is still so: of a row that it changes, that
nobody has written it since it was read; of a new key, that it isn't there; of a parent, that it is.
If a condition doesn't hold, the same transaction tells how all these keys are now, and the client
decides again.  Whoever is refused for what the client only guessed isn't refused: it looks first.

More conditions than fit into one transaction are replaced by one for each table: that nobody has
written it since.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rome.errors import OperationalError
from rome.stores.base import Changed, Commit, Duplicate, SchemaChanged
from rome.stores.etcd.keys import Keys, number_of, pack_number, unpack_number
from rome.stores.etcd.operations import (
    Compare,
    Delete,
    Found,
    KeyValue,
    Put,
    Range,
    Txn,
    has_value,
    is_absent,
    is_as_read,
    is_there,
)
from rome.stores.steps import changed_row

# Outcomes: the commit was done; it was refused after a lost answer, and will never be done.
DONE, VOID = b"done", b"void"


class Done(Exception):
    """The commit was done before: its answer was lost."""


class NotKnown(Exception):
    """It can't be guessed how a key is."""


class TooManyConditions(Exception):
    """There are more than one transaction takes."""


class Knowledge:
    """How keys are, as far as that is known, and the first keys of some spans.

    certain: whether the cluster has agreed on it; else the commit may not be refused for it.
    """

    def __init__(self, certain: bool) -> None:
        self.certain = certain
        self.keys: dict[bytes, KeyValue | None] = {}
        self.spans: dict[bytes, Found] = {}

    @classmethod
    def of(cls, ranges: Sequence[Range], found: Sequence[Found], certain: bool) -> Knowledge:
        """Return what the answers to some ranges tell."""
        made = cls(certain)
        for one, answer in zip(ranges, found, strict=True):
            if one.end:
                made.spans[one.key] = answer
            else:
                made.keys[one.key] = answer.pairs[0] if answer.pairs else None
        return made

    def value(self, key: bytes) -> bytes | None:
        """Return the value of a key that is known; None: it isn't there."""
        pair = self.keys[key]
        return None if pair is None else pair.value

    def revision(self, key: bytes) -> int:
        """Return the revision that wrote a key that is known; 0: it isn't there."""
        pair = self.keys[key]
        return 0 if pair is None else pair.revision


class CommitPlan:
    """What a commit depends on, and what it writes; keys and values are those of etcd."""

    def __init__(
        self, keys: Keys, commit: Commit, refusals: int = 0, held: Sequence[bytes] = ()
    ) -> None:
        """refusals: how often an outcome of this commit was made void; held: keys of rows that its
        transaction holds, which are free afterwards."""
        self._keys = keys
        self.commit = commit
        self.refusals = refusals
        self.held = held
        self.token = keys.token(f"{commit.token}.{refusals}" if refusals else commit.token)
        # Keys of unique indexes: who takes one (table, index, number), and who gives one up.
        self._taken: dict[bytes, tuple[int, int, bytes]] = {}
        self._freed: dict[bytes, bytes] = {}
        self.row_keys: list[bytes] = []
        for write in commit.writes:
            table, number = write["t"], write["n"].encode()
            self.row_keys.append(keys.row(table, int(number)))
            for index, data in write["unique_del"]:
                self._freed[keys.unique(table, index, data)] = number
            for index, data in write["unique_add"]:
                self._taken[keys.unique(table, index, data)] = (table, index, number)
        self.writes = bool(commit.writes or commit.used)

    # ------------------------------------------------------------ what to look at

    def guess(self, rows: Mapping[bytes, KeyValue | None]) -> Knowledge:
        """Return what was last seen of the rows, as knowledge that isn't certain."""
        made = Knowledge(certain=False)
        made.keys.update({key: row for key, row in rows.items() if row is not None})
        return made

    @property
    def changed_rows(self) -> list[bytes]:
        """The keys of rows that are there already."""
        pairs = zip(self.row_keys, self.commit.writes, strict=True)
        return [key for key, write in pairs if write["op"] != "insert"]

    def questions(self, of_tables: bool) -> list[Range]:
        """Return what has to be known of keys; `of_tables`: also of those for whole tables."""
        commit, keys = self.commit, self._keys
        points = [self.token, keys.version, *self.row_keys, *self._taken, *self._freed]
        points += [keys.last_commit(table) for table, _ in commit.reads]
        spans: list[Range] = []
        for kind, table, index, key in commit.exists:
            if kind == "set":
                spans.append(Range.of(keys.members_of_set(table, index, key), 1, keys_only=True))
            elif (point := self._point(kind, table, index, key)) is not None:
                points.append(point)
        for kind, table, index, own, key in commit.childless:
            if kind == "set":
                span = keys.members_of_set(table, index, key)
                spans.append(Range.of(span, len(own) + 1, keys_only=True))
            elif (point := self._point(kind, table, index, key)) is not None:
                points.append(point)
        if of_tables:
            points += [key for table in self._tables() for key in self._marks(table)]
        ranges = {(one.key, one.end): one for one in (*map(Range, points), *spans)}
        return list(ranges.values())

    def _tables(self) -> list[int]:
        """Return every table that the commit depends on or writes."""
        commit = self.commit
        tables = [write["t"] for write in commit.writes]
        tables += [table for _, table, *_ in (*commit.exists, *commit.childless)]
        return list(dict.fromkeys([*tables, *(table for table, _ in commit.reads)]))

    def _marks(self, table: int) -> tuple[bytes, bytes]:
        """Return the keys one of which changes whenever a row or an entry of a table does."""
        return self._keys.last_commit(table), self._keys.build(table)

    def _point(self, kind: str, table: int, index: int, key: Any) -> bytes | None:
        """Return the key of a row or of an entry of a unique index; None: there can't be one."""
        if kind == "unique":
            return self._keys.unique(table, index, key)
        number = number_of(key)
        return None if number is None else self._keys.row(table, number)

    # ------------------------------------------------------------ the transaction

    def transaction(self, known: Knowledge, coarse: bool, lease: int, most: int) -> Txn:
        """Return the transaction, by what is known.

        coarse: with a condition for each table in place of one for each key.  Raises Done,
        SchemaChanged, Changed, Duplicate; NotKnown, TooManyConditions; OperationalError.
        """
        conditions: dict[Compare, None] = {}
        writes: dict[bytes, Put | Delete] = {}
        self._check_versions(known, conditions)
        self._change_rows(known, conditions, writes)
        self._change_unique(known, conditions, writes)
        self._change_entries(writes)
        self._check_parents(known, conditions)
        self._check_children(known, conditions)
        self._check_reads(known, conditions)
        if coarse:
            conditions = dict.fromkeys(list(conditions)[:2])  # of the token and the version
            for table in self._tables():
                for key in self._marks(table):
                    conditions[is_as_read(key, known.revision(key))] = None
        writes.update({key: Delete(key) for key in self.held})
        token = self.commit.token.encode()
        for table in dict.fromkeys(write["t"] for write in self.commit.writes):
            key = self._keys.last_commit(table)
            writes[key] = Put(key, token)
        if self.writes:
            writes[self.token] = Put(self.token, DONE, lease)
        counters = [
            raised(self._keys.counter(str(table)), int(number))
            for table, number in self.commit.used
        ]
        return arranged(
            list(conditions), list(writes.values()), counters, self.questions(coarse), most
        )

    def _check_versions(self, known: Knowledge, conditions: dict[Compare, None]) -> None:
        keys, version = self._keys, self.commit.version
        if known.keys.get(self.token) is not None:
            if known.value(self.token) == VOID:
                raise Changed("a commit that was given up")
            raise Done
        if keys.version in known.keys and version != (known.value(keys.version) or b"0").decode():
            raise SchemaChanged
        conditions[is_absent(self.token)] = None
        conditions[same_version(keys, version)] = None

    def _change_rows(
        self,
        known: Knowledge,
        conditions: dict[Compare, None],
        writes: dict[bytes, Put | Delete],
    ) -> None:
        for key, write in zip(self.row_keys, self.commit.writes, strict=True):
            table, number = write["t"], write["n"].encode()
            if write["op"] == "insert":
                if known.keys.get(key) is not None:
                    raise Duplicate(table, -1, number)
                conditions[is_absent(key)] = None
                writes[key] = Put(key, write["row"])
                continue
            if key not in known.keys:
                raise NotKnown
            row = known.value(key)
            new = None if row is None else changed_row(row, write)
            if new is None:
                raise Changed(table, number)
            conditions[is_as_read(key, known.revision(key))] = None
            if write["op"] == "delete":
                writes[key] = Delete(key)
            elif new != row:
                writes[key] = Put(key, new)

    def _change_unique(
        self,
        known: Knowledge,
        conditions: dict[Compare, None],
        writes: dict[bytes, Put | Delete],
    ) -> None:
        for key, number in self._freed.items():
            if key in self._taken:
                continue
            if key not in known.keys:
                conditions[has_value(key, number)] = None
            else:
                conditions[is_as_read(key, known.revision(key))] = None
                if known.value(key) != number:
                    continue  # it is another row's
            writes[key] = Delete(key)
        for key, (table, index, number) in self._taken.items():
            freed = self._freed.get(key)
            if key not in known.keys:
                conditions[is_absent(key) if freed is None else has_value(key, freed)] = None
            else:
                holder = known.value(key)
                if holder not in (None, number, freed):
                    raise Duplicate(table, index, holder or b"")
                conditions[is_as_read(key, known.revision(key))] = None
            writes[key] = Put(key, number)

    def _change_entries(self, writes: dict[bytes, Put | Delete]) -> None:
        """Change sets and orders: what goes, before what comes."""
        keys = self._keys
        for write in self.commit.writes:
            table, number = write["t"], int(write["n"])
            gone = [keys.member_of_set(table, i, data, number) for i, data in write["set_del"]]
            gone += [keys.place(table, index, member) for index, member in write["order_del"]]
            writes.update({key: Delete(key) for key in gone})
        for write in self.commit.writes:
            table, number = write["t"], int(write["n"])
            new = [keys.member_of_set(table, i, data, number) for i, data in write["set_add"]]
            new += [keys.place(table, index, member) for index, _, member in write["order_add"]]
            writes.update({key: Put(key, b"") for key in new})

    def _check_parents(self, known: Knowledge, conditions: dict[Compare, None]) -> None:
        for kind, table, index, key in self.commit.exists:
            if kind == "set":
                span = self._keys.members_of_set(table, index, key)
                if span.start in known.spans and not known.spans[span.start].pairs:
                    raise Changed(table, key)
                conditions[is_there(*span)] = None
                continue
            point = self._point(kind, table, index, key)
            if point is None or (point in known.keys and known.keys[point] is None):
                raise Changed(table, key)
            conditions[is_there(point)] = None

    def _check_children(self, known: Knowledge, conditions: dict[Compare, None]) -> None:
        for kind, table, index, own, key in self.commit.childless:
            if kind == "set":
                self._check_members(known, conditions, table, index, own, key)
                continue
            point = self._point(kind, table, index, key)
            if point is None or (kind == "row" and key in own):
                continue
            if point in known.keys:
                holder = known.value(point)
                if holder is not None and (kind == "row" or holder.decode() not in own):
                    raise Changed(table, key)
                conditions[is_as_read(point, known.revision(point))] = None
            elif own:
                raise NotKnown  # it may be there or not
            else:
                conditions[is_absent(point)] = None

    def _check_members(
        self,
        known: Knowledge,
        conditions: dict[Compare, None],
        table: int,
        index: int,
        own: Sequence[str],
        key: bytes,
    ) -> None:
        """Demand that a set has no other members than these."""
        start, end = self._keys.members_of_set(table, index, key)
        numbers = sorted({int(number) for number in own})
        if start in known.spans:
            for pair in known.spans[start].pairs:
                number = unpack_number(pair.key[-8:])
                if number not in numbers:
                    raise Changed(table, number)
        for number in numbers:
            member = self._keys.member_of_set(table, index, key, number)
            conditions[is_absent(start, member)] = None
            start = member + b"\0"
        conditions[is_absent(start, end)] = None

    def _check_reads(self, known: Knowledge, conditions: dict[Compare, None]) -> None:
        for table, token in self.commit.reads:
            key = self._keys.last_commit(table)
            if key in known.keys and (known.value(key) or b"0").decode() != token:
                raise Changed(table, token)
            conditions[last_commit_is(self._keys, table, token)] = None


def same_version(keys: Keys, version: str) -> Compare:
    """Return the condition that the schema has a version."""
    if version == "0":
        return is_absent(keys.version)
    return has_value(keys.version, version.encode())


def last_commit_is(keys: Keys, table: int, token: str) -> Compare:
    """Return the condition that a table's last commit is one (0: none wrote it)."""
    key = keys.last_commit(table)
    return is_absent(key) if token == "0" else has_value(key, token.encode())


def raised(counter: bytes, number: int) -> Txn:
    """Return what raises a counter to a number, unless it is there already."""
    higher = Compare(counter, "VALUE", pack_number(number - 1), "GREATER")
    return Txn([higher], (), [Put(counter, pack_number(number))])


def arranged(
    conditions: Sequence[Compare],
    writes: Sequence[Put | Delete],
    others: Sequence[Txn],
    questions: Sequence[Range],
    most: int,
) -> Txn:
    """Return a transaction within etcd's limit of `most` operations.

    The limit is one for each list of a transaction, and one less that many for a transaction inside
    it.  So writes that are too many for one list are put into transactions inside this one, which
    have no conditions: etcd does them all or none, at one revision.  questions: what is asked
    where a condition doesn't hold, if it fits.  Raises TooManyConditions; OperationalError if there
    are too many writes.
    """
    flat = len(writes) + len(others) < most
    room = most - 1 if flat else most // 2
    if len(conditions) > room:
        raise TooManyConditions
    asked = questions if len(questions) <= room else ()
    if flat:
        return Txn(conditions, (*writes, *others), asked)
    size = most - room
    groups = [Txn(then=writes[start : start + size]) for start in range(0, len(writes), size)]
    if len(groups) + len(others) > room:
        raise OperationalError(
            f"a commit changes {len(writes)} keys, rows and entries of indexes, and etcd takes"
            f" {room * size} in one transaction with --max-txn-ops={most}: write in smaller"
            " portions, or start etcd with a higher one and say it in the URL (?txn_ops=)"
        )
    return Txn(conditions, (*groups, *others), asked)
