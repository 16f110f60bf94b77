"""OpenStack's own tests: which are run, what becomes of each, and how the cloud is left."""

import datetime
import json
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from discovery_xp import verification
from discovery_xp.boundary import writers
from discovery_xp.boundary.answers import Unfit
from discovery_xp.deployment.variables import RegionVariables
from discovery_xp.errors import InvalidInput, Refused
from discovery_xp.onhost.verification import cloud as tested_cloud
from discovery_xp.onhost.verification import verdicts
from discovery_xp.onhost.verification.verdicts import Verdicts, select
from discovery_xp.onhost.wire import verification as wire
from discovery_xp.onhost.wire.verification import Exclusion, VerificationRequest
from discovery_xp.places import checkout
from discovery_xp.store import runs_under
from discovery_xp.verification import Wish
from discovery_xp.verification.configuration import (
    CloudUnderTest,
    cloud_under_test,
    settings,
)
from discovery_xp.verification.exclusions import FILE, read_exclusions
from discovery_xp.verification.ledger import Ledger

CLASS = "tempest.api.compute.servers.test_servers.ServersTest"
BOOTS, STOPS = f"{CLASS}.test_boots[id-1,smoke]", f"{CLASS}.test_stops[id-2]"
START = datetime.datetime(2026, 11, 29, 17, 0, tzinfo=datetime.UTC)
TRACEBACK = b"""Traceback (most recent call last):
  File "test_servers.py", line 1, in test_stops
    raise NotFound(body)
tempest.lib.exceptions.NotFound: Object not found
Details: {'code': 404, 'message': 'gone'}
"""

# ---------------------------------------------------------------- which tests are run


def test_tests_are_chosen_by_service_name_and_exclusion() -> None:
    listed = [
        BOOTS, STOPS, f"{CLASS}Negative.test_boots[id-3]",
        "tempest.api.identity.test_users.UsersTest.test_list[id-4]",
        "tempest.api.volume.test_volumes.VolumesTest.test_list[id-5]",
        "tempest.scenario.test_all.AllTest.test_it[id-6]",
    ]  # fmt: skip
    every = select(listed, wire.SERVICES, "", ())
    assert [verdicts.service_of(verdicts.name_of(each)) for each in every.chosen] == [
        "compute", "compute", "compute", "identity",
    ]  # fmt: skip
    compute = select(listed, ("compute",), "boots$", ())
    assert [verdicts.name_of(each) for each in compute.chosen] == [
        f"{CLASS}.test_boots", f"{CLASS}Negative.test_boots",
    ]  # fmt: skip
    # A class isn't another one whose name begins with its own.
    left = select(listed, ("compute",), "", [Exclusion(CLASS, "why")])
    assert [verdicts.name_of(each) for each in left.chosen] == [f"{CLASS}Negative.test_boots"]
    assert [(each["test"], each["status"], each["reason"]) for each in left.excluded] == [
        (f"{CLASS}.test_boots", "excluded", "why"), (f"{CLASS}.test_stops", "excluded", "why"),
    ]  # fmt: skip


def test_an_exclusion_without_a_test_is_told_whatever_was_asked_for() -> None:
    used, unused = Exclusion(CLASS, "why"), Exclusion(f"{CLASS}.test_gone", "why")
    selection = select([BOOTS], ("image",), "", [used, unused])
    assert (selection.chosen, selection.excluded) == ((), ())
    assert selection.unused == (unused,)


# ---------------------------------------------------------------- what becomes of them


def verdicts_of(
    events: Iterable[dict[str, Any]], tests: Iterable[str] = (BOOTS, STOPS)
) -> dict[str, Any]:
    """Return the verdict on each test after some events, by the test's last word."""
    found: dict[str, Any] = {}

    def take(verdict: verdicts.Verdict) -> None:
        assert verdict["test"] not in found, "no test ends twice"
        found[verdict["test"]] = verdict

    result = Verdicts(tests, take)
    for event in events:
        result.status(**event)
    result.finish()
    assert {verdicts.name_of(test) for test in tests} >= result.waiting
    return {name.rpartition(".")[2]: verdict for name, verdict in found.items()}


