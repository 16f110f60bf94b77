"""Probes of the bench: they measure a running cloud without changing a line of it.

`install` lays down the wanted ones and takes the others away, `start` begins a window, `stop`
ends it, and `collect` gives what was measured in it, as the rows that docs/results.md tells
of.  What
each measures, what it costs and what it can't see is in docs/probes.md.

`wanted` is the names of the probes.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import enoslib as en

from discovery_xp import software, store
from discovery_xp.boundary import answers, archives
from discovery_xp.deployment.play import run_playbook
from discovery_xp.errors import Failed, Refused
from discovery_xp.onhost import catalogue
from discovery_xp.planning.plan import Plan
from discovery_xp.testbeds.hosts import Hosts, Progress
from discovery_xp.testbeds.remote import answering_of, run_each, some

PROBES = ("calls", "requests", "statements", "traffic", "messages", "usage")

Row = dict[str, Any]

# Of what one host complains of, so many are told.
MOST_PROBLEMS = 20
_LONGEST_NAME = 300
_LONGEST_WORDS = 2000
# How many fields follow each tag of a line of records.
_FIELDS = {"@": 2, "c": 6, "r": 5, "s": 8, "!": 4}
_USAGE: Mapping[str, Callable[[object], float]] = {
    "cpu_s": answers.number,
    "memory_bytes": answers.whole,
    "memory_start_bytes": answers.whole,
}

# In the place of a queue's name: queues that were deleted in the window.
GONE = "(gone)"

# What can be seen from inside a service.  Nova forbids its computes the database and they
# have no API: there is nothing to see in them, and restarting them takes minutes.
_INSIDE: Mapping[str, tuple[str, ...]] = {
    "keystone-api": ("statements", "requests"),
    "glance-api": ("statements", "requests"),
    "placement-api": ("statements", "requests"),
    "neutron-api": ("statements", "requests"),
    "nova-api": ("calls", "statements", "requests"),
    "nova-conductor": ("calls", "statements"),
    "nova-scheduler": ("calls", "statements"),
}


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=3)


def install(hosts: Hosts, wanted: Collection[str], progress: Progress) -> None:
    """Have exactly the wanted probes on the hosts; none takes all of ours away.

    Only services whose own probes change are restarted, and those with a port waited for.
    Raises Refused for a name that isn't a probe's, Failed with the host's words.
    """
    variables = _variables(hosts.plan, wanted)
    run = run_playbook(hosts, "probes", variables, progress)
    if any("neutron-api started" in outcome.changes for outcome in run.outcomes):
        _ask_neutron_for_networks(hosts)


def _ask_neutron_for_networks(hosts: Hosts) -> None:
    """Neutron 29 can't list ports, which Nova asks for, before it has listed anything else."""
    client = f"{software.OPENSTACK.place}/bin/openstack --os-cloud admin network list"
    run_each(hosts, {hosts.plan.require_cloud().master: f"timeout 60 {client}"})


def start(hosts: Hosts, wanted: Collection[str], progress: Progress) -> None:
    """Begin a window: note what counters are at, forget what services wrote before."""
    variables = _variables(hosts.plan, wanted)
    if wanted:
        run_playbook(hosts, "probes_start", variables, progress)


def stop(hosts: Hosts, wanted: Collection[str], progress: Progress) -> None:
    """End the window: note what counters are at.  Hosts that don't answer are left out."""
    variables = _variables(hosts.plan, wanted)
    there = answering_of(hosts) if wanted else set()
    if there:
        run_playbook(only(hosts, there), "probes_stop", variables, progress)


def collect(
    hosts: Hosts,
    wanted: Collection[str],
    window: tuple[float, float],
    progress: Progress,
    complain: Callable[[str], None] = _warn,
) -> dict[str, list[Row]]:
    """Rows by table, for the wanted probes.

    `window` is its start and end, in seconds since 1970: calls and requests are those that
    began in it.  `statements` has up to a second more at both ends; `usage`, `traffic` and
    `messages` are from each host's `start` to its `stop`, or to now where nobody stopped it.
    `complain` is told what is missing:
    hosts that don't answer, counters that can't be read, records that were dropped.
    """
    variables = _variables(hosts.plan, wanted, window)
    if not wanted:
        return {}
    there = answering_of(hosts)
    silent = [host.name for host in hosts.plan.hosts if host.name not in there]
    if not there:
        raise Failed(f"{some(silent)} can't be reached", "see 'discovery-xp status'")
    if silent:
        complain(f"{some(silent)} can't be reached: what was measured there is missing")
    run = run_playbook(only(hosts, there), "probes_collect", variables, progress)
    places = {
        host.alias: {"address": host.address, "site": hosts.plan.host(host.alias).site}
        for host in hosts.by_name().values()
    }
    return to_rows(places, wanted, run.results("probes"), complain)


