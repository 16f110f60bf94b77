"""Members of etcd clusters for tests, each on free ports with a folder of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import signal
import subprocess
import tempfile
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.servers import CannotStart, free_port, program, running, wait_until

_WAIT_S = 60
# An election takes half a second in place of one or two, as the members are near.
_FAST = {"heartbeat-interval": "50", "election-timeout": "500"}


class EtcdServer:
    """One member: `start`, `stop`, `kill` as often as one likes; it keeps its ports.

    `settings` are etcd's own: `EtcdServer(max_txn_ops="256")`.
    """

    def __init__(self, name: str = "member", **settings: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rome-test-etcd-"))
        self.name = name
        self.host = "127.0.0.1"
        self.port, self.peer_port = free_port(), free_port()
        self.members: Sequence[EtcdServer] = [self]
        self.settings = {key.replace("_", "-"): value for key, value in settings.items()}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running member."""
        if self._process is None:
            raise CannotStart("the member isn't running")
        return self._process.pid

    @property
    def peer_url(self) -> str:
        """Where the other members find it."""
        return f"http://{self.host}:{self.peer_port}"

    def launch(self) -> None:
        """Start it without waiting: a member of several serves when most of them run."""
        client = f"http://{self.host}:{self.port}"
        settings = {
            "name": self.name,
            "data-dir": str(self.folder / "data"),
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": self.peer_url,
            "initial-advertise-peer-urls": self.peer_url,
            "initial-cluster": ",".join(f"{one.name}={one.peer_url}" for one in self.members),
            "initial-cluster-state": "new",
            "logger": "zap",
            **_FAST,
            **self.settings,
        }
        command = [program("etcd"), *(f"--{name}={value}" for name, value in settings.items())]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def wait(self) -> None:
        """Wait until it has a leader and answers."""
        if not wait_until(lambda: self._process_ended() or self.serves()) or self._process_ended():
            raise CannotStart((self.folder / "log").read_text()[-1000:])

    def start(self) -> None:
        """Start it, and wait until it serves."""
        self.launch()
        self.wait()

    def _process_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def serves(self) -> bool:
        """Whether it has a leader and answers."""
        try:
            return bool(self._asked("GET", "/health").get("health") == "true")
        except (OSError, http.client.HTTPException, ValueError):
            return False

    def call(self, path: str, **body: Any) -> Any:
        """What it answers to a request of its own, beside ROME."""
        return self._asked("POST", path, body)

    def _asked(self, method: str, path: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=10)
        with contextlib.closing(connection):
            connection.request(method, path, json.dumps(body) if body is not None else None)
            answer: Any = json.loads(connection.getresponse().read())
        return answer

    def keys(self, database: str) -> dict[bytes, bytes]:
        """All keys of a database, without what they begin with, and their values."""
        start = f"rome:{database}:".encode()
        answer = self.call("/v3/kv/range", key=_text(start), range_end=_text(start[:-1] + b";"))
        return {
            b64decode(pair["key"])[len(start) :]: b64decode(pair.get("value", ""))
            for pair in answer.get("kvs", ())
        }

    def change(self, database: str, puts: Mapping[bytes, bytes], gone: Iterable[bytes]) -> None:
        """Put and remove keys of a database, some of them at a time."""
        start = f"rome:{database}:".encode()
        requests: list[dict[str, Any]] = [
            {"request_put": {"key": _text(start + key), "value": _text(value)}}
            for key, value in puts.items()
        ]
        requests += [{"request_delete_range": {"key": _text(start + key)}} for key in gone]
        for place in range(0, len(requests), 100):
            self.call("/v3/kv/txn", success=requests[place : place + 100])

    def leads(self) -> bool:
        """Whether it is the leader of its cluster."""
        status = self.call("/v3/maintenance/status")
        return bool(status.get("leader") == status["header"]["member_id"])

    def url(self, database: str = "test", **options: str | float) -> str:
        """Of a database in it."""
        query = f"?{urlencode(options)}" if options else ""
        return f"rome+etcd://{self.host}:{self.port}/{database}{query}"

    def stop(self) -> None:
        """End it; what it keeps on disk stays."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Let it hang for a while."""
        process = self._process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(_WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def remove(self) -> None:
        """End it and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class EtcdCluster:
    """Three members."""

    def __init__(self, **settings: str) -> None:
        self.members = [EtcdServer(f"member-{place}", **settings) for place in range(3)]
        for member in self.members:
            member.members = self.members

    def start(self) -> None:
        """Start all members and wait until they serve."""
        for member in self.members:
            member.launch()
        for member in self.members:
            member.wait()

    def leader(self) -> EtcdServer:
        """The member that leads the others."""
        found: list[EtcdServer] = []

        def look() -> bool:
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError, KeyError):
                found.extend(
                    member for member in self.members if member.serves() and member.leads()
                )
            return bool(found)

        if not wait_until(look):
            raise CannotStart("the cluster has no leader")
        return found[0]

    def url(self, database: str = "test", first: int = 0, **options: str | float) -> str:
        """Of a database in it, with all members; `first`: the one that is asked first."""
        members = [*self.members[first:], *self.members[:first]]
        hosts = ",".join(f"{member.host}:{member.port}" for member in members)
        query = f"?{urlencode(options)}" if options else ""
        return f"rome+etcd://[{hosts}]/{database}{query}"

    def remove(self) -> None:
        """End all members and remove their folders."""
        for member in self.members:
            member.remove()


def etcd_server(**settings: str) -> AbstractContextManager[EtcdServer]:
    """A running member that is a cluster by itself, removed at the end."""
    return running(EtcdServer(**settings))


def etcd_cluster(**settings: str) -> AbstractContextManager[EtcdCluster]:
    """A running cluster, removed at the end."""
    return running(EtcdCluster(**settings))


def _text(data: bytes) -> str:
    return b64encode(data).decode()
