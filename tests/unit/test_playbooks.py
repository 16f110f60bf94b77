import ast
import grp
import importlib.util
import os
import pwd
import stat
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from discovery_xp.onhost import component, held, http, redis_client, software
from discovery_xp.onhost import systemd as systemd_module
from discovery_xp.onhost.process import Failure

PLAYBOOKS = Path(__file__).parents[2] / "playbooks"
MODULES = sorted((PLAYBOOKS / "library").glob("*.py"))
YAML_FILES = sorted(PLAYBOOKS.rglob("*.yml"))


def loaded(path: str) -> ModuleType:
    """A file of the playbooks as a module: Ansible finds them by path, too."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, PLAYBOOKS / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---------------------------------------------------------------- configuration files

to_ini = loaded("filter_plugins/writers.py").FilterModule().filters()["to_ini"]


def test_settings_are_written_by_section() -> None:
    settings = {"DEFAULT": {"debug": "x", "workers": 2}, "api": {"auth": "keystone"}}
    assert to_ini(settings) == "[DEFAULT]\ndebug = x\nworkers = 2\n\n[api]\nauth = keystone\n"


def test_later_layers_go_before_earlier_ones_option_by_option() -> None:
    written = to_ini(
        {"DEFAULT": {"a": 1, "b": 1, "c": 1}},
        {"DEFAULT": {"b": 2, "c": 2}},
        {"DEFAULT": {"c": 3}, "own": {"d": 3}},
    )
    assert written == "[DEFAULT]\na = 1\nb = 2\nc = 3\n\n[own]\nd = 3\n"


def test_empty_layers_and_sections_change_nothing() -> None:
    settings = {"DEFAULT": {"a": 1}}
    assert to_ini(settings, {}, None, {"DEFAULT": {}}, {"DEFAULT": None}) == to_ini(settings)


def test_a_list_is_a_line_for_each_item() -> None:
    assert to_ini({"pci": {"alias": ["x", "y"]}}) == "[pci]\nalias = x\nalias = y\n"


def test_a_later_list_goes_before_the_whole_earlier_one() -> None:
    assert to_ini({"pci": {"alias": ["x", "y"]}}, {"pci": {"alias": ["z"]}}) == to_ini(
        {"pci": {"alias": ["z"]}}
    )


def test_booleans_are_lower_case_and_numbers_as_they_are() -> None:
    settings = {"DEFAULT": {"yes": True, "no": False, "many": [True, 1], "ratio": 1.5, "none": -1}}
    assert to_ini(settings) == (
        "[DEFAULT]\nyes = true\nno = false\nmany = true\nmany = 1\nratio = 1.5\nnone = -1\n"
    )


def test_none_leaves_an_option_out_even_one_of_an_earlier_layer() -> None:
    assert to_ini({"DEFAULT": {"a": None, "b": 1}}) == "[DEFAULT]\nb = 1\n"
    assert to_ini({"DEFAULT": {"a": 1, "b": 1}}, {"DEFAULT": {"a": None}}) == "[DEFAULT]\nb = 1\n"


def test_nothing_that_is_given_is_changed() -> None:
    settings = {"DEFAULT": {"a": 1}}
    to_ini(settings, {"DEFAULT": {"a": 2}})
    assert settings == {"DEFAULT": {"a": 1}}


def test_a_text_of_several_lines_stays_one_value() -> None:
    # oslo.config takes an indented line for more of the value above it.
    assert to_ini({"a": {"text": "one\ntwo = 2\n"}}) == "[a]\ntext = one\n  two = 2\n"


# ---------------------------------------------------------------- plays, roles and tasks


def plays() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(PLAYBOOKS.glob("*.yml")):
        for play in yaml.safe_load(path.read_text()):
            yield path.stem, play


def imported_roles() -> list[tuple[str, str, str]]:
    """(playbook, role, file of its tasks) wherever a play imports a role."""
    return sorted(
        {
            (playbook, task["import_role"]["name"], task["import_role"].get("tasks_from", "main"))
            for playbook, play in plays()
            for task in play["tasks"]
            if "import_role" in task
        }
    )


def of_playbooks(path: Path) -> str:
    return str(path.relative_to(PLAYBOOKS))


@pytest.mark.parametrize("path", YAML_FILES, ids=of_playbooks)
def test_every_yaml_file_is_yaml(path: Path) -> None:
    assert yaml.safe_load(path.read_text())


def test_deploy_imports_the_roles_of_all_components() -> None:
    # The probes are the bench's: a cloud is deployed without them.
    assert {role for playbook, role, _ in imported_roles() if playbook == "deploy"} == {
        path.name for path in (PLAYBOOKS / "roles").iterdir()
    } - {"probes"}


@pytest.mark.parametrize(("playbook", "role", "tasks"), imported_roles())
def test_every_role_that_a_playbook_names_is_there(playbook: str, role: str, tasks: str) -> None:
    assert (PLAYBOOKS / f"roles/{role}/tasks/{tasks}.yml").is_file(), f"{playbook}.yml names it"


@pytest.mark.parametrize(("name", "play"), list(plays()), ids=lambda value: str(value)[:40])
def test_every_play_is_a_named_stage_for_hosts_that_a_plan_knows(
    name: str, play: Mapping[str, Any]
) -> None:
    assert play["name"], name
    hosts = [play["hosts"]] if isinstance(play["hosts"], str) else play["hosts"]
    assert set(hosts) <= {"all", "master", "controller", "compute", "data"}
    assert play["gather_facts"] is False, "facts of sixty hosts take a minute"


def titles() -> Iterator[str]:
    """The titles of all tasks, but those that are a word or two."""
    for path in YAML_FILES:
        read = yaml.safe_load(path.read_text())
        waiting = (
            [each for each in read if isinstance(each, dict)] if isinstance(read, list) else []
        )
        while waiting:
            task = waiting.pop()
            if len(str(task.get("name", "")).split()) > 2:
                yield task["name"]
            for key in ("block", "always", "rescue", "tasks"):
                waiting += task.get(key) or []


def test_no_code_knows_the_words_of_a_title() -> None:
    known = set(titles())
    assert {"a VM at each site", "records of the window"} <= known
    for path in sorted((PLAYBOOKS.parent / "discovery_xp").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value not in known, f"{path}:{node.lineno}"


# ---------------------------------------------------------------- modules


def by_name(path: Path) -> str:
    return path.stem


def assigned(path: Path, name: str) -> Any:
    """The literal that a file's `name = ...` assigns."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    raise KeyError(name)


