"""A request on its way, step by step: what is lost, asked about, sent again, and given up."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hermes import envelope
from hermes.delivery import Delivery, Outcome, Patience, Sign, event_of
from hermes.envelope import Envelope, pack
from hermes.errors import ProtocolError
from hermes.protocol import Message

PATIENCE = Patience(ask_after_s=5, ask_every_s=1, settle_s=3, again_first_s=0.02, again_most_s=1)
REQUEST, QUESTION = ("topic", "_INBOX.me.r7"), ("probe", "_INBOX.me.q7")


@dataclass
class Line:
    """What was published: subjects and where answers go."""

    said: list[tuple[str, str]] = field(default_factory=list)

    def publish(self, subject: str, _data: bytes, reply: str) -> None:
        self.said.append((subject, reply))

    def take(self) -> list[tuple[str, str]]:
        said, self.said = self.said, []
        return said

    def delivery(
        self, is_call: bool = True, deadline: float | None = 60, monitor_s: float | None = None
    ) -> Delivery:
        return Delivery(
            "7", "topic", "probe", b"data", "_INBOX.me", is_call, self.publish, PATIENCE, 0.0,
            deadline, monitor_s,
        )  # fmt: skip


def said(kind: str, body: bytes = b"") -> Envelope:
    return Envelope(kind, "7", None, body)


def test_a_request_that_is_answered_is_sent_once() -> None:
    line = Line()
    delivery = line.delivery()
    assert line.take() == [REQUEST]
    assert delivery.step(None, 1) is Outcome.UNDER_WAY
    assert delivery.step(said(envelope.REPLY, b"yes"), 2) is Outcome.ANSWERED
    assert delivery.answer is not None and delivery.answer.body == b"yes"
    assert line.take() == []


def test_where_nobody_listens_it_is_sent_again_and_again_ever_more_seldom() -> None:
    line, now, pauses = Line(), 0.0, []
    delivery = line.delivery()
    line.take()
    for _ in range(12):
        assert delivery.step(Sign.NOBODY, now) is Outcome.UNDER_WAY
        assert line.take() == [], "not at once"
        pauses.append(delivery.next_at() - now)
        now = delivery.next_at()
        assert delivery.step(None, now) is Outcome.UNDER_WAY
        assert line.take() == [REQUEST]
    assert 0.01 <= pauses[0] <= 0.02 and 0.5 <= pauses[-1] <= 1.0
    assert delivery.sent == 13


def test_what_is_not_answered_is_asked_about_and_sent_again_if_nobody_knows_it() -> None:
    line = Line()
    delivery = line.delivery()
    line.take()
    assert delivery.next_at() == 5
    delivery.step(None, 5)
    assert line.take() == [QUESTION]
    delivery.step(said(envelope.UNKNOWN), 5.1)
    delivery.step(None, 6)
    delivery.step(None, 7)
    assert line.take() == [QUESTION, QUESTION]
    delivery.step(None, 8)
    assert line.take() == [REQUEST], "nobody has known it for three seconds"


def test_what_is_worked_on_is_waited_for() -> None:
    line = Line()
    delivery = line.delivery(deadline=None)
    line.take()
    for moment in (5, 10.5, 16):
        delivery.step(None, moment)
        assert line.take() == [QUESTION]
        assert delivery.step(said(envelope.TAKEN), moment + 0.5) is Outcome.UNDER_WAY
    assert delivery.next_at() == 21.5


def test_once_the_connection_is_back_it_is_asked_about_at_once() -> None:
    line = Line()
    delivery = line.delivery()
    line.take()
    delivery.step(Sign.UP, 0.4)
    assert line.take() == [QUESTION]
    assert delivery.next_at() == 1.4


def test_a_cast_is_done_when_it_is_taken() -> None:
    line = Line()
    delivery = line.delivery(is_call=False)
    assert delivery.step(said(envelope.TAKEN), 0.1) is Outcome.TAKEN


def test_its_time_is_up_to_the_moment() -> None:
    delivery = Line().delivery(deadline=2.5)
    assert delivery.step(None, 2.499) is Outcome.UNDER_WAY
    assert delivery.next_at() == 2.5
    assert delivery.step(None, 2.5) is Outcome.LATE


def test_signs_of_life_are_waited_for_where_they_are_promised() -> None:
    delivery = Line().delivery(deadline=None, monitor_s=2)
    assert delivery.step(said(envelope.HEARTBEAT), 1.9) is Outcome.UNDER_WAY
    assert delivery.step(None, 3.8) is Outcome.UNDER_WAY
    assert delivery.step(None, 3.9) is Outcome.SILENT


def test_an_answer_that_comes_with_the_last_moment_counts() -> None:
    delivery = Line().delivery(deadline=2)
    assert delivery.step(said(envelope.REPLY), 2.1) is Outcome.ANSWERED


@pytest.mark.parametrize(
    ("token", "status", "meant"),
    [("r7", 503, Sign.NOBODY), ("q7", 503, None), ("r7", 408, None)],
)
def test_what_the_server_itself_says(token: str, status: int, meant: Sign | None) -> None:
    assert event_of(token, Message("x", 1, "", b"", status)) is meant


def test_what_a_stranger_says_is_an_error() -> None:
    assert event_of("r7", Message("x", 1, "", pack(envelope.REPLY, "7", 1, b"no\nyes"))) == (
        Envelope(envelope.REPLY, "7", 1, b"no\nyes")
    )
    for data in (b"", b"{}\n", b"[2,\"reply\",\"7\"]\n", b"[1,\"reply\",7]\n", b"[1,\"x\",\"7\"]\n",
                 b"[" * 100_000):  # fmt: skip
        with pytest.raises(ProtocolError):
            event_of("r7", Message("x", 1, "", data))
