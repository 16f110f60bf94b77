"""The command line: one subcommand for each stage.

Sole owner of printing, progress and exit codes: 0 done, 1 started but not
finished, 2 refused (nothing was started), 130 interrupted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from discovery_xp import testbed as testbeds
from discovery_xp import units
from discovery_xp.cli_progress import Follower
from discovery_xp.cli_report import report, write_page
from discovery_xp.errors import Failed, InvalidInput, Problem, Refused, UserError
from discovery_xp.plan import Plan, PlannedLink, make_plan
from discovery_xp.testbed import Testbed
from discovery_xp.topology import (
    Link,
    Topology,
    derive_topology,
    read_topology,
    topology_schema,
)
from discovery_xp.units import format_bytes

if TYPE_CHECKING:
    from discovery_xp.deploy import ServiceStatus
    from discovery_xp.experiment import Deployed
    from discovery_xp.network import PairRtt

# EnOSlib and Ansible are loaded by the commands that touch hosts, not by a plan.

F = TypeVar("F", bound=Callable[..., Any])


def _console() -> Console:
    """Made at each use, so that it prints to where stdout leads then."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="discovery-xp")
def cli() -> None:
    """Experiments on geo-distributed clouds: from a topology file to tables and figures."""


def main() -> None:
    """Run a command; every expected error is one line, without a traceback."""
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup has it
        # A login that is closed: nothing may stay reserved.
        signal.signal(signal.SIGHUP, _interrupt)
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        code = _interrupted()
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except KeyboardInterrupt:
        code = _interrupted()
    except UserError as error:
        click.echo(str(error), err=True)
        code = error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code if isinstance(code, int) else 0)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _interrupted() -> int:
    hints = {
        "up": "; the same command goes on from here, 'destroy' removes all",
        "deploy": "; the same command goes on from here, 'destroy' removes all",
        "bench": "; the same command starts another run",
    }
    click.echo(f"interrupted{hints.get(''.join(sys.argv[1:2]), '')}", err=True)
    return 130


# ---------------------------------------------------------------- topology and plan


def _topology_options(command: F) -> F:
    for option in (
        click.argument("topology", required=False, type=click.Path(path_type=Path)),
        click.option("--sites", type=int, help="Without a file: so many sites as in the paper."),
        click.option("--latency", help="One-way delay between any two sites, e.g. 50ms."),
        click.option("--name", help="Name of the testbed (default: the topology's)."),
    ):
        command = option(command)
    return command


BACKENDS = ("mysql", "rome")


def _backend_option(command: F) -> F:
    return click.option(
        "--backend", type=click.Choice(BACKENDS), help="What holds the databases, in place of "
        "what the topology says: MariaDB, or Redis through ROME."
    )(command)  # fmt: skip


def _topology(path: Path | None, sites: int | None, latency: str | None) -> Topology:
    if path is not None:
        if sites is not None or latency is not None:
            raise Refused(
                f"{path} and --sites or --latency both describe the topology",
                "give a file or the options",
            )
        return read_topology(path)
    if sites is None:
        raise Refused(
            "no topology was given", "name a file, such as topologies/two-sites.yaml, or --sites N"
        )
    return derive_topology(sites, latency)


def _plan(
    path: Path | None,
    sites: int | None,
    latency: str | None,
    name: str | None,
    cloud: bool = False,
    backend: str | None = None,
) -> Plan:
    topology = _topology(path, sites, latency)
    if backend is not None:
        chosen = dataclasses.replace(topology.openstack, backend=backend)
        topology = dataclasses.replace(topology, openstack=chosen)
    if name is not None:
        _check_testbed_name(name)
    return make_plan(topology, name, cloud)


def _check_testbed_name(name: str) -> None:
    from discovery_xp.topology import is_name

    if not is_name(name):
        raise InvalidInput(
            [Problem("--name", 0, "", f"'{name}' is not a name",
                     "write 1 to 30 of a-z, 0-9 and '-', a letter first, no '-' last")]
        )  # fmt: skip


@cli.command()
@click.argument("topology", nargs=-1, required=True, type=click.Path(path_type=Path))
def validate(topology: tuple[Path, ...]) -> None:
    """Check topology files, all problems at once."""
    problems: list[Problem] = []
    for path in topology:
        try:
            read = read_topology(path)
            make_plan(read)
        except InvalidInput as error:
            problems += error.problems
            continue
        except Refused as error:
            problems.append(Problem(str(path), 0, "", error.message, error.remedy))
            continue
        servers = sum(site.servers for site in read.sites) + (read.master is not None)
        click.echo(f"{path}: {len(read.sites)} sites, {servers} hosts")
    if problems:
        raise InvalidInput(problems)


