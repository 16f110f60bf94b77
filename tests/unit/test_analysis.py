"""Every figure here is worked out by hand from `synthetic_run`, whose docstring has the numbers."""

import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure

from discovery_xp import store
from discovery_xp.analysis import (
    drawing,
    facts,
    paper,
    paper_tables,
    plots,
    report,
    run_tables,
    summaries,
    tables,
)
from discovery_xp.analysis.measurements import (
    Measurements,
    groups,
    label,
    labels,
    read_runs,
    summary,
)
from discovery_xp.errors import Refused
from discovery_xp.store import Run
from tests.unit.synthetic_run import START, call, make_run


def read(*runs: Run) -> list[Measurements]:
    return read_runs([run.folder for run in runs])


def rows(table: tables.Table) -> list[dict[str, Any]]:
    return [{str(k): v for k, v in row.items()} for row in table.frame.to_dict("records")]


@pytest.fixture
def one(tmp_path: Path) -> Measurements:
    return read(make_run(tmp_path))[0]


# ---------------------------------------------------------------- repeats


def test_the_interval_of_three_repeats() -> None:
    interval = summaries.mean_interval([10.0, 12.0, 14.0, None, math.nan])
    assert (interval.mean, interval.deviation, interval.count) == (12.0, 2.0, 3)
    assert (interval.low, interval.high) == (10.0, 14.0), "as wide as what was observed"


def test_one_run_has_no_interval() -> None:
    assert summaries.mean_interval([7.0]) == summaries.Interval(7.0, None, None, None, 1)
    nothing = summaries.mean_interval([None])
    assert math.isnan(nothing.mean)
    assert nothing.count == 0
    assert summaries.mean_interval([0.756] * 3).deviation == 0


# ---------------------------------------------------------------- one run


def test_calls_are_those_of_the_load_with_lazy_loads_added(one: Measurements) -> None:
    # 10 + 20 + 30 + 40 and a lazy load of 20, for 4 calls; what came before doesn't count.
    assert len(one.calls) == 5
    assert summaries.call_statistics(one.calls) == {
        "calls": 4,
        "lazy_loads": 1,
        "lazy_ms": 20.0,
        "failed_calls": 1,
        "call_mean_ms": 30.0,
        "call_median_ms": 25.0,
        "call_p75_ms": pytest.approx(32.5),
        "call_p90_ms": pytest.approx(37.0),
        "call_p99_ms": pytest.approx(39.7),
    }


def test_calls_by_function_say_where_time_went(one: Measurements) -> None:
    frame = summaries.calls_by_function(one.calls)
    assert list(frame["function"]) == [
        "instance_get_by_uuid",
        "instance_update",
        "Instance.info_cache",
    ]
    assert list(frame["total_ms"]) == [60.0, 40.0, 20.0]
    assert list(frame["share"]) == pytest.approx([1 / 2, 1 / 3, 1 / 6])
    assert list(frame["lazy"]) == [False, False, True]


def test_what_a_vm_cost(one: Measurements) -> None:
    row = one.figures
    assert row["vms_active"] == 18
    assert row["cpu_ms_per_vm"] == pytest.approx((3.6 + 1.8) * 1000 / 18)
    assert row["statements_per_vm"] == (90 + 36) / 18
    assert row["round_trips_per_vm"] == 3 * (90 + 36) / 18
    assert row["db_kb_per_vm"] == 2 * 126 / 18
    assert row["messages_per_vm"] == 54 / 18
    assert row["network_mb_per_vm"] == pytest.approx(4 / 18)
    # 18 VMs, one each second from the second second on.
    assert row["duration_s"] == 19.0
    assert row["s_per_vm"] == pytest.approx(19 / 18)
    assert row["vms_per_s"] == pytest.approx(18 / 19)
    # VM i was asked for at 0.01 i and is ACTIVE at i + 2: 2 + 0.99 i, i of 0 to 17.
    assert row["boot_median_s"] == pytest.approx(2 + 0.99 * 8.5)
    assert row["boot_p90_s"] == pytest.approx(2 + 0.99 * 15.3)
    assert row["fullest_host_vms"] == 18, "all are on one"


