"""A TCP proxy before Redis or etcd, which cuts or holds the connection at a point of a commit."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading

from rome.stores.etcd.commit import DONE
from rome.stores.redis.scripts import script

# One of these stands in every commit's request, and in no other: the script's name or its text.
_COMMIT = (
    *(script("commit", frees)[1].encode() for frees in (False, True)),
    b"-- One transaction: every check first",
)
# The outcome that a commit in etcd leaves, as its request has it.
IN_ETCD = (base64.b64encode(DONE),)
_WAIT_S = 60

BEFORE = "before the commit is sent"
HALF = "when half of the commit is sent"
AFTER = "before the answer arrives"
HALF_ANSWER = "when half of the answer has arrived"
POINTS = (BEFORE, HALF, AFTER, HALF_ANSWER)


class CuttingProxy:
    """Forwards to a port; `cut_at` and `hold_at` act on the next commit, `hold_request` on
    some request that is still to come, each once."""

    def __init__(
        self, port: int, marks: tuple[bytes, ...] = _COMMIT, scheme: str = "redis"
    ) -> None:
        """marks: of which one stands in each commit's request, and in no other."""
        self._target = port
        self._scheme = scheme
        self._commit_marks = marks
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.commits = 0
        self._point: str | None = None
        self._marks = marks
        self._requests_left = 0
        self._goes_on = False
        self._holds = False
        self._closed = False
        self._open: list[socket.socket] = []
        self.reached = threading.Event()
        self.release = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, database: str, options: str = "") -> str:
        """Of a database behind the proxy."""
        return f"rome+{self._scheme}://127.0.0.1:{self.port}/{database}{options}"

    def cut_at(self, point: str, marks: tuple[bytes, ...] = ()) -> None:
        """Break the connection of the next commit there, or of the next request with a mark."""
        self._point, self._holds, self._marks = point, False, marks or self._commit_marks
        self.reached.clear()

    def hold_at(self, point: str) -> None:
        """Like cut_at, but wait for `release` before the connection is broken."""
        self.reached.clear()
        self.release.clear()
        self._point, self._holds, self._marks = point, True, self._commit_marks

    def hold_request(self, number: int) -> None:
        """Like hold_at: before the server has this request, counted from 1."""
        self.reached.clear()
        self.release.clear()
        self._requests_left, self._holds, self._goes_on = number, True, False

    def pause_request(self, number: int) -> None:
        """Like hold_request, but the connection goes on after `release`."""
        self.hold_request(number)
        self._goes_on = True

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    client.close()
                    continue
                self._open += [client, server]
                for pump in (self._requests, self._answers):
                    threading.Thread(target=pump, args=(client, server), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError), client, server:
            while data := client.recv(1 << 20):
                if any(mark in data for mark in self._commit_marks):
                    self.commits += 1
                if self._point is not None and any(mark in data for mark in self._marks):
                    point, self._point = self._point, None
                    self._stop(point, data, client, server)
                    return
                if self._requests_left:
                    self._requests_left -= 1
                    if not self._requests_left and self._goes_on:
                        self.reached.set()
                        self.release.wait(_WAIT_S)
                    elif not self._requests_left:
                        self._stop(BEFORE, data, client, server)
                        return
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _stop(self, point: str, data: bytes, client: socket.socket, server: socket.socket) -> None:
        if point == HALF:
            server.sendall(data[: len(data) // 2])
        elif point in (AFTER, HALF_ANSWER):
            # A connection of its own, as the other thread reads this one's answers.
            with socket.create_connection(("127.0.0.1", self._target)) as own:
                own.sendall(data)
                answer = own.recv(1 << 20)
            if point == HALF_ANSWER:
                client.sendall(answer[: len(answer) // 2])
        self.reached.set()
        if self._holds:
            self.release.wait(_WAIT_S)
        for end in (client, server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _answers(client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 20):
                client.sendall(data)
            client.shutdown(socket.SHUT_WR)

    def refuse(self) -> None:
        """Take no more connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def close(self) -> None:
        """End it, with all its connections."""
        self.release.set()
        self.refuse()
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
