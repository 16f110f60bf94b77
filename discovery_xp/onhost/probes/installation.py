"""The probes on a host: laid down, started, and taken away.

What runs inside services comes in by a drop-in of their units; the rest is read from the
kernel and from RabbitMQ.
"""

from __future__ import annotations

import compileall
import glob
import hashlib
import json
import os
import pwd
import re
import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from .. import systemd
from ..process import changed, read, replace
from . import places, traffic
from .series import control as series

DROP_IN = "probes.conf"
CHANGING = "changing"


def drop_in(unit: str) -> str:
    """Return where a unit's drop-in of ours is."""
    return f"{systemd.UNITS}/{unit}.service.d/{DROP_IN}"


def own_python_path(state: Mapping[str, str]) -> str:
    """Return PYTHONPATH as a unit itself sets it, without our drop-in."""
    own = ""
    for path in [state["FragmentPath"], *state["DropInPaths"].split()]:
        if path.endswith(f"/{DROP_IN}"):
            continue
        for line in read(path).splitlines():
            setting = re.match(r'\s*Environment="?PYTHONPATH=([^"]*)', line)
            own = setting[1].strip() if setting else own
    return own


def environment_of(
    unit: str, probes: Sequence[str], state: Mapping[str, str], code: str
) -> dict[str, str]:
    """Return what a unit's processes are started with so that the probes get in.

    `code` is the digest of what is laid down; its change restarts the unit.
    """
    if not probes:
        return {}
    paths = [places.CODE, own_python_path(state)]
    return {
        "PYTHONPATH": ":".join(path for path in paths if path),
        "DISCOVERY_PROBES": ",".join(probes),
        "DISCOVERY_PROBE_FOLDER": f"{places.RECORDS}/{unit}",
        "DISCOVERY_PROBE_CODE": code,
    }


def digest_of(environment: Mapping[str, str]) -> str:
    """Return a digest of what a unit is to be started with; empty without probes."""
    if not environment:
        return ""
    return hashlib.sha256(json.dumps(environment, sort_keys=True).encode()).hexdigest()[:12]