def test_cpu_and_memory_by_service(one: Measurements) -> None:
    frame = summaries.cpu_by_service(one.usage, one.done).set_index("service")
    assert list(frame.index) == ["nova-conductor", "mariadb"]
    assert list(frame["instances"]) == [2, 1]
    assert list(frame["cpu_ms_per_vm"]) == pytest.approx([200.0, 100.0])
    assert list(frame["memory_mb"]) == [600.0, 300.0]
    assert list(frame["grown_mb"]) == [200.0, 100.0]


def test_statements_and_requests(one: Measurements) -> None:
    kinds = summaries.statements_by_kind(one.statements, one.done).set_index("kind")
    assert list(kinds.loc["SELECT", ["statements", "round_trips"]]) == [90, 270]
    assert list(kinds["statements_per_vm"]) == [5.0, 2.0]
    assert list(kinds["round_trips_per_vm"]) == [15.0, 6.0]
    assert list(kinds["mean_ms"]) == [2.0, 2.0]
    (service,) = rows(
        tables.Table("x", "x", summaries.statements_by_service(one.statements, one.done))
    )
    assert service["sent_kb_per_vm"] == service["received_kb_per_vm"] == 7.0
    requests = summaries.requests_by_service(one.requests, one.done).loc[0]
    assert list(requests[["requests", "mean_ms", "failed"]]) == [3, 200.0, 1]


def test_traffic_counts_what_left_a_host(tmp_path: Path) -> None:
    mono, multi = read(make_run(tmp_path / "a"), make_run(tmp_path / "b", sites=2, latency_ms=10))
    assert summaries.network_mb(mono.traffic) == {
        "network_mb": 4.0,
        "intra_mb": 4.0,
        "inter_mb": 0.0,
        "outside_mb": 7.0,
    }
    assert summaries.network_mb(multi.traffic) == {
        "network_mb": 4.0,
        "intra_mb": 3.0,
        "inter_mb": 1.0,
        "outside_mb": 7.0,
    }
    by_service = summaries.traffic_by_service(multi.traffic)
    assert list(by_service["service"]) == ["mysql", "keystone", "other"]
    assert list(by_service["inter_mb"]) == [1.0, 0.0, 0.0]
    assert list(by_service["outside_mb"]) == [0.0, 0.0, 7.0]


def test_vms_by_site_and_status(tmp_path: Path) -> None:
    (run,) = read(make_run(tmp_path, sites=2, latency_ms=10))
    frame = summaries.vms_by_site(run.vms)
    # VM i of 18 is asked for at site i % 2 + 1; those of i % 4 == 3 land at site 1: 3, 7, 11, 15.
    assert list(frame["site"]) == ["site1", "site2"]
    assert list(frame["asked"]) == [10, 10]
    assert list(frame["active"]) == [9 + 4, 9 - 4]
    assert list(frame["share"]) == pytest.approx([13 / 18, 5 / 18])
    assert list(frame["even_share"]) == [0.5, 0.5]
    statuses = summaries.vms_by_status(run.vms).set_index("status")
    assert statuses["vms"].to_dict() == {"ACTIVE": 18, "ERROR": 1, "REFUSED": 1}
    assert statuses.loc["ERROR", "error"] == "No valid host was found."


def test_sites_are_in_their_order() -> None:
    vms = pd.DataFrame(
        {"site": [f"site{n}" for n in (10, 2, 1)], "host_site": None, "status": "ERROR"}
    )
    assert list(summaries.vms_by_site(vms)["site"]) == ["site1", "site2", "site10"]


def test_whose_cpu_time_it_was(one: Measurements) -> None:
    # 150 s of the 2 x 100 that there were; 120 OpenStack's, 5 the load's, 25 others'.
    assert summaries.cpu_shares(one.record) == {
        "openstack_share": 0.8,
        "load_share": pytest.approx(1 / 30),
        "other_share": pytest.approx(1 / 6),
        "machine_busy": 0.75,
    }