def documented(path: Path) -> dict[str, Any]:
    documentation = yaml.safe_load(assigned(path, "DOCUMENTATION"))
    assert isinstance(documentation, dict)
    return documentation


def accepted(path: Path) -> dict[str, Any]:
    """A module's argument_spec, read from its text: Ansible alone finds its imports."""
    spec: dict[str, Any] = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.keyword) and node.arg == "argument_spec":
            assert isinstance(node.value, ast.Dict)
            for key, value in zip(node.value.keys, node.value.values, strict=True):
                assert key is not None
                spec[ast.literal_eval(key)] = ast.literal_eval(value)
    return spec


@pytest.mark.parametrize("path", MODULES, ids=by_name)
def test_every_option_of_a_module_is_documented_as_it_is(path: Path) -> None:
    documentation = documented(path)
    assert documentation["module"] == path.stem
    assert documentation["short_description"]
    options = documentation["options"]
    spec = accepted(path)
    assert set(options) == set(spec)
    for name, option in options.items():
        assert option["description"], name
        assert option.get("type", "str") == spec[name].get("type", "str"), name
        assert option.get("required", False) == spec[name].get("required", False), name
        if "default" in option:
            assert option["default"] == spec[name].get("default"), name


@pytest.mark.parametrize("path", MODULES, ids=by_name)
def test_no_module_logs_a_password(path: Path) -> None:
    for name, option in accepted(path).items():
        if "password" in name or name in ("contents", "inputs", "urls"):
            assert option["no_log"] is True, name


