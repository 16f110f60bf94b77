"""The suite from the command line: `python -m tests.sqllogictest PATH`."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.servers import redis_server
from tests.sqllogictest import report, suite
from tests.sqllogictest.runner import Outcome


def main() -> int:
    """Run the suite: 1 if an answer is wrong, 2 if PATH has no files."""
    parser = argparse.ArgumentParser(prog="tests.sqllogictest", description=main.__doc__)
    parser.add_argument("path", type=Path, help="a folder with the suite's files, or one of them")
    parser.add_argument("--store", choices=("memory", "redis"), default="memory")
    parser.add_argument(
        "--one-transaction", action="store_true", help="commit once per file, not per statement"
    )
    parser.add_argument("--every", type=int, default=1, help="run one query out of so many")
    parser.add_argument("--save", action="store_true", help="write the figures into results/")
    options = parser.parse_args()
    if not suite.files(options.path):
        sys.stderr.write(f"{options.path} has no file of the suite\n")
        return 2
    outcomes: list[Outcome] = []
    with _urls(options.store) as url:
        for outcome in suite.run(
            options.path, url, lambda file: options.every, options.one_transaction
        ):
            outcomes.append(outcome)
            sys.stdout.write(
                f"{outcome.name}: {outcome.passed} of {outcome.run} passed,"
                f" {outcome.refused.total()} refused, {len(outcome.wrong)} wrong,"
                f" {outcome.seconds:.1f} s\n"
            )
            sys.stdout.writelines(f"  {words}\n" for words in outcome.wrong)
            sys.stdout.flush()
    run = report.figures(outcomes)
    sys.stdout.write(report.table(run))
    if options.save:
        name = options.store + ("-one-transaction" if options.one_transaction else "")
        commits = "one transaction per file" if options.one_transaction else "a commit each"
        words = f"SQLite's sqllogictest on ROME's {options.store} store; statements: {commits}."
        report.save(name, words, run)
    return int(any(outcome.wrong for outcome in outcomes))


@contextlib.contextmanager
def _urls(store: str) -> Iterator[Callable[[str], str]]:
    if store == "memory":
        yield lambda name: f"rome+memory:///{name}"
    else:
        with redis_server() as server:
            yield server.url


if __name__ == "__main__":
    sys.exit(main())
