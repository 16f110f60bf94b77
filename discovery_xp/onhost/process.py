"""Commands on this host, and what a step on it fails with."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any


class Failure(Exception):
    """What a step on this host fails with: a message, and details for whoever asked for it."""

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.details = details


def run(words: Sequence[str], stdin: str | None = None, timeout_s: float = 120) -> str:
    """Return a command's output; raises Failure with its words."""
    try:
        done = subprocess.run(
            words, input=stdin, capture_output=True, text=True, check=False, timeout=timeout_s
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(f"{words[0]}: {error}") from None
    if done.returncode:
        reason = (done.stderr or done.stdout).strip()
        raise Failure(f"{' '.join(words[:3])}: {reason[-500:]}")
    return done.stdout


def succeeds(words: Sequence[str]) -> bool:
    """Tell whether a command ends well; what it prints goes nowhere."""
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def read(path: str) -> str:
    """Return a file's text."""
    with open(path, encoding="utf-8") as file:
        return file.read()


def replace(path: str, text: str) -> None:
    """Write a file in one step: who reads it sees the old text or the new one."""
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(f"{path}.new", path)


def answer(module: Any, step: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
    """Do a step with the parameters of an AnsibleModule, and end as Ansible wants it.

    What the step returns is the task's result; its Failure is the task's.
    """
    try:
        result = {"changed": False, **step(module.params)}
    except Failure as failure:
        module.fail_json(msg=str(failure), **failure.details)
    else:
        module.exit_json(**result)


def changed(changes: Sequence[str]) -> dict[str, Any]:
    """Return the result of a step that made these changes, each named once."""
    return {"changed": bool(changes), "changes": list(dict.fromkeys(changes))}
