"""The matrix of faults from the command line: `python -m tests.histories`."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.etcd_servers import etcd_cluster
from tests.histories import model, report
from tests.histories.checker import check
from tests.histories.faults import FAULTS, Fault, Servers
from tests.histories.namespaces import namespaced_cluster
from tests.histories.run import Run, perform
from tests.servers import redis_cluster, redis_server

_WAITS = (("wait", "0"), ("wait", "1"))
_READS = (("reads", "linearizable"), ("reads", "local"))
# What faults need: a cluster, namespaces, etcd.
_KINDS = (
    (False, False, False),
    (True, False, False),
    (True, True, False),
    (True, False, True),
)
_REUSE: tuple[tuple[tuple[str, str], ...], ...] = (
    (),
    (("result_cache", "off"), ("prefetch", "off")),
)


def main() -> int:
    """Run each fault with and without `wait`, result cache and prefetching: 1 if anything is
    wrong that no stated limit explains."""
    parser = argparse.ArgumentParser(prog="tests.histories", description=main.__doc__)
    parser.add_argument("--minutes", type=float, default=20, help="of all runs, about")
    parser.add_argument("--fault", action="append", choices=sorted(FAULTS), default=[])
    parser.add_argument("--node-timeout", type=float, default=2, help="of the cluster, in s")
    parser.add_argument("--processes", type=int, default=2, help="of clients")
    parser.add_argument("--keep", type=Path, help="a folder for histories that have anomalies")
    parser.add_argument("--save", action="store_true", help="write the figures into results/")
    parser.add_argument("--check", type=Path, help="judge a history that was kept")
    options = parser.parse_args()
    if options.check is not None:
        return _check(options.check)
    names = options.fault or [name for name in FAULTS if name != "master frozen 4 s"]
    share = 60 * options.minutes / sum(len(_options(FAULTS[name])) for name in names)
    found: list[dict[str, Any]] = []
    for kind in _KINDS:
        mine = [n for n in names if FAULTS[n].kind == kind]
        if not mine:
            continue
        with _servers(FAULTS[mine[0]], options.node_timeout) as servers:
            for name in mine:
                for url_options in _options(FAULTS[name]):
                    run = Run(
                        fault=name,
                        options=url_options,
                        processes=options.processes,
                        rounds=max(1, round(share / (FAULTS[name].seconds + 8))),
                        pause=0.02,
                        schema_changes=True,
                        quiet=2.0,
                    )
                    outcome = perform(run, servers, options.keep)
                    figures = outcome.data() | {"node_timeout_s": options.node_timeout}
                    found.append(figures)
                    sys.stdout.write(report.line(figures) + "\n")
                    for anomaly, texts in outcome.unexplained().items():
                        sys.stdout.writelines(f"    {anomaly}: {text}\n" for text in texts[:3])
                    sys.stdout.flush()
    sys.stdout.write("\n" + report.table(found))
    if options.save:
        report.save(report.merged(report.load(), found))
    return int(any(figures["unexplained"] for figures in found))


def _options(fault: Fault) -> list[tuple[tuple[str, str], ...]]:
    if fault.etcd:
        return [(reads, *reuse) for reads in _READS for reuse in _REUSE]
    if not fault.cluster:
        return list(_REUSE)
    return [(wait, *reuse) for wait in _WAITS for reuse in _REUSE]


@contextlib.contextmanager
def _servers(fault: Fault, node_timeout_s: float) -> Iterator[Servers]:
    milliseconds = round(1000 * node_timeout_s)
    if fault.etcd:
        with etcd_cluster() as members:
            yield members
    elif fault.namespaces:
        with namespaced_cluster(1, milliseconds) as nodes:
            yield nodes
    elif fault.cluster:
        with redis_cluster(1, milliseconds) as cluster:
            yield cluster
    else:
        with redis_server(appendonly="yes") as server:
            yield server


def _check(file: Path) -> int:
    verdict = check(model.load(file))
    for name, texts in verdict.anomalies.items():
        sys.stdout.writelines(f"{name}: {text}\n" for text in texts)
    return int(bool(verdict.anomalies))


if __name__ == "__main__":
    sys.exit(main())
