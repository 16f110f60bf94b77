"""Dumps of empty databases: which are kept, which are taken, and what the hosts do with them."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from discovery_xp import files, software
from discovery_xp.deployment import schemas
from discovery_xp.deployment.schemas import KeptSchemas
from discovery_xp.inputs.topology import parse_topology
from discovery_xp.onhost.cloud import migrations, schema_dumps
from discovery_xp.onhost.cloud.schema_dumps import Dumps
from discovery_xp.planning.databases import OWNERS
from discovery_xp.planning.plan import make_plan
from discovery_xp.testbeds.hosts import Hosts

SQL = "CREATE TABLE `é` (a INT);\n"
PACKED = schema_dumps.pack(SQL)
DUMP = {"server": "10.11.19-MariaDB", "sql": PACKED}
ALL = dict.fromkeys(OWNERS, DUMP)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DISCOVERY_XP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# ---------------------------------------------------------------- in the cache


def test_kept_dumps_are_read_again_and_added_to() -> None:
    assert schemas.read() == {}
    schemas.keep({"nova": DUMP})
    schemas.keep({"neutron": {**DUMP, "server": "11"}})
    assert schemas.read() == {"nova": DUMP, "neutron": {**DUMP, "server": "11"}}


def test_what_is_kept_is_private(own_cache: Path) -> None:
    schemas.keep({"nova": DUMP})
    assert schemas.file().stat().st_mode & 0o777 == 0o600
    assert schemas.file().parent.stat().st_mode & 0o777 == 0o700


def test_dumps_that_nobody_loaded_for_a_day_go(own_cache: Path) -> None:
    (own_cache / "schemas").mkdir(parents=True)
    old, used = (own_cache / f"schemas/{name}.json" for name in ("0123456789ab", "ba9876543210"))
    for path, age_s in ((old, schemas.UNUSED_S + 60), (used, 60)):
        path.write_text("{}")
        os.utime(path, (time.time() - age_s,) * 2)
    schemas.keep({"nova": DUMP})
    assert set((own_cache / "schemas").iterdir()) == {used, schemas.file()}


def test_dumps_that_a_deployment_is_given_are_in_use() -> None:
    schemas.keep(ALL)
    os.utime(schemas.file(), (0, 0))
    assert given().file == str(schemas.file())
    assert time.time() - schemas.file().stat().st_mtime < schemas.UNUSED_S


@pytest.mark.parametrize(
    "made",
    [None, [], "x", {}, {"nova": None}, {"nova": []}, {"mysql": DUMP}, {"../nova": DUMP},
     {"nova": {"server": "10"}}, {"nova": {**DUMP, "server": "10'; DROP"}},
     {"nova": {**DUMP, "server": 10}}, {"nova": {**DUMP, "sql": "a b"}},
     {"nova": {**DUMP, "sql": "{{ x }}"}}, {"nova": {**DUMP, "sql": ""}},
     {"nova": {**DUMP, "sql": PACKED[:-8]}}, {"nova": {**DUMP, "sql": "QUJD"}},
     {"nova": {**DUMP, "sql": "A" * (schemas.MOST_BYTES + 1)}}],
)  # fmt: skip
def test_what_a_host_sends_is_kept_only_if_it_is_a_dump(made: object) -> None:
    schemas.keep(made)
    assert not schemas.file().exists()


@pytest.mark.parametrize(
    "damage",
    [lambda text: text[:-20], lambda text: "[]", lambda text: "\0" * 100, lambda text: "[" * 9999,
     lambda text: text.replace(PACKED, schema_dumps.pack("DROP DATABASE nova")),
     lambda text: text.replace("10.11", "10.12"), lambda text: text.replace("nova", "mysql"),
     lambda text: text + " " * schemas.MOST_BYTES],
)  # fmt: skip
def test_damaged_dumps_are_dropped_and_made_anew(damage: Callable[[str], str]) -> None:
    schemas.keep({"nova": DUMP})
    schemas.file().write_text(damage(schemas.file().read_text()))
    assert schemas.read() == {}
    assert not schemas.file().exists()
    schemas.keep({"nova": DUMP})
    assert schemas.read() == {"nova": DUMP}


def test_a_link_is_not_read(tmp_path: Path) -> None:
    schemas.keep({"nova": DUMP})
    schemas.file().rename(tmp_path / "elsewhere")
    schemas.file().symlink_to(tmp_path / "elsewhere")
    assert schemas.read() == {}
    assert (tmp_path / "elsewhere").exists()


def test_a_full_disk_keeps_no_cloud_from_coming_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_atomically", full)
    schemas.keep({"nova": DUMP})
    assert schemas.read() == {}


# ---------------------------------------------------------------- whose are kept


def given(
    openstack: str = "{}", provider: str = "local", is_prepared: bool = True, is_new: bool = True
) -> KeptSchemas:
    """What a deployment of this topology tells its hosts."""
    text = f"name: t\nsites: [{{name: a}}]\nopenstack: {openstack}\nprovider: {provider}\n"
    plan = make_plan(parse_topology(text), cloud=True)
    return schemas.kept_for(Hosts(plan, {}, {}, is_prepared=is_prepared), is_new)


LENT = "{type: g5k, site: rennes, cluster: paravance}"
CONFIG = "{config: {nova: {DEFAULT: {debug: true}}}}"


def test_the_first_cloud_on_emulated_hosts_makes_what_later_ones_load() -> None:
    assert given() == KeptSchemas("", keep=True)
    schemas.keep({"nova": DUMP})
    assert given() == KeptSchemas(str(schemas.file()), keep=True)
    schemas.keep(ALL)
    assert given() == KeptSchemas(str(schemas.file()), keep=False)


def test_a_cloud_on_rome_neither_makes_nor_loads_any() -> None:
    assert given("{backend: rome}") == KeptSchemas()
    schemas.keep({"neutron": DUMP})
    assert given("{backend: rome}") == KeptSchemas()


@pytest.mark.parametrize(
    ("openstack", "provider", "is_prepared", "is_new"),
    [(CONFIG, "local", True, True), ("{}", "local", False, True), ("{}", LENT, True, True),
     ("{}", "local", True, False)],
)  # fmt: skip
def test_nothing_is_kept_of_hosts_that_others_had_a_hand_in(
    openstack: str, provider: str, is_prepared: bool, is_new: bool
) -> None:
    hosts = openstack, provider, is_prepared, is_new
    assert given(*hosts) == KeptSchemas("", keep=False)
    schemas.keep(ALL)
    assert given(*hosts) == KeptSchemas(str(schemas.file()), keep=False)


@pytest.mark.parametrize("changed", ["lock", "playbooks"])
def test_other_packages_or_playbooks_make_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changed: str
) -> None:
    before = schemas.file()
    if changed == "lock":
        environment = type("Other", (), {"lock_digest": "0" * 12})
        monkeypatch.setattr(software, "OPENSTACK", environment)
    else:
        for name in schemas._MADE_BY:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("another")
        monkeypatch.setattr(schemas, "checkout", lambda: tmp_path)
        lock = type("Same", (), {"lock_digest": software.OPENSTACK.lock_digest})
        monkeypatch.setattr(software, "OPENSTACK", lock)
    assert schemas.file() != before


# ---------------------------------------------------------------- on the hosts

URL = "mysql+pymysql://u@h/nova"


class Server:
    """A stand-in for MariaDB: the tables of one database."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tables: list[str] = []
        self.loaded: list[str] = []
        self.failure: Exception | None = None
        monkeypatch.setattr(schema_dumps, "server_version", lambda _url: DUMP["server"])
        monkeypatch.setattr(schema_dumps, "is_empty", lambda _url: not self.tables)
        monkeypatch.setattr(schema_dumps, "clear", lambda _url: self.tables.clear())
        monkeypatch.setattr(schema_dumps, "_load", self._load)

    def _load(self, _url: str, sql: str) -> None:
        self.tables.append("half")
        if self.failure is not None:
            raise self.failure
        self.loaded.append(sql)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(monkeypatch)


