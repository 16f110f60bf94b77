"""The command line: one subcommand for each stage.

Sole owner of printing, progress and exit codes: 0 done, 1 started but not
finished, 2 refused (nothing was started), 70 a defect, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click import shell_completion
from rich.console import Console
from rich.table import Table

from discovery_xp import files
from discovery_xp.boundary.names import TestbedName
from discovery_xp.cli.common import (
    F,
    InputFile,
    NameOption,
    console,
    echo,
    require_new,
    testbed_option,
)
from discovery_xp.cli.examples import init
from discovery_xp.cli.guard import run
from discovery_xp.cli.network import network
from discovery_xp.cli.notebook import notebook
from discovery_xp.cli.plan import print_plan
from discovery_xp.cli.progress import Follower
from discovery_xp.cli.report import report, write_page
from discovery_xp.errors import Failed, InvalidInput, Problem, Refused, UserError
from discovery_xp.inputs.scenario import MAX_VMS
from discovery_xp.inputs.topology import (
    Topology,
    derive_topology,
    read_topology,
    topology_of,
)
from discovery_xp.inputs.topology_file import topology_schema
from discovery_xp.inputs.units import format_bytes
from discovery_xp.inputs.yamlfile import read_yaml
from discovery_xp.planning.plan import Plan, make_plan
from discovery_xp.planning.plan_checks import require_free_network
from discovery_xp.testbeds import testbed as testbeds
from discovery_xp.testbeds.testbed import Testbed
from discovery_xp.text import printable_lines

if TYPE_CHECKING:
    from discovery_xp.deployment.status import ServiceStatus
    from discovery_xp.experiment import Deployed, Inspection
    from discovery_xp.testbeds.pings import PairRtt

# EnOSlib and Ansible are loaded by the commands that touch hosts, not by a plan.


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="discovery-xp")
def cli() -> None:
    """Experiments on geo-distributed clouds: from a topology file to tables and figures."""


def main() -> None:
    """Run a command; every expected error is one line, without a traceback."""
    files.narrow_umask()
    sys.exit(run(cli))


# ---------------------------------------------------------------- topology and plan


def _topology_options(command: F) -> F:
    for option in (
        click.argument("topology", required=False, type=InputFile("topologies")),
        click.option("--sites", type=int, help="Without a file: so many sites as in the paper."),
        click.option("--latency", help="One-way delay between any two sites, e.g. 50ms."),
        click.option(
            "--name", type=NameOption(), help="Name of the testbed (default: the topology's)."
        ),
    ):
        command = option(command)
    return command


BACKENDS = ("mysql", "rome")


def _backend_option(command: F) -> F:
    return click.option(
        "--backend", type=click.Choice(BACKENDS), help="What holds the databases, in place of "
        "what the topology says: MariaDB, or Redis through ROME."
    )(command)  # fmt: skip


def _topology(
    path: Path | None, sites: int | None, latency: str | None
) -> tuple[Topology, str | None]:
    """The topology that was asked for, and its file's text, None without a file."""
    if path is not None:
        if sites is not None or latency is not None:
            raise Refused(
                f"{path} and --sites or --latency both describe the topology",
                "give a file or the options",
            )
        parsed = read_yaml(path)  # once: a second look may find something else
        return topology_of(parsed), parsed.text
    if sites is None:
        raise Refused(
            "no topology was given",
            "name a file, a topology that comes with the toolkit, such as two-sites, or --sites N",
        )
    return derive_topology(sites, latency), None


def _plan(
    path: Path | None,
    sites: int | None,
    latency: str | None,
    name: TestbedName | None,
    cloud: bool = False,
    backend: str | None = None,
) -> Plan:
    topology, _text = _topology(path, sites, latency)
    if backend is not None:
        chosen = dataclasses.replace(topology.openstack, backend=backend)
        topology = dataclasses.replace(topology, openstack=chosen)
    return make_plan(topology, name, cloud)


