"""What the readers of answers share: a plan, and hosts of it that say what they are told."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import enoslib as en

from discovery_xp import store
from discovery_xp.inputs.topology import parse_topology
from discovery_xp.planning.plan import Plan, make_plan
from discovery_xp.testbeds.hosts import Hosts
from discovery_xp.testbeds.transport import Output

PLAN = make_plan(
    parse_topology("name: fuzz\nsites: [{name: site, count: 2}]\nnetwork: {delay: 10ms}"),
    None,
    True,
)
MASTER = "site1-master-1"
CONTROLLER = "site1-controller-1"

# In the place of functions that our tests replace; typed so that they may be.
Anything = Any


@dataclasses.dataclass(frozen=True)
class Target:
    """A reader of answers: what is fed, and an answer as a good host gives it."""

    take: Callable[[Any], None]
    good: Any


TARGETS: dict[str, Target] = {}


def target(name: str, good: Any) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Register a reader under a name, with a good answer."""

    def register(take: Callable[[Any], None]) -> Callable[[Any], None]:
        TARGETS[name] = Target(take, good)
        return take

    return register


def hosts_of(plan: Plan = PLAN) -> Hosts:
    """Of a plan; nobody is behind them."""
    groups: dict[str, list[en.Host]] = {}
    for planned in plan.hosts:
        host = en.Host(planned.address or "", alias=planned.name)
        for group in (*planned.roles, planned.site):
            groups.setdefault(group, []).append(host)
    return Hosts(plan, en.Roles(groups), en.Networks())


def text(value: Any) -> str:
    """What comes through Ansible is text, whatever a case has there."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    return json.dumps(value)


def say(words: object) -> None:
    """As the command line prints it."""
    sys.stdout.write(f"{words}\n")


def quiet(_stage: str, _done: int, _total: int) -> None:
    """No progress."""


def new_run() -> store.Run:
    """An empty run in this folder."""
    machine = store.Machine(2, "x", 2**30, "6.1", "local")
    record = store.RunRecord(
        experiment="fuzz",
        plan="1f2e3d4c5b6a",
        started="2026-11-23T16:00:00Z",
        machine=machine,
        backend="mysql",
        options={},
        sites=2,
        controllers=2,
        computes=2,
        data=0,
        scenario={},
        vms=store.Vms(0),
        probes=store.PROBES,
    )
    return store.new_run(Path(), record)


def saying(told: Any) -> Anything:
    """In `run_each`'s place: each host says its part, '' that of all others."""
    outputs: Mapping[str, Any] = told if isinstance(told, dict) else {"": told}

    def run_each(
        _hosts: Hosts, commands: Mapping[str, str], *_: Any, **__: Any
    ) -> dict[str, Output]:
        said = {}
        for name in commands:
            own = outputs.get(name, outputs.get("", ""))
            texts = own if isinstance(own, list) and own else [own, ""]
            said[name] = Output(0, text(texts[0]), text(texts[-1]))
        return said

    return run_each


def printed(*tables: Any) -> None:
    """Print as the command line does."""
    from discovery_xp.cli.common import console

    for table in tables:
        console().print(table)
