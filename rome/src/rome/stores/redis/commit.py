"""A commit in the form that the script in Redis takes: gathered by key, each with its writes.

The script then makes one call for each key, and builds nothing that can be built here: it
runs while all other clients wait.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rome.stores.base import Commit, HeldName


def by_key(commit: Commit, remember: int) -> list[Any]:
    """Return the request of commit.lua.  Keys are without the database's prefix.

    What belongs to keys is given as key and list by turns: new rows `[number, row, ...]`,
    changes `[[number, checks, defaults, deltas, width; 0: it goes], ...]`, entries of unique
    indexes `[bytes, number, ...]`, numbers for sets, `[score, member, ...]` and members for
    ordered indexes.
    """
    tables: dict[int, None] = {}
    inserts: dict[str, list[Any]] = {}
    changes: dict[str, list[Any]] = {}
    unique_add: dict[str, list[Any]] = {}
    unique_del: dict[str, list[Any]] = {}
    set_add: dict[bytes, list[Any]] = {}
    set_del: dict[bytes, list[Any]] = {}
    order_add: dict[str, list[Any]] = {}
    order_del: dict[str, list[Any]] = {}
    for write in commit.writes:
        table, number = write["t"], write["n"]
        tables[table] = None
        if write["op"] == "insert":
            inserts.setdefault(f"r{table}", []).extend((number, write["row"]))
        else:
            width = write["width"] if write["op"] == "update" else 0
            change = [number, write["checks"], write["defaults"], sorted(write["deltas"]), width]
            changes.setdefault(f"r{table}", []).append(change)
        for index, data in write["unique_add"]:
            unique_add.setdefault(f"u{table}.{index}", []).extend((data, number))
        for index, data in write["unique_del"]:
            unique_del.setdefault(f"u{table}.{index}", []).extend((data, number))
        for index, data in write["set_add"]:
            set_add.setdefault(b"i%d.%d:%b" % (table, index, data), []).append(number)
        for index, data in write["set_del"]:
            set_del.setdefault(b"i%d.%d:%b" % (table, index, data), []).append(number)
        for index, score, member in write["order_add"]:
            order_add.setdefault(f"o{table}.{index}", []).extend((score, member))
        for index, member in write["order_del"]:
            order_del.setdefault(f"o{table}.{index}", []).append(member)
    gathered: tuple[dict[Any, list[Any]], ...] = (
        *(inserts, changes),
        *(unique_add, unique_del),
        *(set_add, set_del),
        *(order_add, order_del),
    )
    return [
        *(commit.version, commit.token, remember, list(tables)),
        *([part for pair in lists.items() for part in pair] for lists in gathered),
        *(commit.exists, commit.childless, commit.reads, commit.used),
        *(commit.holder, by_hash(commit.held)),
    ]


def by_hash(held: Mapping[int, Sequence[HeldName]]) -> list[Any]:
    """Return what is held as holds.lua takes it: keys and names by turns."""
    return [part for table, names in held.items() for part in (f"h{table}", list(names))]
