"""Filters that write values into files of other programs: see discovery_xp/boundary/writers.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError

from discovery_xp.boundary import writers


def _plainly(write: Callable[..., str]) -> Callable[..., str]:
    """The writer's refusal as Ansible's error, so that the task fails with its words."""

    def filtered(*arguments: Any) -> str:
        try:
            return write(*arguments)
        except writers.Unwritable as error:
            raise AnsibleFilterError(f"it can't be written: {error}") from None

    return filtered


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """Name to function."""
        return {
            "to_ini": _plainly(writers.ini),
            "python_literal": _plainly(writers.python_literal),
            "redis_word": _plainly(writers.redis_word),
            "sql_text": _plainly(writers.sql_text),
            "systemd_word": _plainly(writers.systemd_word),
        }
