"""A testbed's own folder: its state, its lock, its ssh files.

The state is JSON, replaced in one step, and written before the thing that it
speaks of is made, so that whatever a killed run left can be found and removed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from discovery_xp.errors import InvalidInput, Refused
from discovery_xp.names import TestbedName
from discovery_xp.plan import Plan, PlannedLink
from discovery_xp.plan_json import links_from_json, plan_from_json
from discovery_xp.topology import SshHost

STATE_FORMAT = 2


def home() -> Path:
    """Where testbeds are kept: $DISCOVERY_XP_HOME, or the system's usual place."""
    given = os.environ.get("DISCOVERY_XP_HOME")
    if given:
        return Path(given).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/discovery-xp")
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(state) / "discovery-xp"


def cache() -> Path:
    """Where root trees are cached: $DISCOVERY_XP_CACHE, or the system's usual place."""
    given = os.environ.get("DISCOVERY_XP_CACHE")
    if given:
        return Path(given).absolute()
    if os.geteuid() == 0:
        return Path("/var/cache/discovery-xp")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "discovery-xp"


@dataclass(frozen=True)
class State:
    """What is known of a testbed; `phase` is 'acquiring', 'up' or 'releasing'.

    `wan` is how its links are imposed ('netem', 'vde'), None before that was chosen;
    `image` the key of the hosts' root tree; `observed` the last measurement, one
    mapping for each pair of sites; `changed_links` the links set since, None where the
    plan's own hold.
    """

    plan: Plan
    phase: str
    created: str
    wan: str | None = None
    image: str | None = None
    observed: tuple[Mapping[str, Any], ...] = ()
    changed_links: tuple[PlannedLink, ...] | None = None
    deployed: str | None = None

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
            "plan": self.plan.to_json(),
        }


class Testbed:
    """The folder of one testbed, by name."""

    __test__ = False  # a name that pytest would take for a test

    def __init__(self, name: str) -> None:
        """Raises BadName for what isn't a name: no path can be made of it."""
        self.name = TestbedName(name)
        self.folder = home() / "testbeds" / self.name

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
        return self.folder / "inventory.ini"

    @property
    def known_hosts(self) -> Path:
        """The hosts' keys, for ssh."""
        return self.folder / "known_hosts"

    def write_ssh_config(self, hosts: Mapping[str, SshHost], check_keys: str) -> None:
        """Write `ssh_config`; `check_keys` is ssh's StrictHostKeyChecking.

        Each host can be named by its name or by its address.
        """
        lines = []
        for jump, key in {host.jump: host.key for host in hosts.values() if host.jump}.items():
            if key:
                lines.append(f'Host {jump.rpartition("@")[2]}\n  IdentityFile "{key}"')
        for name, host in hosts.items():
            lines.append(f"Host {name} {host.address}\n  HostName {host.address}")
            lines.append(f"  User {host.user}\n  Port {host.port}")
            if host.key:
                lines.append(f'  IdentityFile "{host.key}"\n  IdentitiesOnly yes')
            if host.jump:
                lines.append(f"  ProxyJump {host.jump}")
        lines.append(
            f'Host *\n  UserKnownHostsFile "{self.known_hosts}"\n'
            "  GlobalKnownHostsFile /dev/null\n"
            # A machine that goes away is noticed within two minutes.
            "  ServerAliveInterval 15\n  ServerAliveCountMax 8\n"
            f"  StrictHostKeyChecking {check_keys}\n  LogLevel ERROR"
        )
        if any(host.jump for host in hosts.values()):  # the way to it may be described there
            lines.append("Host *\n  Include ~/.ssh/config")
        write_atomically(self.ssh_config, "\n".join(lines) + "\n")

    def exists(self) -> bool:
        """True once a state was written."""
        return self.state_file.exists()

    def load(self) -> State:
        """The state; raises Refused when there is none or it can't be read."""
        try:
            data = json.loads(self.state_file.read_text())
        except FileNotFoundError:
            raise Refused(
                f"no testbed '{self.name}'", "make one with 'discovery-xp up', or name another"
            ) from None
        except PermissionError:
            raise Refused(
                f"the state of '{self.name}' can't be read", "run as the user who made it"
            ) from None
        except json.JSONDecodeError as error:
            raise Refused(
                f"{self.state_file}:{error.lineno}: the state is damaged",
                f"run 'discovery-xp destroy --testbed {self.name}'",
            ) from None
        if not isinstance(data, dict):
            raise Refused(
                f"{self.state_file}: the state is damaged",
                f"run 'discovery-xp destroy --testbed {self.name}'",
            )
        if data.get("format") != STATE_FORMAT:
            raise Refused(
                f"{self.state_file}: a state of format {data.get('format')}, "
                f"but this version reads {STATE_FORMAT}",
                "use the version that wrote it, or destroy the testbed",
            )
        try:
            state = _state_from_json(data)
            if state.plan.name != self.name:
                raise ValueError(f"it is the state of '{state.plan.name}'")
            return state
        except (AttributeError, KeyError, TypeError, ValueError, InvalidInput) as error:
            words = " ".join(str(error).split())[:200]
            raise Refused(
                f"{self.state_file}: the state is damaged ({type(error).__name__}: {words})",
                f"run 'discovery-xp destroy --testbed {self.name}'",
            ) from None

    def save(self, state: State) -> State:
        """Replace the state in one step; returns it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o711)  # daemons of the hosts may drop their rights
        write_atomically(self.state_file, json.dumps(state.to_json(), indent=1) + "\n")
        return state

    def update(self, **changes: Any) -> State:
        """Change some fields of the saved state."""
        return self.save(dataclasses.replace(self.load(), **changes))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the testbed; raises Refused while another process does."""
        locks = home() / "locks"
        path = locks / self.name
        while True:
            locks.mkdir(parents=True, exist_ok=True)
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            except FileNotFoundError:  # the folder went away with its last lock
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = path.read_text().strip() or "unknown"
                os.close(descriptor)
                raise Refused(
                    f"testbed '{self.name}' is being worked on by process {holder}",
                    "wait for it, or choose another --name",
                ) from None
            # The one who held it may have removed the file that we then locked.
            if path.exists() and path.stat().st_ino == os.fstat(descriptor).st_ino:
                break
            os.close(descriptor)
        try:
            _HELD.add(descriptor)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield
        finally:
            _HELD.discard(descriptor)
            path.unlink(missing_ok=True)
            os.close(descriptor)
            for folder in (locks, home()):  # nothing is left where nothing is kept
                with contextlib.suppress(OSError):
                    folder.rmdir()

    def remove(self) -> None:
        """Remove the folder and, where they are empty then, those above it."""
        # The state goes last: as long as anything is left, the testbed can be named.
        if self.folder.exists():
            for entry in self.folder.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                elif entry != self.state_file:
                    entry.unlink()
            shutil.rmtree(self.folder)
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()


