"""Comparisons of runs whose numbers are known, and of the reference runs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from discovery_xp.analysis import comparison, comparison_tables, differences, reproduction
from discovery_xp.analysis.comparison import Compared, Comparison, Side
from discovery_xp.analysis.figures import FIGURES, Figure
from discovery_xp.analysis.measurements import Measurements
from discovery_xp.cli.compare import Percentage
from discovery_xp.errors import Refused
from discovery_xp.store import FORMAT, Arm, Drawn, Validity
from tests.unit.synthetic_run import make_run
from tests.unit.test_cli import discovery_xp

REFERENCE = Path(__file__).parents[2] / "results/reference/sites-2"


def started(number: int) -> str:
    return f"2026-11-23T16:{number:02d}:00Z"


def single(root: Path, name: str, **more: Any) -> Path:
    return make_run(root / name, **more).folder


def repeats(root: Path, backend: str, each_s: Sequence[float], **more: Any) -> Side:
    """A side of runs with VMs that take so long each; block by block where `blocks`."""
    blocks = more.pop("blocks", False)
    runs = []
    for number, s_per_vm in enumerate(each_s, start=1):
        arm = Arm("c", 7, ("mysql", "rome"), number, len(each_s), 1) if blocks else None
        more |= {"started": started(number), "more_record": {"arm": arm}}
        runs.append(make_run(root / backend, backend=backend, s_per_vm=s_per_vm, **more))
    return comparison.side(backend, runs)


def figure(made: Comparison, key: str) -> Compared:
    (found,) = [each for each in made.figures if each.figure.key == key]
    return found


# ---------------------------------------------------------------- sides


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    a = single(tmp_path, "a")
    mixed = tmp_path / "mixed"
    make_run(mixed, backend="mysql")
    make_run(mixed, backend="rome", started=started(1))
    with pytest.raises(Refused, match=f"are both of run {a.name}"):
        comparison.sides(a, a.parent)
    with pytest.raises(Refused, match="aren't repeats of each other: back end mysql and rome"):
        comparison.sides(a, mixed)
    (tmp_path / "empty").mkdir()
    with pytest.raises(Refused, match="there is no run under it"):
        comparison.sides(a, tmp_path / "empty")
    with pytest.raises(Refused, match="not the runs of one bench with two back ends"):
        comparison.arms(mixed)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"more_record": {"time_scale": 2.0}}, "time scale 1 and 2"),
        ({"more_record": {"format": 1}}, f"format {FORMAT} and 1"),
        ({"asked": 10}, "scenario vms 20 and 10"),
        ({"placement": "availability-zones"}, "option placement shared and availability-zones"),
    ],
)
def test_runs_of_one_side_are_never_averaged_over(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    runs = [make_run(tmp_path), make_run(tmp_path, started=started(1), **change)]
    with pytest.raises(Refused, match=words):
        comparison.side("x", runs)


def test_versions_and_partial_runs_of_a_side_are_named_and_not_refused(tmp_path: Path) -> None:
    runs = [make_run(tmp_path), make_run(tmp_path, started=started(1), status="partial",
                                         reason="a reason")]  # fmt: skip
    a = comparison.side("a", runs)
    b = comparison.side("b", [make_run(tmp_path / "b")])
    made = comparison.compare(a, b)
    assert [(each.setting, each.a, each.b) for each in made.differences] == [
        ("status", ("complete", "PARTIAL: a reason"), ("complete",))
    ]
    assert any("PARTIAL: a reason" in note for note in made.notes)


# ---------------------------------------------------------------- differences


def test_differences_come_first_with_each_sides_values(tmp_path: Path) -> None:
    a = comparison.side("a", [make_run(tmp_path / "a", sites=2, latency_ms=10)])
    b = comparison.side("b", [make_run(tmp_path / "b", sites=2, latency_ms=50, backend="rome",
                                       more_options={"workers": {"nova-api": 4}},
                                       more_record={"drawn": Drawn(3, "abc")})])  # fmt: skip
    made = comparison.compare(a, b)
    assert [(each.setting, each.a, each.b) for each in made.differences] == [
        ("back end", ("mysql",), ("rome",)),
        ("links", ("10 ms, by vde",), ("50 ms, by vde",)),
        ("placement drawn", ("-",), ("abc from seed 3",)),
        ("option workers nova-api", ("-",), ("4",)),
    ]
    assert [table.name for table in comparison_tables.tables_of(made)] == [
        "differences", "comparison",
    ]  # fmt: skip


def test_a_plan_is_named_only_where_nothing_else_explains_it(tmp_path: Path) -> None:
    def found(**more: Any) -> list[str]:
        a = Measurements(make_run(tmp_path / f"a{len(more)}"))
        b = Measurements(make_run(tmp_path / f"b{len(more)}", plan="abcdef", **more))
        return [each.setting for each in differences.differences([a], [b])]

    assert found() == ["plan (see plan.json)"]
    assert found(backend="rome") == ["back end"]


# ---------------------------------------------------------------- figures


def test_runs_of_one_block_are_paired(tmp_path: Path) -> None:
    """B takes twice as long in each block, whatever the block does: no spread is left."""
    a = repeats(tmp_path, "mysql", [1.0, 2.0, 3.0], blocks=True)
    b = repeats(tmp_path, "rome", [2.0, 4.0, 6.0], blocks=True)
    made = comparison.compare(a, b)
    assert made.pairs == ((0, 0), (1, 1), (2, 2))
    load = figure(made, "duration_s")
    # 18 VMs, one each so many seconds, and one second before them.
    assert load.points_a == (19.0, 37.0, 55.0) and load.points_b == (37.0, 73.0, 109.0)
    assert load.ratio == pytest.approx((37 * 73 * 109 / (19 * 37 * 55)) ** (1 / 3))
    assert load.interval is not None
    assert (load.interval.low, load.interval.high) == pytest.approx((37 / 19, 109 / 55))
    assert load.interval.confidence == 0.75
    assert load.over == "3 pairs of runs" and load.more_runs == 0
    assert load.delta == pytest.approx(6 / 9), "7 of 9 are above, 1 below, 1 is equal"
    apart = comparison.compare(repeats(tmp_path / "x", "mysql", [1.0, 2.0, 3.0]),
                               repeats(tmp_path / "x", "rome", [2.0, 4.0, 6.0]))  # fmt: skip
    unpaired = figure(apart, "duration_s")
    assert apart.pairs == () and unpaired.over == "3 and 3 runs"
    assert unpaired.ratio == pytest.approx(load.ratio)
    assert unpaired.interval is not None
    assert unpaired.interval.low < 1 < unpaired.interval.high, "blocks differ more than arms"
    assert unpaired.interval.confidence == pytest.approx(0.9)
    assert unpaired.more_runs is not None and unpaired.more_runs > 100


def test_a_run_without_a_partner_is_left_out_of_pairs(tmp_path: Path) -> None:
    a = repeats(tmp_path, "mysql", [1.0, 2.0, 3.0], blocks=True)
    b = repeats(tmp_path, "rome", [2.0, 4.0], blocks=True)
    made = comparison.compare(a, b)
    assert made.pairs == ((0, 0), (1, 1))
    assert "Runs are paired by block: 2 pairs; 1 without a partner are left out." in made.notes
    assert any("at most 50 %" in note for note in made.notes)


def test_single_runs_say_what_their_interval_covers(tmp_path: Path) -> None:
    a = comparison.side("a", [make_run(tmp_path / "a")])
    b = comparison.side("b", [make_run(tmp_path / "b", s_per_vm=2.0)])
    made = comparison.compare(a, b)
    boot = figure(made, "boot_median_s")
    assert boot.over == "18 VMs and 18 VMs" and boot.more_runs is None
    assert boot.interval is not None and boot.ratio is not None
    assert boot.interval.low < boot.ratio < boot.interval.high
    assert boot.delta is not None and 0 < boot.delta < 1
    counts = figure(made, "round_trips_per_vm")
    assert (counts.ratio, counts.interval, counts.delta) == (1.0, None, None)
    (note,) = [each for each in made.notes if "single run on each side" in each]
    assert "not how one run differs from the next" in note


def test_vms_of_one_draw_are_paired(tmp_path: Path) -> None:
    """Each VM of B takes 1 % longer than the same of A: only pairs show it."""

    def run(name: str, seed: int, longer: float) -> Side:
        made = make_run(tmp_path / name, more_record={"drawn": Drawn(seed, "abc")})
        rows = made.table("vms").to_pylist()
        for row in rows:
            if row["boot_duration_s"] is not None:
                row["boot_duration_s"] *= longer
        made.write_table("vms", rows)
        return comparison.side(name, [made])

    paired = figure(comparison.compare(run("a", 1, 1.0), run("b", 1, 1.01)), "boot_median_s")
    assert paired.over == "18 VMs, paired" and paired.interval is not None
    assert (paired.interval.low, paired.interval.high) == pytest.approx((1.01, 1.01))
    apart = figure(comparison.compare(run("c", 1, 1.0), run("d", 2, 1.01)), "boot_median_s")
    assert apart.interval is not None and apart.interval.low < 0.9


def test_one_run_against_repeats_says_which_side_is_single(tmp_path: Path) -> None:
    a = repeats(tmp_path, "mysql", [1.0, 1.1, 1.2])
    b = comparison.side("b", [make_run(tmp_path / "b", s_per_vm=2.0)])
    made = comparison.compare(a, b)
    boot = figure(made, "boot_median_s")
    assert boot.over == "3 runs and 18 VMs" and boot.delta is None
    assert boot.interval is not None and boot.interval.confidence == 0.75
    assert any("single run on one side" in note for note in made.notes)


def test_the_same_seed_gives_the_same_numbers_and_more_figures_change_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = comparison.side("a", [make_run(tmp_path / "a")])
    b = comparison.side("b", [make_run(tmp_path / "b", s_per_vm=2.0)])
    first = comparison.to_json(comparison.compare(a, b))
    assert comparison.to_json(comparison.compare(a, b)) == first
    more = (Figure("vms_per_s", "VMs per second", "time"), *FIGURES)
    monkeypatch.setattr(comparison, "FIGURES", more)
    again = comparison.to_json(comparison.compare(a, b))
    assert again["figures"][1:] == first["figures"] and first["seed"] == 1
    assert json.loads(json.dumps(first)) == json.loads(json.dumps(first)), "plain values"


def test_other_time_scales_compare_counts_only(tmp_path: Path) -> None:
    a = comparison.side("a", [make_run(tmp_path / "a")])
    b = comparison.side("b", [make_run(tmp_path / "b", more_record={"time_scale": 4.0})])
    made = comparison.compare(a, b)
    assert {each.figure.kind for each in made.figures} == {"count"}
    assert any("Time scale 1 and 4: only counts are compared" in note for note in made.notes)


def test_seconds_of_other_time_scales_are_compared_where_all_verdicts_are_good(
    tmp_path: Path,
) -> None:
    def side(name: str, scale: float, verdict: Literal["good", "busy"]) -> Side:
        validity = Validity(verdict, 0.5, 0.0, 0.0, 0.6, 10, 1.0, 2, 1.5, {}, {}, None, None)
        record = {"time_scale": scale, "validity": validity}
        run = make_run(tmp_path / name, s_per_vm=scale, more_record=record)
        return comparison.side(name, [run])

    good = comparison.compare(side("a", 1.0, "good"), side("b", 2.0, "good"))
    boot = figure(good, "boot_median_s")
    # A clock showed twice as much: 2 (i + 1) s and one second before, from requests 10 ms apart.
    assert boot.ratio == pytest.approx(1.0, abs=0.06)
    by_vm = boot.figure.by_vm(good.b.runs[0])
    assert by_vm is not None and float(by_vm.median()) == pytest.approx(boot.value_b)
    assert any("seconds are those of the cloud" in note for note in good.notes)
    busy = comparison.compare(side("c", 1.0, "good"), side("d", 2.0, "busy"))
    assert {each.figure.kind for each in busy.figures} == {"count"}
    assert any("d is busy" in note or "is busy: its machine was full" in note
               for note in busy.notes)  # fmt: skip


def test_what_was_not_measured_is_not_compared(tmp_path: Path) -> None:
    a = comparison.side("a", [make_run(tmp_path / "a", probes=("usage",))])
    b = comparison.side("b", [make_run(tmp_path / "b")])
    keys = {each.figure.key for each in comparison.compare(a, b).figures}
    assert keys == {"boot_median_s", "boot_p90_s", "duration_s", "cpu_ms_per_vm"}


def ys(line: Any) -> list[float]:
    return [float(y) for y in line.get_ydata()]


def test_every_point_is_plotted(tmp_path: Path) -> None:
    a = repeats(tmp_path, "mysql", [1.0, 2.0, 3.0], blocks=True)
    b = repeats(tmp_path, "rome", [2.0, 4.0, 6.0], blocks=True)
    made = comparison.compare(a, b)
    drawn = comparison_tables.figure_of(made)
    panels = [axes for axes in drawn.axes if axes.get_visible()]
    assert [axes.get_title() for axes in panels] == [each.figure.words for each in made.figures]
    (load,) = [axes for axes in panels if axes.get_title() == "load, s"]
    points = {y for line in load.lines if line.get_marker() == "o" for y in ys(line)}
    assert points == {19.0, 37.0, 55.0, 73.0, 109.0}
    of_one = comparison_tables.figure_of(comparison.compare(
        comparison.side("a", [make_run(tmp_path / "one")]), b))  # fmt: skip
    (boots,) = [axes for axes in of_one.axes if axes.get_title() == "boot, median, s"]
    vms = [line for line in boots.lines if line.get_marker() == "."]
    assert sum(len(ys(line)) for line in vms) == 18


# ---------------------------------------------------------------- reproduction


def test_a_run_is_held_against_what_its_vms_predict(tmp_path: Path) -> None:
    old = Measurements(make_run(tmp_path / "a"))
    equal = Measurements(make_run(tmp_path / "b"))
    same = {each.figure.key: each for each in reproduction.judge(old, equal)}
    assert all(each.is_within for each in same.values())
    assert same["boot_median_s"].basis == "prediction from 18 VMs"
    assert same["round_trips_per_vm"].basis == "± 10 %, as stated"
    slow = Measurements(make_run(tmp_path / "c", s_per_vm=3.0))
    wrong = [each.figure.key for each in reproduction.judge(old, slow) if not each.is_within]
    assert wrong == ["boot_median_s", "boot_p90_s", "duration_s"]
    table = reproduction.table(reproduction.judge(old, slow))
    assert "NO" in table.cells()[0] and table.headings()[1:3] == ["then", "now"]


# ---------------------------------------------------------------- the command


@pytest.mark.parametrize("text", ["5", "x%", "-5%", "0%", "nan%", "2000%", "5%%", "%", "1e3%"])
def test_a_nonsense_percentage_is_refused(text: str) -> None:
    import click

    with pytest.raises(click.exceptions.BadParameter, match="write e"):
        Percentage().convert(text, None, None)
    assert Percentage().convert(" 2.5 %", None, None) == 0.025


def test_the_reference_runs_compare_and_fail_a_check(tmp_path: Path) -> None:
    mysql, rome = "20261126T082456Z-edae81531c02", "20261126T084501Z-3ba959d71a2b"
    a, b = str(REFERENCE / mysql), str(REFERENCE / rome)
    page = tmp_path / "points.svg"
    done = discovery_xp("compare", a, b, "--fail-over", "5%", "--json", str(tmp_path / "c.json"),
                        "--figure", str(page), home=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.index("What differs in what was run") < done.stdout.index("boot, median")
    assert "not judged, as they have no interval" in done.stderr
    assert page.stat().st_size > 1000
    written = json.loads((tmp_path / "c.json").read_text())
    boot = written["figures"][0]
    assert boot["figure"] == "boot_median_s"
    assert 0.6 < boot["low"] < boot["ratio"] < boot["high"] < 0.9
    slower = discovery_xp("compare", b, a, "--fail-over", "5%", home=tmp_path)
    assert slower.returncode == 1
    assert slower.stderr.splitlines()[-1].startswith(
        "B is worse than A by more than 5 %: boot, median, s: 1.3"
    )


def test_bad_input_is_one_line_and_code_2(tmp_path: Path) -> None:
    a = str(make_run(tmp_path / "a").folder)
    b = str(make_run(tmp_path / "b").folder)
    for arguments, words in (
        ((a, a), "are both of run"),
        ((a, str(tmp_path / "nowhere")), "no such folder"),
        ((a, b, "--fail-over", "5"), "'5' is no percentage; write e.g. 5%"),
        ((a, b, "--seed", "-1"), "Invalid value for '--seed'"),
        ((a, b, "--figure", "x.txt"), "can't be written as '.txt'; end its name in .pdf"),
    ):
        done = discovery_xp("compare", *arguments, home=tmp_path / "home")
        assert done.returncode == 2, done.stderr
        assert words in done.stderr and "Traceback" not in done.stderr
        assert len(done.stderr.splitlines()) == 1