def test_a_load_without_vms_is_told_by_its_rounds(tmp_path: Path) -> None:
    run = make_run(tmp_path, status="complete")
    run.update(scenario={"name": "t", "kind": "authenticate", "iterations": 12},
               vms=store.Vms(asked=0), duration_s=None)  # fmt: skip
    run.write_table("vms", [])
    place = {"region": "site1", "site": "site1", "started_at": START, "duration_s": 0.5}
    run.write_table(
        "actions",
        [{"action": "authenticate", "iteration": i, **place, "error": "no" if i == 3 else None}
         for i in range(11)],
    )  # fmt: skip
    (tokens,) = read(run)
    assert (tokens.unit, tokens.asked, tokens.done) == ("token", 12, 10)
    row = summary([tokens]).iloc[0]
    assert (row["duration_s"], row["s_per_vm"], row["vms_failed"]) == (100, 10, 2)
    assert row["cpu_ms_per_vm"] == tokens.usage["cpu_s"].sum() * 1000 / 10
    assert paper_tables.paper_tables([tokens]) == [], "they are of VMs"
    headings = {table.name: table.headings() for table in run_tables.run_tables(tokens)}
    assert "round trips per token" in headings["statements"]
    assert "CPU-ms per token" in run_tables.costs([tokens]).headings()
    assert ("10 of 12", "tokens") in facts.headline(tokens)
    assert dict(facts.facts(tokens))["tokens"] == "12 asked for, 10 well"
    assert "token" in report.write_html(tmp_path / "page.html", [tokens]).read_text()


def test_actions_by_name(one: Measurements) -> None:
    (boot,) = rows(tables.Table("x", "x", summaries.actions_by_name(one.actions)))
    assert (boot["action"], boot["actions"], boot["failed"]) == ("boot", 20, 2)
    assert boot["mean_s"] == pytest.approx((sum(2 + 0.99 * i for i in range(18)) + 2 * 5) / 20)


def test_round_trips_before_and_after(tmp_path: Path) -> None:
    (run,) = read(make_run(tmp_path, sites=3, latency_ms=10))
    assert len(run.round_trips) == 2 * 3
    table = next(table for table in run_tables.run_tables(run) if table.name == "links")
    before, after = rows(table)
    assert (before["phase"], after["phase"]) == ("before the load", "after the load")
    assert (before["pairs"], before["requested_ms"], before["observed_ms"]) == (3, "20", 20.5)
    assert before["worst_error_ms"] == 0.5


# ---------------------------------------------------------------- the paper's tables


def test_every_published_value_is_there_once() -> None:
    counts = {table: len(paper.published(table)) for table in range(1, 7)}
    assert counts == {1: 4, 2: 4, 3: 12, 4: 8, 5: 4, 6: 4}
    cells = [paper_tables.published_cell(value) for value in paper.PUBLISHED]
    numbered = list(zip([value.table for value in paper.PUBLISHED], cells, strict=True))
    assert len(set(numbered)) == len(numbered)
    assert {value.source.key for value in paper.PUBLISHED} == {"talk", "ic2e"}
    galera = [value for value in paper.PUBLISHED if value.backend == "galera"]
    assert {value.source for value in galera} == {paper.IC2E}
    assert {value.latency_ms for value in galera} == {10}


def test_table_1(tmp_path: Path) -> None:
    runs = read(
        make_run(tmp_path / "a"),
        make_run(tmp_path / "b", backend="redis", data=4, replicas=1, calls_ms=(1.0, 2.0, 3.0)),
    )
    mysql, redis = rows(paper_tables.table_1(runs))
    assert (mysql["configuration"], mysql["backend"]) == ("1 node", "mysql")
    assert (mysql["measured_ms"], mysql["call_median_ms"]) == (30.0, 25.0)
    assert (mysql["published_ms"], mysql["source"]) == (37, "[talk]")
    assert math.isnan(mysql["low"])
    assert (redis["configuration"], redis["published_ms"]) == ("4 nodes + 1 replica", 91)
    assert redis["measured_ms"] == (1 + 2 + 3 + 20) / 3


ROME = {
    "rome": {"store": "server", "persistence": "everysec", "replicas": 0},
    "databases": {"nova": "rome", "nova_api": "rome", "neutron": "mysql"},
    "nodes": 1,
}
ROME_CLUSTER: dict[str, Any] = {
    **ROME, "rome": {"store": "cluster", "persistence": "always", "replicas": 1}, "nodes": 8
}  # fmt: skip


