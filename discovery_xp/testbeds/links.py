"""Links between sites: impose, read back, measure.

Imposing is only believed after two looks: what the kernel or the emulator says
of itself, and the round trips that the hosts see.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import enoslib as en
from enoslib.service.emul.htb import HTBConstraint, HTBSource, netem_htb
from enoslib.service.emul.utils import _build_commands, _combine

from discovery_xp.boundary.answers import printable
from discovery_xp.errors import Failed
from discovery_xp.inputs.topology import Link
from discovery_xp.inputs.units import format_ms, format_percent, format_rate
from discovery_xp.planning.plan import Plan, PlannedLink, with_links
from discovery_xp.testbeds.hosts import Hosts, Reading, Wan
from discovery_xp.testbeds.pings import (
    PINGS,
    ROUNDS,
    Pace,
    PairRtt,
    fping_command,
    pace_of,
    parse_fping,
    summarise,
)
from discovery_xp.testbeds.remote import plainly, quietly, run_each
from discovery_xp.testbeds.transport import Output

# No limit, in a word that htb takes; what has none is queued as if it had ten gigabit.
UNLIMITED_MBIT = 200_000.0
QUEUED_MBIT = 10_000.0


# ---------------------------------------------------------------- tc netem on the hosts


class _OrderedSource(HTBSource):
    """EnOSlib's source, with its classes numbered in the order of their targets.

    EnOSlib numbers them in a set's order, which no later run could read back.
    """

    def commands(self) -> list[str]:
        lines: list[str] = []
        for index, constraint in enumerate(sorted(self.constraints, key=lambda one: one.target)):
            lines.extend(constraint.commands(index))
        return lines


class NetemWan:
    """tc netem on every host towards the other sites' addresses, through EnOSlib.

    A link's values hold for each sending host: a `rate` is not shared by the hosts of
    a site.  See `hosts.Wan` for the contract.
    """

    kind = "netem"

    def __init__(self, hosts: Hosts) -> None:
        self.hosts = hosts
        self.plan = hosts.plan

    def impose(self, links: Sequence[PlannedLink]) -> None:
        """Replace all constraints on all hosts, those without any included."""
        self.reset()
        devices = self._devices()
        sources = htb_sources(self.plan, links, self.hosts.by_name(), devices)
        if sources:
            with plainly(), quietly(self.plan.name):
                netem_htb(sources, gather_facts=False)

    def read_back(self) -> list[Reading]:
        """The constraints on each host towards each other site."""
        devices = self._devices()
        outputs = run_each(
            self.hosts, {name: read_back_command(device) for name, device in devices.items()}
        )
        return readings_of(self.plan, outputs)

    def reset(self) -> None:
        """Remove every htb and netem root from every device of every host."""
        run_each(self.hosts, {host.name: RESET_COMMAND for host in self.plan.hosts})

    def _devices(self) -> dict[str, str]:
        """The device through which each host reaches the other sites."""
        probes = {}
        for host in self.plan.hosts:
            others = [other.address for other in self.plan.hosts if other.site != host.site]
            if others:
                probes[host.name] = f"ip -o route get {others[0]}"
        devices = {}
        for name, output in run_each(self.hosts, probes).items():
            match = re.search(r"\bdev ([A-Za-z0-9_.-]{1,15})(?!\S)", output.stdout)
            if match is None:
                raise Failed(f"{name} has no route to the other sites", "correct its routes")
            devices[name] = match[1]
        return devices


# Only roots that shape traffic the way we do: a host's other qdiscs are its own business.
RESET_COMMAND = (
    r"tc qdisc show | sed -En 's/^qdisc (htb|netem) [^ ]+ dev ([^ ]+) root .*/\2/p' | "
    "while read -r dev; do tc qdisc del dev $dev root; done"
)


def site_prefixes(plan: Plan, site: str) -> list[str]:
    """The networks that cover a site's hosts and nothing else."""
    planned = plan.site(site)
    if planned.network is not None:
        return [planned.network]
    addresses = [ipaddress.ip_network(host.address or "") for host in plan.hosts_of(site)]
    return [str(network) for network in ipaddress.collapse_addresses(addresses)]  # type: ignore[type-var]


