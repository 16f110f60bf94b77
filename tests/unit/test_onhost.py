"""What both ends of ssh share, as hosts find it: bare Pythons, Ansible's and Rally's ways."""

import ast
import io
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from discovery_xp import onhost
from discovery_xp.onhost import environment, follow
from discovery_xp.onhost.sources import sources
from discovery_xp.onhost.wire import load as load_wire
from discovery_xp.onhost.wire import probes as probes_wire
from discovery_xp.onhost.wire.request import LoadRequest, RegionRequest
from discovery_xp.store import TABLES

PACKAGE = Path(onhost.__file__).parent
LINK = Path(__file__).parents[2] / "playbooks/module_utils/discovery_onhost"
MODULES = sorted((Path(__file__).parents[2] / "playbooks/library").glob("*.py"))
# Subpackages whose modules need more than the standard library.
WITH_MORE = {"cloud", "load", "verification"}
LONGEST_MODULE, LONGEST_CLASS = 300, 300


def parts() -> list[str]:
    """The package's modules, as paths without a suffix."""
    found = (path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
    return sorted(str(path.with_suffix("")) for path in found if path.name != "__init__.py")


BARE = [part for part in parts() if part.split("/")[0] not in WITH_MORE]


def laid_down(folder: Path, *names: str) -> Path:
    for path, text in sources(*names).items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return folder


# ---------------------------------------------------------------- on a bare Python


def bare(folder: Path, code: str) -> str:
    """Run code on the machine's own Python, isolated and without site-packages."""
    code = f"import sys\nsys.path.insert(0, {str(folder)!r})\n{code}"
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-S", "-c", code],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_bare_python_imports_all_but_what_says_otherwise(tmp_path: Path) -> None:
    laid_down(tmp_path, *BARE)
    names = [f"discovery_xp.onhost.{part.replace('/', '.')}" for part in BARE]
    code = f"import importlib\nfor name in {names}: importlib.import_module(name)\n"
    said = bare(tmp_path, f"{code}print(sorted({{n.split('.')[0] for n in sys.modules}} - "
                          "set(sys.stdlib_module_names)))")  # fmt: skip
    assert ast.literal_eval(said) == ["__main__", "discovery_xp"]


@pytest.mark.parametrize("name", sorted(WITH_MORE))
def test_what_needs_more_says_so(name: str) -> None:
    text = ast.get_docstring(ast.parse((PACKAGE / name / "__init__.py").read_text()))
    assert text is not None and "needs" in text


def test_services_with_probes_import_little(tmp_path: Path) -> None:
    laid_down(tmp_path, "checks", "wire/probes", "wire/series", "wire/spans", "probes/inside")
    said = bare(
        tmp_path,
        "import discovery_xp.onhost.probes.inside.start\n"
        "print([name for name in sys.modules if name.startswith('discovery_xp.onhost.')])",
    )
    inside = {f"probes.inside.{path.stem}" for path in (PACKAGE / "probes/inside").glob("*.py")}
    loaded = {name.removeprefix("discovery_xp.onhost.") for name in ast.literal_eval(said)}
    assert loaded == (inside - {"probes.inside.__init__"}) | {
        "checks", "wire", "wire.probes", "wire.series", "wire.spans", "probes",
        "probes.inside",
    }  # fmt: skip


# ---------------------------------------------------------------- by Ansible


def test_ansible_finds_it_by_a_link() -> None:
    assert LINK.is_symlink()
    assert LINK.resolve() == PACKAGE


ARCHIVES = r"""
import base64, io, re, sys, zipfile
from pathlib import Path
from ansible.executor.module_common import modify_module
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader, module_utils_loader
from ansible.template import Templar
init_plugin_loader()
link, folder, *modules = map(Path, sys.argv[1:])
module_utils_loader.add_directory(str(link))
python = {"ansible_python_interpreter": "/usr/bin/python3"}
for path in modules:
    text, _, _ = modify_module(
        path.stem, str(path), {}, Templar(DataLoader()), task_vars=python)
    data = re.search(rb"ZIPDATA = [\"']+([A-Za-z0-9+/=]+)", text)[1]
    zipfile.ZipFile(io.BytesIO(base64.b64decode(data))).extractall(folder / path.stem)
"""


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Ansible would send of each module, unpacked, by the module's name."""
    folder = tmp_path_factory.mktemp("archives")
    done = subprocess.run(
        [sys.executable, "-c", ARCHIVES, LINK.parent, folder, *MODULES],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_what_ansible_sends_holds_all_that_a_module_imports(path: Path, archives: Path) -> None:
    package = archives / path.stem / "ansible/module_utils/discovery_onhost"
    assert (package / "process.py").read_text() == (PACKAGE / "process.py").read_text()
    bare(archives / path.stem, f"import ansible.modules.{path.stem}")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_is_its_options_and_a_call(path: Path) -> None:
    body = ast.parse(path.read_text()).body
    functions = [node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert functions == ["main"]


# ---------------------------------------------------------------- sizes and imports


@pytest.mark.parametrize("part", parts())
def test_modules_are_short_and_import_relatively(part: str) -> None:
    text = (PACKAGE / f"{part}.py").read_text()
    assert len(text.splitlines()) <= LONGEST_MODULE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            assert (node.end_lineno or 0) - node.lineno < LONGEST_CLASS
        if isinstance(node, ast.ImportFrom):
            assert not (node.module or "").startswith("discovery_xp"), "Ansible has another name"


# ---------------------------------------------------------------- records of a load


def test_a_line_is_parsed_as_it_was_written() -> None:
    line = load_wire.encode("usage", at=1.5, cpu_s=0.25, polls=3, mark="start")
    assert line.endswith("}\n")
    assert load_wire.parse(json.loads(line)) == (
        "usage", {"at": 1.5, "cpu_s": 0.25, "polls": 3, "mark": "start"},
    )  # fmt: skip
    assert not load_wire.is_end(line.encode())
    assert load_wire.is_end(load_wire.encode("unit", words="is gone").encode())


@pytest.mark.parametrize("values", [{}, {"at": 1.0, "cpu_s": 1.0, "polls": 1, "mark": "", "x": 1}])
def test_only_a_whole_line_is_written(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a line of kind 'usage' doesn't hold"):
        load_wire.encode("usage", **values)


def test_what_is_written_fits_the_tables() -> None:
    columns = {table: {column.name for column in TABLES[table]} for table in TABLES}
    assert load_wire.REQUIRED["action"].keys() == columns["actions"]
    vm = load_wire.REQUIRED["vm"].keys() | load_wire.OPTIONAL["vm"].keys()
    assert vm - columns["vms"] == {"launched_at"}
    lines = "@\tnova-api\t1\nc\t1\t1\tmain\tf\t0\t\nr\t1\t1\tGET\t/\t200\n"
    lines += "s\t1\t2\tSELECT\t1\t1\t1\t1\t1\n"
    for table, row in probes_wire.parse(lines, {"host": "h", "site": "s"}, pytest.fail):
        assert row.keys() == columns[table]


def test_a_request_survives_rallys_json() -> None:
    request = LoadRequest(
        kind="boot", regions=(RegionRequest("site1", "site1", 3, 1, ("c1", "c2")),),
        concurrency=None, clears=("site1",), iterations_before=0, flavor="f", image="i",
        network="", poll_interval_s=0.5, vm_timeout_s=1.0, run_timeout_s=2.0, delete_after=True,
        reads=("list",), repeats=1, records="/r", words="/w",
    )  # fmt: skip
    assert LoadRequest.from_json(json.loads(json.dumps(request.to_json()))) == request
    with pytest.raises(TypeError, match="more"):
        LoadRequest.from_json({**request.to_json(), "more": 1})


# ---------------------------------------------------------------- following a load


class Said:
    """A folder of a load, and what its follower hands on."""

    def __init__(self, folder: Path) -> None:
        self.records = folder / "records.jsonl"
        self.output = io.BytesIO()
        self.follower = follow.Follower(str(folder), "a-unit", 0, self.output)

    def add(self, text: str) -> None:
        with self.records.open("a") as file:
            file.write(text)


@pytest.fixture
def said(tmp_path: Path) -> Iterator[Said]:
    yield Said(tmp_path)


def test_whole_lines_are_handed_on_until_the_units_end(said: Said) -> None:
    assert not said.follower.hand_on(), "there is no file yet"
    said.add('{"line": "ready"}\n{"line": "no')
    assert not said.follower.hand_on()
    assert said.output.getvalue() == b'{"line": "ready"}\n'
    said.add('te", "text": "x"}\n' + load_wire.encode("unit", words="ended"))
    assert said.follower.hand_on()
    assert said.output.getvalue() == said.records.read_bytes()


def test_a_word_is_said_by_a_file_with_a_moment(said: Said, tmp_path: Path) -> None:
    said.follower.say("go", 1.5)
    assert float((tmp_path / "go").read_text()) > 0
    assert [path.name for path in tmp_path.iterdir()] == ["go"]


def test_a_unit_that_is_gone_without_a_line_ends_it(
    said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "ASK_AFTER_S", 0.0)
    monkeypatch.setattr(follow.Follower, "is_running", lambda _: False)
    said.follower.follow(io.StringIO(), 0.01)
    assert said.output.getvalue() == b'{"line": "unit", "words": "is gone"}\n'


def test_it_runs_on_a_bare_host(tmp_path: Path) -> None:
    library = laid_down(tmp_path / "lib", "checks", "follow", "wire")
    (tmp_path / "records.jsonl").write_text('{"line": "ready"}\n')
    process = subprocess.Popen(
        ["/usr/bin/python3", "-S", "-m", follow.__name__, str(tmp_path), "no-unit", "0", "0.05"],
        env={"PYTHONPATH": str(library)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    killer = threading.Timer(20, process.kill)
    killer.start()
    with process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == b'{"line": "ready"}\n'
        process.stdin.write(b"go 0\n")
        process.stdin.flush()
        with (tmp_path / "records.jsonl").open("a") as file:
            file.write(load_wire.encode("unit", words="ended"))
        assert load_wire.is_end(process.stdout.readline())
    killer.cancel()
    assert process.returncode == 0


# ---------------------------------------------------------------- the recipe of environments


def test_the_recipe_is_the_same_in_a_shell(tmp_path: Path) -> None:
    words = [step.words for step in environment.steps("/opt/x y", ["/w/a.whl"], "nova")]
    assert [each[0] for each in words] == [
        "/usr/bin/python3", "/opt/x y/bin/pip", "/opt/x y/bin/python", "test",
    ]  # fmt: skip
    steps = (
        environment.Step(("touch", str(tmp_path / "a b")), "it can't be made"),
        environment.Step(("false",), None),
        environment.Step(("touch", str(tmp_path / "c")), "it can't be made"),
        environment.Step(("false",), "it may not fail"),
        environment.Step(("touch", str(tmp_path / "d")), "it can't be made"),
    )
    done = subprocess.run(["sh", "-c", environment.script(steps)], check=False)
    assert done.returncode == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a b", "c"]
