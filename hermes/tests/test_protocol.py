"""NATS's protocol as bytes, in pieces of any size, and what no server says."""

from __future__ import annotations

import random

import pytest
from hermes import protocol
from hermes.errors import ProtocolError
from hermes.protocol import Error, Info, Message, Parser, Ping, Pong

SAID = (
    b'INFO {"version":"2.9.10","headers":true}\r\n'
    b"+OK\r\n"
    b"PING\r\n"
    b"MSG oslo.topic.a.b 7 5\r\nhello\r\n"
    b"MSG oslo.topic.a.b 7 _INBOX.x.1 0\r\n\r\n"
    b"HMSG _INBOX.x.1 3 16 16\r\nNATS/1.0 503\r\n\r\n\r\n"
    b"HMSG a 4 r 22 24\r\nNATS/1.0\r\nKey: one\r\n\r\nab\r\n"
    b"PONG\r\n"
    b"-ERR 'Authorization Violation'\r\n"
)
MEANT = [
    Info({"version": "2.9.10", "headers": True}),
    Ping(),
    Message("oslo.topic.a.b", 7, "", b"hello"),
    Message("oslo.topic.a.b", 7, "_INBOX.x.1", b""),
    Message("_INBOX.x.1", 3, "", b"", 503),
    Message("a", 4, "r", b"ab"),
    Pong(),
    Error("Authorization Violation"),
]


@pytest.mark.parametrize("seed", range(40))
def test_what_a_server_says_is_understood_in_pieces_of_any_size(seed: int) -> None:
    rng, parser, at = random.Random(seed), Parser(), 0
    found: list[protocol.Event] = []
    while at < len(SAID):
        size = rng.choice([1, 2, 5, 40, 400])
        found += parser.feed(SAID[at : at + size])
        at += size
    assert found == MEANT


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"INFO {\r\n",
        b"INFO [1]\r\n",
        b"MSG a 1\r\n",
        b"MSG a b 1\r\n",
        b"MSG a 1 r s 1\r\n",
        b"MSG a 1 -1\r\n",
        b"MSG a 1 999999999999\r\n",
        b"HMSG a 1 9 4\r\n",
        b"HMSG a 1 4 4\r\nabcd\r\n",
        b"MSG \xff 1 1\r\n",
        b"INFO " + b"[" * 100_000 + b"\r\n",
        b"x" * (protocol.MOST_LINE + 1),
    ],
)
def test_what_no_server_says_is_an_error(said: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(Parser().feed(said))


def test_what_a_client_says() -> None:
    assert protocol.publish("a.b", b"xy") == b"PUB a.b 2\r\nxy\r\n"
    assert protocol.publish("a.b", b"", "r") == b"PUB a.b r 0\r\n\r\n"
    assert protocol.publish("a", b"xy", "r", "7") == (
        b"HPUB a r 28 30\r\nNATS/1.0\r\nNats-Msg-Id: 7\r\n\r\nxy\r\n"
    )
    assert protocol.subscribe("a.*", 3) == b"SUB a.* 3\r\n"
    assert protocol.subscribe("a.*", 3, "w") == b"SUB a.* w 3\r\n"
    assert protocol.unsubscribe(3) == b"UNSUB 3\r\n"
