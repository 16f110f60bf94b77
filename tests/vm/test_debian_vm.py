"""The whole way on an ordinary Debian 12: systemd, control groups version 2, tc netem.

Everything happens in one virtual machine, one step after the other, as a user would do it;
the tests then look at what the steps printed.
"""

from __future__ import annotations

import json
import shlex
import sys
from typing import Any

import pytest

from discovery_xp.places import cache
from discovery_xp.providers.local.cgroups import DEFAULT_MEMORY_SHARE
from tests.debian_vm import missing_requirement, run_on_debian
from tests.netem_vm import StepResult

# Preparing the disk comes on top of the machine's own limit.
pytestmark = [pytest.mark.vm, pytest.mark.long, pytest.mark.timeout(2400)]

# Emulated in software, the hosts themselves are slow to answer.
TOPOLOGY = """
name: ordinary
sites: [{name: near}, {name: far}]
master: none
network:
  delay: 20ms
  tolerance: {absolute: 15ms, relative: 20%}
provider:
  type: local
  limits:
    compute: {memory: 128MiB, cpus: 0.5}
"""

PAGE_BYTES = 4096

HOSTS = {"near-controller-1", "near-compute-1", "far-controller-1", "far-compute-1"}

GROUPS = "/sys/fs/cgroup/discovery-xp/ordinary"

XP = f"{shlex.quote(sys.executable)} -m discovery_xp.cli"

TRACES = """
ls -d /run/netns/dxp.* /sys/class/net/dxp* /sys/fs/cgroup/discovery-xp /var/lib/discovery-xp
grep -l discovery-xp /proc/[0-9]*/cgroup
grep -h discovery-xp/testbeds /proc/[0-9]*/mounts
true
"""

# The group is empty once the emulated host's own supervisor has gone, too.
KILL_INIT = f"""
group={GROUPS}/host.far-compute-1
kill -KILL "$(head -n 1 $group/payload/init.scope/cgroup.procs)"
for attempt in $(seq 100); do
    grep -q 'populated 0' $group/cgroup.events && exit 0
    sleep 0.2
done
exit 1
"""

# What `deploy` does with services, done with one unit: held by the host's systemd, read back.
HOLD_SHARE = """
import dataclasses, json, subprocess, time
from discovery_xp.planning.shares import HostShare
from discovery_xp.providers.local import containers, shares
from discovery_xp.testbeds.shares import disagreements
from discovery_xp.testbeds.testbed import Testbed

def run_each(commands):
    for host, command in commands.items():
        subprocess.run(["ssh", "-F", Testbed("ordinary").ssh_config, host, command], check=True)

host = "near-controller-1"
groups, planned = {host: containers.group(host)}, [HostShare(host, 2.0, {"burner": 1.0})]
run_each({host: "systemd-run --quiet --unit=burner sh -c 'while :; do :; done'"})
said = {}
for name in ("imposed", "lifted"):
    if name == "imposed":
        shares.impose("ordinary", groups, planned, 4.0, run_each)
    else:
        shares.lift("ordinary", groups, planned, run_each)
    for attempt in range(10):
        held = shares.held("ordinary", groups, planned, 4.0)
        if (name == "imposed") == (not disagreements(planned, held)):
            break
        time.sleep(0.5)
    said[name] = [dataclasses.asdict(each) for each in held]
    said[name + " wrong"] = disagreements(planned, held)
run_each({host: "systemctl stop burner"})
print(json.dumps(said))
"""

SHOW_QDISCS = f"{XP} ssh near-compute-1 tc qdisc show dev eth0"

STEPS = {
    "control groups": "stat -fc %T /sys/fs/cgroup",
    "first process": "cat /proc/1/comm",
    "launcher": f"DISCOVERY_XP_VENV={shlex.quote(sys.prefix)} PIP_NO_INDEX=1 ./xp --version",
    "write topology": f"cat >/root/ordinary.yaml <<'END'\n{TOPOLOGY}END\n",
    "up": f"{XP} up /root/ordinary.yaml",
    "traces while up": TRACES,
    "status": f"{XP} status --json",
    "show": f"{XP} network show --json",
    "measure": f"{XP} network measure --json",
    "limits": f"cd {GROUPS}/host.near-compute-1 && cat memory.max cpu.max",
    "default limits": f"cd {GROUPS}/host.near-controller-1 && cat memory.max cpu.max",
    "write share": f"cat >/root/share.py <<'END'\n{HOLD_SHARE}END\n",
    "share": f"PYTHONPATH=. {shlex.quote(sys.executable)} /root/share.py",
    "memory": "grep MemTotal /proc/meminfo",
    "set": f"{XP} network set --from near --to far "
    "--delay 60ms --jitter 2ms --rate 100mbit --loss 1%",
    "show after set": f"{XP} network show --json",
    "qdiscs after set": SHOW_QDISCS,
    "reset": f"{XP} network reset",
    "qdiscs after reset": SHOW_QDISCS,
    "kill": KILL_INIT,
    "status after kill": f"{XP} status --json",
    "up again": f"{XP} up /root/ordinary.yaml",
    "status after repair": f"{XP} status --json",
    "destroy": f"{XP} destroy",
    "traces after destroy": TRACES,
    "failed units": "systemctl list-units --failed --plain --no-legend",
}

