"""What is said of one run before its tables: facts, the figures that count, what is missing."""

from __future__ import annotations

from discovery_xp.analysis import (
    run_tables,
    tables,
    verdicts,
)
from discovery_xp.analysis.measurements import (
    Measurements,
    configuration,
    latency,
    nodes,
    placement,
    replicas,
    summary,
)
from discovery_xp.analysis.tables import digits
from discovery_xp.inputs.units import format_bytes
from discovery_xp.onhost.wire.verification import STATUSES
from discovery_xp.store import PROBES, RunRecord
from discovery_xp.text import shortened

_FACT = 4000  # characters of what is said of a run, such as its notes


def facts(run: Measurements) -> list[tuple[str, str]]:
    """Return the facts of a run in words: pairs of subject and text."""
    record = run.record
    machine = record.machine
    pairs = [
        ("CANNED", run_tables.CANNED_WORDS if record.is_canned else ""),
        ("status", f"PARTIAL: {record.why_partial}" if record.is_partial else record.status),
        ("validity", verdicts.verdict(record)),
        ("time scale", verdicts.time_scale(run)),
        ("time", f"{record.started} to {record.ended or '...'}"),
        ("run", f"{run.run.name}, commit {record.commit or 'unknown'}"),
        ("cloud", f"OpenStack on {record.backend}, placement {placement(record)}"),
        ("databases", _databases(run)),
        (
            "hosts",
            f"{_count(record.sites, 'site')}: {_count(record.controllers, 'controller')}, "
            f"{_count(record.computes, 'compute')}, {_count(record.data, 'data node')} in all",
        ),
        ("links", _links(run)),
        (
            "machine",
            f"{machine.cpus} processors, {machine.cpu_model}, "
            f"{format_bytes(machine.memory_bytes)}, {machine.kernel}, provider {machine.provider}",
        ),
        ("memory", _memory(record)),
        ("before", _before(record)),
        (
            f"{run.unit}s",
            f"{run.asked} asked for, {run.done} {'passed' * record.is_verification or 'well'}"
            if run.unit != "VM"
            else f"{record.vms.asked} asked for, {record.vms.active} ACTIVE, {record.vms.failed} "
            f"failed, {record.vms.deleted} deleted",
        ),
        ("load", _load(run)),
        ("probes", "" if record.is_verification else ", ".join(record.probes) or "none"),
        (
            "stages" if run.time_scale == 1 else "stages, by a clock",
            ", ".join(f"{k} {v:.0f} s" for k, v in record.stages_s.items() if v >= 1),
        ),
        ("notes", "; ".join(record.notes)),
    ]
    return [(subject, shortened(words, _FACT)) for subject, words in pairs if words]


def _memory(record: RunRecord) -> str:
    """Return what the hosts used at the load's end, and what merging of equal pages did to it."""
    merging = record.merging
    if merging is None:
        return ""
    used = "" if merging.hosts_memory_bytes is None else (
        f"hosts used {format_bytes(merging.hosts_memory_bytes)}; "
    )  # fmt: skip
    if not merging.is_on:
        return f"{used}equal pages weren't merged: {merging.reason}"
    cost = "" if merging.ksmd_cpu_s is None else (
        f", for {merging.ksmd_cpu_s:.1f} s of ksmd's CPU time while the load ran"
    )  # fmt: skip
    saved = format_bytes(merging.saved_bytes)
    return f"{used}equal pages were merged, they would take {saved} more{cost}"


