"""Ansible takes nothing that it is given, or that hosts answer, for a template."""

import gc
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import enoslib as en
import pytest
import yaml
from ansible import constants as settings
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.yaml.loader import AnsibleLoader
from ansible.plugins.connection import ssh
from ansible.plugins.loader import filter_loader
from ansible.template import Templar

from discovery_xp.deployment import play
from discovery_xp.deployment.play import run_playbook
from discovery_xp.deployment.variables import PORTS
from discovery_xp.errors import Failed
from discovery_xp.inputs.topology import parse_topology
from discovery_xp.planning.plan import make_plan
from discovery_xp.testbeds import ansible_runs, passwords, remote
from discovery_xp.testbeds.ansible_runs import BoundedProcess, literal, workspace
from discovery_xp.testbeds.hosts import Hosts, inventory, to_roles_and_networks
from discovery_xp.testbeds.remote import run_each
from discovery_xp.testbeds.testbed import Testbed
from tests.unit import unchecked

# Ansible leaves files of its own to the collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
PLAYBOOKS = Path(__file__).parents[2] / "playbooks"
PLAN = make_plan(parse_topology("name: mine\nsites: [{name: a}]"), cloud=True)


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    yield
    gc.collect()


def hostile(mark: Path) -> str:
    """A text that makes a file on the control machine wherever it is taken for a template."""
    return f"{{{{ lookup('pipe', 'touch {mark}') }}}}{{% set x = lookup('pipe', 'touch {mark}') %}}"


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "ran"


@pytest.fixture
def testbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Testbed:
    monkeypatch.setenv("DISCOVERY_XP_HOME", str(tmp_path / "home"))
    made = Testbed("mine")
    made.folder.mkdir(parents=True)
    return made


def local_hosts(**values: Any) -> Hosts:
    """The plan's hosts, all of them this machine, without ssh."""
    extra = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, **values}
    groups: dict[str, list[en.Host]] = {}
    for planned in PLAN.hosts:
        host = en.Host(planned.address or "", alias=planned.name, extra=dict(extra))
        for group in (*planned.roles, planned.site):
            groups.setdefault(group, []).append(host)
    return Hosts(PLAN, en.Roles(groups), en.Networks())


@pytest.fixture
def playbooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout's folder of playbooks, with the filters of ours."""
    folder = tmp_path / "checkout/playbooks"
    folder.mkdir(parents=True)
    (folder / "filter_plugins").symlink_to(PLAYBOOKS / "filter_plugins")
    monkeypatch.setattr(play, "checkout", lambda: tmp_path / "checkout")
    return folder


def write_play(folder: Path, tasks: list[dict[str, Any]], **more: Any) -> None:
    text = yaml.safe_dump(
        [{"name": "try", "hosts": "master", "gather_facts": False, "tasks": tasks, **more}]
    )
    (folder / "try.yml").write_text(text)


# ---------------------------------------------------------------- what plays are given


def test_a_value_arrives_as_it_was_written_and_nothing_runs(
    testbed: Testbed, playbooks: Path, tmp_path: Path, mark: Path
) -> None:
    value = hostile(mark)
    tasks: list[dict[str, Any]] = [
        {"name": "one", "copy": {"dest": str(tmp_path / "own"), "content": "{{ pasted }}"}},
        {"name": "two", "command": {"argv": ["printf", "%s", "{{ xp.value }}"]},
         "register": "said"},
        {"name": "three", "set_fact": {"kept": "{{ said.stdout }}", "both": "{{ layers }}"}},
        {"name": "four", "when": "kept != 'x' and xp.value | length > 0",
         "copy": {"dest": str(tmp_path / "said"), "content": "{{ kept }}{{ item }}"},
         "loop": ["{{ both[1].DEFAULT.x }}"]},
    ]  # fmt: skip
    variables = {
        "pasted": "{{ {'DEFAULT': {'y': '1'}} | to_ini(xp.config, layers[1]) }}",
        "layers": ["{{ xp.config }}", "{{ xp.config | combine({}) }}"],
    }
    write_play(playbooks, tasks, vars=variables)
    given = {"value": value, "config": {"DEFAULT": {"x": value}}, value: [value]}
    run = run_playbook(local_hosts(), "try", {"xp": given}, lambda *_: None)
    assert [outcome.status for outcome in run.outcomes if outcome.title == "two"] == ["changed"]
    assert (tmp_path / "own").read_text() == f"[DEFAULT]\ny = 1\nx = {value}\n"
    assert (tmp_path / "said").read_text() == value * 2
    assert not mark.exists()