def test_rome_stands_beside_what_was_published_for_redis(tmp_path: Path) -> None:
    runs = read(
        make_run(tmp_path / "a", backend="rome", more_options=ROME),
        make_run(tmp_path / "b", sites=8, latency_ms=50, backend="rome", data=8,
                 more_options=ROME_CLUSTER),
        make_run(tmp_path / "c", sites=2, latency_ms=10, backend="rome", data=2,
                 more_options=ROME),
    )  # fmt: skip
    table = paper_tables.table_1(runs)
    (first,) = rows(table)
    assert (first["backend"], first["configuration"], first["published_ms"]) == (
        "rome",
        "1 node",
        83,
    )
    assert any(note.startswith("Beside rome stands what was published for redis") for note in
               table.notes)  # fmt: skip
    assert rows(paper_tables.table_5(runs))[0]["published_mb"] == 2190
    (fourth,) = rows(paper_tables.table_4(runs))
    assert (fourth["configuration"], fourth["published_s"]) == ("8 nodes", 302)
    # Where the numbers of nodes differ, nothing comparable was published.
    (third,) = rows(paper_tables.table_3(runs))
    assert (third["configuration"], math.isnan(third["published_s"])) == ("1 node", True)
    # A cell that a run of ours fills isn't printed a second time.
    whole = rows(paper_tables.table_1(runs, whole=True))
    assert [(row["backend"], row["configuration"]) for row in whole] == [
        ("rome", "1 node"),
        ("mysql", "1 node"),
        ("redis", "4 nodes"),
        ("redis", "4 nodes + 1 replica"),
    ]


def test_rome_and_what_was_published_for_redis_have_one_colour(tmp_path: Path) -> None:
    runs = read(make_run(tmp_path, sites=4, latency_ms=10, backend="rome", data=4,
                         more_options={**ROME_CLUSTER, "nodes": 4}))  # fmt: skip
    figure = plots.creation_times(runs)
    assert {"rome, measured", "redis, published"} <= text_of(figure)
    assert len({bar.get_edgecolor() for bar in figure.axes[0].patches}) == 1


def test_table_2_in_all_and_by_the_vm(tmp_path: Path) -> None:
    table = paper_tables.table_2(read(make_run(tmp_path)))
    (row,) = rows(table)
    assert (row["vms_asked"], row["vms_active"], row["computes"]) == (20, 18, 6)
    assert (row["measured_s"], row["published_s"]) == (19.0, 298)
    assert row["s_per_vm"] == pytest.approx(19 / 18)
    assert row["published_s_per_vm"] == pytest.approx(298 / 500)
    assert "Not 500 VMs as published, but 20: compare what one VM took." in table.notes


def test_500_vms_need_no_note(tmp_path: Path) -> None:
    table = paper_tables.table_2(read(make_run(tmp_path, asked=500, failed=0)))
    assert rows(table)[0]["measured_s"] == 501.0
    assert not any("Not 500" in note for note in table.notes)
    assert table.cells()[0][table.headings().index("VMs")] == "500"


def test_tables_3_and_4_by_clusters_latency_and_back_end(tmp_path: Path) -> None:
    runs = read(
        make_run(tmp_path / "a", sites=2, latency_ms=10),
        make_run(tmp_path / "b", sites=2, latency_ms=10, backend="redis", data=2),
        make_run(tmp_path / "c", sites=8, latency_ms=50, backend="redis", data=8, s_per_vm=2),
        make_run(tmp_path / "d", sites=2, latency_ms=10, backend="redis", data=1),
        make_run(tmp_path / "e", sites=3, latency_ms=10),
        make_run(tmp_path / "f", sites=2, latency_ms=20),
        make_run(tmp_path / "g"),
    )
    third = rows(paper_tables.table_3(runs))
    told = [(r["clusters"], r["backend"], r["configuration"], r["published_s"]) for r in third]
    assert told[:1] == [(2, "redis", "1 node", pytest.approx(math.nan, nan_ok=True))]
    assert told[1:3] == [(2, "redis", "2 nodes", 271), (2, "mysql", "1 node", 209)]
    assert told[3][:2] == (3, "mysql")  # three clusters weren't published
    assert math.isnan(told[3][3])
    assert third[1]["rtt_ms"] == 20.5
    (fourth,) = rows(paper_tables.table_4(runs))
    assert (fourth["clusters"], fourth["measured_s"], fourth["published_s"]) == (8, 37.0, 302)
    (other,) = rows(paper_tables.other_latencies(runs))
    assert (other["latency_ms"], other["measured_s"]) == (20, 19.0)
    assert "published_s" not in other


