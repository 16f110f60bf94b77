"""What cases are laid over: stored runs, and homes with testbeds in them."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.fuzz.case import Content, content

REPOSITORY = Path(__file__).parents[2]
# In a file outside of what a case may read for others: it may not come out anywhere.
CANARY = "canary-7f3a9c-of-another-file\n"

LOCAL = """name: fuzz
sites: [{name: site, count: 2, controllers: 1, computes: 1, data: 1}]
network: {delay: 10ms}
"""
STATIC = """name: fuzz
sites: [{name: north, computes: 1}, {name: south, controllers: 0, computes: 1}]
network: {delay: 10ms}
provider: {type: static, hosts: {north: [192.0.2.11, 192.0.2.12, 192.0.2.13], south: [192.0.2.21]}}
"""
GRID5000 = """name: fuzz
sites: [{name: a}, {name: b}]
network: {delay: 10ms}
provider: {type: g5k, site: rennes, cluster: paravance, spares: 1}
"""


def folder_as_files(folder: Path, below: str) -> dict[str, Content]:
    """All files of a folder."""
    return {
        f"{below}/{path.relative_to(folder)}": content(path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@functools.cache
def _runs() -> Mapping[str, Content]:
    """Two small runs, as work/run and work/other."""
    from tests.unit.synthetic_run import make_run

    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, Content] = {}
        first = make_run(Path(folder), sites=2, latency_ms=10.0)
        other = make_run(Path(folder), backend="rome", started="2026-11-24T16:00:00Z", data=1)
        for run, name in ((first, "work/run"), (other, "work/other")):
            found |= folder_as_files(run.folder, name)
        return found


def _run() -> Mapping[str, Content]:
    """One small run, as work/run."""
    return {name: each for name, each in _runs().items() if name.startswith("work/run/")}


@functools.cache
def _reference() -> Mapping[str, Content]:
    """A run that is shipped, as work/run."""
    runs = sorted((REPOSITORY / "results/reference/sites-2").glob("*/run.json"))
    found = folder_as_files(runs[0].parent, "work/run")
    return {name: each for name, each in found.items() if "/logs/" not in name}


def _home(topology: str, *, is_up: bool = True) -> Mapping[str, Content]:
    """A home with a testbed 'fuzz' whose state says that it is up, with a cloud on it."""
    from discovery_xp.inputs.topology import parse_topology
    from discovery_xp.planning.plan import make_plan
    from discovery_xp.testbeds import passwords
    from discovery_xp.testbeds.testbed import State

    plan = make_plan(parse_topology(topology), None, True)
    phase = "up" if is_up else "acquiring"
    state = State(plan, phase, "2026-11-24T16:00:00Z", "vde" if is_up else None,
                  "0123456789ab" if is_up else None, deployed="2026-11-24T16:05:00Z")  # fmt: skip
    folder = "home/.local/state/discovery-xp/testbeds/fuzz"
    deployment = {
        "auth_url": "http://10.97.1.1:5000", "user": "discovery", "flavor": "m1.tiny",
        "endpoints": [{"region": "site1", "site": "site1", "controller": "site1-controller-1",
                       "url": "http://10.97.1.2:8774/v2.1"}],
        "image": "discovery", "options": {"backend": "mysql"}, "versions": {"nova": "34.0.0"},
        "stages_s": {"hosts": 1.5}, "changes": 3, "format": 1,
    }  # fmt: skip
    found: dict[str, Content] = {
        "work/two.yaml": LOCAL,
        f"{folder}/state.json": json.dumps(state.to_json(), indent=1) + "\n",
        f"{folder}/deployment.json": json.dumps(deployment, indent=1),
        f"{folder}/passwords.json": json.dumps(
            dict.fromkeys((*passwords.PASSWORDS, *passwords.FERNET_KEYS), "0" * 32)
        ),
        f"{folder}/inventory.yaml": "all: {}\n",
        f"{folder}/ssh_config": "Host *\n",
        f"{folder}/ansible.log": "TASK x\n",
    }
    if "g5k" in topology:
        nodes = {
            host.name: {"fqdn": f"paravance-{n}.rennes.grid5000.fr", "address": f"192.0.2.{n}"}
            for n, host in enumerate(plan.hosts, start=1)
        }
        found[f"{folder}/grid5000.json"] = json.dumps(
            {"jobs": [["rennes", 1234567]], "nodes": nodes, "spares": {}, "lost": [],
             "jump_host": None, "is_submitting": False, "format": 1}
        )  # fmt: skip
    return found


def _topologies() -> Mapping[str, Content]:
    """Topologies, scenarios and nothing else."""
    found: dict[str, Content] = {
        "work/two.yaml": LOCAL, "work/static.yaml": STATIC, "work/g5k.yaml": GRID5000,
        "work/load.yaml": "kind: boot\nvms: 5\n",
    }  # fmt: skip
    return found


BASES: Mapping[str, Callable[[], Mapping[str, Content]]] = {
    "": dict,
    "topologies": _topologies,
    "run": _run,
    "runs": _runs,
    "reference": _reference,
    "testbed": functools.cache(lambda: {**_topologies(), **_home(LOCAL)}),
    "half-made": functools.cache(lambda: {**_topologies(), **_home(LOCAL, is_up=False)}),
    "static-testbed": functools.cache(lambda: {**_topologies(), **_home(STATIC)}),
    "grid5000-testbed": functools.cache(lambda: {**_topologies(), **_home(GRID5000)}),
}