def at(second: float) -> datetime.datetime:
    return START + datetime.timedelta(seconds=second)


def test_each_test_that_ends_has_a_verdict() -> None:
    found = verdicts_of([
        {"test_id": BOOTS, "test_status": "exists"},
        {"test_id": BOOTS, "test_status": "inprogress", "timestamp": at(0)},
        {"test_id": STOPS, "test_status": "inprogress", "timestamp": at(1)},
        {"test_id": None, "file_name": "stdout", "file_bytes": b"noise"},
        {"test_id": STOPS, "file_name": "traceback", "file_bytes": TRACEBACK[:100]},
        {"test_id": BOOTS, "test_status": "success", "timestamp": at(2.5)},
        {"test_id": STOPS, "file_name": "traceback", "file_bytes": TRACEBACK[100:]},
        {"test_id": STOPS, "file_name": "pythonlogging:''", "file_bytes": b"X-Auth-Token: abc"},
        {"test_id": STOPS, "test_status": "fail", "timestamp": at(4)},
        {"test_id": STOPS, "test_status": "success", "timestamp": at(5)},
    ])  # fmt: skip
    assert found["test_boots"] == {
        "test": f"{CLASS}.test_boots", "service": "compute", "status": "passed",
        "reason": None, "duration_s": 2.5, "traceback": None,
    }  # fmt: skip
    stops = found["test_stops"]
    assert (stops["status"], stops["duration_s"]) == ("failed", 3.0)
    assert stops["reason"] == (
        "tempest.lib.exceptions.NotFound: Object not found "
        "Details: {'code': 404, 'message': 'gone'}"
    )
    assert stops["traceback"].splitlines() == TRACEBACK.decode().splitlines()
    assert "abc" not in json.dumps(found), "logs of requests aren't kept"


def test_a_long_traceback_keeps_its_end() -> None:
    body = b"Traceback (most recent call last):\n" + b"  deep\n" * 100 + b"ValueError: no\n"
    found = verdicts_of([
        {"test_id": STOPS, "file_name": "traceback", "file_bytes": body},
        {"test_id": STOPS, "test_status": "fail"},
    ])  # fmt: skip
    lines = found["test_stops"]["traceback"].splitlines()
    assert (len(lines), lines[-1]) == (verdicts.TRACEBACK_LINES, "ValueError: no")
    assert found["test_stops"]["reason"] == "ValueError: no"


def test_of_several_tracebacks_the_first_says_why() -> None:
    found = verdicts_of([
        {"test_id": STOPS, "file_name": "traceback-1", "file_bytes": b"KeyError: 'cleaning up'"},
        {"test_id": STOPS, "file_name": "traceback", "file_bytes": b"ValueError: no"},
        {"test_id": STOPS, "test_status": "fail"},
    ])  # fmt: skip
    assert found["test_stops"]["reason"] == "ValueError: no"


@pytest.mark.parametrize(
    ("event", "status", "reason"),
    [("skip", "skipped", "set-up of its class: no volumes"),
     ("fail", "failed", "set-up of its class: ValueError: no")],
)  # fmt: skip
def test_the_set_up_of_a_class_is_its_tests_verdict(event: str, status: str, reason: str) -> None:
    setup = f"setUpClass ({CLASS})"
    details = {"skip": ("reason", b"no volumes"), "fail": ("traceback", b"ValueError: no")}
    name, data = details[event]
    other = "tempest.api.compute.test_other.OtherTest.test_it[id-9]"
    found = verdicts_of([
        {"test_id": setup, "file_name": name, "file_bytes": data},
        {"test_id": setup, "test_status": event},
        {"test_id": other, "test_status": "success"},
    ], (BOOTS, STOPS, other))  # fmt: skip
    assert {test: (each["status"], each["reason"]) for test, each in found.items()} == {
        "test_boots": (status, reason), "test_stops": (status, reason), "test_it": ("passed", None),
    }  # fmt: skip