@cli.command()
def schema() -> None:
    """Print the JSON Schema of topology files, for editors."""
    click.echo(json.dumps(topology_schema(), indent=2))


@cli.command()
@_topology_options
@_backend_option
@click.option("--hosts-only", is_flag=True, help="What 'up' would do instead of 'deploy'.")
@click.option("--json", "as_json", is_flag=True, help="Everything, for programs.")
def plan(
    topology: Path | None,
    sites: int | None,
    latency: str | None,
    name: str | None,
    backend: str | None,
    hosts_only: bool,
    as_json: bool,
) -> None:
    """Print what 'deploy' would do: hosts, services, links, requests. Touches nothing."""
    made = _plan(topology, sites, latency, name, not hosts_only, backend)
    if as_json:
        click.echo(json.dumps({**made.to_json(), "digest": made.digest}, indent=1))
        return
    _print_plan(made)


def _print_plan(made: Plan) -> None:
    console = _console()
    console.print(
        f"[bold]{made.name}[/]: {len(made.hosts)} hosts at {len(made.sites)} sites, "
        f"provider {made.provider}, plan {made.digest}"
    )
    for line in _facts(made):
        console.print(line, soft_wrap=True, markup=False)
    console.print(_hosts_table(made))
    if made.cloud is not None:
        console.print(_services_table(made))
    console.print(_links_table(made.links))
    for request in made.requests:
        click.echo(f"POST /sites/{request.site}/jobs {json.dumps(request.body)}")
    if len(made.requests) > 1 and "reservation" not in made.requests[0].body:
        click.echo("each with the same 'reservation', the first slot that all sites have then")
    console.print("Order of play:")
    for number, step in enumerate(made.steps, start=1):
        console.print(f"  {number}. {step}")


def _facts(made: Plan) -> list[str]:
    lines = []
    if made.network:
        lines.append(f"network {made.network}, this machine is {made.machine} in it")
    if made.provider == "local":
        lines.append(
            f"needs {format_bytes(made.needs.memory_bytes)} of memory, "
            f"{format_bytes(made.needs.disk_bytes)} of disk"
        )
    if made.node_hours is not None:
        nodes = sum(request.nodes for request in made.requests)
        lines.append(f"{nodes} nodes, {made.node_hours:g} node-hours")
    lines += [f"usage policy: {warning}" for warning in made.warnings]
    if made.cloud is not None:
        cloud = made.cloud
        more = {name: count for name, count in cloud.workers.items() if count > 1}
        lines.append(
            f"OpenStack on {cloud.backend}, placement {cloud.placement}, "
            f"periodic tasks {cloud.periodic_tasks}, virt driver {cloud.virt_driver}, "
            f"{cloud.nics} NICs a VM, "
            f"workers {', '.join(f'{name} {n}' for name, n in more.items()) or '1 each'}"
        )
        lines += _databases_in_words(made)
    lines.append(f"links are imposed by {_wan_in_words(made)}")
    allowed = made.tolerance
    lines.append(
        f"a round trip may be off by {allowed.absolute_ms:g} ms or "
        f"{allowed.relative_percent:g} %, whichever is larger"
    )
    return lines


def _databases_in_words(made: Plan) -> list[str]:
    """Where the databases are, where they aren't all on the one MariaDB."""
    from discovery_xp import databases
    from discovery_xp.plan import key_value_store

    store = key_value_store(made)
    if made.cloud is None or store is None:
        return []
    moved, stay = (databases.held_by(made.cloud, each) for each in ("rome", "mysql"))
    words = {
        "everysec": "on disk within a second",
        "always": "on disk before it is answered",
        "none": "nothing on disk",
    }[store.persistence]
    if store.kind == "server":
        there = sum("data" in host.roles for host in made.hosts)
        lines = [f"databases on one Redis server, {words}: {', '.join(moved)}"]
        if made.cloud.rome.store == "auto":
            lines.append(
                f"a Redis Cluster would need {databases.MIN_MASTERS} data nodes, there "
                f"{'is' if there == 1 else 'are'} {there or 'none'}"
            )
    else:
        held: dict[str, list[str]] = {}
        for name in moved:
            held.setdefault(store.master_of(name).host, []).append(name)
        copies = {0: "no copy", 1: "a copy", 2: "two copies"}[made.cloud.rome.replicas]
        lines = [
            f"databases on a Redis Cluster of {len(store.masters)} masters, {copies} of each, "
            f"{words}",
            *(f"  {', '.join(names)} on {host}" for host, names in held.items()),
        ]
    if stay:
        lines.append(f"databases that ROME doesn't carry, on MariaDB: {', '.join(stay)}")
    return lines