def test_table_5_within_and_between_sites(tmp_path: Path) -> None:
    mono, multi = rows(
        paper_tables.table_5(
            read(make_run(tmp_path / "a"), make_run(tmp_path / "b", sites=2, latency_ms=10))
        )
    )
    assert (mono["measured_mb"], mono["intra_mb"], mono["inter_mb"]) == (4.0, 4.0, 0.0)
    assert (mono["published_mb"], mono["published_mb_per_vm"]) == (1794, 1794 / 500)
    assert (multi["clusters"], multi["inter_mb"]) == (2, 1.0)
    assert math.isnan(multi["published_mb"])


def test_table_6_with_and_without_aggregates(tmp_path: Path) -> None:
    options: dict[str, Any] = {"sites": 4, "latency_ms": 10, "backend": "redis", "data": 4}
    runs = read(
        make_run(tmp_path / "a", **options),
        make_run(tmp_path / "b", **options, placement="availability-zones", s_per_vm=2),
    )
    with_, without = rows(paper_tables.table_6(runs))
    assert (with_["aggregates"], with_["measured_s"], with_["published_s"]) == ("with", 37.0, 582)
    assert (without["aggregates"], without["measured_s"], without["published_s"]) == (
        "without",
        19.0,
        532,
    )
    # The published values of tables 3 and 6 disagree: each stands in its own table.
    (third,) = rows(paper_tables.table_3(runs))
    assert third["published_s"] == 263
    names = [table.name for table in paper_tables.paper_tables(runs)]
    assert names == ["table-3", "table-5", "table-6"]
    assert "table-6" not in [table.name for table in paper_tables.paper_tables(runs[:1])]


def test_clouds_with_cells_stand_beside_those_that_share_one(tmp_path: Path) -> None:
    options: dict[str, Any] = {"sites": 2, "latency_ms": 10}
    cells: dict[str, Any] = {"more_options": {"layout": "cells"}}
    runs = read(
        make_run(tmp_path / "a", **options),
        make_run(tmp_path / "b", **options, **cells, s_per_vm=2),
        make_run(tmp_path / "c", sites=4, latency_ms=10),
        make_run(tmp_path / "d", **options, placement="availability-zones"),
    )
    told = [(row["layout"], row["measured_s"]) for row in rows(paper_tables.cells_table(runs))]
    assert told == [("shared", 19.0), ("cells", 37.0)]
    assert len(rows(paper_tables.table_3(runs))) == 2, "the one with cells isn't the paper's"
    assert [row["aggregates"] for row in rows(paper_tables.table_6(runs))] == [
        "with", "without", "without",
    ]  # fmt: skip
    names = [table.name for table in paper_tables.paper_tables(runs)]
    assert names == ["table-3", "table-5", "table-6", "cells"]
    assert not rows(paper_tables.cells_table(runs[:1]))


def test_a_cell_of_ours_that_is_empty_is_explained(tmp_path: Path) -> None:
    options: dict[str, Any] = {"sites": 2, "latency_ms": 10}
    single = make_run(tmp_path / "a", **options)
    notes = paper_tables.table_3(read(single)).notes
    assert not any(note.startswith("No ") for note in notes), "no column has an empty cell"
    runs = read(
        single,
        make_run(tmp_path / "b", **options, backend="galera", probes=["traffic"]),
        make_run(tmp_path / "c", **options, backend="galera", probes=["traffic"],
                 started="2026-11-23T16:00:01Z"),
    )  # fmt: skip
    notes = paper_tables.table_3(runs).notes
    assert "No interval: there is one run of that cell." in notes
    assert any(note.startswith("No crossings, no WAN wait: boots weren't traced") for note in notes)
    assert "Nothing measured: no run of that cell is among these." not in notes
    whole = paper_tables.table_3(runs, whole=True).notes
    assert "Nothing measured: no run of that cell is among these." in whole


