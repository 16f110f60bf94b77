"""`discovery-xp network`: the links of a running testbed; registered by `cli`."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from discovery_xp.boundary.names import TestbedName
from discovery_xp.cli.common import InputFile, console, echo, testbed_option
from discovery_xp.cli.plan import links_table
from discovery_xp.errors import InvalidInput, Problem, Refused
from discovery_xp.inputs.topology import Link, read_topology
from discovery_xp.planning.plan import Plan, PlannedLink
from discovery_xp.planning.plan_checks import require_before_tcp_timeout, require_measurable
from discovery_xp.testbeds import testbed as testbeds

if TYPE_CHECKING:
    from discovery_xp.testbeds.pings import PairRtt

# EnOSlib is loaded by the commands, not by every other one.


@click.group()
def network() -> None:
    """Show, change and measure the links between the sites of a running testbed."""


@network.command("show")
@testbed_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def network_show(name: TestbedName | None, as_json: bool) -> None:
    """Print the links asked for beside what is read back; exit code 1 when they differ."""
    from discovery_xp import experiment
    from discovery_xp.testbeds.links import disagreements

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
                    "time_scale": state.plan.time_scale,
                    "links": [dataclasses.asdict(link) for link in state.links],
                    "read_back": [dataclasses.asdict(reading) for reading in readings],
                    "disagreements": wrong,
                },
                indent=1,
            )
        )
    else:
        out = console()
        out.print(links_table(state.links))
        out.print(
            f"imposed by {state.wan}; {len(readings)} directions read back, {len(wrong)} differ"
        )
        if state.plan.time_scale > 1:
            out.print(
                f"time scale {state.plan.time_scale:g}: what holds by a clock is so many times "
                "slower than these"
            )
        for words in wrong:
            out.print(f"  {words}")
    if wrong:
        sys.exit(1)


@network.command("set")
@testbed_option
@click.option("--topology", type=InputFile("topologies"), help="Take all links of this file.")
@click.option("--delay", help="One-way delay, e.g. 10ms.")
@click.option("--rtt", help="Round trip, half of it each way.")
@click.option("--jitter", help="Variation of the one-way delay.")
@click.option("--loss", help="Share of packets lost each way, e.g. 0.1%.")
@click.option("--rate", help="Bandwidth limit each way, e.g. 1gbit.")
@click.option("--between", nargs=2, help="Only this pair of sites.")
@click.option("--from", "source", help="Only the direction from this site ...")
@click.option("--to", "target", help="... to this one.")
def network_set(name: TestbedName | None, topology: Path | None, **values: Any) -> None:
    """Change the links of a running testbed, read them back and measure them."""
    from discovery_xp import experiment
    from discovery_xp.testbeds.pings import require_within_tolerance

    chosen = testbeds.choose(name)
    state = chosen.load()
    if topology is not None:
        if any(values.values()):
            raise Refused("--topology says it all", "leave the other options out")
        links = _links_of_file(topology, state.plan)
    else:
        links = change_links(state.plan, state.links, **values)
    between = {(each.source, each.target): each.link for each in links}
    require_measurable(between)
    require_before_tcp_timeout(state.plan.time_scale, between)
    pairs = experiment.set_links(chosen, links)
    console().print(_pairs_table(pairs))
    require_within_tolerance(pairs)


def _links_of_file(path: Path, running: Plan) -> list[PlannedLink]:
    topology = read_topology(path)
    sites = {site.name for site in running.sites}
    unknown = [site.name for site in topology.sites if site.name not in sites]
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
    from discovery_xp.inputs.topology import parse_link_options

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
@testbed_option
def network_reset(name: TestbedName | None) -> None:
    """Remove everything imposed between the sites."""
    from discovery_xp import experiment

    chosen = testbeds.choose(name)
    experiment.reset_links(chosen)
    echo(f"nothing is imposed on the links of '{chosen.name}'")


@network.command("measure")
@testbed_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def network_measure(name: TestbedName | None, as_json: bool) -> None:
    """Measure the round trip of every pair of sites; exit code 1 outside the tolerance."""
    from discovery_xp import experiment

    chosen = testbeds.choose(name)
    pairs = experiment.measure_links(chosen)
    if as_json:
        click.echo(json.dumps([pair.to_json() for pair in pairs], indent=1))
    elif pairs:
        console().print(_pairs_table(pairs))
    else:
        echo("there is one site: nothing to measure")
    if any(pair.is_off for pair in pairs):
        sys.exit(1)


def _pairs_table(pairs: Sequence[PairRtt]) -> Table:
    scale = max((pair.time_scale for pair in pairs), default=1.0)
    title = "Round trips between sites, ms" + (
        f" (by a clock: {scale:g} times as long)" if scale > 1 else ""
    )
    table = Table(title=title, title_justify="left", show_edge=False)
    columns = ["sites", "requested", "observed", "error", "least", "most", "lost", "verdict"]
    if scale > 1:
        columns.insert(3, "by a clock")
    for column in columns:
        table.add_column(column, justify="left" if column in ("sites", "verdict") else "right")
    for pair in pairs:

        def number(value: float | None, sign: str = "") -> str:
            return "-" if value is None else f"{value:{sign}.2f}"

        again = f" (measured {pair.rounds} times)" if pair.rounds > 1 else ""
        table.add_row(
            f"{pair.source} - {pair.target}",
            f"{pair.requested_ms:g}",
            number(pair.observed_ms),
            *([number(pair.measured_ms)] if scale > 1 else []),
            number(pair.error_ms, "+"),
            number(pair.least_ms),
            number(pair.most_ms),
            f"{pair.lost} of {pair.samples}",
            (_verdict_off(pair) if pair.is_off else "within tolerance") + again,
        )
    return table


def _verdict_off(pair: PairRtt) -> str:
    if not pair.queueing_ms:
        return f"OFF by more than {pair.allowed_ms:g}"
    return f"OFF by more than -{pair.allowed_ms:g} to +{pair.allowed_ms + pair.queueing_ms:g}"
