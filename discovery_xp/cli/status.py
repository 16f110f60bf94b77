"""`discovery-xp status`: what is up and what is not."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from discovery_xp.boundary.names import TestbedName
from discovery_xp.cli.common import console, echo, testbed_option
from discovery_xp.errors import Refused
from discovery_xp.inputs.units import format_bytes
from discovery_xp.planning.plan import Plan
from discovery_xp.planning.shares import shares_of
from discovery_xp.testbeds import testbed as testbeds
from discovery_xp.testbeds.shares import disagreements
from discovery_xp.testbeds.testbed import Testbed

if TYPE_CHECKING:
    from discovery_xp.deployment.status import ServiceStatus
    from discovery_xp.experiment import Inspection


@click.command()
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
        for line in (*_on_shares(report, state.plan), *_on_merging(report), *_at_quota(report)):
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


def _on_shares(report: Inspection, plan: Plan) -> list[str]:
    """Return lines on the shares of the processor that are held, none where none are to be."""
    if report.shares is None:
        return []
    wrong = disagreements(shares_of(plan), report.shares)
    throttled = [each for each in report.shares if each.periods and each.unit]
    most = max(throttled, key=lambda each: each.throttled / each.periods, default=None)
    words = "" if most is None else (
        f"; {most.name} used its share up in {100 * most.throttled / most.periods:.0f} % of its "
        "periods, the most of all"
    )  # fmt: skip
    return [
        f"time scale {plan.time_scale:g}: {len(report.shares)} shares of the processor are held"
        f"{words}",
        *(f"  {line}" for line in wrong[:10]),
    ]


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
    for service in services:
        if service.node is not None:
            out.print(f"Galera's node on {service.host}: {service.node.in_words}")
    down = [service for service in services if not service.is_up]
    for service in down[:20]:
        out.print(f"{service.unit} on {service.host}: {service.complaint}", soft_wrap=True)
    if len(down) > 20:
        out.print(f"and {len(down) - 20} more; see all with --json")


def _print_testbeds(as_json: bool) -> None:
    names = testbeds.testbeds()
    if as_json:
        click.echo(json.dumps(names))
        return
    if not names:
        echo("there is no testbed; make one with 'discovery-xp up TOPOLOGY'")
    for name in names:
        try:
            state = Testbed(name).load()
        except Refused as error:  # the others are well all the same
            echo(f"{name}: {error}")
            continue
        echo(f"{name}: {state.phase}, {len(state.plan.hosts)} hosts, since {state.created}")
    _print_forgotten()


def _print_forgotten() -> None:
    """Name what is borrowed for testbeds that aren't here."""
    from discovery_xp import ending

    try:
        for line in ending.forgotten():
            echo(f"without a testbed here: {line}")
    except Refused as error:
        echo(f"what is borrowed without a testbed here can't be told: {error}")
