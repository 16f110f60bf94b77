"""What loads left in a cloud, taken out again, by Ansible's module on the master."""

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from discovery_xp.onhost import systemd
from discovery_xp.onhost.cloud import reset
from discovery_xp.onhost.process import Failure
from discovery_xp.onhost.wire.request import PREFIX

ARGS = {
    "auth_url": "http://a", "password": "p", "region": "site1",
    "archive": ["nova-manage", "db", "archive_deleted_rows"], "cache": "memcached", "timeout_s": 1,
}  # fmt: skip


class Nova:
    """VMs by name; one goes so many lists after it was deleted."""

    def __init__(self, *names: str, stays: int = 1) -> None:
        self.left = dict.fromkeys(names, stays)
        self.deleted: set[str] = set()

    def servers(self, details: bool, all_projects: bool, name: str) -> Iterator[Any]:
        assert (details, all_projects) == (False, True)
        for deleted in [each for each in self.deleted if each in self.left]:
            self.left[deleted] -= 1
            if self.left[deleted] <= 0:
                del self.left[deleted]
        yield from (SimpleNamespace(name=each, id=each) for each in list(self.left))

    def delete_server(self, server_id: str, ignore_missing: bool) -> None:
        assert ignore_missing
        self.deleted.add(server_id)


def wait_for(poll: Callable[[], Any], limit_s: float, complaint: Callable[[], str]) -> Any:
    """As the toolkit's own, which needs OpenStack's SDK."""
    for _ in range(5):
        if (found := poll()) is not None:
            return found
    raise Failure(f"{complaint()} within {limit_s} s")


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A master whose Nova, command and cache are the test's."""
    own = SimpleNamespace(nova=Nova(), code=0, stderr="", commands=[], restarted=[])

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        own.commands.append((command, options["user"]))
        if own.code is None:
            raise subprocess.TimeoutExpired(command, options["timeout"])
        return subprocess.CompletedProcess(command, own.code, "", own.stderr)

    monkeypatch.setattr(reset, "plainly", contextlib.nullcontext)
    monkeypatch.setattr(reset, "wait_for", wait_for)
    monkeypatch.setattr(reset, "connect", lambda *_: SimpleNamespace(compute=own.nova))
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(systemd, "restart", lambda units, _limit: own.restarted.extend(units))
    return own


def test_a_cloud_without_leftovers_only_loses_its_cached_tokens(host: SimpleNamespace) -> None:
    assert reset.reset(ARGS)["changes"] == ["memcached started"]
    assert host.commands == [(ARGS["archive"], "nova")]
    assert host.restarted == ["memcached"]


def test_vms_of_loads_go_and_what_is_kept_of_them_and_others_stay(host: SimpleNamespace) -> None:
    host.nova = Nova(f"{PREFIX}site1-00001", f"{PREFIX}site2-00001", "mine", "my-load", stays=3)
    host.code = 1
    assert reset.reset(ARGS)["changes"] == [
        "2 VMs deleted", "deleted rows archived", "memcached started",
    ]  # fmt: skip
    assert sorted(host.nova.left) == ["mine", "my-load"]


def test_what_does_not_go_is_said(host: SimpleNamespace) -> None:
    host.nova = Nova(f"{PREFIX}site1-00001", stays=99)
    with pytest.raises(Failure, match=r"^1 VMs of loads can't be deleted"):
        reset.reset(ARGS)
    assert host.commands == host.restarted == []


@pytest.mark.parametrize(
    ("code", "stderr", "words"),
    [
        (2, "a\nb\nc\nno such cell", "deleted rows can't be archived: b / c / no such cell"),
        (None, "", "archiving deleted rows takes more than 1 s"),
    ],
)
def test_rows_that_cannot_be_archived_are_said(
    host: SimpleNamespace, code: int | None, stderr: str, words: str
) -> None:
    host.code, host.stderr = code, stderr
    with pytest.raises(Failure, match=f"^{words}$"):
        reset.reset(ARGS)
    assert host.restarted == []
