"""A testbed's own folder: its state, its lock, its ssh files.

The state is JSON, replaced in one step, and written before the thing that it
speaks of is made, so that whatever a killed run left can be found and removed.
The folder, and the one that holds all testbeds, are closed to other users: all that
lies below, keys, passwords and disks of hosts, is behind them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from discovery_xp import files
from discovery_xp.boundary import writers
from discovery_xp.boundary.names import TestbedName
from discovery_xp.errors import Failed, Refused
from discovery_xp.files import write_atomically as write_atomically  # for who writes beside it
from discovery_xp.inputs.topology import SshHost
from discovery_xp.places import home
from discovery_xp.planning.plan import Plan, PlannedLink
from discovery_xp.planning.plan_json import links_from_json, plan_from_json

STATE_FORMAT = 2


@dataclass(frozen=True)
class State:
    """What is known of a testbed; `phase` is 'acquiring', 'up' or 'releasing'.

    `wan` is how its links are imposed ('netem', 'vde', 'canned'), None before that was chosen;
    `image` the key of the hosts' root tree; `observed` the last measurement, one
    mapping for each pair of sites; `changed_links` the links set since, None where the
    plan's own hold; `exposed` is whether others than root of this machine and the hosts
    themselves may reach them.
    """

    plan: Plan
    phase: str
    created: str
    wan: str | None = None
    image: str | None = None
    observed: tuple[Mapping[str, Any], ...] = ()
    changed_links: tuple[PlannedLink, ...] | None = None
    deployed: str | None = None
    exposed: bool = False

    @property
    def links(self) -> tuple[PlannedLink, ...]:
        """The links that should hold now."""
        return self.plan.links if self.changed_links is None else self.changed_links

    def to_json(self) -> dict[str, Any]:
        """Plain values, with the format's number."""
        return {
            "format": STATE_FORMAT,
            "phase": self.phase,
            "created": self.created,
            "wan": self.wan,
            "image": self.image,
            "observed": [dict(pair) for pair in self.observed],
            "changed_links": None
            if self.changed_links is None
            else [dataclasses.asdict(link) for link in self.changed_links],
            "deployed": self.deployed,
            "exposed": self.exposed,
            "plan": self.plan.to_json(),
        }