def test_tasks_give_modules_only_what_they_accept() -> None:
    specs = {path.stem: accepted(path) for path in MODULES}
    used = set()
    for path in sorted(PLAYBOOKS.glob("roles/*/tasks/*.yml")):
        for task in yaml.safe_load(path.read_text()):
            for module in specs.keys() & task.keys():
                used.add(module)
                required = {name for name, own in specs[module].items() if own.get("required")}
                given = set(task[module])
                assert required <= given <= specs[module].keys(), f"{path}: {task['name']}"
    assert used == specs.keys()


# ---------------------------------------------------------------- the module `component`


def test_the_journal_of_a_death_ends_with_it() -> None:
    death = ["no such store", "glance-api.service: Failed with result 'exit-code'."]
    again = ["glance-api.service: Scheduled restart job", "Started", "a warning"]
    assert systemd_module.until_death([*death, *again], "glance-api") == death
    assert systemd_module.until_death([*death, *again, *death, *again], "glance-api") == [
        *death, *again, *death,
    ]  # fmt: skip
    assert systemd_module.until_death(again, "glance-api") == again


def test_of_a_traceback_the_journal_shows_the_error_and_its_place() -> None:
    frames = [f'  File "{name}.py", line 1, in f\n    call()\n    ^^^^^^' for name in "abc"]
    begin, end = ["Traceback (most recent call last):"], ["StoreError: no such store"]
    text = [line for frame in frames for line in frame.splitlines()]
    assert systemd_module.without_frames([*begin, *text, *end, "Exiting"]) == [
        *begin, *frames[-1].splitlines(), *end, "Exiting",
    ]  # fmt: skip
    assert systemd_module.without_frames([*begin, *text]) == [*begin, *frames[-1].splitlines()]
    assert systemd_module.without_frames(["    indented", "plain"]) == ["    indented", "plain"]


ME = pwd.getpwuid(os.getuid()).pw_name


def options(module: str, **params: Any) -> dict[str, Any]:
    """What a module's parameters are when it is given these."""
    names = accepted(PLAYBOOKS / f"library/{module}.py")
    return {name: own.get("default") for name, own in names.items()} | params


def made(**params: Any) -> component.Component:
    return component.Component(options("component", name="example", **params))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_written_once(tmp_path: Path) -> None:
    path = tmp_path / "etc/example/example.conf"
    first = made()
    first.ensure_file(str(path), b"a = 1\n", ME, "0640")
    assert path.read_bytes() == b"a = 1\n"
    assert mode_of(path) == 0o640
    assert first.changed == [str(path)]
    written = path.stat()
    second = made()
    second.ensure_file(str(path), b"a = 1\n", ME, "0640")
    assert second.changed == []
    assert path.stat() == written
    assert [entry.name for entry in path.parent.iterdir()] == ["example.conf"]


def test_another_text_replaces_the_file_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "example.conf"
    made().ensure_file(str(path), b"old", ME, "0644")
    with path.open("rb") as opened:
        again = made()
        again.ensure_file(str(path), b"new", ME, "0644")
        assert opened.read() == b"old", "who reads the old file reads it to its end"
    assert path.read_bytes() == b"new"
    assert again.changed == [str(path)]


def test_another_mode_is_a_change_too(tmp_path: Path) -> None:
    path = tmp_path / "example.conf"
    made().ensure_file(str(path), b"text", ME, "0644")
    again = made()
    again.ensure_file(str(path), b"text", ME, "0600")
    assert again.changed == [str(path)]
    assert mode_of(path) == 0o600


def test_what_a_killed_run_left_is_no_hindrance(tmp_path: Path) -> None:
    path = tmp_path / "example.conf"
    (tmp_path / "example.conf.new").write_text("a much longer text than the one to be written")
    made().ensure_file(str(path), b"text", ME, "0644")
    assert path.read_bytes() == b"text"
    assert [entry.name for entry in tmp_path.iterdir()] == ["example.conf"]


