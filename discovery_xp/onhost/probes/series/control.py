"""Starting the sampler of this host, stopping it, and what it wrote.

It is a transient unit of systemd: it outlives the connection that started it, can't outlive its
time, and nothing of it is on the host after its end but its records.
"""

from __future__ import annotations

import base64
import dataclasses
import glob
import gzip
import json
import os
import shutil
import sys
from collections.abc import Iterable

from ... import catalogue, systemd
from ...process import Failure, run, succeeds
from .. import places
from .sampler import Spec

UNIT = "discovery-xp-series"
FOLDER = f"{places.RECORDS}/series"
SAMPLES = f"{FOLDER}/samples"
# Where the Redis processes of a cloud have their configurations, by unit; see the role `redis`.
REDIS_FILES = "/etc/redis/discovery-xp"


def start(unit_names: Iterable[str], every_s: float, longest_s: float) -> None:
    """Sample these units from now on; raises Failure where that can't be."""
    stop()
    shutil.rmtree(FOLDER, ignore_errors=True)
    os.makedirs(FOLDER, mode=0o700)
    groups = {name: state["ControlGroup"] for name, state in systemd.show(unit_names).items()}
    redis = {
        name: f"{REDIS_FILES}/{name}.conf"
        for name in groups
        if name in catalogue.UNITS and catalogue.UNITS[name].component == "redis"
    }
    spec = Spec(every_s, longest_s, groups, redis, SAMPLES)
    with open(f"{FOLDER}/spec.json", "w", encoding="utf-8") as file:
        json.dump(dataclasses.asdict(spec), file)
    run([
        "systemd-run", f"--unit={UNIT}", "--quiet", "--collect",
        f"--property=RuntimeMaxSec={longest_s + 60:.0f}", "--property=TimeoutStopSec=15",
        # Only the sampler is told to end: it ends its clients after its last sample.
        "--property=KillMode=mixed", "--property=MemoryMax=512M",
        f"--setenv=PYTHONPATH={places.CODE}", "--setenv=HOME=/root",
        sys.executable, "-S", "-m", "discovery_xp.onhost.probes.series.sampler",
        f"{FOLDER}/spec.json",
    ])  # fmt: skip


def stop() -> None:
    """End the sampler, whether it runs or not; what it wrote stays."""
    succeeds(["systemctl", "stop", UNIT])
    succeeds(["systemctl", "reset-failed", UNIT])


def packed() -> str:
    """Return the samples, compressed, as base64; raises Failure where there are none."""
    try:
        with open(SAMPLES, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raise Failure("the series weren't sampled here") from None
    return base64.b64encode(gzip.compress(data, 6)).decode()


def problems() -> list[str]:
    """Return what the sampler couldn't read, a line for each source."""
    lines: list[str] = []
    for path in glob.glob(f"{SAMPLES}.problems"):
        with open(path, encoding="utf-8", errors="replace") as file:
            lines += [f"series: {line.strip()[:300]}" for line in file]
    return lines


def forget() -> None:
    """Remove what was written."""
    shutil.rmtree(FOLDER, ignore_errors=True)
