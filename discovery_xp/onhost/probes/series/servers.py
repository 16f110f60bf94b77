"""What MariaDB, Redis and RabbitMQ count of themselves, asked over connections that stay.

MariaDB and RabbitMQ are asked through their own clients, each started once: a client for each
sample would cost more than all else, a second of CPU time for RabbitMQ's.  Each `readings` gives
what is known now, and raises OSError or ValueError where the server doesn't answer; the next
one tries anew.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import select
import subprocess
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ...redis_client import Connection, RedisError
from ...wire.series import ALL_QUEUES

Reading = tuple[str, str, float]

ANSWER_WITHIN_S = 5.0


# ---------------------------------------------------------------- clients of others


class Client:
    """A program that answers on its stdout, and is started again once it has ended."""

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.process: subprocess.Popen[bytes] | None = None
        self.rest = b""

    def started(self) -> subprocess.Popen[bytes]:
        """Return the program as it runs."""
        if self.process is None or self.process.poll() is not None:
            self.stop()
            self.rest = b""
            self.process = subprocess.Popen(
                self.words, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
        return self.process

    def say(self, text: str) -> None:
        """Write to it."""
        process = self.started()
        assert process.stdin is not None
        process.stdin.write(text.encode())
        process.stdin.flush()

    def lines(self, within_s: float) -> Iterator[str]:
        """Yield the lines that come within some seconds; those that are there where it is 0."""
        process = self.started()
        assert process.stdout is not None
        descriptor = process.stdout.fileno()
        deadline = time.monotonic() + within_s
        while True:
            line, found, self.rest = self.rest.partition(b"\n")
            if found:
                yield line.decode(errors="replace")
                continue
            self.rest = line
            left_s = max(0.0, deadline - time.monotonic())
            if not select.select([descriptor], [], [], left_s)[0]:
                return
            data = os.read(descriptor, 65536)
            if not data:
                raise OSError(f"{self.words[0]} has ended")
            self.rest += data

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):  # what it didn't read is lost
                        pipe.close()
            self.process = None


# ---------------------------------------------------------------- MariaDB

# By variable of SHOW GLOBAL STATUS: the metric, and what its value is multiplied by.
_VARIABLES: Mapping[str, tuple[str, float]] = {
    "questions": ("db_questions", 1),
    "com_commit": ("db_commits", 1),
    "com_rollback": ("db_rollbacks", 1),
    "innodb_row_lock_waits": ("db_row_lock_waits", 1),
    "innodb_row_lock_time": ("db_row_lock_wait_s", 1e-3),
    "innodb_deadlocks": ("db_deadlocks", 1),
    "threads_connected": ("db_connections", 1),
    "threads_running": ("db_threads_running", 1),
    # Galera's own; a server that replicates nothing has them as zeros or not at all.
    "wsrep_local_cert_failures": ("db_certification_failures", 1),
    "wsrep_local_bf_aborts": ("db_brute_force_aborts", 1),
    "wsrep_flow_control_paused_ns": ("db_flow_control_paused_s", 1e-9),
}
_END = "end of status"
ASK_MARIADB = (
    # A node of Galera would wait for all others first.
    "SET SESSION wsrep_sync_wait = 0; SHOW GLOBAL STATUS WHERE Variable_name IN ("
    + ", ".join(f"'{name}'" for name in _VARIABLES)
    + f", 'wsrep_cluster_size'); SELECT '{_END}';\n"
)


def parse_status(lines: list[str]) -> dict[str, float]:
    """Return the values of SHOW GLOBAL STATUS by metric; Galera's only where it runs."""
    values: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition("\t")
        values[name.lower()] = value
    has_galera = values.get("wsrep_cluster_size", "0") not in ("", "0")
    found = {}
    for name, (metric, factor) in _VARIABLES.items():
        if name in values and (has_galera or not name.startswith("wsrep_")):
            found[metric] = float(values[name]) * factor
    return found


class MariaDB:
    """The server of this host, by its socket, as root."""

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self.client = Client(["mariadb", "--batch", "--skip-column-names", "--unbuffered"])

    def readings(self) -> Iterator[Reading]:
        """Yield what is read now: subject, metric, value."""
        self.client.say(ASK_MARIADB)
        lines: list[str] = []
        for line in self.client.lines(ANSWER_WITHIN_S):
            if line == _END:
                break
            lines.append(line)
        else:
            self.stop()  # a late answer must not be taken for the next one's
            raise OSError("MariaDB doesn't answer")
        for metric, value in parse_status(lines).items():
            yield self.unit, metric, value

    def stop(self) -> None:
        """End the client."""
        self.client.stop()


# ---------------------------------------------------------------- Redis

_INFO: Mapping[str, str] = {
    "total_commands_processed": "redis_commands",
    "connected_clients": "redis_connections",
    "used_memory": "redis_memory_bytes",
    "keyspace_hits": "redis_hits",
    "keyspace_misses": "redis_misses",
}


