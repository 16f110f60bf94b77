"""A connection: TLS, several servers, a buffer that is full, and strangers on the other end."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hermes.connection import Address, Connection, Settings
from hermes.errors import Closed, Full
from hermes.protocol import Message

from tests.clients import SETTINGS, wait_until
from tests.servers import NatsServer, nats_server


def address(server: NatsServer) -> Address:
    return Address("127.0.0.1", server.port)


def echoes(connection: Connection) -> list[bytes]:
    """Subscribe to a subject; what comes is in the list."""
    found: list[bytes] = []
    connection.subscribe("echo", lambda message: found.append(message.payload))
    return found


def test_another_server_is_taken_where_one_is_gone(server: NatsServer) -> None:
    with nats_server() as other:
        made = Connection([address(server), address(other)], SETTINGS)
        found = echoes(made)
        for number, gone in enumerate((server, other, server)):
            assert made.wait_until_up(30)
            made.publish("echo", str(number).encode())
            assert wait_until(lambda number=number: len(found) > number)  # type: ignore[misc]
            gone.kill()
            (other if gone is server else server).restart()
        made.close()


def test_what_is_published_without_a_connection_goes_out_later(server: NatsServer) -> None:
    server.kill()
    made = Connection([address(server)], SETTINGS)
    found = echoes(made)
    made.publish("echo", b"later")
    server.start()
    assert wait_until(lambda: found == [b"later"])
    made.close()
    with pytest.raises(Closed):
        made.publish("echo", b"")


def test_a_buffer_that_is_full_is_waited_for_and_no_longer_than_said(server: NatsServer) -> None:
    server.kill()
    made = Connection([address(server)], Settings(most_waiting=1000, retry_most_s=0.1))
    made.publish("echo", b"x" * 900)
    with pytest.raises(Full, match="bytes wait to be sent"):
        made.publish("echo", b"x" * 200)
    started = time.monotonic()
    with pytest.raises(Full):
        made.publish("echo", b"x" * 200, deadline=started + 0.2)
    assert time.monotonic() - started >= 0.2
    done = threading.Event()

    def publish() -> None:
        made.publish("echo", b"x" * 200, deadline=time.monotonic() + 60)
        done.set()

    thread = threading.Thread(target=publish)
    thread.start()
    server.start()
    assert done.wait(60), "there is room once it is connected"
    thread.join()
    made.close()


def test_a_message_that_is_too_large_is_refused(server: NatsServer) -> None:
    made = Connection([address(server)], SETTINGS)
    assert made.wait_until_up(30)
    with pytest.raises(ValueError, match="more than the 1048576"):
        made.publish("echo", b"x" * (2**20 + 1))
    found = echoes(made)
    made.publish("echo", b"x" * 2**20)
    assert wait_until(lambda: [len(each) for each in found] == [2**20])
    made.close()


def test_a_server_that_is_silent_is_given_up(server: NatsServer) -> None:
    states: list[bool] = []
    made = Connection([address(server)], Settings(ping_every_s=0.1), states.append)
    assert made.wait_until_up(30)
    with server.frozen():
        assert wait_until(lambda: not made.is_up)
    assert wait_until(lambda: states == [True, False, True])
    made.close()


def test_a_callback_that_fails_hurts_nobody(server: NatsServer) -> None:
    made = Connection([address(server)], SETTINGS)

    def fail(_message: Message) -> None:
        raise LookupError

    made.subscribe("echo", fail)
    found = echoes(made)
    made.publish("echo", b"1")
    made.publish("echo", b"2")
    assert wait_until(lambda: found == [b"1", b"2"])
    made.close()


@pytest.mark.parametrize(
    "said",
    [b"", b"HTTP/1.1 400\r\n\r\n", b"INFO {}\r\n", b"\x00" * 5000, b'INFO {"headers":true}\r\n',
     b'INFO {"headers":true,"tls_required":true}\r\n'],
    ids=lambda said: str(said[:24]),
)  # fmt: skip
def test_a_stranger_on_the_other_end_is_no_connection(said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            while True:
                try:
                    connected, _ = listening.accept()
                except OSError:
                    return
                with connected:
                    connected.sendall(said)
                    time.sleep(0.05)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        port = listening.getsockname()[1]
        made = Connection([Address("127.0.0.1", port)], Settings(connect_within_s=0.2))
        assert not made.wait_until_up(0.6)
        assert made.last_error.startswith("127.0.0.1:")
        made.close(0.1)
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(10)


# ---------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1, signed by itself, and its key beside it."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=nats", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder / "certificate.pem"


@pytest.fixture
def guarded(certificate: Path) -> Iterator[NatsServer]:
    key = certificate.with_name("key.pem")
    with nats_server(f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}') as own:
        yield own


def test_tls_is_spoken_where_it_is_asked_for(guarded: NatsServer, certificate: Path) -> None:
    context = ssl.create_default_context(cafile=str(certificate))
    made = Connection([address(guarded)], Settings(tls=context, ping_every_s=0.5))
    found = echoes(made)
    for size in (1, 500_000, 10):
        made.publish("echo", b"x" * size)
    assert wait_until(lambda: [len(each) for each in found] == [1, 500_000, 10])
    guarded.restart()
    made.publish("echo", b"again")
    assert wait_until(lambda: found[-1] == b"again")
    made.close()


def test_a_certificate_of_somebody_else_is_refused(guarded: NatsServer) -> None:
    made = Connection([address(guarded)], Settings(tls=ssl.create_default_context()))
    assert not made.wait_until_up(0.5)
    assert "certificate verify failed" in made.last_error
    made.close(0.1)


def test_without_tls_a_server_that_wants_it_says_so(guarded: NatsServer) -> None:
    made = Connection([address(guarded)], SETTINGS)
    assert not made.wait_until_up(0.5)
    assert "speaks TLS alone; write nats+tls://" in made.last_error
    made.close(0.1)
