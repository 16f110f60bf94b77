"""What the values of a topology file say of each other.

The raw values are looked at, so that these problems are found in the same run as those of
the file's shape.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

from discovery_xp import platforms, units
from discovery_xp.topology_file import MAX_SITES
from discovery_xp.yamlfile import YamlFile

ROLES = ("master", "controller", "compute", "data")
# Words that Ansible or we give a meaning of their own among the groups of hosts.
RESERVED_NAMES = frozenset({*ROLES, "all", "ungrouped", "localhost", "none", "backbone", "wan"})

_HOST_NAME = re.compile(rf"-({'|'.join(ROLES)})-\d+$")


def _items(value: object) -> list[tuple[int, dict[str, Any]]]:
    if not isinstance(value, list):
        return []
    return [(index, item) for index, item in enumerate(value) if isinstance(item, dict)]


def _whole(value: object, default: int) -> int:
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return int(str(value)) if whole else default


def _expand(entry: Mapping[str, Any]) -> list[str]:
    name, count = entry.get("name"), entry.get("count")
    if not isinstance(name, str):
        return []
    if count is None:
        return [name]
    return [f"{name}{number}" for number in range(1, min(_whole(count, 1), MAX_SITES) + 1)]


def check_sites(parsed: YamlFile, data: Mapping[str, Any]) -> dict[str, int]:
    """Report clashes among sites; returns the number of hosts that each site needs."""
    servers: dict[str, int] = {}
    for index, entry in _items(data.get("sites")):
        wanted = [_whole(entry.get(key), 1) for key in ("controllers", "computes")]
        total = sum(wanted) + _whole(entry.get("data"), 0)
        if total == 0:
            parsed.report(
                ("sites", index),
                "a site without any server",
                "give it controllers, computes or data",
            )
        for name in _expand(entry):
            if name in servers:
                parsed.report(("sites", index, "name"), f"a second site '{name}'", "rename one")
            if name in RESERVED_NAMES:
                parsed.report(
                    ("sites", index, "name"),
                    f"'{name}' is a word of its own",
                    "choose another name",
                )
            if _HOST_NAME.search(name):
                parsed.report(
                    ("sites", index, "name"),
                    f"'{name}' reads like the name of a host",
                    "choose another name",
                )
            servers[name] = total
    if len(servers) > MAX_SITES:
        parsed.report(("sites",), f"{len(servers)} sites", f"write at most {MAX_SITES}")
    master = data.get("master")
    if master is None:
        if servers:
            servers[next(iter(servers))] += 1
    elif master in servers:
        servers[master] += 1
    elif master != "none" and isinstance(master, str):
        parsed.report(
            ("master",), f"site '{master}' is not declared", f"write {_choices(servers)} or 'none'"
        )
    elif master == "none" and not any(
        _whole(entry.get("controllers"), 1) for _, entry in _items(data.get("sites"))
    ):
        parsed.report(
            ("master",),
            "'none' needs a controller to take its part",
            "add a controller or name a site",
        )
    return servers


def _choices(names: Mapping[str, object] | set[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:8]) + (", ..." if len(listed) > 8 else "")


def check_network(parsed: YamlFile, data: Mapping[str, Any], sites: set[str]) -> None:
    """Report links that say too much, too little, or the same twice."""
    network = data.get("network")
    if not isinstance(network, dict):
        return
    _check_delay(parsed, ("network",), network)
    _check_jitter(parsed, ("network",), network, network)
    seen: dict[tuple[str, str], int] = {}
    for index, link in _items(network.get("links")):
        place = ("network", "links", index)
        _check_delay(parsed, place, link)
        _check_jitter(parsed, place, link, network)
        for pair in _check_ends(parsed, place, link, sites):
            first = seen.setdefault(pair, index)
            if first != index:
                line = parsed.line(("network", "links", first))
                parsed.report(
                    place,
                    f"a second rule for {pair[0]} to {pair[1]} (the first is on line {line})",
                    "keep one of them",
                )
        if not {"delay", "rtt", "jitter", "loss", "rate"} & link.keys():
            parsed.report(
                place,
                "a rule that changes nothing",
                "give it 'delay', 'rtt', 'jitter', 'loss' or 'rate'",
            )


def _check_delay(parsed: YamlFile, place: tuple[str | int, ...], values: Mapping[str, Any]) -> None:
    if "delay" in values and "rtt" in values:
        parsed.report(
            (*place, "rtt"),
            "'delay' and 'rtt' say the same thing twice",
            "keep one ('rtt' is twice 'delay')",
        )


def _check_jitter(
    parsed: YamlFile,
    place: tuple[str | int, ...],
    values: Mapping[str, Any],
    default: Mapping[str, Any],
) -> None:
    """A packet can't arrive before it is sent: jitter is at most the delay."""
    jitter = _duration(values.get("jitter", default.get("jitter")))
    delay = _one_way(values) if {"delay", "rtt"} & values.keys() else _one_way(default)
    if jitter is not None and delay is not None and jitter > delay:
        key = "jitter" if "jitter" in values else "delay" if "delay" in values else "rtt"
        parsed.report(
            (*place, key),
            f"the jitter ({units.format_ms(jitter)}) is over the one-way "
            f"delay ({units.format_ms(delay)})",
            "write a jitter of at most the delay",
        )


