"""What a server remembers of requests, and within which bounds."""

from __future__ import annotations

import time

import pytest
from hermes.ledger import Ledger


def test_a_request_is_new_once() -> None:
    ledger = Ledger()
    assert ledger.begin("a") and not ledger.begin("a")
    assert ledger.knows("a") and not ledger.knows("b")
    assert ledger.answer_of("a") is None
    ledger.answer("a", b"yes")
    ledger.answer("a", b"no")
    assert ledger.answer_of("a") == b"yes", "the first answer is the answer"


def test_the_oldest_is_forgotten_where_there_are_too_many() -> None:
    ledger = Ledger(most=3)
    for name in "abcd":
        ledger.begin(name)
    assert [ledger.knows(name) for name in "abcd"] == [False, True, True, True]


def test_answers_take_no_more_room_than_they_may() -> None:
    ledger = Ledger(most_bytes=800)
    for number in range(20):
        ledger.begin(str(number))
        ledger.answer(str(number), b"x" * 100)
    kept = [number for number in range(20) if ledger.answer_of(str(number))]
    assert kept == list(range(12, 20))
    ledger.begin("large")
    ledger.answer("large", b"x" * 101)
    assert ledger.knows("large") and ledger.answer_of("large") is None
    ledger.answer("nobody asked", b"x")
    assert not ledger.knows("nobody asked")


def test_what_is_long_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    ledger = Ledger(keep_s=10)
    ledger.begin("a")
    now = 111.0
    ledger.begin("b")
    assert not ledger.knows("a") and ledger.knows("b")
