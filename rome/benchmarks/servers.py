"""The databases' servers, started in a folder of their own and ended with the benchmark."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MARIADB_SETTINGS = "InnoDB as shipped: innodb_flush_log_at_trx_commit=1, doublewrite on"
REDIS_SETTINGS = "appendonly yes, appendfsync everysec"
ETCD_SETTINGS = "one member as shipped, which writes each commit to disk"
_WAIT_S = 60


@dataclass(frozen=True)
class Server:
    """One that runs."""

    port: int
    pid: int

    def cpu_ms(self) -> float:
        """CPU that its threads have taken so far."""
        threads = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(it.read_text().split()[0]) for it in threads) / 1e6


class CannotStart(Exception):
    """A server is missing or does not come up."""


@contextmanager
def mariadb(databases: tuple[str, ...] = ()) -> Iterator[Server]:
    """A MariaDB with empty `databases`."""
    with _folder("mariadb") as folder:
        data = folder / "data"
        made = subprocess.run(
            [
                _program("mariadb-install-db"),
                "--no-defaults",
                f"--datadir={data}",
                "--user=root",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ],
            capture_output=True,
            text=True,
        )
        if made.returncode:
            raise CannotStart(f"mariadb-install-db: {made.stderr.strip()[-300:]}")
        port = _free_port()
        command = [
            _program("mariadbd"),
            "--no-defaults",
            f"--datadir={data}",
            f"--port={port}",
            f"--socket={folder}/socket",
            "--bind-address=127.0.0.1",
            "--user=root",
            f"--pid-file={folder}/pid",
            "--skip-name-resolve",
            "--max-connections=500",
        ]
        with _running(command, port, folder) as server:
            statements = "".join(
                f"CREATE DATABASE {name} CHARACTER SET utf8mb3;" for name in databases
            )
            subprocess.run(
                [
                    _program("mariadb"),
                    "--no-defaults",
                    f"--socket={folder}/socket",
                    "-uroot",
                    "-e",
                    statements + "CREATE USER bench@'%'; GRANT ALL ON *.* TO bench@'%';",
                ],
                check=True,
                capture_output=True,
            )
            yield server


def ask_mariadb(port: int, sql: str) -> list[str]:
    """Its answer's lines."""
    done = subprocess.run(
        [
            _program("mariadb"),
            "--no-defaults",
            "--protocol=tcp",
            "--host=127.0.0.1",
            f"--port={port}",
            "-ubench",
            "--batch",
            "--skip-column-names",
            "-e",
            sql,
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.splitlines()


@contextmanager
def redis() -> Iterator[Server]:
    """An empty Redis."""
    with _folder("redis") as folder:
        port = _free_port()
        command = [
            _program("redis-server"),
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(folder),
            "--save",
            "",
            "--appendonly",
            "yes",
            "--appendfsync",
            "everysec",
        ]
        with _running(command, port, folder) as server:
            yield server


@contextmanager
def etcd() -> Iterator[Server]:
    """An empty etcd of one member."""
    with _folder("etcd") as folder:
        port = _free_port()
        client, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{_free_port()}"
        command = [
            _program("etcd"),
            f"--data-dir={folder}/data",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--auto-compaction-mode=periodic",
            "--auto-compaction-retention=5m",
        ]
        with _running(command, port, folder) as server:
            yield server


@contextmanager
def _folder(name: str) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=f"rome-bench-{name}-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _running(command: list[str], port: int, folder: Path) -> Iterator[Server]:
    log = folder / "log"
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        until = time.monotonic() + _WAIT_S
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > until:
                raise CannotStart(f"{command[0]}: {log.read_text().strip()[-500:]}")
            time.sleep(0.05)
        yield Server(port, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(_WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/bin")
    if found is None:
        raise CannotStart(
            f"{name} is not installed (Debian: mariadb-server, redis-server, etcd-server)"
        )
    return found


def version(name: str) -> str:
    """That a server's program tells."""
    words = subprocess.run([_program(name), "--version"], capture_output=True, text=True).stdout
    found = re.search(r"(?:Ver |v=|Version: )([\d.]+)", words)
    return found.group(1) if found else "?"
