"""Whether the Galera node of this host takes clients: HTTP for HAProxy; run by a unit of its own.

    GET /         200 where the node is Synced, in a cluster that has a quorum
    GET /donor    200 where it is that, or the donor of a copy

All else is 503.  The body is what the node says of itself, as JSON.  MariaDB is asked once a
second, over one connection, however many proxies there are.

Usage: galera_check.py PORT ADDRESS...
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

POLL_S = 1.0
ANSWER_WITHIN_S = 10.0
# What was heard so long ago is no answer any more: a busy host is late, a node that is gone is not.
VALID_S = 15.0

VARIABLES = (
    "wsrep_cluster_status", "wsrep_local_state_comment", "wsrep_cluster_size", "wsrep_ready",
)  # fmt: skip
# Statements without a table are refused by a node without a quorum, SHOW and SET aren't.
QUESTION = (
    "SET SESSION wsrep_sync_wait = 0; SHOW GLOBAL STATUS WHERE Variable_name IN ("
    + ", ".join(f"'{name}'" for name in VARIABLES)
    + ");\n"
)
CLIENT = (
    "mariadb", "--socket=/run/mysqld/mysqld.sock", "--batch", "--skip-column-names", "--unbuffered",
)  # fmt: skip

SYNCED, DONOR = "Synced", "Donor/Desynced"


def takes_clients(values: Mapping[str, str], with_donors: bool = False) -> bool:
    """Tell whether a node takes clients: none does that joins, or that is of a minority."""
    states = (SYNCED, DONOR) if with_donors else (SYNCED,)
    return (
        values.get("wsrep_cluster_status") == "Primary"
        and values.get("wsrep_ready") == "ON"
        and values.get("wsrep_local_state_comment") in states
    )


def described(values: Mapping[str, str]) -> str:
    """Return what a node says of itself, as one line of JSON."""
    size = values.get("wsrep_cluster_size", "0")
    return json.dumps(
        {
            "status": values.get("wsrep_cluster_status", "unknown"),
            "state": values.get("wsrep_local_state_comment", "unknown"),
            "size": int(size) if size.isdigit() else 0,
            "ready": values.get("wsrep_ready") == "ON",
        }
    )


class Client:
    """MariaDB's client, kept running; raises OSError where it or the server has ended."""

    def __init__(self, words: Sequence[str] = CLIENT) -> None:
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def ask(self) -> dict[str, str]:
        """Return the values of VARIABLES."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(QUESTION.encode())
        self.process.stdin.flush()
        deadline, data = time.monotonic() + ANSWER_WITHIN_S, b""
        while data.count(b"\n") < len(VARIABLES):
            left_s = max(0.0, deadline - time.monotonic())
            if not select.select([self.process.stdout], [], [], left_s)[0]:
                raise OSError("no answer")
            more = os.read(self.process.stdout.fileno(), 65536)
            if not more:
                raise OSError("the client has ended")
            data += more
        pairs = (line.split("\t", 1) for line in data.decode(errors="replace").splitlines())
        return {pair[0].lower(): pair[1] for pair in pairs if len(pair) == 2}

    def close(self) -> None:
        """End the client."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


class Watch:
    """What the node said last, asked for again and again by `follow`."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}
        self._heard = 0.0

    def values(self) -> dict[str, str]:
        """Return the node's variables; none where it doesn't answer."""
        return self._values if time.monotonic() - self._heard < VALID_S else {}

    def hear(self, values: dict[str, str]) -> None:
        """Note what the node says now."""
        self._values, self._heard = values, time.monotonic()

    def follow(self) -> None:
        """Ask for ever."""
        client: Client | None = None
        while True:
            try:
                client = client or Client()
                self.hear(client.ask())
            except OSError:
                self.hear({})
                if client is not None:
                    client.close()
                client = None
            time.sleep(POLL_S)


def handler(watch: Watch) -> type[BaseHTTPRequestHandler]:
    """Return what answers a request."""

    class Handler(BaseHTTPRequestHandler):
        timeout = ANSWER_WITHIN_S

        def do_GET(self) -> None:
            values = watch.values()
            body = f"{described(values)}\n".encode()
            self.send_response(200 if takes_clients(values, self.path == "/donor") else 503)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Say nothing: there are several checks a second."""

    return Handler


class Server(ThreadingHTTPServer):
    """One that starts at once after another."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a proxy that hung up."""


def main(port: str, *addresses: str) -> None:
    """Answer at `port` of these addresses for ever."""
    watch = Watch()
    servers = [Server((address, int(port)), handler(watch)) for address in addresses]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    watch.follow()


if __name__ == "__main__":
    main(*sys.argv[1:])