def test_repeats_are_averaged_with_their_number(tmp_path: Path) -> None:
    runs = read(
        *(
            make_run(tmp_path, started=f"2026-11-23T16:00:0{n}Z", s_per_vm=s_per_vm)
            for n, s_per_vm in enumerate((1.0, 1.5, 2.0))
        )
    )
    assert [len(group) for group in groups(runs)] == [3]
    (row,) = rows(paper_tables.table_2(runs))
    durations = [18 * s + 1 for s in (1.0, 1.5, 2.0)]  # 19, 28, 37
    assert (row["runs"], row["numbers"]) == (3, "#1 #2 #3")
    assert row["measured_s"] == sum(durations) / 3
    assert (row["low"], row["high"]) == (19.0, 37.0)
    spread = run_tables.repeats(runs).frame.set_index("quantity")
    assert list(spread.loc["time to create, s", ["runs", "mean", "deviation"]]) == [3, 28.0, 9.0]


@pytest.mark.parametrize(
    "changes",
    [
        {"asked": 30},
        {"probes": ("usage",)},
        {"data": 3},
        {"status": "partial", "reason": "killed"},
        {"sites": 2, "latency_ms": 10.0},
    ],
    ids=str,
)
def test_what_differs_isnt_a_repeat(changes: dict[str, Any], tmp_path: Path) -> None:
    runs = read(
        make_run(tmp_path, plan="aaaa"),
        make_run(tmp_path, started="2026-11-23T16:00:01Z", **changes),
        make_run(tmp_path, started="2026-11-23T16:00:02Z", plan="bbbb"),
    )
    assert [[run.number for run in group] for group in groups(runs)] == [[1, 3], [2]]


def test_labels_tell_groups_apart(tmp_path: Path) -> None:
    runs = read(
        make_run(tmp_path / "a"),
        make_run(tmp_path / "b", asked=30, started="2026-11-23T16:00:01Z"),
        make_run(
            tmp_path / "c",
            sites=2,
            latency_ms=10,
            backend="redis",
            data=4,
            started="2026-11-23T16:00:02Z",
        ),
    )
    assert list(labels(runs).values()) == [
        "mysql, 1 site (#1)",
        "mysql, 1 site (#2)",
        "redis, 4 nodes, 2 sites, 10 ms",
    ]
    assert label(runs[2].record, with_latency=False) == "redis, 4 nodes, 2 sites"


def test_partial_runs_have_rows_of_their_own_that_say_so(tmp_path: Path) -> None:
    runs = read(
        make_run(tmp_path / "a"),
        make_run(
            tmp_path / "b",
            status="partial",
            reason="interrupted",
            s_per_vm=9,
            started="2026-11-23T16:00:01Z",
        ),
        make_run(tmp_path / "c", status="running", started="2026-11-23T16:00:02Z"),
    )
    table = paper_tables.table_2(runs)
    assert [(r["numbers"], r["status"]) for r in rows(table)] == [("#1", ""), ("#2 #3", "PARTIAL")]
    assert rows(table)[0]["measured_s"] == 19.0
    assert any("PARTIAL" in note for note in table.notes)
    notes = run_tables.overview(runs).notes
    assert notes == (
        "#2 is PARTIAL: interrupted.",
        "#3 is PARTIAL: it has not ended, or was killed.",
    )


def test_whole_tables_have_every_published_value(tmp_path: Path) -> None:
    runs = read(make_run(tmp_path))
    whole = {table.name: table for table in paper_tables.paper_tables(runs, whole=True)}
    for number in range(1, 7):
        frame = whole[f"table-{number}"].frame
        column = next(name for name in frame if str(name).startswith("published_"))
        shown = sorted(frame[column].dropna())
        assert shown == sorted(value.value for value in paper.published(number))
    first = [row["configuration"] for row in rows(whole["table-1"])]
    assert first == ["1 node", "1 node", "4 nodes", "4 nodes + 1 replica"]


# ---------------------------------------------------------------- what is missing


def test_a_run_without_probes_has_what_the_load_saw(tmp_path: Path) -> None:
    runs = read(make_run(tmp_path, probes=()))
    assert [table.name for table in paper_tables.paper_tables(runs)] == ["table-2"]
    assert [table.name for table in run_tables.run_tables(runs[0])] == ["vms", "sites", "actions"]
    row = runs[0].figures
    assert row["duration_s"] == 19.0
    for column in ("call_mean_ms", "cpu_ms_per_vm", "round_trips_per_vm", "network_mb"):
        assert row[column] is None


