"""One small testbed, looked at from all sides; then hosts and links die and are repaired."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from discovery_xp.errors import Failed
from discovery_xp.places import cache
from discovery_xp.providers.local import disks
from discovery_xp.testbeds import links
from tests.real import listening
from tests.real.conftest import HOME, Cli
from tests.real.traces import inside, rules, traces

pytestmark = [pytest.mark.real, pytest.mark.alone]

TOPOLOGY = """
name: small
sites:
  - {name: north, computes: 1, data: 1}
  - {name: south, computes: 1}
  - {name: west, controllers: 0, computes: 1}
network:
  delay: 5ms
  links:
    - {from: north, to: west, delay: 8ms}
    - {from: west, to: north, delay: 25ms, loss: 0.1%, rate: 50mbit}
provider:
  type: local
  limits:
    data: {memory: 128MiB, cpus: 0.5, disk: 256MiB, processes: 80}
"""

KSM = Path("/sys/kernel/mm/ksm")
HOSTS = {
    "north-master-1", "north-controller-1", "north-compute-1", "north-data-1",
    "south-controller-1", "south-compute-1", "west-compute-1",
}  # fmt: skip


@pytest.fixture(scope="module")
def small(cli: Cli) -> str:
    path = cli.topology("small", TOPOLOGY)
    before = os.umask(0)  # the worst that a user may have: what we make must not follow it
    try:
        done = cli.run("up", path)
    finally:
        os.umask(before)
    assert "all within tolerance" in done.stdout
    return path


def status(cli: Cli, code: int = 0) -> dict[str, dict[str, bool]]:
    report = json.loads(cli.run("status", "--json", code=code).stdout)
    assert report["is_healthy"] is (code == 0)
    hosts: dict[str, dict[str, bool]] = report["hosts"]
    return hosts


def test_every_host_is_up(cli: Cli, small: str) -> None:
    hosts = status(cli)
    assert set(hosts) == HOSTS
    assert all(host["is_running"] and host["answers"] for host in hosts.values())


def test_a_host_is_a_system_of_its_own(cli: Cli, small: str) -> None:
    facts = "hostname; cat /proc/1/comm; systemctl is-system-running; ip -br -4 addr show eth0"
    done = cli.run("ssh", "south-compute-1", facts).stdout.split()
    assert done[:3] == ["south-compute-1", "systemd", "running"]
    assert done[-1].endswith(".2.2/24")
    assert cli.run("ssh", "south-compute-1", "ls /sys/class/net").stdout.split() == ["eth0", "lo"]


def test_hosts_know_each_other_by_name(cli: Cli, small: str) -> None:
    cli.run("ssh", "north-compute-1", "ping -c 1 -W 2 west-compute-1")


def test_hosts_may_shape_their_own_traffic(cli: Cli, small: str) -> None:
    """What tc netem needs of a host, on a kernel with sch_netem or without."""
    shape = "tc qdisc add dev eth0 root handle 1: htb"
    rate = "tc class add dev eth0 parent 1: classid 1:1 htb rate 1gbit"
    done = cli.run("ssh", "south-compute-1", f"{shape} && {rate} && tc qdisc show dev eth0")
    assert "qdisc htb 1: root" in done.stdout
    done = cli.run("ssh", "south-compute-1", f"{links.RESET_COMMAND}; tc qdisc show dev eth0")
    assert "htb" not in done.stdout


def test_hosts_may_tune_their_own_network_only(cli: Cli, small: str) -> None:
    cli.run("ssh", "south-compute-1", "echo 999 >/proc/sys/net/core/somaxconn")
    assert cli.run("ssh", "north-compute-1", "cat /proc/sys/net/core/somaxconn").stdout != "999\n"
    cli.run("ssh", "south-compute-1", "echo 1 >/proc/sys/vm/swappiness", code=1)


def test_the_exit_code_of_a_command_comes_back(cli: Cli, small: str) -> None:
    cli.run("ssh", "north-compute-1", "exit 7", code=7)


def test_ansible_reaches_all_with_the_printed_inventory(cli: Cli, small: str) -> None:
    path = cli.run("inventory", "--path").stdout.strip()
    ansible = Path(sys.executable).with_name("ansible")
    done = subprocess.run(
        [ansible, "-i", path, "all", "-m", "ping", "--one-line"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("SUCCESS") == len(HOSTS)


def test_limits_are_imposed(cli: Cli, small: str) -> None:
    eat = "head -c 200m /dev/zero | tail | wc -c"
    assert cli.run("ssh", "north-compute-1", eat).stdout.strip() == str(200 * 2**20)
    killed = cli.run("ssh", "north-data-1", f"{eat}; true", code=None)
    assert killed.stdout.strip() != str(200 * 2**20), "the host took more memory than it may"
    hosts = cli.run("status", code=None)
    assert "north" in hosts.stdout


def test_equal_pages_of_the_hosts_are_merged_where_the_kernel_can(cli: Cli, small: str) -> None:
    merging = json.loads(cli.run("status", "--json").stdout)["merging"]
    said = cli.run("status").stdout
    if not merging["is_on"]:
        assert f"equal pages of the hosts' memory aren't merged: {merging['reason']}" in said
        return
    assert "equal pages of the hosts' memory are merged" in said
    assert (KSM / "run").read_text() == "1\n"
    # What sshd starts has sshd's marks, which has those of the host's first process.
    assert cli.on("north-data-1", "cat /proc/self/personality") == "00040000\n"
    unit = "systemctl show --property=Environment"
    assert "PYTHONHASHSEED=0" in cli.on("north-data-1", unit)
    # Of seven hosts' systemd, sshd and journald something is equal within a few passes.
    deadline = time.monotonic() + 60
    while not (saved := json.loads(cli.run("status", "--json").stdout)["merging"]["saved_bytes"]):
        assert time.monotonic() < deadline
        time.sleep(1)
    assert saved > 2**20
    assert merged("discovery-xp/small"), "processes of hosts are merged"
    assert not merged("discovery-xp/", inside=False), "and no others"


def merged(group: str, inside: bool = True) -> list[int]:
    """Processes of this machine with merged pages that are, or aren't, in a control group."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (group in (folder / "cgroup").read_text()) == inside and int(
                (folder / "ksm_merging_pages").read_text() or 0  # empty as it ends
            ):
                found.append(int(folder.name))
        except OSError:  # it has ended
            continue
    return found


