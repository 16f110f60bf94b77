"""How a failed history is shown, and what was run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.interleaving.kinds import KINDS, Kind
from tests.interleaving.runner import Failure

if TYPE_CHECKING:
    from tests.interleaving.campaign import Figures


def shown(failure: Failure) -> str:
    """Write schema, rows, steps with their answers, and what the page allows."""
    kind = KINDS[failure.kind]
    lines = [f"{failure.violation.name} ({failure.kind}; {failure.variant}; {failure.store})"]
    lines += ["  " + " ".join(sql.split()) for sql in kind.create]
    for name in kind.rows:
        lines.append(
            f"  {name}: " + ", ".join(str(tuple(row.values())) for row in _plain(kind, name))
        )
    if failure.warming:
        lines.append("  after three runs of: " + "; ".join(s.name for s in failure.warming))
    if failure.before:
        lines.append("  after this, on the same connections, was done and then undone by others:")
        lines += [f"  T{session + 1}: {statement}" for session, statement in failure.before]
        lines.append("  now:")
    lines += [
        f"  T{session + 1}: {statement}  ->  {_answer(answer)}"
        for (session, statement), answer in zip(failure.steps, failure.answers, strict=False)
    ]
    expected = failure.violation.expected
    if expected:
        lines.append("  expected: " + "  or  ".join(map(_answer, expected)))
    if failure.violation.detail:
        lines.append(f"  {failure.violation.detail}")
    return "\n".join(lines)


def _plain(kind: Kind, table: str) -> list[dict[str, Any]]:
    names = [column.name for column in kind.metadata.tables[table].columns]
    return [{name: row.get(name) for name in names} for row in kind.rows[table]]


def _answer(answer: Any) -> str:
    if answer is None:
        return "(not run: its transaction had failed)"
    name, *rest = answer
    if name == "rows" and len(rest) == 1 and isinstance(rest[0], dict):
        return "; ".join(f"{table}: {rows}" for table, rows in rest[0].items())
    if name in ("rows", "count"):
        return f"{len(rest)} rows: {', '.join(map(str, rest))}" if name == "rows" else str(rest[0])
    return " ".join(map(str, answer))


def cause(failure: Failure) -> tuple[str, ...]:
    """Tell failures of one cause from others, roughly: the violation and the steps' names."""
    return (failure.violation.name, *(f"T{s + 1} {one.name}" for s, one in failure.steps))


def table(figures: Figures) -> str:
    """Write a Markdown table of the histories by kind of key and isolation level."""
    levels = sorted({level for _, level in figures.histories})
    lines = [
        "| kind of key | " + " | ".join(f"{level}: histories | wrong" for level in levels) + " |",
        "|---|" + "---|---|" * len(levels),
    ]
    for kind in KINDS:
        if not any(figures.histories[kind, level] for level in levels):
            continue
        cells = []
        for level in levels:
            wrong = sum(
                count
                for (_, k, one), count in figures.violations.items()
                if (k, one) == (kind, level)
            )
            cells += [f"{figures.histories[kind, level]:,}", str(wrong)]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    total = figures.histories.total()
    lines.append("")
    lines.append(
        f"{total:,} histories, {figures.statements:,} steps in {figures.seconds:.0f} s,"
        f" {figures.violations.total()} wrong."
    )
    complete = [name for name, whole in figures.complete.items() if whole]
    partly = [name for name, whole in figures.complete.items() if not whole]
    lines.append(
        f"All of: {'; '.join(complete) or 'none'}.  Drawn from: {'; '.join(partly) or 'none'}."
    )
    return "\n".join(lines)


def saved(figures: Figures, folder: Path, store: str, sessions: int) -> list[Path]:
    """Write figures and failures as JSON and Markdown; the files."""
    folder.mkdir(exist_ok=True)
    name = f"{store}-{sessions}-sessions"
    failures = sorted(figures.failures.values(), key=lambda one: (len(one.steps), cause(one)))
    data = {
        "store": store,
        "sessions": sessions,
        "histories": [
            {"kind": kind, "level": level, "count": count}
            for (kind, level), count in sorted(figures.histories.items())
        ],
        "violations": [
            {"violation": what, "kind": kind, "level": level, "count": count}
            for (what, kind, level), count in sorted(figures.violations.items())
        ],
        "complete": figures.complete,
        "steps": figures.statements,
        "seconds": round(figures.seconds, 1),
        "failures": [shown(failure) for failure in failures],
    }
    numbers, page = folder / f"{name}.json", folder / f"{name}.md"
    numbers.write_text(json.dumps(data, indent=1) + "\n")
    parts = [f"# Interleavings: {store}, {sessions} sessions", table(figures)]
    parts += [f"```\n{shown(failure)}\n```" for failure in failures]
    page.write_text("\n\n".join(parts) + "\n")
    return [numbers, page]