def test_empty_tables_are_no_figures(tmp_path: Path) -> None:
    run = make_run(tmp_path, failed=20, status="partial", reason="no VM came up")
    for table in ("vms", "actions", "calls", "requests", "statements", "traffic", "messages",
                  "usage", "spans", "series"):  # fmt: skip
        run.write_table(table, [])
    (read_run,) = read(run)
    assert run_tables.run_tables(read_run) == []
    assert paper_tables.table_1([read_run]).frame.empty
    assert paper_tables.table_2([read_run]).frame.empty
    row = summary([read_run]).iloc[0]
    assert row["network_mb"] == 0  # it was measured, and nothing was sent
    assert math.isnan(row["call_mean_ms"] or math.nan)
    assert row["cpu_ms_per_vm"] is None


def test_when_no_vm_got_active_nothing_is_divided_by_it(tmp_path: Path) -> None:
    (run,) = read(make_run(tmp_path, failed=20))
    assert run.figures["duration_s"] is None
    assert run.figures["s_per_vm"] is None
    assert run.figures["cpu_ms_per_vm"] is None
    assert summaries.cpu_by_service(run.usage, 0)["cpu_ms_per_vm"].isna().all()
    assert [table.name for table in paper_tables.paper_tables([run])] == ["table-1", "table-5"]


def test_runs_are_read_once_however_they_are_named(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert len(read_runs([tmp_path, run.folder, run.folder.parent])) == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(Refused, match="empty: there is no run under it"):
        read_runs([tmp_path / "empty"])


# ---------------------------------------------------------------- cells


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.01234, "0.0123"), (0.9999, "1.00"), (1.234, "1.23"), (9.999, "10.0"),
     (12.34, "12.3"), (99.96, "100"), (1234.5, "1234"), (-2.07, "-2.07"), (1.4e-16, "1.4e-16")],
)  # fmt: skip
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert tables.digits(value) == text


def test_cells_say_what_they_hold() -> None:
    frame = pd.DataFrame(
        {
            "clusters": [2],
            "runs": [3],
            "numbers": ["#1 #2 #3"],
            "share": [0.255],
            "calls": [4.0],
            "lazy": [True],
            "measured_s": [math.nan],
            "low": [1.0],
            "high": [2.0],
            "vms_asked": [20.0],
            "vms_active": [18.5],
            "status": [""],
        }
    )
    table = tables.Table("t", "T", frame)
    assert dict(zip(table.headings(), table.cells()[0], strict=True)) == {
        "clusters": "2",
        "which": "#1 #2 #3",
        "share": "26 %",
        "calls": "4",
        "lazy": "yes",
        "measured, s": "-",
        "interval": "1.00 to 2.00",
        "VMs": "18.5 of 20",
    }
    assert "<td>18.5 of 20</td>" in table._repr_html_()


# ---------------------------------------------------------------- figures

Draw = Callable[[Sequence[Measurements], plots.Theme], Figure]
FIGURES: dict[str, Draw] = {
    "creation_times": plots.creation_times,
    "response_times": plots.response_times,
    "timeline": plots.timeline,
    "cpu_shares": plots.cpu_shares,
    "vms_by_site": lambda runs, theme: plots.vms_by_site(runs[0], theme),
    "traffic_by_service": lambda runs, theme: plots.traffic_by_service(runs[0], theme),
    "cpu_by_service": lambda runs, theme: plots.cpu_by_service(runs[0], theme),
}


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("theme", [plots.LIGHT, plots.DARK], ids=["light", "dark"])
def test_figures_are_drawn_whatever_was_measured(
    name: str, theme: plots.Theme, tmp_path: Path
) -> None:
    several = [
        make_run(
            tmp_path,
            started=f"2026-11-23T16:0{sites}:0{n}Z",
            sites=sites,
            latency_ms=latency_ms,
            backend=backend,
            data=sites,
        )
        for sites in (2, 4)
        for n, (latency_ms, backend) in enumerate(
            [(10, "mysql"), (10, "redis"), (50, "redis"), (20, "galera")]
        )
    ]
    empty = make_run(tmp_path / "empty", probes=(), failed=20)
    empty.write_table("vms", [])
    for runs in (several[:1], several, [empty], [empty, several[0]]):
        figure = FIGURES[name](read(*runs), theme)
        root = ET.fromstring(drawing.image(figure, "svg"))
        assert root.tag.endswith("svg")


