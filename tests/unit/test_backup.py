"""A backup holds what hosts sent that is fit to be used, and says what isn't."""

import base64
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import enoslib as en
import pytest

from discovery_xp.deployment import backup as backups
from discovery_xp.deployment import deploy, identities
from discovery_xp.deployment.backup import backup
from discovery_xp.deployment.description import deployment_file
from discovery_xp.deployment.play import Outcome, PlayRun, log_file
from discovery_xp.errors import Failed, Refused
from discovery_xp.inputs.topology import parse_topology
from discovery_xp.onhost.catalogue import COMPONENTS
from discovery_xp.planning.plan import make_plan
from discovery_xp.testbeds.hosts import Hosts
from discovery_xp.testbeds.testbed import State, Testbed, now
from discovery_xp.testbeds.transport import Output
from tests.unit.test_archives import entry, packed

PLAN = make_plan(parse_topology("name: mine\nsites: [{name: a}]"), cloud=True)
GOOD = base64.b64encode(packed([entry("configuration/etc/nova/nova.conf", b"[x]\n")])).decode()
ABSOLUTE = base64.b64encode(packed([entry("/tmp/pwned", b"x")])).decode()


@pytest.fixture
def testbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Testbed:
    monkeypatch.setenv("DISCOVERY_XP_HOME", str(tmp_path / "home"))
    made = Testbed("mine")
    made.save(State(PLAN, "up", now()))
    deployment_file(made).write_text("{}")
    log_file("mine").write_text("")
    return made


@pytest.fixture
def hosts() -> Hosts:
    return Hosts(
        PLAN,
        en.Roles({"all": [en.Host("10.0.0.1", alias=host.name) for host in PLAN.hosts]}),
        en.Networks(),
    )


Sent = Callable[..., None]


class Untold:
    """In the place of what playbooks are told."""

    def to_ansible(self) -> dict[str, Any]:
        return {}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """Decides what hosts send: (component, host, archive) of each."""

    def send(*archives: tuple[str, str, object], failure: Failed | None = None) -> None:
        outcomes = [Outcome(backups.MODULE, host, "ok", {"archive": archive}, component)
                    for component, host, archive in archives]  # fmt: skip
        run = PlayRun([*outcomes, Outcome("x", "y", "ok", {}, "nova")], failure)
        monkeypatch.setattr(backups, "run_playbook", lambda *_, **__: run)
        monkeypatch.setattr(backups, "play_variables", lambda *_: Untold())

    return send


NOVA = "nova"


def test_records_of_hosts_are_by_host_and_component(
    hosts: Hosts, testbed: Testbed, tmp_path: Path, sent: Sent
) -> None:
    sent((NOVA, "a-compute-1", GOOD), (NOVA, "a-controller-1", GOOD))
    count = backup(hosts, testbed, tmp_path / "to", lambda *_: None)
    file = tmp_path / "to/a-compute-1/nova/configuration/etc/nova/nova.conf"
    assert file.read_text() == "[x]\n"
    assert count == sum(path.is_file() for path in (tmp_path / "to").rglob("*"))
    assert (tmp_path / "to").stat().st_mode & 0o077 == 0
    with pytest.raises(Refused, match="exists"):
        backup(hosts, testbed, tmp_path / "to", lambda *_: None)


@pytest.mark.parametrize("archive", [ABSOLUTE, None, 5, ["x"], "", "YWJj", {"a": "b"}])
def test_a_hostile_hosts_part_is_missing_and_named(
    archive: object, hosts: Hosts, testbed: Testbed, tmp_path: Path, sent: Sent
) -> None:
    sent((NOVA, "a-compute-1", archive), (NOVA, "a-controller-1", GOOD))
    with pytest.raises(Failed, match="a-compute-1's records of nova can't be used: ") as failed:
        backup(hosts, testbed, tmp_path / "to", lambda *_: None)
    assert "\n" not in str(failed.value)
    assert not Path("/tmp/pwned").exists()
    assert list((tmp_path / "to").glob("*/nova")) == [tmp_path / "to/a-controller-1/nova"]
    assert (tmp_path / "to/state.json").exists()


