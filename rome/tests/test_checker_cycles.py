"""The checker of histories finds each kind of cycle, also over time, made by hand."""

from __future__ import annotations

import pytest

from tests.histories.by_hand import BOTH, did, found, saw
from tests.histories.model import (
    READ_COMMITTED,
    SERIALIZABLE,
    Append,
    Delete,
    Insert,
    Swap,
)

# ---------------------------------------------------------------- cycles


def test_g0() -> None:
    """Two transactions wrote two lists in different orders."""
    for level in BOTH:
        assert found(
            did("A", Append("x", 1), Append("y", 2), level=level),
            did("B", Append("x", 3), Append("y", 4), level=level),
            lists={"x": (1, 3), "y": (4, 2)},
        ) == {"G0"}


def test_g1c() -> None:
    """Each of two transactions saw what the other wrote."""
    transactions = (
        did("A", saw(("y", (2,))), Append("x", 1)),
        did("B", saw(("x", (1,))), Append("y", 2)),
    )
    assert found(*transactions, lists={"x": (1,), "y": (2,)}) == {"G1c"}
    for level in BOTH:  # at READ COMMITTED it is the order within a transaction that breaks
        weak = (
            did("A", saw(("y", (2,))), Append("x", 1), level=level),
            did("B", saw(("x", (1,))), Append("y", 2), level=level),
        )
        assert found(*weak, lists={"x": (1,), "y": (2,)}) & {"G1c", "G1c-realtime"}


def test_g_single_within_one_statement() -> None:
    """One SELECT saw one half of a commit: at no level."""
    for level in BOTH:
        assert found(
            did("A", Append("x", 1), Append("y", 2), level=level),
            did("B", saw(("x", ()), ("y", (2,))), level=level),
            lists={"x": (1,), "y": (2,)},
        ) == {"G-single"}
        assert found(
            did("A", Delete("k", 1), Swap("l", 2, 3), level=level),
            did("B", saw(k=(1, None), l=(3, None)), level=level),
            rows={"k": None, "l": (3, None)},
            initial={"k": 1, "l": 2},
        ) == {"G-single"}


def test_later_statement_sees_an_earlier_moment() -> None:
    for level, names in ((READ_COMMITTED, {"G-single-realtime"}), (SERIALIZABLE, {"G-single"})):
        assert (
            found(
                did("A", Append("x", 1), level=level),
                did("B", saw(("x", (1,))), saw(("x", ())), level=level),
                lists={"x": (1,)},
            )
            == names
        )


def test_g2_of_a_row_that_comes() -> None:
    """Two transactions each saw no row and inserted the other's."""
    assert found(
        did("A", saw(k=None), Insert("l", 1, 2)),
        did("B", saw(l=None), Insert("k", 3, 4)),
        rows={"l": (1, 2), "k": (3, 4)},
    ) == {"G2"}


# ---------------------------------------------------------------- real time


@pytest.mark.parametrize("level", BOTH)
def test_stale_reads(level: str) -> None:
    writer = did("A", Append("x", 1), at=(0, 10), level=level)
    stale = did("B", saw(("x", ())), at=(20, 30), level=level)
    assert found(writer, stale, lists={"x": (1,)}) == {"G-single-realtime"}
    swap = did("A", Swap("k", 1, 2), at=(0, 10), level=level)
    assert found(
        swap,
        did("B", saw(k=(1, None)), at=(20, 30), level=level),
        rows={"k": (2, None)},
        initial={"k": 1},
    ) == {"G-single-realtime"}
    deletion = did("A", Delete("k", 1), at=(0, 10), level=level)
    assert found(
        deletion,
        did("B", saw(k=(1, None)), at=(20, 30), level=level),
        rows={"k": None},
        initial={"k": 1},
    ) == {"G-single-realtime"}


@pytest.mark.parametrize("level", BOTH)
def test_reads_of_the_future(level: str) -> None:
    assert found(
        did("A", saw(("x", (1,))), at=(0, 10), level=level),
        did("B", Append("x", 1), at=(20, 30), level=level),
        lists={"x": (1,)},
    ) == {"G1c-realtime"}


@pytest.mark.parametrize("level", BOTH)
def test_writes_in_another_order_than_they_were_acknowledged(level: str) -> None:
    assert found(
        did("A", Append("x", 1), at=(0, 10), level=level),
        did("B", Append("x", 2), at=(20, 30), level=level),
        lists={"x": (2, 1)},
    ) == {"G0-realtime"}


def test_g2_over_time() -> None:
    """Two readers disagree about which of two writes was first: a long fork."""
    for level in BOTH:
        names = found(
            did("A", Append("x", 1), level=level),
            did("B", Append("y", 2), level=level),
            did("C", saw(("x", (1,)), ("y", ())), level=level),
            did("D", saw(("y", (2,)), ("x", ())), level=level),
            lists={"x": (1,), "y": (2,)},
        )
        assert names == {"G2"}
    assert found(
        did("A", Append("x", 1), at=(0, 50)),
        did("B", Append("y", 2), at=(0, 10)),
        did("C", saw(("x", (1,)), ("y", ())), at=(20, 50)),
        lists={"x": (1,), "y": (2,)},
    ) == {"G-single-realtime"}
    assert found(
        did("A", saw(("x", ())), Append("y", 1), at=(0, 60)),
        did("B", Append("x", 2), at=(0, 10)),
        did("C", saw(("y", ())), at=(40, 50)),
        lists={"x": (2,), "y": (1,)},
    ) == {"G2-realtime"}
