"""What load hosts and probes say, to rows of a run's tables."""

from __future__ import annotations

import base64
import gzip
import json
import queue
import subprocess
from pathlib import Path
from typing import Any

from discovery_xp import probes, store
from discovery_xp.cli.progress import Follower
from discovery_xp.deployment.play import Outcome, PlayRun
from discovery_xp.inputs.scenario import Scenario
from discovery_xp.load import following, ledger, rally_hosts
from discovery_xp.testbeds.testbed import Testbed
from tests.fuzz.answers.cloud import archive_of, require_plain_files
from tests.fuzz.answers.common import (
    CONTROLLER,
    MASTER,
    PLAN,
    Anything,
    hosts_of,
    new_run,
    quiet,
    say,
    target,
)


class _Silent(rally_hosts.LoadHost):
    """A load host that isn't there: its answers are the case's."""

    def __init__(self, name: str, answer: bytes = b"") -> None:
        super().__init__(Testbed("fuzz"), name, queue.Queue())
        self.answer = answer

    def call(self, *_: Any, **__: Any) -> subprocess.CompletedProcess[bytes]:
        """Say the case's answer, whatever was asked."""
        return subprocess.CompletedProcess([], 0, self.answer, b"")

    def follow(self) -> None:
        """Nobody is listened to."""


_RAW = {"entries": [{"name": name, "data": "{}"} for name in rally_hosts.RAW], "zeros": 0}


@target("raw files", _RAW)
def take_raw_files(told: Any) -> None:
    """Rally's own files, fetched when the load is over."""
    say(_Silent(MASTER, archive_of(told)).fetch(Path("raw") / MASTER) or "")
    require_plain_files(Path("raw"))


_VM = {"line": "vm", "name": "a", "region": "site1", "site": "site1", "requested_at": 100.0}
_LOAD: list[dict[str, Any]] = [
    {"line": "stage", "stage": "warming up", "done": 0, "total": 14},
    {"line": "ready", "at": 99.0},
    {"line": "usage", "at": 100.0, "cpu_s": 1.5, "polls": 4, "mark": "start"},
    _VM,
    {"line": "vm", "name": "a", "accepted_at": 100.3, "server_id": "id-a"},
    {**_VM, "name": "b", "requested_at": 100.1},
    {"line": "vm", "name": "b", "status": "REFUSED", "seen_at": None, "error": "HTTP 500"},
    {"line": "action", "action": "boot", "iteration": 1, "region": "site1", "site": "site1",
     "started_at": 100.1, "duration_s": 0.5, "error": "HTTP 500: broken"},
    {"line": "vm", "name": "a", "status": "ACTIVE", "seen_at": 104.2, "error": None},
    {"line": "iteration"},
    {"line": "usage", "at": 104.3, "cpu_s": 1.75, "polls": 9, "mark": "end"},
    {"line": "loaded", "last_sent_at": 100.2, "time_is_up": False},
    {"line": "note", "text": "two deletes were late"},
    {"line": "vm", "name": "a", "host": "site2-compute-1", "launched_at": 103.0,
     "deleted_at": 110.0},
    {"line": "crash", "error": "KeyError: 'x'"},
    {"line": "done", "lost": {}},
    {"line": "unit", "words": "ended (success, exited 0)"},
]  # fmt: skip


@target("load", _LOAD)
def take_load(told: Any) -> None:
    """Lines of a load host, to rows in a run's tables, to run.json and to the terminal."""
    sites = {host.name: host.site for host in PLAN.hosts}
    book = ledger.Ledger(Scenario("fuzz", "boot", vms=3), [MASTER], sites)
    host, run = _Silent(MASTER), new_run()

    def keep(vms: list[Any], actions: list[Any]) -> None:
        if vms:
            run.append("vms", vms)
        if actions:
            run.append("actions", actions)

    follower = Follower()
    all_of_them = following.Following(book, [host], queue.Queue(), keep, follower, follower.pace)
    for number, line in enumerate(told if isinstance(told, list) else [told]):
        words = line if isinstance(line, str) else json.dumps(line)
        data = words.encode(errors="replace").replace(b"\n", b" ") + b"\n"
        all_of_them.take(host, data)
        if number < 50 or number % 500 == 0:  # twice a second, as many as come
            all_of_them.tell()
    reason = book.reason()
    book.give_up(reason or "it is over")
    all_of_them.hand_on_rows()
    run.write_table("vms", book.vms)
    run.write_table("actions", book.actions)
    window = book.window()
    used = store.Load(
        cpu_s=round(book.spent("cpu_s"), 3), cores=0.0, polls=int(book.spent("polls")), host=MASTER
    )
    run.update(
        window=store.Window(*window) if window else None,
        load=used,
        notes=tuple(dict.fromkeys(book.notes)),
        reason=reason,
        status="complete" if reason is None else "partial",
        ended="2026-11-23T16:10:00Z",
    )
    book.sent_s()
    _report()


def _report() -> None:
    """What was stored can be read by those who report."""
    from discovery_xp.analysis.measurements import read_runs, summary

    summary(read_runs([Path("fuzz")]))


_RECORDS = (
    "@\tnova-api\t123\n"
    "c\t100.5\t12.25\tmain\tinstance_get_by_uuid\t0\t\n"
    "r\t100.6\t30.5\tPOST\t/v2.1/servers\t202\n"
    "s\t100\t101\tSELECT\t5\t5\t100\t200\t3.5\n"
    "p\t100.5\t12.5\t1.5\t0.0\tcall\tInstance.save\t10.0.0.1\treq-1\ta.1\ta.2\tm-1\t1\t0\t\t\n"
    "p\t100.4\t99.5\t1.5\t0.0\tserver\tPOST /servers\t\treq-1\ta.2\t\treq-1\t1\t0\tid-0\t\n"
    "!\t100\t2\t1\tKeyError\n"
)
_PROBES: dict[str, Any] = {
    CONTROLLER: {
        "records": _RECORDS,
        "problems": ["nft: not there"],
        "messages": {},
        "traffic": {"10.0.0.1 3306": [5000, 50], "8.8.8.8 0": [1, 1]},
        "usage": {"nova-api": {"cpu_s": 1.5, "memory_bytes": 100, "memory_start_bytes": 50}},
    },
    MASTER: {"messages": {"conductor": [5, 5, 4], "": [6, 6, 3]}, "traffic": {}, "problems": []},
}


@target("probes", _PROBES)
def take_probes(told: Any) -> None:
    """What the probes' task brings from each host, to tables of a run."""
    known = {
        host.name: {"address": host.address or "", "site": host.site, "region": host.site}
        for host in PLAN.hosts
    }
    outcomes = []
    for host, result in (told if isinstance(told, dict) else {}).items():
        if host in known and isinstance(result, dict):
            own = dict(result)
            if isinstance(own.get("records"), str):
                packed = gzip.compress(own["records"].encode(errors="replace"))
                own["records"] = base64.b64encode(packed).decode()
            elif isinstance(own.get("records"), dict):  # as it comes
                own["records"] = own["records"].get("raw")
            outcomes.append(Outcome("probes", host, "ok", own))
    module: Anything = probes
    module.answering_of = lambda _: set(known)
    module.run_playbook = lambda *_a, **_k: PlayRun(outcomes)
    notes: list[str] = []
    tables = probes.collect(hosts_of(), probes.PROBES, (0.0, 1.0), quiet, notes.append)
    stored = new_run()
    for name, rows in tables.items():
        stored.write_table(name, rows)
    stored.update(notes=tuple(notes))
    say(len(notes))
