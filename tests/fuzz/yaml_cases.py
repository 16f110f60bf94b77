"""Cases of YAML: topologies and scenarios that ship or stand in the docs, changed."""

from __future__ import annotations

import functools
import itertools
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from tests.fuzz import mutate
from tests.fuzz.bases import REPOSITORY
from tests.fuzz.case import Case, content

# One of each kind of provider with all that it takes, and all options of the cloud.
FULL: Mapping[str, str] = {
    "full-local": """
name: trio
description: three sites
sites:
  - {name: north, controllers: 1, computes: 2, data: 1}
  - {name: south, computes: 1}
  - {name: edge, count: 3, controllers: 0, computes: 1}
master: north
network:
  delay: 5ms
  jitter: 1ms
  loss: 0.1%
  rate: 1gbit
  tolerance: {absolute: 3ms, relative: 5%}
  links:
    - {between: [north, south], rtt: 30ms, jitter: 1ms}
    - {from: edge1, to: north, delay: 25ms, loss: 0.1%, rate: 50mbit}
openstack:
  backend: rome
  rome: {store: cluster, persistence: everysec, replicas: 1}
  placement: availability-zones
  periodic_tasks: default
  virt_driver: fake
  nics: 1
  workers: {default: 1, nova-conductor: 2}
  config:
    nova: {filter_scheduler: {host_subset_size: 1}, DEFAULT: {debug: true}}
    keystone: {token: {expiration: 3600}}
provider:
  type: local
  network: 10.70.0.0/20
  wan: vde
  limits: {default: {cpus: 0.5, memory: 256MiB}, data: {memory: 1GiB}}
""",
    "full-static": """
name: trio
sites:
  - {name: north, computes: 1}
  - {name: south, controllers: 0, computes: 1}
provider:
  type: static
  user: root
  port: 22
  key: ~/.ssh/id_ed25519
  hosts:
    north: [192.0.2.11, 192.0.2.12, {address: 192.0.2.13, user: root, port: 2222, key: /root/k}]
    south: [{address: 192.0.2.21, port: 2222}]
""",
    "full-g5k": """
sites: [{name: a}, {name: b, computes: 2}]
network: {delay: 10ms, tolerance: {absolute: 40ms}}
provider:
  type: g5k
  site: rennes
  cluster: paravance
  walltime: 03:00:00
  queue: default
  project: lab
  reservation: "2027-03-01 19:00:00"
  job_types: [night, exotic, monitor=wattmetre]
  key: ~/.ssh/id_ed25519
  jump_host: alice@access.grid5000.fr
  environment: debian12-nfs
  network: kavlan
  spares: 1
  sites:
    b: {site: nancy, cluster: gros}
""",
    "full-vmong5k": """
sites: [{name: a}, {name: b}]
provider:
  type: vmong5k
  site: rennes
  cluster: paravance
  walltime: 03:00:00
  image: /grid5000/virt-images/debian12-x64-nfs.qcow2
  cores: 4
  memory: 4GiB
  jump_host: none
  sites: {b: {site: nancy, cluster: gros}}
""",
    "full-vagrant": """
sites: [{name: a, count: 2}]
provider:
  type: vagrant
  backend: libvirt
  box: generic/debian12
  user: root
  cores: 2
  memory: 2GiB
  network: 192.168.42.0/24
""",
    "full-chameleon": """
sites: [{name: a, count: 2}]
provider:
  type: chameleon
  kind: kvm
  rc_file: ~/rc.sh
  key_name: me
  key: ~/.ssh/id_ed25519
  image: CC-Debian12
  flavour: m1.medium
  user: cc
  walltime: 02:00:00
""",
    "full-scenario": """
name: steady
description: all that a scenario takes
kind: boot-and-delete
vms: 60
concurrency: 10
from: sites
regions: [site1, site2]
warm_up: 2
flavor: m1.tiny
image: discovery
poll_interval: 500ms
vm_timeout: 300s
run_timeout: 30min
delete_after: true
""",
}

