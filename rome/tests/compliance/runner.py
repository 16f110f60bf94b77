"""Runs the suite in a process of its own, and counts."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
ROME = FOLDER.parent.parent


@dataclass(frozen=True)
class Outcome:
    """Counts of tests, and what the run wrote."""

    passed: int
    skipped: int
    failed: int
    output: str


def run(url: str, *arguments: str) -> Outcome:
    """The whole suite (or what pytest's arguments choose) on a database."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            *(sys.executable, "-m", "pytest", "--dburi", url, "--maxfail", "1000"),
            *("--tb", "short", "-q", "--junit-xml", str(report), *arguments),
        ]
        path = os.pathsep.join(filter(None, (str(ROME), os.environ.get("PYTHONPATH"))))
        done = subprocess.run(
            command,
            cwd=FOLDER,
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if not report.exists():
            return Outcome(0, 0, 1, done.stdout)
        return _counted(report, done.stdout)


def _counted(report: Path, output: str) -> Outcome:
    passed = skipped = failed = 0
    for case in ElementTree.parse(report).iter("testcase"):
        children = {child.tag for child in case}
        if children & {"failure", "error"}:
            failed += 1
        elif "skipped" in children:
            skipped += 1
        else:
            passed += 1
    return Outcome(passed, skipped, failed, output)
