"""Keys, ranges and the arrangement of transactions for etcd, without an etcd."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rome.errors import OperationalError
from rome.stores.etcd.commit import TooManyConditions, arranged, raised
from rome.stores.etcd.holds import Attempt
from rome.stores.etcd.keys import (
    Keys,
    member_in,
    number_of,
    pack_number,
    row_number_in,
    unpack_number,
)
from rome.stores.etcd.operations import (
    Delete,
    KeyValue,
    Put,
    Range,
    Txn,
    has_value,
    is_absent,
    is_there,
    is_unchanged,
)
from rome.stores.etcd.seen import Seen
from rome.stores.etcd.view import together
from rome.stores.rows import pack_value
from rome.stores.sort_bytes import AFTER, entry, sort_bytes
from rome.stores.wire import RangeLookup

KEYS = Keys("nova")
_numbers = st.integers(-(2**53), 2**53)


@given(st.lists(_numbers, min_size=2, max_size=2))
def test_numbers_have_their_order(numbers: list[int]) -> None:
    one, other = numbers
    assert (pack_number(one) < pack_number(other)) == (one < other)
    assert unpack_number(pack_number(one)) == one


@pytest.mark.parametrize(
    ("text", "number"), [("5", 5), (b"-7", -7), ("1.5", None), ("x", None), ("9" * 30, None)]
)
def test_row_numbers_in_look_ups(text: Any, number: int | None) -> None:
    assert number_of(text) == number


@given(_numbers, st.one_of(st.none(), _numbers, st.text(max_size=3), st.binary(max_size=3)))
def test_members_come_back(number: int, value: Any) -> None:
    start = len(KEYS.order(3, 1))
    by_number = KEYS.place(3, 1, str(number))[start:]
    assert member_in(by_number) == row_number_in(by_number) == str(number).encode()
    member = entry([value], number)
    by_value = KEYS.place(3, 1, member)[start:]
    assert member_in(by_value) == member
    assert row_number_in(by_value) == str(number).encode()


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        ("-inf", "+inf", range(-3, 4)),
        ("-1", "2", [-1, 0, 1, 2]),
        ("(-1", "(2", [0, 1]),
        ("-1.5", "1.5", [-1, 0, 1]),
        ("(-1.5", "(1.5", [-1, 0, 1]),
        ("2", "-2", []),
        ("+inf", "-inf", []),
        ("1e400", "+inf", []),
        ("-inf", "1e400", range(-3, 4)),
        ("9" * 40, "+inf", []),
        ("-inf", "-" + "9" * 40, []),
    ],
)
def test_ranges_by_number(low: str, high: str, found: Sequence[int]) -> None:
    span = KEYS.range(3, RangeLookup(1, low, high, True))
    places = {n: KEYS.place(3, 1, str(n)) for n in range(-3, 4)}
    assert [n for n, key in places.items() if span.start <= key < span.end] == list(found)


def test_ranges_by_bytes() -> None:
    places = {(v, n): KEYS.place(3, 1, entry([v], n)) for v in (None, 1, 2, "a") for n in (5, 6)}

    def found(low: bytes, high: bytes) -> set[Any]:
        span = KEYS.range(3, RangeLookup(1, low, high, False))
        return {value for (value, _), key in places.items() if span.start <= key < span.end}

    assert found(b"-", b"+") == {None, 1, 2, "a"}
    assert found(b"[" + sort_bytes(1), b"(" + sort_bytes(2)) == {1}
    assert found(b"(" + sort_bytes(1) + AFTER, b"+") == {2, "a"}
    assert found(b"-", b"(" + sort_bytes(2) + AFTER) == {None, 1, 2}
    # Another index, and another table, are elsewhere.
    other = KEYS.place(3, 11, entry([1], 5)), KEYS.place(31, 1, entry([1], 5))
    whole = KEYS.whole("order", 3, 1)
    assert not any(whole.start <= key < whole.end for key in other)


_values = st.one_of(st.none(), st.integers(-300, 300), st.text(max_size=4), st.binary(max_size=4))


@given(st.lists(st.tuples(_values, _values), min_size=2, max_size=6, unique_by=repr))
def test_sets_dont_mix(keys: list[tuple[Any, Any]]) -> None:
    packed = {b"".join(map(pack_value, key)) for key in keys}
    for data in packed:
        span = KEYS.members_of_set(3, 1, data)
        for other in packed:
            for number in (-(2**53), 0, 2**53):
                member = KEYS.member_of_set(3, 1, other, number)
                assert (span.start <= member < span.end) == (other == data)


def test_databases_dont_mix() -> None:
    for name in ("nova", "nova_api", "nov", "nova2"):
        span = Keys(name).all()
        own = [other for other in ("nova", "nova_api", "nov", "nova2")
               if span.start <= Keys(other).row(1, 1) < span.end]  # fmt: skip
        assert own == [name]


# ---------------------------------------------------------------- transactions


def operations(txn: Txn, most: int) -> int:
    """How many writes are in it; fails where etcd would refuse it."""
    own = max(len(txn.conditions), len(txn.then), len(txn.otherwise))
    assert own <= most
    parts = [*txn.then, *txn.otherwise]
    inner = sum(operations(one, most - own) for one in parts if isinstance(one, Txn))
    return inner + sum(isinstance(one, Put | Delete) for one in txn.then)


@given(
    st.integers(0, 300),
    st.integers(0, 5000),
    st.integers(0, 20),
    st.integers(0, 300),
    st.sampled_from([32, 128, 512]),
)
def test_transactions_are_within_the_limit(
    conditions: int, writes: int, counters: int, questions: int, most: int
) -> None:
    some = [is_absent(b"c%d" % n) for n in range(conditions)]
    puts = [Put(b"k%d" % n, b"v") for n in range(writes)]
    others = [raised(b"n%d" % n, n) for n in range(counters)]
    asked = [Range(b"q%d" % n) for n in range(questions)]
    try:
        txn = arranged(some, puts, others, asked, most)
    except TooManyConditions:
        assert conditions > most // 2
        return
    except OperationalError as error:
        assert writes > (most // 2 - counters - 1) * (most // 2)
        assert f"--max-txn-ops={most}" in str(error)
        return
    assert operations(txn, most) == writes
    assert list(txn.conditions) == some
    assert list(txn.otherwise) in ([], asked)


# ---------------------------------------------------------------- rows that are held

ROWS = {0: [(1, 5)], 2: [(1, 6), (2, 7), (1, 5)]}


def attempt(*own: tuple[int, int], rows: Any = None) -> Attempt:
    keys = {KEYS.hold(*row) for row in own}
    return Attempt(KEYS, ROWS if rows is None else rows, "a.1.3", 9, 100.0, keys)


def names(*holders: str) -> dict[str, Any]:
    """The answer to a transaction that has found these holders."""
    encoded = [b64encode(name.encode()).decode() for name in holders]
    found = [{"kvs": [{"key": "aA==", "value": value}], "count": "1"} for value in encoded]
    return {"responses": [{"response_range": one} for one in found]}


def test_rows_are_held_if_nobody_holds_them() -> None:
    """The first request's by themselves, the others' with them; a key is put once."""
    first, others = attempt().transactions(0)
    assert first.conditions == [is_absent(KEYS.hold(1, 5))]
    held = [KEYS.hold(*row) for row in ((1, 5), (1, 6), (2, 7))]
    assert others.conditions == [is_absent(key) for key in held]
    puts = [inner.then[0] for one in (first, others) for inner in one.then
            if isinstance(inner, Txn)]  # fmt: skip
    assert puts == [Put(key, b"a.1.3", 9) for key in held]
    assert others.otherwise == [Range(key) for key in held]


def test_rows_that_were_read_before_are_held_if_they_are_the_same() -> None:
    first, _ = attempt().transactions(12)
    row = KEYS.row(1, 5)
    assert first.conditions == [is_absent(KEYS.hold(1, 5)), is_there(row), is_unchanged(row, 12)]
    assert first.then == [Put(KEYS.hold(1, 5), b"a.1.3", 9)]


def test_a_hold_is_renewed() -> None:
    first, _ = attempt((1, 5)).transactions(12)
    assert first.conditions[0] == has_value(KEYS.hold(1, 5), b"a.1.3")


@pytest.mark.parametrize(
    ("holders", "outcome"),
    [
        (["b.1.1"], (False, True)),
        (["a.1.1"], (False, False)),  # another transaction of the thread
        (["a.1.1", "a.2.1"], (False, True)),
        (["a.1.3"], None),  # its own: of a request whose answer was lost
        ([], None),  # it is free again, or the row has changed
    ],
)
def test_who_hinders(holders: list[str], outcome: Any) -> None:
    one = attempt()
    one.transactions(12)
    first, others = one.outcomes([names(*holders), names("c.1.1")])
    assert (first, others) == (outcome, (False, True))
    assert one.held == ([b"h"] * 2 if holders == ["a.1.3"] else [])


def test_what_is_not_there_is_held_by_nobody() -> None:
    one = attempt()
    one.transactions(0)
    done = [{"response_txn": {"succeeded": True}}, {"response_txn": {}}]
    answers = [{"succeeded": True, "responses": done[:1]}, {"succeeded": True, "responses": done}]
    assert one.outcomes(answers) == ((True, False), (True, False))
    assert one.held == [KEYS.hold(1, 5), KEYS.hold(1, 6)]
    assert attempt(rows={}).outcomes([]) == ((True, False), (True, False))


def test_holding_is_within_the_limits() -> None:
    for most in (32, 128, 512):
        rows = {0: [(1, 1)], 1: [(1, n) for n in range(2, min(16, most // 8) + 1)]}
        for read_at in (0, 12):
            txns = attempt(rows=rows).transactions(read_at)
            looks = [Range(b"q%d" % n) for n in range(most // 2)]
            assert within(Txn(then=(*txns, *looks)), most)  # type: ignore[arg-type]


def within(txn: Txn, most: int) -> bool:
    """Whether etcd takes a transaction with those inside of it."""
    own = max(len(txn.conditions), len(txn.then), len(txn.otherwise))
    inner = [one for one in (*txn.then, *txn.otherwise) if isinstance(one, Txn)]
    return own <= most and all(within(one, most - own) for one in inner)


# ---------------------------------------------------------------- questions


def test_questions_share_their_levels() -> None:
    def asks(name: bytes, levels: int) -> Any:
        for level in range(levels):
            (found,) = yield [Range(b"%b%d" % (name, level))]
            assert found == name.decode() + str(level)
        return levels

    def answered(question: Any) -> tuple[Any, list[list[str]]]:
        asked = []
        try:
            ranges = next(question)
            while True:
                asked.append([one.key.decode() for one in ranges])
                ranges = question.send(asked[-1])
        except StopIteration as stop:
            return stop.value, asked

    assert answered(together([asks(b"a", 1), asks(b"b", 2), asks(b"c", 0)])) == (
        [1, 2, 0],
        [["a0", "b0"], ["b1"]],
    )
    # Those that needn't be answered are given up in the end.
    results, asked = answered(together([asks(b"a", 1), asks(b"b", 3), asks(b"c", 99)], needed=1))
    assert results == [1, 3, None]
    assert len(asked) == 4


def test_seen_rows_are_the_latest() -> None:
    seen = Seen()
    seen.note([KeyValue(b"a", b"new", 7)])
    seen.note([KeyValue(b"a", b"old", 5)])
    known = seen.get(b"a")
    assert known is not None and known.value == b"new"
    seen.gone(b"a")
    assert seen.get(b"a") is None
    for start in range(0, 30000, 400):
        seen.note([KeyValue(b"k%d" % n, b"", 1) for n in range(start, start + 400)])
    assert seen.get(b"k0") is None and seen.get(b"k29999") is not None