def test_a_secret_is_never_readable_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    before = component.Component.ensure_rights

    def look(self: Any, path: str, owner: str, mode: str) -> None:
        seen.append(mode_of(Path(path)))
        before(self, path, owner, mode)
        seen.append(mode_of(Path(path)))

    monkeypatch.setattr(component.Component, "ensure_rights", look)
    umask = os.umask(0)
    try:
        made().ensure_file(str(tmp_path / "key"), b"secret", ME, "0600")
    finally:
        os.umask(umask)
    assert set(seen) == {0o600}


def test_a_directory_is_made_once_and_set_right_later(tmp_path: Path) -> None:
    path = tmp_path / "var/lib/example"
    first = made()
    first.ensure_directory(str(path), ME, "0750")
    assert path.is_dir()
    assert mode_of(path) == 0o750
    assert set(first.changed) == {str(path)}
    second = made()
    second.ensure_directory(str(path), ME, "0750")
    assert second.changed == []
    path.chmod(0o755)
    third = made()
    third.ensure_directory(str(path), ME, "0750")
    assert third.changed == [str(path)]
    assert mode_of(path) == 0o750


def test_an_owner_is_a_user_and_a_group_by_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "chown", lambda _path, uid, gid: given.append((uid, gid)))
    users = {user.pw_name for user in pwd.getpwall()}
    group = next(group for group in grp.getgrall() if group.gr_name not in users)
    made().ensure_directory(str(tmp_path), f"{ME}:{group.gr_name}", "0755")
    assert given == [(os.getuid(), group.gr_gid)]


def test_a_user_that_is_there_stays_as_it_is() -> None:
    there = made(user=ME)
    there.ensure_user()
    assert there.changed == []


def test_what_a_unit_was_started_with_is_noted(tmp_path: Path) -> None:
    notes = systemd_module.StartNotes(str(tmp_path / "started"))
    assert notes.of("example.service") == ""
    notes.forget("example.service")
    notes.write("example.service", "abc")
    again = systemd_module.StartNotes(str(tmp_path / "started"))
    assert again.of("example.service") == "abc"
    assert again.of("other.service") == ""
    notes.write("example.service", "def")
    assert notes.of("example.service") == "def"
    notes.forget("example.service")
    assert notes.of("example.service") == ""
    notes.write("example.service", "abc")
    notes.write("example.service", "")
    assert notes.of("example.service") == ""


class FakeSystemd:
    """In the place of systemctl and journalctl: which units there are, and what was asked."""

    def __init__(self) -> None:
        self.enabled: set[str] = set()
        self.active: set[str] = set()
        self.broken: set[str] = set()
        self.restarted: list[str] = []
        self.reloads = 0

    def run(self, words: list[str], **_: Any) -> "subprocess.CompletedProcess[str]":
        verb, units = words[1], [word for word in words[2:] if not word.startswith("-")]
        stdout, code = "", 0
        if words[0] == "journalctl":
            stdout = "first line\nlast line\n"
        elif verb == "is-enabled":
            code = 0 if set(units) <= self.enabled else 1
        elif verb == "enable":
            self.enabled |= set(units)
        elif verb == "show":
            stdout = "\n".join(
                f"ActiveState={'active' if unit in self.active else 'failed'}\nSubState=x\n"
                "NRestarts=0\nResult=success\n"
                for unit in units
            )
        elif verb == "restart":
            self.restarted += units
            self.active |= set(units) - self.broken
            self.active -= self.broken
            code = 1 if set(units) & self.broken else 0
        elif verb == "daemon-reload":
            self.reloads += 1
        return subprocess.CompletedProcess(words, code, stdout, "Job failed.\n" if code else "")


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSystemd:
    fake = FakeSystemd()
    monkeypatch.setattr(subprocess, "run", fake.run)
    monkeypatch.setattr(component, "STARTED", str(tmp_path / "started"))
    return fake


def run(tmp_path: Path, text: str, **params: Any) -> Any:
    """A component of two units and one file."""
    path = str(tmp_path / "example.conf")
    one = made(contents={path: text}, files={path: [ME, "0644"]}, units=["a", "b"], **params)
    one.run()
    return one