def _wan_in_words(made: Plan) -> str:
    if made.provider != "local":
        return "tc netem on the hosts"
    words = {"netem": "tc netem on the hosts", "vde": "VDE between the sites"}
    if made.wan in words:
        return words[made.wan]
    from discovery_xp.kernel import netem_is_likely

    likely = netem_is_likely()
    if likely is None:
        return f"{words['netem']}, or {words['vde']} if the kernel has no sch_netem"
    here = "this kernel has sch_netem" if likely else "this kernel has no sch_netem"
    return f"{words['netem' if likely else 'vde']} ({here})"


def _hosts_table(made: Plan) -> Table:
    table = Table(title="Hosts", title_justify="left", show_edge=False)
    for column in ("site", "network", "role", "hosts", "addresses", "limits"):
        table.add_column(column, overflow="fold")
    for site in made.sites:
        groups: dict[tuple[Any, ...], list[Any]] = {}
        for host in made.hosts_of(site.name):
            groups.setdefault((host.roles, host.limit), []).append(host)
        for (roles, limit), hosts in groups.items():
            names, addresses = [host.name for host in hosts], [host.address for host in hosts]
            bounds = []
            if limit.cpus is not None:
                bounds.append(f"{limit.cpus:g} cpus")
            if limit.memory_bytes is not None:
                bounds.append(format_bytes(limit.memory_bytes))
            table.add_row(
                site.name,
                site.network or "",
                ", ".join(roles),
                names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]} ({len(names)})",
                _range(addresses),
                ", ".join(bounds),
            )
    return table


def _services_table(made: Plan) -> Table:
    """How many of each service there are, and where."""
    from discovery_xp.cloud import services

    table = Table(title="Services", title_justify="left", show_edge=False)
    for column in ("service", "hosts", "of sites"):
        table.add_column(column, overflow="fold")
    places: dict[str, list[tuple[str, str]]] = {}
    for service in services(made):
        places.setdefault(service.unit, []).append((service.host, service.site))
    for unit, where in places.items():
        sites = list(dict.fromkeys(site for _, site in where))
        hosts = where[0][0] if len(where) == 1 else str(len(where))
        table.add_row(unit, hosts, sites[0] if len(sites) == 1 else f"{sites[0]} ... {sites[-1]}")
    return table


def _range(addresses: Sequence[str | None]) -> str:
    known = [address for address in addresses if address]
    if not known:
        return "assigned by the provider"
    return known[0] if len(known) == 1 else f"{known[0]} ... {known[-1]}"


def _link_cells(link: Link) -> list[str]:
    return [
        units.format_ms(link.delay_ms),
        units.format_ms(link.jitter_ms) if link.jitter_ms else "",
        units.format_percent(link.loss_percent) if link.loss_percent else "",
        units.format_rate(link.rate_mbit) if link.rate_mbit else "",
    ]


def _links_table(links: Sequence[PlannedLink]) -> Table:
    """One row for each pair, or for all pairs that are alike when those are many."""
    by_ends = {(link.source, link.target): link.link for link in links}
    groups: dict[tuple[Link, Link], list[str]] = {}
    seen: set[tuple[str, str]] = set()
    for (source, target), there in by_ends.items():
        if (target, source) not in seen:
            seen.add((source, target))
            back = by_ends[target, source]
            groups.setdefault((there, back), []).append(f"{source} - {target}")
    table = Table(title="Links between sites", title_justify="left", show_edge=False)
    for column in ("sites", "direction", "delay (one-way)", "jitter", "loss", "rate", "rtt"):
        table.add_column(column)
    for (there, back), pairs in groups.items():
        rtt = units.format_ms(there.delay_ms + back.delay_ms)
        many = len(pairs) > 40 or (len(groups) == 1 and len(pairs) > 3)
        for pair in [f"{pairs[0]} and {len(pairs) - 1} more pairs"] if many else pairs:
            if there == back:
                table.add_row(pair, "both", *_link_cells(there), rtt)
            else:
                table.add_row(pair, "there", *_link_cells(there), rtt)
                table.add_row("", "back", *_link_cells(back), "")
    return table


