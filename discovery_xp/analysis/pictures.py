"""The figures of a report, each with its title, its caption and what is to be seen."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from discovery_xp.analysis import (
    anatomy,
    anatomy_plots,
    anatomy_tables,
    paper_tables,
    plots,
    series_plots,
    summaries,
    tables,
    waterfall,
)
from discovery_xp.analysis.drawing import data_uris
from discovery_xp.analysis.measurements import (
    Measurements,
    loads,
    summary,
)
from discovery_xp.analysis.tables import digits
from discovery_xp.text import shortened


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
    return _pictures_of_one(loaded[0]) if len(loaded) == 1 else pictures_of_several(loaded)


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


def pictures_of_several(runs: Sequence[Measurements]) -> list[Picture]:
    """Return the figures of several runs beside each other; one run's are others."""
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
    if boots := anatomy_plots.by_configuration(runs):
        pictures.append(
            Picture(
                "Where the time of a boot went",
                "The mean boot's critical path by what it waited for; hatched is what passed "
                "between sites.",
                "; ".join(f"{name}: {_between_words(each)}" for name, each in boots) + ".",
                lambda theme: anatomy_plots.activities(runs, theme),
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


def _between_words(boots: Sequence[anatomy.Boot]) -> str:
    sums = anatomy_plots.mean_seconds(boots)
    between = sum(seconds for (_, is_between), seconds in sums.items() if is_between)
    return f"{digits(sum(sums.values()))} s, {digits(between)} s of it between sites"


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
