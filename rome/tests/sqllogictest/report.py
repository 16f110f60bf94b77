"""The outcome of a run in figures: as JSON, and as a table made from it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.sqllogictest.runner import Outcome

RESULTS = Path(__file__).parent / "results"


def figures(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """Return a run's figures: for each file and in all; seconds are of the whole run."""
    outcomes = list(outcomes)
    rows = {
        outcome.name: {
            "statements": outcome.statements,
            "queries": outcome.queries,
            "passed": outcome.passed,
            "refused": dict(sorted(outcome.refused.items())),
            "wrong": len(outcome.wrong),
        }
        for outcome in outcomes
        if outcome.run
    }
    return {"files": rows, "seconds": round(sum(outcome.seconds for outcome in outcomes))}


def total(run: Mapping[str, Any]) -> dict[str, int]:
    """Return the sums over all files of a run's figures."""
    rows = list(run["files"].values())
    return {
        "files": len(rows),
        "statements": sum(row["statements"] for row in rows),
        "queries": sum(row["queries"] for row in rows),
        "passed": sum(row["passed"] for row in rows),
        "refused": sum(sum(row["refused"].values()) for row in rows),
        "wrong": sum(row["wrong"] for row in rows),
    }


def table(run: Mapping[str, Any]) -> str:
    """Return a run's figures as a table in Markdown."""
    lines = [
        "| file | statements | queries | passed | refused | wrong |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in run["files"].items():
        reasons = ", ".join(f"{count} {reason}" for reason, count in row["refused"].items())
        lines.append(_line(name, row["statements"], row["queries"], row["passed"],
                           reasons or 0, row["wrong"]))  # fmt: skip
    sums = total(run)
    lines.append(_line(f"**{sums['files']} files**", sums["statements"], sums["queries"],
                       sums["passed"], sums["refused"], sums["wrong"]))  # fmt: skip
    return "\n".join(lines) + "\n"


def save(name: str, words: str, run: Mapping[str, Any], folder: Path = RESULTS) -> None:
    """Write a run's figures and their table, which starts with these words."""
    folder.mkdir(exist_ok=True)
    text = json.dumps({"words": words, **run}, indent=1, ensure_ascii=False)
    (folder / f"{name}.json").write_text(text + "\n")
    (folder / f"{name}.md").write_text(page(words, run))


def page(words: str, run: Mapping[str, Any]) -> str:
    """Return the page of a run."""
    return f"{words}\n\n{table(run)}\nIn {run['seconds']} s.\n"


def _line(*cells: Any) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"
