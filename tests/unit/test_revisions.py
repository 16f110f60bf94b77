"""Databases' revisions are compared with migrations that are parsed, as if Alembic had run them."""

from __future__ import annotations

import ast
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy
from alembic.config import Config
from alembic.script import ScriptDirectory

from discovery_xp.onhost.cloud import revisions, schemas
from discovery_xp.onhost.cloud.revisions import is_done, missing_revisions, revision_of
from discovery_xp.onhost.process import Failure

# As Neutron's: two branches, in folders by release, of which one waits for the other.
MIGRATIONS = {
    "one.py": "revision = 'one'\ndown_revision = None",
    "expand/two.py": "revision: str = 'two'\ndown_revision: str = 'one'\nbranch_labels = ('up',)",
    "expand/four.py": "revision = 'four'\ndown_revision = 'two'",
    "contract/three.py": "revision = 'three'\ndown_revision = 'one'\ndepends_on = ('two',)",
    "later/five.py": "revision = 'five'\ndown_revision = ('three',)\nmilestone = [str(5)]",
    "later/__init__.py": "",
}
RUN = "import os\nopen({!r}, 'a').close()\nraise SystemExit\n"


class Component:
    """A component's migrations, which leave a file if they run, and a database."""

    def __init__(
        self, folder: Path, *heads: str, migrations: Mapping[str, str] = MIGRATIONS
    ) -> None:
        self.trace, self.scripts = folder / "ran", folder / "scripts"
        for name, text in migrations.items():
            path = self.scripts / "versions" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n{RUN.format(str(self.trace))}")
        self.url = f"sqlite:///{folder}/nova.db"
        engine = sqlalchemy.create_engine(self.url)
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("CREATE TABLE alembic_version (version_num TEXT)"))
            for head in heads:
                statement = sqlalchemy.text("INSERT INTO alembic_version VALUES (:head)")
                connection.execute(statement, {"head": head})
        engine.dispose()

    def schema(self, **more: Any) -> dict[str, Any]:
        return {"name": "nova", "scripts": str(self.scripts), **more}

    def is_done(self, **more: Any) -> bool:
        return is_done(self.schema(**more), self.url, "/")


@pytest.mark.parametrize(
    ("heads", "missing"),
    [(("four", "five"), 0), (("four", "three"), 1), (("three",), 2), (("five",), 1),
     (("two",), 3), (("four",), 2), (("one",), 4)],
)  # fmt: skip
def test_a_database_is_done_that_lacks_no_migration(
    tmp_path: Path, heads: tuple[str, ...], missing: int
) -> None:
    component = Component(tmp_path, *heads)
    assert missing_revisions(str(component.scripts), heads) == missing
    assert component.is_done() == (missing == 0)
    assert not component.trace.exists()


@pytest.mark.parametrize("heads", [("four", "five"), ("three",), ("two",), ("one",)])
def test_it_is_what_alembic_says_of_migrations_that_it_imports(
    tmp_path: Path, heads: tuple[str, ...]
) -> None:
    component = Component(tmp_path)
    versions = component.scripts / "versions"
    for path in versions.rglob("*.py"):
        path.write_text(path.read_text().replace("raise SystemExit", ""))
    config = Config()
    config.set_main_option("script_location", str(component.scripts))
    config.set_main_option("path_separator", "newline")
    folders = {str(path.parent) for path in versions.rglob("*.py")}
    config.set_main_option("version_locations", "\n".join(sorted(folders)))
    alembic = ScriptDirectory.from_config(config)
    found = list(alembic.iterate_revisions("heads", heads, implicit_base=True))
    assert missing_revisions(str(component.scripts), heads) == len(found)
    assert component.trace.exists()


def test_one_without_revisions_is_not_done(tmp_path: Path) -> None:
    assert not Component(tmp_path).is_done()


@pytest.mark.parametrize(
    ("query", "expected"),
    [("SELECT 1 FROM alembic_version", True),
     ("SELECT 1 FROM alembic_version WHERE version_num = 'x'", False)],
)  # fmt: skip
def test_one_without_the_row_that_its_commands_write_is_not_done(
    tmp_path: Path, query: str, expected: bool
) -> None:
    assert Component(tmp_path, "four", "five").is_done(query=query) == expected


def test_many_are_judged_at_once(tmp_path: Path) -> None:
    component = Component(tmp_path, "four", "five")
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: component.is_done(), range(32))) == [True] * 32


