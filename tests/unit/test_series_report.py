"""Series of a run as curves, a figure, a table, and text for Prometheus."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from discovery_xp.analysis import (
    drawing,
    facts,
    pictures,
    prometheus,
    run_tables,
    series,
    series_plots,
)
from discovery_xp.analysis.measurements import Measurements, measured
from discovery_xp.bench_request import choose_interval
from discovery_xp.cli.guard import run as run_guarded
from discovery_xp.cli.main import cli
from discovery_xp.errors import Refused
from discovery_xp.onhost.wire.series import METRICS
from discovery_xp.store import PROBES, MachineState, Run
from tests.unit.synthetic_run import START, make_run


def one(run: Run) -> Measurements:
    (found,) = measured([run])
    return found


@pytest.fixture
def run(tmp_path: Path) -> Measurements:
    return one(make_run(tmp_path))


@pytest.fixture
def without(tmp_path: Path) -> Run:
    """A run of a version that had no series."""
    return make_run(tmp_path, probes=[name for name in PROBES if name != "series"])


# ---------------------------------------------------------------- curves


def test_counters_become_rates_with_hosts_added_up(run: Measurements) -> None:
    curves = series.Curves(run)
    assert curves.grid[0] == 0 and curves.grid[-1] == 100 and len(curves.grid) == 21
    (cores,) = series.cores(curves, 5)
    assert cores.words == "nova-conductor", "the sampler's own aren't a service's"
    assert cores.values == pytest.approx(0.75)
    (commits,) = series.databases(curves)
    assert commits.words == "MariaDB commits"
    assert commits.values == pytest.approx(10.0)
    (throttled,) = series.throttled_shares(curves, 5)
    assert throttled.values == pytest.approx(25.0)


def test_gauges_keep_their_value_until_the_next_sample(run: Measurements) -> None:
    curves = series.Curves(run)
    (queue,) = series.queues(curves, 5)
    assert queue.words == "conductor"
    assert list(queue.values[:3]) == [1, 2, 3], "with the one that is being worked on"
    assert (queue.most, queue.values[-1]) == (11, 1)
    times, counts = series.active_vms(curves)
    assert (list(times[:3]), list(counts[-2:])) == ([0, 2, 3], [17, 18])


def test_time_is_divided_by_the_time_scale(tmp_path: Path) -> None:
    stored = make_run(tmp_path)
    stored.update(time_scale=4.0, sample_every_s=1.25)
    curves = series.Curves(one(stored))
    assert curves.grid[-1] == 25
    (commits,) = series.databases(curves)
    assert commits.values == pytest.approx(40.0)


def test_what_is_too_much_for_a_panel_is_added_up() -> None:
    values = {f"q{number}": np.array([0.0, float(number)]) for number in range(1, 8)}
    curves = series.largest(values, 5)
    assert [curve.words for curve in curves] == ["q7", "q6", "q5", "q4", "q3", "2 others"]
    assert curves[-1].most == 3


# ---------------------------------------------------------------- figure, table, page


def test_the_figure_has_a_panel_for_all_that_was_sampled(run: Measurements) -> None:
    figure = series_plots.over_window(run)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[0] == "VMs that are ACTIVE"
    assert [title.split()[0] for title in titles[1:]] == [
        "Queues", "Databases", "Connections", "CPU", "Periods"
    ]  # fmt: skip
    assert figure.axes[-1].get_xlabel() == "time since the load began, s"
    drawing.image(figure, "svg")
    assert "the most nova-conductor, 0.750 cores" in series_plots.caption(run)


def test_a_scaled_run_says_so_at_its_axis(tmp_path: Path) -> None:
    stored = make_run(tmp_path)
    stored.update(time_scale=2.0)
    figure = series_plots.over_window(one(stored))
    assert figure.axes[-1].get_xlabel().endswith("divided by the time scale 2")


def test_the_report_shows_series_and_the_machine_before(tmp_path: Path) -> None:
    stored = make_run(tmp_path)
    state = MachineState("", 2, 0.25, 0.1, 2**34, None, 2450.0, "tsc", 0.0, 0.0)
    stored.update(machines_before=(state,), sample_every_s=5.0)
    run = one(stored)
    said = dict(facts.facts(run))
    assert said["before"] == (
        "load 0.25 on 2 processors, 0.1 % stolen, 16.0 GiB of memory available, 2450 MHz, "
        "governor unknown, clock tsc, shared by all hosts"
    )
    assert "Series over the window" in [picture.title for picture in pictures.pictures_of([run])]
    (table,) = [table for table in run_tables.run_tables(run) if table.name == "series"]
    rows = {row["series"]: row for row in table.frame.to_dict("records")}
    assert rows["MariaDB commits"]["mean"] == pytest.approx(10.0)
    assert rows["CPU of the sampling itself"]["mean"] == pytest.approx(0.002)


def test_machines_with_clocks_of_their_own_are_compared(tmp_path: Path) -> None:
    stored = make_run(tmp_path)
    state = MachineState("a", 2, 0.25, None, 2**34, "powersave", None, None, -0.5, 0.1)
    other = dataclasses.replace(state, host="b", load_1min=3.0, clock_offset_ms=0.25)
    stored.update(machines_before=(state, other))
    words = dict(facts.facts(one(stored)))["before"]
    assert "load 3.00" in words and "clocks within 0.75 ms, each read to 0.10 ms" in words
    assert words.endswith("(b, the busiest)")


def test_a_run_without_series_is_reported_as_before(without: Run) -> None:
    run = one(without)
    assert "Series over the window" not in [each.title for each in pictures.pictures_of([run])]
    assert "series" in facts.missing(run)
    (axes,) = series_plots.over_window(run).axes
    assert [text.get_text() for text in axes.texts] == ["Series were not sampled."]
    assert not [table for table in run_tables.run_tables(run) if table.name == "series"]


# ---------------------------------------------------------------- Prometheus

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = rf'{NAME}="(?:[^"\\\n]|\\["\\n])*"'
SAMPLE = re.compile(rf"({NAME})\{{({LABEL}(?:,{LABEL})*)\}} (-?[0-9.e+-]+) ([0-9]+\.[0-9]{{3}})")


def strictly_parsed(text: str) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Return samples by name and labels, as OpenMetrics 1.0 has them; fails on anything else.

    A family's HELP, TYPE and UNIT come first, each once; the unit ends its name; a counter's
    samples have the suffix `_total` and a gauge's none; a metric's samples are together, their
    times grow, counters don't shrink; the last line is `# EOF`.
    """
    assert text.endswith("# EOF\n") and text.count("\n# EOF") == 1 and "\r" not in text
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    about: dict[str, str] = {}
    family, last = "", ""
    seen: set[str] = set()
    for line in text.splitlines()[:-1]:
        if match := re.fullmatch(rf"# (HELP|TYPE|UNIT) ({NAME}) (.+)", line):
            kind, name, words = match.groups()
            if name != family:
                assert name not in seen, f"{name} is interleaved"
                family, about = name, {}
                seen.add(name)
            assert kind not in about and not about.get("samples"), line
            about[kind] = words
            continue
        match = SAMPLE.fullmatch(line)
        assert match, line
        name, labels, value, at = match.groups()
        about["samples"] = "yes"
        assert about["TYPE"] in ("counter", "gauge") and about["HELP"]
        assert name == family + ("_total" if about["TYPE"] == "counter" else "")
        assert "UNIT" not in about or family.endswith(f"_{about['UNIT']}")
        if unit := re.search(r"_(seconds|bytes)$", family):
            assert about["UNIT"] == unit[1]
        names = re.findall(rf'({NAME})="', labels)
        assert len(set(names)) == len(names)
        series_ = found.setdefault(name, {})
        key = f"{name}{labels}"
        assert key == last or labels not in series_, "a metric's samples aren't together"
        last = key
        points = series_.setdefault(labels, [])
        assert not points or points[-1][0] < float(at), "times don't grow"
        if about["TYPE"] == "counter":
            assert float(value) >= (points[-1][1] if points else 0)
        points.append((float(at), float(value)))
    return found


