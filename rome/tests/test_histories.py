"""Histories of concurrent clients, with and without faults, have no anomaly that isn't allowed.

Short runs; `python -m tests.histories` makes long ones, with more faults.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.etcd_servers import EtcdCluster, etcd_cluster
from tests.histories import report
from tests.histories.faults import Servers
from tests.histories.model import READ_COMMITTED, SERIALIZABLE
from tests.histories.namespaces import namespaced_cluster
from tests.histories.run import Outcome, Run, perform
from tests.servers import RedisCluster, RedisServer, redis_cluster, redis_server

Record = Callable[[str, object], None]

# As short as the clients' transactions allow.
SHORT = Run(fault="none, one server", seconds=0.0, quiet=0.0, transactions=300)
FAULT = Run(rounds=1, quiet=0.5, transactions=200, pause=0.005)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    """Three masters with a replica each, which each test leaves whole."""
    with redis_cluster(replicas=1, node_timeout_ms=1000) as running:
        yield running


@pytest.fixture(scope="module")
def members() -> Iterator[EtcdCluster]:
    """Three members of etcd, which each test leaves whole."""
    with etcd_cluster() as running:
        yield running


def judged(run: Run, servers: Servers, record: Record) -> Outcome:
    """The outcome of a run in which something was committed and nothing unexplained happened."""
    outcome = perform(run, servers)
    record("history", outcome.data())
    assert outcome.unexplained() == {}
    assert outcome.verdict.committed > 20
    return outcome


# ---------------------------------------------------------------- without faults


@pytest.mark.parametrize("workload", ["text lists", "row lists", "rows", "swaps"])
@pytest.mark.parametrize("level", [READ_COMMITTED, SERIALIZABLE])
def test_nothing_is_wrong(
    server: RedisServer, workload: str, level: str, record_property: Record
) -> None:
    run = dataclasses.replace(SHORT, workload=workload, levels=(level,))
    judged(run, server, record_property)


@pytest.mark.parametrize(
    "options",
    [
        (("result_cache", "off"), ("prefetch", "off")),
        (("page", "4"),),  # as tables that are too large for one script are read
        (("table_lease", "0.1"),),
    ],
)
def test_nothing_is_wrong_with_both_levels_at_once(
    server: RedisServer, options: tuple[tuple[str, str], ...], record_property: Record
) -> None:
    judged(dataclasses.replace(SHORT, options=options), server, record_property)


def test_nothing_is_wrong_while_the_schema_changes(
    server: RedisServer, record_property: Record
) -> None:
    run = dataclasses.replace(SHORT, schema_changes=True, quiet=1.0)
    assert judged(run, server, record_property).schema_changes > 0


# ---------------------------------------------------------------- with faults


@pytest.mark.parametrize(
    "options",
    [
        (("wait", "0"),),
        (("wait", "1"), ("result_cache", "off"), ("prefetch", "off")),
        (("wait", "0"), ("table_lease", "0.1")),
    ],
)
@pytest.mark.parametrize("fault", ["master killed", "master frozen 4 s"])
def test_a_master_fails(
    cluster: RedisCluster,
    fault: str,
    options: tuple[tuple[str, str], ...],
    record_property: Record,
) -> None:
    run = dataclasses.replace(
        FAULT, fault=fault, options=options, schema_changes=("wait", "0") in options
    )
    outcome = judged(run, cluster, record_property)
    assert outcome.failover() is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_a_master_is_cut_off_from_the_others(record_property: Record) -> None:
    """Clients reach it on: what it takes is lost, unless it waits for its replica."""
    run = dataclasses.replace(
        FAULT, fault="master cut off from nodes 10 s", seconds=4, options=(("wait", "1"),)
    )
    with namespaced_cluster(replicas=1, node_timeout_ms=1000) as nodes:
        outcome = judged(run, nodes, record_property)
    assert outcome.failover() is not None


def test_clients_are_killed(cluster: RedisCluster, record_property: Record) -> None:
    run = dataclasses.replace(FAULT, fault="client killed", rounds=3, seconds=0.2)
    judged(run, cluster, record_property)


# ---------------------------------------------------------------- in etcd


@pytest.mark.parametrize(
    ("workload", "reads"),
    [
        ("text lists", "local"),
        ("rows", "linearizable"),
        *(
            pytest.param(workload, reads, marks=pytest.mark.long)
            for workload, reads in (
                *(("text lists", "linearizable"), ("rows", "local")),
                *itertools.product(("row lists", "swaps"), ("linearizable", "local")),
            )
        ),
    ],
)
def test_nothing_is_wrong_in_etcd(
    members: EtcdCluster, workload: str, reads: str, record_property: Record
) -> None:
    run = dataclasses.replace(
        SHORT, fault="none, etcd", workload=workload, options=(("reads", reads),)
    )
    judged(run, members, record_property)


@pytest.mark.parametrize(
    ("fault", "reads"),
    [
        ("etcd's leader killed", "linearizable"),
        *(
            pytest.param(fault, reads, marks=pytest.mark.long)
            for fault, reads in (
                ("etcd's leader killed", "local"),
                ("etcd's leader frozen 4 s", "local"),
                ("etcd's leader frozen 4 s", "linearizable"),
            )
        ),
    ],
)
def test_etcds_leader_fails(
    members: EtcdCluster, fault: str, reads: str, record_property: Record
) -> None:
    """Nothing that was acknowledged is lost."""
    options = (("reads", reads), ("timeout", "2"))
    run = dataclasses.replace(FAULT, fault=fault, options=options, schema_changes=True)
    judged(run, members, record_property)


# ---------------------------------------------------------------- defects are found


@pytest.mark.parametrize(
    ("mutation", "workload", "level", "names"),
    [
        ("acknowledges_without_committing", "text lists", READ_COMMITTED, {"lost"}),
        ("commits_and_says_conflict", "row lists", READ_COMMITTED, {"G1a"}),
        ("drops_a_write", "text lists", READ_COMMITTED, {"partial"}),
        ("drops_deletes", "rows", SERIALIZABLE, {"lost"}),
        ("drops_row_checks", "swaps", READ_COMMITTED, {"lost-update"}),
        ("drops_read_checks", "row lists", SERIALIZABLE, {"G2", "G-single"}),
        ("acknowledges_early", "swaps", READ_COMMITTED, {"G-single-realtime", "lost"}),
        ("reads_stale_rows", "text lists", SERIALIZABLE, {"G-single-realtime"}),
        ("mixes_moments", "text lists", READ_COMMITTED, {"G-single"}),
        ("believes_leases_for_long", "text lists", READ_COMMITTED, {"G-single-realtime"}),
    ],
)
def test_a_mutated_rome_is_found(
    server: RedisServer, mutation: str, workload: str, level: str, names: set[str]
) -> None:
    leases = (("table_lease", "0.05"),) if "leases" in mutation else ()
    run = dataclasses.replace(
        SHORT,
        workload=workload,
        levels=(level,),
        mutation=mutation,
        transactions=400,
        options=leases,
    )
    # It is a matter of chance whether a short run shows it.
    assert any(names & set(perform(run, server).verdict.anomalies) for _ in range(3))


# ---------------------------------------------------------------- the report


def test_the_page_is_made_of_the_figures() -> None:
    runs = report.load()
    assert report.page(runs) == (report.RESULTS / "matrix.md").read_text()
    assert not any(run["unexplained"] for run in runs)


def test_figures_of_the_same_run_take_the_place_of_older_ones(tmp_path: Path) -> None:
    first, *others = report.load()
    again = first | {"lost": 77}
    report.save(report.merged([first, *others], [again]), tmp_path)
    assert report.load(tmp_path) == [again, *others]
    assert "77" in (tmp_path / "matrix.md").read_text()