@cli.command()
@_topology_options
@click.option("--most", type=click.IntRange(1, 100), default=10, show_default=True,
              help="How many starts to list.")  # fmt: skip
@click.option("--night", is_flag=True, help="Leave out working days from 9:00 to 19:00.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def slots(
    topology: Path | None,
    sites: int | None,
    latency: str | None,
    name: str | None,
    most: int,
    night: bool,
    as_json: bool,
) -> None:
    """List when a topology would fit on Grid'5000. Reserves nothing; exit code 1 if never."""
    made = _plan(topology, sites, latency, name)
    from discovery_xp.oar import policy_at
    from discovery_xp.platforms import G5kProvider

    if not isinstance(made.platform, G5kProvider):
        raise Refused(
            f"'{made.name}' is for provider {made.provider}, which has no slots",
            "name a topology with 'provider: {type: g5k, ...}'",
        )
    from discovery_xp.providers import grid5000

    found = grid5000.slots_for(made, most, night)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(slot) for slot in found], indent=1))
    elif not found:
        click.echo("there is none within four weeks")
    else:
        table = Table(title=f"Starts of {made.platform.job.walltime}, dates of Paris",
                      title_justify="left", show_edge=False)  # fmt: skip
        for column in ("start", "free nodes", "usage policy"):
            table.add_column(column, overflow="fold")
        for slot in found:
            free = ", ".join(f"{cluster} {count}" for cluster, count in slot.free.items())
            table.add_row(slot.date, free, policy_at(made.platform.job, slot.start))
        _console().print(table)
    if not found:
        sys.exit(1)


# ---------------------------------------------------------------- testbeds


def _testbed_option(command: F) -> F:
    # `up`, `deploy` and `bench` give it a --name: the same word finds it again.
    words = ("--testbed", "--name")
    return click.option(*words, "name", help="Which one, if there are several.")(command)


def _keep_option(command: F) -> F:
    return click.option(
        "--keep", is_flag=True, help="Don't give borrowed nodes back when it fails."
    )(command)


@cli.command()
@_topology_options
@_keep_option
def up(
    topology: Path | None, sites: int | None, latency: str | None, name: str | None, keep: bool
) -> None:
    """Make the hosts of a topology, or repair them; impose and measure its links."""
    made = _plan(topology, sites, latency, name)
    from discovery_xp import experiment

    follower = Follower()
    brought = experiment.bring_up(made, follower, keep)
    follower.end(f"'{made.name}' is up: {len(made.hosts)} hosts at {len(made.sites)} sites")
    if brought.pairs:
        click.echo(_worst_pair(brought.pairs, brought.state.wan or ""))
    click.echo(f"inventory: {brought.testbed.inventory}")
    click.echo(f"ssh:       ssh -F {brought.testbed.ssh_config} {made.hosts[0].name}")


@cli.command()
@_topology_options
@_backend_option
@_keep_option
def deploy(
    topology: Path | None,
    sites: int | None,
    latency: str | None,
    name: str | None,
    backend: str | None,
    keep: bool,
) -> None:
    """Make a topology's hosts and an OpenStack on them, or repair them; boot a VM at each site."""
    made = _plan(topology, sites, latency, name, True, backend)
    from discovery_xp import experiment

    follower = Follower()
    deployed = experiment.deploy_cloud(made, follower, keep)
    follower.end(f"'{made.name}' boots VMs at each of {len(deployed.boots)} sites")
    console = _console()
    console.print(_boots_table(deployed))
    if deployed.pairs:
        click.echo(_worst_pair(deployed.pairs, deployed.state.wan or ""))


def _boots_table(deployed: Deployed) -> Table:
    urls = {endpoint.region: endpoint.url for endpoint in deployed.deployment.endpoints}
    table = Table(title="A VM at each site", title_justify="left", show_edge=False)
    for column in ("site", "asked at", "VM", "on", "after"):
        table.add_column(column, overflow="fold")
    for boot in deployed.boots:
        took = "" if boot.boot_duration_s is None else f"{boot.boot_duration_s:.1f} s"
        table.add_row(boot.site, urls[boot.region], boot.status, boot.host, took)
    return table


def _worst_pair(pairs: Sequence[PairRtt], wan: str) -> str:
    worst = max(pairs, key=lambda pair: abs(pair.error_ms or 0.0))
    return (
        f"links:     {len(pairs)} pairs imposed by {wan}, all within tolerance; the worst is "
        f"{worst.source} - {worst.target}: {worst.observed_ms:.2f} ms for {worst.requested_ms:g} ms"
    )


