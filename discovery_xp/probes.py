"""Probes of the bench: they measure a running cloud without changing a line of it.

`install` lays down the wanted ones and takes the others away, `start` begins a window, `stop`
ends it, and `collect` gives what was measured in it, as the rows that docs/results.md tells
of.  What
each measures, what it costs and what it can't see is in docs/probes.md.

`wanted` is the names of the probes.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import enoslib as en

from discovery_xp import software
from discovery_xp.boundary import answers, archives
from discovery_xp.deployment.play import run_playbook
from discovery_xp.errors import Failed, Refused
from discovery_xp.onhost import catalogue
from discovery_xp.onhost.sources import sources
from discovery_xp.onhost.wire import counters, series
from discovery_xp.onhost.wire import probes as records
from discovery_xp.onhost.wire import spans as wire
from discovery_xp.planning.databases import ROME
from discovery_xp.planning.plan import Plan
from discovery_xp.store.tables import MOST_ROWS_OF
from discovery_xp.testbeds.hosts import Hosts, Progress
from discovery_xp.testbeds.remote import answering_of, run_each, some

PROBES = ("calls", "requests", "statements", "spans", "traffic", "messages", "usage", "series")

Row = dict[str, Any]

# A run of one that samples hundreds of hosts each second for an hour would have more.
MOST_SAMPLES = MOST_ROWS_OF["series"]

# In the place of a queue's name: queues that were deleted in the window.
GONE = "(gone)"

# What can be seen from inside a service.  Nova forbids its computes the database and they
# have no API: there is nothing to see in them but what they do for a boot.
_INSIDE: Mapping[str, tuple[str, ...]] = {
    "keystone-api": ("statements", "requests", "spans"),
    "glance-api": ("statements", "requests", "spans"),
    "placement-api": ("statements", "requests", "spans"),
    "neutron-api": ("statements", "requests", "spans"),
    "nova-api": ("calls", "statements", "requests", "spans"),
    "nova-conductor": ("calls", "statements", "spans"),
    "nova-super-conductor": ("calls", "statements", "spans"),
    "nova-scheduler": ("calls", "statements", "spans"),
    "nova-compute": ("spans",),
}


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=3)


def to_deploy_with(plan: Plan, probes: Collection[str]) -> dict[str, Any]:
    """Return what `deploy` is told besides, so that services start with the probes in them.

    A nova-compute takes seconds of a processor to start: dozens start once so, not twice.
    """
    variables = _variables(plan, probes)
    variables["xp_probes"]["contents"] = _code()
    return variables


def install(
    hosts: Hosts,
    probes: Collection[str],
    progress: Progress,
    have_them: Collection[str] = (),
) -> bool:
    """Have exactly the wanted probes on the hosts; none takes all of ours away.

    Only services whose own probes change are restarted, and those with a port waited for.
    Hosts that `have_them`, as these very probes were deployed there, aren't asked.
    Returns whether a service was restarted.
    Raises Refused for a name that isn't a probe's, Failed with the host's words.
    """
    variables = to_deploy_with(hosts.plan, probes)
    left = {host.name for host in hosts.plan.hosts} - set(have_them)
    if not left:
        return False
    run = run_playbook(only(hosts, left), "probes", variables, progress)
    if any("neutron-api" in outcome.restarted for outcome in run.outcomes):
        _ask_neutron_for_networks(hosts)
    return any(outcome.restarted for outcome in run.outcomes)


def _ask_neutron_for_networks(hosts: Hosts) -> None:
    """List networks: before that, Neutron 29 can't list ports, which Nova asks for."""
    client = f"{software.OPENSTACK.place}/bin/openstack --os-cloud admin network list"
    run_each(hosts, {hosts.plan.require_cloud().master: f"timeout 60 {client}"})


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the series are sampled: each `every_s` seconds of the hosts, for `longest_s` at most."""

    every_s: float = 5.0
    longest_s: float = 3600.0


def start(
    hosts: Hosts, probes: Collection[str], progress: Progress, sampling: Sampling | None = None
) -> None:
    """Begin a window: note what counters are at, forget what services wrote before."""
    variables = _variables(hosts.plan, probes)
    variables["xp_probes"] |= dataclasses.asdict(sampling or Sampling())
    if probes:
        run_playbook(hosts, "probes_start", variables, progress)


def stop(hosts: Hosts, probes: Collection[str], progress: Progress) -> None:
    """End the window: note what counters are at.  Hosts that don't answer are left out."""
    variables = _variables(hosts.plan, probes)
    there = answering_of(hosts) if probes else set()
    if there:
        run_playbook(only(hosts, there), "probes_stop", variables, progress)


