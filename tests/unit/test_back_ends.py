"""The benchmark of back ends: its arms can be planned, rows say what runs measured and are merged,
and tables show them."""

import importlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks import back_end_rows
from benchmarks.back_end_rows import ARMS, SHARED, Row, Settings
from discovery_xp import store
from discovery_xp.analysis.measurements import measured
from discovery_xp.inputs.scenario import parse_scenario
from discovery_xp.inputs.topology import parse_topology
from discovery_xp.load.placement import draw
from discovery_xp.planning.plan import Plan, make_plan
from discovery_xp.store import Run
from docs.generator import back_ends as tables
from tests.unit.synthetic_run import START, make_run
from tests.unit.synthetic_verification import make_verification

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
GOOD = store.Validity("good", 0.6, 0.02, 0.0, 0.9, 400, 0.25, 2, 1.5, {}, {}, None, None)
STAGES = {"booting hosts": 12.0, "controllers": 40.0, "a VM at each site": 20.0}


@pytest.fixture(scope="module")
def command() -> Iterator[Any]:
    """The script, whose neighbours are found beside it as when it is run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("benchmarks.back_ends")


def plan_of(name: str, settings: Settings | None = None) -> Plan:
    text = ARMS[name].topology(back_end_rows.testbed_of(name), settings or Settings())
    return make_plan(parse_topology(text), cloud=True)


# ---------------------------------------------------------------- arms


@pytest.mark.parametrize(
    ("name", "store_", "masters", "replicas"),
    [
        ("mysql", "server", ["site1-master-1"], 0),
        ("galera", "galera", ["site1-data-1", "site2-data-1"], 0),
        ("rome", "server", ["site1-data-1"], 0),
        ("rome-sites", "cluster", ["site1-data-1", "site2-data-1", "third-data-1"], 0),
        ("rome-4", "cluster",
         ["site1-data-1", "site1-data-2", "site2-data-1", "site2-data-2"], 0),
        ("rome-4-replica", "cluster",
         ["site1-data-1", "site1-data-2", "site2-data-1", "site2-data-2"], 4),
    ],
)  # fmt: skip
def test_an_arm_has_its_databases_where_it_says(
    name: str, store_: str, masters: list[str], replicas: int
) -> None:
    cloud = plan_of(name).require_cloud()
    (database,) = (each for each in cloud.databases if each.name == "nova")
    holder = cloud.store_of(database)
    assert holder.kind == store_
    assert [node.host for node in holder.masters] == masters
    assert len(holder.nodes) - len(holder.masters) == replicas


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_can_be_planned_and_has_the_same_load_on_the_same_computes(name: str) -> None:
    plan, arm = plan_of(name), ARMS[name]
    cloud = plan.require_cloud()
    assert (cloud.options.backend, cloud.options.layout) == (arm.backend, arm.layout)
    assert len([host for host in plan.hosts if "data" in host.roles]) == arm.data_hosts
    assert {link.link.delay_ms for link in plan.links} == {50.0}
    shares = [draw(1, each.require_cloud(), each.require_cloud().regions, [50, 50])
              for each in (plan, plan_of("mysql"))]  # fmt: skip
    assert shares[0].digest == shares[1].digest


def test_variants_of_galera_differ_from_it_in_one_option() -> None:
    def options(name: str) -> Any:
        return plan_of(name).require_cloud().options.galera

    usual = options("galera")
    assert (usual.writers, usual.sync_wait, usual.segments) == ("all", 3, True)
    assert usual.isolation == "read-committed"
    assert options("galera-gap-locks").isolation == "repeatable-read"
    assert options("galera-one-writer").writers == "one"
    assert options("galera-reads-wait").sync_wait == 1
    assert options("galera-no-wait").sync_wait == 0
    assert options("galera-no-segments").segments is False


def test_settings_are_the_scenario_and_the_hosts() -> None:
    scenario = parse_scenario(Settings(vms=6, at_once=2).scenario())
    assert (scenario.vms, scenario.concurrency, scenario.delete_after) == (6, 2, None)
    assert parse_scenario(Settings().scenario()).concurrency is None
    assert len(plan_of("mysql", Settings(computes=2)).require_cloud().computes["site2"]) == 2
    assert Settings(time_scale=4, at_once=8).is_whole
    assert not Settings(vms=99).is_whole and not Settings(computes=2).is_whole


# ---------------------------------------------------------------- what a row says of a run


def stored(root: Path, **more: Any) -> Run:
    record = {
        "validity": GOOD,
        "merging": store.Merging(True, None, 3 * 2**30, 2**30, 1.0),
        "drawn": store.Drawn(1, "0123456789ab"),
    }
    run = make_run(root, sites=2, latency_ms=50.0, more_record=record, **more)
    run.write_json("deployment.json", {"stages_s": STAGES})
    return run


def test_a_row_has_the_figures_of_its_run(tmp_path: Path) -> None:
    run = stored(tmp_path)
    (read,) = measured([run])
    row = back_end_rows.figures(read)
    assert (row["run"], row["status"], row["placement"]) == (run.name, "complete", "0123456789ab")
    assert (row["deploy_s"], row["memory_gib"], row["merged_gib"]) == (72.0, 3.0, 1.0)
    assert row["databases_mb"] == 300.0
    assert (row["asked"], row["active"], row["verdict"], row["busy"]) == (20, 18, "good", 0.6)
    assert row["per_vm"]["cpu_ms"] == 300.0  # 5.4 s
    assert row["per_vm"]["round_trips"] == 21.0  # 3 x 126
    assert row["per_vm"]["inter_mb"] == round(1 / 18, 3)
    assert row["per_vm"]["crossings"] == read.figures["crossings_per_vm"]
    assert row["boot"]["median_s"] == pytest.approx(read.figures["boot_median_s"], abs=1e-3)
    assert row["boot"]["low_s"] < row["boot"]["median_s"] < row["boot"]["high_s"]
    assert row["conflicts"]["certification_failures"] is None, "there is no Galera"
    assert row["conflicts"]["given_up"] == 0
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_a_run_that_died_early_has_a_row_without_figures(tmp_path: Path) -> None:
    run = make_run(tmp_path, asked=20, failed=20, probes=(), status="partial", reason="Rally died")
    row = back_end_rows.figures(measured([run])[0])
    assert (row["status"], row["active"], row["deploy_s"]) == ("partial", 0, None)
    assert row["boot"] == dict.fromkeys(("median_s", "low_s", "high_s", "p90_s"))
    assert set(row["per_vm"].values()) == {None}
    json.dumps(row, allow_nan=False)


def test_galeras_conflicts_are_those_of_all_nodes_and_services(tmp_path: Path) -> None:
    run = stored(tmp_path, backend="galera")
    place = {"host": "site1-data-1", "site": "site1", "service": "mariadb"}
    run.write_table(
        "series",
        [
            {"at": START + at, **place, "host": host, "metric": "db_certification_failures",
             "value": value}
            for host, values in (("site1-data-1", (7.0, 9.0)), ("site2-data-1", (0.0, 3.0)))
            for at, value in enumerate(values)
        ],
    )  # fmt: skip
    rows = run.table("statements").to_pylist()
    run.write_table("statements", [*rows, {**rows[0], "kind": "DEADLOCK", "count": 4}])
    found = back_end_rows.conflicts(measured([run])[0])
    assert found["certification_failures"] == 5
    assert found["given_up"] == 4
    assert found["brute_force_aborts"] is None


def test_a_counter_that_begins_anew_goes_on_from_there() -> None:
    def frame(*values: float) -> pd.DataFrame:
        return pd.DataFrame(
            [{"at": at, "host": "a", "service": "s", "metric": "m", "value": value}
             for at, value in enumerate(values)]
        )  # fmt: skip

    assert back_end_rows.growth(frame(5.0, 8.0, 0.0, 2.0), "m") == 5.0
    assert back_end_rows.growth(frame(5.0), "m") == 0.0
    assert back_end_rows.growth(frame(5.0), "other") is None


# ---------------------------------------------------------------- rows of a file


def row(arm: str, block: int = 1, failure: str | None = None, **more: Any) -> Row:
    """Return a row by hand, whose every figure is round."""
    base: Row = {
        "arm": arm, "block": block, "backend": ARMS[arm].backend, "layout": ARMS[arm].layout,
        "data_hosts": 2, "at": "2026-12-01T10:00:00Z", "failure": failure,
    }  # fmt: skip
    if failure is not None:
        return base | more
    return base | {
        "commit": "0123456789ab", "placement": "d", "deploy_s": 200.0, "memory_gib": 6.0,
        "databases_mb": 500.0, "asked": 100, "active": 100, "verdict": "good", "load_s": 60.0,
        "boot": {"median_s": 30.0, "low_s": 28.0, "high_s": 33.0, "p90_s": 45.0},
        "per_vm": {"crossings": 120.0, "all_crossings": 150.0, "wan_wait_s": 6.0,
                   "round_trips": 400.0, "cpu_ms": 800.0, "inter_mb": 0.5},
        "conflicts": {"certification_failures": None, "brute_force_aborts": None, "given_up": 0,
                      "flow_control_paused_s": None, "rome_conflicts": None,
                      "rome_retries": None},
    } | more  # fmt: skip


def keys(rows: list[Row]) -> list[tuple[str, int]]:
    return [(each["arm"], each["block"]) for each in rows]


def test_a_row_takes_the_place_of_that_of_its_arm_and_block() -> None:
    rows: list[Row] = []
    for each in (row("rome"), row("mysql", 2), row("mysql"), row("rome", active=7)):
        rows = back_end_rows.with_row(rows, each)
    assert keys(rows) == [("mysql", 1), ("mysql", 2), ("rome", 1)]
    assert rows[-1]["active"] == 7
    gone = {**row("mysql"), "arm": "an-arm-that-was"}
    assert keys(back_end_rows.with_row([gone], row("rome")))[-1] == ("an-arm-that-was", 1)


@pytest.mark.parametrize(
    ("again", "left"),
    [
        (None, [(1, "galera")]),
        ("failed", [(1, "rome"), (1, "galera")]),
        ("all", [(1, "mysql"), (1, "rome"), (1, "galera")]),
    ],
)
def test_runs_that_have_a_row_are_not_made_again_unless_asked_for(
    again: str | None, left: list[tuple[int, str]]
) -> None:
    order = [(1, 1, "mysql"), (1, 2, "rome"), (1, 3, "galera")]
    rows = [row("mysql"), row("rome", failure="no")]
    assert back_end_rows.pending(order, rows, again) == left


def test_a_verification_takes_the_place_of_that_of_its_back_end_and_layout(tmp_path: Path) -> None:
    rows: list[Row] = []
    for number, backend in ((1, "rome"), (0, "mysql"), (2, "rome"), (0, "rome")):
        run = make_verification(
            tmp_path / f"{backend}-{number}",
            backend=backend,
            started=f"2026-12-0{number + 1}T00:00:00Z",
        )
        made = back_end_rows.verification(measured([run])[0])
        rows = back_end_rows.with_verification(rows, made)
    assert [(each["backend"], each["layout"], each["at"][:10]) for each in rows] == [
        ("mysql", SHARED, "2026-12-01"),
        ("rome", SHARED, "2026-12-03"),
    ]
    counts = [rows[0][name] for name in ("passed", "failed", "skipped", "excluded")]
    assert counts == [2, 1, 1, 1]


# ---------------------------------------------------------------- the command


@pytest.fixture
def benched(command: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Which runs were made, none of which deploys anything: `galera` fails, the third is ended."""
    made: list[tuple[str, int]] = []

    def bench(name: str, block: int, _settings: Settings, _results: Path) -> Row:
        made.append((name, block))
        if len(made) == 3:
            raise command.Interrupted
        return row(name, block, "no quorum" if name == "galera" else None)

    monkeypatch.setattr(command, "bench", bench)
    return made


