"""What Nova called the computes of lent hosts: a machine that is put in another's place goes by it.

They are kept by host in a file of the testbed's folder.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from discovery_xp.boundary import answers
from discovery_xp.errors import Refused
from discovery_xp.files import read_json
from discovery_xp.testbeds.hosts import Hosts
from discovery_xp.testbeds.remote import run_each
from discovery_xp.testbeds.testbed import Testbed, write_atomically

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def identities_file(testbed: Testbed) -> Path:
    """Return where they are kept."""
    return testbed.folder / "compute_ids.json"


def require_readable(testbed: Testbed) -> None:
    """Raise Refused for a file of identities that is damaged."""
    if identities_file(testbed).exists():
        _read(testbed)


def load(testbed: Testbed) -> dict[str, str]:
    """Return the identities by host; none where they can't be read: no cloud's end needs them."""
    try:
        return _read(testbed)
    except (FileNotFoundError, Refused):
        return {}


def collect(hosts: Hosts, testbed: Testbed) -> None:
    """Ask lent hosts for the identities of computes that aren't kept yet."""
    plan, identities = hosts.plan, load(testbed)
    names = [name for own in plan.require_cloud().computes.values() for name in own]
    if plan.platform is None or identities.keys() >= set(names):
        return
    outputs = run_each(hosts, dict.fromkeys(names, "cat /var/lib/nova/compute_id"))
    words = {name: output.stdout.strip() for name, output in outputs.items()}
    identities |= {name: word for name, word in words.items() if is_uuid(word)}
    write_atomically(identities_file(testbed), json.dumps(identities, indent=1) + "\n")


def is_uuid(value: object) -> bool:
    """Return whether a value is the text of a UUID, as Nova writes it."""
    return isinstance(value, str) and _UUID.fullmatch(value) is not None


def _read(testbed: Testbed) -> dict[str, str]:
    """Return the identities; anything but a UUID, which a host may have made, is left out."""
    file = identities_file(testbed)
    try:
        written = answers.mapping(read_json(file))
    except ValueError as error:
        raise Refused(f"{file} is damaged: {error}", "remove it, and deploy again") from None
    return {host: identity for host, identity in written.items() if is_uuid(identity)}