@cli.command()
@_testbed_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(name: str | None, as_json: bool) -> None:
    """Say what is up and what is not; exit code 1 when something is down."""
    if name is None and len(testbeds.testbeds()) != 1:
        _print_testbeds(as_json)
        return
    chosen = testbeds.choose(name)
    state = chosen.load()
    from discovery_xp import experiment

    report = experiment.inspect(chosen)
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=1))
    else:
        console = _console()
        console.print(
            f"[bold]{chosen.name}[/]: {state.phase}, since {state.created}, "
            f"provider {state.plan.provider}, links by {state.wan or 'nothing yet'}"
        )
        table = Table(show_edge=False)
        for column in ("site", "hosts", "running", "ssh answers", "memory", "down"):
            table.add_column(column, overflow="fold")
        for site in state.plan.sites:
            own = [report.hosts[host.name] for host in state.plan.hosts_of(site.name)]
            memory = [host.memory_bytes for host in own if host.memory_bytes is not None]
            table.add_row(
                site.name,
                str(len(own)),
                str(sum(host.is_running for host in own)),
                str(sum(host.answers for host in own)),
                format_bytes(sum(memory)) if memory else "",
                ", ".join(host.name for host in own if not host.answers),
            )
        console.print(table)
        for remark in report.remarks:
            console.print(remark, markup=False, soft_wrap=True)
        for pair in report.broken_links:
            console.print(f"the link {pair} is down")
        if report.services is not None:
            _print_services(console, state.plan, report.services)
        if not report.is_healthy:
            repair = "up" if report.services is None else "deploy"
            console.print(f"'{repair}' with the same topology repairs it")
        if name is None:
            _print_forgotten()
    if not report.is_healthy:
        sys.exit(1)


def _print_services(console: Console, plan: Plan, services: Sequence[ServiceStatus]) -> None:
    units = list(dict.fromkeys(service.unit for service in services))
    table = Table(title="Services up", title_justify="left", show_edge=False)
    table.add_column("service")
    for site in plan.sites:
        table.add_column(site.name, justify="right")
    for unit in units:
        cells = []
        for site in plan.sites:
            own = [each for each in services if each.unit == unit and each.site == site.name]
            cells.append(f"{sum(each.is_up for each in own)}/{len(own)}" if own else "")
        table.add_row(unit, *cells)
    console.print(table)
    down = [service for service in services if not service.is_up]
    for service in down[:20]:
        console.print(f"{service.unit} on {service.host}: {service.complaint}", markup=False)
    if len(down) > 20:
        console.print(f"and {len(down) - 20} more; see all with --json")


def _print_testbeds(as_json: bool) -> None:
    found = testbeds.testbeds()
    if as_json:
        click.echo(json.dumps(found))
        return
    if not found:
        click.echo("there is no testbed; make one with 'discovery-xp up TOPOLOGY'")
    for name in found:
        try:
            state = Testbed(name).load()
        except Refused as error:  # the others are well all the same
            click.echo(f"{name}: {error}")
            continue
        click.echo(f"{name}: {state.phase}, {len(state.plan.hosts)} hosts, since {state.created}")
    _print_forgotten()


def _print_forgotten() -> None:
    """Jobs that no testbed here knows; where there is no login for Grid'5000, there are none."""
    login = Path(os.environ.get("HOME", "/")) / ".python-grid5000.yaml"
    if not login.exists() and not socket.getfqdn().endswith("grid5000.fr"):
        return
    from discovery_xp import experiment

    try:
        for line in experiment.forgotten():
            click.echo(f"without a testbed here: {line}")
    except Refused as error:
        click.echo(f"what is borrowed without a testbed here can't be told: {error}")


@cli.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@_testbed_option
@click.argument("host")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def ssh(name: str | None, host: str, command: tuple[str, ...]) -> None:
    """Log in to a host, or run a command on it."""
    chosen = testbeds.choose(name)
    chosen.load().plan.host(host)
    if not chosen.ssh_config.exists():
        raise Refused(f"'{chosen.name}' has no hosts yet", "run 'discovery-xp up' again")
    arguments = ["ssh", "-F", str(chosen.ssh_config), host, *command]
    os.execvp("ssh", arguments)


@cli.command()
@_topology_options
@_backend_option
@click.option("--placement", type=click.Choice(["shared", "availability-zones"]),
              help="One pool of computes, or a zone for each site.")  # fmt: skip
