"""The driver as oslo.messaging loads it: calls, casts, failures, notifications, forks, options."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import oslo_messaging
import pytest
from hermes import options
from hermes.driver import addresses_of
from hermes.notifications import STREAM
from oslo_config import cfg
from oslo_messaging import exceptions

from tests.servers import NatsServer, nats_server

# oslo.messaging's tracing reads its options there, wherever ours are.
CONF = cfg.CONF


@pytest.fixture(scope="module", autouse=True)
def configuration() -> None:
    CONF([], project="hermes-tests")
    CONF.register_opts(options.OPTIONS, group=options.GROUP)
    for name, value in {"ask_after": 0.5, "settle_time": 0.5, "ping_interval": 0.5}.items():
        CONF.set_override(name, value, group=options.GROUP)


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A server with JetStream for all tests of this file."""
    store = tmp_path_factory.mktemp("streams")
    with nats_server(f'jetstream {{ store_dir: "{store}" }}') as own:
        yield own


def url(bus: NatsServer, login: str = "") -> str:
    return f"nats://{login}127.0.0.1:{bus.port}/"


class Endpoint:
    """What the tests' server does."""

    target = oslo_messaging.Target(version="1.1")

    def __init__(self) -> None:
        self.said: list[Any] = []

    def echo(self, context: Any, said: Any) -> Any:
        self.said.append(said)
        return {"said": said, "context": context}

    def fail(self, context: Any, words: str) -> None:
        raise ValueError(words)

    def slow(self, context: Any, seconds: float) -> str:
        time.sleep(seconds)
        return "done"


class Rpc:
    """A server of a topic, and clients of it, each with a transport of its own."""

    def __init__(self, bus: NatsServer) -> None:
        self.bus = bus
        self.transports: list[Any] = []
        self.endpoint = Endpoint()
        target = oslo_messaging.Target(topic="tests", server="one", exchange="hermes")
        self.server = oslo_messaging.get_rpc_server(self.transport(), target, [self.endpoint])
        self.server.start()

    def transport(self) -> Any:
        made = oslo_messaging.get_rpc_transport(CONF, url=url(self.bus))
        self.transports.append(made)
        return made

    def client(self, **more: Any) -> Any:
        target = oslo_messaging.Target(topic="tests", exchange="hermes", version="1.0")
        return oslo_messaging.get_rpc_client(self.transport(), target, **more)

    def close(self) -> None:
        self.server.stop()
        self.server.wait()
        for transport in self.transports:
            transport.cleanup()


@pytest.fixture
def rpc(bus: NatsServer) -> Iterator[Rpc]:
    made = Rpc(bus)
    yield made
    made.close()


# ---------------------------------------------------------------- RPC


def test_a_call_brings_what_was_returned(rpc: Rpc) -> None:
    said = {"a": [1, 2.5, None, "ü"], "b": {"c": True}}
    assert rpc.client().call({"user": "me"}, "echo", said=said) == {
        "said": said, "context": {"user": "me"},
    }  # fmt: skip


def test_a_failure_is_raised_where_it_was_called(rpc: Rpc) -> None:
    with pytest.raises(ValueError, match="because"):
        rpc.client().call({}, "fail", words="because")


def test_a_cast_and_a_fanout_are_done(rpc: Rpc) -> None:
    client = rpc.client()
    client.cast({}, "echo", said=1)
    client.prepare(fanout=True).cast({}, "echo", said=2)
    client.prepare(server="one").cast({}, "echo", said=3)
    latest = time.monotonic() + 30
    while len(rpc.endpoint.said) < 3 and time.monotonic() < latest:
        time.sleep(0.01)
    assert sorted(rpc.endpoint.said) == [1, 2, 3]


def test_what_is_not_answered_is_a_timeout_that_says_where(rpc: Rpc) -> None:
    client = rpc.client(timeout=1)
    with pytest.raises(exceptions.MessagingTimeout, match="topic tests, server nobody"):
        client.prepare(server="nobody").call({}, "echo", said=1)
    with pytest.raises(exceptions.MessagingTimeout, match=r"not answered in time \(1\.0"):
        client.call({}, "slow", seconds=3)


def test_a_long_call_is_monitored(rpc: Rpc) -> None:
    client = rpc.client(timeout=30, call_monitor_timeout=2)
    assert client.call({}, "slow", seconds=4) == "done"


