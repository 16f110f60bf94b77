import json
from pathlib import Path

import pytest

from discovery_xp import testbed as module
from discovery_xp.errors import Refused
from discovery_xp.plan import PlannedLink, make_plan
from discovery_xp.testbed import State, Testbed, choose, home, write_atomically
from discovery_xp.topology import Link, derive_topology

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
    with testbed.locked():
        with pytest.raises(Refused, match="being worked on by process"), testbed.locked():
            pass
        with Testbed("other").locked():
            pass
    with testbed.locked():
        pass
    assert not home().exists(), "a lock leaves nothing behind"


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