def test_the_same_play_runs_what_is_given_unmarked(
    testbed: Testbed, playbooks: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The test above could not fail if Ansible had no use for such a text.
    monkeypatch.setattr(ansible_runs, "literal", lambda value: value)
    write_play(playbooks, [{"name": "one", "debug": {"msg": "{{ xp.value }}"}}])
    run_playbook(local_hosts(), "try", {"xp": {"value": hostile(mark)}}, lambda *_: None)
    assert mark.exists()


def test_a_command_of_each_host_is_no_template(testbed: Testbed, mark: Path) -> None:
    [name] = [host.name for host in PLAN.hosts if "master" in host.roles]
    said = run_each(local_hosts(), {name: f'printf %s "{hostile(mark)}"'})
    assert said[name].stdout == hostile(mark)
    assert not mark.exists()


def test_what_a_host_is_reached_by_is_no_template(testbed: Testbed, mark: Path) -> None:
    reach = {
        host.name: unchecked.ssh_host(hostile(mark), hostile(mark), key=hostile(mark))
        for host in PLAN.hosts
    }
    roles, networks = to_roles_and_networks(PLAN, reach, Path(hostile(mark)))
    for group in roles.values():
        for host in group:
            host.extra |= {"ansible_connection": "local"}
    name = PLAN.hosts[0].name
    run_each(Hosts(PLAN, roles, networks), {name: "true"})
    assert not mark.exists()


def test_the_inventory_is_yaml_in_which_no_value_is_a_template(mark: Path) -> None:
    reach = {
        host.name: unchecked.ssh_host(host.address or "", key=hostile(mark)) for host in PLAN.hosts
    }
    roles, _ = to_roles_and_networks(PLAN, reach, Path("/my home/it's/ssh_config"))
    text = inventory(roles)
    read = AnsibleLoader(text).get_single_data()["all"]
    assert read["hosts"].keys() == {host.name for host in PLAN.hosts}
    values = read["hosts"][PLAN.hosts[0].name]
    assert values["ansible_ssh_private_key_file"] == hostile(mark)
    assert Templar(DataLoader(), variables=values).template(values) == values
    assert values["ansible_ssh_common_args"].startswith("-F '/my home/it'")
    assert set(read["children"]["controller"]["hosts"]) == {"a-controller-1"}
    assert not mark.exists()


# ---------------------------------------------------------------- the files of our roles


def of_roles(variables: Mapping[str, Any]) -> Templar:
    """Ansible's own templating, with the defaults of all our roles."""
    filter_loader.add_directory(str(PLAYBOOKS / "filter_plugins"))
    loader, known = DataLoader(), {}
    for file in (PLAYBOOKS / "vars/common.yml", *PLAYBOOKS.glob("roles/*/defaults/main.yml")):
        known.update(loader.load_from_file(str(file)))
    return Templar(loader, variables={**known, **variables})


def given(value: str) -> dict[str, Any]:
    """What the playbooks are told, as far as files are made of it."""
    services = ("keystone", "glance", "placement", "neutron", "nova")
    return {
        "inventory_hostname": "a-controller-1",
        "xp": {
            "environments": {"openstack": {"place": "/opt/openstack", "lock_digest": "1"}},
            "master": "a-master-1",
            "hosts": {
                "a-controller-1": {
                    "address": "10.0.0.2", "region": "a", "site": "a", "bus": "10.0.0.1:5672",
                    "cell": "", "cache": "10.0.0.1:11211", "identity_url": "http://10.0.0.1:5000",
                },
                "a-master-1": {"address": "10.0.0.1"},
            },
            "rome": None,
            "cells": {},
            "ports": PORTS,
            "timings": {"settings": {name: {} for name in services}},
            "options": {
                "virt_driver": "fake", "drawn_from": 1, "nics": 0, "placement": "shared",
                "periodic_tasks": "quiet",
                "workers": dict.fromkeys((*services, "nova-conductor", "nova-scheduler"), 1),
                "config": {name: {"DEFAULT": {"x": value}} for name in services},
            },
        },
        "xp_secrets": {
            "passwords": dict.fromkeys(passwords.PASSWORDS, "secret"),
            "database_urls": dict.fromkeys((*services, "nova_api", "nova_cell0"), "mysql://x"),
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("service", "content"),
    [
        *(
            (name, f"{{{{ {name}_settings | to_ini(xp.options.config.{name} | default({{}})) }}}}")
            for name in ("keystone", "glance", "placement", "neutron")
        ),
        ("nova", "{{ nova_common_contents['/etc/nova/nova.conf'] }}"),
    ],
)
def test_a_topologys_setting_is_a_literal_line_of_the_services_file(
    service: str, content: str, mark: Path
) -> None:
    value = hostile(mark) + " $x %y 'z\""
    made = of_roles(literal(given(value))).template(content)
    assert f"x = {value}\n" in made
    assert not mark.exists()


def of_a_cell(part: str, host: str = "a-controller-1") -> Templar:
    """The roles' templating on a host of a cloud whose site `a` is a cell of Nova."""
    variables = given("1")
    file = "/etc/nova/nova-cell-a.conf"
    variables["xp"] |= {"cells": {"a": {"name": "a", "file": file}}, "nova_database": "nova_cell0"}
    variables["xp"]["hosts"]["a-controller-1"]["cell"] = "a"
    variables["xp"]["hosts"]["a-master-1"] |= {"cell": "", "site": "hub"}
    variables["xp"]["timings"] |= {"seconds": {"unit_restart": 5, "unit_start": 1, "unit_stop": 1}}
    variables["xp"]["timings"]["settings"]["nova_database"] = {}
    variables["xp_secrets"]["cell_files"] = {file: "[DEFAULT]\ntransport_url = rabbit://x\n"}
    return of_roles(literal({**variables, "nova_part": part, "inventory_hostname": host}))


def test_a_cells_conductor_has_its_file_and_none_that_reaches_above() -> None:
    role = of_a_cell("controller")
    started = role.template("{{ nova_conductor_unit }}")
    assert "nova-conductor --config-file /etc/nova/nova.conf --config-file " in started
    assert "--config-file /etc/nova/nova-cell-a.conf" in started
    assert "nova-database.conf" not in started
    above = role.template("{{ nova_super_contents }}")
    assert above["/etc/nova/nova-super.conf"] == "[DEFAULT]\nhost = a-controller-1-super\n"
    unit = above["/etc/systemd/system/nova-super-conductor.service"]
    assert (
        "--config-file /etc/nova/nova-database.conf --config-file /etc/nova/nova-super.conf" in unit
    )
    assert "[Install]\n" in unit
    assert role.template("{{ nova_units.controller }}") == [
        "nova-super-conductor", "nova-conductor", "nova-scheduler", "nova-api",
    ]  # fmt: skip
    assert role.template("{{ nova_secret_files }}") == {
        "/etc/nova/nova-cell-a.conf": ["root:nova", "0640"]
    }
    made = role.template("{{ nova_common_contents['/etc/nova/nova.conf'] }}")
    assert "track_instance_changes = false\n" in made
    assert "[workarounds]\ndisable_group_policy_check_upcall = true\n" in made


def test_nova_manage_has_the_files_of_all_cells_and_a_controller_outside_of_them_none() -> None:
    master = of_a_cell("manage", "a-master-1")
    assert master.template("{{ nova_cell_contents }}") == {
        "/etc/nova/nova-cell-a.conf": "[DEFAULT]\ntransport_url = rabbit://x\n"
    }
    outside = of_a_cell("controller", "a-master-1")
    assert outside.template("{{ nova_cell_contents }}") == {}
    assert outside.template("{{ nova_secret_files }}") == {}
    assert outside.template("{{ nova_units.controller }}") == [
        "nova-super-conductor", "nova-scheduler", "nova-api",
    ]  # fmt: skip


def test_nova_maps_each_cell_and_is_done_when_the_last_one_is_there() -> None:
    variables = given("1")
    variables["xp"] |= {
        "regions": [{"name": "a"}], "cell0_template": "{scheme}://x", "nova_database": "nova_cell0",
        "nova_mappings": ["a=/etc/nova/nova-cell-a.conf", "b-1=/etc/nova/nova-cell-b-1.conf"],
    }  # fmt: skip
    schemas = of_roles(literal(variables)).template("{{ schemas_all }}")
    api = next(each for each in schemas if each["name"] == "nova_api")
    assert api["query"] == "SELECT 1 FROM cell_mappings WHERE name = 'b-1'"
    assert api["commands"][0][-6:] == [
        "--", "--database_connection", "{scheme}://x", "--",
        "a=/etc/nova/nova-cell-a.conf", "b-1=/etc/nova/nova-cell-b-1.conf",
    ]  # fmt: skip
    assert api["commands"][0][3:7] == ["--config-file", "/etc/nova/nova.conf", "--config-file",
                                       "/etc/nova/nova-database.conf"]  # fmt: skip


def test_without_cells_nothing_of_them_is_written() -> None:
    role = of_roles(literal({**given("1"), "nova_part": "controller"}))
    assert role.template("{{ nova_cell_contents }}") == {}
    assert role.template("{{ nova_units.controller }}") == [
        "nova-conductor", "nova-scheduler", "nova-api",
    ]  # fmt: skip
    made = role.template("{{ nova_common_contents['/etc/nova/nova.conf'] }}")
    assert "track_instance_changes" not in made
    assert "workarounds" not in made


def test_a_setting_that_would_end_its_section_fails_the_task(mark: Path) -> None:
    content = "{{ nova_common_contents['/etc/nova/nova.conf'] }}"
    with pytest.raises(AnsibleError, match=r"it can't be written: \[DEFAULT\] 'x'"):
        of_roles(literal(given("1\n\n[api]\nauth_strategy = noauth2"))).template(content)


# ---------------------------------------------------------------- what hosts answer


def interpreter(folder: Path, says: str) -> str:
    """A host's python3 that prints something of its own instead of running a module."""
    path = folder / "python3"
    path.write_text(f"#!/bin/sh\ncat >/dev/null\n{says}\n")
    path.chmod(0o755)
    return str(path)


ANSWERS: list[object] = [
    {"changed": "{{ lookup('pipe', 'id') }}", "changes": 7, "results": 5, "archive": [1]},
    {"failed": True, "msg": 7, "journal": 5, "unit": ["x"], "results": [1, {"failed": "x"}]},
    {"failed": True, "msg": "\x1b[2J\x1b]0;x\x07", "journal": ["\x1b[2J", {}], "unit": "\x1b[2J"},
    {"ansible_facts": [1], "warnings": 5, "deprecations": {"x": 1}, "diff": 4, "invocation": []},
    {"ansible_facts": {"ansible_connection": "x", "xp": {"value": "y"}}, "exception": {"x": 1}},
    {"ansible_facts": {"xp": {}}, "add_host": {"host_name": "b"}, "changed": True},
    json.loads("[" * 500 + "]" * 500), {"x": json.loads("[" * 500 + "]" * 500)},
    {"rc": "x", "stdout": {}, "stderr": 5, "stdout_lines": 4, "skipped": "x", "unreachable": 1},
    [], "x", 5, None,
]  # fmt: skip


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: json.dumps(answer)[:30])
def test_a_hosts_answer_ends_as_a_result_or_as_one_line(
    answer: object, testbed: Testbed, playbooks: Path, tmp_path: Path
) -> None:
    said = tmp_path / "said.json"
    said.write_text(json.dumps(answer))
    hosts = local_hosts(ansible_python_interpreter=interpreter(tmp_path, f"cat {said}"))
    write_play(playbooks, [{"name": "one", "stat": {"path": "/"}, "register": "x"},
                           {"name": "two", "debug": {"msg": "{{ x }}"}}])  # fmt: skip
    try:
        run = run_playbook(hosts, "try", {"xp": {"value": "mine"}}, lambda *_: None)
    except Failed as failed:
        assert "\x1b" not in str(failed)
    else:
        assert all(isinstance(outcome.changes, list) for outcome in run.outcomes)


@pytest.mark.parametrize("titles", [("one", "two"), ("in other words", ""), ("two", "one")])
def test_results_are_found_whatever_the_titles_of_tasks_say(
    titles: tuple[str, str], testbed: Testbed, playbooks: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    write_play(playbooks, [
        {"name": titles[0], "stat": {"path": str(tmp_path / "file")}},
        {"name": titles[1], "debug": {"msg": "said"}},
    ])  # fmt: skip
    run = run_playbook(local_hosts(), "try", {}, lambda *_: None)
    [master] = [host.name for host in PLAN.hosts if "master" in host.roles]
    assert run.results("stat")[master]["stat"]["exists"] is True
    assert run.results("debug") == {master: run.results("debug")[master]}
    assert run.results("debug")[master]["msg"] == "said"


def test_what_a_host_says_of_itself_is_no_variable(
    testbed: Testbed, playbooks: Path, tmp_path: Path
) -> None:
    # With these Ansible's sftp would run a program on the control machine.
    facts = {"ansible_sftp_extra_args": "-o ProxyCommand=id", "pasted": "x"}
    says = f"echo '{json.dumps({'changed': False, 'ansible_facts': facts})}'"
    hosts = local_hosts(ansible_python_interpreter=interpreter(tmp_path, says))
    write_play(playbooks, [
        {"name": "one", "stat": {"path": "/"}},
        {"name": "two", "debug": {"msg": "{{ ansible_sftp_extra_args | default('none') }}"
                                         "{{ pasted | default('none') }}"}},
    ])  # fmt: skip
    run = run_playbook(hosts, "try", {}, lambda *_: None)
    assert {result["msg"] for result in run.results("debug").values()} == {"nonenone"}


def test_a_host_that_sends_without_end_fails_its_task(
    testbed: Testbed, playbooks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ansible_runs, "WORKER_BYTES", 64 * 2**20)
    hosts = local_hosts(ansible_python_interpreter=interpreter(tmp_path, "exec cat /dev/zero"))
    write_play(playbooks, [{"name": "one", "stat": {"path": "/"}}])
    with pytest.raises(Failed, match="'one' failed"):
        run_playbook(hosts, "try", {}, lambda *_: None)


@pytest.mark.parametrize("where", ["", " >&2"])
def test_ssh_is_killed_once_it_printed_too_much(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ansible_runs, "MAX_ANSWER_BYTES", 2**20)
    process = BoundedProcess(
        ["sh", "-c", f"exec cat /dev/zero{where}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    pipe: Any = process.stderr if where else process.stdout
    with pytest.raises(AnsibleError, match="the host sent more than 1 MiB"):
        while pipe.read(2**16):
            pass
    assert process.wait(60) == -signal.SIGKILL


def test_ansibles_ssh_has_bounded_processes_in_a_workspace(tmp_path: Path) -> None:
    with workspace(tmp_path):
        assert ssh.subprocess.Popen is BoundedProcess
        assert ssh.subprocess.PIPE is subprocess.PIPE
    assert ssh.subprocess is subprocess


def test_only_ansibles_workers_are_bounded(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with workspace(tmp_path):
        child = os.fork()
        if child == 0:
            os._exit(resource.getrlimit(resource.RLIMIT_DATA)[0] == before[0])
        assert os.waitpid(child, 0)[1] == 0
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_a_worker_that_ansible_ends_says_nothing(tmp_path: Path) -> None:
    # It had our handler of SIGTERM, which raises KeyboardInterrupt, with its traceback.
    kept = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with workspace(tmp_path):
            child = os.fork()
            if child == 0:
                os._exit(signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        signal.signal(signal.SIGTERM, kept)


@pytest.mark.parametrize(
    "payload",
    [{}, {"results": 7}, {"results": [3, {"failed": True, "msg": None}]}, {"msg": ["x"]},
     {"stderr": "\x1b[2J\n\x9b31m"}, {"stdout": "x" * 10**6}],
)  # fmt: skip
def test_last_words_are_a_short_line_of_text(payload: dict[str, Any]) -> None:
    words = remote.last_words(payload)
    assert 0 < len(words) <= 400
    assert words.isprintable()


# ---------------------------------------------------------------- files of Ansible's own


def test_all_files_are_in_the_workspace_and_go_with_it(tmp_path: Path) -> None:
    before = Path.cwd()
    with workspace(tmp_path) as place:
        assert Path.cwd() == place
        assert Path(settings.DEFAULT_LOCAL_TMP).parent == place
        assert place.parent == tmp_path
    assert Path.cwd() == before
    assert list(tmp_path.iterdir()) == []
    assert not Path(settings.DEFAULT_LOCAL_TMP).exists()


LOADED = """
import os, tempfile
import discovery_xp.experiment
from ansible import constants
print(constants.CONFIG_FILE)
print(constants.DEFAULT_ACTION_PLUGIN_PATH)
os.kill(os.getpid(), 9)
"""


def test_a_killed_command_leaves_nothing_and_reads_no_settings_of_the_working_directory(
    tmp_path: Path,
) -> None:
    home, scratch, strange = (tmp_path / name for name in ("home", "tmp", "topologies"))
    for folder in (home, scratch, strange):
        folder.mkdir()
    (strange / "ansible.cfg").write_text("[defaults]\naction_plugins = .\n")
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")
    } | {"HOME": str(home), "TMPDIR": str(scratch), "PYTHONPATH": str(PLAYBOOKS.parent)}
    done = subprocess.run(
        [sys.executable, "-u", "-c", LOADED], cwd=strange, env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == -9, done.stderr
    assert str(strange) not in done.stdout
    assert list(home.iterdir()) == list(scratch.iterdir()) == []
