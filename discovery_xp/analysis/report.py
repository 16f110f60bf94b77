"""Runs as reports: for the terminal, and as one HTML page.

Both show the same tables; the page has the figures, too, and is a single file that needs
nothing else.  `export` writes the same as files of their own.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import yaml
from markupsafe import Markup
from matplotlib.figure import Figure
from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from discovery_xp.analysis import (
    anatomy,
    anatomy_tables,
    paper,
    paper_tables,
    plots,
    run_tables,
    series_plots,
    summaries,
    tables,
    verdict_tables,
    verdicts,
    waterfall,
)
from discovery_xp.analysis.drawing import data_uris
from discovery_xp.analysis.measurements import (
    BUSY_WORDS,
    Measurements,
    configuration,
    label,
    latency,
    loads,
    nodes,
    placement,
    replicas,
    summary,
    verifications,
)
from discovery_xp.analysis.tables import Table, digits
from discovery_xp.errors import Refused
from discovery_xp.inputs.units import format_bytes
from discovery_xp.onhost.wire.verification import STATUSES
from discovery_xp.store import PROBES, RunRecord, replace_file
from discovery_xp.text import printable, shortened

_FACT = 4000  # characters of what is said of a run, such as its notes


# ---------------------------------------------------------------- facts and headline


def comparisons(runs: Sequence[Measurements]) -> list[Table]:
    """Return the tables of runs beside each other, without the published values."""
    loaded = loads(runs)
    candidates = verdict_tables.side_by_side(verifications(runs))
    if loaded:
        candidates = [
            run_tables.overview(loaded), run_tables.costs(loaded), run_tables.repeats(loaded),
            *candidates,
        ]  # fmt: skip
    return [table for table in candidates if len(table.frame)]


def tables_of(runs: Sequence[Measurements], whole: bool = False) -> list[Table]:
    """Return the tables of several runs; those of one run are `run_tables.run_tables`."""
    return comparisons(runs) + paper_tables.paper_tables(loads(runs), whole)


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
    if rome.get("store") == "server":
        servers = nodes(run.record)
        parts.append("one Redis server" if servers == 1 else f"{servers} Redis servers")
    elif rome:
        parts.append(f"a Redis Cluster of {configuration(nodes(run.record), replicas(run.record))}")
    if "persistence" in rome:
        parts.append(f"appendfsync {rome['persistence']}")
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


# ---------------------------------------------------------------- terminal


def terminal(runs: Sequence[Measurements], whole: bool = False) -> RenderableType:
    """Return the report for a terminal: one run in depth, or several beside each other."""
    parts: list[RenderableType] = []
    if len(runs) == 1:
        (run,) = runs
        parts.append(Text(run_tables.title(run), style="bold"))
        grid = RichTable.grid(padding=(0, 2))
        for subject, words in facts(run):
            warns = (
                subject == "CANNED"
                or (subject == "status" and run.record.is_partial)
                or (subject == "validity" and run.record.is_busy)
            )
            grid.add_row(Text(subject, style="dim"), Text(words, style="bold" if warns else ""))
        parts += [grid, Text()]
        for value, words in headline(run):
            parts.append(Text.assemble((f"{value:>12}", "bold"), f" {words}"))
        parts += [rich_table(table) for table in run_tables.run_tables(run)]
        if missing(run):
            parts.append(Text(missing(run)))
        parts += [rich_table(table) for table in paper_tables.paper_tables(loads(runs), whole)]
    else:
        parts += [rich_table(table) for table in tables_of(runs, whole)]
    if whole or paper_tables.paper_tables(loads(runs)):
        parts.append(Text())
        parts += [Text(f"[{source.key}] {source.citation}") for source in paper.SOURCES]
    return Group(*parts)


def rich_table(table: Table) -> RenderableType:
    """Return a table for a terminal, with its notes."""
    grid = RichTable(title=Text(printable(table.title)), title_justify="left", show_edge=False)
    for heading, right in zip(table.headings(), table.numeric(), strict=True):
        grid.add_column(Text(heading), justify="right" if right else "left", overflow="fold")
    for row in table.cells():
        grid.add_row(*(Text(value) for value in row))
    return Group(Text(), grid, *(Text(f"  {printable(note)}", style="dim") for note in table.notes))


def print_report(console: Console, runs: Sequence[Measurements], whole: bool = False) -> None:
    """Print the terminal report."""
    console.print(terminal(runs, whole))


# ---------------------------------------------------------------- HTML


@dataclass(frozen=True)
class Picture:
    """A figure; `alt` says what is to be seen."""

    title: str
    caption: str
    alt: str
    draw: Callable[[plots.Theme], Figure]

    @property
    def name(self) -> str:
        """Return the name of its files."""
        return "-".join(re.findall(r"\w+", self.title.lower().replace("'s", "")))

    @functools.cached_property
    def figure(self) -> Figure:
        """Return the figure for paper and light pages."""
        return self.draw(plots.LIGHT)

    @functools.cached_property
    def sources(self) -> tuple[str, str]:
        """Return the sources of its images for a light page and for a dark one."""
        return data_uris(self.figure)


def pictures_of(runs: Sequence[Measurements]) -> list[Picture]:
    """Return the figures of one run, or of several beside each other."""
    loaded = loads(runs)
    return _pictures_of_one(loaded[0]) if len(loaded) == 1 else _pictures_of_several(loaded)


def html(
    runs: Sequence[Measurements], whole: bool = False, pictures: Sequence[Picture] | None = None
) -> str:
    """Return one page that is one file: inline images, no script, nothing loaded from elsewhere.

    `pictures` are those of `pictures_of`, where they are at hand.
    """
    one = runs[0] if len(runs) == 1 else None
    shown = paper_tables.paper_tables(loads(runs), whole)
    compared = [] if one else comparisons(runs)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    partial = [run for run in runs if run.record.is_partial]
    return environment.get_template("report.html.j2").render(
        title=run_tables.title(one) if one else _title(runs),
        one=one,
        partial=[(f"#{run.number} {run.run.name}", run.record.why_partial) for run in partial],
        all_partial=len(partial) == len(runs),
        canned=[f"#{run.number}" for run in runs if run.record.is_canned],
        canned_words=run_tables.CANNED_WORDS,
        busy=[f"#{run.number} {run.run.name}" for run in runs if run.record.is_busy],
        busy_words=BUSY_WORDS,
        marks=tables.MARKS,
        facts=facts(one) if one else [],
        headline=headline(one) if one else [],
        missing=missing(one) if one else "",
        options=_yaml(one.record.options) if one else [],
        scenario=_yaml(one.record.scenario) if one else [],
        versions=sorted(one.record.versions.items()) if one else [],
        pictures=pictures_of(runs) if pictures is None else pictures,
        overview=compared[0] if compared else None,
        comparisons=compared[1:],
        paper_tables=shown,
        run_tables=run_tables.run_tables(one) if one else [],
        caveats=paper.CAVEATS,
        sources=paper.SOURCES,
        several=[(run.number, run.run.name, label(run.record)) for run in runs],
    )


def write_html(
    path: Path,
    runs: Sequence[Measurements],
    whole: bool = False,
    pictures: Sequence[Picture] | None = None,
) -> Path:
    """Write the page of `html` to a file, and return its path."""
    page = html(runs, whole, pictures)
    try:
        replace_file(path, page)
    except OSError as error:
        raise Refused(
            f"{printable(str(path))}: can't be written ({error.strerror})",
            "name another file with --html",
        ) from None
    return path


def default_page(runs: Sequence[Measurements]) -> Path:
    """Return the page's default place: a run's own folder, or with several, this one."""
    if len(runs) == 1:
        return runs[0].run.path("report.html")
    names = {run.record.experiment for run in runs}
    which = names.pop() if len(names) == 1 else "runs"
    return Path(f"report-{which}-{len(runs)}.html")


def _title(runs: Sequence[Measurements]) -> str:
    names = sorted({run.record.experiment for run in runs})
    some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{some}: {len(runs)} runs"


def _yaml(data: object) -> list[str]:
    """Return the lines of values as YAML."""
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True) if data else ""
    return text.split("\n")[:-1]


def _shown(value: object) -> object:
    """Return a value as the page shows it; markup is what the template itself made."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


