import dataclasses
import io
import json
import re
import stat
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import enoslib as en
import pytest
from enoslib.errors import EnosFailedHostsError, EnosUnreachableHostsError

from discovery_xp.deployment import play
from discovery_xp.deployment.ansible_plugins.callback.follow_plays import CallbackModule
from discovery_xp.deployment.play import Listener, Outcome, PlayRun, run_playbook
from discovery_xp.errors import Failed
from discovery_xp.inputs.topology import parse_topology
from discovery_xp.planning.plan import make_plan
from discovery_xp.testbeds import hosts as contract
from discovery_xp.testbeds.hosts import Hosts, Stopwatch
from discovery_xp.testbeds.testbed import Testbed

PLAN = make_plan(parse_topology("name: mine\nsites: [{name: a, computes: 2}, {name: b}]"))


def hosts() -> Hosts:
    """The plan's hosts under their roles and sites; nobody is behind them."""
    groups: dict[str, list[en.Host]] = {}
    for planned in PLAN.hosts:
        host = en.Host(planned.address or "", alias=planned.name)
        for group in (*planned.roles, planned.site):
            groups.setdefault(group, []).append(host)
    return Hosts(PLAN, en.Roles(groups), en.Networks())


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def wait(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    fake = SimpleNamespace(
        monotonic=lambda: made.now, strftime=time.strftime, gmtime=lambda: time.gmtime(0)
    )
    monkeypatch.setattr(play, "time", fake)
    monkeypatch.setattr(contract, "time", fake)
    return made


class Watched:
    """A listener, what it showed and what it wrote."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, int, int]] = []
        self.log = io.StringIO()
        self.listener = Listener(hosts(), self.log, lambda *words: self.shown.append(words))

    @property
    def lines(self) -> list[str]:
        return self.log.getvalue().splitlines()


@pytest.fixture
def watched(clock: Clock) -> Watched:
    return Watched()


# ---------------------------------------------------------------- following a playbook


def test_a_stopwatch_takes_the_time_of_each_stage(clock: Clock) -> None:
    shown: list[tuple[str, int, int]] = []
    stopwatch = Stopwatch(lambda *words: shown.append(words))
    clock.wait(5)  # before the first one
    stopwatch("database", 0, 1)
    clock.wait(2.5)
    stopwatch("database", 1, 1)
    stopwatch("computes", 0, 3)
    clock.wait(60)
    stopwatch.stop()
    clock.wait(9)
    stopwatch.stop()
    assert stopwatch.stages_s == {"database": 2.5, "computes": 60.0}
    assert shown == [("database", 0, 1), ("database", 1, 1), ("computes", 0, 3)]


def test_hosts_are_counted_task_by_task(watched: Watched) -> None:
    listener = watched.listener
    listener.on_play("computes", ["compute"])
    for task in ("files", "units"):
        listener.on_task(task, "component")
        for host in ("a-compute-1", "b-compute-1", "a-compute-2"):
            listener.on_result(host, "ok", {})
    assert watched.shown == [
        ("computes", 0, 3),
        *(("computes", 1, 3), ("computes", 2, 3), ("computes", 3, 3)),
        *(("computes", 1, 3), ("computes", 2, 3), ("computes", 3, 3)),
    ]


@pytest.mark.parametrize(
    ("patterns", "count"),
    [
        (["all"], 6),
        (["master"], 1),
        (["controller", "compute"], 5),
        (["a", "compute"], 5),  # two of the computes are at site a
        (["data"], 0),
    ],
)
def test_a_stage_is_for_the_hosts_of_its_groups(
    watched: Watched, patterns: list[str], count: int
) -> None:
    watched.listener.on_play("stage", patterns)
    assert watched.lines == [f"1970-01-01T00:00:00Z STAGE stage ({count} hosts)"]
    assert watched.shown == ([("stage", 0, count)] if count else [])


def test_everything_is_in_the_log_with_its_time(watched: Watched, clock: Clock) -> None:
    listener = watched.listener
    listener.on_play("controllers", ["controller"])
    listener.on_task("nova : Nova, controller", "component")
    clock.wait(1.26)
    listener.on_result("b-controller-1", "ok", {"changes": []})
    clock.wait(2)
    listener.on_result("a-controller-1", "changed", {"changes": ["/etc/nova/nova.conf"]})
    listener.on_task("schemas : schemas of the databases", "schemas")
    listener.on_result("a-controller-1", "changed", {"migrated": [{"name": "nova"}]})
    stamp = "1970-01-01T00:00:00Z"
    assert watched.lines == [
        f"{stamp} STAGE controllers (2 hosts)",
        f"{stamp} TASK nova : Nova, controller",
        f"{stamp} ok: b-controller-1 after 1.3 s",
        f'{stamp} changed: a-controller-1 after 3.3 s: ["/etc/nova/nova.conf"]',
        f"{stamp} TASK schemas : schemas of the databases",
        f'{stamp} changed: a-controller-1 after 0.0 s: [{{"name": "nova"}}]',
    ]


FAILURE = {
    "msg": "nova-api: did not stay up",
    "unit": "nova-api",
    "journal": ["first", "last"],
    "invocation": {"module_args": {"password": "hidden", "name": "nova"}},
}


@pytest.mark.parametrize("status", ["failed", "unreachable", "ignored"])
def test_a_failure_is_in_the_log_as_json_without_what_was_asked_for(
    watched: Watched, status: str
) -> None:
    watched.listener.on_play("controllers", ["controller"])
    watched.listener.on_task("Nova", "component")
    watched.listener.on_result("a-controller-1", status, FAILURE)
    text = watched.log.getvalue()
    assert "hidden" not in text
    assert "invocation" not in text
    _, _, written = text.partition(f"{status}: a-controller-1 after 0.0 s\n")
    assert json.loads(written) == {
        key: value for key, value in FAILURE.items() if key != "invocation"
    }


def test_what_is_no_json_is_written_all_the_same(watched: Watched) -> None:
    watched.listener.on_result("a-controller-1", "failed", {"msg": Path("/etc")})
    assert '"msg": "/etc"' in watched.log.getvalue()


# ---------------------------------------------------------------- what a run said

RUN = PlayRun(
    outcomes=[
        Outcome("component", "a-master-1", "changed", {"n": 1}, "nova", "files"),
        Outcome("smoke_boot", "a-master-1", "failed", {"n": 2}),
        Outcome("smoke_boot", "a-master-1", "ok", {"n": 3}),
        Outcome("schemas", "a-master-1", "skipped", {}),
        Outcome("component", "a-controller-1", "changed", {"n": 4}, "nova", "more files"),
    ]
)


def test_a_modules_results_are_found_by_host() -> None:
    assert RUN.results("smoke_boot") == {"a-master-1": {"n": 3}}
    assert RUN.results("component") == {"a-master-1": {"n": 1}, "a-controller-1": {"n": 4}}


@pytest.mark.parametrize("module", ["schemas", "another", "files"])
def test_a_module_that_did_nothing_has_no_result(module: str) -> None:
    assert RUN.results(module) == {}
    assert RUN.of(module) == []


def test_the_words_of_a_title_are_for_people_alone() -> None:
    reworded = PlayRun(
        [dataclasses.replace(outcome, title="in other words") for outcome in RUN.outcomes]
    )
    for module in ("smoke_boot", "component"):
        assert reworded.results(module) == RUN.results(module)


def test_the_changed_are_those_that_changed_something() -> None:
    assert [outcome.result["n"] for outcome in RUN.changed] == [1, 4]


# ---------------------------------------------------------------- from Ansible to the listener


def test_ansibles_events_reach_the_listener_of_the_run(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(play, "_listener", watched.listener)
    callback = CallbackModule()

    def named(name: str) -> Any:
        return SimpleNamespace(
            get_name=lambda: name, hosts=["compute"], action="component", args={"name": "nova"}
        )

    def said(result: dict[str, Any]) -> Any:
        return SimpleNamespace(_host=named("a-compute-1"), _result=result)

    callback.v2_playbook_on_play_start(named("computes"))
    callback.v2_playbook_on_task_start(named("nova : Nova, compute"), is_conditional=False)
    callback.v2_runner_on_ok(said({"n": 1}))
    callback.v2_runner_on_ok(said({"changed": True}))
    callback.v2_runner_on_skipped(said({"n": 3}))
    callback.v2_runner_on_failed(said({"n": 4}))
    callback.v2_runner_on_failed(said({"n": 5}), ignore_errors=True)
    callback.v2_runner_on_unreachable(said({"n": 6}))
    assert [outcome.status for outcome in watched.listener.run.outcomes] == [
        *("ok", "changed", "skipped", "failed", "ignored", "unreachable")
    ]
    assert {
        (outcome.module, outcome.subject, outcome.title, outcome.host)
        for outcome in watched.listener.run.outcomes
    } == {("component", "nova", "nova : Nova, compute", "a-compute-1")}
    assert watched.shown[0] == ("computes", 0, 3)


def test_nobody_listens_when_no_playbook_runs() -> None:
    with pytest.raises(RuntimeError, match="no playbook is running"):
        play.listener()


# ---------------------------------------------------------------- a playbook's run

Ansible = Callable[..., None]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Ansible], PlayRun]:
    """Runs playbooks/smoke.yml for `mine` with a function in Ansible's place."""
    monkeypatch.setenv("DISCOVERY_XP_HOME", str(tmp_path))
    Testbed("mine").folder.mkdir(parents=True)

    def run_with(ansible: Ansible) -> PlayRun:
        monkeypatch.setattr(en, "run_ansible", ansible)
        return run_playbook(hosts(), "smoke", {"xp": {"nics": 0}}, lambda *_: None)

    return run_with


def test_a_run_gives_its_results(run: Callable[[Ansible], PlayRun]) -> None:
    asked: dict[str, Any] = {}

    def ansible(playbooks: list[str], **options: Any) -> None:
        asked.update(options, playbooks=playbooks)
        listener = play.listener()
        listener.on_play("a VM at each site", ["master"])
        listener.on_task("cloud : a VM at each site", "smoke_boot")
        listener.on_result("a-master-1", "ok", {"boots": []})

    done = run(ansible)
    assert done.results("smoke_boot") == {"a-master-1": {"boots": []}}
    assert [Path(path).name for path in asked["playbooks"]] == ["smoke.yml"]
    assert asked["extra_vars"] == {"xp": {"nics": 0}}
    with pytest.raises(RuntimeError, match="no playbook is running"):
        play.listener()


def test_runs_are_added_to_a_log_that_only_its_owner_reads(
    run: Callable[[Ansible], PlayRun],
) -> None:
    for name in ("first", "second"):
        run(lambda *_, name=name, **__: play.listener().on_play(name, ["master"]))
    log = play.log_file("mine")
    assert re.findall(r"STAGE (\w+)", log.read_text()) == ["first", "second"]
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_a_failed_task_is_told_with_host_journal_and_log(
    run: Callable[[Ansible], PlayRun],
) -> None:
    def ansible(*_: Any, **__: Any) -> None:
        play.listener().on_play("controllers", ["controller"])
        raise EnosFailedHostsError(
            [SimpleNamespace(host="a-controller-1", task="nova : Nova", payload=FAILURE)]
        )

    with pytest.raises(Failed) as caught:
        run(ansible)
    assert caught.value.message == "a-controller-1: 'nova : Nova' failed: nova-api: did not stay up"
    assert str(play.log_file("mine")) in caught.value.remedy
    assert caught.value.remedy.endswith(
        "; the journal of nova-api on a-controller-1 ends with:\n  first\n  last"
    )
    with pytest.raises(RuntimeError, match="no playbook is running"):
        play.listener()


def test_hosts_that_cannot_be_reached_are_named(run: Callable[[Ansible], PlayRun]) -> None:
    def ansible(*_: Any, **__: Any) -> None:
        raise EnosUnreachableHostsError(
            [
                SimpleNamespace(host=name, payload={"msg": f"no route\nto {name}\x1b[2J\n"})
                for name in ("b-compute-1", "a-compute-1", "a-compute-1")
            ]
        )

    with pytest.raises(Failed) as caught:
        run(ansible)
    message = caught.value.message
    assert message.startswith("a-compute-1, b-compute-1 can't be reached over ssh (to a-compute-1")
    assert "\x1b" not in message
