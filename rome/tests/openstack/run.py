"""Run OpenStack's own database tests: `python -m tests.openstack.run --help`, in rome/."""

# ruff: noqa: T201 (a command prints)
from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from tests.openstack.environment import Failed, Installed, ensure_environment, installed_rome
from tests.openstack.report import Baseline, Comparison
from tests.openstack.runner import Result, run_tests
from tests.openstack.server import STORES, own_url
from tests.openstack.suites import SUITES, Suite


def main() -> int:
    """0: reached the suites' shares; 1: not; 2: it couldn't be run."""
    options = _options()
    # So that a run that is told to end takes its servers and folders with it.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        with contextlib.ExitStack() as stack:
            python = ensure_environment()
            url, rome = None, Installed()
            if not options.baseline:
                rome = stack.enter_context(installed_rome(python))
                url = options.url or stack.enter_context(_own_url(options.store))
            reached = [_run(SUITES[name], python, url, rome, options) for name in options.suites]
    except Failed as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 2
    return 0 if all(reached) else 1


@contextlib.contextmanager
def _own_url(store: str) -> Iterator[str]:
    with own_url(store, "openstack") as url:
        print(f"on {url}", flush=True)
        yield f"{url}{'&' if '?' in url else '?'}fresh=true"


def _run(suite: Suite, python: Path, url: str | None, rome: Installed, options: _Options) -> bool:
    baseline = None if options.baseline else Baseline.load(suite)

    def wanted(tests: list[str]) -> Iterable[str]:
        chosen: Iterable[str] = tests
        if baseline:
            chosen = (
                baseline.passing(tests)
                if options.sample is None
                else baseline.sample(tests, options.sample or suite.sample)
            )
        pattern = options.only
        return [test for test in chosen if pattern is None or pattern.search(test)]

    print(f"{suite.title} ...", flush=True)
    start = time.monotonic()
    results = run_tests(python, suite, url, rome.path, options.concurrency, options.timeout, wanted,
                        _Progress(options.verbose))  # fmt: skip
    seconds = time.monotonic() - start
    if not results:
        raise Failed(f"no test of {suite.name} was chosen")
    if options.details:
        options.details.mkdir(parents=True, exist_ok=True)
        with (options.details / f"{suite.name}.jsonl").open("w") as file:
            file.writelines(json.dumps(asdict(result)) + "\n" for result in results)
    if baseline is None:
        return _report_baseline(suite, results, seconds, whole=options.only is None)
    whole = options.sample is None and options.only is None
    comparison = Comparison(suite, whole, results, seconds, rome.commit)
    print("\n".join(comparison.lines()), flush=True)
    if options.details:
        text = json.dumps(comparison.as_data(), indent=1)
        (options.details / f"{suite.name}.json").write_text(text)
    if options.save:
        print(f"saved in {comparison.save()}")
    return comparison.per_cent >= suite.threshold


def _report_baseline(suite: Suite, results: list[Result], seconds: float, *, whole: bool) -> bool:
    baseline = Baseline.of(results)
    with_statements = sum(bool(r.statements) for r in results if r.outcome == "passed")
    print(
        f"{suite.title}: {baseline.tests - len(baseline.not_passed)} of {baseline.tests} pass on"
        f" SQLite, {with_statements} of them with statements; {seconds:.0f} s"
    )
    for test, why in baseline.not_passed.items():
        print(f"  {test}: {why}")
    if whole:
        print(f"saved in {baseline.save(suite, seconds, with_statements)}")
    return True


class _Progress:
    def __init__(self, verbose: bool) -> None:
        self._verbose = verbose
        self._start = self._said = time.monotonic()
        self._done = self._not_passed = 0

    def __call__(self, result: Result) -> None:
        self._done += 1
        self._not_passed += result.outcome != "passed"
        if self._verbose:
            print(f"  {result.outcome:7} {result.seconds:7.2f} s  {result.test}", flush=True)
            return
        now = time.monotonic()
        if now - self._said > 20:
            self._said = now
            print(f"  {now - self._start:.0f} s: {self._done} tests, {self._not_passed} not passed",
                  flush=True)  # fmt: skip


class _Options(argparse.Namespace):
    suites: list[str]
    url: str | None
    store: str
    baseline: bool
    sample: int | None  # 0: as many as the suite says
    save: bool
    only: re.Pattern[str] | None
    concurrency: int
    timeout: float
    details: Path | None
    verbose: bool


def _options() -> _Options:
    parser = argparse.ArgumentParser(
        prog="python -m tests.openstack.run",
        description="Run OpenStack's own database tests, unmodified, on ROME (or any URL), and"
        " compare with SQLite.",
    )
    parser.add_argument("suites", nargs="*", metavar="SUITE",
                        help=f"of {', '.join(SUITES)} (all)")  # fmt: skip
    parser.add_argument("--url", help="database URL, one that gives every engine an empty database"
                        " of its own (ROME on a server of this run)")  # fmt: skip
    parser.add_argument("--store", choices=STORES, default="redis",
                        help="that ROME uses where no URL is given (%(default)s)")  # fmt: skip
    parser.add_argument("--baseline", action="store_true",
                        help="run on SQLite and write what passes to baseline/")  # fmt: skip
    parser.add_argument("--sample", type=int, nargs="?", const=0, metavar="N",
                        help="a small, fixed choice of the tests (N of them)")  # fmt: skip
    parser.add_argument("--save", action="store_true", help="write the figures to results/")
    parser.add_argument("--only", type=_pattern, metavar="REGEX", help="tests whose ids match")
    parser.add_argument("--concurrency", type=int, default=os.cpu_count() or 1, metavar="N",
                        help="worker processes (%(default)s)")  # fmt: skip
    parser.add_argument("--timeout", type=float, default=180, metavar="SECONDS",
                        help="for each test (%(default)g)")  # fmt: skip
    parser.add_argument("--details", type=Path, metavar="FOLDER",
                        help="write each test's outcome, traceback, statements there")  # fmt: skip
    parser.add_argument("--verbose", action="store_true", help="a line for each test")
    options = parser.parse_args(namespace=_Options())
    options.suites = options.suites or list(SUITES)
    for name in options.suites:
        if name not in SUITES:
            parser.error(f"no suite is called '{name}'; there are {', '.join(SUITES)}")
    if options.concurrency < 1 or options.timeout <= 0:
        parser.error("--concurrency and --timeout must be above 0")
    if options.sample is not None and options.sample < 0:
        parser.error("--sample must be above 0")
    if options.save and (options.sample is not None or options.only or options.baseline):
        parser.error("--save is for whole suites on ROME")
    if options.save and options.store != "redis":
        parser.error("--save is for ROME on Redis, whose figures the README shows")
    return options


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"'{text}' is no regular expression: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
