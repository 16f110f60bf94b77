"""What base.py asks of a store: of the one in memory, of Redis and of etcd alike."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgpack import unpackb
from rome.stores import rows
from rome.stores.base import (
    Answer,
    Changed,
    Commit,
    Dropped,
    Duplicate,
    NotEmpty,
    Request,
    SchemaChanged,
    Store,
)
from rome.stores.etcd.connection import Server as EtcdMembers
from rome.stores.etcd.store import EtcdStore
from rome.stores.memory.store import MemoryStore
from rome.stores.redis.link import Server
from rome.stores.redis.store import RedisStore
from rome.stores.rows import NULL, pack_value
from rome.stores.sort_bytes import AFTER, entry, sort_bytes

from tests.etcd_servers import EtcdServer
from tests.servers import RedisServer
from tests.steps import typed

T, U = 1, 2  # tables
NAME, GROUP = 1, 2  # indexes of T: unique over slot 1, a set over slot 2
WIDTH = 4

_names = itertools.count()


def schema_of(store: Store) -> tuple[str, Mapping[str, bytes]]:
    """Version and entries."""
    found = store.schema_unless("")
    assert found is not None
    return found


class Database:
    """A store's database, with short words for its requests."""

    def __init__(self, connect: Callable[[], Store]) -> None:
        self.connect = connect
        self.store = connect()
        self.version = schema_of(self.store)[0]

    def commit(self, *writes: dict[str, Any], **parts: Any) -> None:
        parts.setdefault("token", uuid.uuid4().hex)
        self.store.commit(Commit(version=self.version, writes=list(writes), **parts))

    def ask(
        self, *steps: list[Any], watched: Sequence[int] = (), unless: Sequence[str] = ()
    ) -> tuple[list[Any], list[str]]:
        request = Request([typed(step) for step in steps], watched, unless)
        answer = self.store.read(self.version, [request])[0]
        assert answer.rows is not None
        return answer.rows, answer.commits

    def read(self, *steps: list[Any]) -> list[dict[int, Any]]:
        answer, _ = self.ask(*steps)
        return [
            {
                int(number): tuple(rows.decode(row))
                for number, row in zip(part[::2], part[1::2], strict=True)
            }
            for part in answer
        ]

    def numbers(self, *arguments: Any, **parts: Any) -> list[int]:
        return sorted(self.read(step(*arguments, **parts))[0])

    def entries(self, index: int, unique: bool, table: int = T) -> set[tuple[bytes, int]]:
        return set(self.store.entries(table, index, unique))


def key(*values: Any) -> bytes:
    return b"".join(map(pack_value, values))


def step(
    lookups: Any = (),
    filters: Any = (),
    *,
    table: int = T,
    defaults: Any = (),
    order: Any = (),
    limit: int = 0,
    columns: Any = False,
) -> list[Any]:
    lookups = [
        [kind, index, keys, []] if keys is not False else [kind, index, False, *rest]
        for kind, index, keys, *rest in lookups
    ]
    tests = [list(test) for test in filters]
    return [table, lookups, tests, list(defaults), list(order), limit, columns]


def insert(number: int, *values: Any, table: int = T) -> dict[str, Any]:
    made = write("insert", number, table)
    made["row"] = rows.encode(list(values))
    if table == T:
        if values[1] is not None:
            made["unique_add"] = [[NAME, key(values[1])]]
        made["set_add"] = [[GROUP, key(values[2])]]
    return made