class Testbed:
    """The folder of one testbed, by name."""

    __test__ = False  # a name that pytest would take for a test

    def __init__(self, name: str, place: Path | None = None) -> None:
        """The testbed `name` of this user's home, or of the home `place`.

        Raises BadName for what isn't a name: no path can be made of it.
        """
        self.name = TestbedName(name)
        self.home = place or home()
        self.folder = self.home / "testbeds" / self.name

    @property
    def state_file(self) -> Path:
        """The JSON state."""
        return self.folder / "state.json"

    @property
    def ssh_config(self) -> Path:
        """For `ssh -F`: every host by its name."""
        return self.folder / "ssh_config"

    @property
    def inventory(self) -> Path:
        """Ansible's inventory."""
        return self.folder / "inventory.yaml"

    @property
    def known_hosts(self) -> Path:
        """The hosts' keys, for ssh."""
        return self.folder / "known_hosts"

    def write_ssh_config(self, hosts: Mapping[str, SshHost], check_keys: str) -> None:
        """Write `ssh_config`; `check_keys` is ssh's StrictHostKeyChecking.

        Each host can be named by its name or by its address.
        """
        blocks: list[tuple[str, list[tuple[str, str]]]] = []
        subject = f"'{self.name}'"
        try:
            for jump, key in {host.jump: host.key for host in hosts.values() if host.jump}.items():
                subject = f"jump host {jump!a}"
                if key:
                    place = writers.ssh_jump(jump).rpartition("@")[2].partition(":")[0]
                    blocks.append((f"Host {place}", [("IdentityFile", writers.ssh_path(key))]))
            for name, host in hosts.items():
                subject = f"host {name!a}"
                blocks.append(_ssh_block(name, host))
            subject = "the testbed's folder"
            options = [
                ("UserKnownHostsFile", writers.ssh_path(str(self.known_hosts))),
                ("GlobalKnownHostsFile", "/dev/null"),
                # A machine that goes away is noticed within two minutes.
                ("ServerAliveInterval", "15"),
                ("ServerAliveCountMax", "8"),
                ("StrictHostKeyChecking", writers.ssh_check_keys(check_keys)),
                ("LogLevel", "ERROR"),
            ]
            blocks.append(("Host *", options))
            if any(host.jump for host in hosts.values()):  # the way to it may be described there
                blocks.append(("Host *", [("Include", "~/.ssh/config")]))
            text = writers.ssh_config(blocks)
        except writers.Unwritable as error:
            raise Refused(
                f"ssh can't be told of {subject}: {error}",
                "correct the topology's 'address', 'user', 'key' or 'jump_host'",
            ) from None
        write_atomically(self.ssh_config, text)

    def exists(self) -> bool:
        """True once a state was written."""
        try:
            return self.state_file.exists()
        except OSError:  # another user's, or no path at all: `load` says so
            return True

    def load(self) -> State:
        """The state; raises Refused when there is none or it can't be read."""
        self._require_ours()
        remedy = f"run 'discovery-xp destroy --testbed {self.name}'"
        try:
            data = json.loads(files.read_text(self.state_file))
        except FileNotFoundError:
            raise Refused(
                f"no testbed '{self.name}'", "make one with 'discovery-xp up', or name another"
            ) from None
        except PermissionError:
            raise Refused(
                f"the state of '{self.name}' can't be read", "run as the user who made it"
            ) from None
        except json.JSONDecodeError as error:
            place = f"{self.state_file}:{error.lineno}"
            raise Refused(f"{place}: the state is damaged", remedy) from None
        except (OSError, ValueError, RecursionError) as error:  # no file, no text, no end
            raise Refused(
                f"{self.state_file}: the state is damaged ({_first_line(error)})", remedy
            ) from None
        if not isinstance(data, dict):
            raise Refused(f"{self.state_file}: the state is damaged", remedy)
        if data.get("format") != STATE_FORMAT:
            raise Refused(
                f"{self.state_file}: a state of format {str(data.get('format'))[:20]!r}, "
                f"but this version reads {STATE_FORMAT}",
                "use the version that wrote it, or destroy the testbed",
            )
        try:
            state = _state_from_json(data)
            if state.plan.name != self.name:
                raise ValueError(f"it is the state of '{state.plan.name}'")
            return state
        except Exception as error:  # no telling what a damaged one makes of the plan's parts
            raise Refused(
                f"{self.state_file}: the state is damaged ({_first_line(error)})", remedy
            ) from None

    def save(self, state: State) -> State:
        """Replace the state in one step; returns it."""
        self.make_folder()
        write_atomically(self.state_file, json.dumps(state.to_json(), indent=1) + "\n")
        return state

    def update(self, **changes: Any) -> State:
        """Change some fields of the saved state."""
        return self.save(dataclasses.replace(self.load(), **changes))

    def make_folder(self) -> None:
        """Make the folder, closed to others; raises Refused where others could change it."""
        try:
            for folder in (self.home, self.folder.parent, self.folder):
                files.make_folder(folder)
        except (PermissionError, FileExistsError, NotADirectoryError) as error:
            raise Refused(
                f"{error.filename} can't be made: {(error.strerror or '').lower()}",
                "choose another place with DISCOVERY_XP_HOME",
            ) from None
        self._require_ours()

    def _require_ours(self) -> None:
        files.require_ours(self.folder, "choose another place with DISCOVERY_XP_HOME")
        if self.folder.is_symlink() or self.folder.parent.is_symlink():
            raise Refused(f"{self.folder} leads elsewhere", "remove the link")
        for folder in (self.folder.parent, self.folder):
            files.make_private(folder)

    @contextlib.contextmanager
    def locked(self, make: bool = False) -> Iterator[None]:
        """Hold the testbed; raises Refused while another process does, or where there is none.

        The lock is on the folder itself: holding it takes no file, so no space.  With `make`,
        a missing folder is made, and removed at the end if nothing came into it.  Where it
        can't be made, nobody can begin to work on it: then none needs to be kept out.
        """
        missing = [folder for folder in self.home.parents if not os.path.lexists(folder)]
        descriptor = self._hold(make)
        try:
            with contextlib.nullcontext() if descriptor is None else files.not_shared(descriptor):
                yield
        finally:
            if descriptor is not None:
                if self._is_at(descriptor):  # another's, made since, isn't ours to remove
                    with contextlib.suppress(OSError):
                        self.folder.rmdir()
                os.close(descriptor)
            # Nothing is left where nothing is kept.
            for folder in (self.folder.parent, self.home, *missing):
                with contextlib.suppress(OSError):
                    folder.rmdir()

    def _hold(self, make: bool) -> int | None:
        while True:
            try:
                if make:
                    self.make_folder()
                self._require_ours()
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                descriptor = os.open(self.folder, flags)
            except FileNotFoundError:
                if make:  # it went away with the one who held it
                    continue
                raise Refused(
                    f"no testbed '{self.name}'", "make one with 'discovery-xp up', or name another"
                ) from None
            except OSError as error:
                if error.errno in files.NO_ROOM and not self.folder.exists():
                    return None
                raise
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = _holder(descriptor)
                os.close(descriptor)
                raise Refused(
                    f"testbed '{self.name}' is being worked on by process {holder}",
                    "wait for it, or choose another --name",
                ) from None
            # The one who held it may have removed the folder that we then locked.
            if self._is_at(descriptor):
                return descriptor
            os.close(descriptor)

    def _is_at(self, descriptor: int) -> bool:
        """True while the folder is the one that was opened."""
        with contextlib.suppress(OSError):
            return os.path.samestat(self.folder.lstat(), os.fstat(descriptor))
        return False

    def remove(self) -> None:
        """Remove the folder and, where they are empty then, those above it.

        Raises Failed, with what couldn't be removed.
        """
        # The state goes last: as long as anything is left, the testbed can be named.
        try:
            if self.folder.is_dir() and not self.folder.is_symlink():
                for entry in self.folder.iterdir():
                    if entry.is_dir() and not entry.is_symlink():
                        shutil.rmtree(entry)
                    elif entry != self.state_file:
                        entry.unlink()
                shutil.rmtree(self.folder)
        except OSError as error:
            raise Failed(
                f"{error.filename or self.folder} can't be removed: {error.strerror}",
                f"all else of '{self.name}' is gone; make it removable and destroy again",
            ) from None
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()


