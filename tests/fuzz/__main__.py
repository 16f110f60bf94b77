"""The command of README.md: run cases for a time, print the table, keep the figures."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.fuzz import campaign
from tests.fuzz.bases import REPOSITORY
from tests.fuzz.campaign import Tally, Worker
from tests.fuzz.case import Case, read_case, write_case
from tests.fuzz.judge import KINDS, Finding


def main() -> None:
    """Parse the command line; exit code 1 where anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="for how long (5)")
    parser.add_argument("--cases", type=int, help="how many of each kind at most")
    parser.add_argument("--seed", type=int, default=1, help="another one makes other cases (1)")
    parser.add_argument("--kind", default=",".join(campaign.KINDS), help="yaml,cli,runs,answers")
    parser.add_argument("--jobs", type=int, default=1, help="workers for each kind (1)")
    parser.add_argument("--save", type=Path, help="write the figures there, as JSON")
    parser.add_argument(
        "--keep", type=Path, help="write a case for each finding into this folder, made small"
    )
    parser.add_argument(
        "--tries", type=int, default=40, help="how often to try to make it smaller (40)"
    )
    parser.add_argument(
        "--case", type=Path, nargs="+", help="run these cases, print what comes of them"
    )
    parser.add_argument("--show", help="print the case of a name, such as yaml-1-17")
    asked = parser.parse_args()
    if asked.show:
        kind, seed, index = asked.show.split("-")
        print_json(campaign.make_case(kind, int(seed), int(index)).to_json())
        return
    if asked.case:
        sys.exit(replay(asked.case))
    kinds = [kind for kind in campaign.KINDS if kind in asked.kind.split(",")]
    started = time.time()
    tallies = campaign.run_for(kinds, asked.seed, 60 * asked.minutes, asked.cases, asked.jobs, tell)
    figures = figures_of(tallies, asked.seed, asked.minutes, time.time() - started)
    print_table(tallies)
    if asked.keep:
        keep(asked.keep, tallies, asked.tries)
    if asked.save:
        asked.save.parent.mkdir(parents=True, exist_ok=True)
        asked.save.write_text(json.dumps(figures, indent=1) + "\n")
    sys.exit(1 if any(tally.found for tally in tallies.values()) else 0)


def tell(case: Case, finding: Finding) -> None:
    """A line for a finding that is new."""
    words = finding.words.strip().splitlines()
    text = f"{case.name}: {finding.kind}: {finding.signature}: {words[-1][:200] if words else ''}"
    Console(stderr=True, highlight=False).print(
        printable(text), markup=False, emoji=False, soft_wrap=True
    )


def printable(text: str) -> str:
    """A text that a terminal doesn't act on."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def print_json(data: object) -> None:
    """Plain values, in ASCII."""
    Console(highlight=False).print(
        json.dumps(data, indent=1), markup=False, emoji=False, soft_wrap=True
    )


def print_table(tallies: Mapping[str, Tally]) -> None:
    """Cases and findings by kind."""
    table = Table(show_edge=False)
    table.add_column("kind")
    for heading in ("cases", "commands", *KINDS.values(), "slowest, s of CPU"):
        table.add_column(heading, justify="right", overflow="fold")
    for kind, tally in tallies.items():
        counts = [str(tally.counts.get(each, 0)) for each in KINDS]
        table.add_row(
            kind, str(tally.cases), str(tally.commands), *counts, f"{tally.slowest_s:.1f}"
        )
    Console(width=170).print(table)


def figures_of(
    tallies: Mapping[str, Tally], seed: int, minutes: float, took_s: float
) -> dict[str, Any]:
    """What is kept of a campaign."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(REPOSITORY), *arguments], capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    changed = "+" if git("status", "--porcelain", "--untracked-files=no") else ""
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": git("rev-parse", "--short=12", "HEAD") + changed,
        "seed": seed, "minutes": minutes, "took_s": round(took_s),
        "python": platform.python_version(),
        "processors": os.cpu_count(), "is_root": os.geteuid() == 0,
        "kinds": {
            kind: {
                "cases": tally.cases, "commands": tally.commands, "cpu_s": round(tally.cpu_s),
                "slowest_cpu_s": tally.slowest_s, "exit_codes": dict(sorted(tally.codes.items())),
                "cases_with": {each: tally.counts.get(each, 0) for each in KINDS},
            }
            for kind, tally in tallies.items()
        },
        "findings": [
            {"kind": finding.kind, "signature": finding.signature, "cases": count,
            "first": case.name,
             "words": printable(finding.words[-300:])}
            for tally in tallies.values() for case, finding, count in tally.found.values()
        ],
    }  # fmt: skip


def keep(folder: Path, tallies: Mapping[str, Tally], tries: int) -> None:
    """A small case for each finding, as files named for them."""
    folder.mkdir(parents=True, exist_ok=True)
    with Worker() as worker:
        for tally in tallies.values():
            for case, finding, _count in tally.found.values():
                small = campaign.shrink(worker, case, finding, tries)
                name = re.sub(
                    r"[^a-z0-9]+", "-", f"{finding.kind} {finding.signature}".lower()
                ).strip("-")[:90]
                about = f"{finding.kind}: {finding.signature}"
                write_case(folder / f"{name}.json", Case(**{**vars(small), "about": about}))


def replay(paths: Sequence[Path]) -> int:
    """Run cases from files; returns 1 where one has a finding."""
    bad = 0
    with Worker() as worker:
        for path in paths:
            case = read_case(path)
            outcomes, found = campaign.examine(worker, case)
            bad = bad or bool(found)
            codes = ", ".join(str(outcome["code"]) for outcome in outcomes)
            console = Console(highlight=False, soft_wrap=True)
            console.print(
                f"{path.name}: exit code {codes}, {len(found)} findings", markup=False, emoji=False
            )
            for finding in found:
                console.print(f"  {finding.kind}: {finding.signature}", markup=False, emoji=False)
                for line in finding.words.splitlines():
                    console.print(f"    {printable(line)}", markup=False, emoji=False)
            for outcome in outcomes if not found else ():
                console.print(
                    f"    {printable(outcome['stderr'][:500])}", markup=False, emoji=False
                )
    return int(bad)


if __name__ == "__main__":
    main()
