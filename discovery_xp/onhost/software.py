"""The software of this host, step by step: Debian's packages and a Python environment.

What is there already is left alone.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import environment, packages, wheels
from .environment import Environment
from .held import Held, remove_lock
from .process import Failure, changed

Args = Mapping[str, Any]


def run(args: Args) -> dict[str, Any]:
    """Do the step of Ansible's module `software` that its options name."""
    host = Held(args["timeout_s"])
    changes: list[str] = []
    try:
        lacks_environment = STEPS[args["step"]](args, host, changes)
    except Failure as failure:
        failure.details["changes"] = changes
        raise
    return {**changed(changes), "lacks_environment": bool(lacks_environment)}


def _environment(args: Args) -> Environment:
    return Environment(args["place"], args["stamp"])


def _ensure_packages(args: Args, host: Held, changes: list[str]) -> bool:
    """Install packages that are missing; True where the environment is missing, too."""
    _require_python(args["built_for"])
    own = _environment(args)
    own.require_place()
    lacks_environment = not own.is_whole()
    changes += packages.ensure(args["packages"], host)
    return lacks_environment


def _require_python(built_for: Sequence[str]) -> None:
    """Raise Failure where wheels for this Python and machine can't be installed."""
    python, machine = built_for
    major, minor = sys.version_info[:2]
    if (f"cp{major}{minor}", platform.machine()) != (python, machine):
        raise Failure(
            f"/usr/bin/python3 is Python {major}.{minor} on {platform.machine()}, but the "
            f"wheels are for Python {python[2]}.{python[3:]} on {machine}: hosts must run "
            "Debian 12, on a processor of the same kind as this machine's"
        )


def _serve(args: Args, host: Held, changes: list[str]) -> None:
    wheels.serve(args["folder"], args["url"], host)
    changes.append("wheels served")


def _stop(args: Args, host: Held, _changes: list[str]) -> None:
    """Serve no longer; nothing is left of the wheels."""
    wheels.stop(host)
    environment.remove_folder(args["folder"])


def _ensure_environment(args: Args, host: Held, changes: list[str]) -> None:
    """Make the environment of the master's wheels, unless it is whole."""
    own, folder = _environment(args), f"{args['folder']}/fetched"
    with host.locked():
        if own.is_whole():  # a run that was given up went on to its end
            return
        own.require_place()
        environment.remove_folder(folder)
        wheels.fetch(args["url"], args["checksum"], folder)
        own.make(environment.wheels_in(folder), args["program"], host)
        environment.remove_folder(folder)
        environment.remove_if_empty(args["folder"])  # the master still serves what is in it
        changes.append(args["place"])


def _ensure_wheel(args: Args, host: Held, changes: list[str]) -> None:
    with host.locked():
        if _environment(args).add_wheel(args["wheel"], host):
            changes.append(args["wheel"].rpartition("/")[2])


def _remove(args: Args, host: Held, changes: list[str]) -> None:
    """Remove all but Debian's packages."""
    wheels.stop(host)
    with host.locked():
        if environment.remove_folder(args["folder"]):
            changes.append(args["folder"])
        if _environment(args).remove():
            changes.append(args["place"])
    remove_lock()


STEPS: Mapping[str, Callable[[Args, Held, list[str]], bool | None]] = {
    "packages": _ensure_packages,
    "serve": _serve,
    "install": _ensure_environment,
    "wheel": _ensure_wheel,
    "stop": _stop,
    "remove": _remove,
}
