"""Runs as files: tables as CSV and LaTeX, figures as PDF and PNG.

Names of files come from the names of tables and figures, and from a run's only where it is
one that a bench gives.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from discovery_xp.analysis import run_tables
from discovery_xp.analysis.drawing import image
from discovery_xp.analysis.measurements import Measurements, summary
from discovery_xp.analysis.pictures import Picture
from discovery_xp.analysis.report import tables_of
from discovery_xp.analysis.tables import Table
from discovery_xp.errors import Refused
from discovery_xp.store import is_run_name, replace_file
from discovery_xp.text import printable


def write_csv(folder: Path, runs: Sequence[Measurements], whole: bool = False) -> list[Path]:
    """Write every table as CSV, whole and with units in the columns' names.

    `runs.csv` has all there is to say of a run in one row; RUN.TABLE.csv is of a single run.
    """
    named = {"runs": summary(runs)}
    for table in tables_of(runs, whole):
        named.setdefault(table.name, table.frame)
    for run, name in zip(runs, file_names(runs), strict=True):
        for table in run_tables.run_tables(run):
            named[f"{name}.{table.name}"] = table.frame
    return _write(folder, ".csv", {name: _csv(each) for name, each in named.items()})


def write_tables_csv(folder: Path, tables: Sequence[Table]) -> list[Path]:
    """Write tables as CSV, each by its name."""
    return _write(folder, ".csv", {table.name: _csv(table.frame) for table in tables})


def write_tables_latex(folder: Path, tables: Sequence[Table]) -> list[Path]:
    """Write tables as LaTeX floats, each by its name."""
    return _write(folder, ".tex", {table.name: latex(table) for table in tables})


def file_names(runs: Sequence[Measurements]) -> list[str]:
    """Return what files of each run are called: its folder's name, if a bench could give it.

    A folder of another name, or of the same as another's, is called by the run's number.
    """
    folders = [run.run.folder.resolve().name for run in runs]
    return [
        name if is_run_name(name) and folders.count(name) == 1 else f"run-{run.number}"
        for name, run in zip(folders, runs, strict=True)
    ]


def _csv(frame: pd.DataFrame) -> str:
    """Return a frame as CSV whose text no spreadsheet takes for a formula, in lines."""
    shown = frame.copy()
    for column in shown:
        if not pd.api.types.is_numeric_dtype(shown[column]):
            shown[column] = shown[column].map(_csv_text)
    return shown.to_csv(index=False)


def _csv_text(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text


def write_latex(folder: Path, runs: Sequence[Measurements], whole: bool = False) -> list[Path]:
    """Write the tables of `tables_of` as LaTeX floats, for \\input; they need booktabs."""
    return _write(folder, ".tex", {table.name: latex(table) for table in tables_of(runs, whole)})


def write_pictures(folder: Path, pictures: Sequence[Picture]) -> list[Path]:
    """Write figures, each as PDF for a paper and as PNG."""
    paths: list[Path] = []
    with _made(folder):
        for picture in pictures:
            for kind in ("pdf", "png"):
                paths.append(folder / f"{picture.name}.{kind}")
                replace_file(paths[-1], image(picture.figure, kind))
    return paths


def _write(folder: Path, suffix: str, texts: dict[str, str]) -> list[Path]:
    paths = [folder / f"{name}{suffix}" for name in texts]
    with _made(folder):
        for path, text in zip(paths, texts.values(), strict=True):
            replace_file(path, text)
    return paths


@contextlib.contextmanager
def new_folders(*folders: Path | None) -> Iterator[None]:
    """Make folders before anything is written; remove the empty ones if what follows fails.

    Raises Refused for one that can't be made.
    """
    made: list[Path] = []
    try:
        for folder in folders:
            if folder is not None:
                _make(folder, made)
        yield
    except BaseException:
        for path in reversed(made):
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


def _make(folder: Path, made: list[Path]) -> None:
    """Make a folder and those above it; add those that weren't there to `made`."""
    for path in (*reversed(folder.parents), folder):
        try:
            if not path.is_dir():
                path.mkdir()
                made.append(path)
        except OSError as error:
            raise _refused(folder, error) from None


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a folder for what is written meanwhile; raises Refused where that can't be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise _refused(folder, error) from None


def _refused(folder: Path, error: OSError) -> Refused:
    return Refused(
        f"{printable(str(folder))}: can't be written to ({error.strerror})", "name another folder"
    )


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def _tex(text: str) -> str:
    return re.sub(r"[\\&%$#_{}~^<>]", lambda match: _LATEX[match[0]], printable(text))


def latex(table: Table) -> str:
    """Return a table as a LaTeX float; its \\label is tab:NAME."""
    title = re.sub(r"^Table \d\. ", "", table.title)
    lines = [
        "% \\usepackage{booktabs}",
        "\\begin{table}",
        "  \\centering\\footnotesize",
        f"  \\caption{{{_tex(title)}}}",
        f"  \\label{{tab:{table.name}}}",
        f"  \\begin{{tabular}}{{{''.join('r' if right else 'l' for right in table.numeric())}}}",
        "    \\toprule",
        "    " + " & ".join(_tex(heading) for heading in table.headings()) + " \\\\",
        "    \\midrule",
        *(
            "    " + " & ".join("--" if cell == "-" else _tex(cell) for cell in row) + " \\\\"
            for row in table.cells()
        ),
        "    \\bottomrule",
        "  \\end{tabular}",
        *(f"  \\par\\smallskip {_tex(note)}" for note in table.notes),
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"
