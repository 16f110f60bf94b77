"""Where runs are found: in folders that somebody names, which may hold anything."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from discovery_xp.boundary.names import RunName
from discovery_xp.errors import Refused
from discovery_xp.store.files import require_plain
from discovery_xp.store.runs import Run
from discovery_xp.text import printable

_MOST_ENTRIES = 20_000  # of folders that are looked through for runs
_MOST_RUNS = 1000  # of a report
_REMEDY = "name a run's folder, or a folder of runs"


def open_run(path: Path) -> Run:
    """Return the run in a folder.

    Raises Refused when it isn't one, is damaged, or holds anything but files and folders.
    """
    if not _is_folder(path):
        raise Refused(f"{printable(str(path))}: no such folder", _REMEDY)
    run = Run(path)
    run.load()
    require_plain(path)
    return run


def runs_under(root: Path) -> list[Run]:
    """Return the run in `root`, or those in folders under it, the oldest first.

    Symbolic links below `root` aren't followed.  Raises Refused when a run is damaged,
    `root` is no folder, or there is too much in it; there may be no run.
    """
    if not _is_folder(root):
        raise Refused(f"{printable(str(root))}: no such folder", _REMEDY)
    runs: list[Run] = []
    for path in _run_folders(root, 3, _Budget(root)):
        if len(runs) == _MOST_RUNS:
            raise Refused(
                f"{printable(str(root))}: more than {_MOST_RUNS} runs", "name fewer of them"
            )
        runs.append(open_run(path))
    return sorted(runs, key=lambda run: (run.load().started, run.name))


def find_runs(paths: Iterable[Path]) -> list[Run]:
    """Return the runs in `paths`, each a run's folder or a folder of runs, the oldest first.

    A run that is in several of them counts once.  Raises Refused where there is none in one
    of them, or a run is damaged.
    """
    runs: dict[Path, Run] = {}
    for path in paths:
        below = runs_under(path)
        if not below:
            raise Refused(f"{printable(str(path))}: there is no run under it", _REMEDY)
        runs.update({run.folder.resolve(): run for run in below})
    if len(runs) > _MOST_RUNS:
        raise Refused(f"{len(runs)} runs, more than {_MOST_RUNS}", "name fewer of them")
    return sorted(runs.values(), key=lambda run: (run.load().started, run.name))


def is_run_name(name: str) -> bool:
    """Return whether a bench could have given this name to a run's folder."""
    return RunName.objection(name) is None


class _Budget:
    """How many entries of folders may still be looked at under `root`."""

    def __init__(self, root: Path) -> None:
        self.root, self.left = root, _MOST_ENTRIES

    def spend(self) -> None:
        """Count an entry; raises Refused when there were too many."""
        self.left -= 1
        if self.left < 0:
            raise Refused(
                f"{printable(str(self.root))}: more than {_MOST_ENTRIES} files and folders to look "
                "through for runs",
                _REMEDY,
            )


def _run_folders(root: Path, depth: int, budget: _Budget) -> Iterator[Path]:
    """Yield folders with a run.json; a run whose run.json is gone is found by its name."""
    if _is_there(root / "run.json") or RunName.objection(root.name) is None:
        yield root
        return
    if not depth:
        return
    folders = []
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                budget.spend()
                if entry.name.startswith("."):
                    continue
                if entry.is_symlink() and RunName.objection(entry.name) is None:
                    raise Refused(
                        f"{printable(entry.path)}: a symbolic link in the place of a run",
                        "name the folder that it points to, or move it away",
                    )
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
    except FileNotFoundError:
        return  # as processes' folders go
    except OSError as error:
        raise Refused(
            f"{printable(str(root))}: it can't be looked through ({error.strerror})", _REMEDY
        ) from None
    for folder in sorted(folders):
        yield from _run_folders(folder, depth - 1, budget)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _is_there(path: Path) -> bool:
    """Return whether there is such an entry, a link that leads nowhere included."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise Refused(
            f"{printable(str(path.parent))}: it can't be looked through ({reason})", _REMEDY
        ) from None
    return True