def test_a_class_that_cannot_be_taken_down_fails_besides_its_tests() -> None:
    tests = [{"test_id": test, "test_status": "success"} for test in (BOOTS, STOPS)]
    down = f"tearDownClass ({CLASS})"
    found = verdicts_of([
        *tests,
        {"test_id": down, "file_name": "traceback", "file_bytes": b"ValueError: no"},
        {"test_id": down, "test_status": "fail"},
    ])  # fmt: skip
    assert [found[each]["status"] for each in ("test_boots", "test_stops", "tearDownClass")] == [
        "passed", "passed", "failed",
    ]  # fmt: skip
    assert found["tearDownClass"]["service"] == "compute"


def test_a_test_whose_process_dies_has_failed() -> None:
    found = verdicts_of([{"test_id": STOPS, "test_status": "inprogress", "timestamp": at(0)}])
    assert (found["test_stops"]["status"], found["test_stops"]["reason"]) == (
        "failed", "its process died while it ran",
    )  # fmt: skip
    assert "test_boots" not in found, "of what never began there is no verdict"


def test_what_passes_alone_says_that_it_had_failed() -> None:
    first = verdicts.verdict(f"{CLASS}.test_stops", "failed", "ValueError: no", 1.0, "Traceback")
    passed = verdicts.second(first, verdicts.verdict(first["test"], "passed", None, 2.0))
    assert (passed["status"], passed["duration_s"], passed["traceback"]) == ("passed", 2.0, None)
    assert passed["reason"] == "only when it was run again, alone: first ValueError: no"
    again = verdicts.verdict(first["test"], "failed", "KeyError: 'x'", 2.0, "Traceback")
    assert verdicts.second(first, again) == again


# ---------------------------------------------------------------- exclusions


def test_every_exclusion_has_a_reason_and_a_test() -> None:
    exclusions = read_exclusions()
    assert all(each.reason for each in exclusions)
    stored = runs_under(checkout() / "results/reference")
    verified = [run for run in stored if run.load().is_verification]
    assert verified
    tests = {test for run in verified for test in run.table("verdicts").column("test").to_pylist()}
    for each in exclusions:
        assert any(each.covers(test) for test in tests), f"{each.name} is no test of Tempest"


def test_what_wants_ports_is_left_out_where_vms_have_none() -> None:
    def excluded(nics: int) -> set[str]:
        cloud = CloudUnderTest(REGION, 4, nics)
        return {each.name for each in verification.request_of(Wish(), cloud).exclusions}

    further = excluded(nics=0) - excluded(nics=1)
    assert len(further) == 3
    assert any(name.endswith(".ServersTestMultiNic") for name in further)
    assert excluded(nics=1) == excluded(nics=2) < excluded(nics=0)


def test_lines_that_exclude_nothing_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "exclusions.txt"
    path.write_text(
        "# a comment\n\n"
        "tempest.api.compute.test_it  # the fake driver can't\n"
        "tempest.api.compute.test_other\n"
        "tempest.api.compute.test_it  # again\n"
        "test_it(.*)  # a pattern\n"
    )
    with pytest.raises(InvalidInput) as raised:
        read_exclusions(path)
    lines = str(raised.value).splitlines()
    assert [re.sub(r".*txt:", "", line) for line in lines] == [
        "4: 'tempest.api.compute.test_other' has no reason; write '# ' and why it can't be run",
        "5: 'tempest.api.compute.test_it' is there twice; remove one of the lines",
        "6: 'test_it(.*)' is no name of a test; write tempest.api.… as Tempest lists it",
    ]
    assert FILE.is_file()


# ---------------------------------------------------------------- what Tempest is told

REGION = RegionVariables("site1", {"identity": "http://10.0.0.1:5000"})
PASSWORD = "p%s$w'ö\" rd"