@cli.command()
@click.argument("topology", nargs=-1, required=True, type=InputFile("topologies"))
@click.option("--hosts-only", is_flag=True, help="For 'up', without a cloud on the hosts.")
def validate(topology: tuple[Path, ...], hosts_only: bool) -> None:
    """Check topology files, all problems at once: what passes can be planned and deployed."""
    problems: list[Problem] = []
    for path in topology:
        try:
            read = read_topology(path)
            made = make_plan(read, cloud=not hosts_only)
            require_free_network(made.network)
        except InvalidInput as error:
            problems += error.problems
            continue
        except Refused as error:
            problems.append(Problem(str(path), 0, "", error.message, error.remedy))
            continue
        echo(f"{path}: {len(read.sites)} sites, {len(made.hosts)} hosts")
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
    name: TestbedName | None,
    backend: str | None,
    hosts_only: bool,
    as_json: bool,
) -> None:
    """Print what 'deploy' would do: hosts, services, links, requests. Touches nothing."""
    made = _plan(topology, sites, latency, name, not hosts_only, backend)
    if as_json:
        click.echo(json.dumps({**made.to_json(), "digest": made.digest}, indent=1))
        return
    print_plan(made)


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
    name: TestbedName | None,
    most: int,
    night: bool,
    as_json: bool,
) -> None:
    """List when a topology would fit on Grid'5000. Reserves nothing; exit code 1 if never."""
    made = _plan(topology, sites, latency, name)
    from discovery_xp.inputs.platforms import G5kProvider
    from discovery_xp.planning.oar import policy_at

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
        echo("there is none within four weeks")
    else:
        table = Table(title=f"Starts of {made.platform.job.walltime}, dates of Paris",
                      title_justify="left", show_edge=False)  # fmt: skip
        for column in ("start", "free nodes", "usage policy"):
            table.add_column(column, overflow="fold")
        for slot in found:
            free = ", ".join(f"{cluster} {count}" for cluster, count in slot.free.items())
            table.add_row(slot.date, free, policy_at(made.platform.job, slot.start))
        console().print(table)
    if not found:
        sys.exit(1)


@cli.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def prepare(command: tuple[str, ...]) -> None:
    """Fetch and build ahead what a command needs, e.g. 'prepare deploy two-sites'. Boots nothing.

    It takes minutes the first time: packages of the hosts, and the root tree of emulated ones.
    """
    word, *arguments = command
    if word not in ("up", "deploy", "bench"):
        raise Refused(f"'{word}' needs no preparation", "name 'up', 'deploy' or 'bench'")
    given = cli.commands[word].make_context(word, list(arguments)).params
    sites = given["sites"]
    if word == "bench" and given["topology"] is None and sites is None:
        sites = 2
    made = _plan(given["topology"], sites, given["latency"], given["name"], word != "up")
    from discovery_xp.providers import preparation

    follower = Follower(preparation.needed_s(made))
    preparation.prepare(made, follower)
    follower.end("all is prepared")


# ---------------------------------------------------------------- testbeds


def _keep_option(command: F) -> F:
    return click.option(
        "--keep", is_flag=True, help="Don't give borrowed nodes back when it fails."
    )(command)


def _expose_option(command: F) -> F:
    return click.option(
        "--expose", is_flag=True, help="Let others than the testbed's hosts and root of this "
        "machine reach the hosts, too; see docs/ports.md."
    )(command)  # fmt: skip


@cli.command()
@_topology_options
@_keep_option
@_expose_option
def up(
    topology: Path | None,
    sites: int | None,
    latency: str | None,
    name: TestbedName | None,
    keep: bool,
    expose: bool,
) -> None:
    """Make the hosts of a topology, or repair them; impose and measure its links."""
    made = _plan(topology, sites, latency, name)
    from discovery_xp import experiment

    follower = Follower()
    brought = experiment.bring_up(made, follower, keep, expose)
    follower.end(f"'{made.name}' is up: {len(made.hosts)} hosts at {len(made.sites)} sites")
    if brought.pairs:
        echo(_worst_pair(brought.pairs, brought.state.wan or ""))
    echo(f"inventory: {brought.testbed.inventory}")
    echo(f"ssh:       ssh -F {brought.testbed.ssh_config} {made.hosts[0].name}")


