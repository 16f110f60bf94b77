"""What goes wrong on Grid'5000 before there are nodes: one line each, and no job is left.

The API is emulated, nothing stands behind its nodes; the command line is the real one.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.grid5000 import Emulator, RunningClock, Server
from tests.grid5000.jobs import Job, Jobs, Pace, Submission
from tests.hostless.conftest import HOME
from tests.real.conftest import Cli
from tests.waiting import WITHIN_S, wait_until

pytestmark = pytest.mark.real

SITES = {"rennes": {"paravance": 4}, "nantes": {"econome": 3}}
ONE = (
    "name: booked\nsites: [{name: a, computes: 1}]\n"
    "provider: {type: g5k, site: rennes, cluster: paravance, jump_host: none}\n"
)
TWO = (
    "name: booked\nsites: [{name: a, computes: 1}, {name: b, computes: 1}]\n"
    "provider: {type: g5k, site: rennes, cluster: paravance, jump_host: none,"
    " sites: {b: {site: nantes, cluster: econome}}}\n"
)


class Grid:
    """The platform, as a test sees it."""

    def __init__(self, server: Server, home: Path) -> None:
        self.server, self.home = server, home
        self.emulator = server.emulator
        self.faults = server.emulator.faults
        self.started: list[subprocess.Popen[str]] = []

    def login(self, **more: object) -> None:
        told = {"uri": self.server.uri, "username": "alice", "password": "secret", **more}
        (self.home / ".python-grid5000.yaml").write_text(json.dumps(told))

    def occupy(self, site: str, nodes: int, hours: int = 2) -> None:
        """Bob has them."""
        with self.emulator.lock:
            self.emulator.jobs.submit(
                Submission(site, "bob", f"nodes={nodes},walltime={hours}", "sleep 30d")
            )

    def ours(self) -> list[Job]:
        """All jobs that Alice ever had."""
        with self.emulator.lock:
            self.emulator.advance()
            return [
                job
                for site in SITES
                for job in self.emulator.jobs.of(site)
                if job.asked.user == "alice"
            ]

    def active(self) -> list[Job]:
        return [job for job in self.ours() if job.is_active]


@pytest.fixture
def grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Grid]:
    pace = Pace(scheduling_s=1, to_launch_s=0.2, launching_s=0.2, killing_s=0.5)
    emulator = Emulator.of(SITES, clock=RunningClock(), pace=pace)
    with Server(emulator, ask_password=True) as server:
        (tmp_path / ".ssh").mkdir()
        (tmp_path / ".ssh/id_ed25519.pub").write_text("ssh-ed25519 AAAA alice\n")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("DISCOVERY_XP_CACHE", str(tmp_path / "cache"))
        made = Grid(server, tmp_path)
        made.login()
        yield made
        for process in made.started:
            process.kill()
            process.communicate()
        shutil.rmtree(HOME / "testbeds/booked", ignore_errors=True)  # of a test that failed


def refused(cli: Cli, text: str, code: int = 2) -> str:
    """The one line that `up` ends with; nothing is left of it."""
    done = cli.run("up", cli.topology("booked", text), code=code)
    said = [line for line in done.stderr.splitlines() if "; " in line]
    assert len(said) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert not (HOME / "testbeds/booked").exists()
    return said[0]


# ---------------------------------------------------------------- the API


def test_the_api_is_down(cli: Cli, grid: Grid) -> None:
    with grid.server.down():
        line = refused(cli, ONE)
    assert f"Grid'5000's API at {grid.server.uri} can't be reached" in line
    assert "https://www.grid5000.fr/w/Status" in line


def test_the_api_is_slow(cli: Cli, grid: Grid) -> None:
    grid.login(timeout=0.5)
    grid.faults.slow(2)
    assert "can't be reached (" in refused(cli, ONE)
    grid.faults.clear()
    grid.login(timeout=1)
    grid.faults.slow(3, calls=1)  # it asks again
    assert "has no cluster" in refused(cli, TWO.replace("econome", "gros"))


def test_the_password_is_wrong(cli: Cli, grid: Grid) -> None:
    grid.login(password="guessed")
    line = refused(cli, ONE)
    assert "refuses the username or the password (401); correct" in line
    assert ".python-grid5000.yaml" in line


def test_there_is_no_login(cli: Cli, grid: Grid) -> None:
    (grid.home / ".python-grid5000.yaml").unlink()
    assert "there is no such file; write 'username: ...'" in refused(cli, ONE)


def test_the_account_may_not(cli: Cli, grid: Grid) -> None:
    grid.faults.fail(403, method="POST", path="/jobs")
    assert "not authorized to access this resource (403)" in refused(cli, ONE)
    assert grid.ours() == []


def test_the_api_fails(cli: Cli, grid: Grid) -> None:
    grid.faults.fail(500)
    assert "it fails again and again" in refused(cli, ONE)
    grid.faults.clear()
    grid.faults.fail(500, method="POST", path="/jobs")
    assert "Internal Server Error (500)" in refused(cli, ONE)
    assert grid.ours() == []


# ---------------------------------------------------------------- jobs


def test_a_quota_refuses(cli: Cli, grid: Grid) -> None:
    grid.faults.refuse_jobs("[ADMISSION RULE] Error: too much for one day")
    line = refused(cli, ONE)
    assert "OAR refuses the reservation: " in line
    assert "too much for one day" in line


def test_when_the_second_site_refuses_the_first_has_no_job(cli: Cli, grid: Grid) -> None:
    def only_one(job: Job, jobs: Jobs) -> str | None:
        taken = any(other.is_active for site in SITES for other in jobs.of(site))
        return "[ADMISSION RULE] Error: one is enough" if taken else None

    grid.emulator.jobs.admission.append(only_one)
    assert "one is enough" in refused(cli, TWO)
    assert len(grid.ours()) == 1
    wait_until(lambda: grid.active() == [])


def test_two_jobs_of_one_name(cli: Cli, grid: Grid) -> None:
    for _ in range(2):
        with grid.emulator.lock:
            grid.emulator.jobs.submit(
                Submission("rennes", "alice", "nodes=1", name="discovery-xp-booked")
            )
    line = refused(cli, ONE)
    assert "rennes has 2 jobs called 'discovery-xp-booked': " in line
    assert "end them with 'discovery-xp destroy --testbed booked'" in line
    cli.run("destroy", "--testbed", "booked")
    assert grid.active() == []


def test_a_job_of_the_name_that_is_another_machine_s_is_not_taken(cli: Cli, grid: Grid) -> None:
    with grid.emulator.lock:
        job = grid.emulator.jobs.submit(
            Submission("rennes", "alice", "nodes=3", name="discovery-xp-booked", types=("deploy",))
        )
    line = refused(cli, ONE)
    assert f"a job called 'discovery-xp-booked' ({job.uid}) that no testbed here knows" in line
    assert len(grid.active()) == 1


def test_a_job_whose_submission_had_no_answer_is_ended(cli: Cli, grid: Grid) -> None:
    grid.faults.lose_answers(504, calls=1, method="POST", path="/jobs")
    assert "Gateway Timeout (504)" in refused(cli, ONE)
    assert len(grid.ours()) == 1
    assert grid.active() == []


def test_a_walltime_too_short_asks_nothing(cli: Cli, grid: Grid) -> None:
    line = refused(cli, ONE.replace("jump_host", "walltime: '0:05:00', jump_host"))
    assert "walltime of 0:05:00, but the nodes take about 15 minutes" in line
    assert grid.server.calls == []


def test_a_start_that_is_over(cli: Cli, grid: Grid) -> None:
    text = ONE.replace("jump_host", "reservation: '2020-01-01 19:00:00', jump_host")
    assert "the reservation's start, 2020-01-01 19:00:00 in Paris, is over" in refused(cli, text)
    assert grid.ours() == []


def test_more_than_there_is(cli: Cli, grid: Grid) -> None:
    assert "There are not enough resources" in refused(
        cli, ONE.replace("computes: 1", "computes: 9")
    )
    text = TWO.replace("name: b, computes: 1", "name: b, computes: 9")
    assert "econome has 3 nodes that work, 10 are wanted" in refused(cli, text)


# ---------------------------------------------------------------- runs that end early


def start(cli: Cli, grid: Grid, *options: str) -> subprocess.Popen[str]:
    """`up`, when its job waits for Bob's nodes."""
    grid.occupy("rennes", 4)
    process = cli.start("up", *options, cli.topology("booked", ONE))
    grid.started.append(process)
    wait_until(lambda: len(grid.active()) == 1)
    wait_until(lambda: '"rennes"' in text_of(HOME / "testbeds/booked/grid5000.json"))
    return process