@click.option("--scenario", type=click.Path(path_type=Path), help="What is asked of the cloud.")
@click.option("--vms", type=click.IntRange(1), help="How many, instead of the scenario's.")
@click.option("--probes", default="all", show_default=True,
              help="'all', 'none', or some of calls, requests, statements, traffic, messages, "
              "usage, with commas.")  # fmt: skip
@click.option("--results", type=click.Path(path_type=Path), default=Path("results"),
              show_default=True, help="Where the run's folder goes.")  # fmt: skip
@click.option("--keep", is_flag=True, help="Leave the testbed up.")
def bench(
    topology: Path | None,
    sites: int | None,
    latency: str | None,
    name: str | None,
    backend: str | None,
    placement: str | None,
    scenario: Path | None,
    vms: int | None,
    probes: str,
    results: Path,
    keep: bool,
) -> None:
    """Deploy, load, measure, store, report, destroy: one experiment from end to end.

    Without a topology: 2 sites 10 ms apart and 20 VMs, in some minutes. With --sites and
    --latency: as many sites as in the paper, and 500 VMs.
    """
    from discovery_xp import bench as benches

    small = topology is None and sites is None and latency is None
    if topology is None:
        sites = 2 if sites is None else sites
        latency = "10ms" if small else latency
    chosen = _topology(topology, sites, latency)
    cloud = chosen.openstack
    if backend is not None:
        cloud = dataclasses.replace(cloud, backend=backend)
    if placement is not None:
        cloud = dataclasses.replace(cloud, placement=placement)
    if name is not None:
        _check_testbed_name(name)
    made = make_plan(dataclasses.replace(chosen, openstack=cloud), name, cloud=True)
    wanted = benches.Wanted(
        scenario=benches.choose_scenario(scenario, vms, small),
        topology_text=_as_file(topology, sites, latency, backend, placement),
        results=results,
        probes=benches.choose_probes(probes),
        keep=keep,
    )
    benches.check(made, wanted)
    console = _console()
    for line in benches.foretell(made, wanted):
        console.print(line, markup=False, soft_wrap=True)
    follower = Follower(benches.expected_s(made, wanted))
    opened: list[Path] = []
    try:
        run = benches.run(
            made, wanted, follower, lambda run: opened.append(run.folder), follower.pace
        )
    except BaseException:
        follower.end("it ended early")
        if opened:
            told = [f"what was measured is in {opened[0]}, as a partial run"]
            with contextlib.suppress(UserError, OSError):
                told.append(f"its report is {write_page(opened[0])}")
            click.echo("; ".join(told), err=True)
        raise
    stays = f"; '{made.name}' stays up until 'discovery-xp destroy'" if keep else ""
    follower.end(f"the run is in {run.folder}{stays}")
    click.get_current_context().invoke(
        report, run=(run.folder,), page=None, csv=None, latex=None, figures=None, whole=False
    )
    if run.load().is_partial:
        raise Failed(
            f"the run is partial: {run.load().why_partial}",
            "what was measured is kept; the same command makes another run",
        )


def _as_file(path: Path | None, sites: int | None, latency: str | None, *asked: str | None) -> str:
    """The topology as it was written, or a file that says what the command line did.

    `asked` are the values of --backend and --placement, None where they weren't given.
    """
    openstack = {
        key: value
        for key, value in zip(("backend", "placement"), asked, strict=True)
        if value is not None
    }
    options = ", ".join(f"{key}: {value}" for key, value in openstack.items())
    if path is not None:
        more = f"# On the command line: {options}\n" if options else ""
        return path.read_text(encoding="utf-8") + more
    delay = f"network: {{delay: {latency}}}\n" if latency else ""
    return (
        f"name: sites-{sites}\n"
        f"sites: [{{name: site, count: {sites}, controllers: 1, computes: 6, data: 1}}]\n{delay}"
        + (f"openstack: {{{options}}}\n" if options else "")
    )


