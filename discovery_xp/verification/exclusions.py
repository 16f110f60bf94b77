"""The tests that aren't run, each with its reason: `exclusions.txt` beside this file.

A line is a test, or a class, module or package whose tests are all meant, then '#' and the reason.
One whose reason begins with 'with nics: 0' is for clouds without ports alone.  Lines that begin
with '#' are comments.
"""

from __future__ import annotations

import re
from pathlib import Path

from discovery_xp.errors import InvalidInput, Problem
from discovery_xp.onhost.wire.verification import Exclusion
from discovery_xp.text import short

FILE = Path(__file__).with_name("exclusions.txt")
_WITHOUT_NICS = "with nics: 0"
_NAME = re.compile(r"tempest\.api(\.[A-Za-z_][A-Za-z0-9_]*)+")


def read_exclusions(path: Path = FILE, nics: int = 0) -> tuple[Exclusion, ...]:
    """Return the lines of a file that are for clouds whose VMs have so many ports.

    Raises InvalidInput with every line that is none.
    """
    found: dict[str, Exclusion] = {}
    problems: list[Problem] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _mark, reason = (part.strip() for part in line.partition("#"))
        complaint = _complaint(name, reason, found)
        if complaint is None:
            found[name] = Exclusion(name, reason)
        else:
            problems.append(Problem(str(path), number, "", *complaint))
    if problems:
        raise InvalidInput(problems)
    return tuple(
        each for each in found.values() if not nics or not each.reason.startswith(_WITHOUT_NICS)
    )


def _complaint(name: str, reason: str, earlier: dict[str, Exclusion]) -> tuple[str, str] | None:
    """Say what is wrong with a line, and its remedy; None where it is right."""
    if not _NAME.fullmatch(name):
        return f"'{short(name)}' is no name of a test", "write tempest.api.… as Tempest lists it"
    if not reason:
        return f"'{short(name)}' has no reason", "write '# ' and why it can't be run"
    if name in earlier:
        return f"'{short(name)}' is there twice", "remove one of the lines"
    return None
