"""Configuration files as values: sections and options merged, then written as INI."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Settings = Mapping[str, Mapping[str, Any]]


def to_ini(settings: Settings, *overrides: Settings | None) -> str:
    """`settings` with `overrides` on top, as oslo.config reads them.

    A list gives one line for each item; True and False are lower case; None leaves the
    option out; further lines of a text are indented, so that they stay a part of it.
    """
    merged: dict[str, dict[str, Any]] = {}
    for layer in (settings, *overrides):
        for section, options in (layer or {}).items():
            merged.setdefault(section, {}).update(options or {})
    blocks = []
    for section, options in merged.items():
        lines = [f"[{section}]"]
        for option, value in options.items():
            if value is None:
                continue
            for item in value if isinstance(value, list) else [value]:
                text = str(item).lower() if isinstance(item, bool) else str(item)
                lines.append("\n  ".join(f"{option} = {text}".splitlines()))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """Name to function."""
        return {"to_ini": to_ini}