def load(
    text: str, name: str = "nova", url: str = URL, is_newest: Callable[[], bool] = lambda: True
) -> bool:
    packed = base64.b64encode(text.encode()).decode()
    return Dumps(packed, keeps=False).load(name, url, is_newest)


def test_an_empty_database_is_loaded(server: Server) -> None:
    assert load(json.dumps({"nova": DUMP}))
    assert server.loaded == [SQL]


def test_one_that_has_tables_is_left_alone(server: Server) -> None:
    server.tables.append("instances")
    assert not load(json.dumps({"nova": DUMP}))
    assert server.tables == ["instances"]


def test_a_dump_that_is_behind_is_dropped(server: Server) -> None:
    assert not load(json.dumps({"nova": DUMP}), is_newest=lambda: False)
    assert server.tables == []


def test_a_dump_that_the_server_refuses_is_dropped(server: Server) -> None:
    server.failure = schema_dumps.BadDump("You have an error in your SQL syntax")
    assert not load(json.dumps({"nova": DUMP}))
    assert server.tables == []


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "{}", json.dumps({"glance": DUMP}), json.dumps({"nova": "?"}),
     json.dumps({"nova": {**DUMP, "server": "11"}}), json.dumps({"nova": {**DUMP, "sql": "?"}}),
     json.dumps({"nova": {**DUMP, "sql": None}}), json.dumps({"nova": {**DUMP, "sql": 3}}),
     json.dumps({"nova": {"server": DUMP["server"]}})],
)  # fmt: skip
def test_what_does_not_fit_is_not_loaded(server: Server, text: str) -> None:
    assert not load(text)
    assert (server.loaded, server.tables) == ([], [])


