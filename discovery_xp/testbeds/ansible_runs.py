"""Ansible inside this process: where it keeps files, what it templates, how much it believes.

Every use of Ansible, through EnOSlib or not, is inside a `workspace`, and every value that
it is given comes through `literal`.  It is imported before EnOSlib, so that what Ansible
makes when it is loaded goes at once.
"""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ansible.constants as settings
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.plugins.connection import ssh
from ansible.utils.unsafe_proxy import wrap_var

# What a command may print on a host; a component's backup is the most that is asked for.
MAX_ANSWER_BYTES = 64 * 2**20
# What a worker may take besides what it was forked with: a few times the above.
WORKER_BYTES = 2**30

# Ansible makes a folder when it is loaded, and removes it when Python ends: not when it is
# killed, nor when another program takes its place.  Each workspace has one of its own.
shutil.rmtree(settings.DEFAULT_LOCAL_TMP, ignore_errors=True)


def literal(value: Any) -> Any:
    """Mark all texts in a value, so that Ansible never takes them for templates.

    What is made of them by templates, filters and modules is marked by Ansible itself.
    """
    return wrap_var(value)


def mark(host: Any) -> None:
    """Mark all that says how one of EnOSlib's hosts is reached, and its variables."""
    for name in ("address", "user", "keyfile", "extra"):
        setattr(host, name, literal(getattr(host, name)))


_worker_bytes: list[int] = []


def _limit_worker() -> None:
    """Run in each forked worker: what a host sends can't fill the machine's memory.

    Ansible ends its workers by SIGTERM: they do without what this process does about that.
    """
    if not _worker_bytes:
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    pages = int(Path("/proc/self/statm").read_text().split()[5])
    limit = pages * resource.getpagesize() + _worker_bytes[-1]
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


os.register_at_fork(after_in_child=_limit_worker)


@contextlib.contextmanager
def workspace(folder: Path) -> Iterator[Path]:
    """Run Ansible in a directory of its own below `folder`, which goes with all that is in it.

    It is the working directory meanwhile: EnOSlib writes there.  What a killed run leaves
    goes with `folder`.  A host's answer that is too large fails the task on that host.
    """
    before, local_tmp = os.getcwd(), settings.DEFAULT_LOCAL_TMP  # noqa: PTH109 (os.chdir's)
    with tempfile.TemporaryDirectory(prefix="work-", dir=folder) as workspace:
        place = Path(workspace)
        (place / "ansible").mkdir()
        os.chdir(place)
        settings.DEFAULT_LOCAL_TMP = str(place / "ansible")
        _worker_bytes.append(WORKER_BYTES)
        try:
            with _checked_answers():
                yield place
        finally:
            _worker_bytes.pop()
            settings.DEFAULT_LOCAL_TMP = local_tmp
            os.chdir(before)


@contextlib.contextmanager
def _checked_answers() -> Iterator[None]:
    """Have Ansible fail a task whose host printed more than it may, or no result."""
    processes, parse = ssh.subprocess, ActionBase._parse_returned_data
    ssh.subprocess = _Subprocess()
    ActionBase._parse_returned_data = checked(parse)
    try:
        yield
    finally:
        ssh.subprocess = processes
        ActionBase._parse_returned_data = parse


class _Subprocess:
    """The module `subprocess` for Ansible's ssh, whose processes print so much at most."""

    def __getattr__(self, name: str) -> Any:
        return BoundedProcess if name == "Popen" else getattr(subprocess, name)


class BoundedProcess(subprocess.Popen[bytes]):
    """A process that is killed, and raises AnsibleError, once it printed MAX_ANSWER_BYTES."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.left = MAX_ANSWER_BYTES
        for name in ("stdout", "stderr"):
            pipe = getattr(self, name)
            if pipe is not None:
                setattr(self, name, _Pipe(self, pipe))


class _Pipe:
    """What a process prints."""

    def __init__(self, process: BoundedProcess, pipe: Any) -> None:
        self.process = process
        self.pipe = pipe

    def __getattr__(self, name: str) -> Any:
        return getattr(self.pipe, name)

    def read(self, *size: int) -> bytes | None:
        """Read what there is, or so many bytes."""
        data: bytes | None = self.pipe.read(*size)
        self.process.left -= len(data or b"")
        if self.process.left < 0:
            self.process.kill()
            raise AnsibleError(f"the host sent more than {MAX_ANSWER_BYTES >> 20} MiB")
        return data


# What Ansible itself reads in a module's result, and of which type it takes that to be.
_TYPES: Mapping[str, type] = {
    "changed": bool, "failed": bool, "rc": int, "msg": str, "stdout": str, "stderr": str,
    "stdout_lines": list, "stderr_lines": list, "exception": str, "warnings": list,
    "results": list, "invocation": dict,
}  # fmt: skip
# Modules of ours have none of these.  Facts become variables of their host: some of those say
# with which program and options it is reached, on the control machine.
_UNWANTED = ("ansible_facts", "ansible_stats", "deprecations", "diff", "skipped", "unreachable")
_DEEPEST = 30


def checked(parse: Callable[..., Any]) -> Callable[..., Any]:
    """`parse`, which reads a module's result, that gives a failure for what is none."""

    @functools.wraps(parse)
    def strict(*arguments: Any, **options: Any) -> dict[str, Any]:
        try:
            return _result(parse(*arguments, **options))
        except (AttributeError, TypeError, RecursionError):
            return _no_result("it isn't one")

    return strict


def _result(data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        return _no_result("it isn't a mapping")
    if _is_deep(data):
        return _no_result("it is nested too deeply")
    for key in _UNWANTED:
        data.pop(key, None)
    for key, kind in _TYPES.items():
        if key in data and not isinstance(data[key], kind):
            return _no_result(f"its '{key}' isn't of type {kind.__name__}")
    if not all(isinstance(item, dict) for item in data.get("results", [])):
        return _no_result("its 'results' are none")
    data["warnings"] = [str(each)[:500] for each in data.get("warnings", [])[:20]]
    return data


def _no_result(why: str) -> dict[str, Any]:
    return {"failed": True, "msg": f"the host sent something in the place of a result: {why}"}


def _is_deep(value: Any) -> bool:
    """True when mappings and lists lie in each other more than so often."""
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            inside
            for outside in level
            for inside in (outside.values() if isinstance(outside, dict) else outside)
            if isinstance(inside, dict | list)
        ]
        if not level:
            return False
    return True
