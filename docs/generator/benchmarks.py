"""Tables of the benchmarks, from `benchmarks/results`."""

from __future__ import annotations

import functools
import json
import statistics
from typing import Any

from docs.generator import reference
from docs.generator.blocks import ROOT, table

RESULTS = ROOT / "benchmarks/results"


@functools.cache
def read(name: str) -> dict[str, Any]:
    """Return a benchmark's file."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def provenance(name: str) -> str:
    """Return by what, when and on what a benchmark's figures were measured."""
    found = read(name)
    return (
        f"`{found['command']}`, {found['at'][:10]}, {found['cores']} cores of "
        f"{found['processor']}, {found['memory_gib']} GiB "
        f"(`benchmarks/results/{name}.json`).\n"
    )


def _sizes() -> list[str]:
    words = []
    for row in read("deploy")["rows"]:
        sites = f", {row['sites']} sites" if row["sites"] > 1 else ""
        words.append(f"{row['hosts']} hosts{sites}")
    return words


def deploy() -> str:
    """Return what a whole cloud takes, by number of hosts."""
    rows = read("deploy")["rows"]
    return table(
        ["", *_sizes()],
        [
            ["`deploy`, s", *(f"{row['first']['wall_s']:.0f}" for row in rows)],
            ["`deploy` when all is well, s", *(f"{row['again']['wall_s']:.0f}" for row in rows)],
            ["memory, GiB", *(f"{row['memory_gib']:.1f}" for row in rows)],
            ["cores when idle", *(f"{row['idle_cores']:.2f}" for row in rows)],
        ],
    )


def deploy_progress() -> str:
    """Return the progress of the largest deployment, as the command prints it."""
    row = read("deploy")["rows"][-1]
    lines, since = ["```"], 0.0
    for stage, seconds in row["first"]["stages_s"].items():
        lines.append(f"{since:6.1f} s  {stage}")
        since += seconds
    lines.append(f"{since:6.1f} s  'eight-sites' boots VMs at each of {row['sites']} sites")
    return "\n".join([*lines, "```"])


def deploy_stages() -> str:
    """Return seconds by stage of a deployment, and what it takes."""
    rows = read("deploy")["rows"]
    stages = dict.fromkeys(stage for row in rows for stage in row["first"]["stages_s"])
    lines = [
        [stage, *(f"{row['first']['stages_s'].get(stage, 0):.1f}" for row in rows)]
        for stage in stages
    ]
    for words, which, key in (
        ("in all", "first", "wall_s"),
        ("CPU of the command and Ansible", "first", "runner_cpu_s"),
        ("deployed again: in all", "again", "wall_s"),
        ("deployed again: CPU of the command and Ansible", "again", "runner_cpu_s"),
    ):
        lines.append([words, *(f"{row[which][key]:.1f}" for row in rows)])
    lines.append(["memory, GiB", *(f"{row['memory_gib']:.2f}" for row in rows)])
    lines.append(["cores when idle", *(f"{row['idle_cores']:.2f}" for row in rows)])
    return table(["seconds, by stage", *_sizes()], lines)


def deploy_services() -> str:
    """Return the memory of each service of the largest deployment."""
    row = read("deploy")["rows"][-1]
    sizes = {
        name: (cell["processes"], cell["mb_in_all"] / cell["processes"])
        for name, cell in row["services"].items()
    }
    return table(
        ["service", f"processes at {row['hosts']} hosts", "memory of each (PSS), MB"],
        [
            [name, str(count), f"{each:.0f}"]
            for name, (count, each) in sorted(sizes.items(), key=lambda item: -item[1][1])
        ],
    )


def hosts() -> str:
    """Return emulated hosts beside Mininet's."""
    found = read("hosts")

    def median(which: str, key: str) -> str:
        values = [run[key] for run in found[which] if key in run]
        return f"{statistics.median(values):.1f}" if values else ""

    lines = [
        ["a host is", "a system: systemd, journal, sshd, own root", "a namespace with an sshd"],
    ]
    for words, key in (
        ("from the command to all 64 answering over ssh, s", "up_s"),
        ("memory per host, MB (control group; PSS of Mininet's)", "memory_mb_per_host"),
        ("`up` when all is up, s", "up_again_s"),
        ("`destroy`, s", "destroy_s"),
    ):
        lines.append([words, median("hosts", key), median("mininet", key)])
    return table(["64 hosts at 8 sites", "emulated hosts", "Mininet"], lines)


def links() -> str:
    """Return how exact imposed round trips are, and a link's throughput."""
    found = read("hosts")["links"]
    ways = " and ".join(dict.fromkeys(link["imposed_by"].upper() for link in found))
    return table(
        [f"round trip asked for, all 28 pairs ({ways})",
         *(f"{link['requested_rtt_ms']:g} ms" for link in found)],
        [
            ["error of the round trip, median / worst, ms",
             *(f"{link['median_error_ms']:.2f} / {link['worst_error_ms']:.2f}" for link in found)],
            ["throughput of one TCP stream, Mbit/s",
             *(f"{link['throughput_mbit']:.0f}" for link in found)],
        ],
    )  # fmt: skip


