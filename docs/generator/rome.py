"""Tables of ROME's benchmarks and test results, from `rome/`."""

from __future__ import annotations

import ast
import functools
import json
import statistics
from typing import Any

from docs.generator.blocks import ROOT, table

BENCHMARKS = ROOT / "rome/benchmarks/results"
SUITES = ROOT / "rome/tests/openstack/results"

# The benchmark's name of an operation, and the reader's.
_SHOWN = {
    "primary-key first() (service_get)": "one row by its key",
    "insert one row (certificate_create)": "one row inserted",
    "block_device_mapping_create": "one row inserted, with a unique or foreign key",
    "instance_get_by_uuid": "instance_get_by_uuid",
    "instance_create (15 rows)": "instance_create (15 rows)",
    "instance_update": "instance_update",
    "instance_destroy": "instance_destroy",
    "count + sum over 300 rows (quota)": "count and sum over 300 rows",
    "list, 200 of 1000": "list, 200 of 1000",
    "list by metadata, 15 of 300": "list by metadata, 15 of 300",
    "GET /allocation_candidates (48 hosts)": "allocation candidates, 48 hosts",
    "PUT /allocations (a new claim)": "a claim of allocations",
}
_DELAYS = ("0.0", "10.0", "50.0")
_SUITES = {
    "nova-unit": "`nova.tests.unit.db`",
    "nova-functional": "`nova.tests.functional.db`",
    "placement": "Placement",
    "glance": "Glance",
    "keystone": "Keystone",
    "neutron": "Neutron",
}


@functools.cache
def read(name: str) -> dict[str, Any]:
    """Return a benchmark's file."""
    found: dict[str, Any] = json.loads((BENCHMARKS / f"{name}.json").read_text())
    return found


def _ratio(operation: dict[str, Any], delay: str) -> float:
    """Return the median time on ROME divided by that on MariaDB."""
    rome, mariadb = (
        statistics.median(operation["measured"][name][delay]["samples_ms"])
        for name in ("ROME", "MariaDB")
    )
    return float(rome / mariadb)


def operations() -> str:
    """Return the ratios of some operations, and the worst and the number of all."""
    measured = {each["name"]: each for each in read("operations")["operations"]}
    rows = [
        [words, *(f"{_ratio(measured[name], delay):.2f}" for delay in _DELAYS),
         f"{measured[name]['target']:g}"]
        for name, words in _SHOWN.items()
    ]  # fmt: skip
    worst = [max(_ratio(each, delay) for each in measured.values()) for delay in _DELAYS]
    rows.append([f"the slowest of all {len(measured)}", *(f"{ratio:.2f}" for ratio in worst), ""])
    return table(["ROME / MariaDB, time", "0 ms", "10 ms", "50 ms", "target"], rows)


def _constant(module: str, name: str) -> int:
    """Return a constant of a benchmark's module, such as its target."""
    tree = ast.parse((BENCHMARKS.parent / f"{module}.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return int(ast.literal_eval(node.value))
    raise KeyError(f"{module}.py has no {name}")


def costs() -> str:
    """Return round trips of a boot, aborts of a hot row, memory of an instance."""
    boots, memory = read("boot")["boots"], read("memory")["memory"]
    turns = {
        name: f"{statistics.mean(each['turns'] for each in boots[name]):.0f}"
        for name in ("ROME", "MariaDB")
    }
    aborts = {
        name: str(sum(each["aborts"] for each in read("hot_row")["outcomes"]
                      if each["backend"] == name))
        for name in ("ROME", "MariaDB")
    }  # fmt: skip
    return table(
        ["", "ROME", "MariaDB", "target"],
        [
            ["round trips of one boot, Nova and Placement", turns["ROME"], turns["MariaDB"],
             f"{_constant('boot', 'TARGET')}"],
            ["aborts of 4 x 200 increments of one row", aborts["ROME"], aborts["MariaDB"],
             f"{_constant('hot_row', 'TARGET')}"],
            ["memory of an instance (15 rows), KiB",
             f"{memory['redis']:.1f}", f"{memory['mariadb']:.1f}",
             f"{_constant('memory', 'TARGET_KIB')}"],
        ],
    )  # fmt: skip


def schema_costs() -> str:
    """Return round trips of work on the schema, before and now."""
    found = read("schema_costs")
    names = {
        "create_all": "`create_all`",
        "reflection": "reflection",
        "rome dump": "`rome dump`",
        "rome check": "`rome check`",
        "rome load": "`rome load`",
        "rome drop": "`rome drop`",
    }
    head = ["round trips with 40 tables", *names.values()]
    return table(
        head,
        [
            [words, *(str(found[key]["40"][name][0]) for name in names)]
            for words, key in (("before", "before"), ("now", "costs"))
        ],
    )


def suites() -> str:
    """Return how many of OpenStack's own tests pass, on SQLite and on ROME."""
    rows = []
    for file, words in _SUITES.items():
        found = json.loads((SUITES / f"{file}.json").read_text())
        package = {"nova-unit": "nova", "nova-functional": "nova", "placement":
                   "openstack-placement"}.get(file, file)  # fmt: skip
        rows.append(
            [
                f"{words} ({package} {found['versions'][package]})",
                str(found["pass_on_sqlite"]),
                str(found["pass_on_rome"]),
                f"{found['threshold']:.0f} %",
            ]
        )
    return table(["suite", "on SQLite", "on ROME", "target"], rows)
