"""What clients get through when the master of a Redis Cluster is killed or frozen.

Processes insert numbered rows, one in a transaction, into a cluster of three masters with a
replica each (with `wait` two), and note what they hear of each commit.  A fault hits the
master; some seconds later the rows are compared with what was heard.

    python -m benchmarks.failover [--clients 4] [--node-timeout 1,5] [--wait 0,1] [--save]

Lost: acknowledged, and not there.  Doubled: there twice.  Undead: refused, and there.  Unknown:
the outcome was not known, as the error said.  Replaced: seconds from the fault until a replica
is the master.  Standstill: the longest time that a client was without an acknowledged commit.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from rome.driver import OutcomeUnknown
from tests.servers import RedisCluster, RedisServer, redis_cluster

_RESULT = Path(__file__).parent / "results" / "failover.md"
_BEFORE_S = 3.0
_PAUSE_S = 0.005
LOG = sa.Table(
    "log",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("client", sa.Integer),
    sa.Column("number", sa.Integer),
)


@dataclass
class Outcome:
    """Of one fault."""

    fault: str
    node_timeout_s: float
    wait: int
    commits: int
    replaced_s: float | None
    standstill_s: float
    lost: int
    doubled: int
    undead: int
    unknown: int
    refused: int


def _client(url: str, client: int, start: Any, stop: Any, answers: Any) -> None:
    engine = sa.create_engine(url)
    heard: list[tuple[int, str, float]] = []
    number = 0
    engine.connect().close()
    start.wait()
    while not stop.is_set():
        number += 1
        try:
            with engine.begin() as connection:
                connection.execute(sa.insert(LOG), {"client": client, "number": number})
            word = "done"
        except sa.exc.DBAPIError as error:
            word = "unknown" if isinstance(error.orig, OutcomeUnknown) else "refused"
        heard.append((number, word, time.monotonic()))
        time.sleep(_PAUSE_S)
    answers.send(heard)


def _replaced(
    cluster: RedisCluster, owner: RedisServer, since: float, limit: float
) -> float | None:
    """Seconds until the others say that another is the master; None: they don't in time."""
    others = [node for node in cluster.nodes if node is not owner]
    while time.monotonic() < since + limit:
        if cluster.owner("log", others) is not owner:
            return time.monotonic() - since
        time.sleep(0.02)
    return None


def run(node_timeout_s: float, wait: int, freeze_s: float | None, clients: int) -> Outcome:
    """Hit the master of a new cluster: kill it, or freeze it for some seconds."""
    # One replica more than is waited for: the one that takes over needs others.
    with redis_cluster(replicas=1 + wait, node_timeout_ms=int(node_timeout_s * 1000)) as cluster:
        return _run(cluster, node_timeout_s, wait, freeze_s, clients)


def _run(
    cluster: RedisCluster, node_timeout_s: float, wait: int, freeze_s: float | None, clients: int
) -> Outcome:
    url = cluster.url("log", wait=wait, patience=60)
    LOG.metadata.create_all(sa.create_engine(url))
    context = multiprocessing.get_context("spawn")
    start, stop = context.Barrier(clients + 1), context.Event()
    pipes = [context.Pipe(duplex=False) for _ in range(clients)]
    processes = [
        context.Process(target=_client, args=(url, client, start, stop, sender))
        for client, (_, sender) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    start.wait()
    time.sleep(_BEFORE_S)
    owner = cluster.owner("log")
    since = time.monotonic()
    if freeze_s is None:
        owner.kill()
        replaced = _replaced(cluster, owner, since, 60)
    else:
        os.kill(owner.pid, signal.SIGSTOP)
        replaced = _replaced(cluster, owner, since, freeze_s)
        time.sleep(max(0.0, since + freeze_s - time.monotonic()))
        os.kill(owner.pid, signal.SIGCONT)
    time.sleep(2 * node_timeout_s + 5)
    stop.set()
    heard = [receiver.recv() for receiver, _ in pipes]
    for process in processes:
        process.join()
    engine = sa.create_engine(cluster.url("log", patience=60))
    with engine.connect() as connection:
        there = Counter((client, number) for client, number in connection.execute(
            sa.select(LOG.c.client, LOG.c.number)))  # fmt: skip
    engine.dispose()
    return _compare(there, heard, Outcome(
        fault="killed" if freeze_s is None else f"frozen for {freeze_s:g} s",
        node_timeout_s=node_timeout_s, wait=wait, commits=0, replaced_s=replaced, standstill_s=0.0,
        lost=0, doubled=0, undead=0, unknown=0, refused=0,
    ))  # fmt: skip


def _compare(
    there: Counter[tuple[int, int]], heard: Sequence[list[tuple[int, str, float]]], outcome: Outcome
) -> Outcome:
    for client, events in enumerate(heard):
        acknowledged = [at for _, word, at in events if word == "done"]
        gaps = [b - a for a, b in itertools.pairwise(acknowledged)]
        outcome.standstill_s = max([outcome.standstill_s, *gaps])
        for number, word, _ in events:
            count = there[client, number]
            outcome.commits += word == "done"
            outcome.unknown += word == "unknown"
            outcome.refused += word == "refused"
            outcome.lost += word == "done" and count == 0
            outcome.doubled += count > 1
            outcome.undead += word == "refused" and count > 0
    return outcome


def table(outcomes: Sequence[Outcome]) -> str:
    """The outcomes in Markdown."""
    lines = [
        "| fault | node timeout, s | wait | commits | replaced, s | standstill, s"
        " | lost | doubled | undead | unknown | refused |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {o.fault} | {o.node_timeout_s:g} | {o.wait} | {o.commits}"
        f" | {_seconds(o.replaced_s)} | {o.standstill_s:.1f}"
        f" | {o.lost} | {o.doubled} | {o.undead} | {o.unknown} | {o.refused} |"
        for o in outcomes
    ]
    return "\n".join(lines)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def main() -> None:
    """Run each fault with each node timeout and each `wait`; print the table."""
    parser = argparse.ArgumentParser(description="Failovers of a Redis Cluster under load.")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--node-timeout", type=_numbers, default=[1.0, 5.0], metavar="S,S")
    parser.add_argument("--wait", type=_numbers, default=[0.0, 1.0], metavar="N,N")
    parser.add_argument("--freeze", type=_numbers, default=[10.0, 60.0], metavar="S,S")
    parser.add_argument("--no-kill", action="store_true")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--save", action="store_true", help=f"write {_RESULT.name}")
    options = parser.parse_args()
    faults: list[float | None] = [*([] if options.no_kill else [None]), *options.freeze]
    outcomes = []
    for _ in range(options.rounds):
        for node_timeout in options.node_timeout:
            for wait in options.wait:
                for freeze in faults:
                    outcome = run(node_timeout, int(wait), freeze, options.clients)
                    outcomes.append(outcome)
                    print(table([outcome]).splitlines()[-1], flush=True)  # noqa: T201
    if options.save:
        _RESULT.write_text(
            "# Failovers\n\n"
            f"{options.clients} clients insert rows, one per transaction, into a Redis Cluster of"
            " three masters with a replica each (with wait=1 two), all on one machine of 2 cores,"
            " which others used as well; `python -m benchmarks.failover` says what the columns"
            " mean.\n\n"
            f"{table(outcomes)}\n"
        )


if __name__ == "__main__":
    main()