def text_of(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def end(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    process.send_signal(number)
    _, said = process.communicate(timeout=WITHIN_S)
    return process.returncode, said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_no_job(cli: Cli, grid: Grid, number: signal.Signals) -> None:
    code, said = end(start(cli, grid), number)
    assert (code, "Traceback" in said) == (130, False)
    assert grid.active() == []
    assert not (HOME / "testbeds/booked").exists()


def test_an_interrupted_run_keeps_its_job_when_it_is_told_to(cli: Cli, grid: Grid) -> None:
    assert end(start(cli, grid, "--keep"), signal.SIGINT)[0] == 130
    (job,) = grid.active()
    time.sleep(2)  # until the scheduler has looked at it
    told = cli.run("status", "--testbed", "booked", code=1).stdout
    assert f"job {job.uid} on rennes: waiting, expected to start at" in told
    cli.run("destroy", "--testbed", "booked")
    assert grid.active() == []


def test_a_killed_run_is_gone_on_with_or_destroyed(cli: Cli, grid: Grid) -> None:
    end(start(cli, grid), signal.SIGKILL)
    (job,) = grid.active()
    again = cli.start("up", cli.topology("booked", ONE))
    grid.started.append(again)
    time.sleep(6)
    assert grid.active() == [job], "it waits for the same job"
    end(again, signal.SIGKILL)
    cli.run("destroy", "--testbed", "booked")
    assert grid.active() == []


def test_a_forgotten_job_is_shown_and_can_be_ended(cli: Cli, grid: Grid) -> None:
    end(start(cli, grid), signal.SIGKILL)
    shutil.rmtree(HOME / "testbeds/booked")
    (job,) = grid.active()
    told = cli.run("status").stdout
    assert f"without a testbed here: job {job.uid} on rennes: waiting" in told
    assert "'discovery-xp destroy --testbed booked' ends it" in told
    cli.run("destroy", "--testbed", "booked")
    assert grid.active() == []
    assert "no testbed 'booked'" in cli.run("destroy", "--testbed", "booked", code=2).stderr


def test_a_job_that_the_platform_ends_while_it_waits(cli: Cli, grid: Grid) -> None:
    process = start(cli, grid)
    with grid.emulator.lock:
        (job,) = grid.active()
        grid.emulator.jobs.kill(job, "maintenance")
    _, said = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 1
    assert f"the platform ended job {job.uid} on rennes" in said
    assert not (HOME / "testbeds/booked").exists()


def test_when_the_api_is_down_a_job_stays_known(cli: Cli, grid: Grid) -> None:
    end(start(cli, grid, "--keep"), signal.SIGINT)
    with grid.server.down():
        said = cli.run("destroy", "--testbed", "booked", code=1).stderr
        assert "what was borrowed may not be given back yet" in said
        told = cli.run("status", "--testbed", "booked", code=1).stdout
        assert "unknown, as Grid'5000's API" in told
    cli.run("destroy", "--testbed", "booked")
    assert grid.active() == []


def test_a_submission_that_nobody_can_be_asked_about_stays_known(cli: Cli, grid: Grid) -> None:
    grid.faults.lose_answers(504, calls=1, method="POST", path="/jobs")
    process = cli.start("up", cli.topology("booked", ONE))
    grid.started.append(process)
    wait_until(lambda: any(method == "POST" for method, _ in grid.server.calls))
    grid.faults.fail(503)
    _, said = process.communicate(timeout=WITHIN_S)
    assert (process.returncode, "Traceback" in said) == (1, False)
    assert "may not be given back yet" in said
    assert (HOME / "testbeds/booked").exists()
    grid.faults.clear()
    cli.run("destroy", "--testbed", "booked")
    assert grid.active() == []


def test_who_waits_goes_on_when_an_answer_is_missing(cli: Cli, grid: Grid) -> None:
    process = start(cli, grid)
    grid.faults.fail(503, calls=3)
    time.sleep(15)
    assert process.poll() is None
    (job,) = grid.active()
    assert end(process, signal.SIGINT)[0] == 130
    assert grid.active() == [], job


def test_a_lost_state_loses_no_job(cli: Cli, grid: Grid) -> None:
    end(start(cli, grid, "--keep"), signal.SIGINT)
    (HOME / "testbeds/booked/state.json").write_text("{")
    cli.run("destroy", "--testbed", "booked")
    assert grid.active() == []
    assert not (HOME / "testbeds/booked").exists()


def test_a_jump_host_that_does_not_let_in_is_told_first(cli: Cli, grid: Grid) -> None:
    line = refused(cli, ONE.replace("jump_host: none", "jump_host: nobody@127.0.0.1"))
    assert "nobody@127.0.0.1 doesn't let ssh in: " in line
    assert grid.ours() == []


def test_a_job_that_nobody_knows_any_more(cli: Cli, grid: Grid) -> None:
    end(start(cli, grid, "--keep"), signal.SIGINT)
    record = HOME / "testbeds/booked/grid5000.json"
    told = json.loads(record.read_text())
    record.write_text(json.dumps({**told, "jobs": [["rennes", 999]]}))
    told = cli.run("status", "--testbed", "booked", code=1).stdout
    assert "job 999 on rennes: unknown to the platform" in told
    cli.run("destroy", "--testbed", "booked")
    assert grid.active() == [], "the one of that name is ended, too"


# ---------------------------------------------------------------- slots


def test_slots_are_listed(cli: Cli, grid: Grid) -> None:
    grid.occupy("nantes", 3)
    time.sleep(2)  # until the scheduler has looked at it
    path = cli.topology("booked", TWO)
    found = json.loads(cli.run("slots", "--json", path).stdout)
    assert found[0]["free"] == {"paravance": 4, "econome": 3}
    assert 7000 < found[0]["start"] - time.time() < 7600, "after Bob's two hours"
    table = cli.run("slots", "--most", "1", path).stdout
    assert "paravance 4, econome 3" in table
    assert grid.ours() == []


def test_slots_by_night_leave_working_days_out(cli: Cli, grid: Grid) -> None:
    path = cli.topology("booked", TWO.replace("jump_host", "walltime: '13:00:00', jump_host"))
    found = json.loads(cli.run("slots", "--json", "--night", "--most", "3", path).stdout)
    assert len(found) == 3
    told = cli.run("slots", "--night", "--most", "3", path).stdout
    assert told.count("fits") == 3


def test_slots_of_emulated_hosts_are_refused(cli: Cli, grid: Grid) -> None:
    said = cli.run("slots", "--sites", "2", code=2).stderr
    assert "is for provider local, which has no slots" in said