def only(hosts: Hosts, names: Collection[str]) -> Hosts:
    """The same testbed with these of its hosts."""
    roles = {
        role: [host for host in group if host.alias in names] for role, group in hosts.roles.items()
    }
    return dataclasses.replace(hosts, roles=en.Roles(**roles))


def _variables(
    plan: Plan, wanted: Collection[str], window: tuple[float, float] = (0.0, 0.0)
) -> dict[str, Any]:
    """Return what the playbooks are told."""
    unknown = sorted(set(wanted) - set(PROBES))
    if unknown:
        raise Refused(f"no probe '{unknown[0]}'", f"there are: {', '.join(PROBES)}")
    units: dict[str, dict[str, Any]] = {}
    for service in plan.require_cloud().services:
        inside = [name for name in _INSIDE.get(service.unit, ()) if name in wanted]
        units.setdefault(service.host, {})[service.unit] = {
            "probes": inside,
            "port": service.port if service.is_http else None,
        }
    names = [name for name in PROBES if name in wanted]
    return {
        "xp_probes": {
            "wanted": names,
            "units": units,
            "window": list(window),
            "ports": list(catalogue.TRAFFIC),
        }
    }


# ---------------------------------------------------------------- what the hosts said, as rows


def to_rows(
    hosts: Mapping[str, Mapping[str, Any]],
    wanted: Collection[str],
    said: Mapping[str, Mapping[str, Any]],
    complain: Callable[[str], None],
) -> dict[str, list[Row]]:
    """What `probes_collect.yml` brought by host, as tables; `hosts` tells address and site."""
    names = {host["address"]: name for name, host in hosts.items()}
    tables: dict[str, list[Row]] = {name: [] for name in PROBES if name in wanted}
    for host, result in sorted(said.items()):
        place = {"host": host, "site": hosts[host]["site"]}
        try:
            found = _rows_of(result, place, hosts, names, complain)
        except (answers.Unfit, archives.Hostile) as error:
            complain(f"{host}: what it measured can't be used: {error}")
            continue
        for table, rows in found.items():
            if table in tables:
                tables[table].extend(rows)
    for table in ("calls", "requests"):
        tables.get(table, []).sort(key=lambda row: row["at"])
    return tables


def _rows_of(
    result: Mapping[str, Any],
    place: Mapping[str, str],
    hosts: Mapping[str, Mapping[str, Any]],
    names: Mapping[str, str],
    complain: Callable[[str], None],
) -> dict[str, list[Row]]:
    """What one host said, by table; raises Unfit or Hostile where that is something else."""
    found: dict[str, list[Row]] = {name: [] for name in PROBES}
    for problem in answers.listed(result.get("problems", []))[:MOST_PROBLEMS]:
        complain(f"{place['host']}: {answers.text(problem)}")
    if "records" in result:
        packed = archives.decode(result["records"])
        text = archives.inflate(packed).decode(errors="replace")
        for table, row in read_records(text, place, complain):
            found[table].append(row)
    for key, counted in answers.mapping(result.get("traffic", {})).items():
        sent, packets = _counts(counted, 2)
        address, _, words = key.partition(" ")
        port = answers.whole_of(words)
        peer = names.get(address, answers.text(address, _LONGEST_NAME))
        found["traffic"].append(
            {
                **place,
                "peer": peer,
                "peer_site": hosts[peer]["site"] if peer in hosts else "",
                "direction": "out",
                "port": port,
                "service": catalogue.TRAFFIC.get(port, catalogue.OTHER_TRAFFIC),
                "bytes": sent,
                "packets": packets,
            }
        )
    queues = answers.mapping(result.get("messages", {}))
    found["messages"] = _messages({queue: _counts(counts, 3) for queue, counts in queues.items()})
    for service, used in answers.mapping(result.get("usage", {})).items():
        values = answers.mapping(used)
        missing = [key for key in _USAGE if key not in values]
        if missing:
            raise answers.Unfit(f"usage lacks '{missing[0]}'")
        found["usage"].append(
            {
                "service": answers.text(service, _LONGEST_NAME),
                **place,
                **{key: check(values[key]) for key, check in _USAGE.items()},
            }
        )
    return found