def test_secrets_are_in_files_of_their_owner_only() -> None:
    files = verification.files(Wish(), CloudUnderTest(REGION, 4, 1), PASSWORD)
    holders = {name for name, (text, _mode) in files.items() if "rd" in text and "p%s" in text}
    assert holders == {"tempest.conf", "login.json"}
    assert {files[name][1] for name in holders} == {0o600}
    asked = VerificationRequest.from_json(json.loads(files["request.json"][0]))
    assert asked.services == wire.SERVICES
    assert asked.exclusions == read_exclusions(nics=1)
    assert all(each.reason for each in asked.exclusions)


def test_the_configuration_names_what_is_made_for_it() -> None:
    cloud = CloudUnderTest(REGION, 4, 1)
    told = settings(cloud, PASSWORD)
    request = verification.request_of(Wish(), cloud)
    assert (told["compute"]["image_ref"], told["compute"]["image_ref_alt"]) == request.images
    assert told["compute"]["flavor_ref"] == request.flavors[0].id
    assert request.flavors[1].ram_mb > request.flavors[0].ram_mb, "it is resized to"
    assert CloudUnderTest(REGION, 4, 1).images != cloud.images, "Glance takes none twice"
    assert told["identity"] == {"uri_v3": "http://10.0.0.1:5000/v3", "region": "site1"}


@pytest.mark.parametrize(("computes", "nics"), [(1, 0), (1, 1), (2, 0), (2, 1)])
def test_what_the_cloud_lacks_is_skipped(computes: int, nics: int) -> None:
    told = settings(CloudUnderTest(REGION, computes, nics), PASSWORD)
    enabled = told["compute-feature-enabled"]
    assert enabled["resize"] == enabled["live_migration"] == (computes > 1)
    assert enabled["interface_attach"] == bool(nics)
    assert ("fixed_network_name" in writers.ini(told)) == bool(nics)


def test_a_region_that_is_not_there_is_refused() -> None:
    cloud = SimpleNamespace(regions=(REGION,), computes={"site1": ("a", "b")}, options={"nics": 0})
    variables: Any = SimpleNamespace(cloud=cloud)
    assert cloud_under_test(variables, None).region == REGION
    assert cloud_under_test(variables, "site1").computes == 2
    with pytest.raises(Refused, match="--region: the cloud has no region 'site9'; it has site1"):
        cloud_under_test(variables, "site9")


def test_what_is_found_out_is_added_and_nobody_else_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "tempest.conf"
    path.write_text(writers.ini(settings(CloudUnderTest(REGION, 2, 1), PASSWORD)))
    path.chmod(0o600)
    tested_cloud.set_option(str(path), "network-feature-enabled", "api_extensions", "a,b")
    text = path.read_text()
    assert "api_extensions = a,b" in text
    assert f"admin_password = {PASSWORD}" in text
    assert "port_security = true" in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


# ---------------------------------------------------------------- how the cloud is left


class Shelf:
    """Resources of one kind; those of `held` can't be removed as long as they are there."""

    def __init__(self, *identities: str, held: Iterable[str] = ()) -> None:
        self.identities = list(identities)
        self.held = held

    def kind(self, name: str, log: list[str]) -> tested_cloud.Kind:
        def delete(_cloud: Any, each: Any) -> None:
            from openstack.exceptions import SDKException

            if each.id in self.held:
                raise SDKException("in use")
            log.append(each.id)
            self.identities.remove(each.id)

        return tested_cloud.Kind(
            name, lambda _cloud: [SimpleNamespace(id=each) for each in self.identities], delete
        )


@pytest.fixture
def sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand for OpenStack's SDK, which only hosts have."""
    exceptions = SimpleNamespace(SDKException=type("SDKException", (Exception,), {}))
    monkeypatch.setitem(__import__("sys").modules, "openstack", SimpleNamespace())
    monkeypatch.setitem(__import__("sys").modules, "openstack.exceptions", exceptions)


