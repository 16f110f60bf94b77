"""Published findings beside runs whose figures are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from discovery_xp.analysis import findings
from discovery_xp.analysis.findings import FINDINGS, Judged, judge
from discovery_xp.analysis.measurements import measured
from discovery_xp.analysis.tables import digits
from discovery_xp.store import Run
from tests.unit.synthetic_run import make_run


def judged(key: str, *runs: Run) -> Judged:
    return next(each for each in judge(measured(runs)) if each.finding.key == key)


def made(folder: Path, number: int, backend: str, s_per_vm: float, **more: Any) -> Run:
    """A run of 18 VMs that takes 18 times `s_per_vm`, and a second; one node at each site."""
    sites = more.pop("sites", 2)
    more.setdefault("latency_ms", 50.0)
    return make_run(
        folder, started=f"2026-11-23T16:{number:02}:00Z", backend=backend, sites=sites,
        data=0 if backend == "mysql" else sites, s_per_vm=s_per_vm, **more,
    )  # fmt: skip


def test_each_finding_is_of_two_published_cells() -> None:
    assert len({finding.key for finding in FINDINGS}) == len(FINDINGS) == 29
    by_key = {finding.key: finding for finding in FINDINGS}
    assert by_key["table-1-1"].published == pytest.approx(83 / 37)
    assert by_key["table-4-redis-8"].published == pytest.approx(302 / 759)
    assert by_key["table-3-saturation"].published == pytest.approx(422 / 123)
    assert by_key["zones-8"].published == pytest.approx(492 / 588)
    assert "table-4-galera-2" not in by_key  # Galera wasn't published at 50 ms
    assert "sooner" in by_key["table-4-redis-8"].claim
    assert "later" in by_key["table-4-redis-2"].claim


def test_a_finding_without_runs_is_open(tmp_path: Path) -> None:
    one = judged("table-4-redis-2", made(tmp_path, 1, "rome", 1.0))
    assert (one.verdict, one.ratio) == ("open", None)
    assert "no runs of ours" in one.sentence


@pytest.mark.parametrize(
    ("rome_s", "verdict"), [(2.0, "holds"), (0.5, "does not hold"), (1.0, "no difference")]
)
def test_a_ratio_on_the_other_side_of_1_does_not_hold(
    tmp_path: Path, rome_s: float, verdict: str
) -> None:
    """Published: 723 s with Redis, 268 s with MySQL."""
    one = judged(
        "table-4-redis-2", made(tmp_path, 1, "mysql", 1.0), made(tmp_path, 2, "rome", rome_s)
    )
    assert one.verdict == verdict
    assert one.ratio == pytest.approx((18 * rome_s + 1) / 19)
    assert one.interval is None
    assert one.caveats == ("one run each", "20 VMs")
    assert "published 723 over 268 s, 2.70 times [talk]" in one.sentence


def test_repeats_give_an_interval_that_has_to_leave_out_1(tmp_path: Path) -> None:
    mysql = [made(tmp_path, number, "mysql", 1.0 + number / 100) for number in range(3)]
    near = [made(tmp_path, 10 + number, "rome", 1.0 + number / 50) for number in range(3)]
    far = [made(tmp_path, 20 + number, "rome", 2.0 + number / 100) for number in range(3)]
    assert judged("table-4-redis-2", *mysql, *near).verdict == "no difference"
    one = judged("table-4-redis-2", *mysql, *far)
    assert one.verdict == "holds"
    assert one.interval is not None
    assert one.interval.low <= (one.ratio or 0) <= one.interval.high
    assert f"({digits(one.interval.low)} to " in one.sentence


@pytest.mark.parametrize(
    "more",
    [
        {"status": "partial", "reason": "killed"},
        {"latency_ms": 10.0},
        {"sites": 4},
        {"placement": "availability-zones"},
        {"replicas": 1},
        {"asked": 30, "failed": 0},  # another load
        {"more_options": {"layout": "cells"}},
        {"more_record": {"time_scale": 2.0}},
    ],
)
def test_runs_that_do_not_fit_say_nothing(tmp_path: Path, more: dict[str, Any]) -> None:
    mysql = made(tmp_path, 1, "mysql", 1.0)
    assert judged("table-4-redis-2", mysql, made(tmp_path, 2, "rome", 2.0)).verdict == "holds"
    assert (
        judged("table-4-redis-2", mysql, made(tmp_path, 3, "rome", 2.0, **more)).verdict == "open"
    )


def test_a_finding_of_no_difference_holds_where_there_is_none(tmp_path: Path) -> None:
    """Published: 4 nodes take as long as one, 327 and 322 s."""
    one = made(tmp_path, 1, "rome", 1.0, sites=1, latency_ms=None)
    four = [
        make_run(tmp_path, started=f"2026-11-23T17:0{number}:00Z", backend="rome", data=4,
                 s_per_vm=seconds)
        for number, seconds in enumerate((1.0, 2.0))
    ]  # fmt: skip
    assert judged("table-2-2", one, four[0]).verdict == "holds"
    assert judged("table-2-2", one, four[1]).verdict == "does not hold"


def test_bytes_and_response_times_are_findings_too(tmp_path: Path) -> None:
    mysql = make_run(tmp_path, started="2026-11-23T18:00:00Z", calls_ms=(10.0, 10.0))
    rome = make_run(
        tmp_path, started="2026-11-23T18:01:00Z", backend="rome", data=1, calls_ms=(5.0, 5.0)
    )
    one = judged("quantile-75", mysql, rome)
    assert one.verdict == "holds"
    assert one.ratio == pytest.approx(0.5)
    assert judged("table-5-1", mysql, rome).verdict == "no difference"


def test_the_table_has_a_row_for_each(tmp_path: Path) -> None:
    table = findings.table(judge(measured([made(tmp_path, 1, "rome", 1.0)])))
    assert len(table.frame) == len(FINDINGS)
    assert "published, A over B" in table.headings()
    assert set(table.frame["verdict"]) == {"open"}