Results = dict[str, StepResult]


@pytest.fixture(scope="module")
def results() -> Results:
    reason = missing_requirement()
    if reason is not None:
        pytest.skip(reason)
    return run_on_debian(STEPS, cache_dir=cache() / "test-debian", timeout_s=1800)


def printed(results: Results, name: str, exit_code: int = 0) -> str:
    """What a step printed; fails with all that it said unless it ended as it should."""
    result = results[name]
    assert result.exit_code == exit_code, (
        f"'{name}' ended with {result.exit_code}\n{result.stdout}\n{result.stderr}"
    )
    return result.stdout


def read(results: Results, name: str, exit_code: int = 0) -> Any:
    return json.loads(printed(results, name, exit_code))


def test_the_machine_is_an_ordinary_debian(results: Results) -> None:
    assert printed(results, "control groups") == "cgroup2fs\n"
    assert printed(results, "first process") == "systemd\n"


def test_the_listed_packages_are_all_that_the_launcher_wants(results: Results) -> None:
    assert "discovery-xp" in printed(results, "launcher")
    assert results["launcher"].stderr == ""


def test_up_imposes_links_by_netem(results: Results) -> None:
    assert "imposed by netem, all within tolerance" in printed(results, "up")


def test_every_host_is_up(results: Results) -> None:
    report = read(results, "status")
    assert report["is_healthy"]
    assert set(report["hosts"]) == HOSTS
    for host in report["hosts"].values():
        assert host["is_running"]
        assert host["answers"]
        assert host["memory_bytes"] > 2**20


def test_what_is_imposed_is_read_back(results: Results) -> None:
    report = read(results, "show")
    assert report["imposed_by"] == "netem"
    assert report["disagreements"] == []
    assert len(report["read_back"]) == len(HOSTS)
    assert {reading["link"]["delay_ms"] for reading in report["read_back"]} == {20}


def test_round_trips_are_those_asked_for(results: Results) -> None:
    (pair,) = read(results, "measure")
    assert pair["requested_ms"] == 40
    assert 40 <= pair["observed_ms"] <= 55
    assert pair["lost"] == 0


def test_limits_are_those_of_the_topology(results: Results) -> None:
    assert printed(results, "limits") == f"{128 * 2**20}\n50000 100000\n"
    memory, cpus = printed(results, "default limits").splitlines()
    of_machine = int(printed(results, "memory").split()[1]) * 1024 * DEFAULT_MEMORY_SHARE
    assert of_machine - PAGE_BYTES <= int(memory) <= of_machine
    assert cpus == "max 100000"


def test_shares_of_the_processor_are_held_by_the_hosts_systemd(results: Results) -> None:
    said = read(results, "share")
    assert said["imposed wrong"] == []
    cores = {each["unit"]: each["cores"] for each in said["imposed"]}
    assert cores == {"": pytest.approx(2, rel=0.02), "burner": pytest.approx(1, rel=0.02)}
    assert said["lifted"] == []


def test_a_changed_link_is_read_back(results: Results) -> None:
    printed(results, "set")
    report = read(results, "show after set")
    assert report["disagreements"] == []
    there, back = (
        [reading["link"] for reading in report["read_back"] if reading["source"] == source]
        for source in ("near", "far")
    )
    changed = {"delay_ms": 60, "jitter_ms": 2, "loss_percent": 1, "rate_mbit": 100}
    assert there == [pytest.approx(changed)] * 2
    assert {link["delay_ms"] for link in back} == {20}
    qdiscs = printed(results, "qdiscs after set")
    assert "qdisc htb 1: root" in qdiscs
    assert "delay 60ms  2ms loss 1%" in qdiscs


def test_reset_leaves_no_shaping(results: Results) -> None:
    printed(results, "reset")
    qdiscs = printed(results, "qdiscs after reset")
    assert "qdisc" in qdiscs
    assert "htb" not in qdiscs
    assert "netem" not in qdiscs


def test_a_dead_host_is_noticed_and_repaired(results: Results) -> None:
    printed(results, "kill")
    hosts = read(results, "status after kill", exit_code=1)["hosts"]
    assert {name for name, host in hosts.items() if not host["is_running"]} == {"far-compute-1"}
    assert "imposed by netem, all within tolerance" in printed(results, "up again")
    assert read(results, "status after repair")["is_healthy"]


def test_destroy_leaves_nothing(results: Results) -> None:
    while_up = printed(results, "traces while up")
    for trace in ("/run/netns/dxp.", "/sys/class/net/dxp", "/proc/", " overlay ", "cgroup/"):
        assert trace in while_up
    printed(results, "destroy")
    assert printed(results, "traces after destroy") == ""
    assert printed(results, "failed units") == ""