def test_calls_of_many_threads_each_get_their_own_answer(rpc: Rpc) -> None:
    client, wrong = rpc.client(), []

    def calls(number: int) -> None:
        for count in range(20):
            said = [number, count]
            if client.call({}, "echo", said=said)["said"] != said:
                wrong.append(said)

    threads = [threading.Thread(target=calls, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert wrong == [] and len(rpc.endpoint.said) == 320


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # oslo.service's
def test_a_forked_process_has_a_connection_of_its_own(rpc: Rpc) -> None:
    client = rpc.client()
    assert client.call({}, "echo", said="before")["said"] == "before"
    child = os.fork()
    if not child:
        code = 1
        try:
            code = 0 if client.call({}, "echo", said="child")["said"] == "child" else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert client.call({}, "echo", said="after")["said"] == "after"
    assert rpc.endpoint.said == ["before", "child", "after"]


def test_without_a_server_it_is_given_up_after_so_many_attempts() -> None:
    transport = oslo_messaging.get_rpc_transport(CONF, url="nats://127.0.0.1:1/")
    target = oslo_messaging.Target(topic="tests", exchange="hermes")
    client = oslo_messaging.get_rpc_client(transport, target, retry=0, timeout=1)
    for ask in (client.call, client.cast):
        with pytest.raises(exceptions.MessageDeliveryFailure, match="no connection to NATS"):
            ask({}, "echo", said=1)
    patient = oslo_messaging.get_rpc_client(transport, target, timeout=1)
    with pytest.raises(exceptions.MessagingTimeout, match="no connection: 127"):
        patient.call({}, "echo", said=1)
    transport.cleanup()


def test_who_is_not_let_in_is_told_so() -> None:
    users = 'authorization { users: [{user: "nova", password: "s3:cret/"}] }'
    with nats_server(users) as guarded:
        for login, words in (("", "Authorization Violation"), ("nova:s3%3Acret%2F@", "in time")):
            transport = oslo_messaging.get_rpc_transport(CONF, url=url(guarded, login))
            target = oslo_messaging.Target(topic="nobody", exchange="hermes")
            client = oslo_messaging.get_rpc_client(transport, target, timeout=1)
            with pytest.raises(exceptions.MessagingTimeout, match=words) as caught:
                client.call({}, "echo", said=1)
            assert "s3" not in str(caught.value)
            transport.cleanup()


# ---------------------------------------------------------------- notifications


class Heard:
    """A listener's endpoint; it asks for each first one again if it is told to."""

    def __init__(self, requeues: bool = False) -> None:
        self.said: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self.requeues = requeues

    def _hear(self, priority: str, payload: Any) -> Any:
        self.said.put((priority, payload))
        if self.requeues:
            self.requeues = False
            return oslo_messaging.NotificationResult.REQUEUE
        return oslo_messaging.NotificationResult.HANDLED

    def info(self, _context: Any, _publisher: str, _event: str, payload: Any, _more: Any) -> Any:
        return self._hear("info", payload)

    def error(self, _context: Any, _publisher: str, _event: str, payload: Any, _more: Any) -> Any:
        return self._hear("error", payload)


def test_notifications_are_kept_until_somebody_hears_them(bus: NatsServer) -> None:
    transport = oslo_messaging.get_notification_transport(CONF, url=url(bus))
    notifier = oslo_messaging.Notifier(transport, "me", driver="messaging", topics=["kept"])
    for number in range(100):
        notifier.info({}, "event", {"number": number})
    notifier.error({}, "event", {"number": -1})
    heard = Heard(requeues=True)
    targets = [oslo_messaging.Target(topic="kept")]
    listener = oslo_messaging.get_notification_listener(
        transport, targets, [heard], allow_requeue=True
    )
    listener.start()
    said = [heard.said.get(timeout=30) for _ in range(102)]
    infos = [payload["number"] for priority, payload in said if priority == "info"]
    assert set(infos) == set(range(100)) and ("error", {"number": -1}) in said
    assert len(said) == 102, "one came again"
    # Another listener of the same pool begins where this one ended, one of another with all.
    listener.stop()
    listener.wait()
    for pool, count in ((None, 1), ("archive", 102)):
        other = Heard()
        again = oslo_messaging.get_notification_listener(transport, targets, [other], pool=pool)
        again.start()
        if pool is None:
            notifier.info({}, "event", {"number": 100})
        found = [other.said.get(timeout=30) for _ in range(count)]
        assert found[-1][1] in ({"number": 100}, {"number": -1}) or pool
        with pytest.raises(queue.Empty):
            other.said.get(timeout=0.3)
        again.stop()
        again.wait()
    transport.cleanup()


def test_without_jetstream_a_notification_is_refused() -> None:
    with nats_server() as plain:
        transport = oslo_messaging.get_notification_transport(CONF, url=url(plain))
        target = oslo_messaging.Target(topic="kept.info", exchange="hermes")
        with pytest.raises(exceptions.MessageDeliveryFailure, match="no JetStream is there"):
            transport._send_notification(target, {}, {"event": 1}, version=2.0, retry=0)
        transport.cleanup()
    assert STREAM


# ---------------------------------------------------------------- URLs


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("nats://", ["127.0.0.1:4222"]),
        ("nats://a/", ["a:4222"]),
        ("nats://u:p@a:1,u:p@b:2/", ["a:1", "b:2"]),
        ("nats+tls://[::1]:5/", ["::1:5"]),
    ],
)
def test_all_servers_of_a_url_are_known(text: str, servers: list[str]) -> None:
    found = addresses_of(oslo_messaging.TransportURL.parse(CONF, text))
    assert [str(address) for address in found] == servers
    assert "p" not in repr(found).replace("port", "").replace("password", "").replace("p'", "")
