"""Random schemas and statements: ROME answers as SQLite does, inside of transactions and
after them, and its indexes fit its rows.

The seeds of a failure stand in its message; `ROME_TESTS=night` runs for long.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine

from tests.fuzzing.pairs import Pair

# Joins without conditions are meant.
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")

_seeds = st.integers(0, 2**32 - 1)
# Single steps can be taken away when a failure is made smaller.
_steps = st.lists(_seeds, min_size=10, max_size=25)


def test_like_sqlite(new_url: Callable[[], str]) -> None:
    counts: Counter[str] = Counter()
    # What is above the stores is one code; each step is a request to Redis, and several to etcd.
    shares = {"rome+memory": 1.0, "rome+redis": 0.5, "rome+etcd": 0.3}
    share = shares[new_url().partition(":")[0]]

    @settings(max_examples=int(settings().max_examples * share))
    @given(schema=_seeds, steps=_steps)
    def examples(schema: int, steps: list[int]) -> None:
        pair = Pair(schema, create_engine(new_url()))
        try:
            for step in steps:
                pair.step(step)
            pair.commit()
            counts.update(pair.counts)
        finally:
            pair.close()

    examples()
    # Statements that all fail, or find nothing, would show nothing.
    assert counts["query"] > 500 * share
    assert counts["query with rows"] > counts["query"] / 4
    assert counts["write of rows"] > 1000 * share
    assert counts["failed query"] < counts["query"] / 50
