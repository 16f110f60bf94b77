"""The lines that a load host writes, read strictly: what each holds, and of which type.

`scenarios/rally_plugins` writes them; a host may add any others, which raise `answers.Unfit`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from discovery_xp import store
from discovery_xp.boundary import answers
from discovery_xp.boundary.answers import Unfit

# A line holds at most an error's text; longer ones aren't read to their end.
LONGEST_LINE = 2**16
# All that one load host says.
MOST_BYTES = 256 * 2**20
_NAME = 300
_LOST = 1000

Check = Callable[[Any], Any]


def _name(value: Any) -> str:
    return answers.text(value, _NAME)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Unfit(f"{answers.shown(value)} is neither true nor false")
    return value


def _mark(value: Any) -> str:
    if value not in ("", "start", "end"):
        raise Unfit(f"{answers.shown(value)} is no mark")
    return str(value)


def _lost(value: Any) -> dict[str, str]:
    regions = answers.mapping(value)
    if len(regions) > _LOST:
        raise Unfit("more regions than there can be")
    return {_name(name): answers.text(why) for name, why in regions.items()}


def _maybe(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


# By kind of line: what it must hold, and what it may.
_REQUIRED: Mapping[str, Mapping[str, Check]] = {
    "vm": {"name": _name},
    "action": {
        "action": _name,
        "iteration": answers.whole,
        "region": _name,
        "site": _name,
        "started_at": answers.number,
        "duration_s": answers.number,
        "error": _maybe(answers.text),
    },
    "iteration": {},
    "usage": {
        "at": answers.number, "cpu_s": answers.number, "polls": answers.whole, "mark": _mark,
    },
    "stage": {"stage": _name, "done": answers.whole, "total": answers.whole},
    "ready": {},
    "loaded": {"last_sent_at": _maybe(answers.number), "time_is_up": _flag},
    "note": {"text": answers.text},
    "crash": {"error": answers.text},
    "done": {"lost": _lost},
    "unit": {"words": answers.text},
}  # fmt: skip
_OPTIONAL: Mapping[str, Mapping[str, Check]] = {
    "vm": {
        "region": _maybe(_name),
        "site": _maybe(_name),
        "requested_at": _maybe(answers.number),
        "accepted_at": _maybe(answers.number),
        "server_id": _maybe(_name),
        "status": _maybe(lambda value: answers.one_of(value, store.values_of("vms", "status"))),
        "seen_at": _maybe(answers.number),
        "error": _maybe(answers.text),
        "host": _maybe(_name),
        "launched_at": _maybe(answers.number),
        "deleted_at": _maybe(answers.number),
    },
}


def read(line: object) -> tuple[str, dict[str, Any]]:
    """Return a line's kind and its values; raises Unfit unless they are what such a line holds."""
    values = answers.mapping(line)
    kind = values.get("line")
    if not isinstance(kind, str) or kind not in _REQUIRED:
        raise Unfit(f"{answers.shown(kind)} is no kind of line")
    required, optional = _REQUIRED[kind], _OPTIONAL.get(kind, {})
    missing = sorted(required.keys() - values.keys())
    if missing:
        raise Unfit(f"a line of kind '{kind}' lacks '{missing[0]}'")
    found = {}
    for key, check in (*required.items(), *optional.items()):
        if key in values:
            found[key] = check(values[key])
    return kind, found
