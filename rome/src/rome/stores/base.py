"""What ROME asks of a key/value store.

A store keeps, for one database:

- the schema: one entry a table, and a version that each change raises;
- rows: table number and row number -> the row's bytes (rows.py);
- unique indexes: the bytes of the columns -> row number;
- set indexes: the bytes of the columns -> a set of row numbers;
- ordered indexes: entries in order, each a score and a member.  Of a key that is the row
  number both are the number as text; of others the score is "0" and the member bytes that
  end in the row number and have the order of the columns (sort_bytes.py);
- for each table the highest row number that was handed out, and the token of the last
  commit that wrote it (0: none did).

Rows may be held for a while: a transaction that compares and sets them asks so with the read that
brings them, and others that do so too are told to wait.  So may keys that no row has, by who is
about to insert one.  Nothing else heeds it: what a commit relies on is checked by the commit.

`read` and `commit` are atomic.  In Redis each is one round trip, a script's, but for a read of many
rows, whose answer is as of the last of several (redis/pages.py).  A store without scripts takes one
for each level of look-ups (etcd/read.py), and perhaps another one for what a commit depends on.

The steps of a read, their look-ups and filters, and the lists that scripts take for them, are
those of wire.py.  A store may ignore semi-joins; where it doesn't, later steps look only for
what is left, and where rows of a step are left out so, those of the steps before it
that it has semi-joins for may go as well.  The answer of a step with an aggregation is a list of
groups, each the packed results of the functions, or `["no"]` where a sum would lose digits.

An answer has, for each step, `[row number, row, ...]`; a row that an earlier step has
given for the same table isn't given again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from rome.stores.wire import IndexKey, KeyLookup, Lookup, Step

Rows = list[bytes]

# What is held of a table: the number of a row as text, or a unique key (`unique_name`).
HeldName = str | bytes

# Seconds for which a transaction holds rows at most, unless it ends before or says otherwise.
HOLD_S = 5.0


def hold_of(said: float | None) -> float:
    """Return the seconds for which rows are held, where `said` is what was asked for."""
    return HOLD_S if said is None else said


@dataclass(slots=True)
class Traffic:
    """What went over the wire: round trips, bytes."""

    round_trips: int = 0
    sent: int = 0
    received: int = 0


class Request(NamedTuple):
    """Steps of one statement; tables whose last commits are wanted as well; and if these are
    the ones in `unless`, the rows aren't wanted.

    hold: whether the rows are to be held for the holder that asks.  lease: whether the tables
    watched are to be leased, so that nobody writes them for a while; for how long is the store's
    own setting, and it may do nothing of the kind.  keys: of how many of the first steps, each with
    one look-up by row number or unique key, the keys are to be held that lead to no row: they are
    about to be given to new ones.  A store may do nothing of that kind, either."""

    steps: Sequence[Step]
    watched: Sequence[int] = ()
    unless: Sequence[str] = ()
    hold: bool = False
    lease: bool = False
    keys: int = 0

    @property
    def holds(self) -> bool:
        """Whether something is to be held."""
        return self.hold or self.keys > 0


def unique_name(index: int, key: IndexKey) -> bytes:
    """Return the name under which a key of a unique index is held."""
    return b"u%d:" % index + (key.encode() if isinstance(key, str) else key)


def held_names(request: Request, rows: Sequence[Rows]) -> list[tuple[int, HeldName]]:
    """Return what a request wants to hold, by table: rows that it has found, and keys that lead
    to none."""
    names: list[tuple[int, HeldName]] = []
    for place, (step, found) in enumerate(zip(request.steps, rows, strict=True)):
        if request.hold:
            names += [(step.table, number.decode()) for number in found[::2]]
        elif place < request.keys and not found:
            names += [(step.table, name) for name in _names_of(step.lookups[0])]
    return names


def _names_of(lookup: Lookup) -> Sequence[HeldName]:
    """Return the names under which the keys of a look-up are held."""
    if not isinstance(lookup, KeyLookup):
        return ()
    if lookup.kind == "row":
        return lookup.keys
    return [unique_name(lookup.index, key) for key in lookup.keys]


class Answer(NamedTuple):
    """Rows by step (None: not wanted, or held by another), and the last commits of the tables
    watched.

    held: whether rows or keys are held now as asked.  wait: seconds for which another may hold
    them.  leased: whether the tables watched are leased as asked, from the question on."""

    rows: list[Rows] | None
    commits: list[str]
    held: bool = False
    wait: float = 0.0
    leased: bool = False


class SchemaChanged(Exception):
    """The schema has another version than the caller's; nothing was done."""


