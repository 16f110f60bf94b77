"""The lock that keeps apart real tests of two processes where they would see each other."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.real import machine


def item(module: str, alone: bool = False) -> Any:
    """What the lock looks at of a test."""
    return SimpleNamespace(path=Path(module), get_closest_marker=lambda name: alone or None)


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(machine, "LOCK", tmp_path / "lock")
    monkeypatch.setenv(machine.HOME_VARIABLE, str(tmp_path / "home"))
    return tmp_path / "lock"


@pytest.fixture
def turn(lock: Path) -> Iterator[machine.Turn]:
    made = machine.Turn()
    yield made
    made.end()


def is_free(lock: Path, how: int) -> bool:
    """Say whether another process would get the lock now."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_modules_share_the_machine_unless_they_must_be_alone(
    turn: machine.Turn, lock: Path
) -> None:
    turn.wait_for(item("test_a.py"))
    assert not turn.is_alone
    assert (is_free(lock, fcntl.LOCK_SH), is_free(lock, fcntl.LOCK_EX)) == (True, False)
    turn.wait_for(item("test_b.py", alone=True))
    assert turn.is_alone
    assert not is_free(lock, fcntl.LOCK_SH)
    turn.wait_for(item("test_c.py"))
    assert not turn.is_alone
    assert is_free(lock, fcntl.LOCK_SH)


def test_a_module_keeps_it_from_its_first_test_to_its_last(turn: machine.Turn, lock: Path) -> None:
    turn.wait_for(item("test_a.py", alone=True))
    turn.wait_for(item("test_a.py"))
    assert not is_free(lock, fcntl.LOCK_SH)
    turn.end()
    assert is_free(lock, fcntl.LOCK_EX)


def test_one_process_by_itself_may_destroy_everything(
    turn: machine.Turn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(machine.HOME_VARIABLE)
    turn.wait_for(item("test_a.py"))
    assert turn.is_alone


def test_lenders_go_before_what_they_stand_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, provider in (("a", "local"), ("b", "g5k"), ("c", "local"), ("d", "static")):
        (tmp_path / "testbeds" / name).mkdir(parents=True)
        state = f'{{"plan": {{\n "provider": "{provider}"}}}}'
        (tmp_path / "testbeds" / name / "state.json").write_text(state)
    (tmp_path / "testbeds/e").mkdir()
    ended: list[tuple[str, ...]] = []
    monkeypatch.setattr(machine, "_destroy", lambda home, *which: ended.append(which))
    assert machine.destroy_own(tmp_path) == ["b", "d", "e", "a", "c"]
    assert ended == [("--testbed", name) for name in "bdeac"]
    assert machine.destroy_own(tmp_path / "none") == []