def _before(record: RunRecord) -> str:
    """Return the machines' state before the load, the busiest's where there are several."""
    machines = record.machines_before
    if not machines:
        return ""
    state = max(machines, key=lambda each: each.load_1min / max(1, each.cpus))
    words = [f"load {state.load_1min:.2f} on {_count(state.cpus, 'processor')}"]
    if state.steal_percent is not None:
        words.append(f"{state.steal_percent:.1f} % stolen")
    words.append(f"{format_bytes(state.memory_available_bytes)} of memory available")
    if state.frequency_mhz is not None:
        words.append(f"{state.frequency_mhz:.0f} MHz")
    words.append(f"governor {state.governor or 'unknown'}")
    words.append(f"clock {state.clock_source or 'unknown'}")
    if len(machines) == 1 and not state.host:
        words.append("shared by all hosts")
    offsets = [each.clock_offset_ms for each in machines if each.clock_offset_ms is not None]
    if len(offsets) > 1:
        uncertainty_ms = max(each.clock_uncertainty_ms or 0.0 for each in machines)
        words.append(
            f"clocks within {max(offsets) - min(offsets):.2f} ms, each read to "
            f"{uncertainty_ms:.2f} ms"
        )
    of = f" ({state.host}, the busiest)" if len(machines) > 1 else ""
    return ", ".join(words) + of


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _databases(run: Measurements) -> str:
    """Return which store held which database, where it isn't one server for all."""
    options = run.record.options
    by_holder: dict[str, list[str]] = {}
    for name, holder in options.get("databases", {}).items():
        by_holder.setdefault(str(holder), []).append(name)
    if not by_holder:
        return ""
    parts = [f"{', '.join(names)} on {holder}" for holder, names in by_holder.items()]
    rome = options.get("rome", {})
    if rome.get("store") in ("server", "servers"):
        servers = nodes(run.record)
        parts.append("one Redis server" if servers == 1 else f"{servers} Redis servers")
    elif rome:
        parts.append(f"a Redis Cluster of {configuration(nodes(run.record), replicas(run.record))}")
    if "persistence" in rome:
        parts.append(f"appendfsync {rome['persistence']}")
    if rome.get("table_lease"):
        parts.append(f"tables leased for {rome['table_lease']} s")
    return "; ".join(parts)


def _links(run: Measurements) -> str:
    record = run.record
    if record.sites == 1:
        return ""
    words = f"{latency(record)} one-way" if record.latency_ms is not None else latency(record)
    if record.imposed_by:
        words += f", imposed by {record.imposed_by}"
    if record.rtt_ms is not None:
        words += f"; median round trip observed {digits(record.rtt_ms)} ms"
    return words


def _load(run: Measurements) -> str:
    load = run.record.load
    if load is None:
        return ""
    return (
        f"took {digits(load.cpu_s)} s of CPU ({digits(load.cores)} cores) on {load.host}, "
        f"and polled {load.polls} times"
    )


def headline(run: Measurements) -> list[tuple[str, str]]:
    """Return the few figures to read first: pairs of value and what it is."""
    if run.record.is_verification:
        counts = run.verdicts["status"].value_counts()
        return [(str(counts.get(status, 0)), f"tests {status}") for status in STATUSES]
    row = summary([run]).iloc[0].to_dict()
    pairs: list[tuple[str, str]] = [
        (
            f"{row['vms_active']} of {row['vms_asked']}",
            "VMs ACTIVE" if run.unit == "VM" else f"{run.unit}s",
        ),
    ]
    for key, unit, words in (
        ("duration_s", " s", "to create them" if run.unit == "VM" else "in all"),
        ("s_per_vm", " s", f"per {run.unit}"),
        ("call_mean_ms", " ms", "mean call of the database API"),
        ("cpu_ms_per_vm", " ms", f"of CPU per {run.unit}"),
        ("round_trips_per_vm", "", f"database round trips per {run.unit}"),
        ("crossings_per_vm", "", "crossings between sites on a boot's path"),
        ("wan_wait_s_per_vm", " s", "of waiting for the WAN per VM"),
        ("network_mb", " MB", "over the network"),
        ("machine_busy", "", "of the machine busy"),
    ):
        if key == "s_per_vm" and not tables.is_empty(row["natural_s"]):
            words_ = f"by a clock, at a time scale of {run.time_scale:g}"
            pairs.append((f"{tables.cell('natural_s', row['natural_s'])} s", words_))
        if not tables.is_empty(row[key]):
            pairs.append((f"{tables.cell(key, row[key])}{unit}", words))
    return pairs


def missing(run: Measurements) -> str:
    """Return which probes were off, in a line; empty when none was, and where there are none."""
    if run.record.is_verification:
        return ""
    off = [probe for probe in PROBES if not run.measured(probe)]
    return f"Not measured in this run: {', '.join(off)}." if off else ""
