"""The probes where they can be seen without a cloud: inside of processes like a service's,
on fakes of what they patch, and what becomes of their records."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import enoslib as en
import pytest

from discovery_xp import probes
from discovery_xp.deployment.play import Outcome, PlayRun
from discovery_xp.errors import Failed, Refused
from discovery_xp.inputs.topology import derive_topology
from discovery_xp.onhost import catalogue, process
from discovery_xp.onhost import systemd as host_systemd
from discovery_xp.onhost.probes import (
    installation,
    messages,
    places,
    traffic,
    usage,
    window,
)
from discovery_xp.onhost.probes import records as host_records
from discovery_xp.onhost.probes.inside import calls, hooks, recorder, requests, statements
from discovery_xp.onhost.wire import probes as lines
from discovery_xp.planning.plan import make_plan
from discovery_xp.store import PROBES, TABLES
from discovery_xp.testbeds.hosts import Hosts
from tests.waiting import wait_until

PLACE = {"host": "site1-controller-1", "site": "site1"}


class Kept:
    """In a recorder's place: keeps what it is given."""

    def __init__(self) -> None:
        self.records: list[tuple[Any, ...]] = []
        self.problems: list[str] = []

    def record(self, record: tuple[Any, ...]) -> None:
        self.records.append(record)

    def failed(self, error: BaseException) -> None:
        self.problems.append(repr(error))

    def problem(self, text: str) -> None:
        self.problems.append(text)


@pytest.fixture
def kept() -> Any:
    return Kept()


# ---------------------------------------------------------------- paths of requests

UUID = "0b3c2f9e-52f1-4f6c-9d2e-0123456789ab"
PROJECT = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v2.1/servers", "/v2.1/servers"),
        (f"/v2.1/servers/{UUID}", "/v2.1/servers/{id}"),
        (f"/v2.1/servers/{UUID}/action", "/v2.1/servers/{id}/action"),
        (f"/v2.1/{PROJECT}/servers/detail?limit=3", "/v2.1/{id}/servers/detail"),
        ("/v2.1/os-aggregates/12/action", "/v2.1/os-aggregates/{id}/action"),
        ("/v2.1/flavors/m1.tiny", "/v2.1/flavors/{id}"),
        ("/v2.1/flavors/detail", "/v2.1/flavors/detail"),
        ("/v2.1/os-keypairs/my%20key", "/v2.1/os-keypairs/{id}"),
        (f"/allocations/{UUID}", "/allocations/{id}"),
        (f"/resource_providers/{UUID}/usages", "/resource_providers/{id}/usages"),
        ("/traits/COMPUTE_NODE", "/traits/{id}"),
        ("/v3/auth/tokens", "/v3/auth/tokens"),
        (f"/v2/images/{UUID}/file", "/v2/images/{id}/file"),
        (f"/v2.0/ports/{UUID}.json", f"/v2.0/ports/{UUID}.json"),
        ("/", "/"),
        ("", ""),
    ],
)  # fmt: skip
def test_identifiers_in_paths_are_replaced(path: str, expected: str) -> None:
    assert lines.template(path) == expected


# ---------------------------------------------------------------- records, written and read


def read(text: str) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for table, row in lines.parse(f"@\tnova-api\t17\n{text}", PLACE, pytest.fail):
        found.setdefault(table, []).append(row)
    return found


def test_a_call_is_read_as_it_was_recorded() -> None:
    text = lines.encode(
        [
            (lines.CALL, 1000.25, 0.0125, "main", "instance_get_by_uuid", False, ""),
            (lines.CALL, 1001.5, 0.5, "api", "Flavor._get", True, "FlavorNotFound"),
        ],
        999.0,
        1002.0,
    )
    first, second = read(text)["calls"]
    assert first == {
        "at": 1000.25,
        "service": "nova-api",
        **PLACE,
        "function": "instance_get_by_uuid",
        "api": "main",
        "duration_ms": 12.5,
        "lazy": False,
        "error": None,
    }
    assert (second["api"], second["lazy"], second["error"]) == ("api", True, "FlavorNotFound")


def test_a_request_is_recorded_by_its_end_and_read_by_its_start() -> None:
    text = lines.encode(
        [(lines.REQUEST, 1001.0, 0.25, "GET", f"/v2.1/servers/{UUID}", "404 Not Found"),
         (lines.REQUEST, 1001.0, 0.5, "PUT", "/a\tb\nc", 200)],
        999.0, 1002.0,
    )  # fmt: skip
    first, second = read(text)["requests"]
    assert first == {
        "at": 1000.75,
        "service": "nova-api",
        **PLACE,
        "method": "GET",
        "path": "/v2.1/servers/{id}",
        "status": 404,
        "duration_ms": 250.0,
    }
    assert second["path"] == "/a b c"


def test_statements_are_summed_up_by_process_and_kind() -> None:
    one = (lines.STATEMENT, "SELECT", 1, 1, 100, 2000, 0.002)
    commit = (lines.STATEMENT, "COMMIT", 1, 1, 11, 11, 0.001)
    text = lines.encode([one, commit, one], 0.0, 1.0) + lines.encode([one], 1.0, 2.0)
    assert len(text.splitlines()) == 3
    rows = {row["kind"]: row for row in read(text)["statements"]}
    assert rows["SELECT"] == {
        "service": "nova-api",
        **PLACE,
        "pid": 17,
        "kind": "SELECT",
        "count": 3,
        "round_trips": 3,
        "bytes_sent": 300,
        "bytes_received": 6000,
        "duration_ms": 6.0,
    }
    assert rows["COMMIT"]["count"] == 1


def test_what_the_probes_missed_is_complained_of() -> None:
    said: list[str] = []
    text = "@\tnova-api\t17\n" + lines.note(3.0, 12, 1, "it\tbroke")
    assert list(lines.parse(text, PLACE, said.append)) == []
    assert said == ["nova-api on site1-controller-1: 12 records dropped, 1 errors of the probes "
                    "since it started, the last: it broke"]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("c\t10.0\t99\tmain\tf\t0\t", True),  # a call counts by its start
        ("c\t9.999\t99\tmain\tf\t0\t", False),
        ("c\t20.0\t1\tmain\tf\t0\t", False),
        ("r\t19.9\t1\tGET\t/\t200", True),
        ("s\t9.0\t10.1\tSELECT\t1\t1\t1\t1\t1", True),  # some of it may be of the window
        ("s\t19.9\t20.9\tSELECT\t1\t1\t1\t1\t1", True),
        ("s\t9.0\t10.0\tSELECT\t1\t1\t1\t1\t1", False),
        ("s\t20.0\t21.0\tSELECT\t1\t1\t1\t1\t1", False),
        ("#\tdiscovery-probes\t1\t17\tx", False),
        ("c", False),
        ("c\tx\t1", False),
        ("", False),
    ],
)
def test_the_window_is_cut_on_the_host(line: str, expected: bool) -> None:
    assert lines.is_within(line, 10.0, 20.0) is expected