class Changed(Exception):
    """A row, parent, child or table that a commit relies on was changed by another."""


class Duplicate(Exception):
    """A commit would give one key to two rows: table number, index (-1: the row number)."""

    def __init__(self, table: int, index: int, holder: bytes) -> None:
        super().__init__(table, index, holder)
        self.table = table
        self.index = index
        self.holder = holder


class NotEmpty(Exception):
    """A table that should be empty has rows."""


class Written(Exception):
    """A table that a change of the schema has looked at was written since."""


class Unbuilt(Exception):
    """The connection was lost since an index was built: a failover may have lost entries."""


class Head(NamedTuple):
    """How many rows a table has, and the token of its last commit (0: none wrote it)."""

    rows: int
    write: str


class Dropped(NamedTuple):
    """A table, or indexes of it, that the schema no longer has.

    sets: `[index, slots]` of set indexes, as the rows tell their keys; unique, ordered: numbers
    of these indexes; defaults: as in a step; whole: whether rows and counters go as well.
    """

    table: int
    sets: Sequence[list[Any]]
    unique: Sequence[int]
    ordered: Sequence[int]
    defaults: Sequence[list[Any]]
    whole: bool


@dataclass(slots=True)
class Commit:
    """A transaction's checks and writes, for one atomic step.

    writes: dicts with `op` (insert, update, delete), `t` table, `n` row number (text),
    `unique_add`, `unique_del`, `set_add`, `set_del` (`[index, bytes]` each), `order_add`
    (`[index, score, member]`) and `order_del` (`[index, member]`); an insert has `row`; the
    others have `checks` (`[slot, bytes]` that must hold) and `defaults`; an update has `deltas`
    (`[slot, bytes]`) and `width` (slots of the table).
    exists: `[kind, table, index, key]` that must be there.
    childless: `[kind, table, index, row numbers, key]`: no other rows may be there.
    reads: `[table, token of its last commit]` as they were when read.
    used: `[table, row number]`, the highest that were chosen by the application.
    held: by table the rows and keys that `holder` holds, and that are free once this is done.
    """

    version: str
    token: str
    writes: list[dict[str, Any]] = field(default_factory=list)
    exists: list[list[Any]] = field(default_factory=list)
    childless: list[list[Any]] = field(default_factory=list)
    reads: list[list[Any]] = field(default_factory=list)
    used: list[list[Any]] = field(default_factory=list)
    holder: str = ""
    held: dict[int, list[HeldName]] = field(default_factory=dict)
    remember: int = 120  # seconds that the outcome can be asked for again


class Portion(NamedTuple):
    """What a store takes in one commit: rows together with the entries of their indexes, and bytes
    of rows."""

    entries: int
    bytes: int


UNBOUNDED = Portion(2**62, 2**62)


Area = Literal["row", "unique", "set", "order", "other"]


class Usage(NamedTuple):
    """What a key of the store takes: what it holds (`other`: of no table's), the table, bytes."""

    area: Area
    table: int
    bytes: int