@pytest.mark.parametrize(
    ("text", "reason"),
    [("revision = 'a' +", "its revision can't be read"),
     ("revision = name()\ndown_revision = None", "its revision can't be read"),
     ("revision: str", "its revision can't be read"),
     ("revision = 5", "names no revision"), ("", "names no revision"),
     ("revision = 'a'\ndown_revision = 'b'", "b")],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Revision b referenced")
def test_what_is_not_written_out_is_told(tmp_path: Path, text: str, reason: str) -> None:
    component = Component(tmp_path, "a", migrations={"x.py": text})
    with pytest.raises(Failure, match=reason):
        component.is_done()
    assert not component.trace.exists()


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="can't be read"):
        revision_of(str(tmp_path / "nowhere.py"))


def test_a_component_without_migrations_is_told(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="there are no migrations"):
        Component(tmp_path, "a", migrations={}).is_done()


def test_a_revision_that_nobody_knows_is_told(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="nobodys"):
        Component(tmp_path, "nobodys").is_done()


# ---------------------------------------------------------------- what Ansible's module does


def arguments(*components: Component, url: str = "", **more: Any) -> dict[str, Any]:
    return {
        "schemas": [component.schema(**more) for component in components],
        "urls": {"nova": url or components[0].url}, "cells": {}, "inputs": {}, "dumps": "",
        "keep": False,
    }  # fmt: skip


def test_what_is_done_is_left_alone(tmp_path: Path) -> None:
    args = arguments(Component(tmp_path, "four", "five"))
    assert schemas.migrate_due(args) == {"changed": False, "migrated": [], "dumps": {}}


def test_a_database_that_cannot_be_reached_is_told(tmp_path: Path) -> None:
    args = arguments(Component(tmp_path, "two"), url=f"sqlite:///{tmp_path}/nowhere/nova.db")
    with pytest.raises(Failure, match="database 'nova' can't be asked: unable to open"):
        schemas.migrate_due(args)


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("Redis at 10.0.0.4:6379 refuses the user or password: WRONGPASS invalid", "restart Redis"),
        ("(1045, \"Access denied for user 'nova'@'10.0.0.2' (using password: YES)\")", ""),
    ],
)
def test_a_refused_password_is_told_in_a_line_with_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, remedy: str
) -> None:
    def refuse(*_: object) -> bool:
        raise sqlalchemy.exc.OperationalError("SELECT 1", None, Exception(words))

    monkeypatch.setattr(schemas, "is_done", refuse)
    with pytest.raises(Failure) as caught:
        schemas.migrate_due(arguments(Component(tmp_path, "two")))
    said = str(caught.value)
    assert said.startswith(f"database 'nova' can't be asked: {words}")
    assert remedy in said and ("restart" in said) is bool(remedy)
    assert len(said.splitlines()) == 1


class Judged:
    """In place of Migrations: asks of each that is due whether it is the newest."""

    def __init__(self, _dumps: object, is_newest: Any) -> None:
        self.is_newest = is_newest

    def bring_up(self, due: list[Any], urls: Mapping[str, str], _inputs: object) -> list[Any]:
        return [{"failure": "", "is_loaded": self.is_newest(each, urls["nova"])} for each in due]


@pytest.mark.parametrize(
    ("heads", "is_loaded"), [(("four", "five"), True), (("five",), False)]
)  # fmt: skip
def test_a_loaded_database_is_judged_before_its_commands_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heads: tuple[str, ...], is_loaded: bool
) -> None:
    monkeypatch.setattr(schemas, "Migrations", Judged)
    query = "SELECT 1 FROM alembic_version WHERE version_num = 'x'"
    args = arguments(Component(tmp_path, *heads), query=query)
    assert schemas.migrate_due(args)["migrated"] == [{"failure": "", "is_loaded": is_loaded}]


def test_one_that_cannot_be_judged_is_not_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    component = Component(tmp_path)

    class Damaged(Judged):
        def bring_up(self, due: list[Any], urls: Mapping[str, str], _inputs: object) -> list[Any]:
            Component(tmp_path / "other", "nobodys")
            return super().bring_up(due, {"nova": f"sqlite:///{tmp_path}/other/nova.db"}, _inputs)

    monkeypatch.setattr(schemas, "Migrations", Damaged)
    (tmp_path / "other").mkdir()
    done = schemas.migrate_due(arguments(component))
    assert done["migrated"] == [{"failure": "", "is_loaded": False}]


def test_one_thread_at_a_time_parses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Debian 12's Python, trees that two threads build at once end in a SystemError."""
    component = Component(tmp_path)
    parsing: list[str] = []
    at_once: list[int] = []

    def slow_parse(text: str) -> ast.Module:
        parsing.append(text)
        time.sleep(0.002)  # another thread's turn
        at_once.append(len(parsing))
        parsing.pop()
        return ast.parse(text)

    slow_ast = SimpleNamespace(**{**vars(ast), "parse": slow_parse})  # pytest's own stays as it is
    monkeypatch.setattr(revisions, "ast", slow_ast)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: missing_revisions(str(component.scripts), ("one",)), range(4)))
    assert set(at_once) == {1}