def write(op: str, number: int, table: int = T, **parts: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {
        "op": op,
        "t": table,
        "n": str(number),
        "checks": [],
        "defaults": [],
        "deltas": [],
        "unique_add": [],
        "unique_del": [],
        "set_add": [],
        "set_del": [],
        "order_add": [],
        "order_del": [],
        "width": WIDTH,
    }
    return empty | parts


@pytest.fixture(params=["memory", "redis", "etcd", "etcd, local reads"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    name = f"store{next(_names)}"
    if request.param == "memory":
        yield Database(lambda: MemoryStore(name))
        return
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        made = Database(lambda: in_redis(server, name))
    else:
        member: EtcdServer = request.getfixturevalue("etcd_server")
        made = Database(lambda: in_etcd(member, name, local="local" in request.param))
    yield made
    made.store.close()


def in_redis(server: RedisServer, name: str) -> RedisStore:
    return RedisStore(Server(((server.host, server.port),)), name)


def in_etcd(server: EtcdServer, name: str, local: bool = False) -> EtcdStore:
    return EtcdStore(EtcdMembers(((server.host, server.port),), local_reads=local), name)


@pytest.fixture
def filled(database: Database) -> Database:
    """Rows 1 to 6: number, name, group, value."""
    database.commit(
        insert(1, 1, "a", 1, 10),
        insert(2, 2, "b", 1, None),
        insert(3, 3, None, 2, -5),
        insert(4, 4, None, 2, 2.5),
        insert(5, 5, "é", None, "text"),
        insert(6, 6, "f", 3, b"\x00"),
    )
    return database


# ---------------------------------------------------------------- schema


def test_schema(database: Database) -> None:
    version, entries = schema_of(database.store)
    assert entries == {}
    second = database.store.change_schema(version, {"a": b"\x00\xff", "b": b"2"}, [], [])
    assert second != version
    third = database.store.change_schema(second, {"a": b"3"}, ["b"], [])
    assert schema_of(database.connect()) == (third, {"a": b"3"})


def test_old_version_is_refused(database: Database) -> None:
    version = database.version
    database.store.change_schema(version, {"a": b"1"}, [], [])
    with pytest.raises(SchemaChanged):
        database.store.change_schema(version, {"b": b"1"}, [], [])
    with pytest.raises(SchemaChanged):
        database.read(step())
    with pytest.raises(SchemaChanged):
        database.commit(insert(1, 1, "a", 1, 1))
    assert set(schema_of(database.store)[1]) == {"a"}
    assert database.store.count(T) == 0


def test_table_that_should_be_empty(filled: Database) -> None:
    with pytest.raises(NotEmpty):
        filled.store.change_schema(filled.version, {"a": b"1"}, [], [U, T])
    assert schema_of(filled.store) == (filled.version, {})
    filled.store.change_schema(filled.version, {"a": b"1"}, [], [U])


# ---------------------------------------------------------------- reading


def test_whole_table(filled: Database) -> None:
    assert filled.read(step())[0] == {
        1: (1, "a", 1, 10),
        2: (2, "b", 1, None),
        3: (3, None, 2, -5),
        4: (4, None, 2, 2.5),
        5: (5, "é", None, "text"),
        6: (6, "f", 3, b"\x00"),
    }
    assert filled.numbers(table=U) == []


@pytest.mark.parametrize(
    ("lookup", "found"),
    [
        (("row", 0, ["1", "3", "77", "1"]), [1, 3]),
        (("row", 0, []), []),
        (("unique", NAME, [key("a"), key("é"), key("zz")]), [1, 5]),
        (("unique", NAME, [key(1)]), []),
        (("set", GROUP, [key(1)]), [1, 2]),
        (("set", GROUP, [key(1), key(3), key(9)]), [1, 2, 6]),
        (("set", GROUP, [NULL]), [5]),
    ],
)
def test_lookup(filled: Database, lookup: Any, found: list[int]) -> None:
    assert filled.numbers([lookup]) == found


@pytest.mark.parametrize(
    ("test", "found"),
    [
        ((3, "in", [key(10), key("text")]), [1, 5]),
        ((3, "in", []), []),
        ((3, "out", [key(10)]), [3, 4, 5, 6]),
        ((3, "not", [key(10), key("text")]), [2, 3, 4, 6]),
        ((3, "null", []), [2]),
        ((3, "some", []), [1, 3, 4, 5, 6]),
        # Numbers come before text, text before blobs; NULL fulfils nothing.
        ((3, "<", [key(3)]), [3, 4]),
        ((3, "<=", [key(2.5)]), [3, 4]),
        ((3, ">", [key(2.5)]), [1, 5, 6]),
        ((3, ">=", [key(10)]), [1, 5, 6]),
        ((3, "<", [key("text")]), [1, 3, 4]),
        ((3, "<=", [key("text")]), [1, 3, 4, 5]),
        ((3, ">", [key("t")]), [5, 6]),
        ((3, ">", [key(b"")]), [6]),
        ((1, "<", [key("é")]), [1, 2, 6]),
        ((1, ">=", [key("é")]), [5]),
        ((0, "any", [[[3, "null", []]], [[0, ">", [key(4)]], [2, "some", []]]]), [2, 6]),
    ],
)
def test_filter(filled: Database, test: Any, found: list[int]) -> None:
    assert filled.numbers(filters=[test]) == found


def test_lookups_and_filters_hold_together(filled: Database) -> None:
    both = filled.read(
        step([("set", GROUP, [key(1), key(2)]), ("row", 0, ["1", "2", "3", "5"])],
             [(2, "in", [key(1), key(2)]), (0, "in", [key(1), key(2), key(3), key(5)]),
              (3, "some", [])])
    )  # fmt: skip
    assert sorted(both[0]) == [1, 3]


def test_columns_only(filled: Database) -> None:
    answer, _ = filled.ask(step([("row", 0, ["4"])], columns=[0, 3]))
    number, row = answer[0]
    assert int(number) == 4
    assert unpackb(row) == [4, 2.5]


@pytest.mark.parametrize(
    ("order", "limit", "found"),
    [
        ([[0, False]], 2, [1, 2]),
        ([[0, True]], 2, [5, 6]),
        # Rows equal to the last one come as well.
        ([[2, False]], 1, [5]),
        ([[2, False]], 2, [1, 2, 5]),
        ([[2, True]], 2, [3, 4, 6]),
        ([[2, True], [0, True]], 2, [4, 6]),
        ([[3, False]], 3, [2, 3, 4]),
        ([[3, True]], 2, [5, 6]),
        ([[0, False]], 100, [1, 2, 3, 4, 5, 6]),
    ],
)
def test_first_in_order(filled: Database, order: Any, limit: int, found: list[int]) -> None:
    assert filled.numbers(order=order, limit=limit) == found


def test_limit_without_order(filled: Database) -> None:
    """Any rows will do, if there are enough."""
    assert len(filled.numbers(limit=2)) >= 2


def test_limit_after_filters(filled: Database) -> None:
    assert filled.numbers(filters=[(0, ">", [key(2)])], order=[[0, False]], limit=2) == [3, 4]


def test_join(filled: Database) -> None:
    filled.commit(
        insert(10, 10, 1, table=U), insert(11, 11, 3, table=U), insert(12, 12, None, table=U)
    )
    # The values of U's column 1 are groups of T, and row numbers of T.
    by_group = [step(table=U), step([("set", GROUP, False, 0, [1], [])])]
    assert [sorted(part) for part in filled.read(*by_group)] == [[10, 11, 12], [1, 2, 6]]
    by_row = [step(table=U), step([("row", 0, False, 0, [1], ["5"])])]
    assert [sorted(part) for part in filled.read(*by_row)] == [[10, 11, 12], [1, 3, 5]]
    narrow = [
        step([("row", 0, ["10"])], [(0, "in", [key(10)])], table=U),
        step([("set", GROUP, False, 0, [1], [key(3)])]),
    ]
    assert [sorted(part) for part in filled.read(*narrow)] == [[10], [1, 2, 6]]


def test_join_by_unique_key(filled: Database) -> None:
    filled.commit(insert(10, 10, "a", table=U), insert(11, 11, "é", table=U))
    steps = [step(table=U), step([("unique", NAME, False, 0, [1], [key("f")])])]
    assert [sorted(part) for part in filled.read(*steps)] == [[10, 11], [1, 5, 6]]


def test_join_by_a_row_that_was_given_already(filled: Database) -> None:
    """A row comes once, but counts in each step."""
    first = step([("row", 0, ["1"])], [(0, "in", [key(1)])])
    again = step([("set", GROUP, False, 1, [2], [])])
    answer = filled.read(first, first, again)
    assert [sorted(part) for part in answer] == [[1], [], [2]]


def reduced(wanted: list[Any], *parts: list[int]) -> list[Any]:
    """A step that leaves out rows of others."""
    return [*wanted, False, [list(part) for part in parts]]


def test_rows_without_a_match(filled: Database) -> None:
    filled.commit(
        insert(10, 10, 1, table=U),
        insert(11, 11, 3, table=U),
        insert(12, 12, None, table=U),
        insert(13, 13, 99, table=U),
    )
    # Groups of T: of 1, 3 and 99 two are there; NULL matches nothing, not even NULL.
    steps = [step(table=U), reduced(step([("set", GROUP, False, 0, [1], [])]), [0, 1, 2, 0])]
    assert [sorted(part) for part in filled.read(*steps)] == [[10, 11], [1, 2, 6]]
    whole = [step(table=U), reduced(step(), [0, 1, 2, -1])]
    assert [sorted(part) for part in filled.read(*whole)] == [[10, 11], [1, 2, 3, 4, 5, 6]]
    # Filters decide which rows there are to match; later steps follow what is left.
    some = step([("set", GROUP, False, 0, [1], [])], [(3, "in", [key(b"\x00")])])
    later = step([("row", 0, False, 0, [1], [])])
    steps = [step(table=U), reduced(some, [0, 1, 2, 0]), later]
    assert [sorted(part) for part in filled.read(*steps)] == [[11], [6], [3]]


def test_rows_without_a_match_of_a_match(filled: Database) -> None:
    filled.commit(*(insert(n, n, n - 9, table=U) for n in (10, 11, 12)))
    # U's column 1 is T's number; T's groups are U's numbers less ... of a third step.
    steps = [
        step(table=U),
        reduced(step([("row", 0, False, 0, [1], [])]), [0, 1, 0, 0]),
        reduced(step([("row", 0, ["2", "9"])], [(1, "some", [])]), [1, 0, 0, -1]),
    ]
    assert [sorted(part) for part in filled.read(*steps)] == [[11], [2], []]
    none = reduced(step([("row", 0, ["9"])]), [1, 0, 0, -1])
    assert [sorted(part) for part in filled.read(*steps[:2], none)] == [[], [], []]


def test_columns_younger_than_rows(database: Database) -> None:
    database.commit(insert(1, 1, "a", 1), insert(2, 2, "b", 1, 7))
    defaults = [[3, key(99)]]
    assert database.numbers(filters=[(3, "in", [key(99)])], defaults=defaults) == [1]
    assert database.numbers(filters=[(3, "null", [])], defaults=defaults) == []
    assert database.numbers(filters=[(3, "null", [])]) == [1]
    assert database.numbers(order=[[3, True]], limit=1, defaults=defaults) == [1]
    answer, _ = database.ask(step([("row", 0, ["1"])], columns=[0, 3], defaults=defaults))
    assert unpackb(answer[0][1]) == [1, 99]


def groups(database: Database, slots: Any, functions: Any, **parts: Any) -> Any:
    answer, _ = database.ask([*step(**parts), [slots, functions]])
    if answer[0] and answer[0][0] == b"no":
        return "no"
    found: list[Any] = list(answer[0])
    return sorted([tuple(map(rows.unpack_value, group)) for group in found], key=repr)


def test_aggregates(filled: Database) -> None:
    small = [(0, "<", [key(4)])]
    functions = [["count", -1], ["count", 3], ["sum", 3], ["min", 3], ["max", 3]]
    assert groups(filled, [], functions, filters=small) == [(3, 2, 5, -5, 10)]
    assert groups(filled, [2], [["", 2], ["count", -1], ["max", 0]], filters=small) == [
        (1, 2, 2),
        (2, 1, 3),
    ]
    assert groups(filled, [], [["min", 3], ["max", 3]]) == [(-5, b"\x00")]


def test_aggregates_of_nothing(filled: Database) -> None:
    none = [(0, ">", [key(100)])]
    functions = [["count", -1], ["sum", 0], ["min", 0], ["max", 0]]
    assert groups(filled, [], functions, filters=none) == [(0, None, None, None)]
    assert groups(filled, [2], [["", 2], ["count", -1]], filters=none) == []


@pytest.mark.parametrize(
    "values", [[1], [127, 128, 255], [-1, -32, -33, -200], [256, 65535, 65536, 2**32, None], [None]]
)
def test_sums(database: Database, values: list[Any]) -> None:
    database.commit(*(insert(n, n, f"n{n}", n % 2, v) for n, v in enumerate(values)))
    numbers = [value for value in values if value is not None]
    assert groups(database, [], [["sum", 3]]) == [(sum(numbers) if numbers else None,)]
    assert groups(database, [], [["sum", 0]]) == [(sum(range(len(values))),)]
    by_group = [[v for v in values[half::2] if v is not None] for half in (0, 1)]
    assert groups(database, [2], [["", 2], ["sum", 3]]) == [
        (half, sum(part) if part else None)
        for half, part in enumerate(by_group)
        if half < len(values)
    ]


@pytest.mark.parametrize("value", [2**53, -(2**60), 0.1, "5", b"5"])
def test_sum_that_is_left_to_sqlite(database: Database, value: Any) -> None:
    database.commit(insert(1, 1, "a", 1, 1), insert(2, 2, "b", 1, value))
    assert groups(database, [], [["sum", 3]]) == "no"


# ---------------------------------------------------------------- commits


def test_update_changes_single_columns(filled: Database) -> None:
    filled.commit(
        write("update", 1, checks=[[3, key(10)]], deltas=[[1, key("z")]],
              unique_del=[[NAME, key("a")]], unique_add=[[NAME, key("z")]])
    )  # fmt: skip
    filled.commit(write("update", 1, checks=[[1, key("z")]], deltas=[[3, key(11)]]))
    assert filled.read(step([("row", 0, ["1"])]))[0] == {1: (1, "z", 1, 11)}
    assert filled.numbers([("unique", NAME, [key("a")])]) == []
    assert filled.numbers([("unique", NAME, [key("z")])]) == [1]


def test_update_of_a_row_older_than_a_column(database: Database) -> None:
    database.commit(insert(1, 1, "a", 1))
    defaults = [[3, key(99)]]
    database.commit(write("update", 1, checks=[[3, key(99)]], defaults=defaults,
                          deltas=[[2, key(5)]],
                          set_del=[[GROUP, key(1)]], set_add=[[GROUP, key(5)]]))  # fmt: skip
    assert database.read(step())[0] == {1: (1, "a", 5, 99)}
    assert database.entries(GROUP, False) == {(key(5), 1)}


def test_delete(filled: Database) -> None:
    filled.commit(
        write("delete", 1, checks=[[0, key(1)]], unique_del=[[NAME, key("a")]],
              set_del=[[GROUP, key(1)]])
    )  # fmt: skip
    assert filled.store.count(T) == 5
    assert (key("a"), 1) not in filled.entries(NAME, True)
    assert (key(1), 1) not in filled.entries(GROUP, False)


REFUSED: list[tuple[str, dict[str, Any], dict[str, Any], type[Exception]]] = [
    ("a column changed", write("update", 1, checks=[[3, key(11)]]), {}, Changed),
    ("the row is gone", write("delete", 77), {}, Changed),
    ("the number is taken", insert(6, 6, "new", 1, 1), {}, Duplicate),
    ("the key is taken", insert(9, 9, "a", 1, 1), {}, Duplicate),
    ("no parent", insert(9, 9, "n", 1, 1), {"exists": [["row", T, 0, "77"]]}, Changed),
    ("no parent", insert(9, 9, "n", 1, 1), {"exists": [["unique", T, NAME, key("q")]]}, Changed),
    ("no parent", insert(9, 9, "n", 1, 1), {"exists": [["set", T, GROUP, key(77)]]}, Changed),
    ("a child", write("delete", 3), {"childless": [["row", T, 0, [], "1"]]}, Changed),
    ("a child", write("delete", 3), {"childless": [["set", T, GROUP, ["1"], key(1)]]}, Changed),
    ("a child", write("delete", 3), {"childless": [["unique", T, NAME, [], key("a")]]}, Changed),
    ("the table was written", insert(9, 9, "n", 1, 1), {"reads": [[T, "0"]]}, Changed),
]


@pytest.mark.parametrize(("why", "wrong", "parts", "error"), REFUSED)
def test_refused_commit_does_nothing(
    filled: Database, why: str, wrong: dict[str, Any], parts: Any, error: type[Exception]
) -> None:
    before = filled.read(step())[0], filled.entries(NAME, True), filled.entries(GROUP, False)
    good = insert(20, 20, "good", 7, 1)
    with pytest.raises(error):
        filled.commit(good, wrong, used=[[T, 500]], **parts)
    after = filled.read(step())[0], filled.entries(NAME, True), filled.entries(GROUP, False)
    assert after == before, why
    assert filled.store.reserve(str(T), 1) < 500


def test_what_may_be(filled: Database) -> None:
    _, commits = filled.ask(watched=[T, U])
    assert len(commits[0]) == 32 and commits[1] == "0"
    filled.commit(
        insert(9, 9, "n", 1, 1),
        exists=[["row", T, 0, "1"], ["unique", T, NAME, key("a")], ["set", T, GROUP, key(1)]],
        childless=[
            ["row", T, 0, [], "77"], ["row", T, 0, ["1"], "1"],
            ["set", T, GROUP, ["1", "2"], key(1)], ["set", T, GROUP, [], key(77)],
            ["unique", T, NAME, ["1"], key("a")], ["unique", T, NAME, [], key("q")],
        ],
        reads=[[T, commits[0]], [U, "0"]],
    )  # fmt: skip
    assert filled.store.count(T) == 7


def test_duplicate_tells_who_has_the_key(filled: Database) -> None:
    with pytest.raises(Duplicate) as caught:
        filled.commit(insert(9, 9, "é", 1, 1))
    assert (caught.value.table, caught.value.index, caught.value.holder) == (T, NAME, b"5")


def test_keys_change_hands_in_one_commit(filled: Database) -> None:
    def renamed(number: int, old: str, new: str) -> dict[str, Any]:
        return write("update", number, checks=[[1, key(old)]], deltas=[[1, key(new)]],
                     unique_del=[[NAME, key(old)]], unique_add=[[NAME, key(new)]])  # fmt: skip

    filled.commit(renamed(1, "a", "b"), renamed(2, "b", "a"))
    names = {entry for entry in filled.entries(NAME, True) if entry[1] in (1, 2)}
    assert names == {(key("b"), 1), (key("a"), 2)}


def test_a_commit_that_is_sent_twice_is_done_once(filled: Database) -> None:
    token = uuid.uuid4().hex
    change = write("update", 1, checks=[[3, key(10)]], deltas=[[3, key(11)]])
    for _ in range(2):
        filled.commit(change, token=token)
    assert filled.read(step([("row", 0, ["1"])]))[0][1][3] == 11
    _, commits = filled.ask(watched=[T, U])
    assert commits == [token, "0"]


def test_rows_that_did_not_change_are_not_sent(filled: Database) -> None:
    rows, commits = filled.ask(step(), watched=[T, U])
    assert rows[0]
    request = Request([typed(step())], [T, U], commits)
    assert filled.store.read(filled.version, [request]) == [Answer(None, commits)]
    filled.commit(write("update", 1, checks=[], deltas=[[3, key(11)]]))
    changed, later = filled.ask(step(), watched=[T, U], unless=commits)
    assert changed[0] and later[0] != commits[0] and later[1] == commits[1]


def test_several_requests_are_answered_each_by_itself(filled: Database) -> None:
    _, commits = filled.ask(watched=[T])
    by_name = step([("unique", NAME, [key("a")], [])])
    requests = [
        Request([typed(step([("row", 0, ["1"])]))]),
        Request([typed(step([("row", 0, ["1"])])), typed(by_name)]),  # a row once in each answer
        Request([typed(step())], [T], commits),
    ]
    first, second, third = filled.store.read(filled.version, requests)
    assert first.rows is not None and second.rows is not None
    assert first.rows[0][0] == b"1" and second.rows == [first.rows[0], []]
    assert third == Answer(None, commits)


# ---------------------------------------------------------------- rows that are held


def row_of(number: int) -> Request:
    return Request([typed(step([("row", 0, [str(number)])]))], hold=True)


def test_a_row_is_held_until_its_commit(filled: Database) -> None:
    (mine,) = filled.store.read(filled.version, [row_of(1)], "a.1.1")
    assert mine.held and mine.rows
    (theirs,) = filled.store.read(filled.version, [row_of(1)], "b.1.1")
    assert not theirs.held and theirs.rows is None and 0 < theirs.wait <= 5
    (again,) = filled.store.read(filled.version, [row_of(1)], "a.1.1")
    assert again.held
    filled.commit(holder="a.1.1", held={T: ["1"]})
    (theirs,) = filled.store.read(filled.version, [row_of(1)], "b.1.1")
    assert theirs.held


def test_a_row_is_held_until_it_is_let_go(filled: Database) -> None:
    assert filled.store.read(filled.version, [row_of(1)], "a.1.1")[0].held
    filled.store.release("b.1.1", {T: ["1"]})  # another's
    assert filled.store.read(filled.version, [row_of(1)], "b.1.1")[0].wait
    filled.store.release("a.1.1", {T: ["1", "77"]})
    assert filled.store.read(filled.version, [row_of(1)], "b.1.1")[0].held
    assert filled.read(step([("row", 0, ["1"])]))[0]  # who doesn't ask for it gets it


def test_another_transaction_of_the_thread_is_no_hindrance(filled: Database) -> None:
    assert filled.store.read(filled.version, [row_of(1)], "a.1.1")[0].held
    (other,) = filled.store.read(filled.version, [row_of(1)], "a.1.2")
    assert not other.held and other.rows and not other.wait
    assert filled.store.read(filled.version, [row_of(1)], "a.2.1")[0].wait


def test_of_rows_that_come_ahead_all_are_held_or_none(filled: Database) -> None:
    assert filled.store.read(filled.version, [row_of(2)], "a.1.1")[0].held
    first = Request([typed(step())])
    requests = [first, row_of(1), row_of(2)]
    answers = filled.store.read(filled.version, requests, "b.1.1")
    assert answers[0].rows and [answer.held for answer in answers[1:]] == [False, False]
    assert [answer.rows for answer in answers[1:]] == [None, None]
    assert filled.store.read(filled.version, [row_of(1)], "c.1.1")[0].held
    # A statement's own row is held all the same.
    answers = filled.store.read(filled.version, [row_of(3), row_of(2)], "b.1.1")
    assert [answer.held for answer in answers] == [True, False]
    # Who waits for one takes none of the others.
    answers = filled.store.read(filled.version, [row_of(2), row_of(4)], "b.1.1")
    assert answers[0].wait and not answers[1].held


def test_a_row_that_is_not_there_is_held_by_nobody(filled: Database) -> None:
    (answer,) = filled.store.read(filled.version, [row_of(99)], "a.1.1")
    assert answer.held and answer.rows == [[]]
    assert filled.store.read(filled.version, [row_of(99)], "b.1.1")[0].held


def test_numbers_that_an_application_chose(database: Database) -> None:
    assert database.store.reserve(str(T), 10) == 1
    assert database.store.reserve(str(T), 1) == 11
    database.commit(insert(40, 40, "a", 1, 1), used=[[T, 40]])
    assert database.store.reserve(str(T), 2) == 41
    database.commit(insert(5, 5, "b", 1, 1), used=[[T, 5]])
    assert database.store.reserve(str(T), 1) == 43
    assert database.store.reserve(str(U), 1) == 1


# ---------------------------------------------------------------- indexes


MANY = 1300
ODD = ["*", "?", "[a]", "\\", "^", "a*b", "{x}", ":", " ", "\x00", "\n", "é"]


def test_index_of_many_rows(database: Database) -> None:
    for start in range(0, MANY, 100):
        numbers = range(start, start + 100)
        database.commit(*(insert(n, n, f"n{n}", n % 7, n, table=U) for n in numbers))
    database.store.build_index(U, 5, [2, 3], False, [])
    database.store.build_index(U, 6, [1], True, [])
    assert database.entries(5, False, U) == {(key(n % 7, n), n) for n in range(MANY)}
    assert database.entries(6, True, U) == {(key(f"n{n}"), n) for n in range(MANY)}
    database.store.build_ordered(U, 7, [0], 0, [])
    assert len(list(database.store.members(U, 7))) == MANY
    indexes = Dropped(U, [[5, [2, 3]]], [6], [7], [], whole=False)
    with pytest.raises(SchemaChanged):
        database.store.remove("another", [indexes])
    assert len(database.entries(5, False, U)) == MANY
    database.store.remove(database.version, [indexes])
    assert not list(database.store.members(U, 7))
    assert not database.entries(5, False, U)
    assert not database.entries(6, True, U)
    assert dict(database.store.scan(U)).keys() == set(range(MANY))
    database.store.remove(database.version, [Dropped(U, [], [], [], [], whole=True)])
    assert database.store.count(U) == 0
    assert list(database.store.scan(U)) == []


def test_index_over_odd_text(database: Database) -> None:
    database.commit(*(insert(n, n, text, text, n) for n, text in enumerate(ODD)))
    database.store.build_index(T, 9, [1, 2], False, [])
    expected = {(key(text), n) for n, text in enumerate(ODD)}
    assert database.entries(NAME, True) == expected
    assert database.entries(GROUP, False) == expected
    assert database.entries(9, False) == {(key(text, text), n) for n, text in enumerate(ODD)}
    for n, text in enumerate(ODD):
        assert database.numbers([("set", GROUP, [key(text)])]) == [n]


def test_unique_index_that_rows_refuse(filled: Database) -> None:
    with pytest.raises(Duplicate):
        filled.store.build_index(T, 8, [2], True, [])
    # NULLs don't collide; a row without the column has what fills it.
    filled.store.build_index(T, 7, [1], True, [])
    assert filled.entries(7, True) == filled.entries(NAME, True)


# ---------------------------------------------------------------- both alike


_values = st.one_of(
    st.none(),
    st.sampled_from([0, 1, 2, -1, 2**53 - 1, 1.5, -0.5, "", "a", "b", "é", b"", b"a", b"\xff"]),
    st.sampled_from([127, 128, 200, 255, 256, 65535, 65536, 2**32, -33, -200, "x" * 40]),
    st.just("long"),  # stands for a text so long that the row's offsets take four bytes each
)
# Some rows are older than the last column.
_rows = st.lists(
    st.one_of(st.tuples(_values, _values, _values), st.tuples(_values, _values)), max_size=20
)
_slot = st.integers(0, 2)
_some = st.lists(_values.filter(lambda value: value is not None), max_size=3)
_simple: Any = st.one_of(
    st.tuples(_slot, st.sampled_from(["in", "out", "not"]), _some),
    st.tuples(_slot, st.sampled_from(["null", "some"]), st.just([])),
    st.tuples(
        _slot,
        st.sampled_from(["<", "<=", ">", ">="]),
        _some.filter(bool).map(lambda values: values[:1]),
    ),
)
_test: Any = st.one_of(
    _simple,
    st.tuples(
        st.just(0),
        st.just("any"),
        st.lists(st.lists(_simple, min_size=1, max_size=2), min_size=1, max_size=3),
    ),
)
_order = st.lists(st.tuples(_slot, st.booleans()), max_size=2)
_columns = st.lists(_slot, min_size=1, max_size=3, unique=True)


def packed(test: Any) -> list[Any]:
    """A filter with bytes for values."""
    slot, op, values = test
    if op == "any":
        return [slot, op, [list(map(packed, branch)) for branch in values]]
    return [slot, op, list(map(pack_value, values))]


def commit_each(database: Database, writes: Sequence[dict[str, Any]]) -> None:
    """Commit the writes, each by itself where all of them may be too large for one commit."""
    if not isinstance(database.store, EtcdStore):
        database.commit(*writes)
        return
    for one in writes:
        database.commit(one)


@settings(max_examples=300)
@given(_rows, st.lists(_test, max_size=3), _order, st.integers(0, 4), _columns)
def test_servers_answer_as_memory_does(
    redis_server: RedisServer,
    etcd_server: EtcdServer,
    found: Any,
    tests: Any,
    order: Any,
    limit: int,
    columns: Any,
) -> None:
    found = [["long" * 17000 if value == "long" else value for value in row] for row in found]
    name = f"alike{next(_names)}"
    answers = []
    for store in (MemoryStore(name), in_redis(redis_server, name), in_etcd(etcd_server, name)):
        database = Database(lambda store=store: store)  # type: ignore[misc]
        new = [
            write("insert", n, U, row=rows.encode(list(values)), set_add=[[1, key(values[0])]])
            for n, values in enumerate(found)
        ]
        commit_each(database, new)
        filters = list(map(packed, tests))
        limit = limit if order else 0
        parts: dict[str, Any] = {"table": U, "filters": filters, "defaults": [[2, key("fill")]]}
        wanted = step(**parts, order=list(map(list, order)), limit=limit)
        joined = step([("set", 1, False, 0, [1], [])], table=U)
        answer = [sorted(part.items()) for part in database.read(wanted, joined)]
        matched = reduced(step([("set", 1, False, 0, [1], [])], filters, table=U), [0, 1, 0, 0])
        answer += [
            sorted(part.items())
            for part in database.read(step(filters=[[1, "some", []]], table=U), matched)
        ]
        some, _ = database.ask(step(**parts, columns=columns))
        few = sorted(zip(some[0][::2], map(unpackb, some[0][1::2]), strict=True))
        functions = [["count", -1], ["count", 2], ["min", 2], ["max", 2]]
        sums = [
            groups(database, [1], [["", 1], *functions], **parts),
            groups(database, [1, 0], [["", 0], *functions], **parts),
            groups(database, [], functions, **parts),
        ]
        answers.append(repr((answer, few, sums)))
        store.close()
    assert answers[0] == answers[1] == answers[2]


_new_values = st.dictionaries(st.integers(0, WIDTH - 1), _values, max_size=WIDTH)


@settings(max_examples=200)
@given(_rows, st.lists(st.tuples(_new_values, st.booleans()), max_size=6))
def test_servers_write_as_memory_does(
    redis_server: RedisServer, etcd_server: EtcdServer, found: Any, changes: Any
) -> None:
    """Updates, of shorter and of large rows as well, and deletes."""

    def bytes_of(value: Any) -> bytes:
        return pack_value("long" * 17000 if value == "long" else value)

    name = f"writes{next(_names)}"
    defaults: list[list[Any]] = [[2, key("fill")], [3, key(300)]]
    answers = []
    for store in (MemoryStore(name), in_redis(redis_server, name), in_etcd(etcd_server, name)):
        database = Database(lambda store=store: store)  # type: ignore[misc]
        parts = [list(map(bytes_of, row)) for row in found]
        new = [
            write("insert", n, U, row=rows.join(row), set_add=[[1, row[0]]])
            for n, row in enumerate(parts)
        ]
        commit_each(database, new)
        writes = []
        for (n, row), (new, goes) in zip(enumerate(parts), changes, strict=False):
            old = [*row, *(data for slot, data in defaults if slot >= len(row))]
            checks = [[slot, old[slot]] for slot in new]
            deltas = [[slot, bytes_of(value)] for slot, value in sorted(new.items())]
            if goes:
                made = write(
                    "delete", n, U, checks=checks, defaults=defaults, set_del=[[1, row[0]]]
                )
            else:
                made = write("update", n, U, checks=checks, defaults=defaults, deltas=deltas)
                made["set_del"], made["set_add"] = [[1, row[0]]], [[1, bytes_of(new.get(0))]]
            writes.append(made)
        commit_each(database, writes)
        answers.append((sorted(store.scan(U)), sorted(store.entries(U, 1, False))))
        store.close()
    assert answers[0] == answers[1] == answers[2]


# ---------------------------------------------------------------- ordered indexes

ROW_ORDER, VALUE_ORDER = 3, 4  # of T: row numbers, and slot 2 in the order of its values


def placed(number: int, group: Any, value: Any = None) -> dict[str, Any]:
    """A new row with its places in both orders."""
    made = insert(number, number, None, group, value)
    made["order_add"] = [
        [ROW_ORDER, str(number), str(number)],
        [VALUE_ORDER, "0", entry([group], number)],
    ]
    return made


@pytest.fixture
def placed_rows(database: Database) -> Database:
    """Rows -2 to 8, group: number // 3, value: number % 2."""
    database.commit(*(placed(number, number // 3, number % 2) for number in range(-2, 9)))
    return database


def between(low: str | bytes, high: str | bytes, walk: int = 0, *ties: int) -> list[Any]:
    index = ROW_ORDER if isinstance(low, str) else VALUE_ORDER
    return ["order", index, [low, high, int(isinstance(low, str)), walk, list(ties)]]


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        ("-inf", "+inf", range(-2, 9)),
        ("3", "5", [3, 4, 5]),
        ("(3", "(5", [4]),
        ("-inf", "(-1", [-2]),
        ("7.5", "+inf", [8]),
        ("5", "3", []),
        (b"-", b"+", range(-2, 9)),
        (b"[" + sort_bytes(1), b"(" + sort_bytes(2), [3, 4, 5]),
        (b"(" + sort_bytes(1) + AFTER, b"+", [6, 7, 8]),
        (b"-", b"(" + sort_bytes(-1), []),
        (b"-", b"(" + sort_bytes(-1) + AFTER, [-2, -1]),
    ],
)
def test_range(placed_rows: Database, low: Any, high: Any, found: Any) -> None:
    assert placed_rows.numbers([between(low, high)]) == list(found)
    odd = [(3, "in", [key(1)])]
    assert placed_rows.numbers([between(low, high)], odd) == [n for n in found if n % 2]


@pytest.mark.parametrize(
    ("lookup", "order", "limit", "found"),
    [
        (between("-inf", "+inf", 1), [[0, False]], 2, {-2, -1}),
        (between("-inf", "+inf", -1), [[0, True]], 2, {8, 7}),
        (between("(0", "+inf", 1), [[0, False]], 2, {1, 2}),
        (between("-inf", "(0", -1), [[0, True]], 1, {-1}),
        # Those equal to the last in the tie slots come as well, unless more columns decide.
        (between(b"-", b"+", 1, 2), [[2, False]], 4, {-2, -1, 0, 1, 2}),
        (between(b"-", b"+", -1, 2), [[2, True]], 1, {6, 7, 8}),
        (between(b"-", b"+", 1, 2), [[2, False], [0, True]], 3, {-2, -1, 2}),
        (between(b"-", b"+", 1, 2), [[2, False]], 100, set(range(-2, 9))),
    ],
)
def test_first_in_an_order(
    placed_rows: Database, lookup: Any, order: Any, limit: int, found: set[int]
) -> None:
    # More rows than a walk is worth without; they come last or first, in another order.
    many = [placed(n, 1000 if n > 0 else -1000, 7) for n in (*range(100, 400), *range(-400, -100))]
    assert set(placed_rows.numbers([lookup], order=order, limit=limit)) == found
    placed_rows.commit(*many)
    few = [(3, "in", [key(0), key(1)])]
    assert set(placed_rows.numbers([lookup], few, order=order, limit=limit)) == found


def test_all_that_equal_the_last_come(placed_rows: Database) -> None:
    placed_rows.commit(*(placed(number, 1000) for number in range(100, 400)))
    walk = between(b"-", b"+", -1, 2)
    assert placed_rows.numbers([walk], order=[[2, True]], limit=1) == list(range(100, 400))


def test_a_walk_that_is_given_up_leaves_its_filters_to_the_look_up(database: Database) -> None:
    values = {number: number // 20 for number in range(1, 501)}
    database.commit(*(placed(number, int(number > 300), value) for number, value in values.items()))
    # None of the first hundred in order is in the set of two hundred.
    database.store.build_index(T, 7, [2], False, [])
    by_set = ("set", 7, [key(1)])
    up_to = ["order", ROW_ORDER, ["-inf", "400", 1, 1, []]]
    asked = step([by_set, up_to], [(0, "<=", [key(400)]), (3, "in", [key(19), key(20)])])
    asked[1][1][3] = [0]
    asked[4:6] = [[[0, False]], 90]
    assert sorted(database.read(asked)[0]) == list(range(380, 401))


def test_places_go_with_rows_and_values(placed_rows: Database) -> None:
    gone = write("delete", 3, checks=[[0, key(3)]])
    gone["order_del"] = [[ROW_ORDER, "3"], [VALUE_ORDER, entry([1], 3)]]
    moved = write("update", 4, checks=[[2, key(1)]], deltas=[[2, key("last")]])
    moved["order_del"] = [[VALUE_ORDER, entry([1], 4)]]
    moved["order_add"] = [[VALUE_ORDER, "0", entry(["last"], 4)]]
    placed_rows.commit(gone, moved)
    assert placed_rows.numbers([between("3", "5")]) == [4, 5]
    assert placed_rows.numbers([between(b"[" + sort_bytes(1), b"(" + sort_bytes(2))]) == [5]
    assert placed_rows.numbers([between(b"[" + sort_bytes(""), b"+")]) == [4]
    with pytest.raises(Changed):  # nothing of a commit that fails
        placed_rows.commit(moved, placed(50, 50))
    assert b"50" not in set(placed_rows.store.members(T, ROW_ORDER))


def test_build_and_drop_orders(placed_rows: Database) -> None:
    store = placed_rows.store
    for index, slots in ((8, [0]), (9, [2])):
        store.build_ordered(T, index, slots, 0, [])
        store.build_ordered(T, index, slots, 0, [])  # again, as after a crash
        known = ROW_ORDER if index == 8 else VALUE_ORDER
        assert sorted(store.members(T, index)) == sorted(store.members(T, known))
        store.remove(placed_rows.version, [Dropped(T, [], [], [index], [], whole=False)])
        assert list(store.members(T, index)) == []
    store.build_ordered(T, 10, [WIDTH], 0, [[WIDTH, key("new")]])
    assert entry(["new"], 5) in set(store.members(T, 10))
