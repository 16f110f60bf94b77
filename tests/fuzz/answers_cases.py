"""Cases of what hosts answer: good answers, changed."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from tests.fuzz import mutate
from tests.fuzz.answers import TARGETS
from tests.fuzz.case import Case

# Entries of an archive that mean harm.
ENTRIES: tuple[Mapping[str, Any], ...] = (
    {"name": "/tmp/owned", "data": "x"}, {"name": "../../../../tmp/owned", "data": "x"},
    {"name": "a/../../owned", "data": "x"},
    {"name": "{outside}/owned", "data": "x"}, {"name": "link", "type": "2", "link": "/tmp"},
    {"name": "link/owned", "data": "x"},
    {"name": "hard", "type": "1", "link": "/etc/passwd"}, {"name": "hard", "type": "1",
    "link": "versions.txt"},
    {"name": "versions.txt", "type": "2", "link": "/etc/passwd"}, {"name": "fifo", "type": "6"},
    {"name": "dev", "type": "3"},
    {"name": "folder", "type": "5", "mode": 0}, {"name": "folder/x", "data": "x"}, {"name": "suid",
    "mode": 0o4755, "data": "x"},
    {"name": "", "data": "x"}, {"name": ".", "data": "x"}, {"name": "..", "data": "x"},
    {"name": "/", "data": "x"},
    {"name": "a" * 300, "data": "x"}, {"name": "/".join(["a"] * 2000), "data": "x"},
    {"name": "a\nb", "data": "x"},
    {"name": "\x1b[31m", "data": "x"}, {"name": "big", "size": 2**40}, {"name": "big",
    "size": 3 * 2**30}, {"name": "x", "type": "S"},
    {"name": "x", "type": "x", "data": "30 path=/tmp/owned\n"}, {"name": "x", "type": "g",
    "data": "9 size=1\n"},
    {"name": "rally.log", "type": "2", "link": "/etc/passwd"}, {"name": "results.json", "type": "1",
    "link": "/etc/passwd"},
    {"name": "versions.txt", "data": "twice"}, {"name": "versions.txt/x", "data": "x"},
    {"name": "L", "type": "L", "data": "/tmp/owned"},
)  # fmt: skip


def make(rng: random.Random, name: str) -> Case:
    """A case of one target, its good answer changed."""
    target = rng.choice(list(TARGETS))
    told = mutate.mutate_tree(TARGETS[target].good, rng)
    if target in ("backup", "raw files") and isinstance(told, dict):
        entries = told.get("entries")
        if isinstance(entries, list) and rng.random() < 0.8:
            entries += [dict(rng.choice(ENTRIES)) for _ in range(rng.choice([1, 1, 2, 3]))]
        if rng.random() < 0.03:
            told["zeros"] = 1500
        elif rng.random() < 0.1:
            from base64 import b64encode

            from tests.fuzz.answers.cloud import archive_of

            told = {"raw": b64encode(mutate.mutate_bytes(archive_of(told), rng)).decode()}
    if target == "load" and isinstance(told, list) and rng.random() < 0.05:
        told = told + [_flood(n) for n in range(5000)]
    return Case("answers", name, call=target, told=told)


def _flood(number: int) -> Mapping[str, Any]:
    return {
        "line": "vm",
        "name": f"x{number}",
        "region": "site1",
        "site": "site1",
        "requested_at": 1.0,
        "status": "ERROR",
    }