def test_a_folder_that_cannot_be_made_is_refused_before_a_host_is_asked(
    hosts: Hosts, testbed: Testbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backups, "play_variables", lambda *_: Untold())
    monkeypatch.setattr(backups, "run_playbook", lambda *_, **__: 1 / 0)
    with pytest.raises(Refused, match="can't be made: File name too long"):
        backup(hosts, testbed, tmp_path / ("a" * 300), lambda *_: None)
    with pytest.raises(ZeroDivisionError):
        backup(hosts, testbed, tmp_path / "to", lambda *_: None)
    assert not (tmp_path / "to").exists(), "what was interrupted can be done again"


def test_the_same_component_twice_is_named(
    hosts: Hosts, testbed: Testbed, tmp_path: Path, sent: Sent
) -> None:
    sent((NOVA, "a-compute-1", GOOD), (NOVA, "a-compute-1", GOOD))
    with pytest.raises(Failed, match="a-compute-1's records of nova"):
        backup(hosts, testbed, tmp_path / "to", lambda *_: None)


@pytest.mark.parametrize("component", ["../../x", "/tmp/x", "unknown", ""])
def test_only_components_become_folders(
    component: str, hosts: Hosts, testbed: Testbed, tmp_path: Path, sent: Sent
) -> None:
    sent((component, "a-compute-1", GOOD), (NOVA, "../x", GOOD))
    backup(hosts, testbed, tmp_path / "to", lambda *_: None)
    assert not [path for path in (tmp_path / "to").iterdir() if path.is_dir()]


def test_others_records_are_kept_where_a_host_fails(
    hosts: Hosts, testbed: Testbed, tmp_path: Path, sent: Sent
) -> None:
    sent((NOVA, "a-controller-1", GOOD), failure=Failed("a-compute-1: gone", "x"))
    with pytest.raises(Failed, match="a-compute-1: gone; the others' records are in"):
        backup(hosts, testbed, tmp_path / "to", lambda *_: None)
    assert (tmp_path / "to/a-controller-1/nova").is_dir()


def test_every_component_of_the_playbook_is_known() -> None:
    roles = Path(__file__).parents[2] / "playbooks/roles"
    assert {path.parts[-3] for path in roles.glob("*/tasks/backup.yml")} == {*COMPONENTS}


# ---------------------------------------------------------------- what is kept of lent hosts


def test_of_a_lent_host_only_a_uuid_is_kept(
    hosts: Hosts, testbed: Testbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"a-compute-1": Output(0, "{{ lookup('pipe', 'id') }}\n", "")}
    monkeypatch.setattr(identities, "run_each", lambda *_: said)
    lent: Any = SimpleNamespace(platform=object(), require_cloud=PLAN.require_cloud)
    made = Hosts(lent, hosts.roles, hosts.networks)
    identities.collect(made, testbed)
    assert json.loads(identities.identities_file(testbed).read_text()) == {}
    said["a-compute-1"] = Output(0, "01234567-89ab-cdef-0123-456789abcdef\n", "")
    identities.collect(made, testbed)
    assert identities.load(testbed) == {"a-compute-1": "01234567-89ab-cdef-0123-456789abcdef"}


@pytest.mark.parametrize("text", ["[1]", "x", '{"a-compute-1": "{{ x }}"}', "[" * 10**5])
def test_a_damaged_file_of_identities_gives_no_template(text: str, testbed: Testbed) -> None:
    identities.identities_file(testbed).write_text(text)
    assert identities.load(testbed) == {}, "the cloud can be removed all the same"


def test_a_damaged_file_of_identities_is_refused_before_a_deploy(
    hosts: Hosts, testbed: Testbed
) -> None:
    identities.identities_file(testbed).write_bytes(b"\xff[")
    with pytest.raises(Refused, match=r"compute_ids.json is damaged: .*; remove it"):
        deploy.install(hosts, testbed, lambda *_: None)


def test_a_setting_that_cannot_be_written_is_refused_before_a_host_is_asked() -> None:
    plan = make_plan(parse_topology("name: mine\nsites: [{name: a}]\n"), cloud=True)
    assert plan.cloud is not None
    value = "1\n\n[api]\nauth_strategy = noauth2"  # which no topology can hold
    options = dataclasses.replace(plan.cloud.options, config={"nova": {"DEFAULT": {"a": value}}})
    plan = dataclasses.replace(plan, cloud=dataclasses.replace(plan.cloud, options=options))
    with pytest.raises(Refused, match=r"openstack.config.nova: \[DEFAULT\] 'a': .*correct it"):
        deploy.require_writable(plan)
