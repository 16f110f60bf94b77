"""Names that can only be made valid, wherever they come from."""

import copy
import datetime
import json
from pathlib import Path

import pytest
import yaml

from discovery_xp.boundary import names
from discovery_xp.boundary.names import (
    BadName,
    ExperimentName,
    HostName,
    RegionName,
    RunName,
    SiteName,
    TestbedName,
)
from discovery_xp.errors import Refused
from discovery_xp.inputs.topology import Link, SshHost, derive_topology
from discovery_xp.planning.plan import PlannedHost, PlannedLink, PlannedSite, make_plan
from discovery_xp.planning.plan_json import plan_from_json
from discovery_xp.testbeds import testbed
from discovery_xp.testbeds.testbed import State, Testbed, choose

# What would be another path, a line more, an option, or nothing at all.
HOSTILE = [
    "", ".", "..", "/", "a/b", "/tmp/precious", "../x", "a\n", "a\nb", "a b", "-a", "a-", "A",
    "a\x00", "a\x1b[2J", "é", "a" * 31, "x" * 100_000, "\udcff", "a.b", "~", "*", "a;b",
]  # fmt: skip


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DISCOVERY_XP_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:10]))
def test_no_testbed_has_a_bad_name(text: str, own_home: Path) -> None:
    for make in (TestbedName, Testbed, choose):
        with pytest.raises(BadName) as caught:
            make(text)
        assert len(str(caught.value).splitlines()) == 1
        assert len(str(caught.value)) < 200
    assert not own_home.exists()


@pytest.mark.parametrize("text", [each for each in HOSTILE if len(each) != 31])
def test_nothing_that_is_planned_has_a_bad_name(text: str) -> None:
    for make in (
        lambda: PlannedSite(text, 1),
        lambda: PlannedHost(text, "a", ()),
        lambda: PlannedHost("a-data-1", text, ()),
        lambda: PlannedLink(text, "a", Link()),
        lambda: PlannedLink("a", text, Link()),
    ):
        with pytest.raises(BadName):
            make()


def test_a_name_is_the_text_that_it_was_made_of() -> None:
    name = SiteName("a")
    assert name == "a"
    assert {"a": 1}[name] == 1
    assert type(copy.deepcopy(name)) is SiteName
    assert json.dumps([name]) == '["a"]'
    assert yaml.safe_dump([name]) == "- a\n"


@pytest.mark.parametrize("word", ["master", "all", "localhost", "wan", "a-compute-1"])
def test_a_site_isnt_called_what_means_something_else(word: str) -> None:
    with pytest.raises(BadName, match="choose another name"):
        SiteName(word)


def test_the_longest_names_fit_each_other() -> None:
    site = SiteName("s" * 30 + "250")
    host = HostName(f"{site}-controller-1000")
    assert RegionName(site) == str(site)
    assert RegionName(host) == str(host)
    with pytest.raises(BadName):
        HostName(f"{site}-controller-10000")


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("My Topology_2", "my-topology-2"),
        ("2x", "t-2x"),
        ("", "t"),
        ("--", "t"),
        ("x" * 300, "x" * 30),
    ],
)
def test_a_files_name_becomes_a_name(stem: str, name: str) -> None:
    assert names.derived(stem, "t") == name
    assert TestbedName(name)


def test_a_folder_of_another_name_is_no_testbed(own_home: Path) -> None:
    for folder in ("mine", "Not mine", "a\nb", "..x"):
        (own_home / "testbeds" / folder).mkdir(parents=True)
    assert testbed.testbeds() == ["mine"]


def test_what_isnt_there_is_neither_locked_nor_made(own_home: Path) -> None:
    with pytest.raises(Refused, match="no testbed 'mine'"):
        choose("mine")
    assert not own_home.exists()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"name": "mine"', '"name": "../../etc"'),
        ('"name": "mine"', '"name": "other"'),
        ('"name": "site1"', '"name": "x;reboot"'),
        ('"name": "site1-master-1"', '"name": "a\\nb"'),
        ('"source": "site1"', '"source": "/"'),
    ],
)
def test_a_state_with_a_bad_name_is_damaged(old: str, new: str) -> None:
    made = Testbed("mine")
    plan = make_plan(derive_topology(2, "10ms"), "mine")
    made.save(State(plan=plan, phase="up", created="2027-01-01T00:00:00Z"))
    text = made.state_file.read_text()
    assert old in text
    made.state_file.write_text(text.replace(old, new, 1))
    with pytest.raises(Refused, match="the state is damaged") as caught:
        made.load()
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"address": "10.0.0.1\n  ProxyCommand id"},
        {"address": "-oProxyCommand=id"},
        {"address": ""},
        {"user": "root\n"},
        {"user": "{{ 7 * 7 }}"},
        {"user": "a b"},
        {"port": 0},
        {"port": 65536},
        {"key": '/k"\n  ProxyCommand id'},
        {"key": "/k\n"},
        {"jump": "a@b c"},
        {"jump": "alice@host\n  ProxyCommand id"},
    ],
)
def test_how_a_host_is_reached_is_words(wrong: dict[str, object]) -> None:
    right: dict[str, object] = {"address": "10.0.0.1", "user": "root", "port": 22, "key": "/my key"}
    assert SshHost(**right)  # type: ignore[arg-type]
    with pytest.raises(BadName, match=f"ssh's {next(iter(wrong))}"):
        SshHost(**{**right, **wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        (("hosts", 0, "site"), "site3", "a host has no site"),
        (("hosts", 0, "name"), "site1-compute-1", "is there twice"),
        (("hosts", 0, "roles"), [], "one master"),
        (("hosts", 0, "address"), None, "an address is missing"),
        (("hosts", 0, "address"), "10.0.0.1; reboot", "decimal digits"),
        (("sites", 0, "number"), 2, "aren't numbered"),
        (("sites", 0, "name"), "site2", "is there twice"),
        (("sites", 0, "gateway"), "x", "octet"),
        (("sites", 0, "network"), "10.0.0.1/8", "host bits"),
        (("links",), [], "one link for each pair"),
        (("network",), None, "an address is missing"),
        (("backbone",), "0.0.0.0/x", "netmask"),
        (("provider",), "static", "the way to a host"),
        (("provider",), "g5k", "another provider"),
        (("provider",), "nobody", "the provider is unknown"),
    ],
)
def test_a_stored_plan_whose_parts_dont_fit_is_damaged(
    path: tuple[str | int, ...], value: object, fault: str
) -> None:
    data = json.loads(json.dumps(make_plan(derive_topology(2, "10ms"), "mine").to_json()))
    assert plan_from_json(data)
    part = data
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    with pytest.raises(ValueError, match=fault):
        plan_from_json(data)


@pytest.mark.parametrize(
    "text", ["", ".", "..", "/", "a/b", "../x", "a\n", "-a", "a" * 101, "é", "*"]
)
def test_no_folder_of_results_has_a_bad_name(text: str) -> None:
    for kind in (ExperimentName, RunName):
        with pytest.raises(BadName) as caught:
            kind(text)
        assert kind.kind in str(caught.value)


def test_a_run_is_named_by_its_start_and_its_plan() -> None:
    started = datetime.datetime(2027, 3, 1, 19, 0, 5)
    name = RunName.of(started, "1f2e3d4c5b6a")
    assert name == "20270301T190005Z-1f2e3d4c5b6a"
    with pytest.raises(BadName):
        RunName.of(started, "../x")
    assert ExperimentName(TestbedName("sites-2")) == "sites-2"