def disk_blocks(host: str) -> int:
    return (HOME / f"testbeds/small/hosts/{host}/disk.img").stat().st_blocks * 512


def test_a_host_fills_its_own_disk_only(cli: Cli, small: str) -> None:
    before = disk_blocks("north-data-1")
    fill = "cat /dev/zero >/root/big; echo $?; df --output=pcent / | tail -n 1"
    done = cli.run("ssh", "north-data-1", fill)
    assert "No space left on device" in done.stderr
    assert done.stdout.split() == ["1", "100%"]
    assert disk_blocks("north-data-1") < 260 * 2**20, "the machine's disk went on"
    cli.run("ssh", "north-compute-1", "head -c 50m /dev/zero >/root/f && sync && rm /root/f")
    assert re.search(r"north-data-1 is at its quota of disk, 2\d\d MiB", cli.run("status").stdout)
    cli.run("ssh", "north-data-1", "rm /root/big; sync")
    latest = time.monotonic() + 60  # the kernel gives back what is free when it comes to it
    while disk_blocks("north-data-1") > before + 32 * 2**20:
        assert time.monotonic() < latest, "what is deleted isn't given back"
        time.sleep(0.2)
    assert "quota of disk" not in cli.run("status").stdout


def test_no_disk_is_mounted_twice(cli: Cli, small: str) -> None:
    """Two kernels' views of one ext4 destroy it: a killed host's device lives a moment longer."""
    image = HOME / "testbeds/small/hosts/south-compute-1/disk.img"
    with pytest.raises(Failed, match="is in use still"):
        disks.attach(image, wait_s=0.2)


def test_a_fork_bomb_ends_at_its_own_quota(cli: Cli, small: str) -> None:
    bomb = "import os, time\nwhile True:\n    try: os.fork()\n    except OSError: time.sleep(1)\n"
    start = f"nohup python3 -c {shlex.quote(bomb)} >/dev/null 2>&1 </dev/null & sleep 3"
    # The shell itself can't fork in the end.
    cli.run("ssh", "north-data-1", start, code=None)
    assert cli.run("ssh", "north-compute-1", "echo well").stdout == "well\n"
    report = json.loads(cli.run("status", "--json", code=None).stdout)
    usage = {each["quota"]: each for each in report["hosts"]["north-data-1"]["usage"]}
    assert usage["processes"]["limit"] == 80
    assert usage["processes"]["used"] <= 80
    assert usage["processes"]["refusals"] > 0
    said = cli.run("status", code=None).stdout
    assert "north-data-1 is at its quota of processes, 80; raise 'processes'" in said
    cli.run("up", small)  # sshd has no process left: it is started anew
    assert all(host["answers"] for host in status(cli).values())


