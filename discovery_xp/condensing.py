"""Runs to smaller ones that say the same: what documents show and claims are about.

Left out are what only somebody reads who looks for why a run went as it did: logs, Rally's own
reports, requests, series, the page; and of the spans all but those of a few boots, the others'
sums in their place (`analysis.condensed`).  All figures of a run and its tables of boots come out
the same.  What it was made of is for an archive.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from discovery_xp.analysis import condensed
from discovery_xp.analysis.measurements import Measurements
from discovery_xp.errors import Refused
from discovery_xp.store import ALWAYS, PROBES, Run
from discovery_xp.text import printable

# Tables that are left out whole, and files that are kept.
LEFT_OUT = ("requests", "series")
FILES = ("plan.json", "topology.yaml", "scenario.yaml", "deployment.json", "links.json")
NOTE = (
    "condensed: logs, Rally's reports, the tables requests and series, and the spans of all but {} "
    "boots are left out"
)


def condense(runs: Sequence[Measurements], folder: Path) -> Iterator[Run]:
    """Write runs, condensed, to a folder, by testbed as they were; yields each when it is there.

    Raises Refused, before any is written, for one that is condensed, isn't complete or is of no
    load, and where a run of its name is in the folder.
    """
    places = {run.number: folder / run.run.name for run in runs}
    for run in runs:
        name = printable(run.run.name)
        if run.record.is_partial:
            raise Refused(f"run {name} is partial: {run.record.why_partial}", "leave it out")
        if run.is_condensed:
            raise Refused(f"run {name} is condensed", "copy it, or leave it out")
        if places[run.number].exists():
            raise Refused(f"{printable(str(places[run.number]))} is there", "name a new folder")
    for run in runs:
        yield _condensed(run, places[run.number])


def _condensed(run: Measurements, place: Path) -> Run:
    """Write one run, its record last."""
    place.mkdir(parents=True)
    made = Run(place)
    for name in FILES:
        if (run.run.folder / name).is_file():
            shutil.copyfile(run.run.folder / name, place / name)
    summed = condensed.rows_of(run.boots)
    for name in (*ALWAYS, *PROBES):
        if run.measured(name) and name != "spans" and name not in LEFT_OUT:
            made.write_table(name, run.run.table(name).to_pylist())
    for name, rows in summed.items():
        made.write_table(name, rows)
    left_out = tuple(name for name in LEFT_OUT if name in run.record.probes)
    note = NOTE.format(len(condensed.drawn(run.boots)) if summed else 0)
    made.save(dataclasses.replace(run.record, notes=(*run.record.notes, note), left_out=left_out))
    return made
