"""A server of a topic in this process: what it is sent, each request once, and its answers.

All workers of a server, and all servers of a topic, are members of a group: a message goes to one
of them, and of members at different sites to one that is near, as NATS has it.  That holds for a
server that is ill as well: so one that has too much to do leaves the group of its topic until it
has less, and whoever asks meanwhile is served by others, or told that there is nobody.
"""

from __future__ import annotations

import logging
import queue
import threading
from dataclasses import dataclass

from hermes import envelope, subjects
from hermes.connection import Subscription
from hermes.envelope import Envelope
from hermes.errors import Closed, Full, ProtocolError
from hermes.ledger import Ledger
from hermes.protocol import Message
from hermes.session import Session

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Marks:
    """With so many requests waiting a server leaves its topic, and with so few it comes back."""

    leave: int = 256
    come_back: int = 128


@dataclass
class Request:
    """A request that came: its envelope, and where its answer goes, nowhere if it wants none."""

    envelope: Envelope
    reply_to: str
    server: Server

    @property
    def wants_answer(self) -> bool:
        """Tell whether somebody waits for what comes of it."""
        return self.envelope.kind == envelope.CALL

    def answer(self, body: bytes, more: object = None) -> None:
        """Send what came of it, and keep that for whoever asks again."""
        data = envelope.pack(envelope.REPLY, self.envelope.id, more, body)
        self.server.ledger.answer(self.envelope.id, data)
        self.server.say(self.reply_to, data)

    def heartbeat(self) -> None:
        """Say that it is still worked on."""
        self.server.say(self.reply_to, envelope.pack(envelope.HEARTBEAT, self.envelope.id))


class Server:
    """Subscribes to a topic, and to one server of it if it has a name; thread-safe.

    Requests are in `requests`; None there says that it was stopped.
    """

    def __init__(
        self,
        session: Session,
        exchange: str,
        topic: str,
        host: str | None,
        marks: Marks | None = None,
    ) -> None:
        self.session = session
        self.marks = marks or Marks()
        self.ledger = Ledger()
        self.requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self.refused = 0
        self._names = exchange, topic
        self._lock = threading.Lock()
        self._is_stopped = False
        subscribe = session.connection.subscribe
        self._topic: Subscription | None = None
        self._others = [
            subscribe(subjects.fanout(exchange, topic), self._on_request),
            subscribe(subjects.probe(exchange, topic), self._on_question),
        ]
        if host is not None:
            own = subjects.server(exchange, topic, host)
            self._others.append(subscribe(own, self._on_request, subjects.GROUP))
        self._come_back()

    # ------------------------------------------------ for whoever works

    def get(self, timeout_s: float | None) -> Request | None:
        """Return the next request; None when there was none in time, or none comes any more."""
        try:
            request = self.requests.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if request is None:
            self.requests.put(None)  # for who asks again
        elif self._topic is None and self.requests.qsize() <= self.marks.come_back:
            self._come_back()
        return request

    def stop(self) -> None:
        """Take no more requests; those that have come are still in `requests`."""
        with self._lock:
            if self._is_stopped:
                return
            self._is_stopped = True
        unsubscribe = self.session.connection.unsubscribe
        probe = self._others.pop(1)
        for subscription in (self._topic, *self._others):
            if subscription is not None:
                unsubscribe(subscription)
        self.session.connection.flush(1.0)  # what was on its way is there now
        self._others = [probe]
        self.requests.put(None)

    def cleanup(self) -> None:
        """Answer no more questions."""
        for subscription in self._others:
            self.session.connection.unsubscribe(subscription)

    def say(self, subject: str, data: bytes) -> None:
        """Send an answer; one that can't go out is asked for again, if anybody waits."""
        if not subject:
            return
        try:
            self.session.connection.publish(subject, data)
        except (Full, Closed, ValueError) as error:
            LOG.error("an answer to %s can't be sent: %s", subject, error)

    # ------------------------------------------------ in the connection's thread

    def _on_request(self, message: Message) -> None:
        try:
            said = envelope.unpack(message.payload)
        except ProtocolError as error:
            LOG.warning("%s: %s", message.subject, error)
            return
        if not self.ledger.begin(said.id):
            self._on_known(said, message.reply)
            return
        if said.kind == envelope.CAST:
            self.say(message.reply, envelope.pack(envelope.TAKEN, said.id))
        self.requests.put(Request(said, message.reply, self))
        if self._topic is not None and self.requests.qsize() >= self.marks.leave:
            self._leave()

    def _on_question(self, message: Message) -> None:
        try:
            asked = envelope.unpack(message.payload)
        except ProtocolError as error:
            LOG.warning("%s: %s", message.subject, error)
            return
        if self.ledger.knows(asked.id):
            self._on_known(asked, message.reply)
        else:
            self.say(message.reply, envelope.pack(envelope.UNKNOWN, asked.id))

    def _on_known(self, said: Envelope, reply_to: str) -> None:
        answer = self.ledger.answer_of(said.id)
        self.say(reply_to, answer or envelope.pack(envelope.TAKEN, said.id))

    def _leave(self) -> None:
        with self._lock:
            topic, self._topic = self._topic, None
        if topic is not None:
            self.refused += 1
            self.session.connection.unsubscribe(topic)
            LOG.warning(
                "%d requests wait: others serve %s meanwhile", self.marks.leave, topic.subject
            )

    def _come_back(self) -> None:
        with self._lock:
            if self._topic is None and not self._is_stopped:
                self._topic = self.session.connection.subscribe(
                    subjects.topic(*self._names), self._on_request, subjects.GROUP
                )
