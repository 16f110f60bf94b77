"""Where things are on this machine: testbeds, caches, and what the toolkit comes with."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from discovery_xp.errors import Refused


def home() -> Path:
    """Where testbeds are kept: $DISCOVERY_XP_HOME, or the system's usual place."""
    folder = os.environ.get("DISCOVERY_XP_HOME")
    if folder:
        return Path(folder).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/discovery-xp")
    state = os.environ.get("XDG_STATE_HOME") or _user_home() / ".local/state"
    return Path(state) / "discovery-xp"


def cache() -> Path:
    """Where root trees are cached: $DISCOVERY_XP_CACHE, or the system's usual place."""
    folder = os.environ.get("DISCOVERY_XP_CACHE")
    if folder:
        return Path(folder).absolute()
    if os.geteuid() == 0:
        return Path("/var/cache/discovery-xp")
    return Path(os.environ.get("XDG_CACHE_HOME") or _user_home() / ".cache") / "discovery-xp"


def _user_home() -> Path:
    """$HOME, or where the machine says; an empty one would be the root of the file system."""
    folder = os.environ.get("HOME")
    if folder:
        return Path(folder)
    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:
        raise Refused(
            "HOME isn't set, and this user has no home", "set HOME or DISCOVERY_XP_HOME"
        ) from None


def checkout() -> Path:
    """Return the folder of `locks/`, `playbooks/` and what else the toolkit comes with.

    That is the checkout's, or the folder that a wheel has them in.  Raises Refused where
    neither is there.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "shipped", package.parent):
        if (folder / "playbooks/deploy.yml").exists():
            return folder
    raise Refused(
        f"{package.parent} has no playbooks",
        "install discovery-xp from its wheel, or from its repository as ./xp does",
    )


def is_checkout() -> bool:
    """Say whether the toolkit runs from a checkout, and not from a wheel."""
    return not (Path(__file__).resolve().parent / "shipped").exists()


def shipped_file(folder: str, path: Path) -> Path:
    """Return `path`, or the YAML file of that name in `folder` of what the toolkit comes with.

    A file of the user's goes before one that is shipped; a path with folders is no name.
    """
    if len(path.parts) != 1 or path.is_absolute() or os.path.lexists(path):
        return path
    name = path.stem if path.suffix == ".yaml" else path.name
    return checkout() / folder / f"{name}.yaml" if name in shipped_names(folder) else path


def shipped_names(folder: str) -> list[str]:
    """Return the names of the YAML files in `folder` of what the toolkit comes with."""
    try:
        return sorted(path.stem for path in (checkout() / folder).glob("*.yaml"))
    except Refused:
        return []
