"""What the hosts of a cloud say: services, smoke boots, failed tasks, records as archives."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import io
import json
import tarfile
import types
from pathlib import Path
from typing import Any

from discovery_xp import provenance
from discovery_xp.deployment import backup, deploy, description, identities, status
from discovery_xp.deployment.play import Listener, Outcome, PlayRun, _failure
from discovery_xp.inputs.topology import parse_topology
from discovery_xp.planning.layout import Service
from discovery_xp.planning.plan import make_plan
from discovery_xp.testbeds import remote
from discovery_xp.testbeds.testbed import State, Testbed
from tests.fuzz.answers.common import (
    MASTER,
    PLAN,
    Anything,
    hosts_of,
    new_run,
    printed,
    quiet,
    saying,
    target,
    text,
)

_NOVA = [{"Binary": "nova-compute", "Host": "site1-compute-1", "State": "up", "Status": "enabled"}]
_QUEUES = [
    {"name": "conductor.site1-controller-1", "consumers": 1},
    {"name": "conductor", "consumers": 2},
]
_STATUS = {
    MASTER: "unit mariadb ActiveState=active NRestarts=2\n"
    "unit keystone-api NRestarts=0 ActiveState=active\n"
    "port keystone-api HTTP/1.1 300 MULTIPLE CHOICES\n"
    f"nova {json.dumps(_NOVA)}\nqueues {json.dumps(_QUEUES)}\n",
    "site1-controller-1": "unit nova-api ActiveState=active NRestarts=0\n"
    "port nova-api HTTP/1.1 200 OK\n",
}


@target("status", _STATUS)
def take_status(told: Any) -> None:
    """How services are, as `status` prints it."""
    by_host: dict[str, list[Service]] = {}
    for service in PLAN.require_cloud().services:
        by_host.setdefault(service.host, []).append(service)
    said = {host: text(told[host]) for host in by_host if isinstance(told, dict) and host in told}
    found = status.read_status(by_host, said)
    if len(found) != len(PLAN.require_cloud().services):
        raise AssertionError("a service is missing")
    from discovery_xp.cli.common import console
    from discovery_xp.cli.status import _print_services

    _print_services(console(), PLAN, found)
    json.dumps([dataclasses.asdict(each) for each in found])


def _in_playbooks_place(run: PlayRun) -> None:
    nothing = types.SimpleNamespace(to_ansible=dict)
    modules: list[Anything] = [deploy, backup]
    for module in modules:
        module.run_playbook = lambda *_a, **_k: run
        module.play_variables = lambda *_a: nothing


_BOOTS = {
    "boots": [
        {
            "site": f"site{n}",
            "region": f"site{n}",
            "status": "ACTIVE",
            "host": f"site{n}-compute-1",
            "boot_duration_s": 4.5,
            "message": "",
        }
        for n in (1, 2)
    ]
}


@target("boots", _BOOTS)
def take_boots(told: Any) -> None:
    """A VM at each site, as `deploy` prints it."""
    result = told if isinstance(told, dict) else {"boots": told}
    _in_playbooks_place(PlayRun([Outcome(deploy.SMOKE_MODULE, MASTER, "ok", result)]))
    boots = deploy.verify(hosts_of(), Testbed("fuzz"), quiet)
    deploy.require_active(boots)
    from discovery_xp.cli.cloud import _boots_table

    one = description.Endpoint("site1", "site1", "site1-controller-1", "http://10.0.0.1:8774/v2.1")
    other = dataclasses.replace(one, region="site2", site="site2")
    deployment = description.Deployment("http://x", (one, other), "u", "f", "i", {}, {}, {}, 0)
    deployed: Anything = types.SimpleNamespace(deployment=deployment, boots=boots)
    printed(_boots_table(deployed))


@target("identities", {"": "0b3c2f9e-52f1-4f6c-9d2e-0123456789ab\n"})
def take_identities(told: Any) -> None:
    """What lent nodes say that Nova called them."""
    module: Anything = identities
    module.run_each = saying(told)
    topology = "name: fuzz\nsites: [{name: site1}]\nprovider: {type: g5k, site: rennes, cluster: c}"
    plan = make_plan(parse_topology(topology), None, True)
    testbed = Testbed("fuzz")
    testbed.save(State(plan, "up", "2026-11-24T16:00:00Z"))
    identities.collect(hosts_of(plan), testbed)
    if any("{{" in identity for identity in identities.load(testbed).values()):
        raise AssertionError("a host's word is a template at the next deploy")


_FAILED = {
    "msg": "no",
    "stderr": "x\ny",
    "journal": ["a", "b"],
    "unit": "nova-api",
    "results": [{"failed": True, "msg": "z"}],
    "changes": ["c"],
}


@target("failed task", _FAILED)
def take_failure(told: Any) -> None:
    """A task that failed on a host: its words go into our message and into the log."""
    payload = told if isinstance(told, dict) else {"msg": told}
    listener = Listener(hosts_of(), io.StringIO(), quiet)
    listener.on_play("stage", ["all"])
    listener.on_task("x", "component")
    for outcome in ("ok", "changed", "failed", "unreachable"):
        listener.on_result(MASTER, outcome, payload)
    host = types.SimpleNamespace(host=MASTER, task="install", payload=payload)
    error: Anything = types.SimpleNamespace(hosts=[host])
    remote.last_words(payload)
    raise _failure(error, listener, Path("ansible.log"))


_LOOK = (
    "2\n AMD EPYC\nMemTotal:       24000000 kB\n6.1.0-18-amd64\n"
    "mariadb-server 1:10.11.6\npython 3.11.2\n"
)


@target("master", {"": _LOOK})
def take_master(told: Any) -> None:
    """What the master says of itself, for run.json."""
    module: Anything = provenance
    module.run_each = saying(told)
    machine, versions = provenance.look_at_master(hosts_of())
    run = new_run()
    run.save(dataclasses.replace(run.load(), machine=machine, versions=versions))


# ---------------------------------------------------------------- archives


def archive_of(told: Any) -> bytes:
    """A gzipped tar as a case describes it.

    `entries` have name, type, mode, link, data, and the size that they say they have; `zeros`
    are MB of them in one more, called `name`; `raw` is the archive itself, as base64.
    """
    if not isinstance(told, dict):
        return text(told).encode()
    if isinstance(told.get("raw"), str):
        return base64.b64decode(told["raw"])
    entries = told.get("entries")
    made = b"".join(_entry(each) for each in (entries if isinstance(entries, list) else [])
                    if isinstance(each, dict))  # fmt: skip
    zeros = told.get("zeros")
    if isinstance(zeros, int) and 0 < zeros <= 1500:
        info = tarfile.TarInfo(str(told.get("name", "zeros")))
        info.size = zeros * 2**20
        # Members of a gzip file follow each other: packed once, they are there many times.
        return gzip.compress(made + info.tobuf(), 1) + gzip.compress(b"\0" * 2**20, 1) * zeros
    return gzip.compress(made + b"\0" * 1024, 1)


def _entry(each: dict[str, Any]) -> bytes:
    data = str(each.get("data", "")).encode(errors="replace")
    info = tarfile.TarInfo(str(each.get("name", "x")))
    info.type = str(each.get("type", "0")).encode(errors="replace")[:1] or b"0"
    info.linkname = str(each.get("link", ""))
    mode, size = each.get("mode"), each.get("size")
    info.mode = mode if isinstance(mode, int) and 0 <= mode < 8**7 else 0o644
    info.size = size if isinstance(size, int) and 0 <= size < 2**62 else len(data)
    try:
        head = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "replace")
    except (ValueError, OverflowError):
        return b""
    return head + data + b"\0" * (-len(data) % 512)


_ARCHIVE = {
    "entries": [
        {"name": "configuration/etc/nova/nova.conf", "data": "[DEFAULT]\n"},
        {"name": "journal/nova-api.log", "data": "x"},
        {"name": "versions.txt", "data": "1"},
    ],
    "zeros": 0,
}


@target("backup", _ARCHIVE)
def take_backup(told: Any) -> None:
    """Records of a component, as `backup` and `bench` fetch them."""
    archive = base64.b64encode(archive_of(told)).decode()
    if isinstance(told, dict) and "coded" in told:
        archive = told["coded"]
    _in_playbooks_place(
        PlayRun([Outcome(backup.MODULE, MASTER, "ok", {"archive": archive}, "keystone")])
    )
    testbed = Testbed("fuzz")
    testbed.save(State(PLAN, "up", "2026-11-24T16:00:00Z"))
    (testbed.folder / "deployment.json").write_text("{}")
    (testbed.folder / "ansible.log").write_text("x")
    backup.backup(hosts_of(), testbed, Path("backup"), quiet)
    require_plain_files(Path("backup"))


def require_plain_files(folder: Path) -> None:
    """What came from a host is files and folders, without more rights than files have."""
    for path in folder.rglob("*"):
        entry = path.lstat()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise AssertionError(f"{path} is no file")
        if entry.st_mode & 0o7000 or (path.is_file() and entry.st_nlink > 1):
            raise AssertionError(f"{path} has mode {entry.st_mode:o}, {entry.st_nlink} names")