def _counts(value: object, length: int) -> list[int]:
    numbers = [answers.whole(each) for each in answers.listed(value)]
    if len(numbers) != length:
        raise answers.Unfit(f"{answers.shown(value)} isn't {length} counts")
    return numbers


def _messages(said: Mapping[str, Sequence[int]]) -> list[Row]:
    """A row for each queue; what the broker has counted beyond them was in queues that are gone."""
    columns = ("published", "delivered", "acknowledged")
    queues = {answers.text(queue, _LONGEST_NAME): counts for queue, counts in said.items() if queue}
    if "" in said:
        known = [sum(column) for column in zip(*queues.values(), strict=True)] or [0, 0, 0]
        rest = [max(0, total - own) for total, own in zip(said[""], known, strict=True)]
        if any(rest):
            queues[GONE] = rest
    return [
        {"queue": queue, **dict(zip(columns, counts, strict=True))}
        for queue, counts in queues.items()
    ]


def read_records(
    text: str, place: Mapping[str, str], complain: Callable[[str], None]
) -> Iterator[tuple[str, Row]]:
    """(table, row) of the lines that the probes of one host wrote; see their `lines.py`.

    Raises Unfit for any others.
    """
    complaints = 0
    unit, pid = "", 0
    sums: dict[tuple[str, int, str], list[float]] = {}
    for line in text.split("\n"):
        tag, *fields = line.split("\t")
        if tag not in _FIELDS:
            continue
        if len(fields) != _FIELDS[tag]:
            raise answers.Unfit(f"{answers.shown(line)} is no record")
        if tag == "@":
            unit = answers.text(fields[0], _LONGEST_NAME)
            pid = answers.whole_of(fields[1])
        elif tag == "c":
            at, ms, api, function, lazy, error = fields
            yield (
                "calls",
                {
                    "at": answers.number_of(at),
                    "service": unit,
                    **place,
                    "function": answers.text(function, _LONGEST_NAME),
                    "api": answers.one_of(api, store.values_of("calls", "api")),
                    "duration_ms": answers.number_of(ms),
                    "lazy": lazy == "1",
                    "error": answers.text(error, _LONGEST_WORDS) or None,
                },
            )
        elif tag == "r":
            at, ms, method, path, status = fields
            yield (
                "requests",
                {
                    "at": answers.number_of(at),
                    "service": unit,
                    **place,
                    "method": answers.text(method, _LONGEST_NAME),
                    "path": answers.text(path, _LONGEST_WORDS),
                    "status": answers.whole_of(status),
                    "duration_ms": answers.number_of(ms),
                },
            )
        elif tag == "s":
            _, _, kind, *numbers = fields
            key = unit, pid, answers.one_of(kind, store.values_of("statements", "kind"))
            total = sums.setdefault(key, [0.0] * len(numbers))
            sums[key] = [
                old + answers.number_of(new) for old, new in zip(total, numbers, strict=True)
            ]
        elif complaints < MOST_PROBLEMS:
            complaints += 1
            _, *words = fields
            dropped, errors, last = (answers.text(each, _LONGEST_NAME) for each in words)
            complain(
                f"{unit} on {place['host']}: {dropped} records dropped, {errors} errors of the "
                f"probes since it started{f', the last: {last}' if last else ''}"
            )
    for (service, process, kind), totals in sums.items():
        count, trips, sent, received, milliseconds = totals
        yield (
            "statements",
            {
                "service": service,
                **place,
                "pid": process,
                "kind": kind,
                "count": answers.whole(int(count)),
                "round_trips": answers.whole(int(trips)),
                "bytes_sent": answers.whole(int(sent)),
                "bytes_received": answers.whole(int(received)),
                "duration_ms": round(answers.number(milliseconds), 3),
            },
        )
