"""Campaigns on canned hosts: resumed, retried, refused, and nothing made twice."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from discovery_xp import bench, bench_request
from discovery_xp.campaigns import running
from discovery_xp.campaigns.forecast import RUN_BYTES, forecast
from discovery_xp.campaigns.ledger import Done, Ledger
from discovery_xp.campaigns.schedule import jobs
from discovery_xp.inputs.campaign import read_campaign
from discovery_xp.inputs.campaign_values import Campaign
from discovery_xp.places import checkout
from discovery_xp.store import InCampaign, Run, RunRecord
from discovery_xp.testbeds.testbed import Testbed
from tests.unit.dummy_life import Life, Said
from tests.unit.synthetic_run import make_run

FILE = """\
name: tiny
{more}topology:
  sites: [{{name: site, count: 1, controllers: 1, computes: 1}}]
  provider: {{type: dummy, faults: [{faults}]}}
scenario: {{kind: boot, vms: 2}}
parts:
  - name: latencies
    over: {{backend: [{backends}], latency: [10ms, 50ms]}}
    set: {{sites: 2}}
    share: [latency]
"""


def written(life: Life, *faults: str, more: str = "", backends: str = "mysql") -> str:
    path = life.folder / "tiny.yaml"
    path.write_text(FILE.format(faults=", ".join(faults), more=more, backends=backends))
    return str(path)


def campaign(life: Life, command: str, file: str, *more: str) -> Said:
    return life.xp("campaign", command, file, "--results", str(life.results), *more)


def records(life: Life) -> list[RunRecord]:
    return sorted((run.load() for run in life.runs()), key=lambda record: record.started)


def states(life: Life, file: str) -> list[str]:
    said = campaign(life, "status", file, "--json")
    return [row["state"] for row in json.loads(said.out)["runs"]]


def test_a_plan_touches_nothing_and_says_what_it_needs(life: Life) -> None:
    said = campaign(life, "plan", written(life))
    assert said.code == 0, said.err
    assert "2 runs of 2 points: 0 done, 0 failed, 2 left" in said.out
    assert "node-hours" in said.out
    assert not life.results.exists()
    life.requires_nothing_left()


def test_all_points_are_run_and_say_which_they_are(life: Life) -> None:
    file = written(life)
    said = campaign(life, "run", file)
    assert said.code == 0, said.err
    assert states(life, file) == ["done"] * 2
    found = records(life)
    assert {record.in_campaign.levels["latency"] for record in found if record.in_campaign} == {
        "10ms", "50ms",
    }  # fmt: skip
    assert {(r.in_campaign.campaign, r.in_campaign.attempt) for r in found if r.in_campaign} == {
        ("tiny", 1)
    }
    life.requires_nothing_left()
    assert campaign(life, "run", file).code == 0
    assert len(life.runs()) == 2, "nothing is made twice"


def test_points_that_may_share_a_cloud_have_one(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []
    usual = bench.run

    def watched(plan: object, request: object, *more: object) -> Run:
        there = Testbed("tiny").exists()
        kept.append((there, request.keep))  # type: ignore[attr-defined]
        return usual(plan, request, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(bench, "run", watched)
    assert campaign(life, "run", written(life, backends="mysql, rome")).code == 0
    assert kept == [(False, True), (True, False)] * 2
    life.requires_nothing_left()


def test_an_interruption_destroys_the_testbed_and_the_rest_is_done_later(life: Life) -> None:
    file = written(life)
    life.interrupted_at = "reading the counters"
    assert campaign(life, "run", file).code == 130
    life.requires_nothing_left()
    assert states(life, file) == ["left"] * 2
    life.interrupted_at = None
    assert campaign(life, "run", file).code == 0
    assert states(life, file) == ["done"] * 2
    complete = [record for record in records(life) if not record.is_partial]
    assert len(complete) == 2


@pytest.mark.parametrize(("attempts", "made"), [(1, 1), (3, 3)])
def test_a_point_that_fails_is_tried_so_often_then_it_is_a_failed_row(
    life: Life, attempts: int, made: int
) -> None:
    file = written(life, "load", more=f"attempts: {attempts}\n")
    said = campaign(life, "run", file)
    assert said.code == 1
    assert "2 of 2 runs failed" in said.last_line and "failures.jsonl" in said.last_line
    assert states(life, file) == ["failed"] * 2
    assert len(life.runs()) == 2 * made
    lines = (life.results / "tiny/failures.jsonl").read_text().splitlines()
    assert len(lines) == 2 * made
    assert {json.loads(line)["attempt"] for line in lines} == set(range(1, made + 1))
    life.requires_nothing_left()
    assert campaign(life, "run", file).code == 1
    assert len(life.runs()) == 2 * made, "enough is enough"


def test_an_attempt_that_comes_to_no_run_counts_too(life: Life) -> None:
    file = written(life, "play", more="attempts: 1\n")
    said = campaign(life, "run", file)
    assert said.code == 1 and life.runs() == []
    assert states(life, file) == ["failed"] * 2
    assert "'computes' failed" in said.err
    life.requires_nothing_left()


def test_what_is_refused_is_no_attempt(life: Life) -> None:
    file = written(life, "refused")
    said = campaign(life, "run", file)
    assert said.code == 2 and "the dummy refuses to lend hosts" in said.last_line
    assert states(life, file) == ["left"] * 2
    life.requires_nothing_left()


def test_failures_that_are_taken_back_are_tried_again(life: Life) -> None:
    campaign(life, "run", written(life, "load", more="attempts: 1\n"))
    (life.results / "tiny/failures.jsonl").unlink()
    # With the fault gone the points ask for something else: the faults are the provider's.
    file = written(life)
    assert campaign(life, "run", file).code == 0
    assert states(life, file) == ["done"] * 2


def test_a_line_that_ended_early_is_no_failure(life: Life) -> None:
    file = written(life, "load", more="attempts: 2\n")
    campaign(life, "run", file)
    path = life.results / "tiny/failures.jsonl"
    path.write_text(path.read_text()[:-20] + "\n[]\nnull\n{}\n")
    assert states(life, file).count("left") == 1


def test_results_that_were_moved_are_gone_on_with(life: Life) -> None:
    file = written(life)
    life.interrupted_at = None
    assert campaign(life, "run", file).code == 0
    moved = life.folder / "elsewhere"
    life.results.rename(moved)
    life.results = moved
    assert states(life, file) == ["done"] * 2


def test_runs_of_points_that_are_gone_are_counted_apart(life: Life) -> None:
    assert campaign(life, "run", written(life)).code == 0
    path = Path(written(life))
    path.write_text(path.read_text().replace("[10ms, 50ms]", "[10ms, 20ms]").replace(
        "    share: [latency]\n", ""))  # fmt: skip
    said = campaign(life, "status", str(path))
    assert said.code == 1
    assert "2 runs of 2 points: 1 done, 0 failed, 1 left" in said.out
    assert "1 runs there are of points that the file hasn't any more" in said.out


def test_nothing_is_begun_that_would_not_end_in_time(life: Life) -> None:
    said = campaign(life, "run", written(life), "--for", "1s")
    assert (said.code, life.runs()) == (0, [])
    assert "2 runs are left" in said.out
    assert campaign(life, "run", written(life), "--for", "soon").code == 2


def test_a_testbed_of_somebody_elses_is_left_alone(life: Life) -> None:
    topology = life.topology()
    assert life.xp("deploy", topology, "--name", "tiny").code == 0
    said = campaign(life, "run", written(life))
    assert said.code == 2
    assert "a testbed 'tiny' is there, which isn't of this campaign" in said.last_line
    assert Testbed("tiny").load().phase == "up"
    assert life.runs() == []


def test_emulated_hosts_are_for_one_campaign_at_a_time(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_is_local", lambda _campaign: True)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(running._ONE_AT_A_TIME)
        other.listen()
        said = campaign(life, "run", written(life))
    assert said.code == 2
    assert f"a campaign runs on this machine (process {os.getpid()})" in said.last_line
    assert life.runs() == []
    assert campaign(life, "run", written(life)).code == 0


def test_workers_that_outlive_a_campaign_keep_nothing_of_it(life: Life) -> None:
    """Ansible forks its workers; one that is killed with SIGKILL leaves them for a moment."""
    ledger = Ledger(read_campaign(Path(written(life))), life.results / "tiny")
    ledger.begin()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with running._alone_on_this_machine(), ledger.claimed("testbed-1"):
            if (worker := os.fork()) == 0:
                theirs.sendall(b"here")
                theirs.recv(1)  # until its parent lets it end
                os._exit(0)
            assert ours.recv(4) == b"here"
        try:
            with running._alone_on_this_machine(), ledger.claimed("testbed-1") as claim:
                assert claim is not None
            assert os.waitpid(worker, os.WNOHANG) == (0, 0)  # it was there all the while
        finally:
            ours.sendall(b"!")
            os.waitpid(worker, 0)


def test_another_process_has_a_testbed_and_a_run_of_its_own(life: Life) -> None:
    file = written(life)
    ledger = Ledger(read_campaign(Path(file)), life.results / "tiny")
    ledger.begin()
    first, second = jobs(ledger.campaign)
    with (
        ledger.claimed("testbed-1"),
        ledger.claimed(f"{first.point.digest}-{first.block}"),
    ):
        assert campaign(life, "run", file).code == 0
        (run,) = life.runs()
    record = run.load()
    assert record.in_campaign is not None
    assert (record.experiment, record.in_campaign.point) == ("tiny-2", second.point.digest)
    assert states(life, file) == ["left", "done"]
    assert campaign(life, "run", file).code == 0
    assert sorted(run.load().experiment for run in life.runs()) == ["tiny", "tiny-2"]


def test_what_runs_took_corrects_the_forecast_of_those_that_are_like_them(life: Life) -> None:
    file = written(life, backends="mysql, rome")
    assert campaign(life, "run", file).code == 0
    ledger = Ledger(read_campaign(Path(file)), life.results / "tiny").refresh()
    took = {"mysql": 2.0, "rome": 3.0}  # times what was expected
    entries = []
    for entry in ledger.entries:
        levels = entry.job.point.levels
        assert entry.done is not None
        stages_s = {"all": took[levels["backend"]] * bench_request.CANNED_S}
        done = Done(entry.done.run, replace(entry.done.record, stages_s=stages_s))
        entries.append(replace(entry, done=None if levels["latency"] == "50ms" else done))
    ledger.entries = entries
    found = forecast(ledger)
    assert found.measured == len(found.needs) == 2
    for entry in ledger.of("left"):
        need = found.needs[entry.job.key]
        assert need.seconds == took[entry.job.point.levels["backend"]] * bench_request.CANNED_S
        assert 1000 < need.disk_bytes < RUN_BYTES, "as those that are there"
    # With no run like them, all that there are count.
    ledger.entries = [
        each for each in entries
        if each.done is None or each.job.point.levels["backend"] == "rome"
    ]  # fmt: skip
    seconds = {need.seconds for need in forecast(ledger).needs.values()}
    assert seconds == {3.0 * bench_request.CANNED_S}


def test_a_folder_that_cannot_be_written_is_refused(life: Life) -> None:
    life.results.write_text("a file")
    said = campaign(life, "run", written(life))
    assert said.code == 2, said.err
    assert "Traceback" not in said.err


def test_a_run_that_the_disk_has_no_room_for_is_not_begun(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(life)
    free = [RUN_BYTES + running.LEAST_FREE_BYTES, 10**6]
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: SimpleNamespace(free=free.pop(0))
    )  # fmt: skip
    said = campaign(life, "run", file)
    assert said.code == 2
    assert "1 MB of its disk are free, and the next run needs" in said.err
    assert said.err.strip().endswith("free some, then the same command goes on")
    assert len(life.runs()) == 1
    life.requires_nothing_left()


def test_a_disk_that_gets_full_ends_a_campaign_and_is_no_failed_attempt(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(life, more="attempts: 1\n")
    written_before = Run.write_table
    free = {"bytes": 10**12}

    def full(run: Run, name: str, rows: Any) -> None:
        if len(life.runs()) == 2 and name == "usage":
            free["bytes"] = 10**6
            raise OSError(errno.ENOSPC, "No space left on device")
        written_before(run, name, rows)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free["bytes"]))
        patch.setattr(Run, "write_table", full)
        said = campaign(life, "run", file)
    assert said.code == 1
    assert "its disk is full, which is no failure of the run's" in said.err
    assert "Traceback" not in said.err
    assert states(life, file) == ["done", "left"]
    assert [record.status for record in records(life)] == ["complete", "partial"]
    life.requires_nothing_left()
    assert campaign(life, "run", file).code == 0, "there is room again"
    assert states(life, file) == ["done", "done"]
    assert [record.status for record in records(life)] == ["complete", "partial", "complete"]


KILLED = """
import sys
from discovery_xp import files
files.require_ours = lambda *_: None
import os
os.geteuid = lambda: 1000
from discovery_xp.cli import progress
follow = progress.Follower.__call__
seen = []
def stopped(follower, stage, done, total):
    follow(follower, stage, done, total)
    seen.append(follower)
    # Of the second run, once the first one is done, but what both share is made once.
    if stage == STAGE and (follower is not seen[0] or stage == "making up hosts"):
        import time
        print("here", flush=True)
        time.sleep(600)
