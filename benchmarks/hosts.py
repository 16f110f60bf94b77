"""How fast, how small and how exact emulated hosts are; a table, and nothing asserted.

Brings eight sites of eight hosts up (as root), the same with Mininet beside it in the
same run, plans a hundred sites, measures every pair's round trip and the throughput of
a link in user space, and destroys all.  Times are for the comparison within a run.

    ./.venv/bin/python benchmarks/hosts.py [--repeats 3] [--json FILE] [--figure FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import provenance

ROOT = Path(__file__).parents[1]

SIXTY_FOUR = """
name: bench-hosts
sites: [{name: site, count: 8, controllers: 1, computes: 6, data: 1}]
master: none
network: {delay: DELAY}
"""


def discovery_xp(*arguments: str) -> str:
    """Run the command line, and return its output."""
    command = [sys.executable, "-m", "discovery_xp.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {done.stderr}")
    return done.stdout


def timed(*arguments: str) -> float:
    """Return the seconds that a command takes."""
    started = time.monotonic()
    discovery_xp(*arguments)
    return time.monotonic() - started


def available_bytes() -> int:
    """Return the memory that is available without swapping."""
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024


def write_topology(folder: str, delay: str) -> str:
    """Write a topology of 64 hosts, and return its path."""
    path = Path(folder) / "bench-hosts.yaml"
    path.write_text(SIXTY_FOUR.replace("DELAY", delay))
    return str(path)


def measure_hosts(path: str) -> dict[str, float]:
    """Measure one life of 64 hosts without links: up, up again, status, destroy."""
    before = available_bytes()
    up_s = timed("up", path)
    status = json.loads(discovery_xp("status", "--json"))
    charged = [host["memory_bytes"] for host in status["hosts"].values()]
    taken = before - available_bytes()
    return {
        "up_s": up_s,
        "memory_mb_per_host": sum(charged) / len(charged) / 1e6,
        "machine_memory_mb_per_host": taken / len(charged) / 1e6,
        "up_again_s": timed("up", path),
        "destroy_s": timed("destroy"),
    }


def measure_mininet() -> dict[str, Any] | None:
    """Measure the same number of hosts with Mininet; return None where it isn't installed."""
    command = [
        "/usr/bin/python3", str(ROOT / "benchmarks/mininet_hosts.py"),
        "--sites", "8", "--hosts-per-site", "8", "--json",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"(no Mininet: {done.stderr.strip().splitlines()[-1]})", file=sys.stderr)
        return None
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure_links(folder: str, delay: str) -> dict[str, Any]:
    """Measure the round trips of all 28 pairs, and the throughput of one link."""
    path = write_topology(folder, delay)
    discovery_xp("up", path)
    pairs = json.loads(discovery_xp("network", "measure", "--json"))
    errors = [abs(pair["observed_ms"] - pair["requested_ms"]) for pair in pairs]
    wan = json.loads(discovery_xp("network", "show", "--json"))["imposed_by"]
    discovery_xp("ssh", "site2-compute-1", "iperf3 -s -D >/dev/null 2>&1 </dev/null")
    flow = "iperf3 -c site2-compute-1 -t 5 -J"
    report = json.loads(discovery_xp("ssh", "site1-compute-1", flow))
    figures = {
        "requested_rtt_ms": pairs[0]["requested_ms"],
        "imposed_by": wan,
        "median_error_ms": statistics.median(errors),
        "worst_error_ms": max(errors),
        "throughput_mbit": report["end"]["sum_received"]["bits_per_second"] / 1e6,
        "pairs": pairs,
    }
    discovery_xp("destroy")
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("run it as root")
    with tempfile.TemporaryDirectory() as folder:
        plain = write_topology(folder, "0ms")
        discovery_xp("up", plain)  # builds the root tree, if need be
        discovery_xp("destroy")
        ours, mininet, plans = [], [], []
        for _ in range(options.repeats):
            ours.append(measure_hosts(plain))
            beside = measure_mininet()
            if beside is not None:
                mininet.append(beside)
            plans.append(timed("plan", "--json", "topologies/hundred-sites.yaml"))
        links = [measure_links(folder, delay) for delay in ("0ms", "5ms", "10ms", "50ms")]
    print_report(ours, mininet, plans, links)
    if options.json:
        everything = {"hosts": ours, "mininet": mininet, "plan_s": plans, "links": links}
        provenance.write(options.json, "benchmarks/hosts.py", everything)
    if options.figure:
        draw(ours, mininet, links, options.figure)