@pytest.mark.usefixtures("sdk")
def test_all_that_came_goes_and_nothing_else() -> None:
    log: list[str] = []
    servers, users = Shelf("mine"), Shelf("admin")
    kinds = [servers.kind("servers", log), users.kind("users", log)]
    before = tested_cloud.snapshot(None, kinds)
    assert before == {"servers": ["mine"], "users": ["admin"]}
    servers.identities += ["theirs", "another"]
    users.identities.append("tempest")
    removed, complaints = tested_cloud.restore(None, before, kinds)
    assert (removed, complaints) == ({"servers": 2, "users": 1}, [])
    assert log == ["theirs", "another", "tempest"], "users go after what is theirs"
    # Of what the note doesn't know nothing is removed.
    assert tested_cloud.restore(None, {}, kinds) == ({}, [])


@pytest.mark.usefixtures("sdk")
def test_what_cannot_be_removed_is_told() -> None:
    ports = Shelf("held", held=["held"])
    removed, complaints = tested_cloud.restore(None, {"ports": []}, [ports.kind("ports", [])])
    assert (removed, complaints) == ({}, ["ports: held: in use"])


# ---------------------------------------------------------------- what the host says


def line(kind: str, **values: Any) -> Any:
    return json.loads(wire.encode(kind, **values))


def said(test: str, status: str, **more: Any) -> Any:
    return line("verdict", **{**verdicts.verdict(f"{CLASS}.{test}", status), **more})


def test_lines_become_rows() -> None:
    ledger = Ledger()
    for each in (
        line("stage", stage="listing", done=0, total=0), line("planned", tests=2),
        said("test_boots", "passed"), said("test_stops", "failed", reason="no"),
        line("note", text="tests left 1 servers"),
    ):  # fmt: skip
        ledger.take(each)
    assert [row["status"] for row in ledger.new_rows()] == ["passed", "failed"]
    ledger.take(said("test_stops", "passed", reason="alone"))
    assert [row["reason"] for row in ledger.new_rows()] == ["alone"]
    assert ledger.counts == {"passed": 2}
    assert (ledger.planned, ledger.notes) == (2, ["tests left 1 servers"])
    assert ledger.reason() == "it was interrupted"
    ledger.take(line("done"))
    assert ledger.reason() is None


@pytest.mark.parametrize(
    ("words", "reason"),
    [("ended (timeout, killed TERM)", "its time was up"),
     ("is gone", "Tempest is gone")],
)  # fmt: skip
def test_why_a_verification_is_partial(words: str, reason: str) -> None:
    ledger = Ledger()
    ledger.take(line("unit", words=words))
    assert ledger.reason() == reason
    ledger.take(line("crash", error="3 tests have no end"))
    assert ledger.reason() == "3 tests have no end"


GOOD = said("test_boots", "passed")


@pytest.mark.parametrize(
    "hostile",
    [
        None, [], "verdict", {}, {"line": "vm", "name": "x"}, {"line": ["verdict"]},
        {**GOOD, "status": "great"}, {**GOOD, "service": "volume"}, {**GOOD, "test": 1},
        {**GOOD, "duration_s": float("nan")}, {**GOOD, "duration_s": "1"},
        {**GOOD, "traceback": ["x"]}, {key: GOOD[key] for key in GOOD if key != "reason"},
        {"line": "planned", "tests": 10**9}, {"line": "planned", "tests": -1},
        {"line": "stage", "stage": "x", "done": 1.5, "total": 2},
    ],
)  # fmt: skip
def test_lines_that_no_test_writes_are_refused(hostile: Any) -> None:
    with pytest.raises(Unfit):
        Ledger().take(hostile)


def test_a_verdict_stands_unless_the_test_failed() -> None:
    ledger = Ledger()
    ledger.take(GOOD)
    with pytest.raises(Unfit, match="a test ends twice"):
        ledger.take(said("test_boots", "failed"))


def test_what_is_shown_of_a_traceback_moves_no_cursor() -> None:
    ledger = Ledger()
    ledger.take(
        said("test_boots", "failed", reason="a\x1b[2J", traceback="one\x1b[2J\ntwo\r" * 999)
    )
    (row,) = ledger.new_rows()
    assert "\x1b" not in row["reason"] + row["traceback"]
    assert "\r" not in row["traceback"]
    assert len(row["traceback"].split("\n")) > 1
    assert len(row["traceback"]) <= 4 * wire.LONGEST_TRACEBACK