def test_units_are_started_once(tmp_path: Path, systemd: FakeSystemd) -> None:
    first = run(tmp_path, "x")
    assert systemd.restarted == ["a", "b"]
    assert systemd.enabled == {"a", "b"}
    assert first.changed == [
        *(str(tmp_path / "example.conf"), "a enabled", "b enabled", "a started", "b started")
    ]
    assert run(tmp_path, "x").changed == []
    assert systemd.restarted == ["a", "b"]


def test_units_start_again_with_another_file_or_stamp(tmp_path: Path, systemd: FakeSystemd) -> None:
    run(tmp_path, "x")
    systemd.restarted.clear()
    run(tmp_path, "y")
    assert systemd.restarted == ["a", "b"]
    run(tmp_path, "y", stamp="new")
    assert systemd.restarted == ["a", "b", "a", "b"]


def test_only_what_is_down_is_started(tmp_path: Path, systemd: FakeSystemd) -> None:
    run(tmp_path, "x")
    systemd.restarted.clear()
    systemd.active.remove("b")
    assert run(tmp_path, "x").changed == ["b started"]
    assert systemd.restarted == ["b"]


def test_units_that_a_killed_run_did_not_start_are_started_by_the_next(
    tmp_path: Path, systemd: FakeSystemd
) -> None:
    run(tmp_path, "x")
    (tmp_path / "example.conf").write_text("y")  # written, and then the run was killed
    systemd.restarted.clear()
    assert run(tmp_path, "y").changed == ["a started", "b started"]
    assert systemd.restarted == ["a", "b"]


def test_a_unit_that_does_not_stay_up_is_told_with_its_journal_and_tried_again(
    tmp_path: Path, systemd: FakeSystemd
) -> None:
    systemd.broken = {"b"}
    path = str(tmp_path / "example.conf")
    with pytest.raises(Failure, match="b: Job failed") as failed:
        made(contents={path: "x"}, files={path: [ME, "0644"]}, units=["a", "b"]).run()
    assert failed.value.details == {
        "unit": "b",
        "journal": ["first line", "last line"],
        "changes": [path, "a enabled", "b enabled"],
    }
    systemd.broken = set()
    assert "b started" in run(tmp_path, "x").changed


def test_systemd_reads_its_files_again_when_they_change(systemd: FakeSystemd) -> None:
    one = made(contents={}, units=[])
    one.changed.append("/etc/systemd/system/example.service")
    one.run()
    assert systemd.reloads == 1
    made(contents={}, units=[]).run()
    assert systemd.reloads == 1


def listening(monkeypatch: pytest.MonkeyPatch, *answers: bool) -> None:
    """Have ports answer so, one question after the other."""
    left = list(answers)
    monkeypatch.setattr(http, "answers", lambda *_: left.pop(0) if left else False)
    monkeypatch.setattr(systemd_module, "POLL_S", 0.0)
    monkeypatch.setattr(systemd_module, "LAST_WORDS_S", 0.0)


