"""A topology's plain values to the file that says the same, which people can read and change."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import yaml

from discovery_xp.boundary.names import Name

MIB = 2**20
# What every reader of YAML takes for a text without quotes.
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*|[0-9]+(\.[0-9]+)?(ms|mbit|%|MiB|kB)", re.ASCII)
_NOT_TEXTS = frozenset(("true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf"))

Values = Mapping[str, Any]


class _Dumper(yaml.SafeDumper):
    """Quotes each text that a reader of YAML, old or new, could take for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write equal values out, as who reads a file wants to see them."""
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    is_plain = _PLAIN.fullmatch(text) and text.lower() not in _NOT_TEXTS
    style = None if is_plain else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style=style)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_multi_representer(Name, _represent_text)


def write(topology: Values) -> str:
    """Return the file of a topology's plain values, as `dataclasses.asdict` gives them.

    Raises ValueError for what no file says: a rule without the limit that all links have.
    """
    described = {
        "name": topology["name"],
        "description": topology["description"] or None,
        "sites": list(_sites(topology["sites"])),
        "master": topology["master"] or "none",
        "network": {
            **_link(topology["default"]),
            "links": list(_rules(topology["rules"], topology["default"])),
            "tolerance": {
                "absolute": _quantity(topology["tolerance"]["absolute_ms"], "ms"),
                "relative": _quantity(topology["tolerance"]["relative_percent"], "%"),
            },
        },
        "time_scale": topology["time_scale"],
        "openstack": _openstack(topology["openstack"]),
        "provider": _provider(topology["provider"]),
    }
    text: str = yaml.dump(
        _without_nothing(described), Dumper=_Dumper, sort_keys=False, width=10**6
    )  # fmt: skip
    return text


def _openstack(options: Values) -> dict[str, Any]:
    """Leave out the options of Galera where it isn't the back end: a file may not have them."""
    return {
        key: value
        for key, value in options.items()
        if key != "galera" or options["backend"] == "galera"
    }


def _without_nothing(values: Values) -> dict[str, Any]:
    """Leave out what has no value: its key is left out of a file."""
    return {
        key: _without_nothing(value) if isinstance(value, Mapping) else value
        for key, value in values.items()
        if value is not None
    }


def _quantity(number: float, unit: str) -> str:
    """Write a number so that the very same one is read, without an exponent."""
    text = format(Decimal(repr(number)), "f")
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text}{unit}"


def _size(size_bytes: int | None) -> str | None:
    if size_bytes is None:
        return None
    whole, rest = divmod(size_bytes, MIB)
    return f"{size_bytes / 1000}kB" if rest else f"{whole}MiB"


# ---------------------------------------------------------------- sites and links


def _sites(sites: Sequence[Values]) -> Iterator[dict[str, Any]]:
    """Equal sites called NAME1, NAME2, ... are one entry with a count."""
    left = list(sites)
    while left:
        stem, group = _group(left)
        counts = {key: left[0][key] for key in ("controllers", "computes", "data")}
        if group > 1 or Name.objection(left[0]["name"]) is not None:
            yield {"name": stem, "count": group, **counts}
            del left[:group]
        else:
            yield {"name": left[0]["name"], **counts}
            del left[0]


def _group(sites: Sequence[Values]) -> tuple[str, int]:
    """Return the common part of the names of the first sites, and how many have it."""
    stem = sites[0]["name"].removesuffix("1")
    if stem == sites[0]["name"] or Name.objection(stem) is not None:
        return stem, 1
    number = 0
    for number, site in enumerate(sites, start=1):
        if {**site, "name": ""} != {**sites[0], "name": ""} or site["name"] != f"{stem}{number}":
            return stem, number - 1
    return stem, number


def _link(link: Values) -> dict[str, Any]:
    rate = link["rate_mbit"]
    return {
        "delay": _quantity(link["delay_ms"], "ms"),
        "jitter": _quantity(link["jitter_ms"], "ms"),
        "loss": _quantity(link["loss_percent"], "%"),
        "rate": None if rate is None else _quantity(rate, "mbit"),
    }


def _rules(rules: Mapping[tuple[str, str], Values], default: Values) -> Iterator[dict[str, Any]]:
    for (source, target), link in rules.items():
        if link["rate_mbit"] is None and default["rate_mbit"] is not None:
            raise ValueError(f"{source} to {target}: no file says that a link has no limit")
        values = _without_nothing(_link(link))
        if rules.get((target, source)) != link:
            yield {"from": source, "to": target, **values}
        elif (target, source) not in list(rules)[: list(rules).index((source, target))]:
            yield {"between": [source, target], **values}


# ---------------------------------------------------------------- providers


def _provider(provider: Values) -> dict[str, Any]:
    return _PROVIDERS[provider["type"]](provider)


def _local(provider: Values) -> dict[str, Any]:
    limits = {
        role: {
            "cpus": limit["cpus"],
            "memory": _size(limit["memory_bytes"]),
            "disk": _size(limit["disk_bytes"]),
            "processes": limit["processes"],
        }
        for role, limit in provider["limits"].items()
    }
    return {"type": "local", **_keys(provider, "network", "wan", "merge_memory"), "limits": limits}


def _static(provider: Values) -> dict[str, Any]:
    hosts = {
        site: [_without_nothing(_keys(host, "address", "user", "port", "key")) for host in own]
        for site, own in provider["hosts"].items()
    }
    return {"type": "static", "hosts": hosts}


def _on_grid5000(provider: Values) -> dict[str, Any]:
    """Each site names its own cluster, as `sites` does."""
    job = provider["job"]
    return {
        **_keys(provider, "type"),
        "sites": provider["clusters"],
        **_keys(job, "walltime", "queue", "project", "reservation"),
        "job_types": list(job["types"]),
        **_keys(provider["access"], "key", "jump_host"),
    }


def _g5k(provider: Values) -> dict[str, Any]:
    return {**_on_grid5000(provider), **_keys(provider, "environment", "network", "spares")}


def _vmong5k(provider: Values) -> dict[str, Any]:
    memory = f"{provider['memory_mib']}MiB"
    return {**_on_grid5000(provider), **_keys(provider, "image", "cores"), "memory": memory}


def _vagrant(provider: Values) -> dict[str, Any]:
    own = _keys(provider, "type", "backend", "box", "user", "cores", "network")
    return {**own, "memory": f"{provider['memory_mib']}MiB"}


def _dummy(provider: Values) -> dict[str, Any]:
    return {"type": "dummy", "faults": list(provider["faults"])}


def _keys(values: Values, *keys: str) -> dict[str, Any]:
    return {key: values[key] for key in keys}


_PROVIDERS: Mapping[str, Callable[[Values], dict[str, Any]]] = {
    "local": _local,
    "static": _static,
    "g5k": _g5k,
    "vmong5k": _vmong5k,
    "vagrant": _vagrant,
    "chameleon": dict,
    "dummy": _dummy,
}