def collect(
    hosts: Hosts,
    probes: Collection[str],
    window: tuple[float, float],
    progress: Progress,
    complain: Callable[[str], None] = _warn,
    sampling: Sampling | None = None,
) -> dict[str, list[Row]]:
    """Return rows by table, for the probes that are on.

    `window` is its start and end, in seconds since 1970: calls and requests are those that
    began in it.  `statements` has up to a second more at both ends; `usage`, `traffic` and
    `messages` are from each host's `start` to its `stop`, or to now where nobody stopped it.
    `complain` is told what is missing:
    hosts that don't answer, counters that can't be read, records that were dropped.
    """
    variables = _variables(hosts.plan, probes, window)
    if not probes:
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
    every_s = (sampling or Sampling()).every_s
    nodes = proxied_nodes(hosts.plan)
    return to_rows(places, probes, run.results("probes"), complain, window, every_s, nodes)


def proxied_nodes(plan: Plan) -> dict[str, str]:
    """Return for each host with a proxy of its own the host of the database's node behind it.

    That is the first node of its order; the others stand in only while that one is down.
    """
    galera = plan.require_cloud().galera
    return {} if galera is None else {host: order[0] for host, order in galera.proxies.items()}


def only(hosts: Hosts, names: Collection[str]) -> Hosts:
    """Return the same testbed with these of its hosts."""
    roles = {
        role: [host for host in group if host.alias in names] for role, group in hosts.roles.items()
    }
    return dataclasses.replace(hosts, roles=en.Roles(**roles))


def _variables(
    plan: Plan, probes: Collection[str], window: tuple[float, float] = (0.0, 0.0)
) -> dict[str, Any]:
    """Return what the playbooks are told."""
    unknown = sorted(set(probes) - set(PROBES))
    if unknown:
        raise Refused(f"no probe '{unknown[0]}'", f"there are: {', '.join(PROBES)}")
    cloud = plan.require_cloud()
    # MariaDB counts for its clients; ROME's processes count for themselves.
    counted = {each.owner for each in cloud.databases if each.backend == ROME}
    units: dict[str, dict[str, Any]] = {}
    for service in cloud.services:
        inside = [name for name in _INSIDE.get(service.unit, ()) if name in probes]
        if "series" in probes and service.component in counted:
            inside.append("series")
        units.setdefault(service.host, {})[service.unit] = {
            "probes": inside,
            "port": service.port if service.is_http else None,
        }
    names = [name for name in PROBES if name in probes]
    return {"xp_probes": {"wanted": names, "units": units, "window": list(window)}}


def _code() -> dict[str, str]:
    """Return what services with a probe import, by path below a folder of PYTHONPATH."""
    package = sources(
        "catalogue", "checks", "process", "redis_client", "wire/probes", "wire/series",
        "wire/spans", "probes/inside", "probes/series", "probes/sitecustomize",
    )  # fmt: skip
    # Python looks for it at the top of each folder.
    own = package.pop("discovery_xp/onhost/probes/sitecustomize.py")
    return {"sitecustomize.py": own, **package}


# ---------------------------------------------------------------- what the hosts said, as rows


