"""A copy of the suite: its files, and how they are run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from sqlalchemy import create_engine

from tests.sqllogictest.runner import Outcome, run_file

# Where tests find a copy of the suite.
VARIABLE = "SQLLOGICTEST"


def files(path: Path) -> list[Path]:
    """Return the suite's files in a folder and those below it, or just this file."""
    return [path] if path.is_file() else sorted(path.rglob("*.test"))


def run(
    path: Path,
    url: Callable[[str], str],
    every: Callable[[Path], int] = lambda file: 1,
    whole: bool = False,
) -> Iterator[Outcome]:
    """Run all files, each in a database of its own; see run_file for `whole`.

    url: of a database of this name.  every: how many of a file's queries there are for each
    one that is run.
    """
    numbers = itertools.count()
    root = path.parent if path.is_file() else path
    for file in files(path):
        engine = create_engine(url(f"sqllogictest{next(numbers)}"))
        try:
            yield run_file(file, str(file.relative_to(root)), engine, every(file), whole)
        finally:
            engine.dispose()
