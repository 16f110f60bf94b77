"""What hosts answer is taken when it is what was asked for, and refused in one line otherwise."""

import base64
import gzip
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from discovery_xp.boundary import answers
from discovery_xp.boundary.answers import TooLarge, Unfit, printable, run_bounded
from discovery_xp.deployment import deploy, identities
from discovery_xp.deployment.status import read_status
from discovery_xp.errors import Failed
from discovery_xp.inputs.scenario import Scenario
from discovery_xp.inputs.topology import parse_topology
from discovery_xp.load.ledger import Ledger
from discovery_xp.onhost.wire import load as wire
from discovery_xp.planning.plan import make_plan
from discovery_xp.probes import PROBES, to_rows
from discovery_xp.providers.local import containers
from discovery_xp.store import tables as stored
from discovery_xp.testbeds.links import parse_tc
from discovery_xp.testbeds.pings import parse_fping
from discovery_xp.testbeds.remote import output_of
from discovery_xp.testbeds.testbed import Testbed
from discovery_xp.testbeds.transport import Output

PLAN = make_plan(parse_topology("sites: [{name: a}]"), cloud=True)
BY_HOST = {
    host.name: [each for each in PLAN.require_cloud().services if each.host == host.name]
    for host in PLAN.hosts
}
ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**80, -1, math.nan, math.inf, 0.5])
    | st.sampled_from(["", "ACTIVE", "\x1b[2J", "{{ x }}", "a" * 3000, "\u202e", "a\nb", "start"]),
    lambda inside: (
        st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=3), inside, max_size=3)
    ),
    max_leaves=6,
)


# ---------------------------------------------------------------- single values


def test_a_terminal_gets_control_characters_as_text() -> None:
    said = "a\tb \x1b[2J\x9b31m\x07\r\n\u202e\u2028\ud800 é"
    assert printable(said) == "a\\tb \\x1b[2J\\x9b31m\\x07\\r\\n\\u202e\\u2028\\ud800 é"


@given(ANY)
def test_values_are_of_their_type_or_unfit(value: object) -> None:
    checks: dict[Any, type] = {
        answers.text: str, answers.number: float, answers.whole: int, answers.mapping: dict,
        answers.listed: list,
    }  # fmt: skip
    for check, kind in checks.items():
        try:
            found = check(value)
        except Unfit as error:
            assert str(error).isprintable()
            assert len(str(error)) < 120
        else:
            assert type(found) is kind
            assert not isinstance(found, float) or math.isfinite(found)
            assert not isinstance(found, str) or len(found) <= 6 * answers.LONGEST_TEXT


@pytest.mark.parametrize("words", ["1e999", "nan", "x", "", "-1e300", "9" * 400, "0x1"])
def test_a_number_of_a_line_is_finite(words: str) -> None:
    with pytest.raises(Unfit):
        answers.number_of(words)


@pytest.mark.parametrize("words", ["-1", "1.5", "", "9" * 17, "9999999999999999", "\u0661"])
def test_a_count_of_a_line_is_whole(words: str) -> None:
    with pytest.raises(Unfit):
        answers.whole_of(words)


@pytest.mark.parametrize("words", ["", "{", "[" * 100_000, "9" * 5000, '{"a": 1} x'])
def test_what_is_no_json_is_unfit(words: str) -> None:
    with pytest.raises(Unfit):
        answers.from_json(words)


def test_json_is_bounded() -> None:
    assert answers.from_json("[1]", most=3) == [1]
    with pytest.raises(Unfit, match="over 3 bytes"):
        answers.from_json("[10]", most=3)


@given(st.dictionaries(st.sampled_from(["rc", "stdout", "stderr", "x"]), ANY))
def test_a_commands_result_is_an_output(payload: dict[str, Any]) -> None:
    found = output_of(payload)
    assert isinstance(found.exit_code, int)
    assert isinstance(found.stdout, str)
    assert isinstance(found.stderr, str)


def test_a_command_that_ansible_gave_up_did_not_go_well() -> None:
    found = output_of({"msg": "the host sent more than 64 MiB"})
    assert (found.exit_code, found.stderr) == (1, "the host sent more than 64 MiB")


# ---------------------------------------------------------------- commands


def test_a_command_is_given_and_gives_its_bytes() -> None:
    data = bytes(range(256)) * 2000
    done = run_bounded(["sh", "-c", "cat; echo x >&2; exit 3"], data, 60, 2 * len(data))
    assert (done.returncode, done.stdout, done.stderr) == (3, data, b"x\n")


def test_a_command_that_does_not_read_is_no_failure() -> None:
    done = run_bounded(["sh", "-c", "exec <&-; echo x"], b"y" * 10**6, 60, 100)
    assert (done.returncode, done.stdout) == (0, b"x\n")


@pytest.mark.parametrize("where", ["", " >&2"])
def test_a_command_that_prints_without_end_is_killed(where: str) -> None:
    with pytest.raises(TooLarge):
        run_bounded(["sh", "-c", f"exec cat /dev/zero{where}"], b"", 60, 10**6)


