import json
import os
import stat
from pathlib import Path

import pytest

from discovery_xp.errors import Refused
from discovery_xp.inputs.topology import Link, derive_topology
from discovery_xp.places import home
from discovery_xp.planning.plan import PlannedLink, make_plan
from discovery_xp.testbeds import testbed as module
from discovery_xp.testbeds.testbed import State, Testbed, choose, write_atomically

BAD_PLAN = (
    '{"format": 2, "plan": [], "phase": "up", "created": "", "wan": null, "image": null,'
    ' "observed": [], "changed_links": null}'
)
PLAN = make_plan(derive_topology(2, "10ms"), "mine")
STATE = State(plan=PLAN, phase="acquiring", created="2027-01-01T00:00:00Z")


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISCOVERY_XP_HOME", str(tmp_path / "home"))


def test_a_state_survives_its_file() -> None:
    testbed = Testbed("mine")
    assert not testbed.exists()
    testbed.save(STATE)
    assert testbed.load() == STATE
    links = (PlannedLink("site1", "site2", Link(3)),)
    testbed.update(phase="up", wan="vde", changed_links=links, observed=({"a": 1},))
    again = testbed.load()
    assert (again.phase, again.wan, again.links, again.plan) == ("up", "vde", links, PLAN)


def test_the_links_are_the_plans_until_they_are_changed() -> None:
    assert STATE.links == PLAN.links


def test_a_testbed_is_chosen_by_name_or_because_it_is_the_only_one() -> None:
    with pytest.raises(Refused, match="there is no testbed"):
        choose(None)
    Testbed("mine").save(STATE)
    assert choose(None).name == "mine"
    Testbed("other").save(STATE)
    with pytest.raises(Refused, match="several testbeds \\(mine, other\\)"):
        choose(None)
    assert choose("other").name == "other"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 0}', '{"format": 2}', BAD_PLAN])
def test_a_damaged_or_foreign_state_is_refused_with_a_remedy(text: str) -> None:
    testbed = Testbed("mine")
    testbed.save(STATE)
    testbed.state_file.write_text(text)
    with pytest.raises(Refused, match="destroy"):
        testbed.load()


def test_writing_leaves_the_old_file_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    write_atomically(path, "old")

    def die(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", die)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, "new")
    assert path.read_text() == "old"


def test_one_process_works_on_a_testbed_at_a_time() -> None:
    testbed = Testbed("mine")
    with testbed.locked(make=True):
        with pytest.raises(Refused, match="being worked on by process"), testbed.locked(make=True):
            pass
        with Testbed("other").locked(make=True):
            pass
    with testbed.locked(make=True):
        pass
    assert not home().exists(), "a lock leaves nothing behind"


def test_a_lock_takes_no_file_and_names_its_holder() -> None:
    testbed = Testbed("mine")
    testbed.save(STATE)
    with testbed.locked():
        assert [entry.name for entry in testbed.folder.iterdir()] == ["state.json"]
        with pytest.raises(Refused, match=f"by process {os.getpid()};"), testbed.locked():
            pass


def test_what_is_not_there_is_not_locked_and_nothing_is_made() -> None:
    with pytest.raises(Refused, match="no testbed 'mine'"), Testbed("mine").locked():
        pass
    assert not home().exists()


def test_a_folder_made_anew_meanwhile_is_not_removed() -> None:
    testbed = Testbed("mine")
    with testbed.locked(make=True):
        testbed.folder.rmdir()
        with testbed.locked(make=True):
            testbed.save(STATE)
    assert testbed.load() == STATE


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_nobody_else_can_enter_a_testbed_whatever_the_umask(umask: int) -> None:
    before = os.umask(umask)
    try:
        Testbed("mine").save(STATE)
    finally:
        os.umask(before)
    folder = Testbed("mine").folder
    for path in (home(), folder.parent, folder):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "state.json").stat().st_mode) == 0o600


def test_a_testbed_that_was_left_open_is_closed() -> None:
    testbed = Testbed("mine")
    testbed.save(STATE)
    testbed.folder.chmod(0o711)
    testbed.folder.parent.chmod(0o755)
    testbed.load()
    for path in (testbed.folder.parent, testbed.folder):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_home_that_others_may_write_in_is_refused_with_the_command_that_mends_it() -> None:
    testbed = Testbed("mine")
    testbed.save(STATE)
    home().chmod(0o777)
    for use in (testbed.load, lambda: choose(None), lambda: testbed.save(STATE)):
        with pytest.raises(Refused, match=f"chmod go-w {home()}"):
            use()


@pytest.mark.parametrize("which", ["mine", "testbeds"])
def test_a_link_in_place_of_a_folder_is_refused(tmp_path: Path, which: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("kept")
    testbed = Testbed("mine")
    link = testbed.folder if which == "mine" else testbed.folder.parent
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere)
    with pytest.raises(Refused, match="leads elsewhere"):
        testbed.save(STATE)
    testbed.remove()
    assert (elsewhere / "precious").exists()


def test_removing_takes_everything() -> None:
    testbed = Testbed("mine")
    testbed.save(STATE)
    (testbed.folder / "hosts/a/upper").mkdir(parents=True)
    (testbed.folder / "hosts/a/upper/file").write_text("x")
    testbed.remove()
    assert module.testbeds() == []
    assert not testbed.folder.parent.exists()


def test_the_state_is_json_for_others_too() -> None:
    testbed = Testbed("mine")
    testbed.save(STATE)
    data = json.loads(testbed.state_file.read_text())
    assert data["format"] == 2
    assert data["plan"]["hosts"][0]["name"] == "site1-master-1"
