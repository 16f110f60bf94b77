"""Databases' revisions are read in a process of its own, whatever the migrations' modules do."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from discovery_xp import onhost
from discovery_xp.onhost.cloud import schemas
from discovery_xp.onhost.cloud.revisions import find_unfinished
from discovery_xp.onhost.process import Failure

REVISION = """
import os, threading
revision, down_revision = {revision!r}, {parent!r}
print("a component's words")
open({pids!r}, "a").write(f"{{os.getpid()}} ")
{more}
"""


class Component:
    """A component with two migrations, and a database that has some of them."""

    def __init__(self, folder: Path, *heads: str, more: str = "", name: str = "nova") -> None:
        self.pids = folder / f"{name}-pids"
        self.scripts, self.name = folder / f"{name}-scripts", name
        versions = self.scripts / "versions"
        versions.mkdir(parents=True)
        for revision, parent in (("one", None), ("two", "one")):
            text = REVISION.format(revision=revision, parent=parent, pids=str(self.pids), more=more)
            (versions / f"{revision}.py").write_text(text)
        self.url = f"sqlite:///{folder / name}.db"
        engine = sqlalchemy.create_engine(self.url)
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("CREATE TABLE alembic_version (version_num TEXT)"))
            for head in heads:
                statement = sqlalchemy.text("INSERT INTO alembic_version VALUES (:head)")
                connection.execute(statement, {"head": head})
        engine.dispose()

    def schema(self, **more: Any) -> dict[str, Any]:
        return {"name": self.name, "scripts": str(self.scripts), **more}

    def unfinished(self, longest_s: float = 60, **more: Any) -> set[str]:
        return find_unfinished([self.schema(**more)], {self.name: self.url}, longest_s)


@pytest.mark.parametrize(
    ("heads", "is_behind"), [((), True), (("one",), True), (("two",), False)]
)  # fmt: skip
def test_a_database_is_behind_that_lacks_a_migration(
    tmp_path: Path, heads: tuple[str, ...], is_behind: bool
) -> None:
    assert Component(tmp_path, *heads).unfinished() == ({"nova"} if is_behind else set())


@pytest.mark.parametrize(
    ("query", "is_unfinished"),
    [("SELECT 1 FROM alembic_version", False),
     ("SELECT 1 FROM alembic_version WHERE version_num = 'x'", True)],
)  # fmt: skip
def test_one_without_the_row_that_its_commands_write_is_unfinished(
    tmp_path: Path, query: str, is_unfinished: bool
) -> None:
    found = Component(tmp_path, "two").unfinished(query=query)
    assert found == ({"nova"} if is_unfinished else set())


def test_several_are_read_by_one_process_and_none_by_this_one(tmp_path: Path) -> None:
    components = [Component(tmp_path, "two", name=name) for name in ("nova", "neutron")]
    before = set(sys.modules)
    urls = {each.name: each.url for each in components}
    assert find_unfinished([each.schema() for each in components], urls) == set()
    assert not {name for name in set(sys.modules) - before if name.startswith("alembic")}
    [pid] = {pid for each in components for pid in each.pids.read_text().split()}
    assert int(pid) > 1


# As under eventlet: the importing process waits for threads that never end.
HOSTILE = "threading.Thread(target=threading.Event().wait).start(); threading.Thread.join = None"


def test_threads_go_on_whatever_migrations_do_to_their_process(tmp_path: Path) -> None:
    components = [Component(tmp_path, "two", more=HOSTILE, name=name) for name in "abcd"]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(Component.unfinished, components)) == [set()] * 4


@pytest.mark.parametrize(
    ("more", "longest_s", "reason"),
    [("raise ValueError('no such thing')", 60, "can't be read: ValueError: no such thing"),
     ("import time; time.sleep(600)", 2, "aren't known after 2 s"),
     ("os._exit(3)", 60, "can't be read")],
)  # fmt: skip
def test_it_is_told_where_revisions_cannot_be_read(
    tmp_path: Path, more: str, longest_s: float, reason: str
) -> None:
    with pytest.raises(Failure, match=reason):
        Component(tmp_path, "two", more=more).unfinished(longest_s)


def test_a_revision_that_nobody_knows_is_told(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="can't be read"):
        Component(tmp_path, "three").unfinished()


def test_a_database_that_cannot_be_reached_is_told(tmp_path: Path) -> None:
    component = Component(tmp_path, "two")
    component.url = f"sqlite:///{tmp_path}/nowhere/nova.db"
    with pytest.raises(Failure, match="the database can't be asked: unable to open"):
        component.unfinished()


def test_the_module_is_found_in_an_archive_too(tmp_path: Path) -> None:
    """As Ansible sends it."""
    folder = Path(onhost.__file__).parent
    with zipfile.ZipFile(tmp_path / "sent.zip", "w") as archive:
        for path in ("__init__", "process", "cloud/__init__", "cloud/revisions"):
            archive.write(folder / f"{path}.py", f"sent/{path}.py")
    component = Component(tmp_path, "one")
    sys.path.insert(0, str(tmp_path / "sent.zip"))
    try:
        from sent.cloud.revisions import find_unfinished as sent  # type: ignore[import-not-found]

        assert sent([component.schema()], {"nova": component.url}) == {"nova"}
    finally:
        sys.path.pop(0)
        for name in [name for name in sys.modules if name.split(".")[0] == "sent"]:
            del sys.modules[name]


# ---------------------------------------------------------------- what Ansible's module does


def test_what_is_finished_is_left_alone(tmp_path: Path) -> None:
    component = Component(tmp_path, "two")
    args = {"schemas": [component.schema()], "urls": {"nova": component.url}, "inputs": {},
            "dumps": "", "keep": False}  # fmt: skip
    assert schemas.migrate_due(args) == {"changed": False, "migrated": [], "dumps": {}}


def test_a_loaded_database_that_cannot_be_judged_is_not_the_newest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def find(each: list[Mapping[str, Any]], _urls: Mapping[str, str]) -> set[str]:
        asked.append(each[0].get("query"))
        if len(asked) > 1:
            raise Failure("it can't be read")
        return {"nova"}

    class Judged:
        def __init__(self, _dumps: object, is_newest: Any) -> None:
            self.is_newest = is_newest

        def bring_up(self, due: list[Mapping[str, Any]], urls: Any, _inputs: Any) -> list[Any]:
            return [{"failure": "", "is_loaded": self.is_newest(due[0], urls["nova"])}]

    monkeypatch.setattr(schemas, "find_unfinished", find)
    monkeypatch.setattr(schemas, "Migrations", Judged)
    schema = {"name": "nova", "query": "SELECT 1 FROM cell_mappings"}
    done = schemas.migrate_due(
        {"schemas": [schema], "urls": {"nova": "x"}, "inputs": {}, "dumps": "", "keep": False}
    )
    assert done["migrated"] == [{"failure": "", "is_loaded": False}]
    # Its commands haven't run, so they have written nothing.
    assert asked == [schema["query"], None]
