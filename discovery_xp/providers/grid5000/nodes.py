"""Nodes of running jobs: an image on each, those that answer, who plays which host.

EnOSlib's own provider deploys the image.  It is given jobs that run already, by their
numbers: it then neither searches by name nor submits.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import enoslib as en
from enoslib.errors import EnosFailedHostsError, EnosUnreachableHostsError
from grid5000.exceptions import Grid5000Error
from requests.exceptions import RequestException

from discovery_xp.boundary import writers
from discovery_xp.errors import Failed, Refused
from discovery_xp.inputs.platforms import Cluster, G5kProvider
from discovery_xp.planning.oar import Request, job_name
from discovery_xp.planning.plan import Plan
from discovery_xp.providers.grid5000.record import Node
from discovery_xp.testbeds import ansible_runs
from discovery_xp.testbeds.hosts import Progress
from discovery_xp.testbeds.remote import output_of, plainly, quietly, some
from discovery_xp.testbeds.testbed import Testbed, write_atomically

READY_WITHIN_S = 300
ROLE = "discovery-xp"
# Where packets to anywhere would leave from: the address in the network that is used.
_ADDRESS = "ip -4 -o route get 192.0.2.1"


class _OnJobs(en.G5k):
    """EnOSlib's provider on jobs that were waited for: its own waits have no end.

    It waits forever for a job that was killed, and an hour for a node that doesn't answer.
    """

    def wait(self) -> None:
        """The jobs run."""

    def wait_nodes(self) -> None:
        """All nodes are waited for together, later."""


@dataclass(frozen=True)
class Deployed:
    """The nodes that answer, by cluster and in the order of their numbers; those that don't."""

    answering: Mapping[Cluster, tuple[Node, ...]]
    lost: tuple[str, ...]


def public_key(provider: G5kProvider) -> Path | None:
    """The public key that is put on the nodes; None for all those of ~/.ssh.

    Raises Refused where there is none: EnOSlib finds out once the nodes are reserved.
    """
    if provider.access.key is None:
        folder = Path.home() / ".ssh"
        keys = {path: _key_of(path) for path in folder.glob("*.pub")}
        if not any(keys.values()):
            raise Refused(
                f"{folder} has no public key for the nodes",
                "make one with 'ssh-keygen', or write 'key: PATH' for the provider",
            )
        return None
    private = Path(provider.access.key)
    public = private.with_name(f"{private.name}.pub")
    for path in (private, public):
        if not path.is_file():
            raise Refused(f"there is no {path}", "write 'key: PATH' of a private ssh key")
    if not _key_of(public):
        raise Refused(f"{public} is empty", "make it with 'ssh-keygen -y -f KEY >KEY.pub'")
    return public