def _one_way(values: Mapping[str, Any]) -> float | None:
    if "delay" in values:
        return _duration(values["delay"])
    if "rtt" in values:
        rtt_ms = _duration(values["rtt"])
        return None if rtt_ms is None else rtt_ms / 2
    return 0.0


def _duration(value: object) -> float | None:
    try:
        return units.parse_duration_ms(value)
    except units.QuantityError:
        return None


def _check_ends(
    parsed: YamlFile, place: tuple[str | int, ...], link: Mapping[str, Any], sites: set[str]
) -> list[tuple[str, str]]:
    """Report wrong ends of a rule; returns the directions that it rules."""
    between, source, target = link.get("between"), link.get("from"), link.get("to")
    directed = source is not None or target is not None
    if (between is not None) == directed:
        parsed.report(
            place,
            "a rule needs its pair of sites",
            "write either 'between: [A, B]' or 'from: A' and 'to: B'",
        )
        return []
    if directed and (source is None or target is None):
        parsed.report(
            place,
            f"'{'from' if source is None else 'to'}' is missing",
            "write both 'from' and 'to'",
        )
        return []
    if directed and "rtt" in link:
        parsed.report(
            (*place, "rtt"), "a round trip has no direction", "write 'delay' with 'from' and 'to'"
        )
    ends = between if isinstance(between, list) else [source, target]
    if len(ends) != 2 or not all(isinstance(end, str) for end in ends):
        return []
    first, second = str(ends[0]), str(ends[1])
    for number, end in enumerate((first, second)):
        key = ("between", number) if between is not None else (("from", "to")[number],)
        if end not in sites:
            close = difflib.get_close_matches(end, sorted(sites), 1)
            remedy = f"did you mean '{close[0]}'?" if close else f"declared: {_choices(sites)}"
            parsed.report((*place, *key), f"site '{end}' is not declared", remedy)
    if first == second:
        parsed.report(place, f"'{first}' has no link to itself", "name two different sites")
        return []
    return [(first, second)] if directed else [(first, second), (second, first)]


def check_provider(parsed: YamlFile, data: Mapping[str, Any], servers: Mapping[str, int]) -> None:
    """Report what a provider can't give to these sites."""
    provider = data.get("provider")
    if not isinstance(provider, dict):
        return
    if provider.get("type") == "static":
        _check_static(parsed, provider, servers)
    elif provider.get("type") in platforms.TYPES:
        platforms.check(parsed, provider, servers)
    elif isinstance(provider.get("network"), str):
        _check_local_network(parsed, provider["network"], servers)


def _check_local_network(parsed: YamlFile, text: str, servers: Mapping[str, int]) -> None:
    place = ("provider", "network")
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as error:
        parsed.report(
            place, f"'{text}' is not an IPv4 network ({error})", "write e.g. '10.64.0.0/16'"
        )
        return
    if not network.is_private or network.is_loopback or network.is_link_local:
        parsed.report(place, f"'{text}' is not a private network", "write e.g. '10.64.0.0/16'")
        return
    needed = site_prefix(list(servers.values()))
    capacity = 2 ** max(0, needed - network.prefixlen) - 1
    if network.prefixlen > needed or capacity < len(servers):
        bits = max(1, len(servers)).bit_length()
        parsed.report(
            place,
            f"'{text}' has no room for {len(servers)} sites of a /{needed} each",
            f"write a network of /{max(8, needed - bits)} or larger",
        )


def site_prefix(servers_per_site: Sequence[int]) -> int:
    """Prefix length of a site's subnet: room for its hosts, its gateway and some growth.

    The backbone's subnet is of the same size and holds an address for each site.
    """
    most = max([*servers_per_site, len(servers_per_site), 1])
    return min(24, 32 - (most + 8).bit_length())


def _check_static(
    parsed: YamlFile, provider: Mapping[str, Any], servers: Mapping[str, int]
) -> None:
    hosts = provider.get("hosts")
    if not isinstance(hosts, dict):
        return
    seen: set[str] = set()
    for site, entries in hosts.items():
        place = ("provider", "hosts", site)
        if site not in servers:
            parsed.report(place, f"site '{site}' is not declared", f"declared: {_choices(servers)}")
            continue
        if not isinstance(entries, list):
            continue
        if len(entries) < servers[site]:
            parsed.report(
                place,
                f"{len(entries)} hosts, but the site needs {servers[site]}",
                "list more hosts or lower the site's counts",
            )
        for index, entry in enumerate(entries):
            address = entry.get("address") if isinstance(entry, dict) else entry
            _check_address(parsed, (*place, index), str(address), seen)
            seen.add(str(address))
    for site in servers:
        if site not in hosts:
            parsed.report(
                ("provider", "hosts"),
                f"no hosts for site '{site}'",
                f"add '{site}: [...]' with {servers[site]} addresses",
            )


def _check_address(
    parsed: YamlFile, place: tuple[str | int, ...], address: str, seen: set[str]
) -> None:
    try:
        ipaddress.IPv4Address(address)
    except ValueError:
        parsed.report(
            place, f"'{address}' is not an IPv4 address", "write e.g. '192.168.0.7' (tc wants it)"
        )
    if address in seen:
        parsed.report(place, f"'{address}' is listed twice", "list it once")
