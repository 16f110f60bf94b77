"""How long a deployment takes as hosts are added, and what the cloud takes when it is idle.

Deploys sites as in the paper from a warm cache, several sizes in turn, each from nothing,
deploys again over what is up (where Ansible's own part shows: nothing is left to do), looks
at CPU and memory of the idle cloud, and destroys it.  Nothing is asserted.

    ./.venv/bin/python benchmarks/deploy.py [--sites 0,2,4,8] [--latency 10ms] [--json FILE]

`--json benchmarks/results/deploy.json`, and then `./xp docs`, bring the figures into the documents.

0 sites stands for the smallest cloud: master, controller, compute and data node at one site.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import provenance

ROOT = Path(__file__).parents[1]
SETTLE_S = 20
WATCH_S = 40

TOPOLOGY = """
name: bench-deploy
sites: [{name: site, count: COUNT, controllers: 1, computes: COMPUTES, data: 1}]
network: {delay: DELAY}
"""


def discovery_xp(*arguments: str) -> str:
    """Run the command line, and return its output."""
    command = [sys.executable, "-m", "discovery_xp.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {done.stderr}")
    return done.stdout


def deploy(path: str) -> dict[str, Any]:
    """Deploy, and return wall seconds, CPU seconds of the command, and the deployment's record."""
    cpu = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    discovery_xp("deploy", path)
    taken = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    folder = Path(discovery_xp("inventory", "--path").strip()).parent
    record = json.loads((folder / "deployment.json").read_text())
    return {
        "wall_s": round(taken, 1),
        # The command, Ansible and their ssh clients; the hosts' side isn't in it.
        "runner_cpu_s": round(after.ru_utime + after.ru_stime - cpu.ru_utime - cpu.ru_stime, 1),
        "stages_s": record["stages_s"],
        "changes": record["changes"],
    }


def available_bytes() -> int:
    """Return the memory that is available without swapping."""
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024


def busy_cores(seconds: float) -> float:
    """Return how many cores the machine uses on average over the next seconds."""

    def used() -> int:
        fields = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
        return sum(fields) - fields[3] - fields[4]  # all but idle and waiting for the disk

    before = used()
    time.sleep(seconds)
    return (used() - before) / 100 / seconds


KINDS = {
    "nova-compute": "bin/nova-compute",
    "nova-conductor": "bin/nova-conductor",
    "nova-scheduler": "bin/nova-scheduler",
    "nova-api": "gunicorn:nova",
    "keystone-api": "gunicorn:keystone",
    "glance-api": "gunicorn:glance",
    "placement-api": "gunicorn:placement",
    "neutron-api": "gunicorn:neutron",
    "mariadb": "mariadbd",
    "redis": "redis-server",
    "rabbitmq-server": "beam.smp",
    "memcached": "memcached",
}


def memory_by_service() -> dict[str, dict[str, float]]:
    """Return the number of each service's processes and the sum of their proportional set sizes."""
    found: dict[str, list[int]] = {}
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            command = (process / "cmdline").read_text().replace("\0", " ")
            if command.startswith("gunicorn:") or "/gunicorn" in command:
                folder = (process / "cwd").resolve().name
                command = f"gunicorn:{folder}"
            rollup = (process / "smaps_rollup").read_text()
            pss = next(int(line.split()[1]) for line in rollup.splitlines() if "Pss:" in line)
        except (OSError, StopIteration):
            continue
        for kind, mark in KINDS.items():
            if mark in command:
                found.setdefault(kind, []).append(pss * 1024)
    return {
        kind: {"processes": len(sizes), "mb_in_all": round(sum(sizes) / 1e6, 1)}
        for kind, sizes in sorted(found.items())
    }


def measure(sites: int, latency: str, folder: str) -> dict[str, Any]:
    """Measure one size: deployed from nothing, deployed again, idle, destroyed."""
    text = TOPOLOGY.replace("DELAY", latency)
    text = text.replace("COUNT", str(sites or 1)).replace("COMPUTES", "6" if sites else "1")
    path = Path(folder) / "bench-deploy.yaml"
    path.write_text(text)
    before = available_bytes()
    first = deploy(str(path))
    again = deploy(str(path))
    time.sleep(SETTLE_S)
    figures = {
        "sites": sites or 1,
        "hosts": len(json.loads(discovery_xp("status", "--json"))["hosts"]),
        "first": first,
        "again": again,
        "idle_cores": round(busy_cores(WATCH_S), 2),
        "memory_gib": round((before - available_bytes()) / 2**30, 2),
        "services": memory_by_service(),
    }
    discovery_xp("destroy")
    return figures


def main() -> None:
    """Measure all sizes and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", default="0,2,4,8")
    parser.add_argument("--latency", default="10ms")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            measure(int(count), arguments.latency, folder) for count in arguments.sites.split(",")
        ]
    if arguments.json:
        figures = {"latency": arguments.latency, "rows": rows}
        provenance.write(arguments.json, "benchmarks/deploy.py", figures)
    stages = list(dict.fromkeys(stage for row in rows for stage in row["first"]["stages_s"]))
    hosts = " | ".join(f"{row['hosts']} hosts" for row in rows)
    print(f"| {arguments.latency} one-way, seconds | {hosts} |")
    print("|---|" + "---|" * len(rows))
    for stage in stages:
        cells = " | ".join(f"{row['first']['stages_s'].get(stage, 0):.1f}" for row in rows)
        print(f"| {stage} | {cells} |")
    for label, key, part in (
        ("in all", "first", "wall_s"),
        ("CPU of the command and Ansible", "first", "runner_cpu_s"),
        ("deployed again: in all", "again", "wall_s"),
        ("deployed again: CPU of the command and Ansible", "again", "runner_cpu_s"),
    ):
        print(f"| {label} | {' | '.join(str(row[key][part]) for row in rows)} |")
    print(f"| memory, GiB | {' | '.join(str(row['memory_gib']) for row in rows)} |")
    print(f"| cores when idle | {' | '.join(str(row['idle_cores']) for row in rows)} |")
    print("\n| service, MB each (PSS) | hosts: MB |")
    print("|---|---|")
    for kind in rows[-1]["services"]:
        cell = rows[-1]["services"][kind]
        print(f"| {kind} | {cell['processes']} processes, {cell['mb_in_all']} MB in all |")


if __name__ == "__main__":
    main()