def _state_from_json(data: Mapping[str, Any]) -> State:
    changed = data["changed_links"]
    return State(
        plan=plan_from_json(data["plan"]),
        phase=data["phase"],
        created=data["created"],
        wan=data["wan"],
        image=data["image"],
        observed=tuple(data["observed"]),
        changed_links=None if changed is None else links_from_json(changed),
        deployed=data.get("deployed"),
    )


# A lock lives as long as any copy of its descriptor: Ansible's workers, which are forked
# and may outlive a killed run for a moment, must not keep it.
_HELD: set[int] = set()


def _let_go() -> None:
    for descriptor in _HELD:
        os.close(descriptor)
    _HELD.clear()


os.register_at_fork(after_in_child=_let_go)


def testbeds() -> list[str]:
    """Names of the testbeds that have a folder, sorted; a folder of another name is none."""
    folder = home() / "testbeds"
    if not folder.is_dir():
        return []
    return sorted(TestbedName.among(each.name for each in folder.iterdir() if each.is_dir()))


def choose(name: str | None) -> Testbed:
    """The testbed called `name`, or the only one there is; raises Refused otherwise."""
    if name is not None:
        testbed = Testbed(name)
        try:
            there = testbed.exists()
        except PermissionError:  # `load` says so
            there = True
        if not there:  # nothing is locked for it, nothing made
            raise Refused(
                f"no testbed '{name}'", "make one with 'discovery-xp up', or name another"
            )
        return testbed
    found = testbeds()
    if len(found) == 1:
        return Testbed(found[0])
    if not found:
        raise Refused("there is no testbed", "make one with 'discovery-xp up TOPOLOGY'")
    raise Refused(
        f"there are several testbeds ({', '.join(found)})", "say which with --testbed NAME"
    )


def now() -> str:
    """The time in UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Write so that a reader, or a crash, sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
