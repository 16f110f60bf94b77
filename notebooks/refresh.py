"""Execute the notebooks on results, and keep them with their outputs:

    .venv/bin/python notebooks/refresh.py [--results FOLDER] [--output FOLDER] [NOTEBOOK ...]

A notebook's source is the `.py` beside it, in jupytext's percent format; the `.ipynb` is paired
with it and has the outputs. Without arguments: all of them, on the results that their parameter
cells name, in place. `--prose` takes over what isn't code, and executes nothing; `--check` names
those whose two files differ.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

HERE = Path(__file__).resolve().parent


def sources(folder: Path = HERE) -> list[Path]:
    """Return the notebooks' sources in a folder, in the order of the tour."""
    return sorted(folder.glob("[0-9]*.py"))


def cells_of(path: Path) -> list[tuple[str, str, tuple[str, ...]]]:
    """Return kind, text and tags of each cell of a notebook, of either file."""
    nb = jupytext.read(path) if path.suffix == ".py" else nbformat.read(path, as_version=4)
    return [
        (cell.cell_type, cell.source, tuple(cell.metadata.get("tags", ()))) for cell in nb.cells
    ]


def differing(folder: Path = HERE) -> list[str]:
    """Return the notebooks whose two files differ, or one of whose files is missing."""
    names = {path.stem for path in [*sources(folder), *folder.glob("*.ipynb")]}
    wrong = []
    for name in sorted(names):
        pair = [folder / f"{name}{suffix}" for suffix in (".py", ".ipynb")]
        if not all(path.exists() for path in pair) or cells_of(pair[0]) != cells_of(pair[1]):
            wrong.append(name)
    return wrong


def refresh(source: Path, output: Path, results: Path | None) -> None:
    """Execute the notebook of a source and write it to `output`; raises CellExecutionError.

    With `results` its parameter is set to them, in a cell that isn't kept.
    """
    nb = jupytext.read(source)
    if results is not None:
        place = next(
            index
            for index, cell in enumerate(nb.cells)
            if "parameters" in cell.metadata.get("tags", ())
        )
        chosen = nbformat.v4.new_code_cell(f"results = {str(results.resolve())!r}")
        nb.cells.insert(place + 1, chosen)
    client = NotebookClient(
        nb, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(HERE)}},
        record_timing=False,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],  # it listens on this machine only
    )  # fmt: skip
    client.execute()
    if results is not None:
        del nb.cells[place + 1]
    # As it would be in any other Python: nothing of this machine's stays, and nothing random.
    nb.metadata["language_info"] = {"name": "python"}
    nb.metadata["jupytext"] = {"formats": "ipynb,py:percent"}
    for number, cell in enumerate(nb.cells):
        cell["id"] = f"cell-{number:02}"
    for number, cell in enumerate((cell for cell in nb.cells if cell.cell_type == "code"), start=1):
        cell["execution_count"] = number
        for result in cell["outputs"]:
            if "execution_count" in result:
                result["execution_count"] = number
    nbformat.write(nb, output)


def take_prose(source: Path) -> None:
    """Put the text cells of a source into its notebook, whose outputs stay.

    Raises ValueError where their code differs, so that outputs would be of another one.
    """
    nb, paired = jupytext.read(source), nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    code = [[cell for cell in each.cells if cell.cell_type == "code"] for each in (nb, paired)]
    if [cell.source for cell in code[0]] != [cell.source for cell in code[1]]:
        raise ValueError(f"{source}: its code differs from the notebook's; execute it")
    with_outputs = iter(code[1])
    paired.cells = [next(with_outputs) if cell.cell_type == "code" else cell for cell in nb.cells]
    for number, cell in enumerate(paired.cells):
        cell["id"] = f"cell-{number:02}"
    nbformat.write(paired, source.with_suffix(".ipynb"))


def main() -> None:
    """Refresh the notebooks that are named; exit code 1 when one of them fails, or differs."""
    parser = argparse.ArgumentParser(description="Execute the notebooks and keep their outputs.")
    parser.add_argument("notebooks", nargs="*", type=Path, metavar="NOTEBOOK", help="its .py")
    parser.add_argument("--results", type=Path, help="a run's folder, or a folder of runs")
    parser.add_argument("--output", type=Path, help="write there instead of in place")
    parser.add_argument("--prose", action="store_true", help="take over text, execute nothing")
    parser.add_argument("--check", action="store_true", help="name those whose files differ")
    options = parser.parse_args()
    if options.check:
        wrong = differing()
        for name in wrong:
            print(f"{name}: its .py and its .ipynb differ; run notebooks/refresh.py on it")
        sys.exit(bool(wrong))
    if options.prose:
        for source in options.notebooks or sources():
            take_prose(source)
        return
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
    for source in options.notebooks or sources():
        output = (options.output or source.parent) / f"{source.stem}.ipynb"
        try:
            refresh(source, output, options.results)
        except CellExecutionError as error:
            print(f"{source}: {error.ename}: {error.evalue}", file=sys.stderr)
            sys.exit(1)
        print(output)


if __name__ == "__main__":
    main()
