"""Requests to members that answer, refuse, hang, and break off; the members are scripts."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rome.errors import OperationalError
from rome.stores.base import Traffic
from rome.stores.etcd.connection import Refused, Server, Wire

from tests.servers import wait_until

# What a member does with a request: it answers with a status and a value, or breaks off.
Answer = tuple[int, Any]
Script = Callable[[str, Any], Answer | None]


class Member:
    """A member of which only the gateway is there; `script` answers, None breaks off."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[tuple[str, Any]] = []
        self.heads: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self._clients: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def drop(self) -> None:
        """End all connections, as a member that restarts does."""
        for client in self._clients:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._clients.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, client.makefile("rb") as stream:
            while head := self._head(stream):
                words = head.split(b"\r\n")[0].split()
                lengths = [
                    h for h in head.lower().split(b"\r\n") if h.startswith(b"content-length")
                ]
                length = int(lengths[0].split(b":")[1]) if lengths else 0
                body = json.loads(stream.read(length) or b"null")
                self.requests.append((words[1].decode(), body))
                self.heads.append(head)
                answer = self.script(words[1].decode(), body)
                if answer is None:
                    return
                status, value = answer
                text = json.dumps(value).encode() if not isinstance(value, bytes) else value
                # In two chunks, as Go sends what is long.
                half = len(text) // 2
                chunks = b"".join(
                    b"%x\r\n%b\r\n" % (len(part), part)
                    for part in (text[:half], text[half:])
                    if part
                )
                client.sendall(
                    b"HTTP/1.1 %d X\r\nTransfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n"
                    % (status, chunks)
                )

    @staticmethod
    def _head(stream: Any) -> bytes:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = stream.readline()
            if not line:
                return b""
            head += line
        return head

    def close(self) -> None:
        """Take no more connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def member() -> Iterator[Callable[[Script], Member]]:
    """Makes members that are ended with the test."""
    made: list[Member] = []

    def new(script: Script) -> Member:
        made.append(Member(script))
        return made[-1]

    yield new
    for one in made:
        one.close()


New = Callable[[Script], Member]


def good(path: str, body: Any) -> Answer:
    return 200, {"header": {"revision": "7"}, "said": body}


def error(text: str, code: int, status: int = 503) -> Answer:
    return status, {"error": text, "message": text, "code": code}


def wire(*members: Member, **options: Any) -> Wire:
    options = {"patience": 0.5, "timeout": 2.0, **options}
    return Wire(Server(tuple(one.address for one in members), **options), Traffic())


def test_one_connection_for_all_requests(member: New) -> None:
    etcd = member(good)
    asked = wire(etcd)
    for number in range(3):
        assert asked.call("/v3/kv/txn", {"n": number})["said"] == {"n": number}
    assert len(etcd.requests) == 3
    assert asked.traffic.round_trips == 3
    assert asked.traffic.sent > 300 and asked.traffic.received > 150
    assert asked.server.hints.revision == 7
    assert not asked.in_doubt


def test_nobody_waits_for_what_is_posted(member: New) -> None:
    """Its answer isn't taken for that of the next request, whether it has come by then or not."""
    slow = threading.Event()

    def answers(path: str, body: Any) -> Answer:
        if body == {"n": "slow"}:
            slow.wait(5)
        return good(path, body)

    etcd = member(answers)
    asked = wire(etcd)
    asked.post("/v3/kv/txn", {"n": 0})  # there is no connection: it is lost
    assert asked.call("/v3/kv/txn", {"n": 1})["said"] == {"n": 1}
    for name in ("quick", "slow"):
        asked.post("/v3/kv/txn", {"n": name})
        if name == "slow":
            threading.Timer(0.1, slow.set).start()
        else:
            assert wait_until(lambda: len(etcd.requests) == 2)
        assert asked.call("/v3/kv/txn", {"n": 2}, writes=True)["said"] == {"n": 2}
    assert len(etcd.requests) == 5 and asked.traffic.round_trips == 3
    assert not asked.in_doubt


def test_a_member_that_ends_after_what_was_posted_leaves_no_doubt(member: New) -> None:
    etcd = member(good)
    asked = wire(etcd)
    asked.call("/v3/kv/txn", {"n": 1})
    asked.post("/v3/kv/txn", {"n": 2})
    assert wait_until(lambda: len(etcd.requests) == 2)
    etcd.drop()
    assert asked.call("/v3/kv/txn", {"n": 3}, writes=True)["said"] == {"n": 3}
    assert not asked.in_doubt


def test_a_refusal_is_said_as_it_is(member: New) -> None:
    etcd = member(
        lambda path, body: error("etcdserver: too many operations in txn request", 3, 400)
    )
    with pytest.raises(Refused, match="too many operations"):
        wire(etcd).call("/v3/kv/txn", {}, writes=True)
    assert len(etcd.requests) == 1


@pytest.mark.parametrize(
    ("text", "doubt"),
    [
        ("etcdserver: no leader", False),
        ("etcdserver: too many requests", False),
        ("etcdserver: request timed out", True),
        ("etcdserver: request timed out, possibly due to previous leader failure", True),
        ("etcdserver: leader changed", True),
    ],
)
def test_troubles_pass(member: New, text: str, doubt: bool) -> None:
    answers = iter([error(text, 14)])
    etcd = member(lambda path, body: next(answers, None) or good(path, body))
    asked = wire(etcd)
    assert asked.call("/v3/kv/txn", {"n": 1}, writes=True)["said"] == {"n": 1}
    assert len(etcd.requests) == 2
    assert asked.in_doubt == doubt


