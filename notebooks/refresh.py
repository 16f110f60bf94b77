"""Execute the notebooks on results, and keep their outputs:

    .venv/bin/python notebooks/refresh.py [--results FOLDER] [--output FOLDER] [NOTEBOOK ...]

Without arguments: all notebooks beside this file, on the results that their parameter cell
names, in place.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

HERE = Path(__file__).resolve().parent


def refresh(notebook: Path, output: Path, results: Path | None) -> None:
    """Execute `notebook` and write it to `output`; raises CellExecutionError.

    With `results` its parameter is set to them, in a cell that isn't kept.
    """
    nb = nbformat.read(notebook, as_version=4)
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
    # As it would be in any other Python: nothing of this machine's stays.
    nb.metadata["language_info"] = {"name": "python"}
    for number, cell in enumerate((cell for cell in nb.cells if cell.cell_type == "code"), start=1):
        cell["execution_count"] = number
        for result in cell["outputs"]:
            if "execution_count" in result:
                result["execution_count"] = number
    nbformat.write(nb, output)


def main() -> None:
    """Refresh the notebooks that are named; exit code 1 when one of them fails."""
    parser = argparse.ArgumentParser(description="Execute the notebooks and keep their outputs.")
    parser.add_argument("notebooks", nargs="*", type=Path, metavar="NOTEBOOK")
    parser.add_argument("--results", type=Path, help="a run's folder, or a folder of runs")
    parser.add_argument("--output", type=Path, help="write there instead of in place")
    options = parser.parse_args()
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
    for notebook in options.notebooks or sorted(HERE.glob("*.ipynb")):
        output = notebook if options.output is None else options.output / notebook.name
        try:
            refresh(notebook, output, options.results)
        except CellExecutionError as error:
            print(f"{notebook}: {error.ename}: {error.evalue}", file=sys.stderr)
            sys.exit(1)
        print(output)


if __name__ == "__main__":
    main()
