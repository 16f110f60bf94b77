"""RPC of one process over one connection: requests that go out, and what comes back."""

from __future__ import annotations

import contextlib
import itertools
import logging
import queue
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hermes import envelope, protocol, subjects
from hermes.connection import Address, Connection, Settings
from hermes.delivery import Delivery, Event, Outcome, Patience, Sign, event_of
from hermes.envelope import Envelope
from hermes.errors import Closed, Full, HermesError, ProtocolError
from hermes.protocol import Message

LOG = logging.getLogger(__name__)

# The first letter of the last token of answers that others write; see `delivery.REQUEST`.
_FOREIGN = "x"


class NotInTime(HermesError):
    """A call wasn't answered in time, or nothing was heard of it."""


class Undelivered(HermesError):
    """A request couldn't be handed over."""


@dataclass(frozen=True)
class Route:
    """Where a request goes, and where all workers that may know of it are asked."""

    subject: str
    questions: str


@dataclass(frozen=True)
class Limits:
    """How long casts are kept, in seconds, and how much of them, in bytes and numbers.

    The caller of a cast waits `wait_s` for it to be taken; then it is this process's, which goes
    on for `keep_s`.
    """

    wait_s: float = 1.0
    keep_s: float = 60.0
    most_kept: int = 10_000
    most_kept_bytes: int = 32 * 2**20


@dataclass
class Counts:
    """What happened since the process began."""

    calls: int = 0
    casts: int = 0
    fanouts: int = 0
    again: int = 0
    kept: int = 0
    lost: int = 0
    late: int = 0


