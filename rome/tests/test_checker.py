"""The checker of histories finds each anomaly that it names, in a history made by hand.

Cycles and real-time order: test_checker_cycles.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.histories import model
from tests.histories.by_hand import BOTH, did, found, saw
from tests.histories.checker import CRASH, check
from tests.histories.model import (
    ABORTED,
    COMMITTED,
    READ_COMMITTED,
    SERIALIZABLE,
    UNKNOWN,
    Append,
    Delete,
    Detail,
    History,
    Insert,
    Missed,
    Read,
    Step,
    Swap,
    Taken,
    Transaction,
)

# ---------------------------------------------------------------- nothing is wrong


@pytest.mark.parametrize("level", BOTH)
def test_a_serial_history_of_lists(level: str) -> None:
    assert not found(
        did("A", Append("x", 1), Append("y", 2), at=(0, 10), level=level),
        did("B", saw(("x", (1,))), Append("x", 3), saw(("x", (1, 3))), at=(20, 30), level=level),
        did("C", saw(("y", (2,))), saw(("x", (1, 3))), at=(40, 50), level=level),
        did("D", Append("x", 9), at=(60, 70), outcome=ABORTED, level=level),
        lists={"x": (1, 3), "y": (2,)},
    )


@pytest.mark.parametrize("level", BOTH)
def test_a_serial_history_of_rows(level: str) -> None:
    assert not found(
        did("A", saw(k=None), Insert("k", 1, 2), saw(k=(1, 2)), at=(0, 10), level=level),
        did("B", saw(k=(1, 2)), Swap("k", 1, 3), Detail("k", 2, 4), at=(20, 30), level=level),
        did("C", Taken("k"), Missed("k", 1), saw(k=(3, 4)), Delete("k", 3), at=(40, 50)),
        did("D", saw(k=None), Missed("k", 3), at=(60, 70), level=level),
        did("E", Insert("k", 5, 6), at=(80, 90), level=level),
        did("F", Delete("k", 5), saw(k=None), Insert("k", 7, 8), at=(100, 110), level=level),
        did("G", Insert("k", 97, 98), at=(120, 130), outcome=ABORTED, level=level),
        rows={"k": (7, 8)},
    )


def test_what_is_not_known_may_have_happened_or_not_and_late() -> None:
    unknown = did("A", Append("x", 1), at=(0, 10), outcome=UNKNOWN)
    assert not found(unknown, lists={"x": ()})
    assert not found(unknown, lists={"x": (1,)})
    early = did("B", saw(("x", ())), at=(20, 30))
    late = did("C", saw(("x", (1,))), at=(40, 50))
    assert not found(unknown, early, late, lists={"x": (1,)})
    # But not again undone.
    assert "G-single-realtime" in found(
        unknown,
        did("B", saw(("x", (1,))), at=(20, 30)),
        did("C", saw(("x", ())), at=(40, 50)),
        lists={"x": (1,)},
    )


def test_a_deletion_that_is_not_known_explains_an_absence() -> None:
    born = did("A", Insert("k", 1, 2), at=(0, 10))
    dies = did("B", Delete("k", 1), at=(20, 30), outcome=UNKNOWN)
    again = did("C", Insert("k", 3, 4), at=(40, 50))
    assert not found(born, dies, again, rows={"k": (3, 4)})
    assert not found(born, dies, rows={"k": None})
    assert not found(born, dies, rows={"k": (1, 2)})
    assert "lost" in found(born, again, rows={"k": (3, 4)})


def test_an_absence_may_be_of_the_time_of_a_replay() -> None:
    """A serializable transaction is run again at its commit, when another row has come and gone."""

    def absent(level: str) -> set[str]:
        reader = Transaction(
            name="C",
            steps=(Step(saw(k=None), 0, 5), Step(Insert("k", 5, 6), 25, 26)),
            level=level,
            committing=60,
            ended=70,
        )
        return found(
            did("A", Insert("k", 1, 2), at=(10, 20)),
            did("B", Delete("k", 1), at=(30, 40)),
            reader,
            rows={"k": (5, 6)},
        )

    assert not absent(SERIALIZABLE)
    assert not absent(READ_COMMITTED)


def test_own_row_that_is_gone_again_hides_nothing() -> None:
    own = (Insert("k", 1, 2), Delete("k", 1), saw(k=(3, 4)), Swap("k", 3, 5))
    other = did("B", Insert("k", 3, 4), at=(20, 30))
    assert not found(did("A", *own, at=(0, 100), level=READ_COMMITTED), other, rows={"k": (5, 4)})
    taken = (Delete("k", 1), saw(k=(3, 4)))
    assert "own-writes" in found(
        did("A", *taken, at=(0, 100)), other, rows={"k": (3, 4)}, initial={"k": 1}
    )


def test_commits_at_the_same_time_may_be_in_any_order() -> None:
    assert not found(
        did("A", Append("x", 1), at=(0, 100)),
        did("B", Append("x", 2), at=(0, 100)),
        did("C", saw(("x", (2,))), at=(0, 100)),
        lists={"x": (2, 1)},
    )
    # Short lives of one key, of which nobody knows which was first.
    assert not found(
        did("A", Insert("k", 1, 2), at=(0, 50), committing=1),
        did("B", Delete("k", 1), at=(0, 50), committing=1),
        did("C", Insert("k", 3, 4), at=(0, 50), committing=1),
        did("D", Delete("k", 3), at=(0, 50), committing=1),
        did("E", saw(k=None), at=(0, 50)),
        rows={"k": None},
    )


def test_read_committed_allows_what_its_page_allows() -> None:
    """Read skew, write skew and prefetched rows; SERIALIZABLE allows the last alone."""

    def skew(level: str) -> set[str]:
        return found(
            did("A", saw(("x", ())), saw(("y", (2,))), level=level),
            did("B", Append("x", 1), Append("y", 2), level=level),
            lists={"x": (1,), "y": (2,)},
        )

    assert not skew(READ_COMMITTED)
    assert skew(SERIALIZABLE) == {"G-single"}

    def write_skew(level: str) -> set[str]:
        return found(
            did("A", saw(("x", ())), Append("y", 2), level=level),
            did("B", saw(("y", ())), Append("x", 1), level=level),
            lists={"x": (1,), "y": (2,)},
        )

    assert not write_skew(READ_COMMITTED)
    assert write_skew(SERIALIZABLE) == {"G2"}

    def prefetched(prefetches: bool) -> set[str]:
        reader = Transaction(
            name="A",
            steps=(Step(saw(("y", ())), 0, 10), Step(saw(("x", ())), 50, 60)),
            committing=70,
            ended=80,
        )
        writer = did("B", Append("x", 1), at=(20, 30), level=READ_COMMITTED)
        return found(reader, writer, lists={"x": (1,), "y": ()}, prefetches=prefetches)

    assert not prefetched(True)
    assert prefetched(False) == {"G-single-realtime"}


@pytest.mark.parametrize(
    ("client", "knows"), [("P0.0/0-1", True), ("P0.0/1-1", True), ("P1.0/0-1", False)]
)
def test_prefetched_rows_are_not_older_than_what_the_client_knows(client: str, knows: bool) -> None:
    """What its thread has committed, or its process to the same table, a SELECT sees."""
    reader = Transaction(
        name="P0.0/0-9",
        steps=(Step(saw(("z 1", ())), 0, 10), Step(saw(("x 1", ())), 50, 60)),
        committing=70,
        ended=80,
    )
    writer = did(client, Append("x 1", 1), at=(20, 30), level=READ_COMMITTED)
    names = {"G-single-realtime"} if knows else set()
    assert found(reader, writer, lists={"x 1": (1,), "z 1": ()}) == names
    # Of another table: only through the same thread.
    other = did("P1.0/0-2", Append("x 1", 1), at=(12, 14), level=READ_COMMITTED)
    later = did(client, saw(("x 1", (1,))), at=(20, 30), level=READ_COMMITTED)
    names = {"G-single-realtime"} if client == "P0.0/0-1" else set()
    assert found(reader, other, later, lists={"x 1": (1,), "z 1": ()}) == names


@pytest.mark.parametrize("level", BOTH)
@pytest.mark.parametrize(
    ("client", "knows"), [("P0.0/0-1", True), ("P0.0/1-1", True), ("P1.0/0-1", False)]
)
def test_a_replaced_master_may_answer_who_does_not_know_better(
    client: str, knows: bool, level: str
) -> None:
    """SELECTs at a time when it may answer are as of its begin, but for what their process has
    committed to the same table."""
    if client == "P0.0/1-1" and level == SERIALIZABLE:
        knows = False  # of a whole transaction it is asked what its thread knows
    writer = did(client, Append("x 1", 1), at=(20, 30), level=level)
    reader = did("P0.0/0-9", saw(("x 1", ())), at=(50, 60), level=level)
    lists: dict[str, tuple[int, ...]] = {"x 1": (1,)}
    assert found(writer, reader, lists=lists) == {"G-single-realtime"}
    names = {"G-single-realtime"} if knows else set()
    assert found(writer, reader, lists=lists, stale=((10, 55),)) == names
    for other in ((10, 40), (61, 70)):  # too early, too late
        assert found(writer, reader, lists=lists, stale=(other,)) == {"G-single-realtime"}


# ---------------------------------------------------------------- lost and invented


@pytest.mark.parametrize("level", BOTH)
def test_lost(level: str) -> None:
    a, b = did("A", Append("x", 1), level=level), did("B", Append("x", 2), level=level)
    assert found(a, b, lists={"x": (2,)}) == {"lost"}
    born = did("A", Insert("k", 1, 2), at=(0, 10), level=level)
    assert found(born, rows={"k": None}) == {"lost"}
    assert found(
        born, did("B", Insert("k", 3, 4), at=(20, 30), level=level), rows={"k": (3, 4)}
    ) == {"lost"}
    # A change of another column, whose row goes on.
    change = did("B", Detail("k", 2, 5), at=(20, 30), level=level)
    other = did("C", Detail("k", 2, 6), at=(20, 30), level=level)
    assert "lost" in found(born, change, other, rows={"k": (1, 6)})
    assert "lost" in found(born, change, rows={"k": (1, 2)})
    assert "lost" in found(rows={"k": None}, initial={"k": 1})
    assert "lost" in found(did("A", Swap("k", 1, 2)), rows={"k": (1, None)}, initial={"k": 1})


def test_what_is_not_known_and_was_read_is_lost_too() -> None:
    unknown = did("A", Append("x", 1), outcome=UNKNOWN)
    reader = did("B", saw(("x", (1,))))
    assert found(unknown, reader, lists={"x": ()}) == {"lost after being read"}


def test_what_is_not_known_may_be_undone_after_it_was_read() -> None:
    """Nobody could see that from the rows, as another deleted what it had changed."""

    def undone(outcome: str) -> set[str]:
        return found(
            did("A", Insert("k", 1, 2), at=(0, 10)),
            did("B", Detail("k", 2, 3), at=(20, 30), outcome=outcome),
            did("C", saw(k=(1, 3)), at=(40, 50)),
            did("D", saw(k=(1, 2)), Delete("k", 1), at=(60, 70)),
            rows={"k": None},
        )

    assert undone(UNKNOWN) == {"lost after being read"}
    assert undone(COMMITTED) == {"G-single"}


@pytest.mark.parametrize("level", BOTH)
def test_what_is_not_known_explains_what_nobody_saw_of_it(level: str) -> None:
    """A master that is cut off shows a commit that its client never hears of, and then is undone.

    Others see only that a version was replaced, or a row deleted or inserted, for a while.
    """

    def seen(outcome: str) -> set[str]:
        return found(
            did("A", Insert("k", 1, 2), at=(0, 10), level=level),
            did("B", Swap("k", 1, 3), at=(20, 30), outcome=outcome, level=level),
            did("C", Missed("k", 1), at=(40, 50), level=level),
            did("D", Swap("k", 1, 4), at=(60, 70), level=level),
            rows={"k": (4, 2)},
        )

    assert not seen(UNKNOWN)
    assert seen(ABORTED)
    assert "lost" in seen(COMMITTED)

    def gone(outcome: str) -> set[str]:
        return found(
            did("A", Insert("k", 1, 2), at=(0, 10), level=level),
            did("B", Delete("k", 1), at=(20, 30), outcome=outcome, level=level),
            did("C", saw(k=None), at=(40, 50), level=level),
            did("D", Delete("k", 1), at=(60, 70), level=level),
            rows={"k": None},
        )

    assert not gone(UNKNOWN)
    assert gone(ABORTED)

    def there(outcome: str) -> set[str]:
        return found(
            did("A", Insert("k", 1, 2), at=(0, 10), outcome=outcome, level=level),
            did("B", Taken("k"), at=(20, 30), level=level),
            rows={"k": None},
        )

    assert not there(UNKNOWN)
    assert there(ABORTED) == {"phantom"}


@pytest.mark.parametrize("level", BOTH)
def test_lost_update(level: str) -> None:
    """Two compare-and-sets of one generation were both acknowledged."""
    assert found(
        did("A", Swap("k", 1, 2), level=level),
        did("B", Swap("k", 1, 3), level=level),
        rows={"k": (3, None)},
        initial={"k": 1},
    ) == {"lost-update", "lost"}


@pytest.mark.parametrize("level", BOTH)
def test_resurrected(level: str) -> None:
    names = found(
        did("A", Insert("k", 1, 2), at=(0, 10), level=level),
        did("B", Delete("k", 1), at=(20, 30), level=level),
        rows={"k": (1, 2)},
    )
    assert names == {"resurrected", "lost"}


@pytest.mark.parametrize("level", BOTH)
def test_aborted_but_visible(level: str) -> None:
    append = did("A", Append("x", 1), outcome=ABORTED, level=level)
    born = did("A", Insert("k", 2, 3), outcome=ABORTED, level=level)
    assert found(append, lists={"x": (1,)}) == {"G1a"}
    assert found(born, rows={"k": (2, 3)}) == {"G1a"}
    assert found(born, did("B", Delete("k", 2), level=level), rows={"k": None}) == {"G1a"}
    assert "G1a" in found(append, did("B", saw(("x", (1,))), level=level), lists={"x": ()})
    assert "G1a" in found(did("B", saw(k=(2, 3)), level=level), rows={"k": None})
    assert "G1a" in found(lists={"x": (77,)})


@pytest.mark.parametrize("level", BOTH)
def test_intermediate(level: str) -> None:
    assert "G1b" in found(
        did("A", Append("x", 1), Append("x", 2), level=level),
        did("B", saw(("x", (1,))), level=level),
        lists={"x": (1, 2)},
    )
    assert "G1b" in found(
        did("A", Swap("k", 1, 2), Swap("k", 2, 3), level=level),
        did("B", saw(k=(2, None)), level=level),
        rows={"k": (3, None)},
        initial={"k": 1},
    )


@pytest.mark.parametrize("outcome", [COMMITTED, UNKNOWN])
def test_partial(outcome: str) -> None:
    half = did("A", Append("x", 1), Append("y", 2), outcome=outcome)
    assert "partial" in found(half, lists={"x": (1,), "y": ()})
    both = did("A", Append("x", 1), Insert("k", 2, 3), outcome=outcome)
    assert "partial" in found(both, lists={"x": (1,)}, rows={"k": None})


def test_what_is_lost_takes_with_it_what_was_built_on_it() -> None:
    """A time that a failover has undone: its rows are not mixed with those that lasted."""
    transactions = (
        did("A", Append("x", 1), Insert("k", 2, 3), at=(0, 10)),
        did("B", Append("x", 4), Swap("k", 2, 5), at=(20, 30)),
        did("C", Delete("k", 5), Append("x", 6), at=(40, 50)),
        did("D", Insert("k", 7, 8), at=(60, 70)),
        did("E", Delete("k", 2), Append("x", 9), at=(80, 90)),
        did("F", Insert("k", 10, 11), at=(100, 110)),
    )
    history = History(transactions, Read({"x": (1, 9)}, {"k": (10, 11)}))
    verdict = check(history)
    assert [t.name for t in verdict.lost] == ["B", "C", "D"]
    assert set(verdict.anomalies) == {"lost", "lost-update"}


def test_twice_and_order() -> None:
    assert "twice" in found(did("A", Append("x", 1)), lists={"x": (1, 1)})
    a, b = did("A", Append("x", 1)), did("B", Append("x", 2))
    assert "order" in found(a, b, did("C", saw(("x", (2, 1)))), lists={"x": (1, 2)})
    assert "order" in found(a, b, did("C", saw(("x", (2,)))), lists={"x": (1, 2)})


@pytest.mark.parametrize("level", BOTH)
def test_own_writes(level: str) -> None:
    assert "own-writes" in found(
        did("A", Append("x", 1), saw(("x", ())), level=level), lists={"x": (1,)}
    )
    for wrong in (None, (1, 3), (9, 2)):
        assert "own-writes" in found(
            did("A", Insert("k", 1, 2), saw(k=wrong), level=level), rows={"k": (1, 2)}
        )
    assert "own-writes" in found(
        did("A", Delete("k", 1), saw(k=(1, None)), level=level),
        rows={"k": None},
        initial={"k": 1},
    )


def test_two_lives_and_mixed_ones() -> None:
    first = did("A", Insert("k", 1, 2), at=(0, 10))
    dies = did("B", Delete("k", 1), at=(40, 50))
    second = did("C", Insert("k", 3, 4), at=(20, 30))
    again = did("D", Delete("k", 3), at=(60, 70))
    assert "two lives" in found(first, dies, second, again, rows={"k": None})
    # A row that was deleted and inserted takes over a column of the one before.
    anew = did("B", Delete("k", 1), Insert("k", 3, 4), at=(40, 50))
    change = did("C", Detail("k", 2, 5), at=(20, 30))
    assert "mixed" in found(first, anew, change, rows={"k": (3, 5)})
    reader = did("D", saw(k=(3, 5)), at=(60, 70))
    assert "mixed" in found(first, anew, change, reader, rows={"k": (3, 4)})
    assert not found(first, anew, change, rows={"k": (3, 4)})


def test_vanished_and_phantom() -> None:
    born = did("A", Insert("k", 1, 2), at=(0, 10))
    assert "vanished" in found(born, did("B", saw(k=None), at=(20, 30)), rows={"k": (1, 2)})
    assert "vanished" in found(born, did("B", Missed("k", 1), at=(20, 30)), rows={"k": (1, 2)})
    dies = did("B", Delete("k", 1), at=(20, 30))
    for early_or_late in ((-20, -10), (40, 50)):
        taken = did("C", Taken("k"), at=early_or_late)
        assert "phantom" in found(born, dies, taken, rows={"k": None})
    assert not found(born, dies, did("C", Taken("k"), at=(5, 15)), rows={"k": None})


def test_a_failed_comparison_is_after_what_made_it_fail() -> None:
    """Its version was there until another transaction replaced it, which began later."""
    assert found(
        did("A", Missed("k", 1), at=(0, 10)),
        did("B", Swap("k", 1, 2), at=(20, 30)),
        rows={"k": (2, None)},
        initial={"k": 1},
    ) == {"G1c-realtime"}


def test_crash() -> None:
    assert found(did("A", outcome=ABORTED, error=CRASH + "KeyError: 3")) == {"crash"}


# ---------------------------------------------------------------- histories in files


def test_a_history_is_the_same_after_it_was_saved(tmp_path: Path) -> None:
    history = History(
        (
            did("A", saw(("x", (1,)), k=None, l=(1, 2), m=(3, None)), Append("x", 1)),
            did("B", Insert("k", 1, 2), Swap("k", 1, 3), Detail("k", 2, 4), Delete("k", 3)),
            did("C", Missed("k", 1), Taken("k"), outcome=UNKNOWN, level=READ_COMMITTED),
        ),
        saw(("x", (1,)), k=None),
        {"m": 3},
        prefetches=False,
        stale=((3, 7),),
    )
    model.save(history, tmp_path / "history.json")
    assert model.load(tmp_path / "history.json") == history


def test_what_a_killed_client_has_written(tmp_path: Path) -> None:
    start = '{"name": "%s", "level": "SERIALIZABLE", "began": 1, "committing": 2, "steps": []}\n'
    file = tmp_path / "client.jsonl"
    file.write_text(
        start % "A"
        + '{"name": "A", "outcome": "committed", "ended": 3, "error": ""}\n'
        + start % "B"
        + '{"name": "B", "outc'
    )
    a, b = model.transactions_of([file])
    assert (a.outcome, a.ended) == (COMMITTED, 3)
    assert (b.outcome, b.ended) == (UNKNOWN, None)
