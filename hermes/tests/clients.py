"""Sessions and workers for tests: a worker answers each request with its name and what it got."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from hermes import subjects
from hermes.connection import Address, Settings
from hermes.delivery import Patience
from hermes.serving import Marks, Request, Server
from hermes.session import Limits, Route, Session

from tests.servers import NatsServer

EXCHANGE, TOPIC = "x", "work"
ROUTE = Route(subjects.topic(EXCHANGE, TOPIC), subjects.probe(EXCHANGE, TOPIC))
# Ten times as impatient as services are.
SETTINGS = Settings(ping_every_s=0.5, connect_within_s=1.0, retry_most_s=0.2)
PATIENCE = Patience(ask_after_s=0.5, ask_every_s=0.1, settle_s=0.3)


def to_server(host: str) -> Route:
    return Route(subjects.server(EXCHANGE, TOPIC, host), ROUTE.questions)


def echo(worker: Worker, request: Request) -> None:
    request.answer(worker.name.encode() + b":" + request.envelope.body)


@dataclass
class Worker:
    """A server of the topic, and a thread that works on what it is sent."""

    name: str
    session: Session
    work: Callable[[Worker, Request], None] = echo
    marks: Marks | None = None
    done: list[bytes] = field(default_factory=list)
    held: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.held.set()
        self.server = Server(self.session, EXCHANGE, TOPIC, self.name, self.marks)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        assert self.session.connection.wait_until_up(30) and self.session.connection.flush(30)

    def _run(self) -> None:
        while (request := self.server.get(None)) is not None:
            self.held.wait()
            self.done.append(request.envelope.body)
            self.work(self, request)

    def stop(self) -> None:
        self.server.stop()
        self.held.set()
        self.thread.join(30)


class Clients:
    """Makes sessions and workers, and ends all of them."""

    def __init__(self) -> None:
        self.sessions: list[Session] = []
        self.workers: list[Worker] = []

    def session(self, *servers: NatsServer, limits: Limits | None = None) -> Session:
        addresses = [Address("127.0.0.1", server.port) for server in servers]
        made = Session(addresses, SETTINGS, PATIENCE, limits)
        self.sessions.append(made)
        assert made.connection.wait_until_up(30) and made.connection.flush(30)
        return made

    def worker(
        self,
        name: str,
        *servers: NatsServer,
        work: Callable[[Worker, Request], None] = echo,
        marks: Marks | None = None,
    ) -> Worker:
        made = Worker(name, self.session(*servers), work, marks)
        self.workers.append(made)
        return made

    def close(self) -> None:
        for worker in self.workers:
            worker.held.set()
        for session in self.sessions:
            session.close(0.2)


def wait_until(condition: Callable[[], bool], within_s: float = 30.0) -> bool:
    """Wait for something; tells whether it came."""
    latest = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > latest:
            return False
        time.sleep(0.01)
    return True