@cli.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@_testbed_option
@click.option(
    "--cloud",
    "user",
    default="admin",
    show_default=True,
    help="Who asks: 'admin', or 'discovery', the user of experiments.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def openstack(name: str | None, user: str, arguments: tuple[str, ...]) -> None:
    """Run OpenStack's client on the master, e.g. 'openstack --os-region-name site2 server list'."""
    from discovery_xp import cloud, deploy
    from discovery_xp.software import ENVIRONMENT

    chosen = testbeds.choose(name)
    deploy.load(chosen)
    master = cloud.master(chosen.load().plan).name
    command = shlex.join([f"{ENVIRONMENT}/bin/openstack", "--os-cloud", user, *arguments])
    terminal = ["-t"] if not arguments and sys.stdin.isatty() else []
    os.execvp("ssh", ["ssh", "-F", str(chosen.ssh_config), *terminal, master, command])


@cli.command()
@_testbed_option
@click.option("--to", "target", type=click.Path(path_type=Path), help="A folder that isn't there.")
def backup(name: str | None, target: Path | None) -> None:
    """Fetch configurations, journals, database dumps and versions of a cloud, without secrets."""
    chosen = testbeds.choose(name)
    from discovery_xp import experiment

    folder = target or Path(f"backup-{chosen.name}-{testbeds.now().replace(':', '')}")
    follower = Follower()
    count = experiment.backup_cloud(chosen, folder, follower)
    follower.end(f"{count} files in {folder}")


@cli.command()
@_testbed_option
@click.option("--path", "as_path", is_flag=True, help="The file's path instead of its text.")
def inventory(name: str | None, as_path: bool) -> None:
    """Print Ansible's inventory of a testbed."""
    chosen = testbeds.choose(name)
    chosen.load()
    if not chosen.inventory.exists():
        raise Refused(f"'{chosen.name}' has no hosts yet", "run 'discovery-xp up' again")
    click.echo(str(chosen.inventory) if as_path else chosen.inventory.read_text().rstrip())


@cli.command()
@_testbed_option
@click.option("--all", "everything", is_flag=True, help="All testbeds, and traces of lost ones.")
@click.option("--forget", is_flag=True, help="Even if its hosts can't be reached any more.")
@click.option("--cloud-only", is_flag=True, help="Only the cloud: its hosts and links stay.")
def destroy(name: str | None, everything: bool, forget: bool, cloud_only: bool) -> None:
    """Remove a testbed and every trace of it."""
    from discovery_xp import experiment

    if cloud_only:
        if everything or forget:
            raise Refused("--cloud-only is for one testbed", "leave --all and --forget out")
        chosen = testbeds.choose(name)
        chosen.load()
        follower = Follower()
        experiment.remove_cloud(chosen, follower)
        follower.end(f"'{chosen.name}' has no cloud; its hosts stay")
        return
    if everything:
        names = experiment.known_testbeds()
    else:
        known = experiment.known_testbeds()
        names = known if name is None and len(known) == 1 else [testbeds.choose(name).name]
    failures = []
    for each in names:
        try:
            experiment.tear_down(Testbed(each), forget)
            click.echo(f"'{each}' is gone")
        except Refused as error:  # the others go all the same
            failures.append(error)
            if len(names) > 1:
                click.echo(f"'{each}' stays: {error}", err=True)
    if everything:
        experiment.sweep()
    if failures:
        raise failures[0]
    if not names:
        click.echo("there is no testbed")


# ---------------------------------------------------------------- network


@cli.group()
def network() -> None:
    """Show, change and measure the links between the sites of a running testbed."""


@network.command("show")
@_testbed_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def network_show(name: str | None, as_json: bool) -> None:
    """Print the links asked for beside what is read back; exit code 1 when they differ."""
    from discovery_xp import experiment
    from discovery_xp.network import disagreements

    chosen = testbeds.choose(name)
    readings = experiment.show_links(chosen)
    state = chosen.load()
    wrong = disagreements(state.links, readings)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "testbed": chosen.name,
                    "imposed_by": state.wan,
                    "links": [dataclasses.asdict(link) for link in state.links],
                    "read_back": [dataclasses.asdict(reading) for reading in readings],
                    "disagreements": wrong,
                },
                indent=1,
            )
        )
    else:
        console = _console()
        console.print(_links_table(state.links))
        console.print(
            f"imposed by {state.wan}; {len(readings)} directions read back, {len(wrong)} differ"
        )
        for words in wrong:
            console.print(f"  {words}", markup=False)
    if wrong:
        sys.exit(1)


@network.command("set")
@_testbed_option
@click.option("--topology", type=click.Path(path_type=Path), help="Take all links of this file.")
@click.option("--delay", help="One-way delay, e.g. 10ms.")
@click.option("--rtt", help="Round trip, half of it each way.")
@click.option("--jitter", help="Variation of the one-way delay.")
@click.option("--loss", help="Share of packets lost each way, e.g. 0.1%.")
@click.option("--rate", help="Bandwidth limit each way, e.g. 1gbit.")
@click.option("--between", nargs=2, help="Only this pair of sites.")
@click.option("--from", "source", help="Only the direction from this site ...")
@click.option("--to", "target", help="... to this one.")
def network_set(name: str | None, topology: Path | None, **values: Any) -> None:
    """Change the links of a running testbed, read them back and measure them."""
    from discovery_xp import experiment
    from discovery_xp.network import require_within_tolerance

    chosen = testbeds.choose(name)
    state = chosen.load()
    if topology is not None:
        if any(values.values()):
            raise Refused("--topology says it all", "leave the other options out")
        links = _links_of_file(topology, state.plan)
    else:
        links = change_links(state.plan, state.links, **values)
    pairs = experiment.set_links(chosen, links)
    _console().print(_pairs_table(pairs))
    require_within_tolerance(pairs)


