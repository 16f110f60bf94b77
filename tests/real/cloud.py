"""What tests of clouds have in common: a deployment, its end by a kill, looks at its hosts."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from discovery_xp.deployment import schemas
from tests.real.conftest import HOME, Cli
from tests.waiting import WITHIN_S


def deploy(cli: Cli, path: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    # The first one may have to build the hosts' root tree.
    return cli.run("deploy", path, code=code, timeout_s=900)


def small_bench(cli: Cli, path: str, folder: Path) -> Path:
    """Boot four VMs on a cloud that is up, with all probes; return the run's folder."""
    scenario, results = folder / "small.yaml", folder / "results"
    # What counts here is that something was counted.  Without a warm-up the first claims of a new
    # user meet each other.
    scenario.write_text("kind: boot\nvms: 4\nwarm_up: 0\n")
    cli.run("bench", path, "--scenario", str(scenario), "--keep", "--results", str(results),
            timeout_s=900)  # fmt: skip
    (experiment,) = results.iterdir()
    (run,) = experiment.iterdir()
    return run


def keep_schemas(cli: Cli) -> None:
    """Make a cloud `schemas` on hosts that are new, which keeps what its migrations made."""
    schemas.file().unlink(missing_ok=True)
    deploy(cli, cli.topology("schemas", "name: schemas\nsites: [{name: a, data: 0}]\n"))


def is_loaded(testbed: str) -> dict[str, bool]:
    """By database: whether the last deployment loaded it."""
    log = (HOME / "testbeds" / testbed / "ansible.log").read_text()
    stage = log.rpartition("STAGE schemas")[2].partition(" STAGE ")[0]
    found = re.findall(r'"name": "(\w+)"[^}]*?"is_loaded": (true|false)', stage)
    return {name: value == "true" for name, value in found}


def kill_in(cli: Cli, stage: str, *command: str) -> None:
    """Start a command and kill it while it is in `stage`."""
    process = cli.start(*command)
    assert process.stderr is not None
    for line in process.stderr:
        if stage in line:
            break
    else:
        raise AssertionError(f"it never came to '{stage}'")
    time.sleep(1.5)
    process.send_signal(signal.SIGKILL)
    assert process.wait(WITHIN_S) == -signal.SIGKILL
    process.stderr.close()


def kill_host(testbed: str, host: str) -> None:
    """End all of a host's processes at once, as a power cut would."""
    for tree in [*Path("/sys/fs/cgroup").iterdir(), Path("/sys/fs/cgroup")]:
        group = tree / "discovery-xp" / testbed / f"host.{host}"
        for _ in range(50):
            found = [file for file in group.rglob("cgroup.procs") if file.read_text().strip()]
            if not found:
                break
            for file in found:
                for pid in file.read_text().split():
                    subprocess.run(["kill", "-KILL", pid], check=False, stderr=subprocess.DEVNULL)
            time.sleep(0.1)


def on(cli: Cli, host: str, command: str) -> str:
    return cli.on(host, command)


def fill_disk(cli: Cli, host: str, file: str) -> None:
    """Leave next to nothing of a host's disk; the file takes it."""
    script = f"for size in 1M 64k 4k 1k; do dd if=/dev/zero of={file} bs=$size oflag=append "
    script += f"conv=notrunc 2>/dev/null; sync; done; df --output=avail {file}"
    assert int(on(cli, host, script).split()[-1]) < 1024  # KiB


def status(cli: Cli, code: int = 0) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(cli.run("status", "--json", code=code).stdout)
    return report


def files_with(secrets: list[str], folder: Path) -> list[str]:
    return sorted(
        path.name
        for path in folder.rglob("*")
        if path.is_file()
        and "hosts" not in path.relative_to(folder).parts[:1]
        and any(secret.encode() in path.read_bytes() for secret in secrets)
    )
