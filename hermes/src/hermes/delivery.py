"""One request on its way: sent, asked about, sent again, until it is answered or its time is up.

A request may be lost: by a connection that dies, ours or another on its way.  Nobody says so, but
for one case, that nobody listens to its subject.  So whoever waits asks, after a while and whenever
our connection comes back: all workers of the topic that can be reached say whether they know it.
Who knows a call sends its answer again, or says that it is being worked on.  Only when nobody has
known it for `settle_s` it is sent again, with the same identifier: whoever gets it twice takes it
once.  What remains is a server that took a request, was cut off at that moment and stays cut off
for longer: its work may be done a second time by another.

Pure but for the clock and what it publishes by: `step` is told events and moments, and says what
became of the request.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from hermes import envelope, protocol
from hermes.envelope import Envelope


class Sign(Enum):
    """What may happen to a request besides an envelope that comes back."""

    NOBODY = "nobody listens"
    UP = "the connection is back"


class Outcome(Enum):
    """What has become of a request."""

    UNDER_WAY = "under way"
    TAKEN = "taken"
    ANSWERED = "answered"
    SILENT = "no sign of life in time"
    LATE = "not answered in time"


Event = Envelope | Sign
Publish = Callable[[str, bytes, str], None]

# The first letter of an answer's last token: of a request's own, and of a question about it.
REQUEST, QUESTION = "r", "q"


@dataclass(frozen=True)
class Patience:
    """How long is waited for what, in seconds."""

    ask_after_s: float = 5.0
    ask_every_s: float = 1.0
    settle_s: float = 3.0
    again_first_s: float = 0.02
    again_most_s: float = 1.0

    def times(self, factor: float) -> Patience:
        """Return one that is so many times as long: for clocks that run slower."""
        return Patience(
            *(factor * value for value in (
                self.ask_after_s, self.ask_every_s, self.settle_s, self.again_first_s,
                self.again_most_s,
            ))
        )  # fmt: skip


@dataclass
class Delivery:
    """A request under way; moments are of time.monotonic(), None is never.

    `monitor_s` is how long a call may go without a sign of life.  A cast is done when it is taken.
    """

    id: str
    subject: str
    questions: str
    data: bytes
    inbox: str
    is_call: bool
    publish: Publish
    patience: Patience
    started: float
    deadline: float | None
    monitor_s: float | None = None
    answer: Envelope | None = None
    sent: int = 0
    _silent_at: float | None = field(init=False, default=None)
    _again_at: float | None = field(init=False, default=None)
    _ask_at: float = field(init=False, default=0.0)
    _unknown_since: float | None = field(init=False, default=None)
    _pause_s: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._pause_s = self.patience.again_first_s
        self._heard(self.started)
        self._send(self.started)

    # ------------------------------------------------ what happens

    def step(self, event: Event | None, now: float) -> Outcome:
        """Take an event, or only the time that has passed; says what became of the request."""
        if event is not None and (outcome := self._take(event, now)) is not Outcome.UNDER_WAY:
            return outcome
        if self.deadline is not None and now >= self.deadline:
            return Outcome.LATE
        if self._silent_at is not None and now >= self._silent_at:
            return Outcome.SILENT
        if self._again_at is not None:
            if now >= self._again_at:
                self._send(now)
        elif (
            self._unknown_since is not None and now >= self._unknown_since + self.patience.settle_s
        ):
            self._send(now)
        elif now >= self._ask_at:
            self._ask(now)
        return Outcome.UNDER_WAY

    def next_at(self) -> float:
        """Return when `step` has something to do even if nothing happens."""
        moments = [self.deadline, self._silent_at]
        if self._again_at is not None:
            moments.append(self._again_at)
        else:
            moments.append(self._ask_at)
            if self._unknown_since is not None:
                moments.append(self._unknown_since + self.patience.settle_s)
        return min(moment for moment in moments if moment is not None)

    def _take(self, event: Event, now: float) -> Outcome:
        if event is Sign.NOBODY:
            if self._again_at is None:
                self._again_at = now + self._pause_s * random.uniform(0.5, 1.0)
                self._pause_s = min(2 * self._pause_s, self.patience.again_most_s)
        elif event is Sign.UP:
            if self._again_at is None:
                self._ask(now)
        elif isinstance(event, Envelope):
            if event.kind == envelope.REPLY:
                self.answer = event
                return Outcome.ANSWERED
            if event.kind == envelope.TAKEN and not self.is_call:
                return Outcome.TAKEN
            if event.kind in (envelope.TAKEN, envelope.HEARTBEAT):
                self._heard(now)
        return Outcome.UNDER_WAY

    def _heard(self, now: float) -> None:
        """Somebody works on it."""
        self._unknown_since, self._again_at = None, None
        self._ask_at = now + self.patience.ask_after_s
        if self.monitor_s is not None:
            self._silent_at = now + self.monitor_s

    # ------------------------------------------------ what is said

    def _send(self, now: float) -> None:
        self.sent += 1
        self._again_at, self._unknown_since = None, None
        self._ask_at = now + self.patience.ask_after_s
        self.publish(self.subject, self.data, f"{self.inbox}.{REQUEST}{self.id}")

    def _ask(self, now: float) -> None:
        if self._unknown_since is None:
            self._unknown_since = now
        self._ask_at = now + self.patience.ask_every_s
        question = envelope.pack(envelope.PROBE, self.id)
        self.publish(self.questions, question, f"{self.inbox}.{QUESTION}{self.id}")


def event_of(token: str, message: protocol.Message) -> Event | None:
    """Return what an answer to `token` means; None where that is nothing.

    That nobody listens to a question means no more than that nobody answers it.
    """
    if message.status:
        is_request = message.status == protocol.NO_RESPONDERS and token.startswith(REQUEST)
        return Sign.NOBODY if is_request else None
    return envelope.unpack(message.payload)