def _links_of_file(path: Path, running: Plan) -> list[PlannedLink]:
    topology = read_topology(path)
    known = {site.name for site in running.sites}
    unknown = [site.name for site in topology.sites if site.name not in known]
    if unknown:
        raise InvalidInput(
            [Problem(str(path), 0, "sites", f"'{unknown[0]}' is not a site of '{running.name}'",
                     "name a topology of the same sites, or some of them")]
        )  # fmt: skip
    listed = {site.name for site in topology.sites}
    return [
        PlannedLink(
            old.source,
            old.target,
            topology.link(old.source, old.target) if {old.source, old.target} <= listed else Link(),
        )
        for old in running.links
    ]


def change_links(running: Plan, links: Sequence[PlannedLink], **values: Any) -> list[PlannedLink]:
    """`links` with the options of `network set` applied; raises InvalidInput."""
    from discovery_xp.topology import parse_link_options

    options = {key: value for key, value in values.items() if value}
    between = options.pop("between", None)
    source, target = options.pop("source", None), options.pop("target", None)
    if (between and (source or target)) or (source is None) != (target is None):
        raise Refused("the pair isn't clear", "give --between A B, or --from A and --to B")
    ends = (
        {between, tuple(reversed(between))} if between else {(source, target)} if source else None
    )
    for site in (between or (source, target)) if ends else ():
        running.site(site)
    if "rtt" in options and source:
        raise Refused("a round trip has no direction", "give --delay with --from and --to")
    if ends is not None and not any(end == (link.source, link.target) for link in links
                                    for end in ends):  # fmt: skip
        raise Refused("a site has no link to itself", "name two different sites")
    if not options:
        raise Refused("nothing to set", "give --delay, --rtt, --jitter, --loss or --rate")
    return [
        PlannedLink(link.source, link.target, parse_link_options(options, link.link))
        if ends is None or (link.source, link.target) in ends
        else link
        for link in links
    ]


@network.command("reset")
@_testbed_option
def network_reset(name: str | None) -> None:
    """Remove everything imposed between the sites."""
    from discovery_xp import experiment

    chosen = testbeds.choose(name)
    experiment.reset_links(chosen)
    click.echo(f"nothing is imposed on the links of '{chosen.name}'")


@network.command("measure")
@_testbed_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def network_measure(name: str | None, as_json: bool) -> None:
    """Measure the round trip of every pair of sites; exit code 1 outside the tolerance."""
    from discovery_xp import experiment

    chosen = testbeds.choose(name)
    pairs = experiment.measure_links(chosen)
    if as_json:
        click.echo(json.dumps([pair.to_json() for pair in pairs], indent=1))
    elif pairs:
        _console().print(_pairs_table(pairs))
    else:
        click.echo("there is one site: nothing to measure")
    if any(pair.is_off for pair in pairs):
        sys.exit(1)


def _pairs_table(pairs: Sequence[PairRtt]) -> Table:
    table = Table(title="Round trips between sites, ms", title_justify="left", show_edge=False)
    for column in ("sites", "requested", "observed", "error", "least", "most", "lost", "verdict"):
        table.add_column(column, justify="left" if column in ("sites", "verdict") else "right")
    for pair in pairs:

        def number(value: float | None, sign: str = "") -> str:
            return "-" if value is None else f"{value:{sign}.2f}"

        again = f" (measured {pair.rounds} times)" if pair.rounds > 1 else ""
        table.add_row(
            f"{pair.source} - {pair.target}",
            f"{pair.requested_ms:g}",
            number(pair.observed_ms),
            number(pair.error_ms, "+"),
            number(pair.least_ms),
            number(pair.most_ms),
            f"{pair.lost} of {pair.samples}",
            (f"OFF by more than {pair.allowed_ms:g}" if pair.is_off else "within tolerance")
            + again,
        )
    return table


cli.add_command(report)

if __name__ == "__main__":
    main()
