"""The end of a testbed, from whatever state it is in.

It needs no space on any disk, no file that it could write, no readable state and, for emulated
hosts and Grid'5000's jobs, neither EnOSlib nor Ansible, which want a folder of their own to be
loaded.  In order:

1. hold the testbed's folder (see `Testbed.locked`);
2. reset links and remove services where hosts stay (static ones);
3. note that it is ending, if that can be written: all steps can be done again without it;
4. give back what was borrowed;
5. end processes, remove namespaces, interfaces and control groups;
6. remove the folder, its state last, and what was noted of it on this machine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from pathlib import Path

from discovery_xp import providers
from discovery_xp.boundary.names import TestbedName
from discovery_xp.errors import Failed, Refused, UserError
from discovery_xp.places import home
from discovery_xp.testbeds.testbed import State, Testbed, testbeds


def known_testbeds() -> list[str]:
    """Names of this home's testbeds, and of what no home has but this machine.

    In the order in which they can be destroyed.
    """
    names = {*testbeds(), *TestbedName.among(n for n, place in _homes().items() if place == home())}

    def is_local(name: str) -> bool:
        state = state_or_none(Testbed(name))
        return state is None or providers.kind(state.plan.provider).is_local

    # Others may stand on emulated hosts: they go first where all are destroyed.
    return sorted(names, key=lambda name: (is_local(name), name))


def others() -> dict[str, Path]:
    """The testbeds of other homes that have anything on this machine, with their homes."""
    return {name: place for name, place in sorted(_homes().items()) if place != home()}


def _homes() -> dict[str, Path]:
    """The home of each testbed that has anything on this machine; only root's can."""
    homes: dict[str, Path] = {}
    for provider in providers.local_ones() if _is_root() else ():
        homes |= provider.homes()
    return homes


def _is_root() -> bool:
    return os.geteuid() == 0


def sweep() -> None:
    """After the last testbed of this machine: remove what belongs to none.

    A destroy that was killed at its very end leaves the empty folders of this home.
    """
    for provider in providers.local_ones() if _is_root() else ():
        provider.sweep()
    for folder in (home() / "testbeds", home()):
        with contextlib.suppress(OSError):  # there is something in it, or it isn't there
            folder.rmdir()


def tear_down(testbed: Testbed, forget: bool = False) -> None:
    """Remove the testbed and all its traces, whatever state it is in.

    Links on hosts that stay (static ones) are reset first; `forget` goes on when those
    can't be reached, which raises Failed otherwise.
    """
    if testbed.home == home() and testbed.name not in known_testbeds():
        place = others().get(testbed.name)
        if place is not None:
            raise Refused(
                f"testbed '{testbed.name}' belongs to another home, {place}",
                f"set DISCOVERY_XP_HOME={place} to destroy it",
            )
        if end_forgotten(testbed.name):
            return
        names = ", ".join(known_testbeds()) or "none"
        raise Refused(f"no testbed '{testbed.name}'", f"there is: {names}")
    with testbed.locked(make=True):
        release(testbed, forget)


def discard(testbed: Testbed) -> None:
    """Remove a testbed of which nothing was made but its folder and what says whose it is."""
    _remove_traces(testbed)


def release(testbed: Testbed, forget: bool = False) -> None:
    """Remove a testbed that is held; see `tear_down`."""
    state = state_or_none(testbed)
    if state is None:
        _give_back_unknown(testbed, forget)
        _remove_traces(testbed)
        return
    kind = providers.kind(state.plan.provider)
    if kind.stays and state.wan is not None:
        _clear(state, testbed, forget)
    if kind.needs_root and not _is_root():
        if state.image is None:  # it was refused before anything was made
            testbed.remove()
            return
        raise Refused("emulated hosts need root", "run it as root, e.g. with sudo")
    with contextlib.suppress(OSError):  # a full or read-only disk
        testbed.save(dataclasses.replace(state, phase="releasing"))
    if kind.lends:
        _give_back(state, testbed, forget)
    if kind.is_local:
        _remove_traces(testbed)
    else:
        testbed.remove()