def _first_line(error: BaseException) -> str:
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words[:150]}"


def _holder(descriptor: int) -> str:
    """The process that has locked a folder, as the kernel lists it."""
    inode = os.fstat(descriptor).st_ino
    with contextlib.suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if fields[1:2] == ["FLOCK"] and fields[5].rpartition(":")[2] == str(inode):
                return fields[4]
    return "unknown"


def _ssh_block(name: str, host: SshHost) -> tuple[str, list[tuple[str, str]]]:
    """A host's part of ssh_config; raises Unwritable where ssh would take more out of it."""
    address = writers.ssh_host(host.address)
    options = [
        ("HostName", address),
        ("User", writers.ssh_user(host.user)),
        ("Port", str(writers.ssh_port(host.port))),
    ]
    if host.key:
        options += [("IdentityFile", writers.ssh_path(host.key)), ("IdentitiesOnly", "yes")]
    if host.jump:
        options.append(("ProxyJump", writers.ssh_jump(host.jump)))
    return f"Host {writers.ssh_host(name)} {address}", options


def _state_from_json(data: Mapping[str, Any]) -> State:
    """The state of its JSON; raises whatever a damaged one leads to."""
    changed, image = data["changed_links"], data["image"]
    if data["phase"] not in ("acquiring", "up", "releasing"):
        raise ValueError(f"no phase '{str(data['phase'])[:20]}'")
    if data["wan"] not in (None, "netem", "vde", "canned"):
        raise ValueError(f"no kind of links '{str(data['wan'])[:20]}'")
    if image is not None and not re.fullmatch("[0-9a-f]{12}", image):  # names a folder
        raise ValueError(f"no root tree '{str(image)[:20]}'")
    return State(
        plan=plan_from_json(data["plan"]),
        phase=data["phase"],
        created=data["created"],
        wan=data["wan"],
        image=image,
        observed=tuple(data["observed"]),
        changed_links=None if changed is None else links_from_json(changed),
        deployed=data.get("deployed"),
        exposed=data.get("exposed") is True,
    )


def testbeds() -> list[str]:
    """Names of the testbeds that have a folder, sorted; a folder of another name is none."""
    folder = home() / "testbeds"
    files.require_ours(folder, "choose another place with DISCOVERY_XP_HOME")
    try:
        if not folder.is_dir():
            return []
        return sorted(
            TestbedName.among(
                entry.name
                for entry in folder.iterdir()
                if entry.is_dir() and not entry.is_symlink()
            )
        )
    except PermissionError:
        raise Refused(f"{folder} can't be read", "run as the user whose it is") from None


def choose(name: str | None) -> Testbed:
    """The testbed called `name`, or the only one there is; raises Refused otherwise."""
    if name is not None:
        testbed = Testbed(name)
        if not testbed.exists():  # nothing is locked for it, nothing made
            raise Refused(
                f"no testbed '{name}'", "make one with 'discovery-xp up', or name another"
            )
        return testbed
    names = testbeds()
    if len(names) == 1:
        return Testbed(names[0])
    if not names:
        raise Refused("there is no testbed", "make one with 'discovery-xp up TOPOLOGY'")
    raise Refused(
        f"there are several testbeds ({', '.join(names)})", "say which with --testbed NAME"
    )


def now() -> str:
    """The time in UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