def test_a_command_that_takes_too_long_is_killed() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        run_bounded([sys.executable, "-c", "import time; time.sleep(600)"], b"", 0.2, 10)


# ---------------------------------------------------------------- what is read of hosts


@given(
    st.lists(st.tuples(st.sampled_from(["unit", "port", "nova", "queues", "x"]), ANY | st.text()))
)
@example([("nova", [{"Binary": "nova-compute"}]), ("queues", [{"name": 1, "consumers": {}}])])
@example([("unit", "mariadb ActiveState=\x1b[2J NRestarts=9e9"), ("unit", "mariadb NRestarts=x")])
@example([("nova", "[" * 100_000), ("queues", "9" * 5000)])
def test_every_answer_of_a_host_is_some_status(said: list[tuple[str, object]]) -> None:
    lines = [
        f"{kind} {value if isinstance(value, str) else json.dumps(value)}" for kind, value in said
    ]
    found = read_status(BY_HOST, dict.fromkeys(BY_HOST, "\n".join(lines)))
    assert [each.unit for each in found] == [
        each.unit for services in BY_HOST.values() for each in services
    ]
    for each in found:
        assert isinstance(each.restarts, int)
        assert printable(each.complaint) == each.complaint


@given(st.text(max_size=200) | ANY.map(lambda value: f"{json.dumps(value)}==x==y"))
@example('[{"kind": "netem", "options": {"delay": {"delay": "x"}}}]====')
@example("====\nflowid 1:1\nmatch ffffffff/00000001 at 16\n")
def test_what_tc_says_is_links_or_one_line(said: str) -> None:
    try:
        parse_tc(Output(0, said, ""))
    except Failed as failed:
        assert "\n" not in str(failed)


@given(st.text(max_size=100) | st.from_regex(r"10\.0\.0\.1 : [0-9. -]{0,40}", fullmatch=True))
def test_what_fping_says_is_milliseconds(said: str) -> None:
    for values in parse_fping(said).values():
        assert all(value is None or math.isfinite(value) for value in values)


HOSTS = {"h1": {"address": "10.0.0.1", "site": "a"}, "h2": {"address": "10.0.0.2", "site": "b"}}


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["problems", "records", "traffic", "messages", "usage", "series"]),
        ANY,
        min_size=1,
    )
)
@example({"traffic": {"10.0.0.2 x": [1, 2]}})
@example({"traffic": {"10.0.0.2 80": [1]}})
@example({"messages": {"": [1, 2, 3], "q": [1]}})
@example({"usage": {"nova-api": {"cpu_s": math.nan, "memory_bytes": 1, "memory_start_bytes": 1}}})
@example({"records": "H4sIAAAAAAAC/wMAAAAAAAAAAAA="})
def test_a_host_that_measured_nonsense_is_left_out_in_one_line(said: dict[str, Any]) -> None:
    complaints: list[str] = []
    good = {"usage": {"x": {"cpu_s": 1.0, "memory_bytes": 2, "memory_start_bytes": 1}}}
    tables = to_rows(HOSTS, PROBES, {"h1": said, "h2": good}, complaints.append)
    assert {"h2"} <= {row["host"] for row in tables["usage"]}
    assert all(line.startswith("h1") and printable(line) == line for line in complaints)
    for table, rows in tables.items():
        stored.checked(table, rows)
    for row in tables["usage"]:
        assert row.keys() == {
            "service", "host", "site", "cpu_s", "memory_bytes", "memory_start_bytes"
        }  # fmt: skip


@pytest.mark.parametrize(
    "lines",
    ["c\t1\t2", "@\tx", "@\tx\ty", "c\tx\t1\ta\tf\t0\t", "r\t1\t1\tGET\t/\tx",
     "s\t1\t2\tSELECT\tnan\t1\t1\t1\t1", "s\t1\t2\tx\t1\t1\t1\t1\t1", "c\t1\t1\tx\tf\t0\t",
     "s\t1\t2\tSELECT\t-9\t1\t1\t1\t1",
     "\n".join(["s\t1\t2\tSELECT\t9007199254740991\t1\t1\t1\t1"] * 3000), "c\t1e999\t1\ta\tf\t0\t"],
)  # fmt: skip
def test_records_that_no_probe_writes_are_left_out(lines: str) -> None:
    complaints: list[str] = []
    said = base64.b64encode(gzip.compress(f"@\tnova-api\t7\n{lines}\n".encode())).decode()
    to_rows(HOSTS, PROBES, {"h1": {"records": said}}, complaints.append)
    assert len(complaints) == 1
    assert complaints[0].startswith("h1: what it measured can't be used: ")


# ---------------------------------------------------------------- a load's lines