def exported(runs: Sequence[Run]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    return strictly_parsed(prometheus.text(measured(runs)))


def test_series_are_what_openmetrics_allows(tmp_path: Path) -> None:
    stored = make_run(tmp_path)
    found = exported([stored])
    cpu = found["discovery_xp_cpu_seconds_total"]
    (labels,) = [each for each in cpu if "site1-controller-2" in each]
    name = one(stored).run.name
    assert labels == (
        f'host="site1-controller-2",run="{name}",service="nova-conductor",site="site1"'
    )
    assert cpu[labels][:2] == [(START - 5, 0), (START, 1.25)]
    assert found["discovery_xp_vms_active"].popitem()[1][-1][1] == 18
    assert "discovery_xp_memory_bytes" in found and "discovery_xp_queue_ready" in found


def test_every_metric_has_a_name_of_prometheus() -> None:
    names = {name: prometheus.family_name(name) for name in METRICS}
    assert len(set(names.values())) == len(METRICS)
    for metric, name in names.items():
        assert re.fullmatch(r"discovery_xp_[a-z0-9_]+", name)
        assert not name.endswith(("_s", "_total", "_ms")), metric


def test_times_are_natural_time(tmp_path: Path) -> None:
    stored = make_run(tmp_path)
    stored.update(time_scale=5.0)
    points = exported([stored])["discovery_xp_load_1min"].popitem()[1]
    assert points[1:3] == [(START, 1.5), (START + 1, 1.5)]


def test_names_of_strangers_stay_on_their_line(tmp_path: Path) -> None:
    stored = make_run(tmp_path)
    rows = stored.table("series").to_pylist()
    for row in rows:
        row["service"] = 'x"} 1 2\n# EOF\r\n\\'
    stored.write_table("series", rows)
    found = exported([stored])
    assert len(found) > 5


def test_runs_beside_each_other_are_told_apart(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name) for name in ("a", "b")]
    runs[1].folder.rename(runs[1].folder.with_name("20261123T160001Z-1f2e3d4c5b6a"))
    moved = Run(runs[1].folder.with_name("20261123T160001Z-1f2e3d4c5b6a"))
    found = exported([runs[0], moved])
    assert len({re.findall(r'run="([^"]*)"', each)[0] for each in
                found["discovery_xp_load_1min"]}) == 2  # fmt: skip