def htb_sources(
    plan: Plan,
    links: Iterable[PlannedLink],
    hosts: Mapping[str, en.Host],
    devices: Mapping[str, str],
) -> list[HTBSource]:
    """EnOSlib's constraints for `links`, a source for each host that has any."""
    by_source: dict[str, list[PlannedLink]] = {}
    for link in links:
        if not link.link.is_plain:
            by_source.setdefault(link.source, []).append(link)
    sources = []
    for host in plan.hosts:
        constraints = [
            HTBConstraint(
                device=devices[host.name],
                target=prefix,
                delay=netem_arguments(link.link),
                rate=format_rate(link.link.rate_mbit or UNLIMITED_MBIT),
                loss=format_percent(link.link.loss_percent) if link.link.loss_percent else None,
            )
            for link in by_source.get(host.site, [])
            for prefix in site_prefixes(plan, link.target)
        ]
        if constraints:
            sources.append(_OrderedSource(hosts[host.name]).add_constraints(constraints))
    return sources


def netem_arguments(link: Link) -> str:
    """What follows 'netem delay': EnOSlib hands its delay to tc as it is.

    netem's queue holds 1000 packets by default, which caps a link of 25 ms at about
    480 Mbit/s; ours holds twice what the rate can have on the way.
    """
    on_the_way = (link.rate_mbit or QUEUED_MBIT) * 1e6 / 8 * (link.delay_ms + link.jitter_ms)
    packets = max(1000, round(2 * on_the_way / 1000 / 1500))
    jitter = f" {format_ms(link.jitter_ms)}" if link.jitter_ms else ""
    return f"{format_ms(link.delay_ms)}{jitter} limit {packets}"


def tc_commands(sources: Sequence[HTBSource]) -> dict[str, list[str]]:
    """The very lines that EnOSlib runs on each host to impose `sources`."""
    return dict(_combine(*_build_commands(sources), chunk_size=100))


def read_back_command(device: str) -> str:
    """One line of sh that prints what tc holds on a device, for `parse_tc`."""
    return (
        f"tc -j qdisc show dev {device}; echo; echo ==; "
        f"tc class show dev {device}; echo; echo ==; tc filter show dev {device} parent 1:"
    )


def readings_of(plan: Plan, outputs: Mapping[str, Output]) -> list[Reading]:
    """What the hosts printed for `read_back_command`, as a reading for each direction."""
    readings = []
    for host in plan.hosts:
        if host.name not in outputs:  # there is one site only
            continue
        here = parse_tc(outputs[host.name])
        for site in plan.sites:
            if site.name != host.site:
                link = _link_towards(here, site_prefixes(plan, site.name))
                readings.append(Reading(host.name, host.site, site.name, link))
    return readings


def parse_tc(output: Output) -> dict[str, Link]:
    """Read the output of `read_back_command` as links, by the network that they lead to.

    Raises Failed for anything else, which a host may print.
    """
    try:
        return _parse_tc(output)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError):
        raise Failed("tc says something else than tc does", "see that host's tc") from None


def _parse_tc(output: Output) -> dict[str, Link]:
    parts = output.stdout.split("==")
    if len(parts) != 3:
        words = printable(output.stderr.strip()[:200])
        raise Failed(f"tc can't be read back: {words}", "install iproute2")
    qdiscs = json.loads(parts[0].strip() or "[]")
    rates = _rates_mbit(parts[1])
    links = {
        str(entry.get("parent")): _netem_link(entry["options"], rates.get(entry.get("parent")))
        for entry in qdiscs
        if entry.get("kind") == "netem"
    }
    by_source: dict[str, Link] = {}
    flow = ""
    for line in parts[2].splitlines():
        if (named := re.search(r"flowid (\S+)", line)) is not None:
            flow = named[1]
        elif (match := re.search(r"match ([0-9a-f]{8})/([0-9a-f]{8}) at 16", line)) is not None:
            address, mask = int(match[1], 16), int(match[2], 16)
            network = ipaddress.IPv4Network((address, mask.bit_count()))
            if flow in links:
                by_source[str(network)] = links[flow]
    return by_source


