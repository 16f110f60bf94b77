"""A component of the cloud on this host: laid down, and taken away again."""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Any

from . import systemd
from .probes.installation import Installation
from .process import Failure, changed, run

# What units were started with.
STARTED = "/var/lib/discovery-xp"


class Component:
    """One component on this host; `changed` says what was done.

    `args` are the options of Ansible's module `component`.
    """

    def __init__(self, args: Mapping[str, Any]) -> None:
        self.args = args
        self.changed: list[str] = []
        self.deadline = time.monotonic() + self.args["timeout_s"]
        self.started = systemd.StartNotes(STARTED)
        self.is_probed = False

    def run(self) -> None:
        """Create the user, write files that differ, run the units, wait for their ports.

        Raises Failure with the changes that were made until then.
        """
        try:
            self.ensure_user()
            for path, (owner, mode) in (self.args["directories"] or {}).items():
                self.ensure_directory(path, owner, mode)
            texts = self.ensure_files()
            if any(path.startswith("/etc/systemd/") for path in self.changed):
                systemd.reload()
            self.ensure_units(texts)
            if self.args["wait"]:
                for unit, port in (self.args["ports"] or {}).items():
                    self.wait_for_port(unit, port)
        except Failure as failure:
            failure.details["changes"] = self.changed
            raise

    def ensure_user(self) -> None:
        """Create the component's system user unless it is there."""
        user = self.args["user"]
        if not user:
            return
        try:
            pwd.getpwnam(user)
        except KeyError:
            run(
                ["useradd", "--system", "--user-group", "--no-log-init",
                 "--home-dir", f"/var/lib/{user}", "--shell", "/usr/sbin/nologin", user]
            )  # fmt: skip
            self.changed.append(f"user {user}")

    def ensure_directory(self, path: str, owner: str, mode: str) -> None:
        """Make a folder unless it is there, and set its rights."""
        if not os.path.isdir(path):
            os.makedirs(path)
            self.changed.append(path)
        self.ensure_rights(path, owner, mode)

    def ensure_rights(self, path: str, owner: str, mode: str) -> None:
        """Set owner, group and mode where they differ."""
        user, _, group = owner.partition(":")
        uid = pwd.getpwnam(user).pw_uid
        gid = grp.getgrnam(group).gr_gid if group else pwd.getpwnam(user).pw_gid
        status = os.stat(path)
        if (status.st_uid, status.st_gid) != (uid, gid):
            os.chown(path, uid, gid)
            self.changed.append(path)
        if status.st_mode & 0o7777 != int(mode, 8):
            os.chmod(path, int(mode, 8))
            self.changed.append(path)

    def ensure_files(self) -> dict[str, bytes]:
        """Write all files; returns those whose change restarts the units, by path."""
        texts = {path: text.encode() for path, text in (self.args["contents"] or {}).items()}
        for path, source in (self.args["copies"] or {}).items():
            with open(source, "rb") as file:
                texts[path] = file.read()
        initial = {
            path: text.encode()
            for path, text in (self.args["initial"] or {}).items()
            if not os.path.exists(path)
        }
        for path, text in {**initial, **texts}.items():
            owner, mode = (self.args["files"] or {}).get(path, ["root:root", "0644"])
            self.ensure_file(path, text, owner, mode)
        return texts

    def ensure_file(self, path: str, text: bytes, owner: str, mode: str) -> None:
        """Replace a file in one step where its text differs, and set its rights."""
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            with open(path, "rb") as file:
                is_same = file.read() == text
        except FileNotFoundError:
            is_same = False
        if not is_same:
            temporary = f"{path}.new"
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(text)
            self.ensure_rights(temporary, owner, mode)
            os.replace(temporary, path)
            self.changed = [entry for entry in self.changed if entry != temporary]
            self.changed.append(path)
        self.ensure_rights(path, owner, mode)

    def ensure_units(self, texts: Mapping[str, bytes]) -> None:
        """Start what is down, restart what was started with other files."""
        units = self.args["units"] or []
        digest = hashlib.sha256(
            repr([sorted(texts.items()), self.args["stamp"]]).encode()
        ).hexdigest()
        self.changed += [f"{unit} enabled" for unit in systemd.enable(units)]
        states = systemd.show(units)
        due = [
            unit
            for unit in units
            if self.started.of(unit) != digest or states[unit]["ActiveState"] != "active"
        ]
        if not due:
            return
        probes = self.probes_for(due)
        systemd.restart(due, self.deadline - time.monotonic())
        for unit in due:
            self.started.write(unit, digest)
            self.changed.append(f"{unit} started")
        self.is_probed = probes is not None and probes.note_started(due)

    def probes_for(self, due: Sequence[str]) -> Installation | None:
        """Put probes in before units start, where some are asked for: they start once then."""
        asked_for = self.args.get("probes")
        if not asked_for:
            return None
        probes = Installation({**asked_for, "contents": self.args["probe_code"] or {}})
        probes.precede(due)
        self.changed += probes.changes
        return probes

    def wait_for_port(self, unit: str, port: int) -> None:
        """Wait until a unit's port answers; one that died is started again by the next run."""
        try:
            systemd.wait_for_port(
                unit, port, self.args["http"], self.deadline, self.args["timeout_s"]
            )
        except systemd.UnitDied:
            self.started.forget(unit)
            raise


def lay_down(args: Mapping[str, Any]) -> dict[str, Any]:
    """Lay down a component and run its units; `probed` tells that the host's probes are in."""
    component = Component(args)
    component.run()
    return {**changed(component.changed), "probed": component.is_probed}


def remove(args: Mapping[str, Any]) -> dict[str, Any]:
    """Stop a component's units and remove its files and its user.

    Debian's packages stay: they may have been there before.  With `left_by`, a file of the
    component's, nothing is done on a host that hasn't got it.
    """
    left_by = args.get("left_by")
    if left_by and not os.path.lexists(left_by):
        return changed([])
    changes: list[str] = []
    units = [unit for unit in args["units"] if systemd.is_known(unit)]
    if units:
        systemd.disable(units)
        changes += [f"{unit} stopped" for unit in units]
    for path in [
        *args["paths"],
        *(f"{systemd.UNITS}/{unit}.service" for unit in args["units"]),
        *(f"{systemd.UNITS}/{unit}.service.d" for unit in args["units"]),
        *(systemd.StartNotes(STARTED).path(unit) for unit in args["units"]),
    ]:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.unlink(path)
        else:
            continue
        changes.append(path)
    if changes:
        systemd.reload()
    user = args["user"]
    if user and user in {entry.pw_name for entry in pwd.getpwall()}:
        run(["userdel", user])
        changes.append(f"user {user}")
    if os.path.isdir(STARTED) and not os.listdir(STARTED):
        os.rmdir(STARTED)
    return changed(changes)