class Installation:
    """The probes that are asked for on this host, and nothing else of ours.

    `args` are the options of Ansible's module `probes`; `changes` says what was done, for people,
    and `restarted` names the units that run anew.
    """

    def __init__(self, args: Mapping[str, Any]) -> None:
        self.args = args
        self.changes: list[str] = []
        self.restarted: list[str] = []
        # Services overwrite the memory that /proc shows as their environment, so it is noted
        # what each was started with.  No note: without probes.
        self.started = systemd.StartNotes(places.RECORDS, ".started")

    def run(self) -> None:
        """Lay down what is asked for, take away the rest, restart units whose probes change."""
        self.stop_sampling()
        environments = self.lay_down_for(self.args["units"])
        self.write_drop_ins(environments, glob.glob(drop_in("*")))
        self.restart(environments)
        self.set_traffic_counted()
        if not self.is_code_needed:
            self.remove_tree(places.CODE)
        if not self.args["wanted"]:
            self.remove_tree(places.RECORDS)

    def precede(self, starting: Collection[str]) -> None:
        """Have it laid down for units that are about to be started; others keep their probes.

        What they are started with is noted by `note_started`: until then they count as changing.
        """
        units = {name: self.args["units"][name] for name in starting if name in self.args["units"]}
        environments = self.lay_down_for(units)
        self.write_drop_ins(environments, [drop_in(name) for name in units])
        self.set_traffic_counted()

    def note_started(self, started: Collection[str]) -> bool:
        """Note what units were started with; tells whether all of the host have their probes."""
        environments = self.environments_of(self.args["units"], self.code())
        for name in started:
            if name in environments:
                self.started.write(name, digest_of(environments[name]))
        return len(environments) == len(self.args["units"]) and all(
            self.started.of(name) == digest_of(environment)
            for name, environment in environments.items()
        )

    @property
    def is_code_needed(self) -> bool:
        """Tell whether any process of this host imports the package."""
        inside = any(unit["probes"] for unit in self.args["units"].values())
        return inside or places.SERIES in self.args["wanted"]

    def code(self) -> str:
        """Return the digest of the package that is asked for; nothing where none is needed."""
        contents = self.args["contents"]
        if not (contents and self.is_code_needed):
            return ""
        return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()[:12]

    def environments_of(
        self, units: Mapping[str, Mapping[str, Any]], code: str
    ) -> dict[str, dict[str, str]]:
        """Return what units that systemd knows are started with, by unit."""
        states = systemd.show(units)
        return {
            name: environment_of(name, list(unit["probes"]), states[name], code)
            for name, unit in units.items()
            if states[name]["FragmentPath"]
        }

    def lay_down_for(self, units: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
        """Lay down package and folders; returns what units are to be started with."""
        code = self.lay_down(self.code())
        environments = self.environments_of(units, code)
        self.make_folders(environments, bool(self.args["wanted"]))
        return environments

    def lay_down(self, code: str) -> str:
        """Write the package, compiled: services may not write there.  Returns its digest."""
        if not code:
            return ""
        stamp = f"{places.CODE}/{code}"
        if not os.path.exists(stamp):
            self.remove_tree(places.CODE)
            for path, text in self.args["contents"].items():
                os.makedirs(os.path.dirname(f"{places.CODE}/{path}"), exist_ok=True)
                with open(f"{places.CODE}/{path}", "w", encoding="utf-8") as file:
                    file.write(text)
            compileall.compile_dir(places.CODE, quiet=2)
            for folder, folders, files in os.walk(places.CODE):
                for name in [".", *folders, *files]:
                    os.chmod(f"{folder}/{name}", 0o755 if name in [".", *folders] else 0o644)
            with open(stamp, "w", encoding="utf-8"):
                pass
            self.changes.append(places.CODE)
        return code

    def make_folders(self, environments: Mapping[str, Mapping[str, str]], is_any: bool) -> None:
        """Make the folders for records: each service writes to one of its own."""
        states = systemd.show(environments)
        if is_any:
            os.makedirs(places.RECORDS, mode=0o755, exist_ok=True)
        for name, environment in environments.items():
            if not environment:
                self.remove_tree(f"{places.RECORDS}/{name}")
                continue
            path = environment["DISCOVERY_PROBE_FOLDER"]
            os.makedirs(path, exist_ok=True)
            user = pwd.getpwnam(states[name]["User"] or "root")
            os.chown(path, user.pw_uid, user.pw_gid)
            os.chmod(path, 0o700)

    def write_drop_ins(
        self, environments: Mapping[str, Mapping[str, str]], among: Collection[str]
    ) -> None:
        """Have these drop-ins, and no other `among` the paths of some.

        A unit is noted as changing before its own does.
        """
        before = len(self.changes)
        asked_for = {drop_in(name) for name, environment in environments.items() if environment}
        for path in sorted({path for path in among if os.path.exists(path)} - asked_for):
            self.started.write(path.split("/")[-2].removesuffix(".service.d"), CHANGING)
            os.unlink(path)
            if not os.listdir(os.path.dirname(path)):
                os.rmdir(os.path.dirname(path))
            self.changes.append(f"{path} gone")
        for name, environment in environments.items():
            path = drop_in(name)
            lines = [f"Environment={key}={value}\n" for key, value in environment.items()]
            text = f"[Service]\n{''.join(lines)}"
            if not environment or (os.path.exists(path) and read(path) == text):
                continue
            self.started.write(name, CHANGING)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            replace(path, text)
            self.changes.append(path)
        if len(self.changes) > before:
            systemd.reload()

    def restart(self, environments: Mapping[str, Mapping[str, str]]) -> None:
        """Restart the units that run with other probes; one that is down stays down."""
        digests = {name: digest_of(environment) for name, environment in environments.items()}
        stale = [name for name, digest in digests.items() if self.started.of(name) != digest]
        states = systemd.show(stale)
        for name in stale:
            if states[name]["ActiveState"] != "active":
                self.started.write(name, digests[name])
        stale = [name for name in stale if states[name]["ActiveState"] == "active"]
        if not stale:
            return
        timeout_s = self.args["timeout_s"]
        deadline = time.monotonic() + timeout_s
        systemd.restart(stale, timeout_s)
        for name in stale:
            port = self.args["units"][name]["port"]
            if port:
                systemd.wait_for_port(name, port, True, deadline, timeout_s)
            self.started.write(name, digests[name])
        self.restarted = stale
        self.changes += [f"{name} started" for name in stale]

    def set_traffic_counted(self) -> None:
        """Have the counters of traffic where they are asked for, and nowhere else."""
        if "traffic" in self.args["wanted"]:
            self.count_traffic()
        else:
            self.stop_counting_traffic()

    def count_traffic(self) -> None:
        """Have the counters of traffic."""
        if traffic.install_nftables():
            self.changes.append(traffic.PACKAGE)
        if not traffic.has_table():
            traffic.make_table()
            self.changes.append(f"table {traffic.TABLE}")

    def stop_counting_traffic(self) -> None:
        """Take the counters of traffic away."""
        if traffic.has_table():
            traffic.remove_table()
            self.changes.append(f"table {traffic.TABLE} gone")

    def stop_sampling(self) -> None:
        """End a sampler that runs: one of a bench that was killed."""
        if os.path.isdir(series.FOLDER):
            series.stop()

    def remove(self) -> None:
        """Take all of it away; services that still run keep what they were started with."""
        self.stop_sampling()
        self.write_drop_ins({}, glob.glob(drop_in("*")))
        self.stop_counting_traffic()
        self.remove_tree(places.CODE)
        self.remove_tree(places.RECORDS)

    def remove_tree(self, path: str) -> None:
        """Remove a folder and what is in it."""
        if os.path.isdir(path):
            shutil.rmtree(path)
            self.changes.append(f"{path} gone")


def deploy(args: Mapping[str, Any]) -> dict[str, Any]:
    """Have exactly the probes that are asked for; return the units that were restarted, too."""
    installation = Installation(args)
    installation.run()
    return {**changed(installation.changes), "restarted": installation.restarted}


def remove(args: Mapping[str, Any]) -> dict[str, Any]:
    """Take all probes away."""
    installation = Installation(args)
    installation.remove()
    return changed(installation.changes)