_PUBLISHED_MARKS = (
    "Hollow marks are the published quantiles (75 % and 90 % of the calls), of Kilo on Grid'5000."
)


def _pictures_of_one(run: Measurements) -> list[Picture]:
    pictures = []
    row = summary([run]).iloc[0].to_dict()
    if len(run.vms):
        half = (run.vms["active_at"] - run.vms["requested_at"].min()).median()
        took = "none of them got ACTIVE"
        if not tables.is_empty(half):
            took = f"half of those that got ACTIVE were so after {digits(float(half))} s"
        pictures.append(
            Picture(
                "VMs becoming ACTIVE",
                "VMs asked for and ACTIVE, by time since the first request.",
                f"{row['vms_active']} of {row['vms_asked']} VMs got ACTIVE; {took}.",
                lambda theme: plots.timeline([run], theme),
            )
        )
    if row["calls"]:
        pictures.append(
            Picture(
                "Response time of Nova's database API",
                f"Cumulative distribution of {row['calls']} calls, log scale. {_PUBLISHED_MARKS}",
                f"Half of the calls took at most {digits(row['call_median_ms'])} ms, 75 % "
                f"{digits(row['call_p75_ms'])} ms, 90 % {digits(row['call_p90_ms'])} ms.",
                lambda theme: plots.response_times([run], theme),
            )
        )
    if run.boots:
        pictures.append(waterfall_picture(run.boots[(len(run.boots) - 1) // 2]))
    if row["vms_active"] and len(run.vms):
        spread = summaries.vms_by_site(run.vms)
        pictures.append(
            Picture(
                "VMs by site",
                "Where the VMs landed; the dashed line is an even share.",
                ", ".join(f"{site}: {count}" for site, count in
                          zip(spread["site"], spread["active"], strict=True)) + ".",
                lambda theme: plots.vms_by_site(run, theme),
            )
        )  # fmt: skip
    if len(run.usage) and row["vms_active"]:
        usage = summaries.cpu_by_service(run.usage, run.done)
        pictures.append(
            Picture(
                "CPU by service",
                f"CPU milliseconds for each {run.unit}{' that got ACTIVE' * (run.unit == 'VM')}; "
                "in brackets, how many of a service ran.",
                f"{digits(row['cpu_ms_per_vm'])} ms per {run.unit} in all, the most by "
                f"{usage['service'].iloc[0]}: {digits(usage['cpu_ms_per_vm'].iloc[0])} ms.",
                lambda theme: plots.cpu_by_service(run, theme),
            )
        )
    if row["network_mb"]:
        pictures.append(
            Picture(
                "Bytes by service",
                "Sent between hosts while the load ran, by the service that was spoken to.",
                f"{digits(row['network_mb'])} MB in all, {digits(row['inter_mb'])} MB of it "
                "between sites.",
                lambda theme: plots.traffic_by_service(run, theme),
            )
        )
    if not tables.is_empty(row["machine_busy"]):
        pictures.append(_shares([run]))
    if len(run.series):
        pictures.append(
            Picture(
                "Series over the window",
                "VMs ACTIVE, and below them what was sampled meanwhile, in the experiment's time.",
                series_plots.caption(run),
                lambda theme: series_plots.over_window(run, theme),
            )
        )
    return pictures


def _pictures_of_several(runs: Sequence[Measurements]) -> list[Picture]:
    pictures = []
    creation = [table for number, table in
                ((3, paper_tables.table_3(runs)), (4, paper_tables.table_4(runs)),
                 (0, paper_tables.other_latencies(runs))) if len(table.frame)]  # fmt: skip
    if creation:
        alt = "; ".join(
            f"{row['clusters']} clusters, {row['backend']}: {digits(row['measured_s'])} s"
            for table in creation
            for row in table.frame.to_dict("records")
        )
        pictures.append(
            Picture(
                "Time to create the VMs",
                "By number of clusters and latency; hatched bars are published values, of Kilo on "
                "Grid'5000. Whiskers, where there are repeats: bootstrap interval of the mean.",
                f"Measured: {alt}.",
                lambda theme: plots.creation_times(runs, theme),
            )
        )
    if any(len(run.calls) for run in runs):
        pictures.append(
            Picture(
                "Response time of Nova's database API",
                "Cumulative distribution of the calls of each configuration, repeats pooled, log "
                f"scale. {_PUBLISHED_MARKS}",
                "The median, P75, P90 and P99 of each run are in the table of costs.",
                lambda theme: plots.response_times(runs, theme),
            )
        )
    if any(len(run.vms) for run in runs):
        pictures.append(
            Picture(
                "VMs becoming ACTIVE",
                "VMs ACTIVE by time since the first request, a line for each run.",
                "When the last VM of each run got ACTIVE is in the table of runs.",
                lambda theme: plots.timeline(runs, theme),
            )
        )
    if any(run.record.harness and run.window_s for run in runs):
        pictures.append(_shares(runs))
    return pictures


def waterfall_picture(boot: anatomy.Boot) -> Picture:
    """Return the figure of a boot's critical path."""
    sums: dict[str, float] = {}
    for part in boot.parts():
        sums[part.activity] = sums.get(part.activity, 0.0) + part.seconds
    most = sorted(sums.items(), key=lambda item: -item[1])[:3]
    return Picture(
        "A boot's critical path",
        f"{shortened(boot.vm, 60)}, from its request at {boot.root.site} to ACTIVE at "
        f"{boot.host_site}: each step in its own time, hatched where that passed between sites.",
        f"{digits(boot.seconds)} s, most of it "
        + ", ".join(f"{digits(s)} s {anatomy_tables.WORDS[activity]}" for activity, s in most)
        + f"; {boot.crossings} crossings between sites.",
        lambda theme: waterfall.figure(boot, theme),
    )


def _shares(runs: Sequence[Measurements]) -> Picture:
    words = []
    for run in runs:
        shares = summaries.cpu_shares(run.record)
        if shares["machine_busy"] is not None:
            busy, own = shares["machine_busy"], shares["openstack_share"] or 0
            which = f"#{run.number}: " if len(runs) > 1 else ""
            words.append(f"{which}{busy * 100:.0f} % busy, {own * 100:.0f} % of that by OpenStack")
    return Picture(
        "Whose CPU time it was",
        "Of all that the processors had while the load ran. Near 100 % the machine, and not the "
        "cloud, decides how long things take.",
        "; ".join(words) + ".",
        lambda theme: plots.cpu_shares(runs, theme),
    )
