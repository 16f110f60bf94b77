"""What loads left in a cloud, taken out again: VMs, rows of those that are gone, cached tokens."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from .. import systemd
from ..process import Failure, changed
from ..wire.request import PREFIX
from .connection import connect, plainly, wait_for

# What Nova's own command says by its exit code: nothing was there to archive, or something was.
_ARCHIVED = (0, 1)


def reset(args: Mapping[str, Any]) -> dict[str, Any]:
    """Bring the cloud to where a deployment leaves it; VMs that no load made stay.

    `args` are the options of Ansible's module `cloud_reset`.  Nova keeps what is deleted, marked,
    until it is archived: without that each load begins with larger tables than the one before.
    """
    with plainly():
        changes = delete_vms(args)
    changes += archive(args["archive"], args["timeout_s"])
    systemd.restart([args["cache"]], args["timeout_s"])
    return changed([*changes, f"{args['cache']} started"])


def delete_vms(args: Mapping[str, Any]) -> list[str]:
    """Delete the VMs of loads, and wait until they are gone; returns what was changed."""
    nova = connect(args, args["region"]).compute

    def left() -> list[Any]:
        listed = nova.servers(details=False, all_projects=True, name=f"^{PREFIX}")
        return [server for server in listed if server.name.startswith(PREFIX)]

    servers = left()
    for server in servers:
        nova.delete_server(server.id, ignore_missing=True)
    remaining = list(servers)

    def poll() -> bool | None:
        remaining[:] = left()
        return None if remaining else True

    wait_for(poll, args["timeout_s"], lambda: f"{len(remaining)} VMs of loads can't be deleted")
    return [f"{len(servers)} VMs deleted"] if servers else []


def archive(command: Sequence[str], timeout_s: float) -> list[str]:
    """Have Nova archive and purge the rows of what is deleted; returns what was changed."""
    try:
        done = subprocess.run(
            command, user="nova", group="nova", extra_groups=[], cwd="/", timeout=timeout_s,
            capture_output=True, text=True, check=False, env=dict(os.environ),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Failure(f"archiving deleted rows takes more than {timeout_s} s") from None
    if done.returncode not in _ARCHIVED:
        words = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise Failure(f"deleted rows can't be archived: {' / '.join(words)}")
    return ["deleted rows archived"] if done.returncode else []