def test_a_hosts_records_are_those_of_all_processes_and_problems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "RECORDS", str(tmp_path))
    (tmp_path / "nova-api").mkdir()
    call = lines.encode([(lines.CALL, 15.0, 0.1, "main", "f", False, "")], 0, 0)
    late = lines.encode([(lines.CALL, 25.0, 0.1, "main", "f", False, "")], 0, 0)
    (tmp_path / "nova-api/17-1.records").write_text(lines.header(17, ["x"]) + call + late)
    (tmp_path / "nova-api/18-1.records").write_text(call + "c\t15.0\t1\tcut off")
    (tmp_path / "nova-api/18-1.problems").write_text(lines.note(1.0, 1, 0, ""))
    found = "".join(host_records.lines(10.0, 20.0))
    said: list[str] = []
    assert [row["at"] for _, row in lines.parse(found, PLACE, said.append)] == [15.0, 15.0]
    assert len(said) == 1


def test_a_new_window_forgets_records_but_no_problem_of_a_living_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "RECORDS", str(tmp_path))
    (tmp_path / "nova-api").mkdir()
    for name in (f"{os.getpid()}-1.records", f"{os.getpid()}-1.problems", "999999999-1.problems"):
        (tmp_path / "nova-api" / name).write_text("x\n")
    host_records.forget()
    assert [path.name for path in (tmp_path / "nova-api").iterdir()] == [
        f"{os.getpid()}-1.problems"
    ]


# ---------------------------------------------------------------- the recorder

CALL = (lines.CALL, 1.0, 0.001, "main", "f", False, "")


def written(folder: Path) -> list[str]:
    """Lines of calls in all files."""
    return [
        line
        for path in folder.glob("*.records")
        for line in path.read_text().splitlines()
        if line.startswith("c\t")
    ]


@pytest.fixture
def own(tmp_path: Path) -> recorder.Recorder:
    """One that writes ten times a second."""
    return recorder.Recorder(str(tmp_path), 0.1)


def test_records_are_written_soon_without_being_asked(
    own: recorder.Recorder, tmp_path: Path
) -> None:
    own.record(CALL)
    wait_until(lambda: len(written(tmp_path)) == 1)
    own.record(CALL)  # after it went to sleep again
    wait_until(lambda: len(written(tmp_path)) == 2)
    header = Path(own.path).read_text().splitlines()[0].split("\t")
    assert header == ["#", "discovery-probes", "1", str(os.getpid()), sys.argv[0]]
    assert not list(tmp_path.glob("*.problems"))


def test_no_record_of_many_threads_is_lost_or_doubled(
    own: recorder.Recorder, tmp_path: Path
) -> None:
    def work(number: int) -> None:
        for step in range(2000):
            own.record((lines.CALL, 1.0, 0.0, "main", f"f{number}-{step}", False, ""))
            if step % 500 == 0:
                time.sleep(0.05)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    own.flush()
    wait_until(lambda: len(written(tmp_path)) >= 16000)
    assert len(set(written(tmp_path))) == len(written(tmp_path)) == 16000


def test_a_thread_sleeps_while_there_is_nothing(own: recorder.Recorder, tmp_path: Path) -> None:
    own.record(CALL)
    wait_until(lambda: written(tmp_path))
    wait_until(lambda: not own._awake)
    assert not own._something.is_set()


def test_a_file_may_be_removed_at_any_time(own: recorder.Recorder, tmp_path: Path) -> None:
    own.record(CALL)
    wait_until(lambda: written(tmp_path))
    Path(own.path).unlink()
    own.record(CALL)
    wait_until(lambda: len(written(tmp_path)) == 1)


def test_a_folder_that_is_gone_is_counted_and_nobody_else_notices(
    own: recorder.Recorder, tmp_path: Path
) -> None:
    own.folder = str(tmp_path / "nowhere")
    own._begin()
    own.record(CALL)
    own.flush()
    assert own.errors >= 1
    assert "FileNotFoundError" in own.last_error


def test_more_than_fits_is_dropped_and_told(
    own: recorder.Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "QUEUE_LIMIT", 10)
    own._awake = True  # nobody writes meanwhile
    for _ in range(15):
        own.record(CALL)
    assert (len(own.queue), own.dropped) == (10, 5)
    monkeypatch.setattr(recorder, "FILE_LIMIT", 300)
    own.flush()
    own.record(CALL)
    own.flush()
    assert Path(own.path).exists() is False or Path(own.path).stat().st_size <= 300
    problems = next(tmp_path.glob("*.problems")).read_text()
    assert problems.split("\t")[2] != "0"


def test_a_record_that_cant_be_written_costs_only_its_batch(
    own: recorder.Recorder, tmp_path: Path
) -> None:
    own.record((lines.CALL, "no number"))
    own.flush()
    own.record(CALL)
    own.flush()
    wait_until(lambda: len(written(tmp_path)) == 1)
    assert own.errors == 1


def test_recording_never_raises(own: recorder.Recorder) -> None:
    own.queue = None  # type: ignore[assignment]
    own.record(CALL)
    assert own.errors == 1


def test_time_without_statements_is_no_part_of_their_second(
    own: recorder.Recorder, tmp_path: Path
) -> None:
    own._since = 0.0
    before = time.time()
    own.record((lines.STATEMENT, "SELECT", 1, 1, 1, 1, 0.1))
    own.flush()
    fields = Path(own.path).read_text().splitlines()[-1].split("\t")
    assert before - 0.1 <= float(fields[1]) <= float(fields[2]) <= time.time()