_RATE = re.compile(r"^class htb (\S+) .*?\brate ([0-9.]+)([KMG]?)bit\b", re.MULTILINE)


def _rates_mbit(text: str) -> dict[str, float]:
    """Rates by class; tc prints classes as text even where JSON is asked for."""
    factors = {"": 1e-6, "K": 1e-3, "M": 1.0, "G": 1e3}
    return {match[1]: float(match[2]) * factors[match[3]] for match in _RATE.finditer(text)}


def _netem_link(options: Mapping[str, Any], rate_mbit: float | None) -> Link:
    delay = options.get("delay") or {}
    loss = (options.get("loss-random") or {}).get("loss", 0.0)
    unlimited = rate_mbit is None or rate_mbit >= UNLIMITED_MBIT
    return Link(
        delay_ms=round(float(delay.get("delay", 0.0)) * 1000, 6),
        jitter_ms=round(float(delay.get("jitter", 0.0)) * 1000, 6),
        loss_percent=round(float(loss) * 100, 6),
        rate_mbit=None if unlimited else rate_mbit,
    )


def _link_towards(here: Mapping[str, Link], prefixes: Sequence[str]) -> Link:
    """One link for all prefixes of a site: the first that differs speaks for it."""
    links = [here.get(prefix, Link()) for prefix in prefixes]
    return next((link for link in links if link != links[0]), links[0]) if links else Link()


# ---------------------------------------------------------------- impose and read back


class ScaledWan:
    """Another way to impose links, told of links that are so many times slower than asked.

    Whoever imposes and reads back has the links asked for; see `hosts.Wan` for the contract.
    """

    def __init__(self, wan: Wan, time_scale: float) -> None:
        self.wan = wan
        self.kind = wan.kind
        self.time_scale = time_scale

    def impose(self, links: Sequence[PlannedLink]) -> None:
        """Make these links hold, slowed down."""
        self.wan.impose(
            [dataclasses.replace(each, link=slowed(each.link, self.time_scale)) for each in links]
        )

    def read_back(self) -> list[Reading]:
        """Return what holds, sped up."""
        return [
            dataclasses.replace(each, link=slowed(each.link, 1 / self.time_scale))
            for each in self.wan.read_back()
        ]

    def reset(self) -> None:
        """Remove all that `impose` ever made."""
        self.wan.reset()


def slowed(link: Link, time_scale: float) -> Link:
    """Return the link where everything takes `time_scale` times as long."""
    rate_mbit = link.rate_mbit
    return dataclasses.replace(
        link,
        delay_ms=round(link.delay_ms * time_scale, 6),
        jitter_ms=round(link.jitter_ms * time_scale, 6),
        rate_mbit=None if rate_mbit is None else round(rate_mbit / time_scale, 6),
    )


def wan_of(hosts: Hosts) -> Wan:
    """How links are imposed on these hosts: the one place where they get longer by the scale."""
    wan = hosts.wan or NetemWan(hosts)
    return wan if hosts.plan.time_scale == 1 else ScaledWan(wan, hosts.plan.time_scale)


def impose(hosts: Hosts, links: Sequence[PlannedLink]) -> None:
    """Impose `links` and read them back; raises Failed where they didn't take."""
    wan = wan_of(hosts)
    wan.impose(links)
    wrong = disagreements(links, wan.read_back())
    if wrong:
        raise Failed(
            f"{len(wrong)} links weren't imposed as asked: {'; '.join(wrong[:3])}",
            "see 'discovery-xp network show', and that the hosts' kernels have sch_netem",
        )