def test_a_port_is_waited_for(
    tmp_path: Path, systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    listening(monkeypatch, False, False, True)
    assert "a started" in run(tmp_path, "x", ports={"a": 80}).changed


def test_a_unit_that_dies_before_its_port_answers_is_started_by_the_next_run(
    tmp_path: Path, systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any) -> bool:
        systemd.active.discard("a")
        return False

    listening(monkeypatch)
    monkeypatch.setattr(http, "answers", die)
    with pytest.raises(Failure, match="a: died before port 80 answered") as failed:
        run(tmp_path, "x", ports={"a": 80})
    assert failed.value.details["journal"] == ["first line", "last line"]
    assert "b started" in failed.value.details["changes"]
    systemd.active.add("a")  # by systemd, as its unit says
    listening(monkeypatch, True)
    assert run(tmp_path, "x", ports={"a": 80}).changed == ["a started"]


def test_a_port_that_stays_silent_is_told_in_time(
    tmp_path: Path, systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    listening(monkeypatch)
    with pytest.raises(Failure, match="a: port 80 didn't answer in 0 s"):
        run(tmp_path, "x", ports={"a": 80}, timeout_s=0)


def test_a_copy_is_a_file_of_the_host_under_another_name(tmp_path: Path) -> None:
    source, path = tmp_path / "shipped.ini", tmp_path / "etc/paste.ini"
    source.write_bytes(b"\xff is no text")
    one = made(copies={str(path): str(source)}, files={str(path): [ME, "0644"]})
    one.run()
    assert path.read_bytes() == source.read_bytes()
    assert one.changed == [str(path)]


# ---------------------------------------------------------------- the module `redis_cluster`

SEEN = """\
07c37df 127.0.0.1:30004@31004,host4 slave e7d1eec 0 1426238317239 4 connected
67ed2db 127.0.0.1:30002@31002,host2 master - 0 1426238316232 2 connected 5461-5463
292f8b3 127.0.0.1:30003@31003,host3 master - 0 1426238318243 3 connected 10923-10924 16383
e7d1eec 127.0.0.1:30001@31001 myself,master - 0 0 1 connected 0 [93-<-292f8b3]
a7d1eec 127.0.0.1:30005@31005 handshake - 0 0 0 disconnected

"""


def test_what_a_node_says_of_its_cluster_is_read_as_redis_documents_it() -> None:
    nodes = redis_client.read_nodes(SEEN)
    assert {name: seen["slots"] for name, seen in nodes.items()} == {
        "07c37df": set(),
        "67ed2db": {5461, 5462, 5463},
        "292f8b3": {10923, 10924, 16383},
        "e7d1eec": {0},
        "a7d1eec": set(),
    }
    assert nodes["67ed2db"]["place"] == "127.0.0.1:30002"
    assert nodes["e7d1eec"]["flags"] == {"myself", "master"}
    assert nodes["07c37df"]["master"] == "e7d1eec"
    assert nodes["e7d1eec"]["master"] is None


# ---------------------------------------------------------------- one more wheel


class Installing:
    """A module `software` whose programs are noted, and succeed unless told otherwise."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place = tmp_path / "environment"
        self.place.mkdir()
        self.commands: list[list[str]] = []
        self.code = 0
        monkeypatch.setattr(held, "LOCK", str(tmp_path / "lock"))
        monkeypatch.setattr(subprocess, "run", self.run)

    def run(self, words: list[str], **_: Any) -> "subprocess.CompletedProcess[str]":
        self.commands.append(words)
        return subprocess.CompletedProcess(words, self.code, "", "ERROR: no such file\n")

    def ensure(self, digest: str) -> list[str]:
        """What changed."""
        wheel = f"{self.place}/example_wheel-1.0-py3-none-any.whl"
        done = software.run(
            options("software", step="wheel", place=str(self.place), stamp=digest, wheel=wheel)
        )
        changes: list[str] = done["changes"]
        return changes


@pytest.fixture
def installing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installing:
    return Installing(tmp_path, monkeypatch)


def test_a_further_wheel_is_installed_once_for_each_digest(installing: Installing) -> None:
    assert installing.ensure("one") == ["example_wheel-1.0-py3-none-any.whl"]
    (words,) = installing.commands
    assert words[-1] == f"{installing.place}/example_wheel-1.0-py3-none-any.whl"
    assert {"--no-index", "--no-deps", "--force-reinstall"} <= set(words)
    assert installing.ensure("one") == []
    assert len(installing.commands) == 1
    assert installing.ensure("two") == ["example_wheel-1.0-py3-none-any.whl"]
    assert len(installing.commands) == 2


def test_a_wheel_that_was_not_installed_is_tried_again(installing: Installing) -> None:
    installing.ensure("one")
    installing.code = 1
    with pytest.raises(
        Failure, match=r"example_wheel-1.0.* can't be installed: ERROR: no such file"
    ):
        installing.ensure("two")
    installing.code = 0
    assert installing.ensure("two") == ["example_wheel-1.0-py3-none-any.whl"]