def draw(
    ours: list[dict[str, float]],
    mininet: list[dict[str, Any]],
    links: list[dict[str, Any]],
    target: Path,
) -> None:
    """Draw each pair's error of the round trip, and 64 hosts beside Mininet's."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9, 3.2), width_ratios=[3, 2], layout="constrained"
    )
    shown = [link for link in links if link["requested_rtt_ms"]]
    for column, link in enumerate(shown):
        for index, pair in enumerate(link["pairs"]):
            x = column + (index - len(link["pairs"]) / 2) / 40
            middle = pair["observed_ms"] - pair["requested_ms"]
            ends = [pair["least_ms"] - pair["requested_ms"], pair["most_ms"] - pair["requested_ms"]]
            left.plot([x, x], ends, color="tab:blue", alpha=0.25, linewidth=1.5)
            left.plot([x], [middle], ".", color="tab:blue", markersize=4)
        allowed = link["pairs"][0]["allowed_ms"]
        for bound in (-allowed, allowed):
            left.plot([column - 0.4, column + 0.4], [bound, bound], "--", color="tab:red", lw=1)
    left.axhline(0, color="gray", linewidth=0.8)
    names = [f"{link['requested_rtt_ms']:g} ms" for link in shown]
    left.set_xticks(range(len(shown)), names)
    left.set_xlabel("round trip requested")
    left.set_ylabel("observed less requested, ms")
    left.set_title("28 pairs of 8 sites: median and range of 20 pings", fontsize=9)
    runs = {"emulated hosts": ours, "Mininet": mininet}
    for offset, (name, figures) in enumerate(runs.items()):
        values = [
            statistics.median(run[key] for run in figures) if figures else 0.0
            for key in ("up_s", "memory_mb_per_host")
        ]
        places = [place + 0.36 * offset for place in range(2)]
        right.bar_label(right.bar(places, values, 0.34, label=name), fmt="%.1f", fontsize=8)
    right.set_xticks([0.18, 1.18], ["64 hosts up, s", "memory per host, MB"])
    right.set_title("systems beside bare namespaces", fontsize=9)
    right.margins(y=0.25)
    right.legend(fontsize=8, loc="upper center", ncols=2)
    figure.savefig(target, dpi=120)


def spread(values: list[float]) -> str:
    """Return 'median (least - most)'."""
    return f"{statistics.median(values):8.2f}  ({min(values):.2f} - {max(values):.2f})"


def print_report(
    ours: list[dict[str, float]],
    mininet: list[dict[str, Any]],
    plans: list[float],
    links: list[dict[str, Any]],
) -> None:
    """Print the tables: median and range of the repeats."""
    print(f"64 hosts at 8 sites, {len(ours)} runs on {os.cpu_count()} cores: median (range)")
    for key in ours[0]:
        print(f"  emulated hosts, {key:28} {spread([run[key] for run in ours])}")
    for key in ("up_s", "memory_mb_per_host") if mininet else ():
        print(f"  Mininet, {key:35} {spread([run[key] for run in mininet])}")
    print(f"  plan of hundred-sites, s{'':23} {spread(plans)}")
    print("links of all 28 pairs:")
    for link in links:
        print(
            f"  rtt {link['requested_rtt_ms']:5.0f} ms by {link['imposed_by']}: error "
            f"{link['median_error_ms']:.2f} ms median, {link['worst_error_ms']:.2f} ms worst; "
            f"throughput of one {link['throughput_mbit']:.0f} Mbit/s"
        )


if __name__ == "__main__":
    main()
