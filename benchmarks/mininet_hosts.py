"""How fast and how small hosts are with Mininet: the lower bound for emulated hosts.

A Mininet host is a network namespace that shares the machine's file system and runs a
shell and an sshd, nothing else; an emulated host of ours is a whole system with its own
root, systemd and journal.  This brings up SITES x HOSTS_PER_SITE Mininet hosts, one
bridge for each site and one that joins them, waits until each sshd answers, and measures.

Run it as root with Debian's own Python, which is the one that finds Mininet:

    apt-get install --no-install-recommends mininet bridge-utils openssh-server \\
        openssh-client iproute2 procps
    /usr/bin/python3 benchmarks/mininet_hosts.py --sites 8 --hosts-per-site 8 --json

Everything happens in network, mount and process namespaces of its own, with a root node
of Mininet's in the place of the machine: neither Mininet's bridges nor its clean-up can
meet what else runs here, and the kernel removes it all however this script ends.

`up_s` is the wall time from the start of this script until the last sshd has sent its
banner, keys and configuration included.  `memory_mb_per_host` is the proportional set
size of each host's shell and sshd (1 MB is 10^6 bytes); the kernel's own memory for
namespaces and interfaces isn't in it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import ipaddress
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Mininet calls by name what `su` without a login shell doesn't find.
SEARCH_PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/bin:/sbin:/bin"
PACKAGE_OF_TOOL = {
    "brctl": "bridge-utils",
    "ifconfig": "net-tools",
    "ip": "iproute2",
    "mnexec": "mininet",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
    "sysctl": "procps",
}
FOLDER = Path("/run/mininet-hosts")  # in the namespace's own /run
SSH_PORT = 22
PROBE_INTERVAL_S = 0.05
PROBE_TIMEOUT_S = 2.0
LOGIN_TIMEOUT_S = 30.0
OPEN_FILES = 16384
MAX_BRIDGE_PORTS = 1023  # the kernel's limit


class Failed(Exception):
    """One line for the user: what went wrong, and what to do about it."""


@dataclass(frozen=True)
class Options:
    """What to bring up, and how long it may take until all hosts answer."""

    sites: int
    hosts_per_site: int
    network: ipaddress.IPv4Network
    timeout_s: float
    as_json: bool


@dataclass(frozen=True)
class Result:
    """What was measured; its fields are those of the JSON output."""

    tool: str
    version: str
    hosts: int
    up_s: float
    memory_mb_per_host: float
    ssh_login_ok: bool


@dataclass(frozen=True)
class Host:
    """A Mininet host with its running sshd, and the folder of that sshd's files."""

    address: str
    shell_pid: int
    sshd: subprocess.Popen[bytes]
    folder: Path


def main(arguments: Sequence[str]) -> int:
    """Measure and print; returns the exit code: 1 for a failure, 2 for a wrong command line."""
    options, started_s = parse(arguments)
    try:
        if started_s is None:
            check_machine()
            return run_in_own_namespaces(arguments)
        result = measure(options, started_s)
    except Failed as error:
        print(f"mininet_hosts: {error}", file=sys.stderr)
        return 1
    print(json.dumps(asdict(result)) if options.as_json else in_words(result))
    return 0 if result.ssh_login_ok else 1


