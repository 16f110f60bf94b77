"""One run: clients and a fault over servers, and what is to be said of their history."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from tests.etcd_servers import EtcdCluster
from tests.histories.checker import Verdict, check
from tests.histories.clients import Client, run_client, run_schema_changes
from tests.histories.faults import DATABASE, FAULTS, Event, Scene, Servers
from tests.histories.model import (
    COMMITTED,
    READ_COMMITTED,
    SERIALIZABLE,
    History,
    Transaction,
    save,
    transactions_of,
)
from tests.histories.tables import fill, read_everything
from tests.processes import new_processes
from tests.servers import CannotStart

_numbers = itertools.count(1)
# Wait so long (s) for a client to end by itself: longer than its patience.
_JOIN_S = 90.0
# A master that goes on knows after so long (s) that it was replaced.
_NEWS_S = 2.0
# Clients that end no transaction for so long (s) never will.
_IDLE_S = 60.0


@dataclass(frozen=True, slots=True)
class Run:
    """What a run is made of.  `options` are the URL's; `rounds` is how often the fault happens."""

    fault: str = "none"
    workload: str = "mixed"
    levels: tuple[str, ...] = (READ_COMMITTED, SERIALIZABLE)
    options: tuple[tuple[str, str], ...] = ()
    processes: int = 2
    threads: int = 2
    connections: int = 2
    rounds: int = 1
    pause: float = 0.0
    schema_changes: bool = False
    mutation: str = ""
    # Seconds of undisturbed work before each fault, and after the last one.
    quiet: float = 1.0
    seconds: float | None = None  # that a fault lasts; None: as FAULTS has it
    # A run isn't ended before so many transactions have ended, on a slow machine too.
    transactions: int = 0

    @property
    def lasts(self) -> float:
        """Return the seconds that the fault lasts."""
        return FAULTS[self.fault].seconds if self.seconds is None else self.seconds

    @property
    def prefetches(self) -> bool:
        """Return whether a statement may be answered from rows that came with an earlier one."""
        return dict(self.options).get("prefetch") != "off"


@dataclass(slots=True)
class Outcome:
    """What a run has shown."""

    run: Run
    verdict: Verdict
    history: History
    events: list[Event]
    seconds: float
    stopped: float  # s, monotonic: when the clients were told to end
    killed: set[str]  # processes, as the names of their transactions begin
    schema_changes: int = 0
    schema_errors: list[str] = field(default_factory=list)

    def unexplained(self) -> dict[str, list[str]]:
        """Return the anomalies that no limit explains which the documents state.

        Redis replicates asynchronously: a failover may undo what was acknowledged with `wait=0`,
        and then a later read is as of an earlier time.  With `wait` it may undo what was read
        while its own client hadn't heard of the outcome.  It never undoes a part of a commit,
        and never mixes what it undoes with what it keeps.  That a master which was replaced answers
        reads is no anomaly where no connection of the process knows better (`stale` of a history).
        With `reads=local` a member of etcd
        may lack what the cluster has agreed on.
        """
        explained: set[str] = set()
        if dict(self.run.options).get("reads") == "local":
            explained = {name for name in self.verdict.anomalies if name.endswith("-realtime")}
        if FAULTS[self.run.fault].may_lose:
            explained = {"lost after being read"}
            if dict(self.run.options).get("wait", "0") == "0":
                explained |= {"lost", "lost-update", "resurrected"}
                if self.verdict.lost:
                    explained |= {
                        name for name in self.verdict.anomalies if name.endswith("-realtime")
                    }
        found = {n: t for n, t in self.verdict.anomalies.items() if n not in explained}
        if self.schema_errors:
            found["schema changes"] = self.schema_errors
        return found

    def standstill(self) -> float:
        """Return the longest time (s) in which a thread had no commit."""
        times: dict[str, list[int]] = defaultdict(list)
        for t in self.history.transactions:
            if t.outcome == COMMITTED and t.ended is not None:
                times[t.name.rsplit("-", 1)[0]].append(t.ended)
        for thread, ends in times.items():
            if thread.split("/")[0] not in self.killed:
                ends.append(max(int(self.stopped * 1e9), *ends))
        gaps = [
            after - before
            for ends in times.values()
            for before, after in itertools.pairwise(sorted(ends))
        ]
        return max(gaps, default=0) / 1e9

    def failover(self) -> float | None:
        """Return the longest time (s) that the cluster needed for another master."""
        times = [event.failover_s for event in self.events if event.failover_s is not None]
        return max(times, default=None)

    def lost_before(self) -> list[tuple[float, float]]:
        """Return, for each lost commit, how long (s) before or after a fault's begin and its
        healing it was acknowledged; positive is after."""
        found = []
        for lost in self.verdict.lost:
            when = (lost.ended or 0) / 1e9
            earlier = [event for event in self.events if event.began <= when + 1]
            if earlier:
                found.append((when - earlier[-1].began, when - earlier[-1].healed))
        return found

    def data(self) -> dict[str, Any]:
        """Return the figures as JSON can keep them."""
        verdict, failover = self.verdict, self.failover()
        return {
            "run": asdict(self.run),
            "seconds": round(self.seconds, 1),
            "faults": len(self.events),
            "transactions": len(self.history.transactions),
            "statements": verdict.steps,
            "committed": verdict.committed,
            "aborted": verdict.aborted,
            "unknown": verdict.unknown,
            "unknown_done": verdict.unknown_done,
            "lost": len(verdict.lost),
            "lost_s_after_begin": _span([begin for begin, _ in self.lost_before()]),
            "lost_s_after_healing": _span([healing for _, healing in self.lost_before()]),
            "aborted_but_visible": verdict.counts.get("G1a", 0),
            "anomalies": verdict.counts,
            "unexplained": {name: texts[:2] for name, texts in self.unexplained().items()},
            "standstill_s": round(self.standstill(), 2),
            "failover_s": None if failover is None else round(failover, 2),
            "schema_changes": self.schema_changes,
            "schema_errors": self.schema_errors[:5],
        }


