"""Records of a load: lines of JSON, each of a kind, that a load host writes as things happen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import checks
from ..checks import Check, Unfit, maybe
from . import lines
from .lines import LONGEST_LINE as LONGEST_LINE
from .lines import is_end as is_end

# All that one load host says.
MOST_BYTES = 256 * 2**20
_MOST_REGIONS = 1000

# What a VM of a load may become.
STATUSES = ("ACTIVE", "ERROR", "REFUSED", "TIMEOUT")
# Marks of a line of kind 'usage': the load's start and its end.
MARKS = ("", "start", "end")


def _mark(value: Any) -> str:
    if value not in MARKS:
        raise Unfit(f"{checks.shown(value)} is no mark")
    return str(value)


def _complaints(value: Any) -> dict[str, str]:
    regions = checks.mapping(value)
    if len(regions) > _MOST_REGIONS:
        raise Unfit("more regions than there can be")
    return {checks.name(name): checks.text(why) for name, why in regions.items()}


# By kind of line: what it must hold, and what it may.
REQUIRED: Mapping[str, Mapping[str, Check]] = {
    "vm": {"name": checks.name},
    "action": {
        "action": checks.name,
        "iteration": checks.whole,
        "region": checks.name,
        "site": checks.name,
        "started_at": checks.number,
        "duration_s": checks.number,
        "error": maybe(checks.text),
    },
    "iteration": {},
    "usage": {
        "at": checks.number, "cpu_s": checks.number, "polls": checks.whole, "mark": _mark,
    },
    "stage": {"stage": checks.name, "done": checks.whole, "total": checks.whole},
    "ready": {},
    "loaded": {"last_sent_at": maybe(checks.number), "time_is_up": checks.flag},
    "note": {"text": checks.text},
    "crash": {"error": checks.text},
    "done": {"lost": _complaints},
    "unit": lines.UNIT,
}  # fmt: skip
OPTIONAL: Mapping[str, Mapping[str, Check]] = {
    "vm": {
        "region": maybe(checks.name),
        "site": maybe(checks.name),
        "requested_at": maybe(checks.number),
        "accepted_at": maybe(checks.number),
        "server_id": maybe(checks.name),
        "status": maybe(lambda value: checks.one_of(value, STATUSES)),
        "seen_at": maybe(checks.number),
        "error": maybe(checks.text),
        "host": maybe(checks.name),
        "launched_at": maybe(checks.number),
        "deleted_at": maybe(checks.number),
    },
    "iteration": {"number": checks.whole},
    "ready": {"at": checks.number},
}


def encode(kind: str, **values: Any) -> str:
    """Return a line of a kind, with its end; raises ValueError unless such a line holds these."""
    return lines.encode(REQUIRED, OPTIONAL, kind, values)


def parse(line: object) -> tuple[str, dict[str, Any]]:
    """Return a line's kind and its values; raises Unfit unless they are what such a line holds."""
    return lines.parse(REQUIRED, OPTIONAL, line)