progress.Follower.__call__ = stopped
STAGE = sys.argv.pop()
from discovery_xp.cli.main import main
main()
"""


@pytest.mark.parametrize(
    "stage",
    ["making up hosts", "computes", "laying down probes", "load: boot", "collecting records"],
)  # fmt: skip
def test_a_kill_in_any_phase_repeats_no_finished_point(life: Life, stage: str) -> None:
    file = written(life)
    words = ["campaign", "run", file, "--results", str(life.results)]
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, *words, stage],
        env={**os.environ, "PYTHONPATH": str(checkout())},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            while (line := process.stdout.readline()) and line != "here\n":
                pass
        finally:
            process.kill()
    done = [run.folder for run in life.runs() if not run.load().is_partial]
    assert campaign(life, "run", file).code == 0
    life.requires_nothing_left()
    complete = [run.folder for run in life.runs() if not run.load().is_partial]
    assert len(done) == (0 if stage == "making up hosts" else 1)
    assert len(complete) == 2 and set(done) <= set(complete)


def test_a_report_shows_what_is_done_and_what_is_left(life: Life) -> None:
    file = written(life, more="repeats: 2\n")
    assert campaign(life, "report", file).code == 2  # nothing was measured yet
    assert not life.results.exists()
    ledger = Ledger(read_campaign(Path(file)), life.results / "tiny").refresh()
    assert campaign(life, "run", file, "--for", "1s").code == 0
    said = campaign(life, "run", file)
    assert said.code == 0, said.err
    more = written(life, more="repeats: 3\n")
    said = campaign(life, "report", more)
    assert said.code == 0, said.err
    site = ledger.folder / "site"
    assert said.out.strip() == f"written: {site}/index.html"
    words = (site / "index.html").read_text()
    assert "4 done, 0 failed, 2 left" in words
    assert "CANNED" in words
    assert (site / "runs.html").read_text().count("<td>left</td>") == 2
    # Written again, and no run is taken for another one because of it.
    assert campaign(life, "report", more, "--no-logs").code == 0
    assert sorted(states(life, more)) == ["done"] * 4 + ["left"] * 2


def blocks(life: Life) -> list[int]:
    places = (record.in_campaign for record in records(life))
    return sorted(place.block for place in places if place is not None)


def remove_run_of(life: Life, block: int) -> None:
    for run in life.runs():
        place = run.load().in_campaign
        if place is not None and place.block == block:
            shutil.rmtree(run.folder)
            return


def test_an_endless_campaign_makes_another_block_each_time(life: Life) -> None:
    file = written(life, more="repeats: endless\n")
    for expected in ([1, 1], [1, 1, 2, 2]):
        said = campaign(life, "run", file)
        assert said.code == 0, said.err
        assert blocks(life) == expected
    assert states(life, file) == ["done"] * 4


def test_a_block_that_was_begun_is_ended_before_another_is(life: Life) -> None:
    file = written(life, more="repeats: endless\n")
    for _ in range(2):
        assert campaign(life, "run", file).code == 0
    remove_run_of(life, block=2)
    assert sorted(states(life, file)) == ["done"] * 3 + ["left"]
    assert campaign(life, "run", file).code == 0
    assert blocks(life) == [1, 1, 2, 2]


def test_earlier_blocks_of_an_endless_campaign_are_what_they_came_to(life: Life) -> None:
    """A point that is new, or a run that was removed to make room, isn't made for all of them."""
    file = written(life, more="repeats: endless\n")
    for _ in range(2):
        assert campaign(life, "run", file).code == 0
    remove_run_of(life, block=1)
    assert states(life, file) == ["done"] * 3
    more = written(life, more="repeats: endless\n", backends="mysql, rome")
    assert sorted(states(life, more)) == ["done"] * 3 + ["left"] * 2