def parse_info(text: str) -> dict[str, float]:
    """Return what Redis' INFO says by metric; keys are those of all its databases."""
    found, keys = {}, 0
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name in _INFO:
            found[_INFO[name]] = float(value)
        elif re.fullmatch(r"db\d+", name) and (match := re.match(r"keys=(\d+)", value)):
            keys += int(match[1])
    if found:
        found["redis_keys"] = float(keys)
    return found


class Redis:
    """A Redis process of this host; port and password are in its configuration."""

    def __init__(self, unit: str, configuration: str) -> None:
        self.unit = unit
        self.configuration = configuration
        self.connection: Any = None

    def readings(self) -> Iterator[Reading]:
        """Yield what is read now: subject, metric, value."""
        try:
            if self.connection is None:
                with open(self.configuration, encoding="utf-8") as file:
                    port, password = login(file.read())
                self.connection = Connection("127.0.0.1", port, password)
            info = str(self.connection.ask("INFO"))
        except (OSError, RedisError, ValueError) as error:
            self.stop()
            raise OSError(f"{self.unit}: {error}") from None
        for metric, value in parse_info(info).items():
            yield self.unit, metric, value

    def stop(self) -> None:
        """End the connection."""
        if self.connection is not None:
            self.connection.file.close()
            self.connection.socket.close()
            self.connection = None


def login(configuration: str) -> tuple[int, str]:
    """Return port and administrator's password of a Redis process; raises ValueError without."""
    port = re.search(r"^\s*port (\d+)", configuration, re.MULTILINE)
    password = re.search(r'^\s*masterauth "?([^"\s]+)"?', configuration, re.MULTILINE)
    if port is None or password is None:
        raise ValueError("its configuration has no port and password")
    return int(port[1]), password[1]


# ---------------------------------------------------------------- RabbitMQ

# Runs in the broker, called by the client that is left open: it prints all queues each so many
# milliseconds, to that client, and ends when this is gone, or after so many times.
ASK_RABBITMQ = """
Print = fun(Format, Values) ->
  case io:format(Format, Values) of ok -> ok; _ -> exit(normal) end end,
Look = fun(_, 0) -> ok; (Look, Left) ->
  [catch begin
     {resource, _, queue, Name} = amqqueue:get_name(Q),
     [{messages_ready, Ready}, {messages_unacknowledged, Unacked}] =
       rabbit_amqqueue:info(Q, [messages_ready, messages_unacknowledged]),
     Print("q ~s ~b ~b~n", [base64:encode(Name), Ready, Unacked])
   end || Q <- rabbit_amqqueue:list()],
  Print("end~n", []),
  timer:sleep(MILLISECONDS),
  Look(Look, Left - 1) end,
Look(Look, TIMES).
"""


def parse_queues(lines: list[str]) -> dict[str, tuple[int, int]]:
    """Return messages ready and unacknowledged by queue; raises ValueError for other lines."""
    queues: dict[str, tuple[int, int]] = {}
    for line in lines:
        match = re.fullmatch(r"q (\S*) (\d+) (\d+)", line.strip())
        if match is None:
            raise ValueError(f"{line[:60]!r} is no queue")
        name = base64.b64decode(match[1]).decode(errors="replace")
        queues[name] = (int(match[2]), int(match[3]))
    return queues


class RabbitMQ:
    """The broker of this host.  A queue that was empty and is so still isn't told again.

    All queues are once, and their sum always.
    """

    def __init__(self, every_s: float, longest_s: float) -> None:
        times = int(longest_s / every_s) + 2
        ask = ASK_RABBITMQ.replace("MILLISECONDS", str(round(every_s * 1000)))
        self.client = Client(["rabbitmqctl", "--quiet", "eval", ask.replace("TIMES", str(times))])
        self.lines: list[str] = []
        self.told: dict[str, tuple[int, int]] = {}

    def readings(self) -> Iterator[Reading]:
        """Yield what it printed since the last time: subject, metric, value."""
        newest: list[str] | None = None
        for line in self.client.lines(0):
            if line == "end":
                newest, self.lines = self.lines, []
            else:
                self.lines.append(line)
        if newest is None:
            return
        queues = parse_queues(newest)
        for name, counts in queues.items():
            if self.told.get(name) == (0, 0) == counts:
                continue
            yield name, "queue_ready", float(counts[0])
            yield name, "queue_unacknowledged", float(counts[1])
        for name, counts in self.told.items():
            if name not in queues and counts != (0, 0):
                yield name, "queue_ready", 0.0
                yield name, "queue_unacknowledged", 0.0
        self.told = queues
        yield ALL_QUEUES, "queue_ready", float(sum(ready for ready, _ in queues.values()))
        yield ALL_QUEUES, "queue_unacknowledged", float(sum(count for _, count in queues.values()))

    def stop(self) -> None:
        """End the client, and with it what runs in the broker."""
        self.client.stop()