def _key_of(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(
            f"{path} can't be read as a public key ({type(error).__name__})",
            "move it away, or write 'key: PATH' for the provider",
        ) from None


def require_plain(plan: Plan, provider: G5kProvider) -> None:
    """Raise Refused for what EnOSlib or OAR would take apart: they paste it into commands."""
    job = provider.job
    values = {
        "environment": [provider.environment],
        "key": [provider.access.key or ""],
        "project": [job.project or ""],
        "job_types": [name for request in plan.requests for name in request.body["types"]],
    }
    for key, texts in values.items():
        for text in texts:
            try:
                writers.plain(text)
            except writers.Unwritable as error:
                raise Refused(
                    f"Grid'5000 can't be given '{key}': {error}", "correct the topology's provider"
                ) from None


def require_way_through(jump: str, ssh_config: Path) -> None:
    """Raise Refused where the jump host doesn't let us in: no node could be reached."""
    try:
        done = subprocess.run(
            ["ssh", "-F", str(ssh_config), "-o", "BatchMode=yes", jump, "true"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        failed, words = done.returncode != 0, done.stderr
    except subprocess.TimeoutExpired:
        failed, words = True, "no answer within a minute"
    if failed:
        reason = " / ".join(line.strip() for line in words.splitlines() if line.strip())[-200:]
        raise Refused(
            f"{jump} doesn't let ssh in: {reason or 'no reason given'}",
            "see 'key' and 'jump_host' of the topology's provider",
        )


def write_ssh_config(testbed: Testbed, provider: G5kProvider, jump: str | None) -> Path:
    """What ssh needs to reach nodes while their keys still change."""
    blocks: list[tuple[str, list[tuple[str, str]]]] = []
    try:
        if provider.access.key:
            blocks.append(("Host *", [("IdentityFile", writers.ssh_path(provider.access.key))]))
        if jump:
            place = writers.ssh_jump(jump).rpartition("@")[2]
            blocks.append((f"Match host *.grid5000.fr,!{place}", [("ProxyJump", jump)]))
        options = [
            ("BatchMode", "yes"),
            ("ConnectTimeout", "15"),
            ("StrictHostKeyChecking", "no"),
            ("ServerAliveInterval", "15"),
            ("ServerAliveCountMax", "8"),
            ("UserKnownHostsFile", "/dev/null"),
            ("GlobalKnownHostsFile", "/dev/null"),
            ("LogLevel", "ERROR"),
        ]
        blocks.append(("Host *", options))
        if jump:  # the way there may be described in the user's own; what is said here comes first
            blocks.append(("Host *", [("Include", "~/.ssh/config")]))
        text = writers.ssh_config(blocks)
    except writers.Unwritable as error:
        raise Refused(
            f"ssh can't be told of the nodes: {error}",
            "correct 'key' or 'jump_host' of the topology's provider",
        ) from None
    path = testbed.folder / "nodes_ssh_config"
    testbed.make_folder()
    write_atomically(path, text)
    return path


@contextlib.contextmanager
def _by(ssh_config: Path, testbed: str) -> Iterator[None]:
    """EnOSlib's own commands reach nodes by our ssh configuration, and are quiet."""
    before = os.environ.get("ANSIBLE_SSH_ARGS")
    os.environ["ANSIBLE_SSH_ARGS"] = f"-F {shlex.quote(str(ssh_config))}"
    try:
        with quietly(testbed), en.config_context(g5k_auto_jump=False):
            yield
    finally:
        if before is None:
            del os.environ["ANSIBLE_SSH_ARGS"]
        else:
            os.environ["ANSIBLE_SSH_ARGS"] = before


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """EnOSlib raises whatever it likes, bare Exceptions too: a line of it is enough."""
    try:
        yield
    except (Grid5000Error, RequestException, EnosFailedHostsError, EnosUnreachableHostsError):
        raise  # they have words of their own
    except Exception as error:
        words = " ".join(str(error).split())[:200]
        raise Failed(
            f"EnOSlib's provider failed: {type(error).__name__}: {words}",
            "correct what it names, then deploy again",
        ) from error


def configuration(
    plan: Plan, provider: G5kProvider, jobs: Sequence[tuple[str, int]], key: Path | None
) -> Any:
    """EnOSlib's configuration for the plan's requests, on jobs that are there."""
    conf = en.G5kConf.from_settings(
        job_name=job_name(plan.name),
        job_type=list(plan.requests[0].body["types"]),
        env_name=provider.environment,
        walltime=provider.job.walltime,
        queue=provider.job.queue,
        oargrid_jobids=[[site, str(uid)] for site, uid in jobs],
        dhcp=False,  # no node has a second network
        **({"key": str(key)} if key else {}),
    )
    networks = _networks(plan.requests, provider)
    for network in {id(one): one for one in networks.values()}.values():
        conf.add_network_conf(network)
    for request in plan.requests:
        for cluster, nodes in request.clusters.items():
            conf.add_machine(
                roles=[ROLE],
                cluster=cluster,
                site=request.site,
                nodes=nodes,
                primary_network=networks[request.site],
            )
    return conf.finalize()


def _networks(requests: Sequence[Request], provider: G5kProvider) -> dict[str, Any]:
    """The network of each Grid'5000 site's nodes."""
    first = requests[0].site
    networks: dict[str, Any] = {}
    for request in requests:
        if provider.network == "kavlan-global" and networks:
            networks[request.site] = networks[first]
            continue
        kind = "prod" if provider.network == "production" else provider.network
        networks[request.site] = en.G5kNetworkConf(
            id=f"{kind}-{request.site}", type=kind, roles=[ROLE], site=request.site
        )
    return networks


def deploy(
    plan: Plan,
    provider: G5kProvider,
    testbed: Testbed,
    jobs: Sequence[tuple[str, int]],
    ssh_config: Path,
    progress: Progress,
) -> Deployed:
    """Put the image on all nodes of the jobs and wait for those that come up.

    A reservation that has the image keeps it.  EnOSlib tries up to three times.
    """
    key = public_key(provider)
    progress(f"deploying {provider.environment}", 0, sum(one.nodes for one in plan.requests))
    with plainly(), _told(), _by(ssh_config, plan.name):
        provider_of_enoslib = _OnJobs(configuration(plan, provider, jobs, key))
        provider_of_enoslib.init()
    # It forgets nodes of its first attempts, so its list of those that failed is what counts.
    failed = {host.fqdn for host in provider_of_enoslib.undeployed}
    names = {
        host.fqdn: host.primary_network.translate([host.fqdn])[0][1]
        for host in provider_of_enoslib.hosts
    }
    hopeful = {fqdn: name for fqdn, name in names.items() if fqdn not in failed}
    addresses = _addresses(hopeful, ssh_config, plan.name, progress)
    answering: dict[Cluster, list[Node]] = {}
    for fqdn in sorted(addresses, key=by_number):
        cluster = Cluster(fqdn.split(".")[1], fqdn.split("-")[0])
        answering.setdefault(cluster, []).append(Node(hopeful[fqdn], addresses[fqdn]))
    return Deployed(
        {cluster: tuple(nodes) for cluster, nodes in answering.items()},
        tuple(sorted(set(names) - set(addresses), key=by_number)),
    )


def by_number(fqdn: str) -> tuple[str, int, str]:
    """To sort paravance-2 before paravance-10."""
    match = re.match(r"(.*?)-(\d+)", fqdn)
    return (match[1], int(match[2]), fqdn) if match else (fqdn, 0, fqdn)


def _addresses(
    names: Mapping[str, str], ssh_config: Path, testbed: str, progress: Progress
) -> dict[str, str]:
    """The address of each node that answers, by the node's name; others are waited for."""
    addresses: dict[str, str] = {}
    latest = time.monotonic() + READY_WITHIN_S
    while True:
        missing = {fqdn: name for fqdn, name in names.items() if fqdn not in addresses}
        progress("waiting for ssh", len(addresses), len(names))
        if not missing or time.monotonic() > latest:
            return addresses
        hosts = [
            en.Host(ansible_runs.literal(name), alias=fqdn, user="root")
            for fqdn, name in missing.items()
        ]
        with _by(ssh_config, testbed):
            results = en.run(
                _ADDRESS,
                roles=hosts,
                raw=True,
                gather_facts=False,
                on_error_continue=True,
                extra_vars={"ansible_timeout": 15},
            )
        for result in results:
            match = re.search(r"\bsrc (\S+)", output_of(result.payload).stdout)
            if match and is_address(match[1]):
                addresses[result.host] = match[1]
        if len(addresses) < len(names):
            time.sleep(3)


def is_address(text: str) -> bool:
    """True for an IPv4 address."""
    try:
        ipaddress.IPv4Address(text)
    except ipaddress.AddressValueError:
        return False
    return True


def bind(
    plan: Plan, provider: G5kProvider, deployed: Deployed
) -> tuple[dict[str, Node], dict[str, tuple[Node, ...]]]:
    """Which node plays which host, in their orders; and the spares, by 'SITE CLUSTER'.

    Raises Failed, naming those that are lost, when a cluster has too few.
    """
    free = {cluster: list(nodes) for cluster, nodes in deployed.answering.items()}
    bound: dict[str, Node] = {}
    short: dict[Cluster, int] = {}
    for host in plan.hosts:
        cluster = provider.clusters[host.site]
        if free.get(cluster):
            bound[host.name] = free[cluster].pop(0)
        else:
            short[cluster] = short.get(cluster, 0) + 1
    if short:
        words = ", ".join(f"{count} of {one.cluster}" for one, count in short.items())
        raise Failed(
            f"{some(list(deployed.lost))} didn't come up, so nodes are missing: {words}",
            f"write 'spares: {max(short.values()) + provider.spares}', or leave them out with "
            "another cluster, and deploy again",
        )
    return bound, {f"{one.site} {one.cluster}": tuple(nodes) for one, nodes in free.items()}


def replace(
    plan: Plan,
    provider: G5kProvider,
    nodes: Mapping[str, Node],
    spares: Mapping[str, Sequence[Node]],
    silent: Sequence[str],
) -> tuple[dict[str, Node], dict[str, tuple[Node, ...]]]:
    """Spares in place of the hosts in `silent`; raises Failed, naming one without a spare."""
    left = {cluster: list(of) for cluster, of in spares.items()}
    bound = dict(nodes)
    for name in silent:
        cluster = provider.clusters[plan.host(name).site]
        free = left.get(f"{cluster.site} {cluster.cluster}")
        if not free:
            raise Failed(
                f"{name} ({nodes[name].fqdn}) doesn't answer, and {cluster.cluster} has no spare",
                f"'discovery-xp destroy --testbed {plan.name}', then deploy again, with 'spares'",
            )
        bound[name] = free.pop(0)
    return bound, {cluster: tuple(of) for cluster, of in left.items()}