def service(
    code: str, folder: Path, tmp_path: Path, wanted: str = "calls", **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a script as a service with probes runs."""
    for path, text in probes._code().items():
        laid_down = tmp_path / "code" / path
        laid_down.parent.mkdir(parents=True, exist_ok=True)
        laid_down.write_text(text)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{tmp_path / 'code'}:{tmp_path}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "DISCOVERY_PROBES": wanted,
        "DISCOVERY_PROBE_FOLDER": str(folder),
        **more,
    }
    script = tmp_path / "script.py"
    script.write_text(code)
    return subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip


@pytest.fixture
def nova(tmp_path: Path) -> Path:
    """A package like Nova's database API."""
    folder = tmp_path / "nova/db/main"
    folder.mkdir(parents=True)
    for package in (tmp_path / "nova", tmp_path / "nova/db", folder):
        (package / "__init__.py").write_text("")
    (folder / "api.py").write_text(NOVA)
    records = tmp_path / "records"
    records.mkdir()
    return records


NOVA = """
import functools
def decorated(f):
    @functools.wraps(f)
    def wrapper(context, *args, **kwargs):
        return f(context, *args, **kwargs)
    return wrapper
select_db_reader_mode = pick_context_manager_writer = decorated
pick_context_manager_reader = pick_context_manager_reader_allow_async = decorated

@pick_context_manager_writer
def instance_create(context, values):
    return _write(context, values)
@pick_context_manager_reader
def instance_get(context, uuid):
    if uuid is None:
        raise KeyError(uuid)
    return instance_get_by_uuid(context, uuid)
@pick_context_manager_reader
def instance_get_by_uuid(context, uuid):
    return uuid
def _write(context, values):
    return values
def model_query(context, model):
    return model
def constraint(**conditions):
    return conditions
def configure(conf):
    return conf
"""


def functions(folder: Path) -> list[str]:
    return sorted(line.split("\t")[4] for line in written(folder))


def test_a_process_that_ends_at_once_has_written_all(nova: Path, tmp_path: Path) -> None:
    done = service("from nova.db.main import api\napi.instance_create(None, 1)\n", nova, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert functions(nova) == ["instance_create"]


@pytest.mark.parametrize(
    "code",
    [
        # as oslo.service's workers
        "import multiprocessing\n"
        "child = multiprocessing.get_context('fork').Process(\n"
        "    target=api.instance_get_by_uuid, args=(None, 1))\n"
        "child.start(); child.join()",
        # as gunicorn's
        "import os, sys\n"
        "pid = os.fork()\n"
        "if pid: os.waitpid(pid, 0)\n"
        "else: api.instance_get_by_uuid(None, 1); sys.exit(0)",
        "import os\n"
        "pid = os.fork()\n"
        "if pid: os.waitpid(pid, 0)\n"
        "else: api.instance_get_by_uuid(None, 1); os._exit(0)",
    ],
)
def test_each_process_writes_its_own_once(nova: Path, tmp_path: Path, code: str) -> None:
    """What the parent had recorded, but not yet written, isn't written by the child, too."""
    text = f"from nova.db.main import api\napi.instance_create(None, 1)\n{code}\n"
    assert service(text, nova, tmp_path).returncode == 0
    assert functions(nova) == ["instance_create", "instance_get_by_uuid"]
    assert len(list(nova.glob("*.records"))) == 2


def test_a_child_that_is_forked_while_others_write_is_not_stuck(nova: Path, tmp_path: Path) -> None:
    code = (
        "import os, threading, time\nfrom nova.db.main import api\n"
        "def work():\n"
        "    for _ in range(3000): api.instance_get_by_uuid(None, 1)\n"
        "threads = [threading.Thread(target=work) for _ in range(4)]\n"
        "for thread in threads: thread.start()\n"
        "children = []\n"
        "for _ in range(20):\n"
        "    pid = os.fork()\n"
        "    if not pid:\n"
        "        api.instance_create(None, 1)\n"
        "        os._exit(0)\n"
        "    children.append(pid)\n"
        "for thread in threads: thread.join()\n"
        "for pid in children: assert os.waitpid(pid, 0)[1] == 0\n"
    )
    done = service(code, nova, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    found = functions(nova)
    assert found.count("instance_create") == 20
    assert found.count("instance_get_by_uuid") == 12000


def test_a_process_without_wanted_probes_has_none(nova: Path, tmp_path: Path) -> None:
    code = "import sys\nfrom nova.db.main import api\napi.instance_create(None, 1)\nprint([\n" \
        "    name for name in sys.modules if name.startswith('discovery_xp')])\n"  # fmt: skip
    done = service(code, nova, tmp_path, wanted="")
    assert done.stdout == "[]\n"
    assert list(nova.iterdir()) == []


def test_a_process_that_never_imports_what_is_watched_writes_nothing(
    nova: Path, tmp_path: Path
) -> None:
    code = "import sys, threading\nprint('nova.db.main.api' in sys.modules, " \
        "threading.active_count())\n"  # fmt: skip
    assert service(code, nova, tmp_path).stdout == "False 1\n"
    assert list(nova.iterdir()) == []


def test_the_sitecustomize_that_would_have_run_runs(nova: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('the own one')\n")
    assert service("print('script')", nova, tmp_path).stdout == "the own one\nscript\n"


def test_probes_that_fail_leave_the_service_alone(nova: Path, tmp_path: Path) -> None:
    done = service("print('script')", Path("relative"), tmp_path, wanted="nonsense")
    assert (done.returncode, done.stdout) == (0, "script\n")
    (tmp_path / "discovery_xp.py").write_text("raise RuntimeError('broken')")
    environment = {"PYTHONPATH": f"{tmp_path}/first:{tmp_path}"}
    (tmp_path / "first").mkdir()
    (tmp_path / "first/sitecustomize.py").write_text(probes._code()["sitecustomize.py"])
    done = service("print('script')", nova, tmp_path, **environment)
    assert (done.returncode, done.stdout) == (0, "script\n")
    assert "discovery-xp's probes don't work here" in done.stderr


# ---------------------------------------------------------------- the import hook


@pytest.fixture
def importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module that can be imported, under a name that no other test has."""
    name = f"watched_{os.getpid()}_{time.monotonic_ns()}"
    (tmp_path / f"{name}.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield name
    sys.modules.pop(name, None)


def test_a_module_is_patched_once_it_is_imported(importable: str) -> None:
    def patch(loaded: ModuleType) -> None:
        loaded.value += 1  # type: ignore[attr-defined]

    hooks.install({importable: [patch, patch]}, pytest.fail)
    assert importable not in sys.modules
    loaded: Any = __import__(importable)
    assert loaded.value == 3
    assert "exec_module" not in vars(loaded.__spec__.loader)
    import importlib

    assert importlib.reload(loaded).value == 3, "a module that is loaded again is patched again"


def test_a_module_that_is_there_is_patched_at_once(importable: str) -> None:
    loaded: Any = __import__(importable)
    hooks.install({importable: [lambda its: setattr(its, "value", 5)]}, pytest.fail)
    assert loaded.value == 5


def test_a_patch_that_fails_is_told_and_the_module_works(importable: str) -> None:
    told: list[str] = []

    def patch(_: ModuleType) -> None:
        raise RuntimeError("no such function")

    hooks.install({importable: [patch]}, told.append)
    loaded: Any = __import__(importable)
    assert loaded.value == 1
    assert told == [f"{importable} can't be patched: RuntimeError('no such function')"]


def test_a_module_that_isnt_there_is_still_not_there(importable: str) -> None:
    hooks.install({"no_such_module_at_all": []}, pytest.fail)
    with pytest.raises(ModuleNotFoundError):
        __import__("no_such_module_at_all")


# ---------------------------------------------------------------- calls


@pytest.fixture
def api(kept: Any) -> Any:
    """The fake of nova.db.main.api, patched."""
    loaded: Any = ModuleType("nova.db.main.api")
    exec(compile(NOVA, "api.py", "exec"), vars(loaded))
    for value in vars(loaded).values():
        if callable(value) and getattr(value, "__module__", None) != "nova.db.main.api":
            value.__module__ = "nova.db.main.api"
    calls.patches(kept)["nova.db.main.api"](loaded)
    return loaded


def names(kept: Kept) -> list[str]:
    return [record[4] for record in kept.records]


def test_only_outermost_calls_count(api: Any, kept: Kept) -> None:
    assert api.instance_get(None, "a") == "a"
    assert names(kept) == ["instance_get"]
    (tag, at, seconds, where, _, lazy, error), *_ = kept.records
    assert (tag, where, lazy, error) == (lines.CALL, "main", False, "")
    assert 0 <= seconds < 1
    assert abs(at - time.time()) < 5


def test_a_call_that_raises_is_recorded_with_its_error(api: Any, kept: Kept) -> None:
    with pytest.raises(KeyError):
        api.instance_get(None, None)
    assert kept.records[0][6] == "KeyError"
    api.instance_get(None, 1)
    assert names(kept) == ["instance_get", "instance_get"]


def test_helpers_and_private_functions_are_no_calls(api: Any, kept: Kept) -> None:
    api.model_query(None, "model")
    api.constraint(a=1)
    api.configure(None)
    api._write(None, 1)
    assert kept.records == []


def test_an_objects_own_function_gets_the_name_of_what_it_came_to(api: Any, kept: Kept) -> None:
    class Instance:
        @staticmethod
        @api.select_db_reader_mode  # type: ignore[untyped-decorator]
        def _db_instance_get(context: Any, uuid: str) -> Any:
            return api.instance_get_by_uuid(context, uuid)

        @staticmethod
        @api.pick_context_manager_reader  # type: ignore[untyped-decorator]
        def _count(context: Any) -> int:
            return 3

    assert Instance._db_instance_get(None, "a") == "a"
    assert Instance._count(None) == 3
    expected = "test_an_objects_own_function_gets_the_name_of_what_it_came_to.Instance._count"
    assert names(kept) == ["instance_get_by_uuid", expected]


def test_functions_keep_their_names_and_signatures(api: Any) -> None:
    import inspect

    assert api.instance_create.__name__ == "instance_create"
    assert list(inspect.signature(api.instance_create).parameters) == ["context", "values"]


def test_calls_of_several_threads_are_each_outermost(api: Any, kept: Kept) -> None:
    inner = threading.Thread(target=api.instance_create, args=(None, 1))

    class Uuid:
        def __eq__(self, other: object) -> bool:
            return False

    def during(context: Any) -> None:
        inner.start()
        inner.join()

    calls.timed(kept, "main", "outer", during)(None)  # type: ignore[arg-type]
    assert sorted(names(kept)) == ["instance_create", "outer"]


def test_the_api_databases_functions_are_those_that_objects_decorate(kept: Kept) -> None:
    class Manager:
        def __init__(self, root: Any = None) -> None:
            self._root = root or self

        @property
        def reader(self) -> Manager:
            return Manager(self._root)

        def __call__(self, function: Any) -> Any:
            return function

    loaded: Any = ModuleType("nova.db.api.api")
    loaded.context_manager = Manager()
    calls.patches(kept)["nova.db.api.api"](loaded)  # type: ignore[arg-type]

    @loaded.context_manager.reader  # type: ignore[untyped-decorator]
    def get_flavor(context: Any) -> str:
        return "flavor"

    other = Manager()

    @other.reader
    def of_another_database(context: Any) -> str:
        return "x"

    assert (get_flavor(None), of_another_database(None)) == ("flavor", "x")
    assert [(record[3], record[4].rpartition(".")[2]) for record in kept.records] == [
        ("api", "get_flavor")
    ]


class Model:
    """A class that is mapped to a table."""


Model.__module__ = "nova.db.main.models"


def test_a_relationship_that_is_loaded_later_is_a_call_of_its_own(api: Any, kept: Any) -> None:
    class _LazyLoader:
        parent = SimpleNamespace(class_=Model)
        key = "info_cache"

        def _emit_lazyload(self, session: Any) -> str:
            if session is None:
                raise LookupError
            return "loaded"

    loaded: Any = ModuleType("sqlalchemy.orm.strategies")
    loaded._LazyLoader = _LazyLoader
    calls.patches(kept)["sqlalchemy.orm.strategies"](loaded)
    assert _LazyLoader()._emit_lazyload(1) == "loaded"
    with pytest.raises(LookupError):
        _LazyLoader()._emit_lazyload(None)
    calls.timed(kept, "main", "outer", _LazyLoader()._emit_lazyload)(1)
    assert [record[3:] for record in kept.records] == [
        ("main", "Model.info_cache", True, ""),
        ("main", "Model.info_cache", True, "LookupError"),
        ("main", "outer", False, ""),
    ]


def test_columns_that_are_loaded_later_count_too(kept: Any) -> None:
    loaded: Any = ModuleType("sqlalchemy.orm.loading")
    loaded._load_scalar_attributes = lambda mapper, state, names, passive: "loaded"
    calls.patches(kept)["sqlalchemy.orm.loading"](loaded)
    mapper = SimpleNamespace(class_=Model)
    attached, detached = SimpleNamespace(session=1), SimpleNamespace(session=None)
    for state, names_ in ((attached, {"flavor"}), (attached, {"a", "b"}), (detached, {"a"})):
        assert loaded._load_scalar_attributes(mapper, state, names_, 0) == "loaded"
    assert names(kept) == ["Model.flavor", "Model.*"]


# ---------------------------------------------------------------- statements


@pytest.mark.parametrize(
    ("command", "sql", "expected"),
    [
        (3, b"SELECT 1", "SELECT"),
        (3, "select 1", "SELECT"),
        (3, b"\n (SELECT 1) UNION (SELECT 2)", "SELECT"),
        (3, b"INSERT INTO a", "INSERT"),
        (3, bytearray(b"INSERT INTO a VALUES (1), (2)"), "INSERT"),
        (3, b"UPDATE a", "UPDATE"),
        (3, b"DELETE FROM a", "DELETE"),
        (3, b"COMMIT", "COMMIT"),
        (3, "ROLLBACK", "ROLLBACK"),
        (3, b"SAVEPOINT a", "OTHER"),
        (3, b"", "OTHER"),
        (14, b"", "OTHER"),  # a ping
        (2, b"SELECT", "OTHER"),  # a database of that name
    ],
)
def test_kinds_of_statements(command: int, sql: Any, expected: str) -> None:
    assert statements.kind_of(command, sql) == expected


class Unwatched:
    """PyMySQL's, as far as it matters: the same methods on top of each other."""

    def __init__(self, ours: socket.socket) -> None:
        self._sock = ours
        self._rfile: Any = None
        self.connect()

    def connect(self) -> None:
        self._rfile = self._sock.makefile("rb")
        self._get_server_information()
        self._request_authentication()

    def _get_server_information(self) -> None:
        self._rfile.read(10)

    def _request_authentication(self) -> None:
        self._write_bytes(b"password")
        self._rfile.read(7)

    def query(self, sql: bytes) -> None:
        self._execute_command(3, sql)
        self._read_query_result()

    def ping(self) -> None:
        self._execute_command(14, b"")
        self._read_ok_packet()

    def _execute_command(self, command: int, sql: bytes) -> None:
        self._write_bytes(bytes([command]) + sql)

    def _read_query_result(self, unbuffered: bool = False) -> None:
        size = int(self._rfile.read(4))
        if self._rfile.read(size) == b"error":
            raise LookupError

    def _read_ok_packet(self) -> None:
        self._rfile.read(7)

    def _write_bytes(self, data: bytes) -> None:
        self._sock.sendall(data)


@pytest.fixture
def driver(kept: Any) -> Any:
    loaded: Any = ModuleType("pymysql.connections")
    loaded.Connection = type("Connection", (Unwatched,), {})
    statements.patches(kept)["pymysql.connections"](loaded)
    return loaded


def counted(kept: Kept) -> list[tuple[Any, ...]]:
    return [record[1:6] for record in kept.records]


@pytest.fixture
def connection(driver: Any) -> Iterator[Any]:
    """One that is logged in; `theirs` is its server's end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"0123456789" + b"welcome")
        made = driver.Connection(ours)
        made.theirs = theirs
        yield made
        made._rfile.close()


def test_every_command_is_a_round_trip_with_its_bytes(connection: Any, kept: Kept) -> None:
    # The connection, the greeting, the password.
    assert counted(kept) == [("OTHER", 1, 3, 8, 17)]
    connection.theirs.sendall(b"9000" + bytes(9000))
    connection.query(b"SELECT 1")
    connection.theirs.sendall(b"0005error")
    with pytest.raises(LookupError):
        connection.query(b"INSERT 2")
    connection.theirs.sendall(b"is here")
    connection.ping()
    assert counted(kept)[1:] == [
        ("SELECT", 1, 1, 9, 9004),
        ("INSERT", 1, 1, 9, 9),
        ("OTHER", 1, 1, 1, 7),
    ]
    assert all(0 <= record[6] < 5 for record in kept.records)
    assert kept.problems == []


def test_a_connection_that_breaks_raises_what_it_raised_before(connection: Any, kept: Kept) -> None:
    connection.theirs.close()
    with pytest.raises(BrokenPipeError):
        connection.query(b"SELECT 1")
    with pytest.raises(OSError):
        connection.ping()
    assert kept.problems == []


def test_a_file_without_a_socket_below_it_is_read_uncounted(connection: Any, kept: Kept) -> None:
    connection._rfile.close()
    connection._rfile = io.BytesIO(b"0002ok")
    connection.query(b"SELECT 1")
    assert counted(kept)[1:] == [("SELECT", 1, 1, 9, 0)]
    assert kept.problems == []


def test_what_goes_wrong_in_the_counting_is_swallowed(connection: Any, kept: Kept) -> None:
    connection._discovery_wire = "broken"
    connection.theirs.sendall(b"0002ok")
    connection.query(b"SELECT 1")
    assert kept.problems


def test_a_driver_may_count_for_itself(kept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statements, "DRIVERS", {"another.driver": statements.watch_own_counters})
    loaded: Any = ModuleType("another.driver")
    loaded.observers = []
    statements.patches(kept)["another.driver"](loaded)
    loaded.observers[0]("SELECT", 1, 4, 100, 200, 0.5)
    assert kept.records == [(lines.STATEMENT, "SELECT", 1, 4, 100, 200, 0.5)]


def test_what_the_database_gave_up_is_counted_and_raised_all_the_same(kept: Any) -> None:
    def refuse(data: bytes) -> None:
        raise RuntimeError(int.from_bytes(data[1:3], "little"))

    loaded: Any = ModuleType("pymysql.err")
    loaded.raise_mysql_exception = refuse
    statements.patches(kept)["pymysql.err"](loaded)
    for number in (1213, 1062):
        with pytest.raises(RuntimeError, match=str(number)):
            loaded.raise_mysql_exception(b"\xff" + number.to_bytes(2, "little") + b"#40001")
    with pytest.raises(TypeError):
        loaded.raise_mysql_exception(None)
    assert kept.records == [(lines.STATEMENT, "DEADLOCK", 1, 0, 0, 0, 0.0)]
    assert kept.problems, "what went wrong in counting is noted"


# ---------------------------------------------------------------- requests


def test_every_answer_that_gunicorn_tells_its_log_of_is_recorded(kept: Any) -> None:
    class Logger:
        seen = 0

        def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> str:
            self.seen += 1
            return "logged"

    loaded: Any = ModuleType("gunicorn.glogging")
    loaded.Logger = Logger
    requests.patches(kept)["gunicorn.glogging"](loaded)
    log = Logger()
    request = SimpleNamespace(method="GET", path="/v3")
    answer = SimpleNamespace(status="200 OK")
    assert log.access(answer, request, {}, timedelta(milliseconds=5)) == "logged"
    assert log.access(None, request, {}, timedelta(milliseconds=5)) == "logged"
    assert log.seen == 2
    assert [(record[0], *record[2:]) for record in kept.records] == [
        (lines.REQUEST, 0.005, "GET", "/v3", "200 OK")
    ]
    assert len(kept.problems) == 1


# ---------------------------------------------------------------- what is read from outside


def test_counters_say_how_far_they_came() -> None:
    before = {"same": [5, 1], "further": [100, 10], "anew": [900, 9], "gone": [1, 1]}
    now = {"same": [5, 1], "further": [150, 12], "anew": [30, 2], "new": [7, 1]}
    assert window.differences(before, now) == {"further": [50, 2], "anew": [30, 2], "new": [7, 1]}


def test_cpu_is_that_of_the_window_even_when_a_unit_was_restarted() -> None:
    before = {"a": {"main": "7", "cpu_s": 10.0, "memory": 100},
              "b": {"main": "8", "cpu_s": 10.0, "memory": 100}}  # fmt: skip
    now = {
        "a": {"main": "7", "cpu_s": 12.5, "memory": 120},
        "b": {"main": "9", "cpu_s": 1.5, "memory": 90},
        "c": {"main": "1", "cpu_s": 0.5, "memory": 10},
    }
    assert window.used(before, now) == {
        "a": {"cpu_s": 2.5, "memory_bytes": 120, "memory_start_bytes": 100},
        "b": {"cpu_s": 1.5, "memory_bytes": 90, "memory_start_bytes": 100},
        "c": {"cpu_s": 0.5, "memory_bytes": 10, "memory_start_bytes": 0},
    }


def test_cpu_and_memory_of_a_process_are_read() -> None:
    started = time.process_time()
    before = usage.cpu_of(os.getpid())
    while time.process_time() < started + 0.2:
        pass
    assert 0.1 < usage.cpu_of(os.getpid()) - before < 2
    assert usage.memory_of(os.getpid()) > 1e6


def test_processes_are_found_by_their_control_group() -> None:
    own_group = Path("/proc/self/cgroup").read_text().splitlines()[0].split(":", 2)[2]
    found = usage.processes_of({"own": own_group, "other": "/no/such.service", "down": ""})
    assert os.getpid() in found["own"]
    assert found["other"] == found["down"] == []


def test_rabbitmqs_words_are_read_however_they_are_broken_into_lines() -> None:
    def encoded(name: str) -> str:
        return base64.b64encode(name.encode()).decode()

    said = (
        f'{{[{{queue,"{encoded("conductor")}",100,4,\n         3}},\n'
        f'  {{queue,"{encoded("reply_1")}",10,0,0}},{{"EXIT",{{noproc,x}}}}],\n'
        " [{total,120,115,\n 110},{total,5,5,5}]}\n"
    )
    assert messages.parse(said) == {
        "": [125, 120, 115],
        "conductor": [100, 96, 93],
        "reply_1": [10, 10, 10],
    }


@pytest.fixture
def counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a host's counters are at; a Failure can't be read."""
    at: dict[str, Any] = {
        "usage": {"nova-api": {"main": "1", "cpu_s": 1.0, "memory": 5}},
        "traffic": {"10.0.0.1 3306": [10, 1]},
        "messages": {"": [0, 0, 0]},
    }

    def reader(name: str) -> Any:
        def look(*_: Any) -> Any:
            if isinstance(at[name], Exception):
                raise at[name]
            return at[name]

        return look

    monkeypatch.setattr(places, "RECORDS", str(tmp_path))
    monkeypatch.setattr(traffic, "has_table", lambda: True)
    for name, counter in (("usage", usage), ("traffic", traffic), ("messages", messages)):
        monkeypatch.setattr(counter, "now", reader(name))
    return at


def windowed(**more: Any) -> dict[str, Any]:
    units = {"nova-api": {"probes": [], "port": 1}, "rabbitmq-server": {"probes": [], "port": None}}
    wanted = ["usage", "traffic", "messages"]
    return {"wanted": wanted, "units": units, "ports": [], "since": 0, "until": 0, **more}


def test_a_window_is_what_counters_did_between_start_and_collect(counters: dict[str, Any]) -> None:
    window.start(windowed())
    counters["traffic"] = {"10.0.0.1 3306": [30, 3]}
    counters["messages"] = {"": [4, 4, 4]}
    counters["usage"] = {"nova-api": {"main": "1", "cpu_s": 3.5, "memory": 6}}
    assert window.collect(windowed()) == {
        "problems": [],
        "usage": {"nova-api": {"cpu_s": 2.5, "memory_bytes": 6, "memory_start_bytes": 5}},
        "traffic": {"10.0.0.1 3306": [20, 2]},
        "messages": {"": [4, 4, 4]},
    }


def test_what_comes_after_its_end_is_in_no_window(counters: dict[str, Any]) -> None:
    window.start(windowed())
    counters["traffic"] = {"10.0.0.1 3306": [30, 3]}
    assert window.stop(windowed()) == {"problems": []}
    counters["traffic"] = {"10.0.0.1 3306": [500, 50]}
    assert window.collect(windowed())["traffic"] == {"10.0.0.1 3306": [20, 2]}
    assert window.collect(windowed())["traffic"] == {"10.0.0.1 3306": [20, 2]}, "asked again"
    window.start(windowed())
    assert window.collect(windowed())["traffic"] == {}, "the next window has an end of its own"


def test_what_couldnt_be_read_as_it_ended_is_told_when_it_is_collected(
    counters: dict[str, Any],
) -> None:
    window.start(windowed())
    counters["messages"] = process.Failure("rabbitmqctl: down")
    assert window.stop(windowed()) == {"problems": ["rabbitmqctl: down"]}
    counters["messages"] = {"": [9, 9, 9]}
    found = window.collect(windowed())
    assert found["problems"] == ["rabbitmqctl: down"]
    assert "messages" not in found and "usage" in found


def test_what_cant_be_read_at_the_end_costs_no_other_table(counters: dict[str, Any]) -> None:
    window.start(windowed())
    counters["messages"] = process.Failure("rabbitmqctl: down")
    found = window.collect(windowed())
    assert found["problems"] == ["rabbitmqctl: down"]
    assert "messages" not in found and "usage" in found


def test_a_window_that_cant_be_started_is_no_window(counters: dict[str, Any]) -> None:
    counters["messages"] = process.Failure("rabbitmqctl: down")
    with pytest.raises(process.Failure, match="down"):
        window.start(windowed())
    found = window.collect(windowed(wanted=["usage"]))
    assert found == {"problems": ["usage wasn't read here when the window began"]}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(places, "RECORDS", "/nowhere")
        with pytest.raises(process.Failure, match="aren't laid down"):
            window.start(windowed())


def test_only_the_host_of_the_bus_is_asked_for_messages(counters: dict[str, Any]) -> None:
    counters["messages"] = process.Failure("no RabbitMQ here")
    one = windowed(units={"nova-api": {"probes": [], "port": 1}})
    window.start(one)
    assert window.collect(one)["problems"] == []


# ---------------------------------------------------------------- laying them down


def unit(tmp_path: Path, text: str, **more: str) -> dict[str, str]:
    path = tmp_path / "example.service"
    path.write_text(text)
    return {"FragmentPath": str(path), "DropInPaths": "", "User": "", **more}


def test_a_units_own_python_path_is_kept(tmp_path: Path) -> None:
    plain = unit(tmp_path, "[Service]\nUser=x\n")
    wanted = installation.environment_of("nova-api", ["calls"], plain, "abc")
    assert wanted == {
        "PYTHONPATH": "/etc/discovery-xp-probes",
        "DISCOVERY_PROBES": "calls",
        "DISCOVERY_PROBE_FOLDER": "/var/lib/discovery-xp-probes/nova-api",
        "DISCOVERY_PROBE_CODE": "abc",
    }
    ours = tmp_path / "probes.conf"
    ours.write_text("[Service]\nEnvironment=PYTHONPATH=/etc/discovery-xp-probes:/a\n")
    own_one = unit(
        tmp_path, "[Service]\nEnvironment=PYTHONPATH=/etc/drivers\n", DropInPaths=str(ours)
    )
    wanted = installation.environment_of("neutron-api", ["requests"], own_one, "abc")
    assert wanted["PYTHONPATH"] == "/etc/discovery-xp-probes:/etc/drivers"
    assert installation.environment_of("neutron-api", [], own_one, "abc") == {}


class FakeHost:
    """A host's systemd and nft, and the environments of its services."""

    def __init__(self, tmp_path: Path) -> None:
        self.tmp_path = tmp_path
        self.running: dict[str, dict[str, str]] = {}
        self.down: set[str] = set()
        self.restarted: list[str] = []
        self.has_table = False
        for name, text in (
            ("nova-api", ""),
            ("neutron-api", "Environment=PYTHONPATH=/etc/drivers\n"),
        ):
            (tmp_path / f"{name}.service").write_text(f"[Service]\n{text}")
            self.restart(name)

    def drop_in(self, name: str) -> Path:
        return self.tmp_path / f"units/{name}.service.d/probes.conf"

    def complete(self, words: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(words, 0, self.run(words), "")

    def run(self, words: list[str]) -> str:
        if words[:2] == ["systemctl", "show"]:
            return "\n\n".join(
                f"ActiveState={'failed' if name in self.down else 'active'}\nMainPID=1\n"
                f"NRestarts=0\nUser=\nFragmentPath={self.tmp_path}/{name}.service\n"
                "DropInPaths=\nControlGroup=/x"
                for name in words[3:]
            )
        if words[:2] == ["systemctl", "restart"]:
            for name in words[2:]:
                self.restarted.append(name)
                self.restart(name)
        if words[:2] == ["nft", "-f"]:
            self.has_table = True
        if words[:2] == ["nft", "delete"]:
            self.has_table = False
        return ""

    def restart(self, name: str) -> None:
        """As systemd does: with the files as they are now."""
        text = (self.tmp_path / f"{name}.service").read_text()
        if self.drop_in(name).exists():
            text += self.drop_in(name).read_text()
        self.running[name] = dict(
            line.removeprefix("Environment=").split("=", 1)
            for line in text.splitlines()
            if line.startswith("Environment=")
        )

    def take_restarted(self) -> list[str]:
        found, self.restarted = self.restarted, []
        return found


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    fake = FakeHost(tmp_path)
    monkeypatch.setattr(subprocess, "run", fake.complete)
    monkeypatch.setattr(traffic, "has_table", lambda: fake.has_table)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/sbin/{name}")
    monkeypatch.setattr(host_systemd, "UNITS", str(tmp_path / "units"))
    monkeypatch.setattr(places, "CODE", str(tmp_path / "place"))
    monkeypatch.setattr(places, "RECORDS", str(tmp_path / "records"))
    monkeypatch.setattr("os.chown", lambda *_: None)
    return fake


def installation_of(wanted: list[str], **inside: list[str]) -> installation.Installation:
    units = {
        name.replace("_", "-"): {"probes": names_, "port": None} for name, names_ in inside.items()
    }
    return installation.Installation(
        {
            "wanted": wanted,
            "units": units,
            "contents": {"sitecustomize.py": "pass\n", "discovery_xp/__init__.py": "\n"},
            "timeout_s": 5,
        }
    )


def installed(wanted: list[str], **inside: list[str]) -> list[str]:
    """Install; returns the changes."""
    one = installation_of(wanted, **inside)
    one.run()
    return one.changes


def test_services_are_restarted_once_for_their_probes(host: FakeHost) -> None:
    installed(["calls"], nova_api=["calls"], neutron_api=[])
    assert host.take_restarted() == ["nova-api"]
    assert not host.drop_in("neutron-api").exists()
    assert installed(["calls"], nova_api=["calls"], neutron_api=[]) == []
    assert host.take_restarted() == []
    installed(["calls", "requests"], nova_api=["calls", "requests"], neutron_api=["requests"])
    assert host.take_restarted() == ["nova-api", "neutron-api"]
    assert host.running["neutron-api"]["PYTHONPATH"] == f"{host.tmp_path}/place:/etc/drivers"
    installed(["requests"], nova_api=["requests"], neutron_api=["requests"])
    assert host.take_restarted() == ["nova-api"]
    assert host.running["nova-api"]["DISCOVERY_PROBES"] == "requests"


def test_services_that_start_with_their_probes_are_not_restarted_for_them(host: FakeHost) -> None:
    wanted: dict[str, list[str]] = {"nova_api": ["calls"], "neutron_api": ["calls"]}
    one = installation_of(["calls", "traffic"], **wanted)
    one.precede(["nova-api"])
    assert not host.drop_in("neutron-api").exists(), "it isn't about to be started"
    host.restart("nova-api")
    assert not one.note_started(["nova-api"]), "neutron-api lacks its own"
    one.precede(["neutron-api"])
    assert host.drop_in("nova-api").exists(), "it keeps what it has"
    host.restart("neutron-api")
    assert one.note_started(["neutron-api"])
    assert host.has_table
    host.take_restarted()
    assert installed(["calls", "traffic"], **wanted) == []
    assert host.take_restarted() == []


def test_a_service_that_was_not_noted_as_started_is_restarted_for_its_probes(
    host: FakeHost,
) -> None:
    one = installation_of(["calls"], nova_api=["calls"])
    one.precede(["nova-api"])  # and the deployment is killed
    installed(["calls"], nova_api=["calls"])
    assert host.take_restarted() == ["nova-api"]


def test_what_starts_without_probes_is_rid_of_those_it_had(host: FakeHost) -> None:
    installed(["calls"], nova_api=["calls"])
    one = installation_of([], nova_api=[])
    one.precede(["nova-api"])
    assert not host.drop_in("nova-api").exists()
    host.restart("nova-api")
    assert one.note_started(["nova-api"])


def test_probes_that_are_off_leave_nothing(host: FakeHost) -> None:
    installed(["calls", "traffic"], nova_api=["calls"], neutron_api=["calls"])
    assert host.has_table
    installed([], nova_api=[], neutron_api=[])
    assert host.running == {"nova-api": {}, "neutron-api": {"PYTHONPATH": "/etc/drivers"}}
    assert not host.has_table
    left = sorted(path.name for path in host.tmp_path.iterdir())
    assert left == ["neutron-api.service", "nova-api.service", "units"]
    assert list((host.tmp_path / "units").iterdir()) == []
    assert installed([], nova_api=[], neutron_api=[]) == []


@pytest.mark.parametrize("wanted", [["calls"], []])
def test_what_a_killed_run_did_not_restart_is_restarted_by_the_next(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, wanted: list[str]
) -> None:
    installed(["requests"], nova_api=["requests"])
    host.take_restarted()

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(installation.Installation, "restart", killed)
        installed(wanted, nova_api=wanted)
    assert host.take_restarted() == []
    installed(wanted, nova_api=wanted)
    assert host.take_restarted() == ["nova-api"]
    assert host.running["nova-api"].get("DISCOVERY_PROBES", "") == ",".join(wanted)
    assert installed(wanted, nova_api=wanted) == []


def test_a_unit_that_was_made_anew_gets_its_probes_again(host: FakeHost) -> None:
    installed(["calls"], nova_api=["calls"])
    host.drop_in("nova-api").unlink()
    host.restart("nova-api")
    host.take_restarted()
    installed(["calls"], nova_api=["calls"])
    assert host.take_restarted() == ["nova-api"]


def test_a_service_that_is_down_is_not_started(host: FakeHost) -> None:
    host.down = {"nova-api"}
    installed(["calls"], nova_api=["calls"])
    assert host.take_restarted() == []
    host.down = set()
    host.restart("nova-api")
    assert host.running["nova-api"]["DISCOVERY_PROBES"] == "calls"


def test_what_is_read_from_outside_restarts_nothing(host: FakeHost) -> None:
    installed(["traffic", "usage", "messages"], nova_api=[], neutron_api=[])
    assert host.take_restarted() == []
    assert host.has_table
    assert not (host.tmp_path / "place").exists()


# ---------------------------------------------------------------- the rows of the results


HOSTS = {
    "site1-master-1": {"address": "10.0.0.1", "site": "site1"},
    "site1-controller-1": {"address": "10.0.0.2", "site": "site1"},
    "site2-compute-1": {"address": "10.0.1.2", "site": "site2"},
}


def packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode())).decode()


def test_what_hosts_say_becomes_rows_of_the_format() -> None:
    call = lines.encode([(lines.CALL, 5.0, 0.1, "main", "f", False, "")], 0, 1)
    early = lines.encode([(lines.CALL, 4.0, 0.1, "main", "g", False, "")], 0, 1)
    others = lines.encode(
        [(lines.REQUEST, 5.0, 0.1, "GET", "/", "200 OK"),
         (lines.STATEMENT, "SELECT", 1, 1, 1, 1, 0.1),
         ("p", 6.0, 0.1, 0.0, 0.0, "client", "GET /", "10.0.1.2", "", "b", "", "", 1, 0, "", ""),
         ("p", 5.0, 0.1, 0.0, 0.0, "call", "save", "10.9.9.9", "", "a", "", "", 1, 0, "", "")],
        0, 1,
    )  # fmt: skip
    usage = {"cpu_s": 1.5, "memory_bytes": 10, "memory_start_bytes": 9}
    said: dict[str, dict[str, Any]] = {
        "site1-controller-1": {
            "records": packed(f"@\tnova-api\t17\n{call}{others}@\tnova-conductor\t18\n{early}"),
            "usage": {"nova-api": usage},
            "traffic": {"10.0.0.1 3306": [5000, 50], "10.0.1.2 0": [60, 1], "8.8.8.8 0": [1, 1]},
        },
        "site1-master-1": {"messages": {"conductor": [5, 5, 4], "": [6, 6, 3]}, "traffic": {},
                           "series": packed("5.000\tmariadb\tcpu_s\t1.5\n"), "problems": []},
    }  # fmt: skip
    tables = probes.to_rows(HOSTS, probes.PROBES, said, pytest.fail)
    assert list(tables) == list(probes.PROBES)
    for name, rows in tables.items():
        assert rows, name
        for row in rows:
            assert list(row) == [column.name for column in TABLES[name]], name
    assert [row["function"] for row in tables["calls"]] == ["g", "f"]
    assert [(row["peer"], row["peer_site"], row["service"]) for row in tables["traffic"]] == [
        ("site1-master-1", "site1", "mysql"),
        ("site2-compute-1", "site2", "other"),
        ("8.8.8.8", "", "other"),
    ]
    assert [(row["span"], row["peer"], row["peer_site"]) for row in tables["spans"]] == [
        ("a", "10.9.9.9", None),
        ("b", "site2-compute-1", "site2"),
    ]
    assert [list(row.values()) for row in tables["messages"]] == [
        ["conductor", 5, 5, 4],
        ["(gone)", 1, 1, 0],
    ]
    assert tables["usage"][0] == {
        "service": "nova-api", "host": "site1-controller-1", "site": "site1", **usage
    }  # fmt: skip


def test_a_statement_that_a_proxy_passes_on_has_gone_to_the_node_behind_it() -> None:
    def span(number: str, kind: str, peer: str) -> tuple[Any, ...]:
        return ("p", 5.0, 0.1, 0.0, 0.0, kind, "SELECT", peer, "", number, "", "", 1, 1, "", "")

    spans = lines.encode(
        [span("a", "database", "127.0.0.1"), span("b", "client", "127.0.0.1"),
         span("c", "database", "10.0.0.1")], 0, 1,
    )  # fmt: skip
    said = {"site1-controller-1": {"records": packed(f"@\tnova-api\t17\n{spans}")}}
    nodes = {"site1-controller-1": "site2-compute-1"}
    for given, first in ((nodes, ("site2-compute-1", "site2")), (None, ("127.0.0.1", None))):
        rows = probes.to_rows(HOSTS, ["spans"], said, pytest.fail, nodes=given)["spans"]
        assert [(row["span"], row["peer"], row["peer_site"]) for row in rows] == [
            ("a", *first),
            ("b", "127.0.0.1", None),
            ("c", "site1-master-1", "site1"),
        ]


def test_what_a_host_could_not_read_is_told() -> None:
    said: list[str] = []
    result = {"site1-master-1": {"problems": ["rabbitmqctl: down"]}}
    assert probes.to_rows(HOSTS, ["messages"], result, said.append) == {"messages": []}
    assert said == ["site1-master-1: rabbitmqctl: down"]


def test_only_the_wanted_tables_are_there() -> None:
    assert probes.to_rows(HOSTS, ["traffic"], {}, pytest.fail) == {"traffic": []}


def test_each_unit_gets_the_probes_that_have_something_to_see_in_it() -> None:
    plan = make_plan(derive_topology(2, "10ms"), "two", cloud=True)
    told = probes._variables(plan, ["calls", "usage", "requests"], (1.0, 2.0))["xp_probes"]
    assert told["wanted"] == ["calls", "requests", "usage"]
    assert told["window"] == [1.0, 2.0]
    inside = {
        unit: entry["probes"] for units in told["units"].values() for unit, entry in units.items()
    }
    assert inside["nova-api"] == ["calls", "requests"]
    assert inside["nova-conductor"] == ["calls"]
    assert inside["keystone-api"] == ["requests"]
    assert inside["nova-compute"] == inside["mariadb"] == []
    nothing = probes._variables(plan, [])["xp_probes"]
    assert not [
        entry for units in nothing["units"].values() for entry in units.values() if entry["probes"]
    ]
    with pytest.raises(Refused, match="no probe 'cals'"):
        probes._variables(plan, ["calls", "cals"])


def hosts_of_a_testbed() -> Hosts:
    """Of a small plan; nobody is behind them."""
    plan = make_plan(derive_topology(2, "10ms"), "two", cloud=True)
    groups: dict[str, list[en.Host]] = {}
    for planned in plan.hosts:
        host = en.Host(planned.address or "", alias=planned.name)
        for group in (*planned.roles, planned.site):
            groups.setdefault(group, []).append(host)
    return Hosts(plan, en.Roles(groups), en.Networks())


def quiet(_stage: str, _done: int, _total: int) -> None:
    """No progress."""


class FakePlaybooks:
    """In the playbooks' place: who was asked what, and what a host says."""

    def __init__(self, result: Mapping[str, Any]) -> None:
        self.asked: list[tuple[str, set[str], Mapping[str, Any]]] = []
        self.result = result

    def run(self, hosts: Hosts, name: str, variables: Mapping[str, Any], _: Any) -> PlayRun:
        self.asked.append((name, set(hosts.by_name()), variables))
        return PlayRun([Outcome("probes", host, "ok", self.result) for host in hosts.by_name()])


@pytest.fixture
def playbooks(monkeypatch: pytest.MonkeyPatch) -> FakePlaybooks:
    usage = {"cpu_s": 1.0, "memory_bytes": 1, "memory_start_bytes": 1}
    fake = FakePlaybooks({"usage": {"a": usage}})
    monkeypatch.setattr(probes, "run_playbook", fake.run)
    return fake


def test_hosts_that_dont_answer_are_told_and_the_others_collected(
    playbooks: FakePlaybooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = hosts_of_a_testbed()
    names_ = set(hosts.by_name())
    silent = "site2-compute-1"
    monkeypatch.setattr(probes, "answering_of", lambda _: names_ - {silent})
    said: list[str] = []
    tables = probes.collect(hosts, ["usage"], (1.0, 2.0), quiet, said.append)
    assert {row["host"] for row in tables["usage"]} == names_ - {silent}
    assert playbooks.asked[0][:2] == ("probes_collect", names_ - {silent})
    assert playbooks.asked[0][2]["xp_probes"]["window"] == [1.0, 2.0]
    assert said == ["site2-compute-1 can't be reached: what was measured there is missing"]
    with pytest.warns(UserWarning, match="site2-compute-1 can't be reached"):
        probes.collect(hosts, ["usage"], (1.0, 2.0), quiet)
    monkeypatch.setattr(probes, "answering_of", lambda _: set())
    with pytest.raises(Failed, match="can't be reached"):
        probes.collect(hosts, ["usage"], (1.0, 2.0), quiet)


def test_no_probes_ask_no_host_but_to_take_them_away(playbooks: FakePlaybooks) -> None:
    hosts = hosts_of_a_testbed()
    probes.start(hosts, [], quiet)
    assert probes.collect(hosts, [], (1.0, 2.0), quiet) == {}
    assert playbooks.asked == []
    probes.install(hosts, [], quiet)
    probes.start(hosts, ["usage"], quiet)
    assert [name for name, _, _ in playbooks.asked] == ["probes", "probes_start"]


def test_neutron_is_asked_for_something_after_it_was_restarted(
    playbooks: FakePlaybooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = hosts_of_a_testbed()
    asked: list[Mapping[str, str]] = []
    monkeypatch.setattr(probes, "run_each", lambda _, commands: asked.append(commands))
    probes.install(hosts, ["requests"], quiet)
    assert asked == []
    playbooks.result = {"restarted": ["neutron-api"]}
    probes.install(hosts, ["requests"], quiet)
    (commands,) = asked
    assert list(commands) == ["site1-master-1"]
    assert "network list" in commands["site1-master-1"]


def test_every_probe_of_the_format_is_known_and_the_other_way_round() -> None:
    assert set(probes.PROBES) == set(PROBES)


def test_every_file_that_runs_inside_services_is_laid_down() -> None:
    package = Path(catalogue.__file__).parent
    inside = {
        f"discovery_xp/onhost/{path.relative_to(package)}"
        for path in (package / "probes/inside").glob("*.py")
    }
    assert inside <= probes._code().keys()


def test_traffic_is_told_apart_by_the_ports_of_the_catalogue() -> None:
    assert json.dumps(list(catalogue.TRAFFIC))[1:-1] in traffic.rules()