@cli.command()
@_topology_options
@_backend_option
@_keep_option
@_expose_option
def deploy(
    topology: Path | None,
    sites: int | None,
    latency: str | None,
    name: TestbedName | None,
    backend: str | None,
    keep: bool,
    expose: bool,
) -> None:
    """Make a topology's hosts and an OpenStack on them, or repair them; boot a VM at each site."""
    made = _plan(topology, sites, latency, name, True, backend)
    from discovery_xp import experiment

    follower = Follower()
    deployed = experiment.deploy_cloud(made, follower, keep, expose)
    follower.end(f"'{made.name}' boots VMs at each of {len(deployed.boots)} sites")
    out = console()
    out.print(_boots_table(deployed))
    if deployed.pairs:
        echo(_worst_pair(deployed.pairs, deployed.state.wan or ""))


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
@testbed_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(name: TestbedName | None, as_json: bool) -> None:
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
        out = console()
        out.print(
            f"{chosen.name}: {state.phase}, since {state.created}, "
            f"provider {state.plan.provider}, links by {state.wan or 'nothing yet'}"
        )
        table = Table(show_edge=False)
        for column in ("site", "hosts", "running", "ssh answers", "memory", "disk", "processes",
                       "down"):  # fmt: skip
            table.add_column(column, overflow="fold")
        for site in state.plan.sites:
            own = [report.hosts[host.name] for host in state.plan.hosts_of(site.name)]
            memory = [host.memory_bytes for host in own if host.memory_bytes is not None]
            used = {
                quota: [usage.used for host in own for usage in host.usage if usage.quota == quota]
                for quota in ("disk", "processes")
            }
            table.add_row(
                site.name,
                str(len(own)),
                str(sum(host.is_running for host in own)),
                str(sum(host.answers for host in own)),
                format_bytes(sum(memory)) if memory else "",
                format_bytes(sum(used["disk"])) if used["disk"] else "",
                str(sum(used["processes"])) if used["processes"] else "",
                ", ".join(host.name for host in own if not host.answers),
            )
        out.print(table)
        if state.exposed:
            out.print("exposed: others than the testbed's own hosts reach them; see docs/ports.md")
        for remark in report.remarks:
            out.print(remark, soft_wrap=True)
        for line in (*_on_merging(report), *_at_quota(report)):
            out.print(line, soft_wrap=True)
        for pair in report.broken_links:
            out.print(f"the link {pair} is down")
        if report.services is not None:
            _print_services(out, state.plan, report.services)
        if not report.is_healthy:
            repair = "up" if report.services is None else "deploy"
            out.print(f"'{repair}' with the same topology repairs it")
        if name is None:
            _print_forgotten()
    if not report.is_healthy:
        sys.exit(1)


def _on_merging(report: Inspection) -> list[str]:
    """Return a line on how the hosts' memory is merged, none where it isn't shared."""
    merging = report.merging
    if merging is None:
        return []
    if not merging.is_on:
        return [f"equal pages of the hosts' memory aren't merged: {merging.reason}"]
    cost = "" if merging.ksmd_cpu_s is None else (
        f", for {merging.ksmd_cpu_s:.0f} s of ksmd's CPU time since the machine started"
    )  # fmt: skip
    return [
        "equal pages of the hosts' memory are merged: they would take "
        f"{format_bytes(merging.saved_bytes)} more{cost}"
    ]


def _at_quota(report: Inspection) -> list[str]:
    """A line for each quota that a host has reached, or was kept from going beyond."""
    lines = []
    for host in report.hosts.values():
        for usage in host.usage:
            is_count = usage.quota == "processes"
            used = str(usage.used) if is_count else format_bytes(usage.used)
            limit = str(usage.limit) if is_count else format_bytes(usage.limit)
            remedy = f"raise '{usage.quota}' in provider.limits"
            if usage.is_at_limit:
                lines.append(f"{host.name} is at its quota of {usage.quota}, {limit}; {remedy}")
            elif usage.refusals:
                lines.append(
                    f"{host.name} was at its quota of {usage.quota}, {limit}, {usage.refusals} "
                    f"times; now it uses {used}; {remedy}"
                )
    return lines


def _print_services(out: Console, plan: Plan, services: Sequence[ServiceStatus]) -> None:
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
    out.print(table)
    down = [service for service in services if not service.is_up]
    for service in down[:20]:
        out.print(f"{service.unit} on {service.host}: {service.complaint}")
    if len(down) > 20:
        out.print(f"and {len(down) - 20} more; see all with --json")


