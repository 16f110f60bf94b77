"""Cases of command lines: every command and option that click knows, with odd values."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from tests.fuzz import mutate
from tests.fuzz.bases import BASES
from tests.fuzz.case import Case, Content, content

FOLDER = "home/.local/state/discovery-xp/testbeds/fuzz"

# What is near to right for an option or an argument, by a part of its name.
NEAR: Mapping[str, Sequence[str]] = {
    "topology": ("two.yaml", "static.yaml", "g5k.yaml", "nowhere.yaml", "load.yaml", ".", "folder",
    "{outside}/secret",
                 "/dev/null", "/dev/zero", "/dev/full", "/dev/stdin", "fifo", "loop",
                 "/proc/self/mem", "/"),
    "sites": ("1", "2", "8", "0", "250", "251"), "latency": ("10ms", "0ms", "60s"),
    "name": ("fuzz", "other", "fuzz-2", "..", "", ".", "/", "a/b", "{outside}/secret", "../../x",
    "{work}/two.yaml", "locks"),
    "scenario": ("load.yaml", "two.yaml", "nowhere.yaml", "/dev/zero", "fifo"), "vms": ("1", "5",
    "100000"),
    "probes": ("all", "none", "calls", "calls,usage", "calls,,usage", "cals"), "backend": ("mysql",
    "rome"),
    "placement": ("shared", "availability-zones"), "most": ("1", "10", "100"),
    "host": ("site1-master-1", "site1-compute-1"),
    "between": ("site1", "site2", "site9"), "source": ("site1", "site2"), "target": ("site1",
    "site2", "{work}/new", "folder"),
    "delay": ("10ms", "0ms"), "rtt": ("20ms",), "jitter": ("1ms",), "loss": ("1%",),
    "rate": ("1gbit",),
    "results": ("results", "folder", "two.yaml", "{outside}", "/proc/x", "loop", "unwritable/x"),
    "user": ("admin", "discovery"),
    "run": ("run", "other", ".", "/", "folder", "two.yaml", "loop", "fifo", "nowhere"),
    "command": ("id", "-x", "--", "a b"),
    "page": ("page.html", "/dev/full", "{outside}/secret", "folder", "unwritable/x.html"),
    "csv": ("csv", "two.yaml", "unwritable"),
    "latex": ("latex", "two.yaml"), "figures": ("figures", "two.yaml"), "arguments": ("server",
    "list", "--os-region-name"),
}  # fmt: skip
ENVIRONMENTS: Sequence[Mapping[str, str | None]] = (
    {"HOME": None}, {"HOME": "/"}, {"HOME": "/nowhere"}, {"HOME": ""}, {"HOME": "{work}/two.yaml"},
    {"HOME": "relative"},
    {"DISCOVERY_XP_HOME": "{work}/two.yaml"}, {"DISCOVERY_XP_HOME": "/proc"},
    {"DISCOVERY_XP_HOME": "{work}/unwritable"},
    {"DISCOVERY_XP_HOME": "{work}/loop"}, {"DISCOVERY_XP_HOME": "{work}/fifo"},
    {"DISCOVERY_XP_HOME": "{work}/" + "a" * 300},
    {"DISCOVERY_XP_HOME": ""}, {"DISCOVERY_XP_HOME": "relative"},
    {"DISCOVERY_XP_HOME": "{work}/new"},
    {"DISCOVERY_XP_HOME": "{work}/a'b \"c\n"}, {"XDG_STATE_HOME": "relative"},
    {"XDG_STATE_HOME": "/dev/null"},
    {"DISCOVERY_XP_CACHE": "/dev/null"}, {"LANG": "C", "LC_ALL": "C"},
    {"LC_ALL": "xx_YY.ISO-8859-1"}, {"TERM": "dumb"},
    {"TERM": None}, {"COLUMNS": "1"}, {"COLUMNS": "0"}, {"COLUMNS": "-5"}, {"COLUMNS": "x"},
    {"COLUMNS": "100000"},
    {"LINES": "x"}, {"NO_COLOR": "1"}, {"FORCE_COLOR": "1"}, {"PATH": ""}, {"PATH": None},
    {"PATH": "{work}"},
    {"TMPDIR": "/nowhere"}, {"TMPDIR": "{work}/two.yaml"}, {"TZ": "Nowhere/Land"},
    {"PYTHONIOENCODING": "ascii"},
    {"ANSIBLE_CONFIG": "{work}/two.yaml"}, {"MPLBACKEND": "nonsense"}, {"http_proxy": "::"},
)  # fmt: skip
PLACES: Mapping[str, Content] = {
    "work/folder": {"folder": True}, "work/fifo": {"fifo": True}, "work/loop": {"link": "loop"},
    "work/unwritable": {"mode": 0}, "work/secret-link": {"link": "{outside}/secret"},
}  # fmt: skip
# What may stand in a testbed's folder, for its files to be changed.
STATE = (
    "state.json",
    "deployment.json",
    "passwords.json",
    "inventory.yaml",
    "ssh_config",
    "grid5000.json",
    "databases.json",
)


@dataclass(frozen=True)
class Command:
    """A command, and what it takes."""

    words: tuple[str, ...]
    parameters: tuple[click.Parameter, ...]


@functools.cache
def commands() -> tuple[Command, ...]:
    """Every command there is, groups without one of theirs, too."""
    from discovery_xp.cli.main import cli

    found: list[Command] = []

    def walk(command: click.Command, words: tuple[str, ...]) -> None:
        found.append(Command(words, tuple(command.params)))
        if isinstance(command, click.Group):
            for name, each in sorted(command.commands.items()):
                walk(each, (*words, name))

    walk(cli, ())
    return tuple(found)


def make(rng: random.Random, name: str) -> Case:
    """A case of a command line, most of them with something odd in it."""
    weights = [3 if command.words else 1 for command in commands()]
    command = rng.choices(commands(), weights)[0]
    base = rng.choice(
        ["topologies", "testbed", "testbed", "static-testbed", "grid5000-testbed", "half-made"]
    )
    if command.words in (("report",), ("compare",)):
        base = "runs"
    files = dict(PLACES)
    if "testbed" in base and rng.random() < 0.45:
        files |= _changed_state(base, rng)
    words = list(command.words)
    for parameter in command.parameters:
        if isinstance(parameter, click.Argument):
            many = rng.choice([0, 1, 1, 2, 3]) if parameter.nargs == -1 else 1
            if parameter.required or rng.random() < 0.7:
                words += [_value(parameter, rng) for _ in range(many if rng.random() < 0.97 else 0)]
        elif rng.random() < 0.3:
            words += _option(parameter, rng)
    if rng.random() < 0.12:
        words.insert(rng.randrange(len(words) + 1), _text(rng))
    if rng.random() < 0.05:
        rng.shuffle(words)
    environment = rng.choice(ENVIRONMENTS) if rng.random() < 0.2 else {}
    streams = (
        rng.choice(["closed", "full", "broken", "ascii", "latin-1"])
        if rng.random() < 0.12
        else "plain"
    )
    # A process can't be given these.
    step = tuple(word.replace("\x00", "").replace("\ud800", "\udcff") for word in words)
    return Case("cli", name, base, files, (step,), environment=environment, streams=streams)


def _option(parameter: click.Parameter, rng: random.Random) -> list[str]:
    switch = rng.choice([*parameter.opts, *parameter.secondary_opts])
    if getattr(parameter, "is_flag", False) or getattr(parameter, "count", False):
        return [switch]
    values = [_value(parameter, rng) for _ in range(parameter.nargs)]
    if len(values) == 1 and switch.startswith("--") and rng.random() < 0.3:
        return [f"{switch}={values[0]}"]
    found = [switch, *values]
    return found if rng.random() < 0.97 else found[:-1]


def _value(parameter: click.Parameter, rng: random.Random) -> str:
    near = NEAR.get(parameter.name or "", ())
    if near and rng.random() < 0.6:
        return rng.choice(near)
    if isinstance(parameter.type, click.Choice) and rng.random() < 0.5:
        return str(rng.choice(parameter.type.choices))
    return _text(rng)


def _text(rng: random.Random) -> str:
    if rng.random() < 0.1:
        return str(rng.choice(mutate.NUMBERS))
    return rng.choice([*mutate.ODD_TEXTS, "\udcff", "caf\udce9", "two.yaml"])[:100_000]


def _changed_state(base: str, rng: random.Random) -> dict[str, Content]:
    """A file of a testbed that is damaged, replaced or gone."""
    name = f"{FOLDER}/{rng.choice([STATE[0], STATE[0], *STATE])}"
    before = BASES[base]().get(name, "{}")
    assert isinstance(before, str)
    kind = rng.random()
    if kind < 0.2:
        other: Any = rng.choice([
            {"missing": True}, {"fifo": True}, {"link": "/dev/zero"}, {"link": "{outside}/secret"},
            {"mode": 0},
            {"size": 50_000_000}, {"link": "state.json"}, {"size": 0}, {"size": 3_000_000_000},
        ])  # fmt: skip
        return {name: other}
    if not name.endswith(".json"):
        return {name: content(mutate.mutate_bytes(before.encode(), rng))}
    try:
        json.loads(before)
    except ValueError:
        return {name: ""}
    return {name: content(mutate.mutate_json(before, rng))}
