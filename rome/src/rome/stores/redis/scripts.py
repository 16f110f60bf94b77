"""Scripts that run in Redis: their texts, and requests in the form that they take."""

from __future__ import annotations

import functools
import hashlib
import re
from importlib.resources import files
from typing import Any

import msgpack

# Scripts that a node runs only while it is sure to be the master.
FENCED = ("commit", "confirm", "schema")
_FENCE = "if ARGV[2] and ARGV[2] ~= '' and not_the_master_for_sure() then return {'lease'} end"
# A read that gives leases of tables, beside `read`, which has no function for that.
READ_LEASED = "read, leased"
# What stands at the head of several scripts.
_PARTS = {
    "lease.lua": (*FENCED, READ_LEASED),
    "leases.lua": ("commit", "schema", READ_LEASED),
    "give.lua": (READ_LEASED,),
    "slice.lua": ("check", "drop", "index", "ordered"),
    "holds.lua": ("commit", "release"),
}


@functools.cache
def script(name: str, frees: bool) -> tuple[str, str]:
    """Return a script's text and its digest.

    frees: whether it frees memory, and so has to run when there is none left.
    """
    folder = files("rome.stores.redis")
    text = (folder / f"{name.partition(',')[0]}.lua").read_text()
    flags, _, rest = text.partition("\n")
    heads = [(folder / part).read_text() for part, users in _PARTS.items() if name in users]
    if name in FENCED:
        heads.insert(1, _FENCE)
    if name == "read":
        heads.append("local give_leases")
    if heads:
        text = "\n".join([flags, *heads, rest])
    if name == "scan":
        common = re.findall(
            r"^-- <shared with scan.lua>\n(.*?)^-- </shared>$",
            (folder / "read.lua").read_text(),
            re.M | re.S,
        )
        head = "local P = KEYS[1]\nlocal call, byte, sub = redis.call, string.byte, string.sub\n"
        text = "\n".join([flags, head, *common, rest])
    if frees:
        # Redis runs it even when its memory is full.
        text = text.replace("#!lua\n", "#!lua flags=allow-oom\n", 1)
    return text, hashlib.sha1(text.encode()).hexdigest()


def pack(request: Any) -> bytes:
    """Return a request as scripts unpack it."""
    # The scripts' msgpack knows no type of its own for bytes.
    data: bytes = msgpack.packb(request, use_bin_type=False)
    return data