def without_ids(svg: str) -> str:
    """An SVG without the names that matplotlib makes of what a pattern or marker looks like."""
    return re.sub(r"\b[hmp][0-9a-f]{10}\b", "ID", svg)


@pytest.mark.parametrize("name", FIGURES)
def test_a_darkened_figure_is_as_one_drawn_in_dark(name: str, tmp_path: Path) -> None:
    runs = read(make_run(tmp_path, sites=2, latency_ms=10, backend="galera", data=2))
    light, dark = (
        drawing.image(FIGURES[name](runs, theme), "svg").decode()
        for theme in (plots.LIGHT, plots.DARK)
    )
    assert without_ids(drawing.darkened(light)) == without_ids(dark) != without_ids(light)
    sources = drawing.data_uris(FIGURES[name](runs, plots.LIGHT))
    assert all(each.startswith("data:image/svg+xml;base64,") for each in sources)


def test_equal_figures_are_equal_bytes(one: Measurements) -> None:
    first, second = (drawing.image(plots.timeline([one]), "svg") for _ in range(2))
    assert first == second


def text_of(figure: Figure) -> set[str]:
    axes = [text for each in figure.axes for text in
            [each.get_xlabel(), each.get_ylabel(), each.get_title(loc="left")]]  # fmt: skip
    legends = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return {*axes, *legends} - {""}


def test_axes_have_units_and_published_values_stand_beside(tmp_path: Path) -> None:
    runs = read(make_run(tmp_path, sites=2, latency_ms=10, asked=500, failed=0))
    assert text_of(plots.creation_times(runs)) == {
        "10 ms one-way",
        "500 VMs, s",
        "clusters",
        "mysql, measured",
        "mysql, published",
    }
    heights = {bar.get_height() for bar in plots.creation_times(runs).axes[0].patches}  # type: ignore[attr-defined]
    assert heights == {501.0, 209}
    assert "response time of a call, ms (log)" in text_of(plots.response_times(runs))


def test_other_numbers_of_vms_are_drawn_by_the_vm(tmp_path: Path) -> None:
    figure = plots.creation_times(read(make_run(tmp_path, sites=2, latency_ms=10)))
    assert "s per VM" in text_of(figure)
    heights = [bar.get_height() for bar in figure.axes[0].patches]  # type: ignore[attr-defined]
    assert heights == pytest.approx([19 / 18, 209 / 500])


def test_partial_runs_are_drawn_as_such(tmp_path: Path) -> None:
    runs = read(
        make_run(tmp_path, sites=2, latency_ms=10, status="partial", reason="interrupted"),
    )
    assert "mysql, measured PARTIAL" in text_of(plots.creation_times(runs))
    assert "ACTIVE (PARTIAL run)" in text_of(plots.timeline(runs))
    assert "mysql, 2 sites, 10 ms, PARTIAL" in text_of(plots.response_times(runs))


def test_many_configurations_are_told_apart_by_latency(tmp_path: Path) -> None:
    runs = read(
        *(
            make_run(
                tmp_path,
                started=f"2026-11-23T1{n}:00:00Z",
                sites=2 + n,
                latency_ms=latency_ms,
                plan=f"{n}{latency_ms}",
            )
            for n in range(4)
            for latency_ms in (10, 50)
        )
    )
    figure = plots.response_times(runs)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "10 ms one-way",
        "50 ms one-way",
    ]
    assert "mysql, 3 sites" in text_of(figure)


def test_calls_that_took_no_time_are_drawn(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.write_table("calls", [call(START + 1, 0.0), call(START + 2, 1.0)])
    ET.fromstring(drawing.image(plots.response_times(read(run)), "svg"))


def test_analysis_needs_neither_enoslib_nor_a_display() -> None:
    code = (
        "import sys; import discovery_xp.analysis.report; "
        "sys.exit(bool({'enoslib', 'ansible', 'matplotlib.pyplot'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