@pytest.mark.parametrize("text", ["é", "????", json.dumps({"nova": DUMP}), "{'nova': {}}"])
def test_what_is_not_packed_is_not_loaded(server: Server, text: str) -> None:
    assert not Dumps(text, keeps=False).load("nova", URL, lambda: True)


def test_other_stores_have_no_dumps(server: Server) -> None:
    assert not load(json.dumps({"nova": DUMP}), url="rome+redis://u@h/nova")
    assert server.loaded == []


def test_a_dump_is_made_where_it_is_asked_for(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema_dumps, "dump", lambda _name: SQL)
    none, dumps = Dumps("", keeps=False), Dumps("", keeps=True)
    none.keep("nova", URL)
    dumps.keep("nova", URL)
    dumps.keep("keystone", "rome+redis://u@h/keystone")
    assert (none.made, dumps.made) == ({}, {"nova": DUMP})


def test_a_dump_that_fails_ends_nothing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> str:
        raise subprocess.CalledProcessError(2, ["mariadb-dump", name])

    monkeypatch.setattr(schema_dumps, "dump", fail)
    dumps = Dumps("", keeps=True)
    dumps.keep("nova", URL)
    assert dumps.made == {}


def test_a_packed_dump_is_the_same_again() -> None:
    sql = SQL * 1000
    assert schema_dumps.unpack(schema_dumps.pack(sql)) == sql
    assert len(schema_dumps.pack(sql)) < len(sql) / 10


@pytest.mark.parametrize("packed", ["", "????", "QUJD", None, 3, PACKED[:-8], "é"])
def test_what_is_no_dump_is_refused(packed: Any) -> None:
    with pytest.raises(ValueError):
        schema_dumps.unpack(packed)


def test_a_huge_dump_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = schema_dumps.pack("CREATE TABLE a (a INT);" * 100)
    monkeypatch.setattr(schema_dumps, "MOST_SQL_BYTES", 100)
    with pytest.raises(ValueError):
        schema_dumps.unpack(packed)


# ---------------------------------------------------------------- the migrations


