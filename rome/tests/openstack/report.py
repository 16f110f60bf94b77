"""What results say: baselines on SQLite, and another database's results beside them."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.openstack.environment import Failed, versions
from tests.openstack.runner import Result
from tests.openstack.suites import Suite

HERE = Path(__file__).parent
FORMAT = 1


@dataclass(frozen=True)
class Baseline:
    """What a suite came to on SQLite: which tests there are, and which do not pass."""

    tests: int
    not_passed: dict[str, str]  # test: why
    passed_digest: str

    @classmethod
    def of(cls, results: Sequence[Result]) -> Baseline:
        """The baseline that results on SQLite make."""
        passed = [result.test for result in results if result.outcome == "passed"]
        not_passed = {
            result.test: f"{result.outcome}: {summary(result)}"
            for result in results
            if result.outcome != "passed"
        }
        return cls(len(results), not_passed, _digest(passed))

    @classmethod
    def load(cls, suite: Suite) -> Baseline:
        """The committed baseline."""
        path = _baseline_path(suite)
        if not path.exists():
            raise Failed(f"{path} isn't there: make it with --baseline")
        data = json.loads(path.read_text())
        return cls(data["tests"], data["not_passed"], data["passed_digest"])

    def save(self, suite: Suite, seconds: float, with_statements: int) -> Path:
        """Write the suite's baseline."""
        path = _baseline_path(suite)
        _write(path, {
            "format": FORMAT,
            "suite": suite.name,
            "modules": list(suite.modules),
            "database": "sqlite://",
            "versions": service_versions(),
            "tests": self.tests,
            "passed": self.tests - len(self.not_passed),
            "passed_that_sent_statements": with_statements,
            "passed_digest": self.passed_digest,
            "seconds": round(seconds),
            "not_passed": self.not_passed,
        })  # fmt: skip
        return path

    def passing(self, tests: Iterable[str]) -> list[str]:
        """Those of all the suite's tests which pass on SQLite; raises Failed if others are."""
        passing = [test for test in tests if test not in self.not_passed]
        if _digest(passing) != self.passed_digest:
            raise Failed("the tests are not those of the baseline: make it anew with --baseline")
        return passing

    def sample(self, tests: Iterable[str], size: int) -> list[str]:
        """A fixed choice of those that pass on SQLite, spread by the digest of their ids."""
        return sorted(self.passing(tests), key=lambda test: _digest([test]))[:size]


@dataclass(frozen=True)
class Comparison:
    """Results of tests that pass on SQLite, on another database."""

    suite: Suite
    whole: bool
    results: Sequence[Result]
    seconds: float
    commit: str = ""

    @property
    def passed(self) -> int:
        """How many pass on the other database, too."""
        return sum(result.outcome == "passed" for result in self.results)

    @property
    def per_cent(self) -> float:
        """The share of those that pass on SQLite."""
        return 100 * self.passed / len(self.results) if self.results else 0.0

    @property
    def failures(self) -> dict[str, list[Result]]:
        """Tests that do not pass, by what their errors have in common; most first."""
        groups: dict[str, list[Result]] = defaultdict(list)
        for result in self.results:
            if result.outcome != "passed":
                groups[_kind(summary(result))].append(result)
        return dict(sorted(groups.items(), key=lambda item: -len(item[1])))

    def as_data(self) -> dict[str, Any]:
        """What is saved."""
        statements: Counter[str] = Counter()
        for result in self.results:
            statements.update(result.statements)
        return {
            "format": FORMAT,
            "suite": self.suite.name,
            "whole": self.whole,
            "commit": self.commit,
            "versions": service_versions(),
            "pass_on_sqlite": len(self.results),
            "pass_on_rome": self.passed,
            "per_cent": round(self.per_cent, 2),
            "threshold": self.suite.threshold,
            "with_statements_on_rome": sum("rome" in r.statements for r in self.results),
            "statements": dict(statements),
            "seconds": round(self.seconds),
            "failures": [
                {"error": summary(group[0]), "tests": {r.test: summary(r) for r in group}}
                for group in self.failures.values()
            ],
        }

    def save(self) -> Path:
        """Write the committed figures."""
        path = HERE / f"results/{self.suite.name}.json"
        _write(path, self.as_data())
        return path

    def lines(self) -> Iterable[str]:
        """What is printed."""
        data = self.as_data()
        yield (
            f"{self.suite.title}: {self.passed} of {len(self.results)} that pass on SQLite"
            f" ({self.per_cent:.2f} %); {data['with_statements_on_rome']} of them sent"
            f" {data['statements'].get('rome', 0)} statements to ROME; {self.seconds:.0f} s"
        )
        for group in self.failures.values():
            yield f"  {len(group)} x {summary(group[0])}"
            for result in group:
                yield f"      {result.test}"


def summary(result: Result) -> str:
    """One line that tells the error: the exception's own, without the frames."""
    lines = result.text.strip().splitlines()
    last_frame = max(
        (number for number, line in enumerate(lines) if line.startswith('  File "')), default=-1
    )
    if last_frame < 0:
        said = lines[:3]
    else:
        rest = lines[last_frame + 1 :]
        start = next((n for n, line in enumerate(rest) if line and not line[0].isspace()), 0)
        said = rest[start : start + 4]
    if result.outcome in ("timeout", "died"):
        said = [result.outcome, *lines[-2:]]
    # What differs from run to run would make each result a change.
    text = re.sub(r"0x[0-9a-f]{6,}", "0x...", " ".join(line.strip() for line in said))
    text = re.sub(r"\(Background on this error.*", "", text)
    return text if len(text) <= 300 else text[:297] + "..."


def service_versions() -> dict[str, str]:
    """The versions that matter to whoever reads the figures."""
    names = (
        "glance", "keystone", "neutron", "nova", "openstack-placement", "oslo-db", "sqlalchemy",
    )  # fmt: skip
    locked = versions()
    return {name: locked[name] for name in names}


def _kind(text: str) -> str:
    if "MismatchError" in text:  # the values that differ tell nothing in common
        text = text.split("MismatchError")[0] + "MismatchError"
    text = re.sub(r"'[^']*'|\"[^\"]*\"", "'...'", text)
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{32}|\d+", "#", text)
    return text[:120]


def _digest(tests: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(tests)).encode()).hexdigest()


def _baseline_path(suite: Suite) -> Path:
    return HERE / f"baseline/{suite.name}.json"


def _write(path: Path, data: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(data, indent=1, sort_keys=False) + "\n")
