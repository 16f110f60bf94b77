"""Where things are on this machine: testbeds, caches, and what the toolkit comes with."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from discovery_xp.errors import Refused


def home() -> Path:
    """Where testbeds are kept: $DISCOVERY_XP_HOME, or the system's usual place."""
    given = os.environ.get("DISCOVERY_XP_HOME")
    if given:
        return Path(given).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/discovery-xp")
    state = os.environ.get("XDG_STATE_HOME") or _user_home() / ".local/state"
    return Path(state) / "discovery-xp"


def cache() -> Path:
    """Where root trees are cached: $DISCOVERY_XP_CACHE, or the system's usual place."""
    given = os.environ.get("DISCOVERY_XP_CACHE")
    if given:
        return Path(given).absolute()
    if os.geteuid() == 0:
        return Path("/var/cache/discovery-xp")
    return Path(os.environ.get("XDG_CACHE_HOME") or _user_home() / ".cache") / "discovery-xp"


def _user_home() -> Path:
    """$HOME, or where the machine says; an empty one would be the root of the file system."""
    given = os.environ.get("HOME")
    if given:
        return Path(given)
    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:
        raise Refused(
            "HOME isn't set, and this user has no home", "set HOME or DISCOVERY_XP_HOME"
        ) from None


def checkout() -> Path:
    """Where `locks/` and `playbooks/` are; raises Refused when they aren't there."""
    folder = Path(__file__).resolve().parent.parent
    if not (folder / "playbooks/deploy.yml").exists():
        raise Refused(
            f"{folder} has no playbooks",
            "install discovery-xp from its repository, as ./xp does, or with 'pip install -e'",
        )
    return folder