def perform(run: Run, servers: Servers, keep: Path | None = None) -> Outcome:
    """Make a history over running servers, and judge it.

    With `keep`, the history is saved there if anything is wrong with it.
    """
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="rome-test-history-"))
    try:
        stage = _Stage(run, servers, folder)
        history = stage.perform()
        verdict = check(history)
        if keep is not None and verdict.anomalies:
            keep.mkdir(parents=True, exist_ok=True)
            save(history, keep / f"history-{os.getpid()}-{next(_numbers)}.json")
        return Outcome(
            run=run,
            verdict=verdict,
            history=history,
            events=stage.scene.events,
            seconds=time.monotonic() - began,
            stopped=stage.stopped,
            killed=stage.killed,
            schema_changes=stage.schema_lines("done"),
            schema_errors=[line for line in stage.log if line.startswith("failed")],
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _span(times: list[float]) -> list[float] | None:
    """Return the least and the greatest."""
    return [round(min(times), 3), round(max(times), 3)] if times else None


class _Stage:
    def __init__(self, run: Run, servers: Servers, folder: Path) -> None:
        self.run = run
        self.folder = folder
        self.stop = folder / "stop"
        self.scene = Scene(servers, self._kill_client)
        self.database = f"{DATABASE}-{os.getpid()}-{next(_numbers)}"
        self.url = self._url(dict(run.options))
        self.clients: list[tuple[Client, Any]] = []
        self.log: list[str] = []
        self.killed: set[str] = set()
        self.stopped = 0.0

    def _url(self, options: dict[str, str]) -> str:
        base = self.scene.servers.url(self.database)
        own = {} if isinstance(self.scene.servers, EtcdCluster) else {"tag": DATABASE}
        return f"{base}?{urlencode(own | options)}"

    def perform(self) -> History:
        run, fault = self.run, FAULTS[self.run.fault]
        engine = create_engine(self._url({"patience": "60"}), poolclass=NullPool)
        expected = run.quiet + run.rounds * (run.quiet + run.lasts + 20)
        initial = fill(engine, expected + 60)
        disturbed = fault.disturbs
        began = time.monotonic()
        for number in range(run.processes):
            self._start(
                Client(
                    number=number,
                    url=self.url,
                    folder=self.folder,
                    began=began,
                    stop=self.stop,
                    workload=run.workload,
                    levels=run.levels,
                    threads=run.threads,
                    connections=run.connections,
                    pause=run.pause,
                    faulty=disturbed,
                    mutation=run.mutation,
                )
            )
        others = []
        if run.schema_changes:
            log = self.folder / "schema.log"
            arguments = (self.url, self.stop, log, disturbed)
            others.append(new_processes().Process(target=run_schema_changes, args=arguments))
            others[0].start()
        try:
            self._wait_for(1)
            for _ in range(run.rounds):
                time.sleep(run.quiet)
                fault.act(self.scene, run.lasts)
                self.scene.wait_until_whole()
            time.sleep(run.quiet)
            self._wait_for(run.transactions)
        finally:
            self.stopped = time.monotonic()
            self.stop.touch()
            for process in [*(process for _, process in self.clients), *others]:
                process.join(_JOIN_S)
                if process.is_alive():
                    process.kill()
                    process.join()
        log = self.folder / "schema.log"
        if log.exists():
            self.log = log.read_text().splitlines()
        self.scene.wait_until_whole()
        with engine.connect() as connection:
            final = read_everything(connection)
        engine.dispose()
        transactions: Sequence[Transaction] = transactions_of(self.folder.glob("*.jsonl"))
        return History(tuple(transactions), final, initial, run.prefetches, self._stale())

    def _stale(self) -> tuple[tuple[int, int], ...]:
        """Return when a master that was replaced may have answered without knowing it (ns)."""
        events = [event for event in self.scene.events if event.failover_s is not None]
        if not FAULTS[self.run.fault].stale:
            return ()
        return tuple((int(e.began * 1e9), int((e.healed + _NEWS_S) * 1e9)) for e in events)

    def _start(self, client: Client) -> None:
        process = new_processes().Process(target=run_client, args=(client,))
        process.start()
        self.clients.append((client, process))

    def _wait_for(self, transactions: int) -> None:
        """Wait until each thread has begun, and so many transactions are in the files."""
        threads = self.run.processes * self.run.threads
        done, last = -1, time.monotonic()
        while True:
            texts = [file.read_bytes() for file in self.folder.glob("*.jsonl")]
            now = sum(text.count(b'"outcome"') for text in texts)
            if sum(map(bool, texts)) >= threads and now >= transactions:
                return
            if now > done:
                done, last = now, time.monotonic()
            elif time.monotonic() - last > _IDLE_S:
                raise CannotStart("the clients do nothing")
            time.sleep(0.05)

    def _kill_client(self) -> None:
        client, process = self.clients.pop(0)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        self.killed.add(f"P{client.number}.{client.attempt}")
        values = asdict(client) | {"attempt": client.attempt + 1}
        self._start(Client(**values))

    def schema_lines(self, word: str) -> int:
        """Return how many lines of the log of schema changes begin so."""
        return sum(line.startswith(word) for line in self.log)


__all__ = ["READ_COMMITTED", "SERIALIZABLE", "Outcome", "Run", "perform"]