def test_the_same_command_goes_on_with_what_has_no_row(
    command: Any, benched: list[tuple[str, int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.json"
    arguments = ["--arms", "mysql,galera,rome-4", "--repeat", "2", "--json", str(file)]
    assert command.main([*arguments, "--order-seed", "3"]) == 130
    assert "goes on from here" in capsys.readouterr().err
    before = list(benched)
    assert keys(json.loads(file.read_text())["rows"]) == sorted(
        before[:-1], key=lambda key: (list(ARMS).index(key[0]), key[1])
    )
    assert command.main(arguments) == 0
    found = json.loads(file.read_text())
    assert found["order_seed"] == 3
    assert keys(found["rows"]) == [(n, b) for n in ("mysql", "galera", "rome-4") for b in (1, 2)]
    assert sorted([*before[:-1], *benched[len(before) :]]) == sorted(keys(found["rows"]))
    assert found["command"] == "benchmarks/back_ends.py --arms mysql,galera,rome-4 --repeat 2"

    benched.clear()
    assert command.main([*arguments, "--again", "failed"]) == 0
    assert sorted(benched) == [("galera", 1), ("galera", 2)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--arms", "mysql,oracle"], "--arms: no arm 'oracle'; write some of mysql, "),
        (["--repeat", "0"], "'0' is no number from 1 on"),
        (["--order-seed", "-1"], "'-1' is no number from 0 to"),
        (["--vms", "6"], "name another --json for a smaller bench"),
        (["--verifications", "/nowhere", "--arms", "none", "--json", "x.json"], "/nowhere"),
    ],
)
def test_what_can_not_be_asked_for_is_refused_in_a_line(
    command: Any, benched: list[tuple[str, int]], arguments: list[str], words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert benched == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--time-scale", "2"], "its rows have settings"),
        (["--order-seed", "4"], "its rows have order_seed 3, and not 4"),
    ],
)
def test_rows_of_another_load_or_order_are_not_mixed(
    command: Any, benched: list[tuple[str, int]], tmp_path: Path, arguments: list[str], words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    usual = ["--arms", "mysql", "--json", str(tmp_path / "rows.json")]
    assert command.main([*usual, "--order-seed", "3"]) == 0
    with pytest.raises(SystemExit):
        command.main([*usual, *arguments])
    said = capsys.readouterr().err
    assert words in said and "name another --json" in said
    assert benched == [("mysql", 1)]


def test_verifications_alone_keep_the_rows_and_their_settings(
    command: Any, benched: list[tuple[str, int]], tmp_path: Path
) -> None:
    file = ["--json", str(tmp_path / "rows.json")]
    assert command.main([*file, "--arms", "mysql", "--vms", "6", "--order-seed", "3"]) == 0
    make_verification(tmp_path / "verified")
    folder = str(tmp_path / "verified")
    assert command.main([*file, "--arms", "none", "--verifications", folder]) == 0
    found = json.loads((tmp_path / "rows.json").read_text())
    assert (found["settings"]["vms"], found["order_seed"]) == (6, 3)
    assert keys(found["rows"]) == [("mysql", 1)] == benched
    assert [each["backend"] for each in found["verifications"]] == ["mysql"]


def test_a_run_that_failed_is_a_row_with_the_reason(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISCOVERY_XP_HOME", str(tmp_path / "home"))
    said: list[tuple[int, str]] = [(2, "data hosts are too few; write 'data: 1'")]
    folder = tmp_path / "results" / "back-ends-mysql"

    def discovery_xp(*_arguments: str) -> tuple[int, str]:
        return said[0]

    monkeypatch.setattr(command, "discovery_xp", discovery_xp)
    refused = command.bench("mysql", 2, Settings(), tmp_path / "results")
    assert (refused["arm"], refused["block"], refused["exit_code"]) == ("mysql", 2, 2)
    assert refused["failure"] == "data hosts are too few; write 'data: 1'"
    assert "run" not in refused

    def partial(*_arguments: str) -> tuple[int, str]:
        make_run(folder.parent, experiment=folder.name, failed=15, status="partial",
                 reason="the API of site2 stopped")  # fmt: skip
        return 1, "the run is partial"

    monkeypatch.setattr(command, "discovery_xp", partial)
    ended = command.bench("mysql", 2, Settings(), tmp_path / "results")
    assert (ended["failure"], ended["active"]) == ("the API of site2 stopped", 5)

    def unreadable(*_arguments: str) -> tuple[int, str]:
        run = make_run(folder.parent, experiment=folder.name, started="2026-11-24T00:00:00Z")
        text = (run.folder / "run.json").read_text()
        (run.folder / "run.json").write_text(text.replace('"format": ', '"format": 99'))
        return 0, "written: report.html"

    monkeypatch.setattr(command, "discovery_xp", unreadable)
    foreign = command.bench("mysql", 2, Settings(), tmp_path / "results")
    assert foreign["failure"].startswith("Refused: ") and "format 99" in foreign["failure"]
    monkeypatch.setattr(command, "discovery_xp", lambda *_: (0, "written: report.html"))
    nothing = command.bench("mysql", 2, Settings(), tmp_path / "results")
    assert nothing["failure"] == "exit code 0, and no run"

    def complete(*arguments: str) -> tuple[int, str]:
        assert ("--placement-seed", "1") in itertools.pairwise(arguments)
        topology = parse_topology(Path(arguments[1]).read_text())
        assert topology.openstack.backend == "mysql"
        make_run(folder.parent, experiment=folder.name, started="2026-12-01T00:00:00Z")
        return 0, ""

    monkeypatch.setattr(command, "discovery_xp", complete)
    done = command.bench("mysql", 2, Settings(), tmp_path / "results")
    assert (done["failure"], done["active"], done["at"]) == (None, 18, "2026-12-01T00:00:00Z")


def test_what_ends_the_benchmark_interrupts_its_command_once(command: Any) -> None:
    code = ("import signal, sys, time\n"
            "signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))\n"
            "print('ready', flush=True)\ntime.sleep(600)")  # fmt: skip
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
                          start_new_session=True) as process:  # fmt: skip
        assert process.stdout is not None
        before = signal.getsignal(signal.SIGTERM)
        with command._passed_on(process) as came:
            assert process.stdout.readline() == "ready\n"
            os.kill(os.getpid(), signal.SIGTERM)
            assert process.wait(timeout=60) == 130
        assert came == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is before


# ---------------------------------------------------------------- tables


def found(*rows: Row, verifications: list[Row] | None = None, **settings: Any) -> dict[str, Any]:
    return {
        "cores": 2, "processor": "Some CPU", "memory_gib": 24, "order_seed": 3,
        "settings": {"vms": 100, "at_once": None, "computes": 6, "time_scale": 1.0} | settings,
        "rows": list(rows), "verifications": verifications or [],
    }  # fmt: skip


def lines_of(page: str, start: str) -> list[list[str]]:
    """Return the cells of the lines of a page that begin with a cell."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.splitlines()
        if line.startswith(f"| {start} ")
    ]


def test_an_arm_is_a_line_of_each_table() -> None:
    page = tables.page(found(row("mysql"), row("galera", conflicts={
        "certification_failures": 5.0, "brute_force_aborts": 2.0, "given_up": 7,
        "flow_control_paused_s": 0.25, "rome_conflicts": None, "rome_retries": None,
    })))  # fmt: skip
    assert page.startswith("100 VMs, all at once, 6 computes at each site, K = 1:\n\n| Arm | runs")
    whole, per_vm, conflicts = lines_of(page, "`mysql`")
    assert whole == ["`mysql`", "1", "200", "6.00", "500", "100 of 100", "good",
                     "30.0 (28.0 to 33.0)", "45.0", "60.0"]  # fmt: skip
    assert per_vm == ["`mysql`", "120", "150", "6.00", "400", "800", "0.500"]
    assert conflicts == ["`mysql`", "-", "-", "0", "-", "-", "-"]
    assert lines_of(page, "`galera`")[2] == ["`galera`", "5", "2", "7", "0.250", "-", "-"]
    assert "2 runs of 2026-12-01, order seed 3, 2 cores of Some CPU, 24 GiB; commit 012" in page
    assert "failed" not in page and "Tempest" not in page and "Not all" not in page


def test_several_runs_of_an_arm_are_their_means_and_an_interval_over_runs() -> None:
    boots = [{"median_s": seconds, "low_s": 1.0, "high_s": 99.0, "p90_s": 40.0}
             for seconds in (30.0, 32.0, 40.0)]  # fmt: skip
    rows = [row("rome", block, boot=boot, active=90 + block, deploy_s=100.0 * block,
                verdict="busy" if block == 3 else "good")
            for block, boot in enumerate(boots, start=1)]  # fmt: skip
    (whole, *_) = lines_of(tables.page(found(*rows)), "`rome`")
    assert whole[1:3] == ["3", "200"]
    assert whole[5:7] == ["276 of 300", "1 busy, 2 good"]
    median, _, interval = whole[7].partition(" (")
    low, high = (float(word) for word in interval.rstrip(")").split(" to "))
    assert median == "34.0" and 30.0 <= low < 34.0 < high <= 40.0


def test_a_run_that_failed_is_in_a_table_of_its_own_and_in_no_mean() -> None:
    failed = row("rome-4", 2, "a Redis Cluster | needs more", asked=100, active=3)
    page = tables.page(found(row("rome-4"), failed, row("mysql", failure="no space")))
    assert "Runs that failed:" in page
    assert lines_of(page, "`mysql`") == [["`mysql`", "1", "-", "no space"]]
    assert r"| `rome-4` | 2 | 3 of 100 | a Redis Cluster \| needs more |" in page
    assert lines_of(page, "`rome-4`")[0][1] == "1"
    alone = tables.page(found(row("mysql", failure="no space")))
    assert alone.startswith("Runs that failed:") and "commit unknown" in alone


def test_other_computes_are_told() -> None:
    page = tables.page(found(row("mysql"), row("rome", placement="e")))
    assert "Not all of these runs had their VMs on the same computes." in page


def test_tempests_tests_are_shown_by_back_end() -> None:
    verified = {"backend": "rome", "layout": "cells", "sites": 2, "at": "2026-12-02T00:00:00Z",
                "failure": None, "passed": 672, "failed": 1, "skipped": 369,
                "excluded": 48}  # fmt: skip
    page = tables.page(found(verifications=[verified, {**verified, "failure": "interrupted"}]))
    assert lines_of(page, "`rome`")[0] == [
        "`rome`", "`cells`", "2", "672", "1", "369", "48", "2026-12-02"
    ]  # fmt: skip
    assert lines_of(page, "`rome`")[1][-1] == "2026-12-02, PARTIAL: interrupted"
    assert "| Arm |" not in page


def test_without_figures_there_is_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "FILE", tmp_path / "rows.json")
    assert tables.figures() == tables.page(found()) == "There are no figures yet.\n"
    (tmp_path / "rows.json").write_text(json.dumps(found(row("mysql"))))
    assert "| `mysql` |" in tables.figures()


def test_every_arm_is_described() -> None:
    text = tables.arms()
    assert all(f"| `{name}` | `{arm.backend}` | `{arm.layout}` |" in text
               for name, arm in ARMS.items())  # fmt: skip
    assert "1 at each of 2 sites, 1 at a third one" in text