# ---------------------------------------------------------------- the command line


def test_report_writes_the_text(tmp_path: Path) -> None:
    stored = make_run(tmp_path / "results")
    file = tmp_path / "series.txt"
    done = CliRunner().invoke(cli, ["report", str(stored.folder), "--prometheus", str(file)])
    assert done.exit_code == 0, done.output
    assert strictly_parsed(file.read_text())
    assert not (stored.folder / "report.html").exists(), "what was asked for, and nothing else"


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Return what a command line is refused with: a line, and code 2."""
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["discovery-xp", *words])
        assert run_guarded(cli) == 2
    said = capsys.readouterr()
    assert "Traceback" not in said.err and said.out == ""
    return said.err.strip()


def test_a_run_without_series_has_no_text(
    without: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "x.txt"
    said = refused(capsys, "report", str(without.folder), "--prometheus", str(file))
    assert "there are no series in it" in said and "\n" not in said
    assert not file.exists()


@pytest.mark.parametrize("text", ["0.5s", "0s", "5", "often", "-3s", "nan", "1h", "5 parsecs", ""])
def test_an_interval_that_is_none_is_one_line(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, "bench", f"--sample-every={text}")
    assert "--sample-every" in said and len(said.splitlines()) == 1


def test_intervals_are_read_with_their_unit() -> None:
    assert [choose_interval(text) for text in ("1s", "5s", "0.5min", "1500ms")] == [1, 5, 30, 1.5]
    with pytest.raises(Refused, match="out of range"):
        choose_interval("999ms")