def _print_testbeds(as_json: bool) -> None:
    found = testbeds.testbeds()
    if as_json:
        click.echo(json.dumps(found))
        return
    if not found:
        echo("there is no testbed; make one with 'discovery-xp up TOPOLOGY'")
    for name in found:
        try:
            state = Testbed(name).load()
        except Refused as error:  # the others are well all the same
            echo(f"{name}: {error}")
            continue
        echo(f"{name}: {state.phase}, {len(state.plan.hosts)} hosts, since {state.created}")
    _print_forgotten()


def _print_forgotten() -> None:
    """Jobs that no testbed here knows; where there is no login for Grid'5000, there are none."""
    login = Path(os.environ.get("HOME", "/")) / ".python-grid5000.yaml"
    if not login.exists() and not socket.getfqdn().endswith("grid5000.fr"):
        return
    from discovery_xp import ending

    try:
        for line in ending.forgotten():
            echo(f"without a testbed here: {line}")
    except Refused as error:
        echo(f"what is borrowed without a testbed here can't be told: {error}")


@cli.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@testbed_option
@click.argument("host")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def ssh(name: TestbedName | None, host: str, command: tuple[str, ...]) -> None:
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
@click.option("--scenario", type=InputFile("scenarios"), help="What is asked of the cloud: a file, "
              "or the name of one that comes with the toolkit.")  # fmt: skip
@click.option("--vms", type=click.IntRange(1, MAX_VMS), help="How many, instead of the scenario's.")
@click.option("--probes", default="all", show_default=True,
              help="'all', 'none', or some of calls, requests, statements, traffic, messages, "
              "usage, with commas.")  # fmt: skip
@click.option("--results", type=click.Path(path_type=Path), default=Path("results"),
              show_default=True, help="Where the run's folder goes.")  # fmt: skip
