"""SQLite's own answers: its sqllogictest suite gets them from ROME.

The suite isn't part of the project: the variable SQLLOGICTEST says where a copy of it lies.  Of a
file with many queries only some are run here; `python -m tests.sqllogictest` runs all.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from tests.servers import RedisServer
from tests.sqllogictest import report, suite
from tests.sqllogictest.answers import digest
from tests.sqllogictest.records import FormatError, Query, Statement, parse
from tests.sqllogictest.runner import FOLLOWS, Outcome, run_file

# What docs/limits.md says that ROME doesn't carry.
REFUSED = {"CREATE TRIGGER", "CREATE TEMP", "CREATE TEMPORARY", FOLLOWS}

_path = os.environ.get(suite.VARIABLE)
_files = [(Path(_path), file) for file in suite.files(Path(_path))] if _path else []
_small = [pair for pair in _files if pair[1].read_text().count("\nstatement ") < 100]
_databases = itertools.count()
needs_suite = pytest.mark.skipif(
    not _path, reason=f"{suite.VARIABLE} doesn't name a copy of SQLite's sqllogictest"
)


def _name(value: object) -> str:
    root, file = value if isinstance(value, tuple) else (Path(), value)
    return str(file.relative_to(root)) if isinstance(file, Path) else str(file)


def _run(pair: tuple[Path, Path], url: str, queries: int, whole: bool = False) -> Outcome:
    """Run a file with all its statements and about so many of its queries."""
    engine = create_engine(url)
    there = pair[1].read_text().count("\nquery ")
    try:
        return run_file(pair[1], _name(pair), engine, max(1, there // queries), whole)
    finally:
        engine.dispose()


def _check(outcome: Outcome) -> None:
    assert not outcome.wrong, "\n".join(outcome.wrong)
    assert set(outcome.refused) <= REFUSED
    assert outcome.passed + outcome.refused.total() == outcome.run


@needs_suite
def test_the_suite_is_there() -> None:
    assert len(_files) > 10, f"{_path} has few files of the suite"


@needs_suite
@pytest.mark.parametrize("pair", _files, ids=_name)
def test_in_memory(pair: tuple[Path, Path]) -> None:
    _check(_run(pair, f"rome+memory:///sqllogictest{next(_databases)}", 400))


@needs_suite
@pytest.mark.parametrize("pair", _small, ids=_name)
def test_in_one_transaction(pair: tuple[Path, Path]) -> None:
    """All rows that the queries see are the transaction's own."""
    _check(_run(pair, f"rome+memory:///sqllogictest{next(_databases)}", 100, whole=True))


@needs_suite
@pytest.mark.parametrize("pair", _small, ids=_name)
def test_in_redis(redis_server: RedisServer, pair: tuple[Path, Path]) -> None:
    """With little pages, so that tables are read in several."""
    _check(_run(pair, redis_server.url(f"sqllogictest{next(_databases)}", page=7), 60))


# ---------------------------------------------------------------- the runner itself


def outcome_of(text: str, folder: Path, whole: bool = False) -> Outcome:
    """Run a file with this text."""
    file = folder / "a.test"
    file.write_text(text)
    return _run((folder, file), f"rome+memory:///sqllogictest{next(_databases)}", 1000, whole)