def parse(arguments: Sequence[str]) -> tuple[Options, float | None]:
    """The options, and when the script was started if this is its part in the namespaces."""
    parser = argparse.ArgumentParser(
        description="Bring up Mininet hosts with an sshd each; measure time and memory."
    )
    parser.add_argument("--sites", type=int, default=8, help="how many (default: 8)")
    parser.add_argument("--hosts-per-site", type=int, default=8, help="how many (default: 8)")
    parser.add_argument(
        "--network",
        type=parse_network,
        default="10.200.0.0/16",
        help="where the hosts get their addresses (default: 10.200.0.0/16)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="how long it may take until all hosts answer (default: 120)",
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    # time.monotonic() has one clock for all processes.
    parser.add_argument("--inside-since", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    for option, value in (("--sites", given.sites), ("--hosts-per-site", given.hosts_per_site)):
        if not 1 <= value < MAX_BRIDGE_PORTS:
            parser.error(f"{option} must be between 1 and {MAX_BRIDGE_PORTS - 1}")
    # The root node, the network's own address and the broadcast address take one each.
    if given.sites * given.hosts_per_site + 3 > given.network.num_addresses:
        parser.error(f"--network {given.network} has too few addresses for that many hosts")
    options = Options(
        given.sites, given.hosts_per_site, given.network, given.timeout, as_json=given.json
    )
    return options, given.inside_since


def parse_network(text: str) -> ipaddress.IPv4Network:
    """'10.200.0.0/16' to a network; raises argparse's error with the reason."""
    try:
        return ipaddress.IPv4Network(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; write e.g. '10.200.0.0/16'") from None


def check_machine() -> None:
    """Raise Failed, naming the packages to install, unless everything needed is there."""
    if os.geteuid() != 0:
        raise Failed("namespaces and bridges need root; run it as root")
    missing = {
        package
        for tool, package in PACKAGE_OF_TOOL.items()
        if shutil.which(tool, path=SEARCH_PATH) is None
    }
    if missing:
        raise Failed(f"programs are missing; run 'apt-get install {' '.join(sorted(missing))}'")
    if importlib.util.find_spec("mininet") is None:
        raise Failed(f"{sys.executable} has no Mininet; run it with /usr/bin/python3")


def run_in_own_namespaces(arguments: Sequence[str]) -> int:
    """Run this script again in namespaces that end with it; returns its exit code.

    Whatever ends this process, SIGKILL included, ends all that was started for it.
    """
    inside = [sys.executable, __file__, *arguments, f"--inside-since={time.monotonic()}"]
    namespaces = ["unshare", "--net", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child"]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # A session of its own keeps Ctrl-C here, where it takes down everything at once.
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *namespaces, *inside],
        env={**os.environ, "PATH": SEARCH_PATH},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait()
    finally:
        process.kill()
        process.wait()


def measure(options: Options, started_s: float) -> Result:
    """Bring up the hosts, measure them and stop them; only to be called in own namespaces.

    Raises Failed when they don't all answer in time.
    """
    from mininet.net import VERSION

    prepare_namespaces()
    with running_hosts(options) as hosts:
        wait_for_banners(hosts, started_s + options.timeout_s)
        up_s = time.monotonic() - started_s
        memory_bytes = sum(
            pss_bytes(pid) for host in hosts for pid in (host.shell_pid, host.sshd.pid)
        )
        return Result(
            tool="mininet",
            version=VERSION,
            hosts=len(hosts),
            up_s=round(up_s, 2),
            memory_mb_per_host=round(memory_bytes / len(hosts) / 1e6, 2),
            ssh_login_ok=can_log_in(hosts[-1]),
        )


def prepare_namespaces() -> None:
    """Hide the machine's /run behind an empty one, for sshd's needs and for our files.

    sshd refuses to start without /run/sshd, and to read keys below a folder that
    everybody may write to, as /tmp is.
    """
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"], check=True)
    Path("/run/sshd").mkdir(mode=0o755)
    FOLDER.mkdir(mode=0o755)
    unlock_root()


def unlock_root() -> None:
    """Let root in by key where the account is locked, in these namespaces only.

    Without PAM, sshd refuses accounts whose password starts with '!', as root's does
    on many installations.
    """
    shadow = FOLDER / "shadow"
    shadow.write_text("root:*:1:0:99999:7:::\nsshd:!:1::::::\n")
    shadow.chmod(0o600)
    subprocess.run(["mount", "--bind", str(shadow), "/etc/shadow"], check=True)


@contextlib.contextmanager
def running_hosts(options: Options) -> Iterator[list[Host]]:
    """Start the network and its hosts, each with an sshd that may not answer yet; stop all."""
    key = make_key(FOLDER / "login")
    (FOLDER / "authorized_keys").write_text(key)
    net = empty_network()
    hosts: list[Host] = []
    try:
        nodes = add_nodes(net, options)
        net.build()
        net.start()
        for node in nodes:
            hosts.append(start_sshd(node))
        yield hosts
    finally:
        for host in hosts:
            host.sshd.terminate()
        for host in hosts:
            host.sshd.wait()
        net.stop()


def empty_network() -> Any:
    """A Mininet network of Linux bridges, without controllers."""
    from mininet.log import setLogLevel
    from mininet.net import Mininet
    from mininet.nodelib import LinuxBridge

    # It warns of filters on bridges, of which a namespace of our own has none.
    setLogLevel("error")
    # Left to itself, Mininet raises limits of the whole machine and leaves them so.
    Mininet.inited = True
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(OPEN_FILES, hard), hard))
    return Mininet(switch=LinuxBridge, controller=None, build=False)


def add_nodes(net: Any, options: Options) -> list[Any]:
    """Add a bridge and hosts for each site, a bridge that joins them, and the root node.

    Returns the hosts' nodes.  The root node, at the first address, stands for the machine.
    """
    addresses = (f"{each}/{options.network.prefixlen}" for each in options.network.hosts())
    core = net.addSwitch("s0")
    root = net.addHost("root", inNamespace=False, ip=next(addresses))
    net.addLink(root, core)
    nodes: list[Any] = []
    for site in range(1, options.sites + 1):
        bridge = net.addSwitch(f"s{site}")
        net.addLink(bridge, core)
        for _ in range(options.hosts_per_site):
            node = net.addHost(f"h{len(nodes) + 1}", ip=next(addresses))
            net.addLink(node, bridge)
            nodes.append(node)
    return nodes


def start_sshd(node: Any) -> Host:
    """Start an sshd in the node, with a host key of its own."""
    folder = FOLDER / node.name
    folder.mkdir()
    make_key(folder / "host_key")
    config = folder / "sshd_config"
    config.write_text(
        f"ListenAddress {node.IP()}:{SSH_PORT}\n"
        f"HostKey {folder}/host_key\n"
        f"AuthorizedKeysFile {FOLDER}/authorized_keys\n"
        "PermitRootLogin prohibit-password\n"
        "PidFile none\n"
        "UsePAM no\n"
    )
    sshd = node.popen(
        [shutil.which("sshd"), "-D", "-f", str(config), "-E", str(folder / "log")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return Host(node.IP(), node.pid, sshd, folder)


def make_key(path: Path) -> str:
    """Make an ssh key without passphrase at `path`; returns its public half."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path.with_suffix(".pub").read_text()


def wait_for_banners(hosts: Sequence[Host], deadline_s: float) -> None:
    """Return once every sshd has sent its banner; raise Failed when one ends or it takes longer.

    `deadline_s` is a time of time.monotonic().
    """

    async def wait_for_all() -> None:
        async with asyncio.timeout(max(0.0, deadline_s - time.monotonic())):
            await asyncio.gather(*(wait_for_banner(host) for host in hosts))

    try:
        asyncio.run(wait_for_all())
    except TimeoutError:
        raise Failed("not all hosts answered in time; raise --timeout, or start fewer") from None


async def wait_for_banner(host: Host) -> None:
    """Return once the host's sshd has sent its banner; raise Failed when it has ended."""
    while not await sends_banner(host.address):
        if host.sshd.poll() is not None:
            log = host.folder / "log"
            said = log.read_text().strip() if log.exists() else ""
            raise Failed(f"sshd of {host.folder.name} has ended; it said: {said or 'nothing'}")
        await asyncio.sleep(PROBE_INTERVAL_S)


async def sends_banner(address: str) -> bool:
    """Whether an ssh server at the address greets whoever connects, within moments."""
    writer = None
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(address, SSH_PORT)
            return await reader.readexactly(4) == b"SSH-"
    except (OSError, EOFError):  # TimeoutError is an OSError
        return False
    finally:
        if writer is not None:
            writer.close()


def pss_bytes(pid: int) -> int:
    """The process's memory, where what n processes share counts 1/n for each."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise Failed(f"/proc/{pid}/smaps_rollup has no 'Pss:'; use a kernel of 4.14 or later")


def can_log_in(host: Host) -> bool:
    """Whether ssh gets in by key, finds the host's own key there, and can run a command."""
    known_hosts = host.folder / "known_hosts"
    known_hosts.write_text(f"{host.address} {(host.folder / 'host_key.pub').read_text()}")
    settings = {
        "BatchMode": "yes",
        "GlobalKnownHostsFile": "none",
        "IdentitiesOnly": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": str(known_hosts),
    }
    options = [f"-o{name}={value}" for name, value in settings.items()]
    login = ["ssh", "-F", "none", "-i", str(FOLDER / "login"), *options, f"root@{host.address}"]
    try:
        ended = subprocess.run(
            [*login, "true"], stdin=subprocess.DEVNULL, timeout=LOGIN_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return ended.returncode == 0


def in_words(result: Result) -> str:
    """The result as a line for people."""
    login = "works" if result.ssh_login_ok else "FAILS"
    return (
        f"Mininet {result.version}: {result.hosts} hosts answered after {result.up_s} s, "
        f"{result.memory_mb_per_host} MB of memory for each; ssh login {login}"
    )


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
