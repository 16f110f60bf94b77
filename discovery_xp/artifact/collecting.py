"""Which files of runs go into an artifact, and under which names there.

Those that a run's format knows, and no others: what an editor, a person or a file system
left in a run's folder stays there.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from discovery_xp.boundary.names import ExperimentName, RunName
from discovery_xp.errors import Refused
from discovery_xp.store import FILES, FOLDERS, TABLES, Run
from discovery_xp.store.records import TIME
from discovery_xp.text import printable

RECORDS = "records"
_PART = re.compile(r"[0-9]{6,9}\.parquet")
_HIDDEN = re.compile(r"(^|/)\.")


@dataclass(frozen=True)
class Collected:
    """A run and its files: each by its name in the artifact, where it is now."""

    run: Run
    place: str
    files: dict[str, Path]
    left_out: tuple[Path, ...]

    @property
    def bytes(self) -> int:
        """Return how much disk its files take."""
        return sum(path.stat().st_size for path in self.files.values())


def collect(runs: Sequence[Run], without: Collection[str] = ()) -> list[Collected]:
    """Return the files of runs; `without` names folders of theirs that are left out.

    Raises Refused where two runs would be at one place.
    """
    collected: dict[str, Collected] = {}
    for run in runs:
        place = place_of(run)
        if place in collected:
            raise Refused(
                f"{printable(str(run.folder))} and {printable(str(collected[place].run.folder))} "
                "are runs of one name",
                "move one of them away",
            )
        files = {f"{place}/{name}": path for name, path in _files(run, without)}
        every = {path for path in run.folder.rglob("*") if path.is_file()}
        left_out = sorted(every - set(files.values()))
        collected[place] = Collected(run, place, files, tuple(left_out))
    return list(collected.values())


def place_of(run: Run) -> str:
    """Return where a run is in an artifact: records/EXPERIMENT/UTC-PLAN."""
    record, folder = run.load(), run.folder.resolve()
    started = datetime.datetime.strptime(record.started, TIME)
    parent, name = folder.parent.name, folder.name
    if ExperimentName.objection(parent) is not None:
        parent = record.experiment
    if RunName.objection(name) is not None:
        name = RunName.of(started, record.plan)
    return f"{RECORDS}/{parent}/{name}"


def _files(run: Run, without: Collection[str]) -> Iterator[tuple[str, Path]]:
    for name in ("run.json", *FILES, *(f"{table}.parquet" for table in TABLES)):
        if (path := run.folder / name).is_file():
            yield name, path
    for table in TABLES:  # of a run that was killed
        for path in sorted((run.folder / f"{table}.parts").glob("*.parquet")):
            if _PART.fullmatch(path.name):
                yield f"{table}.parts/{path.name}", path
    for folder in FOLDERS:
        if folder in without:
            continue
        for path in sorted((run.folder / folder).rglob("*")):
            name = path.relative_to(run.folder).as_posix()
            if path.is_file() and not _HIDDEN.search(name):
                yield name, path