def test_a_read_is_never_in_doubt(member: New) -> None:
    answers = iter([error("etcdserver: request timed out", 14)])
    asked = wire(member(lambda path, body: next(answers, None) or good(path, body)))
    asked.call("/v3/kv/txn", {})
    assert not asked.in_doubt


def test_the_next_member_is_asked(member: New) -> None:
    breaks_off, works = member(lambda path, body: None), member(good)
    asked = wire(breaks_off, works)
    assert asked.call("/v3/kv/txn", {"n": 1}, writes=True)["said"] == {"n": 1}
    assert asked.in_doubt  # it had the whole request
    assert asked.call("/v3/kv/txn", {"n": 2})["said"] == {"n": 2}
    assert len(breaks_off.requests) == 1 and len(works.requests) == 2


def test_a_member_that_is_away_leaves_no_doubt(member: New) -> None:
    gone, works = member(good), member(good)
    gone.close()
    asked = wire(gone, works)
    assert asked.call("/v3/kv/txn", {"n": 1}, writes=True)["said"] == {"n": 1}
    assert not asked.in_doubt


def test_a_member_that_hangs_is_left(member: New) -> None:
    over = threading.Event()

    def hang(path: str, body: Any) -> None:
        over.wait(20)

    hangs, works = member(hang), member(good)
    asked = wire(hangs, works, timeout=0.2)
    assert asked.call("/v3/kv/txn", {"n": 1})["said"] == {"n": 1}
    over.set()


def test_the_first_member_is_asked_again(member: New) -> None:
    working = False

    def first(path: str, body: Any) -> Answer | None:
        if path == "/health":
            return 200, {"health": "true" if working else "false"}
        return good(path, body) if working else None

    near, far = member(first), member(good)
    asked = wire(near, far)
    other = Wire(asked.server, Traffic())  # another connection of the process
    for one in (asked, other):
        one.call("/v3/kv/txn", {})
    assert len(near.requests) == 1 and len(far.requests) == 2
    asked.server.hints.away_for = 0.0
    asked.call("/v3/kv/txn", {})
    assert near.requests[-1][0] == "/health" and len(far.requests) == 3
    working = True
    asked.server.hints.away_for = 0.0
    for one in (asked, other):
        one.call("/v3/kv/txn", {"n": 3})
        assert near.requests[-1] == ("/v3/kv/txn", {"n": 3})
    assert len(far.requests) == 3


def test_a_connection_that_the_member_has_closed_leaves_no_doubt(member: New) -> None:
    etcd = member(good)
    asked = wire(etcd)
    asked.call("/v3/kv/txn", {}, writes=True)
    link = asked._link
    assert link is not None
    etcd.drop()
    assert wait_until(link.is_over)
    asked.call("/v3/kv/txn", {}, writes=True)
    assert not asked.in_doubt and asked._link is not link


def test_nobody_answers(member: New) -> None:
    gone = member(good)
    gone.close()
    asked = wire(gone, patience=0.1)
    with pytest.raises(OperationalError, match=r"no answer from etcd: .*waited 0\.1 s"):
        asked.call("/v3/kv/txn", {}, writes=True)
    assert not asked.in_doubt


def test_user_and_password(member: New) -> None:
    tokens = iter(["one", "two"])
    valid = "one"

    def script(path: str, body: Any) -> Answer:
        if path == "/v3/auth/authenticate":
            assert body == {"name": "nova", "password": "secret"}
            return 200, {"token": next(tokens)}
        if b"Authorization: %b" % valid.encode() not in etcd.heads[-1]:
            return error("etcdserver: invalid auth token", 16, 401)
        return good(path, body)

    etcd = member(script)
    asked = wire(etcd, username="nova", password="secret")
    asked.call("/v3/kv/txn", {})
    valid = "two"  # the member has forgotten the first
    assert asked.call("/v3/kv/txn", {"n": 1})["said"] == {"n": 1}
    assert "secret" not in repr(asked.server)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (error("etcdserver: authentication failed, invalid user ID or password", 3, 400),
         "refuses the user or password"),
        (error("etcdserver: authentication is not enabled", 9, 400), "leave user and password out"),
    ],
)  # fmt: skip
def test_a_password_that_is_refused(member: New, answer: Answer, said: str) -> None:
    etcd = member(lambda path, body: answer)
    with pytest.raises(OperationalError, match=said):
        wire(etcd, username="nova", password="secret").call("/v3/kv/txn", {})
    assert len(etcd.requests) == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (error("etcdserver: user name is empty", 3, 400), "wants a user and a password"),
        (error("etcdserver: permission denied", 7, 403), "refuses this to the user"),
        ((404, b"404 page not found"), "--enable-grpc-gateway=false"),
        ((400, b"Client sent an HTTP request to an HTTPS server."), "without TLS"),
    ],
)
def test_what_does_not_pass_is_said_at_once(member: New, answer: Answer, said: str) -> None:
    etcd = member(lambda path, body: answer)
    with pytest.raises(OperationalError, match=said):
        wire(etcd).call("/v3/kv/txn", {})
    assert len(etcd.requests) == 1