START = """# a comment
hash-threshold 8

statement ok
CREATE TABLE t (a INTEGER, b TEXT, c REAL)

statement ok
INSERT INTO t VALUES (1, '', 1.5), (10, 'x', NULL), (9, 'é', 2)
"""


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    ("record", "passes"),
    [
        ("query I nosort\nSELECT a FROM t ORDER BY a\n----\n1\n9\n10", True),
        ("query I nosort\nSELECT a FROM t ORDER BY a\n----\n1\n10\n9", False),
        ("query I rowsort\nSELECT a FROM t\n----\n1\n10\n9", True),  # as text
        ("query TR rowsort\nSELECT b, c FROM t\n----\n(empty)\n1.500\n@\n2.000\nx\nNULL", True),
        ("query IT valuesort\nSELECT a, b FROM t\n----\n(empty)\n1\n10\n9\n@\nx", True),
        ("query I rowsort\nSELECT a FROM t\n----\n1\n10", False),
        (
            "query I rowsort\nSELECT a FROM t\n----\n3 values hashing to "
            + digest(["1", "10", "9"]),
            True,
        ),
        (
            "query I rowsort\nSELECT a FROM t\n----\n3 values hashing to " + digest(["1", "10"]),
            False,
        ),
        ("query I rowsort\nSELECT a FROM t WHERE a = 2\n----", True),
        ("query I rowsort\nSELECT a FROM t WHERE a = 1\n----", False),
        ("query I rowsort\nSELECT nothing FROM t\n----", True),  # fails, as in SQLite
        ("query I rowsort\nSELECT nothing FROM t\n----\n1", False),
        ("query I rowsort x\nSELECT 1\n----\n1\n\nquery I rowsort x\nSELECT 2\n----\n2", False),
        ("query I rowsort x\nSELECT 1\n----\n1\n\nquery I rowsort y\nSELECT 2\n----\n2", True),
        ("statement error\nSELECT nothing FROM t", True),
        ("statement error\nSELECT a FROM t", False),
        ("statement ok\nINSERT INTO nothing VALUES (1)", False),
        ("skipif sqlite\nstatement ok\nnonsense", True),
        ("onlyif mysql # why\nstatement ok\nnonsense", True),
        ("onlyif sqlite\nskipif mysql\nstatement ok\nnonsense", False),
        ("onlyif sqlite\nhalt\n\nstatement ok\nnonsense", True),
        ("onlyif mysql\nhalt\n\nstatement ok\nnonsense", False),
        ("query R nosort\nSELECT 1e20\n----\n100000000000000000000.000", True),
        ("query R nosort\nSELECT 1<<63\n----\n-9223372036854776000.000", True),
        ("query I nosort\nSELECT '12x'\n----\n12", True),
    ],
)
def test_record(tmp_path: Path, record: str, passes: bool, whole: bool) -> None:
    outcome = outcome_of(f"{START}\n{record}\n", tmp_path, whole)
    assert (not outcome.wrong) == passes, outcome.wrong
    assert outcome.passed == outcome.run - len(outcome.wrong)


def test_what_is_refused_and_what_follows(tmp_path: Path) -> None:
    trigger = "statement ok\nCREATE TRIGGER r UPDATE ON t BEGIN SELECT 1; END;\n"
    drop = "statement ok\nDROP TRIGGER r\n"
    outcome = outcome_of(f"{START}\n{trigger}\n{drop}", tmp_path)
    assert outcome.refused == {"CREATE TRIGGER": 1, FOLLOWS: 1}
    assert not outcome.wrong
    assert len(outcome_of(f"{START}\n{drop}", tmp_path).wrong) == 1


def test_records() -> None:
    text = "skipif x\nquery IT rowsort l\nSELECT 1,\n 'a'\n----\n1\na\n\n# c\nstatement error\nx"
    assert list(parse(text)) == [
        Query(2, "SELECT 1,\n 'a'", "IT", "rowsort", "l", ("1", "a")),
        Statement(10, "x", True),
    ]
    for wrong in ("query X\nSELECT 1\n----\n1", "query I\nSELECT 1", "statement x\ny", "skipif a"):
        with pytest.raises(FormatError):
            list(parse(wrong))


@pytest.mark.parametrize("name", ["memory", "memory-one-transaction", "redis"])
def test_figures_of_the_whole_suite(name: str) -> None:
    """The committed ones: nothing wrong, the page is that of its figures, so is the README."""
    run = json.loads((report.RESULTS / f"{name}.json").read_text())
    assert report.total(run)["wrong"] == 0
    page = (report.RESULTS / f"{name}.md").read_text()
    assert page == report.page(run["words"], run)
    sums = report.total(run)
    words = f"{sums['passed']} of {sums['statements'] + sums['queries']}"
    readme = (report.RESULTS.parents[2] / "README.md").read_text()
    assert words in re.sub(r"\s+", " ", readme.replace(",", ""))
