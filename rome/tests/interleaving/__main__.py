"""Run interleavings for as long as one likes: `python -m tests.interleaving --minutes 30`.

Prints what is wrong, each history as small as possible; with `--save`, writes figures and
failures to `tests/interleaving/results`.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.etcd_servers import etcd_server
from tests.interleaving.campaign import Figures, run_family
from tests.interleaving.databases import Database, InMemory, in_etcd, on_cluster, on_server
from tests.interleaving.families import FAMILIES, LEVELS, Family
from tests.interleaving.kinds import KINDS, Kind
from tests.interleaving.report import saved, shown, table
from tests.servers import redis_cluster, redis_server

RESULTS = Path(__file__).parent / "results"
_THREE = "2 + 1 + 1 statements"


def main(arguments: list[str] | None = None) -> int:
    """Run, print, and tell by the exit code whether all was right."""
    parser = argparse.ArgumentParser(prog="python -m tests.interleaving", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="stop after so long (10)")
    parser.add_argument("--sessions", type=int, choices=(2, 3), default=2)
    parser.add_argument("--store", choices=("memory", "redis", "cluster", "etcd"), default="memory")
    parser.add_argument("--kind", choices=KINDS, action="append", help="only this kind of key")
    parser.add_argument("--level", choices=LEVELS, help="only this isolation level")
    parser.add_argument("--family", choices=FAMILIES, action="append", help="only this family")
    parser.add_argument("--save", action="store_true", help=f"write to {RESULTS}")
    options = parser.parse_args(arguments)
    names = options.family or [n for n in FAMILIES if (n == _THREE) == (options.sessions == 3)]
    kinds = [KINDS[name] for name in options.kind or KINDS]
    ends = time.monotonic() + options.minutes * 60
    jobs = [(FAMILIES[name], kind) for name in names for kind in kinds]
    figures = Figures()
    with _store(options.store) as database:
        for place, (family, kind) in enumerate(jobs):
            # What a family doesn't use of its part of the time is left to those after it.
            now = time.monotonic()
            until = now + (ends - now) / (len(jobs) - place)
            found = _run(family, kind, options.level, until, database)
            figures.add(found)
            _say(
                f"{family.name}, {kind.name}: {found.histories.total()} histories in"
                f" {found.seconds:.0f} s, {found.violations.total()} wrong"
            )
    for failure in sorted(figures.failures.values(), key=lambda one: len(one.steps)):
        _say("\n" + shown(failure))
    _say("\n" + table(figures))
    if options.save:
        for path in saved(figures, RESULTS, options.store, options.sessions):
            _say(f"wrote {path}")
    return 1 if figures.failures else 0


def _run(
    family: Family,
    kind: Kind,
    level: str | None,
    until: float,
    database: Callable[[Kind], Database],
) -> Figures:
    variants = [one for one in family.variants if level in (None, one.level)]
    if not variants:
        return Figures()
    return run_family(family, kind, variants, 1.0, until, database, in_all=True)


@contextlib.contextmanager
def _store(name: str) -> Iterator[Callable[[Kind], Database]]:
    if name == "redis":
        with redis_server() as server:
            yield on_server(server)
    elif name == "cluster":
        with redis_cluster() as cluster:
            yield on_cluster(cluster)
    elif name == "etcd":
        with etcd_server() as member:
            yield in_etcd(member)
    else:
        yield InMemory


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