def _remove_traces(testbed: Testbed) -> None:
    """Remove what this machine has of a testbed, and its folder."""
    for provider in providers.local_ones() if _is_root() else ():
        provider.release(None, testbed)
    testbed.remove()


def _clear(state: State, testbed: Testbed, forget: bool) -> None:
    """Leave nothing of ours on hosts that stay."""
    try:
        providers.of(state.plan.provider).clear(state.plan, testbed)
    except (UserError, OSError, ImportError) as error:  # Ansible can't work without space
        if not forget:
            raise Failed(
                _in_words(error),
                "links and services on them may stay; --forget removes the testbed all the same",
            ) from None


def _give_back(state: State, testbed: Testbed, forget: bool) -> None:
    """Give back what was borrowed for a testbed."""
    try:
        providers.of(state.plan.provider).release(state.plan, testbed)
    except Exception as error:  # EnOSlib's own, too, where it lacks space
        if not forget:
            raise Failed(
                f"{_in_words(error)}: what was borrowed may not be given back yet",
                f"'discovery-xp destroy --testbed {testbed.name}' tries again; "
                "--forget removes the testbed all the same",
            ) from None


def _give_back_unknown(testbed: Testbed, forget: bool) -> None:
    """Give back what a testbed borrowed whose state can't be read any more."""
    for name, kind in providers.KINDS.items():
        if kind.record is None or not (testbed.folder / kind.record).exists():
            continue
        try:
            providers.of(name).release(None, testbed)
        except Exception as error:
            if not forget:
                raise Failed(
                    f"{_in_words(error)}: what '{testbed.name}' borrowed may not be given back",
                    "give it back where it is from, then destroy with --forget",
                ) from None
        return


def _in_words(error: Exception) -> str:
    """What went wrong, on one line."""
    if isinstance(error, UserError):
        return error.message
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'this machine'}: {error.strerror.lower()}"
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def is_over(testbed: Testbed) -> bool:
    """True when some of its hosts were taken back: nothing of it is true any more."""
    lender = _lender_of(testbed)
    return lender is not None and lender.why_over(testbed) is not None


def explained(testbed: Testbed, error: UserError) -> UserError:
    """The error, or a better one where the hosts' lender took them away."""
    lender = _lender_of(testbed)
    why = lender.why_over(testbed) if lender else None
    if why is None:
        return error
    return Failed(f"{why}: {str(error).splitlines()[0]}", "the same command starts anew")


def time_left_s(testbed: Testbed) -> float | None:
    """How long what a testbed borrowed stays, None where it borrowed nothing or nobody knows."""
    lender = _lender_of(testbed)
    return lender.time_left_s(testbed) if lender else None


def _lender_of(testbed: Testbed) -> providers.Provider | None:
    """Who lent the testbed's hosts; None where nobody did, or its state is lost."""
    state = state_or_none(testbed)
    if state is None or not providers.kind(state.plan.provider).lends:
        return None
    return providers.of(state.plan.provider)


def forgotten() -> list[str]:
    """What is borrowed in our name and belongs to no testbed of this machine, a line each.

    Raises Refused where that can't be asked.
    """
    return [line for provider in providers.named_ones() for line in provider.forgotten()]


def end_forgotten(name: str) -> bool:
    """Give back what is borrowed for a testbed of that name that isn't on this machine."""
    try:
        return sum(provider.end_forgotten(name) for provider in providers.named_ones()) > 0
    except Refused:  # nobody can be asked: then nothing of that name is known
        return False


def state_or_none(testbed: Testbed) -> State | None:
    """The state, or None where it is missing or damaged: then every trace is looked for."""
    try:
        return testbed.load()
    except Refused:
        return None