class Recorder(Dumps):
    """Dumps that load those of `loads` and remember which were to be kept."""

    def __init__(self, *loads: str, keeps: bool = False) -> None:
        super().__init__("", keeps)
        self.loads, self.kept = loads, set[str]()

    def load(self, name: str, url: str, is_newest: Callable[[], bool]) -> bool:
        return name in self.loads and is_newest()

    def keep(self, name: str, url: str) -> None:
        self.kept.add(name)


class Commands:
    """A stand-in for the components' commands: `ran` are those that ran, in order."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.at_once = self.most_at_once = 0
        self.failing = ""
        self._lock = threading.Lock()

    def __call__(
        self, _user: str, words: list[str], given: str
    ) -> subprocess.CompletedProcess[str]:
        with self._lock:
            self.ran.append(f"{words[0]}{given}")
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(0.01)
        with self._lock:
            self.at_once -= 1
        code = int(words[0] == self.failing)
        return subprocess.CompletedProcess(words, code, "", "Warning\nOops Error\nWarning\n")


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    recorded = Commands()
    monkeypatch.setattr(migrations, "run_as", recorded)
    monkeypatch.setattr(migrations, "is_empty", lambda url: "empty" in url)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    return recorded


def schema(name: str) -> dict[str, Any]:
    return {
        "name": name, "user": name, "migrations": [[f"{name}-sync"]],
        "commands": [[f"{name}-fill", "x"]],
    }  # fmt: skip


def bring_up(dumps: Dumps, *names: str, is_newest: bool = True) -> dict[str, dict[str, Any]]:
    done = migrations.Migrations(dumps, lambda _schema, _url: is_newest).bring_up(
        [schema(name) for name in names], {name: f"{name}/empty" for name in names}, {"a": "!"}
    )
    return {entry["name"]: entry for entry in done}


def test_a_loaded_database_is_filled_but_not_migrated(commands: Commands) -> None:
    done = bring_up(Recorder("a"), "a", "b")
    assert done["a"]["is_loaded"]
    assert not done["b"]["is_loaded"]
    assert [word for word in commands.ran if word[0] == "a"] == ["a-fill!"]
    assert [word for word in commands.ran if word[0] == "b"] == ["b-sync", "b-fill"]


def test_one_whose_dump_is_behind_is_migrated(commands: Commands) -> None:
    assert not bring_up(Recorder("a"), "a", is_newest=False)["a"]["is_loaded"]
    assert commands.ran == ["a-sync!", "a-fill!"]


def test_what_is_kept_was_empty_before_and_is_not_filled_yet(commands: Commands) -> None:
    class AtOnce(Recorder):
        def keep(self, name: str, url: str) -> None:
            assert commands.ran == ["a-sync!"]
            super().keep(name, url)

    dumps = AtOnce(keeps=True)
    bring_up(dumps, "a")
    assert dumps.kept == {"a"}
    half = Recorder(keeps=True)
    migrations.Migrations(half, lambda _schema, _url: True).bring_up(
        [schema("b")], {"b": "tables"}, {}
    )
    assert half.kept == set(), "a killed run may have left anything in it"
    assert bring_up(loads := Recorder("a", keeps=True), "a")["a"]["is_loaded"]
    assert loads.kept == set()


def test_a_failed_migration_is_told_and_nothing_is_kept_of_it(commands: Commands) -> None:
    commands.failing = "a-sync"
    dumps = Recorder(keeps=True)
    done = bring_up(dumps, "a", "b")
    assert done["a"]["failure"] == "a: 'a-sync' ended with 1: Oops Error"
    assert done["b"]["failure"] == ""
    assert dumps.kept == {"b"}
    assert "a-fill!" not in commands.ran


def test_no_more_commands_run_at_once_than_there_are_cpus(commands: Commands) -> None:
    names = "abcdefg"
    bring_up(Recorder(*names[:3]), *names)
    assert commands.most_at_once == 2
    assert len(commands.ran) == 3 + 2 * 4


def test_nothing_due_is_nothing_done(commands: Commands) -> None:
    assert bring_up(Recorder()) == {}
