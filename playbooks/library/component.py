#!/usr/bin/python
"""Lay down a component on a host and run its units: one task where Ansible has a dozen.

Over ssh a task costs far more than what it does; sixty hosts with a dozen tasks each
would take minutes.  This one creates the user, writes files that differ, and starts or
restarts units whose files changed since they were started.
"""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import socket
import subprocess
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: component
short_description: Files, user and systemd units of one component
options:
  name: {description: The component., required: true, type: str}
  user: {description: System user to create; its home is /var/lib/USER., type: str}
  directories: {description: "path -> [owner, mode]", type: dict}
  files: {description: "path -> [owner:group, mode]", type: dict}
  contents: {description: "path -> text; never logged", type: dict}
  copies: {description: "path -> existing file on the host", type: dict}
  initial: {description: "path -> text where there is no such file yet", type: dict}
  units: {description: Units to enable and run., type: list}
  ports: {description: "unit -> port that must answer before it counts as up", type: dict}
  http: {description: The ports must answer over HTTP., type: bool, default: false}
  stamp: {description: Anything whose change restarts the units., type: str}
  wait: {description: Wait for the ports., type: bool, default: true}
  timeout_s: {description: For units to start and ports to answer., type: int, default: 180}
"""

STARTED = "/var/lib/discovery-xp"
JOURNAL_LINES = 20


def until_death(journal: list[str], unit: str) -> list[str]:
    """Return a unit's lines up to its last end by a failure; all where there was none.

    What a service says as systemd starts it again would take the place of why it died.
    """
    ends = [
        place
        for place, line in enumerate(journal)
        if line.startswith(f"{unit}.service: Failed with result")
    ]
    return journal[: ends[-1] + 1] if ends else journal


def without_frames(journal: list[str]) -> list[str]:
    """Return the lines without the frames of Python's tracebacks, save the last of each.

    A service's workers die one after the other, some of them in the middle of an import; dozens
    of frames would take the place of the error that was the reason.
    """
    kept: list[str] = []
    frame: list[str] = []
    for line in journal:
        if line.startswith('  File "'):
            frame = [line]
        elif frame and line.startswith("    "):
            frame.append(line)
        else:
            kept += [*frame, line]
            frame = []
    return kept + frame


class Component:
    """One component on this host."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.args: dict[str, Any] = module.params
        self.changed: list[str] = []
        self.deadline = time.monotonic() + self.args["timeout_s"]

    def run(self) -> None:
        """All steps, in order."""
        self.ensure_user()
        for path, (owner, mode) in (self.args["directories"] or {}).items():
            self.ensure_directory(path, owner, mode)
        texts = {path: text.encode() for path, text in (self.args["contents"] or {}).items()}
        for path, source in (self.args["copies"] or {}).items():
            with open(source, "rb") as file:
                texts[path] = file.read()
        for path, text in texts.items():
            owner, mode = (self.args["files"] or {}).get(path, ["root:root", "0644"])
            self.ensure_file(path, text, owner, mode)
        for path, text in (self.args["initial"] or {}).items():
            if not os.path.exists(path):
                owner, mode = (self.args["files"] or {}).get(path, ["root:root", "0644"])
                self.ensure_file(path, text.encode(), owner, mode)
        if any(path.startswith("/etc/systemd/") for path in self.changed):
            self.systemctl("daemon-reload")
        self.ensure_units(texts)
        if self.args["wait"]:
            for unit, port in (self.args["ports"] or {}).items():
                self.wait_for_port(unit, port)

    def ensure_user(self) -> None:
        user = self.args["user"]
        if not user:
            return
        try:
            pwd.getpwnam(user)
        except KeyError:
            self.command(
                ["useradd", "--system", "--user-group", "--no-log-init",
                 "--home-dir", f"/var/lib/{user}", "--shell", "/usr/sbin/nologin", user]
            )  # fmt: skip
            self.changed.append(f"user {user}")

    def ensure_directory(self, path: str, owner: str, mode: str) -> None:
        if not os.path.isdir(path):
            os.makedirs(path)
            self.changed.append(path)
        self.ensure_rights(path, owner, mode)

    def ensure_rights(self, path: str, owner: str, mode: str) -> None:
        user, _, group = owner.partition(":")
        uid = pwd.getpwnam(user).pw_uid
        gid = grp.getgrnam(group).gr_gid if group else pwd.getpwnam(user).pw_gid
        found = os.stat(path)
        if (found.st_uid, found.st_gid) != (uid, gid):
            os.chown(path, uid, gid)
            self.changed.append(path)
        if found.st_mode & 0o7777 != int(mode, 8):
            os.chmod(path, int(mode, 8))
            self.changed.append(path)

    def ensure_file(self, path: str, text: bytes, owner: str, mode: str) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            with open(path, "rb") as file:
                same = file.read() == text
        except FileNotFoundError:
            same = False
        if not same:
            temporary = f"{path}.new"
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(text)
            self.ensure_rights(temporary, owner, mode)
            os.replace(temporary, path)
            self.changed = [entry for entry in self.changed if entry != temporary]
            self.changed.append(path)
        self.ensure_rights(path, owner, mode)

    def ensure_units(self, texts: dict[str, bytes]) -> None:
        """Start what is down, restart what was started with other files.

        What a unit was started with is noted after its start, so a run that is killed
        between writing and restarting is made good by the next one.
        """
        units = self.args["units"] or []
        digest = hashlib.sha256(repr([sorted(texts.items()), self.args["stamp"]]).encode())
        disabled = [unit for unit in units if not self.is_enabled(unit)]
        if disabled:
            self.systemctl("enable", "--quiet", *disabled)
            self.changed += [f"{unit} enabled" for unit in disabled]
        wrong = []
        for unit in units:
            stale = self.noted(unit) != digest.hexdigest()
            if stale or self.show(unit)["ActiveState"] != "active":
                wrong.append(unit)
        if not wrong:
            return
        self.systemctl("reset-failed", *wrong, may_fail=True)
        since = time.time()
        limit = max(1, int(self.deadline - time.monotonic()))
        try:
            done = subprocess.run(
                ["systemctl", "restart", *wrong], capture_output=True, text=True,
                timeout=limit, check=False,
            )  # fmt: skip
            failure = done.stderr.strip() if done.returncode else ""
        except subprocess.TimeoutExpired:
            failure = f"not started within {self.args['timeout_s']} s"
        for unit in wrong:
            if self.show(unit)["ActiveState"] != "active":
                self.fail(unit, failure.splitlines()[0] if failure else "did not stay up", since)
        for unit in wrong:
            self.note(unit, digest.hexdigest())
            self.changed.append(f"{unit} started")

    def wait_for_port(self, unit: str, port: int) -> None:
        since = time.time()
        restarts = self.show(unit)["NRestarts"]
        while True:
            try:
                if self.answers(port):
                    return
            except OSError:
                pass
            state = self.show(unit)
            if state["ActiveState"] not in ("active", "activating") or (
                state["NRestarts"] != restarts
            ):
                self.forget(unit)
                self.fail(unit, f"died before port {port} answered", since - 60)
            if time.monotonic() > self.deadline:
                self.fail(unit, f"port {port} didn't answer in {self.args['timeout_s']} s", since)
            time.sleep(0.2)

    def answers(self, port: int) -> bool:
        """True when the port takes connections and, where it should, speaks HTTP.

        gunicorn listens before the application is loaded: only an answer says that it is.
        """
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            if not self.args["http"]:
                return True
            connection.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
            return connection.recv(16).startswith(b"HTTP/")

    # ------------------------------------------------------------ systemd

    def show(self, unit: str) -> dict[str, str]:
        text = self.command(
            ["systemctl", "show", "--property=ActiveState,SubState,NRestarts,Result", unit]
        )
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def is_enabled(self, unit: str) -> bool:
        done = subprocess.run(["systemctl", "is-enabled", "--quiet", unit], check=False)
        return done.returncode == 0

    def systemctl(self, *arguments: str, may_fail: bool = False) -> None:
        done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True,
                              check=False)  # fmt: skip
        if done.returncode and not may_fail:
            self.module.fail_json(msg=f"systemctl {' '.join(arguments)}: {done.stderr.strip()}")

    def command(self, arguments: list[str]) -> str:
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        if done.returncode:
            self.module.fail_json(msg=f"{' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def fail(self, unit: str, message: str, since: float) -> None:
        time.sleep(1)  # what it says as it dies is still on its way
        # With --since, --lines gives the first ones.
        journal = subprocess.run(
            ["journalctl", "--no-pager", "--output=cat", f"--unit={unit}",
             f"--since=@{int(since) - 1}"],
            capture_output=True, text=True, check=False,
        ).stdout.splitlines()  # fmt: skip
        if message.startswith("died"):
            journal = until_death(journal, unit)
        journal = without_frames(journal)[-JOURNAL_LINES:]
        self.module.fail_json(
            msg=f"{unit}: {message}", journal=journal, unit=unit, changes=self.changed
        )

    # ------------------------------------------------------------ what units were started with

    def noted(self, unit: str) -> str:
        try:
            with open(f"{STARTED}/{unit}", encoding="ascii") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def note(self, unit: str, digest: str) -> None:
        os.makedirs(STARTED, exist_ok=True)
        with open(f"{STARTED}/{unit}", "w", encoding="ascii") as file:
            file.write(digest)

    def forget(self, unit: str) -> None:
        if os.path.exists(f"{STARTED}/{unit}"):
            os.unlink(f"{STARTED}/{unit}")


def main() -> None:
    """What Ansible calls."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "user": {"type": "str"},
            "directories": {"type": "dict"},
            "files": {"type": "dict"},
            "contents": {"type": "dict", "no_log": True},
            "copies": {"type": "dict"},
            "initial": {"type": "dict"},
            "units": {"type": "list", "elements": "str"},
            "ports": {"type": "dict"},
            "http": {"type": "bool", "default": False},
            "stamp": {"type": "str", "default": ""},
            "wait": {"type": "bool", "default": True},
            "timeout_s": {"type": "int", "default": 180},
        }
    )
    component = Component(module)
    component.run()
    module.exit_json(
        changed=bool(component.changed), changes=list(dict.fromkeys(component.changed))
    )


if __name__ == "__main__":
    main()
