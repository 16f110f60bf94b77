"""What the values of a topology file say of each other.

The raw values are looked at, so that these problems are found in the same run as those of
the file's shape.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic_core import PydanticCustomError

from discovery_xp.boundary.names import Name, SiteName
from discovery_xp.inputs import platforms, units
from discovery_xp.inputs.fields import check_address, own_network
from discovery_xp.inputs.topology_file import MAX_HOSTS, MAX_SITES
from discovery_xp.inputs.yamlfile import YamlFile
from discovery_xp.text import short


def _items(value: object) -> list[tuple[int, dict[str, Any]]]:
    if not isinstance(value, list):
        return []
    return [(index, item) for index, item in enumerate(value) if isinstance(item, dict)]


def _whole(value: object, default: int) -> int:
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return int(str(value)) if whole else default


def _expand(entry: Mapping[str, Any]) -> Iterator[str]:
    """The sites that an entry stands for, one more than is allowed at most."""
    name, count = entry.get("name"), entry.get("count")
    if not isinstance(name, str) or Name.objection(name) is not None:
        return  # the file's shape has been objected to
    if count is None:
        yield name
        return
    for number in range(1, min(_whole(count, 1), MAX_SITES + 1) + 1):
        yield f"{name}{number}"


def check_sites(parsed: YamlFile, data: Mapping[str, Any]) -> dict[str, int]:
    """Report clashes among sites; returns the number of hosts that each site needs.

    Stops at the first site too many, so a file can't make this take long.
    """
    servers: dict[str, int] = {}
    for index, entry in _items(data.get("sites")):
        counts = [_whole(entry.get(key), 1) for key in ("controllers", "computes")]
        total = sum(counts) + _whole(entry.get("data"), 0)
        if total == 0:
            parsed.report(
                ("sites", index),
                "a site without any server",
                "give it controllers, computes or data",
            )
        twice = []
        for name in _expand(entry):
            objection = SiteName.objection(name)
            if name in servers:
                twice.append(name)
            elif objection is not None:
                parsed.report(("sites", index, "name"), *objection)
            servers[name] = total
        if twice:
            more = f" and {len(twice) - 1} more" if len(twice) > 1 else ""
            parsed.report(
                ("sites", index, "name"), f"a second site '{twice[0]}'{more}", "rename one"
            )
        if len(servers) > MAX_SITES:
            parsed.report(("sites",), f"over {MAX_SITES} sites", f"write at most {MAX_SITES}")
            break
    if sum(servers.values()) > MAX_HOSTS:
        parsed.report(
            ("sites",), f"{sum(servers.values())} hosts", f"write at most {MAX_HOSTS} in all"
        )
    master = data.get("master")
    if master is None:
        if servers:
            servers[next(iter(servers))] += 1
    elif not isinstance(master, str):
        pass  # the file's shape has been objected to
    elif master in servers:
        servers[master] += 1
    elif master != "none":
        parsed.report(
            ("master",),
            f"site '{short(master)}' is not declared",
            f"write {_choices(servers)} or 'none'",
        )
    elif not any(_whole(entry.get("controllers"), 1) for _, entry in _items(data.get("sites"))):
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
                    f"a second rule for {short(pair[0])} to {short(pair[1])} "
                    f"(the first is on line {line})",
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
            close = difflib.get_close_matches(end[:100], sorted(sites), 1)
            remedy = f"did you mean '{close[0]}'?" if close else f"declared: {_choices(sites)}"
            parsed.report((*place, *key), f"site '{short(end)}' is not declared", remedy)
    if first == second:
        parsed.report(place, f"'{short(first)}' has no link to itself", "name two different sites")
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
    elif provider.get("network") is not None:
        _check_local_network(parsed, provider["network"], servers)


def _check_local_network(parsed: YamlFile, value: object, servers: Mapping[str, int]) -> None:
    place = ("provider", "network")
    if not isinstance(value, str):
        return  # the file's shape has been objected to
    try:
        network = own_network(value, "10.64.0.0/16")
    except PydanticCustomError as error:
        context = error.context or {}
        parsed.report(place, str(context["reason"]), str(context["remedy"]))
        return
    needed = site_prefix(list(servers.values()))
    capacity = 2 ** max(0, needed - network.prefixlen) - 1
    if network.prefixlen > needed or capacity < len(servers):
        bits = max(1, len(servers)).bit_length()
        parsed.report(
            place,
            f"'{network}' has no room for {len(servers)} sites of a /{needed} each",
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
            parsed.report(
                place, f"site '{short(site)}' is not declared", f"declared: {_choices(servers)}"
            )
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
            if not isinstance(address, str):
                continue
            if not isinstance(entry, dict):  # of a mapping, the file's shape says it
                _check_address(parsed, (*place, index), address)
            if address in seen:
                parsed.report(
                    (*place, index), f"'{short(address)}' is listed twice", "list it once"
                )
            seen.add(address)
    for site in servers:
        if site not in hosts:
            parsed.report(
                ("provider", "hosts"),
                f"no hosts for site '{site}'",
                f"add '{site}: [...]' with {servers[site]} addresses",
            )


def _check_address(parsed: YamlFile, place: tuple[str | int, ...], address: str) -> None:
    try:
        check_address(address)
    except PydanticCustomError as error:
        context = error.context or {}
        parsed.report(place, str(context["reason"]), str(context["remedy"]))


# ---------------------------------------------------------------- the cloud


def check_openstack(parsed: YamlFile, data: Mapping[str, Any]) -> None:
    """Report options of a back end that isn't the cloud's."""
    options = data.get("openstack")
    if not isinstance(options, dict):
        return
    backend = options.get("backend", "mysql")
    # Options of Redis may stay in a file whose back end is another one: runs are compared so.
    if options.get("galera") and isinstance(backend, str) and backend != "galera":
        parsed.report(
            ("openstack", "galera"),
            f"options of Galera, but the back end is '{short(backend)}'",
            "write 'backend: galera', or leave 'galera' out",
        )