# Pieces of YAML that a parser may stumble over; put in place of a value.
SNIPPETS: Sequence[str] = (
    "&a [*a]", "*a", "*nowhere", "&a", "&a x", "!!python/object/apply:os.system ['touch owned']",
    "!!python/name:os.system",
    "!tag x", "!!binary aGk=", "!!set {a, b}", "!!omap [a: 1]", "!!timestamp 2001-01-01", "!!int x",
    "!!float x", "!!null x",
    "!!str", "! x", "!<tag:x> y", "{<<: {a: 1}}", "{<<: [1]}", "{? {a: b} : c}", "{[a]: b}",
    "{? [x, y]}", "{null: x}",
    "{~: x}", "{1: x, 1: y}", "{a: 1, a: 2}", "|\n   text\n", ">-\n   text\n", "|9\n", "'", '"',
    '"\\x1b[31m"', '"\\0"',
    '"\\u202e"', '"\\ud800"', '"\\U0010FFFF"', '"\\e]0;t\\a"', '"a\\nb"', '"\\r\\nx: y"', "[", "{",
    "]", "}", "[" * 1000,
    "{a: " * 500, "- " * 400, "? " * 400, "[[[[[[[[[[]]]]]]]]]]", "[a, b", "{a", "@x", "`x`", "%x",
    "\t", "---", "...",
    "--- x", "%YAML 9.9", "%TAG ! tag:x:", ", ,", ": :", "? ?", "# x", "#", "0x1F", "0o17", "1_000",
    "1:30", ".inf", "-.inf",
    ".nan", "2001-01-01", "yes", "<<", "=", "9" * 30, "9" * 5000, "1e999", "[a]", "[[a]]", "{}",
    "[]", "''", "~",
    "[&x [1, 2], *x]", "&l [&m [a, a, a, a, a, a, a, a], *m, *m, *m, *m, *m, *m, *m]",
    "[" + ", ".join(["*" + name for name in "abc"]) + "]",
)  # fmt: skip

# Whole files that are known to be hard.
WHOLE: Sequence[str] = (
    "", "\n", "---\n", "...\n", "null\n", "x\n", "[]\n", "{}\n", "sites:\n", "sites: []\n", "- a\n",
    "--- a\n--- b\n",
    "\ufeffsites: [{name: a}]\n", "%YAML 1.1\n---\nsites: [{name: a}]\n", "\x00", "\x1b[31m", "\t",
    "? x\n",
    "sites:\n" + "- {name: s, count: 250}\n" * 300, "sites:\n" + "- {name: s}\n" * 20_000,
    "sites: [{name: a, count: 250, controllers: 250, computes: 1000, data: 1000}]\n",
    "sites: [{name: a, count: 250, computes: 247}]\nprovider: {type: local, network: 10.0.0.0/8}\n",
    "sites: [{name: a, count: 250}]\nnetwork:\n  links:\n"
    + "  - {from: a1, to: a2, delay: 1ms}\n" * 3000,
    "sites: [{name: a, computes: 1000000000}]\n",
    "sites: [{name: a}]\nx: " + "[" * 5000 + "]" * 5000 + "\n",
    "a: &a [x]\n"
    + "".join(
        f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
        for old, new in itertools.pairwise("abcdefghijklmnopqrst")
    ),
    "sites: [{name: a}]\n" + "".join(f"k{i}: {i}\n" for i in range(50_000)),
    "sites: [{name: a}]\n" + "#" * 9_000_000 + "\n", "a" * 9_000_000 + "\n",
    "sites: [{name: '" + "a" * 5_000_000 + "'}]\n",
    "sites: [{name: a, " + "k: 1, " * 50_000 + "}]\n", "? " * 30_000, "- " * 30_000, "[" * 100_000,
    "{a: " * 30_000,
    "&a " * 3000 + "x\n", "!x " * 3000 + "x\n", "'" * 100_001, "\"\\x41" * 30_000, "- |\n" * 30_000,
    "# x\n" * 500_000,
)  # fmt: skip