def hundred_sites() -> str:
    """Return what a hundred sites take."""
    found = read("hundred-sites")
    plan_s = statistics.median(read("hosts")["plan_s"])
    return table(
        ["a hundred sites", ""],
        [
            ["plan of 1001 hosts and 9900 directions, interpreter included, s", f"{plan_s:.1f}"],
            [f"`./xp up --sites 100`: {found['hosts']} hosts without latency, "
             f"{found['pairs_measured']} pairs measured, s", f"{found['up_s']:g}"],
            ["memory of that, GB", f"{found['memory_gb']:g}"],
        ],
    )  # fmt: skip


def probes() -> str:
    """Return what the probes' own code costs, and what that is per VM."""
    found = read("probes")
    us, spans = found["us"], found["per_vm"]
    (run,) = (run for run in reference.runs("sites-8") if run.record.latency_ms == 10)
    per_vm = {
        "a call of the database API": ("calls", len(run.calls) / run.done),
        "a statement": ("statements", float(run.figures["statements_per_vm"])),
        "a request": ("requests", len(run.requests) / run.done),
        # The reference run is older than this probe.
        "a span": ("spans", spans["a span"]),
        "a statement in a span": ("statements", spans["a statement in a span"]),
    }
    lines = [
        [what, f"{us[what]:.2f}", f"{count:.0f} {noun}", f"{us[what] * count / 1000:.2f}"]
        for what, (noun, count) in per_vm.items()
    ]
    own_ms = sum(us[what] * count / 1000 for what, (_noun, count) in per_vm.items())
    share = own_ms / float(run.figures["cpu_ms_per_vm"])
    lines.append(["together", "", "", f"{own_ms:.2f}, {share * 100:.1f} % of a VM's"])
    return table(
        ["recorded", "CPU, µs", "per VM of the reference run at 10 ms", "CPU-ms per VM"], lines
    )


def probes_series() -> str:
    """Return what a sample costs by kind of host, and what all hosts of eight sites take."""
    runs = read("probes-series")["runs"]
    kinds = dict.fromkeys(kind for run in runs for kind in run["ms"])
    count = {"master": 1, "controller": 8, "data node": 8, "compute": 48}
    lines = [
        [kind, str(count[kind]), *(f"{run['ms'].get(kind, 0):.1f}" for run in runs)]
        for kind in kinds
    ]
    in_all = [sum(run["ms"].get(kind, 0) * count[kind] for kind in kinds) for run in runs]
    lines.append(
        ["in all", str(sum(count[kind] for kind in kinds)), *(f"{ms:.0f}" for ms in in_all)]
    )
    shares = [ms / 1000 / 5 / 2 * 100 for ms in in_all]
    lines.append(["of two cores, each 5 s", "", *(f"{share:.2f} %" for share in shares)])
    head = [f"CPU-ms per sample, {run['backend']}" for run in runs]
    return table(["host", "of them at 8 sites", *head], lines)


def probes_bench() -> str:
    """Return whole runs with the probes inside the services off and on."""
    found = read("probes-bench")["runs"]
    return table(
        ["probes", *(f"`{run['probes']}`" if run["probes"] != "all" else "all" for run in found)],
        [
            ["CPU-ms per VM, read by `usage`", *(f"{run['cpu_ms_per_vm']:g}" for run in found)],
            ["to create 60 VMs, s", *(f"{run['duration_s']:.1f}" for run in found)],
        ],
    )


def time_scale() -> str:
    """Return the same loads at several time scales, and what became of their seconds."""
    lines = []
    for row in read("time-scale")["rows"]:
        scaled, natural = row["scaled"], row["natural"]
        at_once = "all" if row["at_once"] is None else row["at_once"]
        lines.append(
            [
                f"{row['vms']} VMs, {at_once} at a time",
                f"{row['time_scale']:g}",
                f"{scaled['median_s']:.2f}",
                f"{scaled['p90_s']:.2f}",
                f"{scaled['load_s']:.1f}",
                f"{natural['load_s']:.0f}",
                f"{row['busy'] * 100:.0f} %",
                f"{row['saturated'] * 100:.0f} %",
                row["verdict"],
                f"{row['per_vm']['cpu_ms']:.0f}",
                f"{row['per_vm']['crossings']:.0f}",
                f"{row['wall_s'] / 60:.0f}",
            ]
        )
    head = ["load", "K", "a boot, median, s", "P90, s", "the load, s", "by a clock, s", "busy",
            "saturated", "verdict", "CPU-ms per VM", "crossings per VM",
            "the whole bench, min"]  # fmt: skip
    return table(head, lines)


def placement() -> str:
    """Return how full the fullest compute gets, by how the scheduler chooses."""
    return table(
        ["a compute is", "runs", "VMs on the fullest compute"],
        [
            [draw["chosen"], str(draw["runs"]), str(draw["fullest_host_vms"])]
            for draw in read("placement")["draws"]
        ],
    )


def tests() -> str:
    """Return how long all tests take."""
    found = read("tests")
    return (
        f"`{found['command']}` took {found['minutes']} minutes on {found['cores']} cores "
        f"({found['at'][:10]}, `benchmarks/results/tests.json`).\n"
    )