NUMBERS = st.sampled_from([0.0, 1.5, -3.0, 2**70, math.nan, None, "x", True])
LINES = st.fixed_dictionaries(
    {"line": st.sampled_from([*wire.REQUIRED, "x"]) | ANY},
    optional={
        "name": st.sampled_from(["a", "b"]) | ANY,
        "region": st.just("site1") | ANY,
        "site": st.just("site1") | ANY,
        **dict.fromkeys(("requested_at", "seen_at", "accepted_at", "at", "cpu_s"), NUMBERS | ANY),
        "polls": st.integers(),
        "mark": st.sampled_from(["", "start", "end", "last"]) | ANY,
        "status": st.sampled_from(["ACTIVE", "ERROR", None]) | ANY,
        **dict.fromkeys(("lost", "words", "text", "error", "stage", "done", "total"), ANY),
        **dict.fromkeys(("action", "iteration", "started_at", "duration_s"), ANY),
        **dict.fromkeys(("last_sent_at", "time_is_up", "host", "launched_at"), NUMBERS | ANY),
    },
)


@settings(deadline=None)
@given(st.lists(LINES, max_size=12))
@example([{"line": "vm", "name": "a", "status": "ACTIVE"}])
@example([{"line": "vm", "name": ["a"]}])
@example([{"line": "usage", "at": 1, "cpu_s": 1, "polls": 1, "mark": ["start"]}])
@example([{"line": "done", "lost": {"a": 5}}])
def test_a_load_hosts_lines_are_rows_or_unfit(lines: list[dict[str, Any]]) -> None:
    book = Ledger(Scenario("try", "boot", vms=2), ["h"], {})
    for line in lines:
        try:
            book.take("h", line)
        except Unfit as error:
            assert str(error).isprintable()
        book.pace(10.0)
        book.stage()
        book.new_rows()
    book.give_up("it is over")
    book.reason(), book.window(), book.sent_s(), book.spent("cpu_s"), book.spent("polls")
    stored.checked("vms", book.vms)
    stored.checked("actions", book.actions)
    for row in book.vms:
        assert isinstance(row["requested_at"], float)
        assert row["status"] != "ACTIVE" or isinstance(row["boot_duration_s"], float)


def test_a_load_has_no_more_rows_than_it_can_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("discovery_xp.load.ledger.ROWS_AT_LEAST", 3)
    monkeypatch.setattr("discovery_xp.load.ledger.ROWS_EACH", 0)
    book = Ledger(Scenario("try", "boot", vms=2), ["h"], {})
    line = {"line": "vm", "region": "r", "site": "s", "requested_at": 1.0}
    for name in "ab":
        book.take("h", {**line, "name": name})
    book.take("h", {**line, "name": "a", "accepted_at": 2.0})
    with pytest.raises(Unfit, match="more VMs than the 2 that are asked for"):
        book.take("h", {**line, "name": "c"})
    action = {"line": "action", "action": "boot", "iteration": 1, "region": "r", "site": "s",
              "started_at": 1.0, "duration_s": 0.5, "error": None}  # fmt: skip
    for _ in range(3):
        book.take("h", action)
    with pytest.raises(Unfit, match="more actions"):
        book.take("h", action)


def test_of_a_hosts_console_the_end_is_shown_as_text(tmp_path: Path) -> None:
    testbed = Testbed("mine")
    testbed.folder = tmp_path
    file = containers.folder(testbed, "h") / "console.log"
    file.parent.mkdir(parents=True)
    with file.open("wb") as opened:
        opened.truncate(2**40)  # a host may write what its disk holds
        opened.seek(2**40)
        opened.write(b"one\ntwo \x1b[2J\n\xff\n")
    assert containers.console_tail(testbed, "h", lines=2) == "two \\x1b[2J / \ufffd"
    assert containers.console_tail(testbed, "other") == ""


# ---------------------------------------------------------------- smoke boots and identities


def boot(**values: object) -> dict[str, object]:
    return {"site": "a", "region": "evil", "status": "ACTIVE", "host": "h", "message": "",
            "boot_duration_s": 1.5, **values}  # fmt: skip


def test_a_boot_is_of_the_region_that_was_asked() -> None:
    [found] = deploy.read_boots([boot(status="\x1b[2J")], {"a": "region-a"})
    assert (found.region, found.status, found.boot_duration_s) == ("region-a", "\\x1b[2J", 1.5)


@pytest.mark.parametrize(
    "said",
    [[], [5], [boot(site="b")], [boot(site=[1])], [boot(status=5)], [boot(boot_duration_s="1")],
     [boot(message=None)]],
)  # fmt: skip
def test_what_no_boot_is_is_unfit(said: list[object]) -> None:
    with pytest.raises(Unfit):
        deploy.read_boots(said, {"a": "region-a"})


@pytest.mark.parametrize(
    "value", ["{{ lookup('pipe', 'id') }}", "", "x", 5, "0" * 36, "A" * 8, None]
)
def test_only_a_uuid_identifies_a_compute(value: object) -> None:
    assert not identities.is_uuid(value)
    assert identities.is_uuid("01234567-89ab-cdef-0123-456789abcdef")