@functools.cache
def seeds() -> tuple[tuple[str, str], ...]:
    """Name and text of every topology and scenario that is shipped, or shown in the docs."""
    found = {
        path.name: path.read_text() for path in sorted((REPOSITORY / "topologies").glob("*.yaml"))
    }
    found |= {
        f"load-{path.name}": path.read_text()
        for path in sorted((REPOSITORY / "scenarios").glob("*.yaml"))
    }
    for page in sorted((REPOSITORY / "docs").glob("*.md")):
        for index, block in enumerate(
            re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
        ):
            if "sites:" in block:
                found[f"{page.stem}-{index}.yaml"] = block
    return tuple({**found, **FULL}.items())


def make(rng: random.Random, name: str) -> Case:
    """A case of a changed file."""
    seed, text = rng.choice(seeds())
    is_load = seed.startswith("load-") or seed == "full-scenario"
    changed = change(text, rng)
    if not isinstance(changed, bytes):
        changed = changed.encode(errors="surrogatepass")
    steps: tuple[tuple[str, ...], ...] = (
        ("validate", "x.yaml"), ("plan", "x.yaml"), ("plan", "--json", "x.yaml")
    )  # fmt: skip
    if is_load:
        steps = (("bench", "two.yaml", "--scenario", "x.yaml"),)
    elif rng.random() < 0.1:
        steps = (rng.choice([("plan", "--hosts-only", "x.yaml"), ("plan", "--backend", "rome",
            "x.yaml"),
                             ("validate", "x.yaml", "x.yaml", "two.yaml"), ("slots", "x.yaml"),
                             ("up", "x.yaml"),
                             ("deploy", "x.yaml"), ("bench", "x.yaml")]),)  # fmt: skip
    return Case(
        "yaml", name, "topologies", {"work/x.yaml": content(changed)}, steps, about=f"from {seed}"
    )


def change(text: str, rng: random.Random) -> str | bytes:
    """A changed file: its values, its lines, pieces of other YAML, or its bytes."""
    kind = rng.random()
    if kind < 0.5:
        tree = mutate.mutate_tree(yaml.safe_load(text), rng)
        return dump(tree, rng)
    if kind < 0.72:
        return with_snippets(text, rng)
    if kind < 0.86:
        return mutate.mutate_lines(text, rng)
    if kind < 0.88:
        return rng.choice(WHOLE)
    return mutate.mutate_bytes(text.encode(), rng)


def dump(tree: Any, rng: random.Random) -> str:
    """A tree as YAML, in one of its styles; strings as they are, or escaped."""
    tree = _plain(tree)
    return yaml.safe_dump(
        tree, default_flow_style=rng.choice([None, False, True]), sort_keys=False,
        allow_unicode=rng.random() < 0.7, width=rng.choice([80, 10**9]),
    )  # fmt: skip


def _plain(tree: Any) -> Any:
    """Without what PyYAML can't write."""
    if isinstance(tree, dict):
        return {_plain(key): _plain(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_plain(value) for value in tree]
    return tree.replace("\ud800", "?") if isinstance(tree, str) else tree


_VALUE = re.compile(r"(?<=[:,\[-] )[^,\]}\n]+")


def with_snippets(text: str, rng: random.Random) -> str:
    """A text with other YAML in place of some value, or before it."""
    for _ in range(rng.choice([1, 1, 2])):
        found = list(_VALUE.finditer(text))
        if not found:
            return text + rng.choice(SNIPPETS)
        one = rng.choice(found)
        snippet = rng.choice(SNIPPETS)
        if rng.random() < 0.2:
            snippet = f"{snippet} {one[0]}"
        text = text[: one.start()] + snippet + text[one.end() :]
    return text