class Store(Protocol):
    """One connection to the store of one database; not for two threads at once.

    portion: what one commit may hold; whoever copies many rows cuts them so.
    hold_s: seconds for which a transaction holds rows at most.
    """

    traffic: Traffic
    portion: Portion

    @property
    def hold_s(self) -> float: ...

    def schema_unless(self, version: str) -> tuple[str, Mapping[str, bytes]] | None:
        """Return version and entries, or None if the version is still this one.

        No version is empty.
        """

    def change_schema(
        self,
        version: str,
        puts: Mapping[str, bytes],
        drops: Sequence[str],
        empty: Sequence[int],
        unwritten: Sequence[tuple[int, str]] = (),
        complete: Sequence[tuple[str, int, int, int]] = (),
    ) -> str:
        """Change entries if the version is still this, the tables `empty` have no rows, the
        last commits of the tables `unwritten` are still these, and each of `complete` (`row`,
        `unique` or `order`; table; index, 0 for rows; count) has so many rows or entries.

        Sent again after a lost answer it is done once.  Returns the new version; raises
        SchemaChanged, NotEmpty, Written, Unbuilt, OutcomeUnknown.
        """

    def read(self, version: str, requests: Sequence[Request], holder: str = "") -> list[Answer]:
        """Return what is asked for, all as of one moment.  Raises SchemaChanged.

        A store may leave out answers but the first.  holder: who wants to hold rows: a name that
        ends in a dot and its own part; others with the same in front of that are no hindrance,
        but then the rows aren't held.
        """

    def release(self, holder: str, held: Mapping[int, Sequence[HeldName]]) -> None:
        """Let go what a holder holds, by table.  Nobody waits for it, and it may be lost."""

    def levels(self, steps: Sequence[Step], hold: bool = False) -> int:
        """Return how many round trips a read of these steps takes at most, where none of its
        tables is large; for EXPLAIN.  hold: its rows are to be held."""

    def commit(self, commit: Commit) -> None:
        """Do all of a commit or nothing.  Sent again after a lost answer it is done once.

        Raises SchemaChanged, Changed, Duplicate.
        """

    def reserve(self, name: str, count: int) -> int:
        """Return the first of `count` numbers that nobody else gets, under a name."""

    def build_index(
        self, table: int, index: int, slots: Sequence[int], unique: bool, defaults: list[list[Any]]
    ) -> None:
        """Enter all rows of a table; writers keep the index meanwhile.  Raises Duplicate."""

    def build_ordered(
        self,
        table: int,
        index: int,
        slots: Sequence[int],
        key: int | None,
        defaults: list[list[Any]],
    ) -> None:
        """Enter all rows of a table; writers keep the index meanwhile.

        key: the slot of the column that is the row number.
        """

    def remove(self, version: str, dropped: Sequence[Dropped]) -> None:
        """Remove what a change of the schema has taken out of it: rows, index entries, counters.

        Raises SchemaChanged if the version is another one: a failover may have lost that
        change.  Then some of it may be removed.
        """

    def heads(self, tables: Sequence[int]) -> list[Head]:
        """Tell how many rows each table has, and its last commit, in one round trip."""

    def snapshot(self, table: int) -> tuple[str, list[tuple[int, bytes]]] | None:
        """A table's last commit and all its rows `(row number, row)`, as of one moment, in one
        round trip; None: they are too many for that."""

    def scan_all(self, tables: Sequence[int]) -> Iterator[tuple[int, list[tuple[int, bytes]]]]:
        """Yield all rows of several tables, in pages `(table, [(row number, row), ...])`; a table's
        pages follow each other, in the order of `tables`.  As with `scan`, rows changed
        meanwhile may be old or new, and a row may come twice.  Small tables come together in one
        round trip."""

    def scan(self, table: int) -> Iterator[tuple[int, bytes]]:
        """Yield all rows, in no order; rows changed meanwhile may be old or new."""

    def entries(self, table: int, index: int, unique: bool) -> Iterator[tuple[bytes, int]]:
        """Yield all entries of an index, in no order."""

    def members(self, table: int, index: int) -> Iterator[bytes]:
        """Yield all members of an ordered index, in no order."""

    def count(self, table: int) -> int:
        """Return rows of a table."""

    def close(self) -> None:
        """End the connection."""


class ServerStore(Store, Protocol):
    """A store that other processes share, and that can be looked into as a whole."""

    def usage(self) -> Iterator[Usage]:
        """Yield what every key of this database takes."""

    def drop(self) -> None:
        """Remove the database: first its schema, so that nobody writes into what is left."""
