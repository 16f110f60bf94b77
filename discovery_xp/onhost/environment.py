"""A Python environment of locked wheels: the recipe, wherever it is made, and how it is kept.

`steps` is the recipe: emulated hosts have it followed in their root tree, others on themselves.
An environment's stamp names its lock file once all is there, so one that was left half made is
made anew.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from .held import Held
from .process import Failure

# Written last into an environment: the lock file's digest.
STAMP = ".lock"
# What a stamp holds until the environment is whole; a folder without a stamp isn't ours.
UNFINISHED = "unfinished"

PYTHON = "/usr/bin/python3"
_PIP = (
    "--isolated", "install", "--quiet", "--no-index", "--no-deps", "--disable-pip-version-check",
    "--root-user-action=ignore",
)  # fmt: skip


@dataclass(frozen=True)
class Step:
    """A command of a recipe; `complaint` says what it means where it fails, if it may not."""

    words: tuple[str, ...]
    complaint: str | None


def steps(place: str, wheels: Sequence[str], program: str) -> tuple[Step, ...]:
    """Return the recipe of an environment at `place`; `program` is in its bin/ once it is whole.

    Hashes were checked when the wheels were fetched.
    """
    return (
        Step((PYTHON, "-m", "venv", place), "the environment can't be made"),
        # Compiling is half of the work, and pip compiles on one core.
        Step((f"{place}/bin/pip", *_PIP, "--no-compile", *wheels), "the wheels can't be installed"),
        # Some files are templates of Python; those don't compile.  Nothing runs the packages' own
        # tests, which are a third of the work.
        Step(
            (
                f"{place}/bin/python",
                "-m",
                "compileall",
                "-q",
                "-j",
                "0",
                "-x",
                "/tests/",
                f"{place}/lib",
            ),
            None,
        ),
        Step(("test", "-x", f"{place}/bin/{program}"), f"the wheels lack {program}"),
    )


def script(recipe: Sequence[Step]) -> str:
    """Return a recipe as a line of sh that ends at the first step that may not fail."""
    return " && ".join(
        shlex.join(step.words) if step.complaint else f"{{ {shlex.join(step.words)} || :; }}"
        for step in recipe
    )


class Environment:
    """The environment at `place` on this host; `stamp` is what a whole one's stamp holds."""

    def __init__(self, place: str, stamp: str) -> None:
        self.place = place
        self.stamp = stamp

    def is_whole(self) -> bool:
        """Tell whether it is the one that is asked for, of this host's Python."""
        major, minor = sys.version_info[:2]
        packages = f"{self.place}/lib/python{major}.{minor}/site-packages"
        return self._stamped() == self.stamp and os.path.isdir(packages)

    def require_place(self) -> None:
        """Raise Failure where making it would remove what isn't ours."""
        if self._is_foreign():
            raise Failure(f"{self.place} isn't of discovery-xp: move it away")

    def make(self, wheels: Sequence[str], program: str, host: Held) -> None:
        """Make it of wheels, whatever an earlier run left of it."""
        self.require_place()
        os.makedirs(self.place, exist_ok=True)
        self._clear()
        self._set_stamp(UNFINISHED)
        for step in steps(self.place, wheels, program):
            if step.complaint is None:
                host.run(step.words)
            else:
                host.require(step.words, step.complaint)
        self._set_stamp(self.stamp)

    def add_wheel(self, wheel: str, host: Held) -> bool:
        """Install one more wheel, in place of an earlier one; False where it is there.

        Its own stamp is in the environment, and goes with it.
        """
        stamp = f"{self.place}/.{os.path.basename(wheel).split('-')[0]}"
        if os.path.exists(stamp):
            with open(stamp, encoding="ascii") as file:
                if file.read() == self.stamp:
                    return False
            os.unlink(stamp)
        # Its version is often the same while it is being worked on.
        host.require(
            [f"{self.place}/bin/pip", *_PIP, "--force-reinstall", wheel],
            f"{os.path.basename(wheel)} can't be installed",
        )
        with open(stamp, "w", encoding="ascii") as file:
            file.write(self.stamp)
        return True

    def remove(self) -> bool:
        """Remove it; False where there is none of ours."""
        if not os.path.isdir(self.place) or self._is_foreign():
            return False
        self._clear()
        if not os.path.islink(self.place):
            os.rmdir(self.place)
        return True

    def _stamped(self) -> str:
        """What its stamp holds; empty where there is none."""
        try:
            with open(f"{self.place}/{STAMP}", encoding="ascii") as file:
                return file.read().strip()
        except FileNotFoundError:
            return ""

    def _set_stamp(self, text: str) -> None:
        with open(f"{self.place}/{STAMP}", "w", encoding="ascii") as file:
            file.write(f"{text}\n")

    def _is_foreign(self) -> bool:
        """True when somebody else keeps something where it belongs."""
        return os.path.isdir(self.place) and bool(os.listdir(self.place)) and not self._stamped()

    def _clear(self) -> None:
        """Empty it, its stamp last: that tells whose it is."""
        for name in sorted(os.listdir(self.place), key=lambda name: name == STAMP):
            path = f"{self.place}/{name}"
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)


def wheels_in(folder: str) -> list[str]:
    """Return the paths of the wheels in a folder, in order."""
    return sorted(glob.glob(f"{glob.escape(folder)}/*.whl"))


def remove_folder(folder: str) -> bool:
    """Remove a folder and what is in it; False where there is none."""
    if not os.path.isdir(folder):
        return False
    shutil.rmtree(folder)
    return True


def remove_if_empty(folder: str) -> None:
    """Remove a folder unless there is still something in it."""
    with contextlib.suppress(OSError):
        os.rmdir(folder)