def test_an_endless_campaign_has_no_parts_with_repeats(life: Life) -> None:
    path = Path(written(life, more="repeats: endless\n"))
    path.write_text(path.read_text() + "    repeats: 2\n")
    said = campaign(life, "plan", str(path))
    assert said.code == 2
    assert "tiny.yaml:12: parts[0].repeats: stands in an endless campaign" in said.err


def synthetic(life: Life, read: Campaign, block: int, **more: Any) -> None:
    """Store a run of each point of a campaign in a block."""
    for number, point in enumerate(read.points):
        place = InCampaign(str(read.name), point.part, point.digest, dict(point.levels), block, 1)
        make_run(
            life.results / read.name, started=f"2026-11-2{block}T16:0{number}:00Z", sites=2,
            latency_ms=10.0, more_record={"in_campaign": place}, **more,
        )  # fmt: skip


def test_the_newest_run_is_compared_with_the_one_before(life: Life) -> None:
    file = written(life, more="repeats: endless\n")
    read = read_campaign(Path(file))
    synthetic(life, read, 1)
    said = campaign(life, "compare", file)
    assert (said.code, "has two complete runs" in said.err) == (2, True)
    synthetic(life, read, 2)
    said = campaign(life, "compare", file)
    assert said.code == 0, said.err
    assert "database round trips per VM" in said.out
    # As many statements for 9 VMs as for 18 before.
    synthetic(life, read, 3, failed=11)
    said = campaign(life, "compare", file)
    assert said.code == 1
    assert "worse by more than 10 %: latencies: sites 2, backend mysql, latency 10ms: " in said.err
    assert "statements per VM 2.00 times" in said.err
    assert campaign(life, "compare", file, "--fail-over", "900%").code == 0


def test_a_report_shows_how_points_come_on(life: Life) -> None:
    file = written(life, more="repeats: endless\n")
    read = read_campaign(Path(file))
    synthetic(life, read, 1)
    site = life.results / "tiny/site"
    assert campaign(life, "report", file).code == 0
    assert not (site / "trends.html").exists()
    synthetic(life, read, 2, failed=11)
    assert campaign(life, "report", file).code == 0
    page = (site / "trends.html").read_text()
    assert 'id="trends"' in page
    assert page.count("<tr data-backend") == 4
    assert "2026-11-22T16:00:00Z" in (site / "tables/trends.csv").read_text()
    assert 'href="trends.html"' in (site / "index.html").read_text()
