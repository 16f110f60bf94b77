"""Databases at their newest schemas, kept as SQL, so that a cloud needn't migrate empty ones.

A cloud on emulated hosts that are new migrates for real; what the migrations made of each of
MariaDB's databases is kept in the cache, and loaded by later clouds on any hosts.  The module
`schemas` of the playbooks makes and loads the dumps (`onhost.cloud.schema_dumps`): one that
doesn't have the newest revisions afterwards, or is of another version of MariaDB, is dropped,
and the migrations run.

Nothing that a stranger chose gets into a dump: none is kept where the topology sets options of
services, nor of hosts that somebody lends, nor of hosts on which a playbook ran before.  A dump
is of a known database and of bounded size, and what is kept of a host's word is checked again
whenever it is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from discovery_xp import files, software
from discovery_xp.errors import Refused
from discovery_xp.onhost.cloud import migrations, schema_dumps
from discovery_xp.places import cache, checkout
from discovery_xp.planning import databases
from discovery_xp.testbeds.hosts import Hosts

# What makes dumps, besides OpenStack's packages: another one of these makes others.
_MADE_BY = (
    "playbooks/roles/schemas/defaults/main.yml",
    "playbooks/roles/mariadb/defaults/main.yml",
)
MOST_BYTES = 4 * 2**20
# No deployment takes as long: what was last loaded before that is in nobody's hands.
UNUSED_S = 86400.0
_SERVER = re.compile(r"[0-9A-Za-z.+~:-]{1,100}")


@dataclass(frozen=True)
class KeptSchemas:
    """What the playbooks are told: the file of the dumps, '' for none, and whether to make any."""

    file: str = ""
    keep: bool = False


def kept_for(hosts: Hosts, is_new: bool) -> KeptSchemas:
    """Return what a deployment is told; `is_new` says that no playbook ran on its hosts.

    Hosts of which dumps are to be kept are given those that there are, too; those without MariaDB
    none.
    """
    layout = hosts.plan.require_cloud()
    needed = layout.held_by(databases.MYSQL)
    if not needed:
        return KeptSchemas()
    dumps = read()
    # Nobody lends them, and this machine made what is on them.
    is_ours = hosts.plan.platform is None and hosts.is_prepared and is_new
    # Galera's nodes number rows by turns, and cells' databases are on other hosts: dumps are made
    # of the one MariaDB on the master, for all of them.
    is_ours = is_ours and not (layout.options.config or layout.galera or layout.cells)
    if dumps:
        _mark_used(file())
    return KeptSchemas(
        file=str(file()) if dumps else "", keep=is_ours and not dumps.keys() >= set(needed)
    )


def file() -> Path:
    """Return where the dumps of today's packages and playbooks are, or will be."""
    digest = hashlib.sha256(software.OPENSTACK.lock_digest.encode())
    sources = [Path(module.__file__ or "") for module in (schema_dumps, migrations)]
    for path in (*sources, *(checkout() / name for name in _MADE_BY)):
        digest.update(path.read_bytes())
    return cache() / "schemas" / f"{digest.hexdigest()[:12]}.json"


def read() -> dict[str, dict[str, str]]:
    """Return the kept dumps by database; those that aren't whole are left out.

    A file that is damaged is removed, so that others are made.
    """
    path = file()
    try:
        files.require_ours(path, "choose another place with DISCOVERY_XP_CACHE")
        if path.stat().st_size > MOST_BYTES:
            raise ValueError("it is too large")
        content = files.read_json(path)
    except (FileNotFoundError, PermissionError, Refused):
        return {}
    except (OSError, ValueError):
        content = {}
    dumps = _valid(content) if isinstance(content, Mapping) else {}
    whole = {
        name: dump for name, dump in dumps.items() if content[name].get("sha256") == _digest(dump)
    }
    if not whole:
        _remove(path)
    return whole


def keep(made: object) -> None:
    """Add dumps to those that are kept: what the module `schemas` returned of a cloud.

    Whatever isn't a dump of a known database is left out; that nothing can be written is no
    reason for a deployment to fail.
    """
    new = _valid(made) if isinstance(made, Mapping) else {}
    if not new:
        return
    path = file()
    text = json.dumps(
        {
            name: {**dump, "sha256": _digest(dump)}
            for name, dump in sorted({**read(), **new}.items())
        },
        indent=1,
    )
    if len(text) >= MOST_BYTES:
        return
    try:
        files.make_folder(path.parent)
        files.write_atomically(path, text + "\n")
    except OSError:
        return
    for other in path.parent.glob("*.json"):
        if other != path and _is_unused(other):
            _remove(other)


def _mark_used(path: Path) -> None:
    with contextlib.suppress(OSError):  # a read-only disk: nothing is removed there either
        os.utime(path)


def _is_unused(path: Path) -> bool:
    """Tell whether dumps of other packages or playbooks were last loaded long ago.

    Another version of the toolkit may be at work on this machine: its deployment has the file.
    """
    try:
        return time.time() - path.stat().st_mtime > UNUSED_S
    except OSError:
        return False


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # a read-only disk: it is left out all the same
        return


def _valid(content: Mapping[object, object]) -> dict[str, dict[str, str]]:
    """Return the entries that have a dump's form."""
    dumps = {}
    for name in databases.OWNERS:
        dump = content.get(name)
        if not isinstance(dump, Mapping):
            continue
        server, sql = dump.get("server"), dump.get("sql")
        if (
            isinstance(server, str) and _SERVER.fullmatch(server)
            and isinstance(sql, str) and 0 < len(sql) < MOST_BYTES and _unpacks(sql)
        ):  # fmt: skip
            dumps[name] = {"server": server, "sql": sql}
    return dumps


def _unpacks(packed: str) -> bool:
    """Say whether a text is a packed dump, whole and of bounded size."""
    try:
        schema_dumps.unpack(packed)
    except ValueError:
        return False
    return True


def _digest(dump: Mapping[str, str]) -> str:
    return hashlib.sha256(f"{dump['server']}\n{dump['sql']}".encode()).hexdigest()