def disagreements(links: Iterable[PlannedLink], readings: Iterable[Reading]) -> list[str]:
    """Where a reading differs from the link asked for, or is missing, in words."""
    read: dict[tuple[str, str], list[Reading]] = {}
    for reading in readings:
        read.setdefault((reading.source, reading.target), []).append(reading)
    wrong = []
    for link in links:
        there = read.get((link.source, link.target), [])
        if not there and not link.link.is_plain:
            wrong.append(f"{link.source} to {link.target}: nothing was read back")
        wrong += [
            f"{reading.place}, {link.source} to {link.target}: asked {describe(link.link)}, "
            f"read {describe(reading.link)}"
            for reading in there
            if not _same(link.link, reading.link)
        ]
    return wrong


def _same(planned: Link, read: Link) -> bool:
    """Equal but for the granularity in which kernels and emulators keep numbers."""

    def close(one: float, other: float, least: float) -> bool:
        return abs(one - other) <= max(least, 0.01 * max(abs(one), abs(other)))

    return (
        close(planned.delay_ms, read.delay_ms, 0.01)
        and close(planned.jitter_ms, read.jitter_ms, 0.01)
        and close(planned.loss_percent, read.loss_percent, 0.001)
        and close(planned.rate_mbit or 0.0, read.rate_mbit or 0.0, 0.001)
    )


def describe(link: Link) -> str:
    """A link in a few words: '10ms ± 1ms, 0.1% loss, 1gbit'."""
    words = format_ms(link.delay_ms)
    if link.jitter_ms:
        words += f" ± {format_ms(link.jitter_ms)}"
    if link.loss_percent:
        words += f", {format_percent(link.loss_percent)} loss"
    if link.rate_mbit:
        words += f", {format_rate(link.rate_mbit)}"
    return words


# ---------------------------------------------------------------- measure


def measure(hosts: Hosts, links: Sequence[PlannedLink], pings: int = PINGS) -> list[PairRtt]:
    """Ping from one host of each site to one of every other; a result for each pair.

    A pair that is off is measured anew, at most twice: on a busy machine a burst of
    work elsewhere looks like latency.  The last word counts, and says how often.
    """
    plan = with_links(hosts.plan, links)
    pairs = {(there.source, there.target): (there.link, back.link) for there, back in plan.pairs()}
    results: dict[tuple[str, str], PairRtt] = {}
    pending = list(pairs)
    for round_number in range(1, ROUNDS + 1):
        pace = pace_of([pairs[pair] for pair in pending], pings, plan.time_scale)
        samples = _ping(hosts, pending, pace)
        for source, target in pending:
            results[source, target] = summarise(
                source, target, pairs[source, target], samples[source, target],
                plan.tolerance, round_number, plan.time_scale,
            )  # fmt: skip
        pending = [pair for pair in pending if results[pair].is_off]
        if not pending:
            break
    return [results[pair] for pair in pairs]


def _ping(
    hosts: Hosts, pairs: Sequence[tuple[str, str]], pace: Pace
) -> dict[tuple[str, str], list[float | None]]:
    """Pings of each pair in both directions at once; None for a lost one."""
    plan = hosts.plan
    probe = {site.name: plan.hosts_of(site.name)[0] for site in plan.sites}
    addresses = {str(host.address): site for site, host in probe.items()}
    targets: dict[str, list[str]] = {}
    for source, target in pairs:
        targets.setdefault(source, []).append(target)
        targets.setdefault(target, []).append(source)
    commands = {
        probe[source].name: fping_command([str(probe[to].address) for to in others], pace)
        for source, others in targets.items()
    }
    outputs = run_each(hosts, commands)
    samples: dict[tuple[str, str], list[float | None]] = {pair: [] for pair in pairs}
    for source in targets:
        output = outputs[probe[source].name]
        replies = parse_fping(output.stderr + "\n" + output.stdout)
        if not replies:
            raise Failed(
                f"fping on {probe[source].name} failed: {printable(output.stderr.strip()[-200:])}",
                "install fping on the hosts",
            )
        for address, values in replies.items():
            target = addresses.get(address, "")
            if target not in targets[source] or len(values) > pace.pings:
                continue  # a host may answer what it wasn't asked
            for pair in ((source, target), (target, source)):
                if pair in samples:
                    samples[pair] += values
    return samples
