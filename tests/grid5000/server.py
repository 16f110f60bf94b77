"""The REST API over HTTP on this machine: it listens, checks passwords, and asks the router."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from .api import TEXT, Response
from .emulator import Emulator


class Server:
    """Serves an emulator; a context manager, and it can go away and come back meanwhile.

    Calls without credentials are those of `anonymous`: a user's name, as on a frontend, where
    the platform knows who calls; None for somebody unknown, who may only look.  With
    `ask_password`, as from outside, they are answered with 401.
    """

    def __init__(
        self,
        emulator: Emulator,
        port: int = 0,
        anonymous: str | None = None,
        ask_password: bool = False,
    ) -> None:
        self.emulator = emulator
        self.anonymous = anonymous
        self.ask_password = ask_password
        self.calls: list[tuple[str, str]] = []
        self._port = port
        self._http: _Http | None = None
        self._stopped = threading.Event()

    @property
    def port(self) -> int:
        return self._port

    @property
    def uri(self) -> str:
        """The base URI, as the clients want it."""
        return f"http://127.0.0.1:{self._port}/stable"

    def start(self) -> None:
        """Listen; the same port again when it is not the first time."""
        self._http = _Http(self, self._port)
        self._port = self._http.server_address[1]
        # It looks for its end ten times a second.
        serve = threading.Thread(target=self._http.serve_forever, args=(0.1,), daemon=True)
        serve.start()
        self._stopped = threading.Event()
        threading.Thread(target=self._tick, args=(self._stopped,), daemon=True).start()

    def _tick(self, stopped: threading.Event) -> None:
        """Jobs end, and their nodes are released, even when nobody calls."""
        while not stopped.wait(0.5):
            with self.emulator.lock:
                self.emulator.advance()

    def stop(self) -> None:
        self._stopped.set()
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None

    @contextlib.contextmanager
    def down(self) -> Iterator[None]:
        """Connections are refused meanwhile."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def user_of(self, authorization: str | None) -> str | None:
        """Raises PermissionError for credentials that nobody has, or for none if some must be."""
        if authorization is None:
            if self.ask_password:
                raise PermissionError
            return self.anonymous
        kind, _, encoded = authorization.partition(" ")
        try:
            name, _, password = base64.b64decode(encoded).decode().partition(":")
        except ValueError:
            raise PermissionError from None
        user = self.emulator.platform.users.get(name)
        if kind.lower() != "basic" or user is None or user.password != password:
            raise PermissionError
        return name


def pool() -> ThreadPoolExecutor:
    """For an emulator whose machines take their time: calls don't wait for them."""
    return ThreadPoolExecutor(max_workers=16, thread_name_prefix="machines")


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, owner: Server, port: int) -> None:
        self.owner = owner
        super().__init__(("127.0.0.1", port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Http

    def _handle(self) -> None:
        owner = self.server.owner
        url = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(url.path)
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        with owner.emulator.lock:
            owner.calls.append((self.command, self.path))
            delay_s, fault = owner.emulator.faults.on_call(self.command, path)
        time.sleep(delay_s)
        if fault is not None and fault.status is not None and not fault.is_late:
            self._reply(Response(fault.status, fault.text.encode()))
            return
        try:
            user = owner.user_of(self.headers.get("Authorization"))
            body = self._body(raw)
        except PermissionError:
            self._reply(
                Response(
                    401,
                    b"Authorization Required",
                    headers={"WWW-Authenticate": 'Basic realm="Grid\'5000 API"'},
                )
            )
            return
        except ValueError:
            self._reply(Response(400, b"Bad Request"))
            return
        query = dict(urllib.parse.parse_qsl(url.query))
        try:
            reply = owner.emulator.api.respond(self.command, path, query, body, user)
        except Exception as error:  # whatever it is, the client gets an answer
            reply = Response(500, f"{type(error).__name__}: {error}".encode())
        if fault is not None and fault.status is not None:
            reply = Response(fault.status, fault.text.encode())
        self._reply(reply)

    def _body(self, raw: bytes) -> Any:
        if not raw:
            return None
        if "x-www-form-urlencoded" in self.headers.get("Content-Type", ""):
            return dict(urllib.parse.parse_qsl(raw.decode()))
        return json.loads(raw)

    def _reply(self, response: Response) -> None:
        # The client may have gone meanwhile.
        with contextlib.suppress(ConnectionError):
            self.send_response(response.status)
            self.send_header("Content-Type", response.content_type or TEXT)
            self.send_header("Content-Length", str(len(response.body)))
            for name, value in response.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(response.body)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _handle  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Prints nothing."""
