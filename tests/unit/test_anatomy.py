"""The anatomy of boots: critical paths that are known by hand, and trees of hostile spans."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from matplotlib.patches import Rectangle

from discovery_xp.analysis import (
    anatomy,
    anatomy_plots,
    anatomy_tables,
    condensed,
    pictures,
    span_trees,
    waterfall,
)
from discovery_xp.analysis.anatomy import WITHIN, Boot
from discovery_xp.analysis.measurements import measured, summary
from discovery_xp.analysis.span_trees import MOST_DEPTH, trees
from discovery_xp.store import ACTIVITIES
from tests.unit.span_rows import SERVER_ID, boot_rows, span
from tests.unit.synthetic_run import make_run

VMS = {SERVER_ID: "vm-0"}
RTT_S = {("site1", "site2"): 0.1}
BETWEEN = "site1 - site2"


def boot_of(rows: list[dict[str, Any]], scale: float = 1.0) -> Boot:
    (boot,) = anatomy.boots(rows, VMS, RTT_S, scale)
    return boot


def names_of(boot: Boot) -> list[str]:
    """The steps of a path in order, each time that the path comes to them."""
    return [f"{each.node.kind} {each.node.name}" for each in boot.stretches]


def test_the_path_leads_from_the_request_over_messages_to_the_save_that_makes_it_active() -> None:
    boot = boot_of(boot_rows())
    assert boot.seconds == pytest.approx(3.2)
    steps = list(dict.fromkeys(names_of(boot)))
    assert steps == [
        "server POST /v2.1/servers", "client GET /v3/auth/tokens", "server GET /v3/auth/tokens",
        "cast schedule_and_build_instances", "handler schedule_and_build_instances",
        "call select_destinations", "handler select_destinations",
        "client GET /allocation_candidates", "server GET /allocation_candidates",
        "cast build_and_run_instance", "handler build_and_run_instance",
        "thread _locked_do_build_and_run_instance", "call Instance.save", "handler Instance.save",
    ]  # fmt: skip
    assert (boot.root.site, boot.host_site) == ("site2", "site2")


def test_what_its_time_went_to_is_what_can_be_counted_by_hand() -> None:
    sums = boot_of(boot_rows()).seconds_by()
    expected = {
        # All of nova-api and of its conductor: what they did besides is on the path.
        ("processor", WITHIN): 0.1 + 0.2,
        ("database", BETWEEN): 0.3,
        # Keystone's 0.05 and 0.05; Placement is where the scheduler is.
        ("http", BETWEEN): 0.1,
        ("http", WITHIN): 0.04,
        # 1.10 - 0.90 less 0.05 in the queue; 1.20 - 1.30, 1.60 - 1.70; 2.00 - 2.20; 2.40 - 2.45,
        # 2.55 - 2.60; 3.00 - 3.10.
        ("bus", BETWEEN): 0.15 + 0.2 + 0.2 + 0.1 + 0.1,
        ("queue", WITHIN): 0.05 + 0.09,
    }
    for key, seconds in expected.items():
        assert sums.pop(key) == pytest.approx(seconds, abs=1e-5), key
    assert list(sums) == [("waiting", WITHIN)]


def test_crossings_are_those_that_can_be_counted_by_hand() -> None:
    boot = boot_of(boot_rows())
    # 3 round trips; Keystone; to the broker and back; to the scheduler and back; to the broker
    # and back; a call to the broker, back, and its answer the same way; half of another.
    assert boot.crossings == 6 + 2 + 2 + 2 + 2 + 4 + 2
    assert boot.wan_wait_s == pytest.approx(boot.crossings * 0.05)
    # Besides, the last answer and the call that nobody waits for, whose handler isn't known.
    assert boot.all_crossings == boot.crossings + 2 + 2


def test_the_parts_of_a_path_add_up_to_its_duration_and_follow_each_other() -> None:
    for scale in (1.0, 4.0):
        boot = boot_of(boot_rows(), scale)
        assert boot.seconds == pytest.approx(3.2 / scale)
        assert sum(part.seconds for part in boot.parts()) == pytest.approx(boot.seconds)
        moment = 0.0
        for stretch in boot.stretches:
            assert stretch.start == pytest.approx(moment)
            moment = stretch.end
        assert moment == pytest.approx(boot.seconds)


def test_a_slowed_processor_is_no_waiting() -> None:
    rows = boot_rows()
    sums = boot_of(rows).seconds_by()
    scaled = boot_of(rows, 2.0).seconds_by()
    # What it did took as long as before; the rest of the time is halved.
    assert scaled["processor", WITHIN] == pytest.approx(sums["processor", WITHIN])
    assert scaled["database", BETWEEN] == pytest.approx(0.15)


def shaken(rng: random.Random) -> list[dict[str, Any]]:
    """The rows with other times, clocks, parents and links, as a broken or hostile host may say."""
    rows = boot_rows()
    names = [row["span"] for row in rows]
    links = [row["link"] for row in rows]
    for row in rows:
        row["at"] += rng.choice([0.0, 0.0, rng.uniform(-3, 3), 1e9])
        row["duration_ms"] *= rng.choice([1.0, 0.0, rng.uniform(0, 5), 1e9, -1.0])
        row["cpu_ms"] = rng.choice([row["cpu_ms"], rng.uniform(-10, 9000)])
        row["queued_ms"] = rng.choice([row["queued_ms"], rng.uniform(-10, 9000)])
        row["round_trips"] = rng.choice([row["round_trips"], 2**53])
        if rng.random() < 0.2:
            row["parent"] = rng.choice([*names, None, "nobody"])
        if rng.random() < 0.2:
            row["link"] = rng.choice([*links, None])
        if rng.random() < 0.1:
            row["span"] = rng.choice(names)
        if rng.random() < 0.1:
            row["server_id"] = rng.choice([SERVER_ID, "another"])
    rng.shuffle(rows)
    return rows


@pytest.mark.parametrize("seed", range(100))
def test_whatever_spans_say_a_paths_parts_add_up(seed: int) -> None:
    rng = random.Random(seed)
    for boot in anatomy.boots(shaken(rng), VMS, RTT_S, rng.choice([1.0, 3.0])):
        parts = list(boot.parts())
        assert all(part.seconds >= 0 and part.crossings >= 0 for part in parts)
        assert sum(part.seconds for part in parts) == pytest.approx(boot.seconds, abs=1e-5)


def test_spans_that_are_each_others_parents_are_in_a_tree_once() -> None:
    rows = boot_rows()
    by_name = {row["span"]: row for row in rows}
    by_name["schedule"]["parent"] = "build"
    by_name["save-1"]["link"] = "m-1"  # a handler that is its own caller's
    nodes = list(trees(rows)[SERVER_ID].walk())
    assert len({id(node) for node in nodes}) == len(nodes) <= len(rows)


def test_trees_have_an_end_below() -> None:
    rows = [span("0", 0, 1, "nova-api", "server", "POST /servers", server_id=SERVER_ID)]
    rows += [
        span(str(i), 0, 1, "nova-api", "thread", "deeper", parent=str(i - 1))
        for i in range(1, 3000)
    ]
    assert sum(1 for _ in trees(rows)[SERVER_ID].walk()) == MOST_DEPTH


def test_a_boot_that_lacks_its_end_and_one_that_is_no_vm_of_the_load_are_left_out() -> None:
    rows = [row for row in boot_rows() if not row["span"].startswith("save")]
    assert anatomy.boots(rows, VMS, RTT_S) == []
    assert anatomy.boots(boot_rows("warm-up"), VMS, RTT_S) == []


def test_a_request_without_an_answer_is_waited_for_as_a_whole() -> None:
    rows = [row for row in boot_rows() if row["span"] not in ("token", "h-select")]
    sums = boot_of(rows).seconds_by()
    assert sums["http", BETWEEN] == pytest.approx(0.2)
    assert boot_of(rows).crossings == 6 + 2 + 2 + 2 + 2 + 4 + 2


# ---------------------------------------------------------------- tables and waterfalls


def test_the_table_of_boots_adds_up_and_says_how_many_it_is_of() -> None:
    rows = boot_rows() + boot_rows("id-1", "b-")
    boots = anatomy.boots(rows, {**VMS, "id-1": "vm-1"}, RTT_S)
    table, steps = anatomy_tables.tables(boots, condensed.steps_of(boots), 3)
    frame = table.frame
    assert frame["mean_s"].iloc[:-1].sum() == pytest.approx(frame["mean_s"].iloc[-1])
    assert frame["mean_s"].iloc[-1] == pytest.approx(3.2)
    assert frame["time_share"].iloc[:-1].sum() == pytest.approx(1.0)
    assert frame["crossings_per_vm"].iloc[-1] == boots[0].crossings
    assert "2 of 3 VMs" in table.notes[0]
    assert steps.frame["mean_s"].sum() == pytest.approx(3.2)
    whole = anatomy_tables.each_boot(boots).frame
    of_activities = [f"{activity}_s" for activity in ACTIVITIES]
    assert whole[of_activities].sum(axis=1).tolist() == pytest.approx([3.2, 3.2])
    path = anatomy_tables.stretches(boots[0]).frame
    assert path["seconds"].sum() == pytest.approx(3.2)


def test_a_run_without_spans_has_no_anatomy_and_empty_figures(tmp_path: Path) -> None:
    old = make_run(tmp_path, probes=("calls", "usage"))
    new = make_run(tmp_path, started="2026-11-23T17:00:00Z", sites=2, latency_ms=50)
    runs = measured([old, new])
    frame = summary(runs)
    assert runs[0].boots == [] and anatomy_tables.tables([], {}, 5) == []
    assert frame["crossings_per_vm"].isna().tolist() == [True, False]
    assert [boot.vm for boot in runs[1].boots] == ["vm-0"]
    assert frame["wan_wait_s_per_vm"].iloc[1] == pytest.approx(20 * 0.1005 / 2)


def test_a_waterfall_shows_the_path_and_sums_up_what_is_too_short() -> None:
    boot = boot_of(boot_rows())
    shown, rest = waterfall.steps_of(boot)
    together = sum(step.seconds for step in (*shown, *rest))
    assert together == pytest.approx(boot.seconds)
    assert shown[0].node.name == "POST /v2.1/servers"
    figure = waterfall.figure(boot)
    assert len(figure.axes[0].get_yticklabels()) == len(shown)


def test_labels_of_a_waterfall_are_short_and_say_where() -> None:
    rows = boot_rows()
    rows[0]["name"] = "POST /v2.1/servers/" + "x" * 100
    labels = waterfall.figure(boot_of(rows)).axes[0].get_yticklabels()
    assert max(len(label.get_text()) for label in labels) < 64
    assert all(label.get_text().rpartition(" ")[2] in {"site1", "site2"} for label in labels)


def test_the_mean_boot_is_drawn_by_what_it_waited_for(tmp_path: Path) -> None:
    """Bars of a configuration add up to its boots' mean; a run without spans has no bar."""
    runs = measured(
        [
            make_run(tmp_path, probes=("calls", "usage")),
            make_run(tmp_path, started="2026-11-23T17:00:00Z", sites=2, latency_ms=50),
        ]
    )
    sums = anatomy_plots.mean_seconds(runs[1].boots)
    assert sum(sums.values()) == pytest.approx(runs[1].boots[0].seconds)
    between = sum(seconds for (_, is_between), seconds in sums.items() if is_between)
    assert 0 < between < runs[1].boots[0].seconds
    axes = anatomy_plots.activities(runs).axes[0]
    assert len(axes.get_yticklabels()) == 1
    widths = sum(bar.get_width() for bar in axes.patches if isinstance(bar, Rectangle))
    assert widths == pytest.approx(runs[1].boots[0].seconds)
    (picture,) = [
        each for each in pictures.pictures_of(runs) if each.title == "Where the time of a boot went"
    ]
    assert "between sites" in picture.alt
    assert anatomy_plots.by_configuration(runs[:1]) == []


def test_a_boot_of_a_million_spans_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_trees, "MOST_SPANS", 50)
    rows = boot_rows()
    rows += [span(f"x{i}", 0.5, 0.55, "nova-api", "database", "SELECT", "post") for i in range(99)]
    root = trees(rows)[SERVER_ID]
    assert sum(1 + len(node.sums) for node in root.walk()) == 50