TRY_ALL = """
import os, sys
def attempt(use):
    try:
        use()
        return True
    except OSError:
        return False
def write(path):
    os.close(os.open(path, os.O_WRONLY))
def make(path):
    os.mkdir(path + '/planted')
for path in sys.stdin.read().splitlines():
    for use in (os.listdir, os.stat, os.readlink, write, make, lambda p: open(p, 'rb').read(1)):
        if attempt(lambda: use(path)):
            print(path)
            break
"""


def test_an_ordinary_user_can_not_touch_a_testbed(cli: Cli, small: str) -> None:
    """Not even list it, whatever the umask was: hosts hold setuid programs of their own."""
    cli.run("ssh", "south-compute-1", "cp /bin/sh /root/sh; chmod 4755 /root /root/sh; sync")
    inits = [trace.split()[1] for trace in traces("small") if trace.startswith("process")]
    paths = [f"/proc/{pid}/root/root/sh" for pid in inits]
    assert any(Path(path).exists() for path in paths)
    for top in (HOME / "testbeds", Path("/run/discovery-xp"), cache() / "images"):
        paths += [str(path) for path in [*top.glob("*"), *top.glob("*/*"), *top.glob("*/*/*")]]
        paths += [str(path) for path in top.glob("small/hosts/*/*")]
    assert len(paths) > 60
    done = subprocess.run(
        ["runuser", "-u", "nobody", "--", "/usr/bin/python3", "-c", TRY_ALL],
        input="\n".join(paths), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == ""
    for folder in (HOME, HOME / "testbeds", Path("/run/discovery-xp")):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in (HOME / "testbeds/small").rglob("*"):
        assert not path.lstat().st_mode & 0o022 or path.is_symlink(), path


def test_another_home_leaves_it_alone(cli: Cli, small: str, tmp_path: Path) -> None:
    own = {**os.environ, "DISCOVERY_XP_HOME": str(tmp_path / "home")}
    for arguments in (["destroy"], ["destroy", "--all"], ["up", small]):
        done = subprocess.run(
            cli.command(*arguments), env=own, capture_output=True, text=True, check=False
        )
        assert "another home" in done.stdout + done.stderr or "no testbed" in done.stderr
        assert "Traceback" not in done.stderr
    status(cli)
    assert not (tmp_path / "home").exists()


def test_round_trips_are_those_asked_for(cli: Cli, small: str) -> None:
    pairs = json.loads(cli.run("network", "measure", "--json").stdout)
    requested = {(pair["source"], pair["target"]): pair["requested_ms"] for pair in pairs}
    assert requested == {("north", "south"): 10, ("north", "west"): 33, ("south", "west"): 10}
    assert not any(pair["is_off"] for pair in pairs)
    # Measured anew, without our own code.
    pings = inside("dxp.small.host.north-compute-1", "ping", "-q", "-c", "5", "-i", "0.2",
                   address(cli, "west-compute-1"))  # fmt: skip
    least = float(pings.rpartition("= ")[2].split("/")[0])
    assert 31 < least < 40


def address(cli: Cli, host: str) -> str:
    plan = json.loads((HOME / "testbeds/small/state.json").read_text())["plan"]
    return next(str(each["address"]) for each in plan["hosts"] if each["name"] == host)


# ---------------------------------------------------------------- who reaches whom


def greeting(at: str, *before: str) -> str:
    """What a host's ssh port says first to a process of ours; empty when it can't be reached."""
    ask = (
        "import socket, sys\n"
        "with socket.create_connection((sys.argv[1], 22), 5) as connection:\n"
        "    print(connection.recv(100).decode())\n"
    )
    done = subprocess.run(
        [*before, "/usr/bin/python3", "-c", ask, at], capture_output=True, text=True, check=False,
        timeout=60, cwd="/",
    )  # fmt: skip
    if done.returncode:
        assert "PermissionError" in done.stderr or "Errno 13" in done.stderr, done.stderr
    return done.stdout.strip()


NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


def test_hosts_listen_where_the_table_says(cli: Cli, small: str) -> None:
    assert listening.differences(cli, "small") == []


def test_other_users_of_the_machine_reach_no_host_unless_it_is_exposed(
    cli: Cli, small: str
) -> None:
    hosts = [address(cli, host) for host in ("north-compute-1", "west-compute-1")]
    for host in hosts:
        assert greeting(host).startswith("SSH-2.0")
        assert greeting(host, *NOBODY) == ""
    closed = rules()
    cli.run("up", small, "--expose")
    assert rules() == []
    for host in hosts:
        assert greeting(host, *NOBODY).startswith("SSH-2.0")
    cli.run("up", small)
    assert rules() == closed
    assert greeting(hosts[0], *NOBODY) == ""


def test_a_rule_that_is_lost_comes_back_with_up(cli: Cli, small: str) -> None:
    whole = rules()
    priority = whole[-1].partition(":")[0]
    subprocess.run(["ip", "rule", "del", "priority", priority, "protocol", "222"], check=True)
    cli.run("up", small)
    assert rules() == whole


def test_what_other_namespaces_of_the_machine_send_reaches_no_host(cli: Cli, small: str) -> None:
    """As a container's packets, which the machine forwards."""
    host = address(cli, "north-compute-1")
    name = "other-container"
    add = (
        f"ip netns add {name} && ip link add other0 type veth peer name eth0 netns {name} && "
        "ip addr add 198.18.7.1/30 dev other0 && ip link set other0 up && "
        f"ip -n {name} addr add 198.18.7.2/30 dev eth0 && ip -n {name} link set eth0 up && "
        f"ip -n {name} route add default via 198.18.7.1"
    )
    forward = Path("/proc/sys/net/ipv4/ip_forward")
    before = forward.read_text()
    subprocess.run(["sh", "-ec", add], check=True)
    try:
        forward.write_text("1")
        route = ["ip", "route", "get", host, "from", "198.18.7.2", "iif", "other0"]
        done = subprocess.run(route, capture_output=True, text=True, check=False)
        assert "Permission denied" in done.stderr or "prohibit" in done.stdout, done
        assert inside(name, "ping", "-c", "1", "-W", "2", host).count("1 received") == 0
    finally:
        forward.write_text(before)
        subprocess.run(["ip", "netns", "delete", name], check=True)


def test_hosts_do_not_reach_the_machines_services(cli: Cli, small: str) -> None:
    machine = json.loads((HOME / "testbeds/small/state.json").read_text())["plan"]["machine"]
    connect = (
        f"timeout 3 bash -c 'exec 3<>/dev/tcp/{machine}/%d && head -c 5 <&3' || echo unreached"
    )
    with socket.socket() as low, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        low.bind(("", 7))  # of the ports that a client never gets
        low.listen()
        datagrams.bind(("", 0))
        datagrams.settimeout(2)
        port = datagrams.getsockname()[1]
        assert cli.run("ssh", "south-compute-1", connect % 7).stdout == "unreached\n"
        send = f"bash -c 'echo hello >/dev/udp/{machine}/{port}; true'"
        cli.run("ssh", "south-compute-1", send)
        with pytest.raises(TimeoutError):
            datagrams.recv(100)
    assert "1 received" in cli.run("ssh", "south-compute-1", f"ping -c 1 -W 2 {machine}").stdout


def test_links_can_be_changed_and_reset_any_number_of_times(cli: Cli, small: str) -> None:
    for delay_ms in (20, 3):
        cli.run("network", "set", "--delay", f"{delay_ms}ms")
        pairs = json.loads(cli.run("network", "measure", "--json").stdout)
        assert {pair["requested_ms"] for pair in pairs} == {2 * delay_ms}
        assert not any(pair["is_off"] for pair in pairs)
    cli.run("network", "set", "--between", "north", "south", "--rtt", "60ms", "--jitter", "1ms")
    shown = json.loads(cli.run("network", "show", "--json").stdout)
    delays = {(e["source"], e["target"]): e["link"]["delay_ms"] for e in shown["read_back"]}
    assert delays["north", "south"] == delays["south", "north"] == 30
    assert delays["north", "west"] == 3
    # What jitter and a slow link do to pings is no fault of the machine's.
    cli.run("network", "set", "--delay", "20ms", "--jitter", "20ms")
    cli.run("network", "set", "--delay", "20ms", "--jitter", "0ms", "--rate", "64kbit")
    assert "can't be measured" in cli.run("network", "set", "--loss", "95%", code=2).stderr
    cli.run("network", "reset")
    shown = json.loads(cli.run("network", "show", "--json").stdout)
    assert {each["link"]["delay_ms"] for each in shown["read_back"]} == {0}
    assert not any("wirefilter" in trace for trace in traces("small"))
    pairs = json.loads(cli.run("network", "measure", "--json").stdout)
    assert all(pair["observed_ms"] < 2 for pair in pairs)


def test_links_can_be_taken_from_another_file(cli: Cli, small: str) -> None:
    fewer = cli.topology("fewer", "sites: [{name: north}, {name: south}]\nnetwork: {delay: 15ms}")
    cli.run("network", "set", "--topology", fewer)
    pairs = json.loads(cli.run("network", "measure", "--json").stdout)
    assert [pair["requested_ms"] for pair in pairs] == [30, 0, 0], "sites not listed are reset"
    other = cli.topology("other", "sites: [{name: north}, {name: moon}]")
    assert "'moon' is not a site" in cli.run("network", "set", "--topology", other, code=2).stderr


def test_up_again_changes_nothing_but_the_links(cli: Cli, small: str) -> None:
    boot_id = "cat /proc/1/stat | cut -d ' ' -f 22"
    before = cli.run("ssh", "north-compute-1", boot_id).stdout
    cli.run("up", small)
    assert cli.run("ssh", "north-compute-1", boot_id).stdout == before
    pairs = json.loads(cli.run("network", "measure", "--json").stdout)
    assert {pair["requested_ms"] for pair in pairs} == {10, 33}


def test_other_hosts_under_the_same_name_are_refused(cli: Cli, small: str) -> None:
    other = cli.topology("clash", TOPOLOGY.replace("computes: 1}", "computes: 2}"))
    done = cli.run("up", other, code=2)
    assert "with other hosts is there" in done.stderr


def test_up_with_other_links_imposes_those(cli: Cli, small: str) -> None:
    other = cli.topology("other-links", TOPOLOGY.replace("delay: 5ms", "delay: 9ms"))
    cli.run("up", other)
    pairs = json.loads(cli.run("network", "measure", "--json").stdout)
    assert {pair["requested_ms"] for pair in pairs} == {18, 33}
    cli.run("up", small)


def test_addresses_in_use_are_refused(cli: Cli, small: str) -> None:
    plan = json.loads((HOME / "testbeds/small/state.json").read_text())["plan"]
    text = f"sites: [{{name: a}}]\nprovider: {{type: local, network: {plan['network']}}}\n"
    done = cli.run("up", cli.topology("same-addresses", text), code=2)
    assert "meets 10." in done.stderr
    assert traces("same-addresses") == []


def test_a_dead_host_is_seen_and_repaired_and_keeps_its_disk(cli: Cli, small: str) -> None:
    cli.run("ssh", "south-compute-1", "echo kept >/root/file")
    init = [int(trace.split()[1]) for trace in traces("small/host.south-compute-1")
            if trace.startswith("process") and "lib/systemd/systemd " in f"{trace} "]  # fmt: skip
    assert len(init) == 1
    os.kill(init[0], signal.SIGKILL)
    hosts = status(cli, code=1)
    assert [name for name, host in hosts.items() if not host["answers"]] == ["south-compute-1"]
    cli.run("up", small)
    assert all(host["answers"] for host in status(cli).values())
    assert cli.run("ssh", "south-compute-1", "cat /root/file").stdout == "kept\n"


def test_a_host_without_sshd_is_seen_and_repaired(cli: Cli, small: str) -> None:
    cli.run("ssh", "north-data-1", "systemctl stop ssh", code=None)
    hosts = status(cli, code=1)
    assert hosts["north-data-1"]["is_running"]
    assert not hosts["north-data-1"]["answers"]
    cli.run("up", small)
    assert all(host["answers"] for host in status(cli).values())


def test_a_dead_link_is_never_a_fast_one(cli: Cli, small: str) -> None:
    if not any("wirefilter" in trace for trace in traces("small")):
        pytest.skip("this kernel has sch_netem: no link runs in user space")
    assert ping_loss(cli) < 100
    pids = [int(line.split()[1]) for line in traces("small/wan.1-3")
            if line.startswith("process")]  # fmt: skip
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert ping_loss(cli) == 100
    report = json.loads(cli.run("status", "--json", code=1).stdout)
    assert report["broken_links"] == ["north = west"]
    assert "differ" in cli.run("network", "show", code=1).stdout
    assert "OFF" in cli.run("network", "measure", code=1).stdout
    cli.run("up", small)
    assert ping_loss(cli) < 100
    status(cli)


def ping_loss(cli: Cli) -> float:
    done = cli.run("ssh", "north-compute-1", "ping -q -c 5 -i 0.2 -W 1 west-compute-1", code=None)
    return float(done.stdout.split("% packet loss")[0].split()[-1])


def test_links_carry_load_both_ways(cli: Cli, small: str) -> None:
    """Heavy traffic in both directions at once has locked user-space links up."""
    cli.run("ssh", "south-compute-1", "iperf3 -s -D >/dev/null 2>&1 </dev/null")
    flood = "iperf3 -c south-compute-1 --bidir -t 4 -P 4 -J"
    report = json.loads(cli.run("ssh", "north-compute-1", flood).stdout)
    for direction in ("sum_received", "sum_received_bidir_reverse"):
        assert report["end"][direction]["bits_per_second"] > 5e6
    pairs = json.loads(cli.run("network", "measure", "--json").stdout)
    assert not any(pair["is_off"] for pair in pairs)


def test_two_testbeds_live_side_by_side(cli: Cli, small: str) -> None:
    text = "name: second\nsites: [{name: north}, {name: south}]\nmaster: none\n"
    path = cli.topology("second", text + "network: {delay: 12ms}")
    cli.run("up", path)
    listed = cli.run("status").stdout
    assert "small: up" in listed
    assert "second: up" in listed
    assert "several testbeds" in cli.run("network", "show", code=2).stderr
    cli.run("network", "measure", "--testbed", "second")
    cli.run("destroy", "--testbed", "second")
    assert traces("second") == []
    status(cli)


def test_static_hosts_are_any_that_answer_over_ssh(cli: Cli, small: str) -> None:
    plan = json.loads((HOME / "testbeds/small/state.json").read_text())["plan"]
    addresses = {site: [host["address"] for host in plan["hosts"] if host["site"] == site]
                 for site in ("north", "south")}  # fmt: skip
    text = (
        "name: borrowed\nsites: [{name: north, computes: 0}, {name: south, computes: 0}]\n"
        "master: none\nnetwork: {delay: DELAY}\n"
        f"provider: {{type: static, key: {HOME}/testbeds/small/login_key, "
        f"hosts: {json.dumps(addresses)}}}\n"
    )
    cli.run("network", "reset")
    path = cli.topology("borrowed", text.replace("DELAY", "0ms"))
    cli.run("up", path)
    answer = cli.run("ssh", "--testbed", "borrowed", "south-controller-1", "hostname", code=0)
    assert answer.stdout.strip().startswith("south-")
    cli.run("status", "--testbed", "borrowed")
    cli.run("destroy", "--testbed", "borrowed")
    # Where the hosts' kernel has no sch_netem, tc refuses: nothing goes on as if the delay
    # were there.
    path = cli.topology("delayed", text.replace("borrowed", "delayed").replace("DELAY", "9ms"))
    done = cli.run("up", path, code=None)
    if done.returncode:
        assert done.returncode == 1
        refused = "Specified qdisc kind is unknown"
        assert refused in done.stderr or "weren't imposed as asked" in done.stderr
        assert "Traceback" not in done.stderr
    cli.run("destroy", "--testbed", "delayed")
    left = inside("dxp.small.host.north-master-1", "tc", "qdisc", "show", "dev", "eth0")
    assert "htb" not in left
    nobody = f"{addresses['south'][0].rpartition('.')[0]}.250"
    unreachable = (
        text.replace("borrowed", "gone")
        .replace("DELAY", "0ms")
        .replace(f'"{addresses["south"][0]}"', f'"{nobody}"')
    )
    done = cli.run("up", cli.topology("gone", unreachable), code=1)
    assert "south-controller-1 can't be reached over ssh" in done.stderr
    cli.run("destroy", "--testbed", "gone")


def test_destroy_leaves_nothing(cli: Cli, small: str) -> None:
    assert traces("small")
    cli.run("destroy", "--testbed", "small")
    assert traces() == []
    assert not HOME.exists()
    assert "no testbed" in cli.run("destroy", "--testbed", "small", code=2).stderr