class Session:
    """A connection, and the requests of this process that are under way on it; thread-safe."""

    def __init__(
        self,
        servers: Sequence[Address],
        settings: Settings,
        patience: Patience | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.patience = patience or Patience()
        self.limits = limits or Limits()
        self.counts = Counts()
        self.id = secrets.token_hex(8)
        self.inbox = subjects.inbox(self.id)
        self._numbers = itertools.count(1)
        self._waiting: dict[str, Callable[[Any], None]] = {}
        self._listeners: list[Callable[[bool], None]] = []
        self._keeper: Keeper | None = None
        self._keeper_lock = threading.Lock()
        self.connection = Connection(servers, settings, self._on_state)
        self.connection.subscribe(f"{self.inbox}.*", self._on_answer)

    # ------------------------------------------------ requests

    def call(
        self,
        route: Route,
        body: bytes,
        timeout_s: float | None,
        monitor_s: float | None = None,
    ) -> Envelope:
        """Return the answer to a request.

        Raises NotInTime, and Undelivered where it can't go out.
        """
        self.counts.calls += 1
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        started = time.monotonic()
        deadline = None if timeout_s is None else started + timeout_s
        identifier = self._name()
        self._waiting[identifier] = events.put
        try:
            data = envelope.pack(envelope.CALL, identifier, monitor_s, body)
            delivery = self._begin(identifier, route, data, True, started, deadline, monitor_s)
            outcome = self._follow(delivery, events, None)
            self.counts.again += delivery.sent - 1
        finally:
            del self._waiting[identifier]
        if outcome is Outcome.ANSWERED and delivery.answer is not None:
            return delivery.answer
        self.counts.late += 1
        why = "" if self.connection.is_up else f"; no connection: {self.connection.last_error}"
        raise NotInTime(f"{outcome.value} ({time.monotonic() - started:.3f} s){why}")

    def cast(self, route: Route, body: bytes) -> None:
        """Hand over a request that isn't answered.

        It waits until a server has taken it, but no longer than `limits.wait_s`; then this process
        goes on in the background.  Raises Undelivered where that has too much to do already.
        """
        self.counts.casts += 1
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        started = time.monotonic()
        identifier = self._name()
        self._waiting[identifier] = events.put
        kept = False
        try:
            data = envelope.pack(envelope.CAST, identifier, None, body)
            until = started + self.limits.keep_s
            delivery = self._begin(identifier, route, data, False, started, until, None)
            outcome = self._follow(delivery, events, started + self.limits.wait_s)
            if outcome is Outcome.UNDER_WAY:
                self._keep(delivery, events)
                kept = True
        finally:
            if not kept:
                self._waiting.pop(identifier, None)

    def ask(self, subject: str, data: bytes, within_s: float, identifier: str = "") -> Message:
        """Return what somebody who isn't ours answers, such as the server itself.

        Raises Undelivered where nobody listens, NotInTime where nobody answers.
        """
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        name = self._name()
        self._waiting[name] = answers.put
        try:
            self._publish(subject, data, f"{self.inbox}.{_FOREIGN}{name}", identifier)
            latest = time.monotonic() + within_s
            answer: Any = Sign.UP
            while not isinstance(answer, Message):  # that the connection came up is none
                answer = answers.get(timeout=max(0.0, latest - time.monotonic()))
        except queue.Empty:
            raise NotInTime(f"{subject}: no answer within {within_s:g} s") from None
        finally:
            del self._waiting[name]
        if answer.status == protocol.NO_RESPONDERS:
            raise Undelivered(f"{subject}: nobody listens")
        return answer

    def fanout(self, subject: str, body: bytes) -> None:
        """Send a request to all that listen just now; nobody says who did."""
        self.counts.fanouts += 1
        data = envelope.pack(envelope.FANOUT, self._name(), None, body)
        self._publish(subject, data, "")

    def _name(self) -> str:
        return f"{self.id}-{next(self._numbers)}"

    def _begin(
        self,
        identifier: str,
        route: Route,
        data: bytes,
        is_call: bool,
        started: float,
        deadline: float | None,
        monitor_s: float | None,
    ) -> Delivery:
        return Delivery(
            identifier, route.subject, route.questions, data, self.inbox, is_call, self._publish,
            self.patience, started, deadline, monitor_s,
        )  # fmt: skip

    def _publish(self, subject: str, data: bytes, reply: str, identifier: str = "") -> None:
        """Send something; raises Undelivered where the buffer is full or the session closed."""
        latest = time.monotonic() + self.limits.wait_s
        try:
            self.connection.publish(subject, data, reply, latest, identifier)
        except (Closed, Full) as error:
            raise Undelivered(str(error)) from None

    def _follow(
        self, delivery: Delivery, events: queue.SimpleQueue[Event], until: float | None
    ) -> Outcome:
        """Go on with a request until something became of it, or a moment has come.

        Of a cast that nobody listens to nothing more is waited for.
        """
        event: Event | None = None
        while True:
            now = time.monotonic()
            outcome = delivery.step(event, now)
            is_given_away = until is not None and (now >= until or event is Sign.NOBODY)
            if outcome is not Outcome.UNDER_WAY or is_given_away:
                return outcome
            latest = delivery.next_at() if until is None else min(until, delivery.next_at())
            try:
                event = events.get(timeout=max(0.0, latest - time.monotonic()))
            except queue.Empty:
                event = None

    # ------------------------------------------------ what comes back

    def _on_answer(self, message: Message) -> None:
        token = message.subject.rpartition(".")[2]
        take = self._waiting.get(token[1:])
        if take is None:
            return  # it was given up
        if token.startswith(_FOREIGN):
            take(message)
            return
        try:
            event = event_of(token, message)
        except ProtocolError as error:
            LOG.warning("%s: %s", message.subject, error)
            return
        if event is not None:
            take(event)

    def _on_state(self, is_up: bool) -> None:
        if is_up:
            for take in list(self._waiting.values()):
                take(Sign.UP)
        for listener in list(self._listeners):
            listener(is_up)

    # ------------------------------------------------ casts in the background

    def _keep(self, delivery: Delivery, events: queue.SimpleQueue[Event]) -> None:
        with self._keeper_lock:
            if self._keeper is None:
                self._keeper = Keeper(self.limits, self.counts, self._forget)
        take = self._keeper.take(delivery)
        self._waiting[delivery.id] = take
        with contextlib.suppress(queue.Empty):  # what came meanwhile
            while True:
                take(events.get_nowait())

    def _forget(self, identifier: str) -> None:
        self._waiting.pop(identifier, None)

    # ------------------------------------------------ its end

    def close(self, within_s: float = 5.0) -> None:
        """Wait for casts that are under way, and end the connection."""
        if self._keeper is not None:
            self._keeper.close(within_s)
        self.connection.close(within_s)


class Keeper:
    """Goes on with casts whose callers don't wait any more; a thread of its own."""

    def __init__(self, limits: Limits, counts: Counts, forget: Callable[[str], None]) -> None:
        self._limits, self._counts, self._forget = limits, counts, forget
        self._events: queue.SimpleQueue[tuple[str, Event] | None] = queue.SimpleQueue()
        self._kept: dict[str, Delivery] = {}
        self._bytes = 0
        self._lock = threading.Lock()
        self._is_ending = False
        self._thread = threading.Thread(target=self._run, name="hermes-casts", daemon=True)
        self._thread.start()

    def take(self, delivery: Delivery) -> Callable[[Event], None]:
        """Take a request over; returns what is told its events.  Raises Undelivered."""
        size = len(delivery.data)
        with self._lock:
            if (
                len(self._kept) >= self._limits.most_kept
                or self._bytes + size > self._limits.most_kept_bytes
            ):
                self._counts.lost += 1
                raise Undelivered(
                    f"nobody takes it, and {len(self._kept)} others of {self._bytes} bytes are kept"
                )
            self._kept[delivery.id] = delivery
            self._bytes += size
        self._counts.kept += 1
        self._events.put(None)  # its moments count from now on
        return lambda event: self._events.put((delivery.id, event))

    def close(self, within_s: float) -> None:
        """Go on for a while; what is left then is lost."""
        latest = time.monotonic() + within_s
        while self._kept and time.monotonic() < latest:
            time.sleep(0.01)
        self._is_ending = True
        self._events.put(None)
        self._thread.join(1.0)
        if self._kept:
            self._counts.lost += len(self._kept)
            LOG.warning("%d casts were taken by nobody", len(self._kept))

    def _run(self) -> None:
        while not self._is_ending:
            now = time.monotonic()
            with self._lock:
                moments = [delivery.next_at() for delivery in self._kept.values()]
            pause = min(moments) - now if moments else 3600.0
            try:
                said = self._events.get(timeout=max(0.0, pause))
            except queue.Empty:
                said = None
            now = time.monotonic()
            if said is not None:
                with self._lock:
                    delivery = self._kept.get(said[0])
                if delivery is not None:
                    self._step(delivery, said[1], now)
                continue
            with self._lock:
                due = [each for each in self._kept.values() if each.next_at() <= now]
            for delivery in due:
                self._step(delivery, None, now)

    def _step(self, delivery: Delivery, event: Event | None, now: float) -> None:
        try:
            outcome = delivery.step(event, now)
        except HermesError as error:
            LOG.debug("a cast on %s can't be sent just now: %s", delivery.subject, error)
            return
        if outcome is Outcome.UNDER_WAY:
            return
        with self._lock:
            if self._kept.pop(delivery.id, None) is not None:
                self._bytes -= len(delivery.data)
        self._forget(delivery.id)
        self._counts.again += max(0, delivery.sent - 1)
        if outcome is not Outcome.TAKEN:
            self._counts.lost += 1
            LOG.error(
                "a cast on %s was taken by nobody within %.0f s, and is lost", delivery.subject,
                self._limits.keep_s,
            )  # fmt: skip
