"""Notifications, kept by the server until somebody takes them: a stream of JetStream's.

A notification is its sender's until the stream has it; it is in the stream then, whether anybody
listens or not, until it is too old.  Each pool of listeners is a consumer of the stream, which
hands a notification to one of them, and to another when it isn't acknowledged in time.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import queue
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hermes import subjects
from hermes.connection import Subscription
from hermes.errors import Closed, Full, HermesError
from hermes.protocol import Message
from hermes.session import NotInTime, Session, Undelivered

LOG = logging.getLogger(__name__)

STREAM = "OSLO_NOTIFICATIONS"
_ALL = f"{subjects.ROOT}.notify.>"
_API = "$JS.API"
_ASK_WITHIN_S = 5.0
_NS = 10**9
# Errors of JetStream's by number: what is to be made is there, with another configuration.
_STREAM_EXISTS, _CONSUMER_EXISTS = 10058, 10148


class NoStream(HermesError):
    """The server keeps no notifications."""


@dataclass(frozen=True)
class Keeping:
    """How notifications are kept: for so long, in seconds, and as many bytes as that.

    One that a listener hasn't acknowledged after `again_s` goes to another.
    """

    keep_s: float = 86_400.0
    most_bytes: int = 256 * 2**20
    again_s: float = 60.0
    copies: int = 1
    in_memory: bool = False


def _answer(message: Message) -> dict[str, Any]:
    try:
        values = json.loads(message.payload)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise NoStream(f"JetStream says {message.payload[:100]!r}")
    return values


def _api(session: Session, words: str, request: dict[str, Any], *accepted: int) -> dict[str, Any]:
    """Ask JetStream for something; raises NoStream with its words, but for some errors."""
    try:
        said = session.ask(f"{_API}.{words}", json.dumps(request).encode(), _ASK_WITHIN_S)
    except (NotInTime, Undelivered) as error:
        raise NoStream(f"no JetStream is there: {error}") from None
    values = _answer(said)
    refusal = values.get("error")
    if isinstance(refusal, dict) and refusal.get("err_code") not in accepted:
        raise NoStream(f"JetStream says: {refusal.get('description')}")
    return values


def ensure_stream(session: Session, keeping: Keeping) -> None:
    """Have the stream; one that is there stays as it is."""
    config = {
        "name": STREAM, "subjects": [_ALL], "retention": "limits", "discard": "old",
        "max_age": int(keeping.keep_s * _NS), "max_bytes": keeping.most_bytes,
        "storage": "memory" if keeping.in_memory else "file", "num_replicas": keeping.copies,
    }  # fmt: skip
    _api(session, f"STREAM.CREATE.{STREAM}", config, _STREAM_EXISTS)


def send(
    session: Session,
    keeping: Keeping,
    exchange: str,
    topic: str,
    body: bytes,
    attempts: int | None,
) -> None:
    """Have the stream take a notification, once; it is tried so often, None: until it does.

    Raises NoStream, or Undelivered.
    """
    subject = subjects.notification(exchange, topic)
    identifier = secrets.token_hex(12)
    tried = 0
    while True:
        tried += 1
        try:
            _hand_over(session, keeping, subject, body, identifier)
            return
        except (NotInTime, Undelivered, NoStream) as error:
            LOG.debug("notification on %s, attempt %d: %s", subject, tried, error)
            if attempts is not None and tried >= attempts:
                raise
        if session.connection.is_up:
            time.sleep(min(1.0, 0.05 * 2 ** min(tried, 6)))
        else:
            session.connection.wait_until_up(1.0)


def _hand_over(
    session: Session, keeping: Keeping, subject: str, body: bytes, identifier: str
) -> None:
    """Have the stream take a notification; it is made where nobody has needed it before."""
    try:
        said = session.ask(subject, body, _ASK_WITHIN_S, identifier)
    except Undelivered:
        ensure_stream(session, keeping)
        said = session.ask(subject, body, _ASK_WITHIN_S, identifier)
    values = _answer(said)
    if "error" in values:
        raise NoStream(f"JetStream says: {values['error']}")


@dataclass
class Notification:
    """A notification that came; it comes again unless it is acknowledged."""

    body: bytes
    subject: str
    _session: Session
    _reply_to: str

    def acknowledge(self) -> None:
        """Say that it is done."""
        self._say(b"+ACK")

    def requeue(self) -> None:
        """Have it come again, to whichever listener."""
        self._say(b"-NAK")

    def _say(self, words: bytes) -> None:
        with contextlib.suppress(Full, Closed):  # it comes again then
            self._session.connection.publish(self._reply_to, words)


class Consumer:
    """Takes the notifications of some topics, as one listener of a pool; thread-safe.

    They are in `notifications`; None there says that it was stopped.
    """

    def __init__(
        self,
        session: Session,
        keeping: Keeping,
        topics: Sequence[tuple[str, str]],
        pool: str | None,
        at_once: int = 32,
    ) -> None:
        self.notifications: queue.SimpleQueue[Notification | None] = queue.SimpleQueue()
        self._session, self._keeping, self._at_once = session, keeping, at_once
        self._stopped = threading.Event()
        self._wanted = [
            (subjects.notification(exchange, topic), durable_name(exchange, topic, pool))
            for exchange, topic in topics
        ]
        self._subscriptions: list[Subscription] = []
        # By consumer: when to ask for more, and how many are still to come of those asked for.
        self._ask_at: dict[str, float] = {}
        self._to_come: dict[str, int] = {}
        self._ask_again = threading.Event()
        ensure_stream(session, keeping)
        for number, (subject, durable) in enumerate(self._wanted):
            self._ensure_consumer(subject, durable)
            own = f"{session.inbox}-n.{secrets.token_hex(4)}{number}"
            take = functools.partial(self._on_message, durable)
            self._subscriptions.append(session.connection.subscribe(own, take))
        self._thread = threading.Thread(target=self._run, name="hermes-pull", daemon=True)
        self._thread.start()

    def get(self, timeout_s: float | None) -> Notification | None:
        """Return the next one; None when there is none in time, or none comes any more."""
        try:
            found = self.notifications.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if found is None:
            self.notifications.put(None)
        else:
            self._ask_again.set()
        return found

    def stop(self) -> None:
        """Take no more; what has come and isn't acknowledged comes again to another."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        self._ask_again.set()
        self._thread.join(2.0)
        for subscription in self._subscriptions:
            self._session.connection.unsubscribe(subscription)
        self.notifications.put(None)

    def _ensure_consumer(self, subject: str, durable: str) -> None:
        config = {
            "durable_name": durable, "ack_policy": "explicit", "deliver_policy": "all",
            "ack_wait": int(self._keeping.again_s * _NS), "filter_subject": subject,
            "max_ack_pending": 10_000,
        }  # fmt: skip
        request = {"stream_name": STREAM, "config": config}
        words = f"CONSUMER.DURABLE.CREATE.{STREAM}.{durable}"
        _api(self._session, words, request, _CONSUMER_EXISTS)

    # ------------------------------------------------ pulling

    def _run(self) -> None:
        """Ask for more of each topic whenever what was asked for has come, or its time is up."""
        while not self._stopped.is_set():
            self._ask_again.clear()
            now = time.monotonic()
            if self.notifications.qsize() < self._at_once:
                for (_, durable), subscription in zip(
                    self._wanted, self._subscriptions, strict=True
                ):
                    if now >= self._ask_at.get(durable, 0.0):
                        self._pull(durable, subscription.subject, now)
            self._ask_again.wait(1.0)

    def _pull(self, durable: str, inbox: str, now: float) -> None:
        request = {"batch": self._at_once, "expires": int(_ASK_WITHIN_S * _NS)}
        self._ask_at[durable] = now + _ASK_WITHIN_S + 1
        self._to_come[durable] = self._at_once
        with contextlib.suppress(Full, Closed):
            self._session.connection.publish(
                f"{_API}.CONSUMER.MSG.NEXT.{STREAM}.{durable}", json.dumps(request).encode(), inbox
            )

    def _on_message(self, durable: str, message: Message) -> None:
        if message.status:  # the request has ended: it was too long ago, or the server lost it
            self._ask_at[durable] = time.monotonic() + (0.0 if message.status == 408 else 0.5)
            self._ask_again.set()
            return
        self._to_come[durable] -= 1
        if self._to_come[durable] <= 0:  # all have come, and nothing says so
            self._ask_at[durable] = 0.0
        self.notifications.put(
            Notification(message.payload, message.subject, self._session, message.reply)
        )
        if self._ask_at[durable] == 0.0:
            self._ask_again.set()


def durable_name(exchange: str, topic: str, pool: str | None) -> str:
    """Return the name of a pool's consumer of a topic."""
    text = json.dumps([exchange, topic, pool])
    return f"oslo-{hashlib.sha256(text.encode()).hexdigest()[:24]}"