def to_rows(
    hosts: Mapping[str, Mapping[str, Any]],
    probes: Collection[str],
    results: Mapping[str, Mapping[str, Any]],
    complain: Callable[[str], None],
    window: tuple[float, float] = (0.0, 0.0),
    every_s: float = 5.0,
    nodes: Mapping[str, str] | None = None,
) -> dict[str, list[Row]]:
    """Return what `probes_collect.yml` brought by host, as tables; `hosts` has address and site.

    What services count of themselves becomes series of a value each `every_s` of the window.
    `nodes` is for each host with a proxy the host of the database behind it.
    """
    names = {host["address"]: name for name, host in hosts.items()}
    buses = [host for host, result in results.items() if result.get("messages")]
    tables: dict[str, list[Row]] = {name: [] for name in PROBES if name in probes}
    for host, result in sorted(results.items()):
        place = {"host": host, "site": hosts[host]["site"]}
        try:
            host_rows = _rows_of(result, place, hosts, names, complain)
            for row in host_rows["spans"]:
                row |= _peer(row, hosts, names, (nodes or {}).get(host))
        except (answers.Unfit, archives.Hostile) as error:
            complain(f"{host}: what it measured can't be used: {error}")
            continue
        if len(buses) > 1:  # those of one name are different queues
            for row in host_rows["messages"]:
                row["queue"] = f"{row['queue']} on {host}"
        counts = series.added(host_rows.pop("counts"), *window, every_s)
        host_rows["series"] += counts
        for table, rows in host_rows.items():
            if table in tables:
                tables[table].extend(rows)
    if "series" in tables:
        tables["series"] = _thinned(tables["series"], complain)
    for table in ("calls", "requests", "spans", "series"):
        tables.get(table, []).sort(key=lambda row: row["at"])
    return tables


def _rows_of(
    result: Mapping[str, Any],
    place: Mapping[str, str],
    hosts: Mapping[str, Mapping[str, Any]],
    names: Mapping[str, str],
    complain: Callable[[str], None],
) -> dict[str, list[Row]]:
    """Return one host's answer, by table; raises Unfit or Hostile where it is something else."""
    rows: dict[str, list[Row]] = {name: [] for name in (*PROBES, "counts")}
    for problem in answers.listed(result.get("problems", []))[: records.MOST_PROBLEMS]:
        complain(f"{place['host']}: {answers.text(problem)}")
    if "records" in result:
        packed = archives.decode(result["records"])
        text = archives.inflate(packed).decode(errors="replace")
        for table, row in records.parse(text, place, complain):
            rows[table].append(row)
    for address, port, sent, packets in counters.parse_traffic(result.get("traffic", {})):
        peer = names.get(address, address)
        rows["traffic"].append(
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
    if "series" in result:
        packed = archives.decode(result["series"])
        text = archives.inflate(packed).decode(errors="replace")
        rows["series"] += series.parse(text, place)
    rows["messages"] = _messages(counters.parse_messages(result.get("messages", {})))
    for service, used in counters.parse_usage(result.get("usage", {})):
        rows["usage"].append({"service": service, **place, **used})
    return rows


def _peer(
    span: Row,
    hosts: Mapping[str, Mapping[str, Any]],
    names: Mapping[str, str],
    node: str | None,
) -> Row:
    """Return a span's peer, the name in the place of its address, and the peer's site.

    A statement that a proxy passes on has crossed links to `node`, the host of the database.
    """
    peer = names.get(span["peer"], span["peer"])
    if node and span["kind"] == wire.DATABASE and peer == catalogue.DATABASE_PROXY_ADDRESS:
        peer = node
    return {"peer": peer, "peer_site": hosts[peer]["site"] if peer in hosts else None}


def _thinned(rows: list[Row], complain: Callable[[str], None]) -> list[Row]:
    """Return as many samples as a table may have, of each series one in so many."""
    step = math.ceil(len(rows) / MOST_SAMPLES)
    if step <= 1:
        return rows
    complain(f"{len(rows)} samples of the series, more than {MOST_SAMPLES}: one in {step} is kept")
    seen: Counter[tuple[str, str, str]] = Counter()
    kept = []
    for row in rows:
        key = row["host"], row["service"], row["metric"]
        if seen[key] % step == 0:
            kept.append(row)
        seen[key] += 1
    return kept[:MOST_SAMPLES]


def _messages(counts: Mapping[str, Sequence[int]]) -> list[Row]:
    """Return a row for each queue, and one for what was in queues that are gone.

    The broker has counted that beyond its queues.
    """
    queues = {queue: own for queue, own in counts.items() if queue != counters.WHOLE_BROKER}
    if counters.WHOLE_BROKER in counts:
        totals = [sum(column) for column in zip(*queues.values(), strict=True)] or [0, 0, 0]
        rest = [
            max(0, total - own)
            for total, own in zip(counts[counters.WHOLE_BROKER], totals, strict=True)
        ]
        if any(rest):
            queues[GONE] = rest
    return [
        {"queue": queue, **dict(zip(counters.MESSAGES, own, strict=True))}
        for queue, own in queues.items()
    ]
