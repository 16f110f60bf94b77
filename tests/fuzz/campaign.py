"""Run cases until the time is up; keep what was found, made as small as it goes."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.fuzz import yaml_cases
from tests.fuzz.bases import REPOSITORY
from tests.fuzz.case import Case
from tests.fuzz.judge import Finding, judge


def _makers() -> Mapping[str, Callable[[random.Random, str], Case]]:
    from tests.fuzz import answers_cases, cli_cases, run_cases

    return {
        "yaml": yaml_cases.make,
        "cli": cli_cases.make,
        "runs": run_cases.make,
        "answers": answers_cases.make,
    }


KINDS = ("yaml", "cli", "runs", "answers")


def make_case(kind: str, seed: int, index: int) -> Case:
    """The case of a number: the same whenever it is made from the same sources."""
    name = f"{kind}-{seed}-{index}"
    maker = yaml_cases.make if kind == "yaml" else _makers()[kind]
    return maker(random.Random(name), name)


class Worker:
    """A process that runs cases; made anew where it was lost."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def run(self, case: Case, **limits: float) -> list[Mapping[str, Any]]:
        """The outcomes of a case's steps; `limits` are those of `worker.Limits`."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.fuzz.worker"], cwd=REPOSITORY, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        told = {"case": case.to_json(), "limits": limits}
        self.process.stdin.write(json.dumps(told) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            self.close()
            raise RuntimeError(f"the worker ended at {case.name}")
        found: list[Mapping[str, Any]] = json.loads(line)
        return found

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self.process.stdin.close()
            self.process.wait()
            self.process.stdout.close()
            self.process = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def examine(worker: Worker, case: Case) -> tuple[list[Mapping[str, Any]], list[Finding]]:
    """Run a case; its outcomes and what is wrong with them.

    On a machine that many work on, the same takes more CPU for a while: what takes too long
    is run anew, and hangs if it does so three times.
    """
    for _ in range(3):
        outcomes = worker.run(case)
        found = judge(case, outcomes)
        if not any(each.kind == "hang" for each in found):
            break
    return outcomes, found


@dataclass
class Tally:
    """What came of a kind's cases: how many, how many commands, findings by signature."""

    cases: int = 0
    commands: int = 0
    cpu_s: float = 0.0
    slowest_s: float = 0.0
    codes: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    found: dict[tuple[str, str], tuple[Case, Finding, int]] = field(default_factory=dict)

    def add(
        self, case: Case, outcomes: Sequence[Mapping[str, Any]], findings: Sequence[Finding]
    ) -> list[Finding]:
        """Count a case; returns its findings that are new."""
        self.cases += 1
        self.commands += len(outcomes)
        for outcome in outcomes:
            self.cpu_s += outcome["cpu_s"]
            self.slowest_s = max(self.slowest_s, outcome["cpu_s"])
            code = str(outcome["code"])
            self.codes[code] = self.codes.get(code, 0) + 1
        new = []
        for kind in {finding.kind for finding in findings}:
            self.counts[kind] = self.counts.get(kind, 0) + 1
        for finding in findings:
            key = (finding.kind, finding.signature)
            if key in self.found:
                first, words, count = self.found[key]
                self.found[key] = (first, words, count + 1)
            else:
                self.found[key] = (case, finding, 1)
                new.append(finding)
        return new


def run_for(
    kinds: Sequence[str],
    seed: int,
    seconds: float,
    most: int | None = None,
    jobs: int = 1,
    tell: Callable[[Case, Finding], None] = lambda _case, _finding: None,
) -> dict[str, Tally]:
    """Cases of these kinds, in turn, on `jobs` workers each; a tally for each kind."""
    tallies = {kind: Tally() for kind in kinds}
    lock, until = threading.Lock(), time.monotonic() + seconds
    errors: list[BaseException] = []

    def work(kind: str, own: int) -> None:
        try:
            with Worker() as worker:
                for index in _numbers(own, jobs, most):
                    if time.monotonic() > until or errors:
                        break
                    case = make_case(kind, seed, index)
                    outcomes, findings = examine(worker, case)
                    with lock:
                        for finding in tallies[kind].add(case, outcomes, findings):
                            tell(case, finding)
        except BaseException as error:  # told where it is waited for
            errors.append(error)

    threads = [
        threading.Thread(target=work, args=(kind, own)) for kind in kinds for own in range(jobs)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return tallies


def _numbers(first: int, step: int, most: int | None) -> Iterator[int]:
    number = first
    while most is None or number < most:
        yield number
        number += step


# ---------------------------------------------------------------- smaller cases


def shrink(worker: Worker, case: Case, finding: Finding, tries: int = 120) -> Case:
    """The smallest case found that has the same finding."""
    key = (finding.kind, finding.signature)

    def still(candidate: Case) -> bool:
        return key in {
            (each.kind, each.signature) for each in judge(candidate, worker.run(candidate))
        }

    while tries > 0:
        for candidate in _simpler(case):
            tries -= 1
            if still(candidate):
                case = candidate
                break
            if tries <= 0:
                break
        else:
            break
    return case


def _simpler(case: Case) -> Iterator[Case]:
    """Cases with less in them, those with the least first."""
    import dataclasses

    if len(case.steps) > 1:
        for step in case.steps:
            yield dataclasses.replace(case, steps=(step,))
    for name in case.environment:
        rest = {key: value for key, value in case.environment.items() if key != name}
        yield dataclasses.replace(case, environment=rest)
    if case.streams != "plain":
        yield dataclasses.replace(case, streams="plain")
    for name, each in case.files.items():
        others = {key: value for key, value in case.files.items() if key != name}
        if len(case.files) > 1:
            yield dataclasses.replace(case, files=others)
        if isinstance(each, str):
            for text in _shorter(each):
                yield dataclasses.replace(case, files={**others, name: text})
    if len(case.steps) == 1:
        words = case.steps[0]
        for index in range(len(words) - 1, 0, -1):
            yield dataclasses.replace(case, steps=((*words[:index], *words[index + 1 :]),))
    if case.told is not None:
        for told in _smaller(case.told):
            yield dataclasses.replace(case, told=told)


def _shorter(text: str) -> Iterator[str]:
    """A text without some of its lines, or of its letters."""
    lines = text.splitlines(keepends=True)
    parts: Sequence[str] = lines if len(lines) > 1 else list(text)
    size = len(parts) // 2
    while size:
        for start in range(0, len(parts), size):
            yield "".join([*parts[:start], *parts[start + size :]])
            if len(parts) / size > 24:
                break
        size //= 2


def _smaller(tree: Any) -> Iterable[Any]:
    """A tree without some of its branches."""
    import copy

    from tests.fuzz.mutate import at, places

    for path in sorted(places(tree), key=len)[:60]:
        made = copy.deepcopy(tree)
        parent, value = at(made, path[:-1]), at(made, path)
        if isinstance(value, str) and len(value) > 40:
            parent[path[-1]] = value[: len(value) // 2]
            yield made
            made = copy.deepcopy(tree)
            at(made, path[:-1])[path[-1]] = value[len(value) // 2 :]
            yield made
            made = copy.deepcopy(tree)
            parent = at(made, path[:-1])
        del parent[path[-1]]
        yield made
