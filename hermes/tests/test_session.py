"""Requests over a real server: answered once, kept, refused, and what a restart does to them."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest
from hermes import envelope, subjects
from hermes.serving import Marks, Request
from hermes.session import Limits, NotInTime, Undelivered

from tests.clients import EXCHANGE, ROUTE, TOPIC, Clients, Worker, to_server, wait_until
from tests.servers import NatsServer, Sites

# ---------------------------------------------------------------- who gets what


def test_a_call_is_answered(server: NatsServer, clients: Clients) -> None:
    clients.worker("a", server)
    client = clients.session(server)
    answer = client.call(ROUTE, b"hello", 10)
    assert (answer.kind, answer.body) == (envelope.REPLY, b"a:hello")
    assert client.call(ROUTE, b"\x00" * 300_000, 10).body.endswith(b"\x00" * 300_000)


def test_a_call_goes_to_one_worker_a_fanout_to_all(server: NatsServer, clients: Clients) -> None:
    workers = [clients.worker(name, server) for name in "abc"]
    client = clients.session(server)
    for number in range(60):
        client.call(ROUTE, str(number).encode(), 10)
    counts = [len(worker.done) for worker in workers]
    assert sum(counts) == 60 and min(counts) > 0
    client.fanout(subjects.fanout(EXCHANGE, TOPIC), b"all")
    assert wait_until(lambda: all(b"all" in worker.done for worker in workers))


def test_a_server_is_reached_by_its_name_and_its_workers_share(
    server: NatsServer, clients: Clients
) -> None:
    one, other = (clients.worker("a", server) for _ in range(2))
    clients.worker("b", server)
    client = clients.session(server)
    assert {client.call(to_server("a"), b"", 10).body for _ in range(40)} == {b"a:"}
    assert one.done and other.done and len(one.done) + len(other.done) == 40


def test_casts_of_one_sender_are_taken_in_their_order(server: NatsServer, clients: Clients) -> None:
    worker = clients.worker("a", server)
    client = clients.session(server)
    wanted = [str(number).encode() for number in range(200)]
    for body in wanted:
        client.cast(ROUTE, body)
    assert wait_until(lambda: len(worker.done) == 200)
    assert worker.done == wanted


# ---------------------------------------------------------------- time


def test_a_call_that_is_not_answered_ends_when_its_time_is_up(
    server: NatsServer, clients: Clients
) -> None:
    clients.worker("a", server, work=lambda _worker, _request: None)
    client = clients.session(server)
    for route in (ROUTE, to_server("nobody")):
        started = time.monotonic()
        with pytest.raises(NotInTime, match="not answered in time"):
            client.call(route, b"", 0.3)
        assert time.monotonic() - started >= 0.3


def test_a_long_call_goes_on_while_there_are_signs_of_life(
    server: NatsServer, clients: Clients
) -> None:
    def slowly(worker: Worker, request: Request) -> None:
        for _ in range(4):
            time.sleep(0.2)
            request.heartbeat()
        request.answer(b"done")

    worker = clients.worker("a", server, work=slowly)
    client = clients.session(server)
    assert client.call(ROUTE, b"", 30, monitor_s=0.7).body == b"done"
    worker.work = lambda _worker, _request: None
    with pytest.raises(NotInTime, match="no sign of life"):
        client.call(ROUTE, b"", 30, monitor_s=0.3)


def test_a_call_ends_in_time_while_the_server_is_frozen(
    server: NatsServer, clients: Clients
) -> None:
    clients.worker("a", server)
    client = clients.session(server)
    with server.frozen():
        started = time.monotonic()
        with pytest.raises(NotInTime):
            client.call(ROUTE, b"x" * 500_000, 0.4)
        took = time.monotonic() - started
    # Not a matter of speed: a call that waited for the socket would wait for the thaw.
    assert 0.4 <= took < 20
    assert client.call(ROUTE, b"again", 30).body == b"a:again"


# ---------------------------------------------------------------- what is lost


def test_no_call_fails_when_the_server_is_restarted(server: NatsServer, clients: Clients) -> None:
    workers = [clients.worker(name, server) for name in "ab"]
    answered: Counter[bytes] = Counter()
    problems: list[Exception] = []
    ending = threading.Event()

    def calls(number: int) -> None:
        client, count = clients.session(server), 0
        while not ending.is_set():
            body = f"{number}-{count}".encode()
            count += 1
            try:
                answer = client.call(ROUTE, body, 30).body
            except Exception as error:
                problems.append(error)
                return
            assert answer.endswith(b":" + body)
            answered[body] += 1

    threads = [threading.Thread(target=calls, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        before = len(answered)
        assert wait_until(lambda before=before: len(answered) > before + 50)  # type: ignore[misc]
        server.restart()
    before = len(answered)
    assert wait_until(lambda: len(answered) > before + 50)
    ending.set()
    for thread in threads:
        thread.join(60)
    assert problems == []
    done = Counter(body for worker in workers for body in worker.done)
    assert set(answered) <= set(done)
    assert max(done.values()) == 1, "none was worked on twice"


def test_no_cast_is_lost_when_the_server_is_restarted(server: NatsServer, clients: Clients) -> None:
    worker = clients.worker("a", server)
    client = clients.session(server)
    for number in range(300):
        if number in (100, 200):
            server.restart()
        client.cast(ROUTE, str(number).encode())
    assert wait_until(lambda: len(set(worker.done)) == 300)
    assert len(worker.done) == 300
    assert client.counts.lost == 0


def test_a_cast_that_nobody_takes_is_kept_until_somebody_does(
    server: NatsServer, clients: Clients
) -> None:
    client = clients.session(server)
    started = time.monotonic()
    for number in range(20):
        client.cast(to_server("late"), str(number).encode())
    assert time.monotonic() - started < client.limits.wait_s, "nobody waits for a server"
    assert client.counts.kept == 20
    worker = clients.worker("late", server)
    assert wait_until(lambda: len(worker.done) == 20)
    assert sorted(worker.done) == sorted(str(number).encode() for number in range(20))


def test_casts_that_nobody_takes_are_bounded_and_counted(
    server: NatsServer, clients: Clients
) -> None:
    client = clients.session(server, limits=Limits(keep_s=0.5, most_kept=3))
    for _ in range(3):
        client.cast(ROUTE, b"")
    with pytest.raises(Undelivered, match="nobody takes it, and 3 others"):
        client.cast(ROUTE, b"")
    assert wait_until(lambda: client.counts.lost == 4)
    client.cast(ROUTE, b"")


def test_a_request_that_comes_twice_is_worked_on_once(server: NatsServer, clients: Clients) -> None:
    worker = clients.worker("a", server)
    client = clients.session(server)
    data = envelope.pack(envelope.CALL, "twice", None, b"body")
    answers = [client.ask(ROUTE.subject, data, 10).payload for _ in range(3)]
    assert [envelope.unpack(each).body for each in answers] == [b"a:body"] * 3
    assert worker.done == [b"body"]


def test_what_a_stranger_sends_hurts_nobody(server: NatsServer, clients: Clients) -> None:
    worker = clients.worker("a", server)
    client = clients.session(server)
    for data in (b"", b"\xff" * 1000, b"[1]\n", b"[" * 100_000):
        for subject in (ROUTE.subject, ROUTE.questions, subjects.fanout(EXCHANGE, TOPIC),
                        f"{client.inbox}.r1", f"{client.inbox}.x"):  # fmt: skip
            client.connection.publish(subject, data)
    assert client.call(ROUTE, b"still there", 10).body == b"a:still there"
    assert worker.done == [b"still there"]


# ---------------------------------------------------------------- too much to do, and the end


def test_who_has_too_much_to_do_leaves_the_topic_to_others(
    server: NatsServer, clients: Clients
) -> None:
    busy = clients.worker("busy", server, marks=Marks(leave=10, come_back=2))
    client = clients.session(server)
    busy.held.clear()
    for number in range(11):
        client.cast(to_server("busy"), str(number).encode())
    assert wait_until(lambda: busy.server.refused == 1)
    other = clients.worker("other", server)
    assert {client.call(ROUTE, b"", 10).body for _ in range(20)} == {b"other:"}
    busy.held.set()
    assert wait_until(lambda: len(busy.done) == 11)
    assert wait_until(lambda: client.call(ROUTE, b"", 10).body == b"busy:"), "it is back"
    assert len(other.done) >= 20


def test_who_stops_ends_what_it_has_and_others_get_the_rest(
    server: NatsServer, clients: Clients
) -> None:
    first = clients.worker("first", server)
    client = clients.session(server)
    for number in range(50):
        client.cast(ROUTE, str(number).encode())
    first.stop()
    assert len(first.done) == 50
    client.cast(ROUTE, b"later")
    second = clients.worker("second", server)
    assert wait_until(lambda: second.done == [b"later"])


# ---------------------------------------------------------------- sites


def test_a_call_stays_at_its_site_and_leaves_it_when_it_must(
    sites: Sites, clients: Clients
) -> None:
    near, far = (clients.worker(name, leaf) for name, leaf in zip("ab", sites.leaves, strict=True))
    client = clients.session(sites.leaves[0])
    assert wait_until(lambda: client.call(to_server("b"), b"", 10).body == b"b:")
    assert {client.call(ROUTE, b"", 10).body for _ in range(40)} == {b"a:"}
    near.stop()
    assert client.call(ROUTE, b"", 10).body == b"b:"
    assert far.done


def test_a_site_that_is_cut_off_goes_on_by_itself(sites: Sites, clients: Clients) -> None:
    clients.worker("a", sites.leaves[0])
    clients.worker("b", sites.leaves[1])
    client = clients.session(sites.leaves[0])
    assert wait_until(lambda: client.call(to_server("b"), b"", 10).body == b"b:")
    sites.hub.kill()
    assert client.call(ROUTE, b"", 10).body == b"a:"
    with pytest.raises(NotInTime):
        client.call(to_server("b"), b"", 0.5)
    sites.hub.start()
    assert client.call(to_server("b"), b"healed", 60).body == b"b:healed"


def test_no_call_fails_when_the_hub_or_a_leaf_is_restarted(sites: Sites, clients: Clients) -> None:
    clients.worker("a", sites.leaves[0])
    far = clients.worker("b", sites.leaves[1])
    client = clients.session(sites.leaves[0])
    assert wait_until(lambda: client.call(to_server("b"), b"", 10).body == b"b:")
    before = len(far.done)
    for number in range(120):
        if number in (30, 60, 90):
            (sites.hub, *sites.leaves)[number // 30 - 1].restart()
        assert client.call(to_server("b"), str(number).encode(), 60).body == b"b:%d" % number
    assert len(far.done) == before + 120, "each once"
