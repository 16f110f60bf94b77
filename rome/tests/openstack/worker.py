"""Runs tests one by one as it is told to; runs inside the suites' environment.

It is given a JSON object as its argument: `package` is imported first (Nova patches the
standard library when its tests' package is imported), `modules` are the packages and modules
whose tests there are, `base` (empty: any) the class that theirs are derived from, `url` is where
connections to SQLite go (none: to SQLite).  Its first line lists the tests; then it reads a test's
number a line and answers each with a line.
"""

# What this imports is in the suites' environment only.
# mypy: disable-error-code="import-not-found,import-untyped,misc,untyped-decorator"

from __future__ import annotations

import collections
import importlib
import json
import os
import sys
import time
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import testtools


class Outcome(testtools.TestResult):
    """What one test came to, with the text of its traceback."""

    def __init__(self) -> None:
        super().__init__()
        self.outcome = "passed"
        self.text = ""

    def addError(self, test: Any, err: Any = None, details: Any = None) -> None:  # noqa: N802
        """An error, in the test or in what surrounds it."""
        self._failed("failed", err, details)

    def addFailure(self, test: Any, err: Any = None, details: Any = None) -> None:  # noqa: N802
        """A failed assertion."""
        self._failed("failed", err, details)

    def addUnexpectedSuccess(self, test: Any, details: Any = None) -> None:  # noqa: N802
        """A test that ought to fail passed."""
        self.outcome, self.text = "failed", "unexpected success"

    def addSkip(self, test: Any, reason: Any = None, details: Any = None) -> None:  # noqa: N802
        """A skipped test; testtools gives the reason as a detail."""
        if reason is None and details and "reason" in details:
            reason = details["reason"].as_text()
        self.outcome, self.text = "skipped", str(reason)

    def _failed(self, outcome: str, err: Any, details: Any) -> None:
        if self.outcome == outcome:
            return  # the first failure tells most: clean-ups fail after it
        self.outcome = outcome
        if details:
            names = sorted(name for name in details if name.startswith("traceback"))
            self.text = "\n".join(details[name].as_text() for name in names[:1])
        elif err is not None:
            self.text = self._exc_info_to_unicode(err, None)


class Redirection:
    """Lets each engine that oslo.db is asked to make for SQLite be one for `url`.

    All services make their engines there, and so do oslo.db's own fixtures; some tests name
    SQLite in so many words, so that no option could send them elsewhere.
    """

    def __init__(self, url: str) -> None:
        from oslo_db.sqlalchemy import engines, provision
        from sqlalchemy.engine import make_url

        self._make_url = make_url
        self._target = make_url(url)
        self._create = engines.create_engine
        self._files: dict[str, str] = {}
        self._made = 0
        engines.create_engine = self._create_engine
        dialect = self._target.get_backend_name()
        if dialect not in provision.BackendImpl.impl.reg:
            provision.BackendImpl.impl.dispatch_for(dialect)(_provisioning(provision, url))

    def forget_files(self) -> None:
        """Another test begins: SQLite's files are new ones."""
        self._files.clear()

    def _create_engine(self, sql_connection: Any, sqlite_fk: bool = False, **options: Any) -> Any:
        asked = self._make_url(sql_connection)
        if asked.get_backend_name() != "sqlite":
            return self._create(sql_connection, sqlite_fk=sqlite_fk, **options)
        place = self._place(asked.database)
        if not sqlite_fk and self._target.get_backend_name() == "rome":
            # So that foreign keys are checked where the tests have SQLite check them.
            place = place.update_query_dict({"foreign_keys": "off"})
        return self._create(place, sqlite_fk=sqlite_fk, **options)

    def _place(self, file: str | None) -> Any:
        if file in (None, "", ":memory:") or "fresh" not in self._target.query:
            return self._target
        # Engines on one file share a database for the length of a test.
        if file not in self._files:
            self._made += 1
            self._files[file] = f"{self._target.database}-{os.getpid()}-{self._made}"
        shared = self._target.set(database=self._files[file])
        return shared.difference_update_query(["fresh"])


def _provisioning(provision: Any, url: str) -> Any:
    """What oslo.db's own tests of migrations do to a database at their end: drop its tables."""

    class Provisioning(provision.BackendImpl):
        supports_drop_fk = False

        def create_opportunistic_driver_url(self) -> str:
            return url

        def create_named_database(self, engine: Any, ident: str, conditional: bool = False) -> None:
            raise NotImplementedError

        def drop_named_database(self, engine: Any, ident: str, conditional: bool = False) -> None:
            raise NotImplementedError

    return Provisioning


def count_statements() -> collections.Counter[str]:
    """Counts every statement from now on, by its dialect's name."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    counts: collections.Counter[str] = collections.Counter()

    @event.listens_for(Engine, "before_cursor_execute")
    def count(connection: Any, *rest: Any) -> None:
        counts[connection.dialect.name] += 1

    return counts


def load(modules: list[str], base: str = "") -> list[unittest.TestCase]:
    """The tests of modules and packages, in the order of their ids: of `base`'s classes, or all."""
    loader = unittest.TestLoader()
    found = unittest.TestSuite()
    for name in modules:
        module = importlib.import_module(name)
        where = Path(str(module.__file__))
        if where.name != "__init__.py":
            found.addTests(loader.loadTestsFromName(name))
            continue
        top = where.parents[name.count(".") + 1]
        found.addTests(loader.discover(str(where.parent), "test*.py", str(top)))
    wanted = unittest.TestCase
    if base:
        module_name, _, class_name = base.partition(":")
        wanted = getattr(importlib.import_module(module_name), class_name)
    tests = {test.id(): test for test in flattened(found) if isinstance(test, wanted)}
    return [tests[name] for name in sorted(tests)]


def flattened(suite: Any) -> Iterator[unittest.TestCase]:
    """The tests in suites of suites."""
    if isinstance(suite, unittest.TestCase):
        yield suite
        return
    for part in suite:
        yield from flattened(part)


def serve(requests: TextIO, answers: TextIO, job: dict[str, Any]) -> None:
    """Load the tests, tell them, and run those that are asked for."""
    importlib.import_module(job["package"])
    redirection = Redirection(job["url"]) if job["url"] else None
    counts = count_statements()
    tests = load(job["modules"], job["base"])
    ids = [test.id() for test in tests]
    answers.write(json.dumps({"tests": ids}) + "\n")
    answers.flush()
    for line in requests:
        test = tests[int(line)]
        name = test.id()
        result = Outcome()
        counts.clear()
        if redirection:
            redirection.forget_files()
        start = time.perf_counter()
        unittest.TestSuite([test]).run(result)
        answers.write(json.dumps({
            "test": name,
            "outcome": result.outcome,
            "text": result.text,
            "statements": dict(counts),
            "seconds": round(time.perf_counter() - start, 3),
        }) + "\n")  # fmt: skip
        answers.flush()


def main() -> None:
    """Keep the pipes for ourselves: tests may read and print."""
    requests = os.fdopen(os.dup(0), "r")
    answers = os.fdopen(os.dup(1), "w")
    with open(os.devnull) as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    serve(requests, answers, json.loads(sys.argv[1]))
    answers.flush()
    # Threads that tests leave behind may never end.
    os._exit(0)


if __name__ == "__main__":
    main()