@click.option("--keep", is_flag=True, help="Leave the testbed up.")
@_expose_option
def bench(
    topology: Path | None,
    sites: int | None,
    latency: str | None,
    name: TestbedName | None,
    backend: str | None,
    placement: str | None,
    scenario: Path | None,
    vms: int | None,
    probes: str,
    results: Path,
    keep: bool,
    expose: bool,
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
    chosen, text = _topology(topology, sites, latency)
    cloud = chosen.openstack
    if backend is not None:
        cloud = dataclasses.replace(cloud, backend=backend)
    if placement is not None:
        cloud = dataclasses.replace(cloud, placement=placement)
    made = make_plan(dataclasses.replace(chosen, openstack=cloud), name, cloud=True)
    wanted = benches.Wanted(
        scenario=benches.choose_scenario(scenario, vms, small),
        topology_text=_as_file(text, sites, latency, backend, placement),
        results=results,
        probes=benches.choose_probes(probes),
        keep=keep,
        expose=expose,
    )
    benches.check(made, wanted)
    out = console()
    for line in benches.foretell(made, wanted):
        out.print(line, soft_wrap=True)
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
            echo("; ".join(told), err=True)
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


def _as_file(text: str | None, sites: int | None, latency: str | None, *asked: str | None) -> str:
    """The topology as it was written, or a file that says what the command line did.

    `text` is the file's, None without a file; `asked` are the values of --backend and
    --placement, None where they weren't given.
    """
    openstack = {
        key: value
        for key, value in zip(("backend", "placement"), asked, strict=True)
        if value is not None
    }
    options = ", ".join(f"{key}: {value}" for key, value in openstack.items())
    if text is not None:
        more = f"# On the command line: {options}\n" if options else ""
        return text + ("" if text.endswith("\n") else "\n") + more
    delay = f"network: {{delay: {latency}}}\n" if latency else ""
    return (
        f"name: sites-{sites}\n"
        f"sites: [{{name: site, count: {sites}, controllers: 1, computes: 6, data: 1}}]\n{delay}"
        + (f"openstack: {{{options}}}\n" if options else "")
    )


@cli.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@testbed_option
@click.option(
    "--cloud",
    "user",
    type=click.Choice(["admin", "discovery"]),
    default="admin",
    show_default=True,
    help="Who asks: 'admin', or 'discovery', the user of experiments.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def openstack(name: TestbedName | None, user: str, arguments: tuple[str, ...]) -> None:
    """Run OpenStack's client on the master, e.g. 'openstack --os-region-name site2 server list'."""
    from discovery_xp.deployment import description
    from discovery_xp.software import ENVIRONMENT

    chosen = testbeds.choose(name)
    description.load(chosen)
    master = chosen.load().plan.require_cloud().master
    command = shlex.join([f"{ENVIRONMENT}/bin/openstack", "--os-cloud", user, *arguments])
    terminal = ["-t"] if not arguments and sys.stdin.isatty() else []
    os.execvp("ssh", ["ssh", "-F", str(chosen.ssh_config), *terminal, master, command])


@cli.command()
@testbed_option
@click.option("--to", "target", type=click.Path(path_type=Path), help="A folder that isn't there.")
def backup(name: TestbedName | None, target: Path | None) -> None:
    """Fetch configurations, journals, database dumps and versions of a cloud, without secrets."""
    chosen = testbeds.choose(name)
    from discovery_xp import experiment

    folder = target or Path(f"backup-{chosen.name}-{testbeds.now().replace(':', '')}")
    require_new(folder)
    follower = Follower()
    count = experiment.backup_cloud(chosen, folder, follower)
    follower.end(f"{count} files in {folder}")


@cli.command()
@testbed_option
@click.option("--path", "as_path", is_flag=True, help="The file's path instead of its text.")
def inventory(name: TestbedName | None, as_path: bool) -> None:
    """Print Ansible's inventory of a testbed."""
    chosen = testbeds.choose(name)
    chosen.load()
    if not chosen.inventory.exists():
        raise Refused(f"'{chosen.name}' has no hosts yet", "run 'discovery-xp up' again")
    if as_path:
        click.echo(printable_lines(str(chosen.inventory)))
        return
    try:
        text = files.read_text(chosen.inventory)
    except (OSError, ValueError) as error:
        raise Refused(
            f"{chosen.inventory} can't be read ({type(error).__name__})",
            "'discovery-xp up' with the same topology writes it anew",
        ) from None
    click.echo(printable_lines(text.rstrip()))


@cli.command()
@testbed_option
@click.option("--all", "everything", is_flag=True, help="All testbeds, and traces of lost ones.")
@click.option("--forget", is_flag=True, help="Even if its hosts can't be reached any more; with "
              "--all, those of other homes on this machine, too.")  # fmt: skip
@click.option("--cloud-only", is_flag=True, help="Only the cloud: its hosts and links stay.")
def destroy(name: TestbedName | None, everything: bool, forget: bool, cloud_only: bool) -> None:
    """Remove a testbed and every trace of it."""
    if cloud_only:
        if everything or forget:
            raise Refused("--cloud-only is for one testbed", "leave --all and --forget out")
        chosen = testbeds.choose(name)
        chosen.load()
        from discovery_xp import experiment

        follower = Follower()
        experiment.remove_cloud(chosen, follower)
        follower.end(f"'{chosen.name}' has no cloud; its hosts stay")
        return
    from discovery_xp import ending

    elsewhere = ending.others() if everything else {}
    if everything:
        chosen_ones = [Testbed(each) for each in ending.known_testbeds()]
        if forget:
            chosen_ones += [Testbed(each, place) for each, place in elsewhere.items()]
    else:
        # One that is named may have lost its state; one that isn't has to be of this home, as
        # traces alone may be anybody's.
        chosen_ones = [testbeds.choose(None) if name is None else Testbed(name)]
    failures = []
    for each in chosen_ones:
        try:
            ending.tear_down(each, forget)
            echo(f"'{each.name}' is gone")
        except (Refused, OSError) as error:  # the others go all the same
            failures.append(error)
            if len(chosen_ones) > 1:
                echo(f"'{each.name}' stays: {error}", err=True)
    if everything:
        ending.sweep()
        if not forget:
            for stays, place in elsewhere.items():
                echo(f"'{stays}' stays: it belongs to another home, {place}")
    if failures:
        raise failures[0]
    if not chosen_ones and (forget or not elsewhere):
        echo("there is no testbed")


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes a shell complete commands, options, testbeds and topologies.

    For this shell: source <(discovery-xp completion bash). docs/installation.md says how to
    have it in each.
    """
    # click's own look at the shell's version would start the shell.
    complete = shell_completion.get_completion_class(shell)
    assert complete is not None
    made = complete(cli, {}, "discovery-xp", "_DISCOVERY_XP_COMPLETE")
    click.echo(made.source_template % made.source_vars())


cli.add_command(init)
cli.add_command(network)
cli.add_command(notebook)
cli.add_command(report)

if __name__ == "__main__":
    main()
