"""The tree of errors that a user can cause or cure.

Every one of them prints as one line that names the place, the value and the
remedy; a character that isn't printed as it is stands there as an escape.  Anything
else is a defect of ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from discovery_xp.text import printable

# As long as a line may be; of a longer one the middle is left out.
LONGEST_LINE = 1000


def _line(text: str) -> str:
    if len(text) > LONGEST_LINE:
        text = f"{text[: LONGEST_LINE - 303]}...{text[-300:]}"
    return printable(text)


@dataclass(frozen=True, order=True)
class Problem:
    """One thing wrong with an input: where, what, and what to do about it."""

    file: str
    line: int
    key: str
    message: str
    remedy: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        subject = f"{self.key}: " if self.key else ""
        return _line(f"{place}: {subject}{self.message}; {self.remedy}")


class UserError(Exception):
    """Something the user can cure: `message` is what is wrong, `remedy` what to do about it.

    `exit_code` is what the command ends with.  Its kinds are siblings, for whoever catches one
    says by that whether anything was started.
    """

    exit_code = 2

    def __init__(self, message: str, remedy: str) -> None:
        self.message = message
        self.remedy = remedy
        super().__init__(_line(f"{message}; {remedy}"))


class InvalidInput(UserError):
    """A file or an option that can't be accepted, with every problem found in it.

    `message` and `remedy` are those of the first.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        first = self.problems[0] if self.problems else Problem("", 0, "", "", "")
        super().__init__(first.message, first.remedy)
        self.args = ("\n".join(str(problem) for problem in self.problems),)


class Refused(UserError):
    """Nothing was started: the machine or the testbed isn't fit for what was asked."""


class Failed(UserError):
    """It was started and did not finish; the remedy says how to go on."""

    exit_code = 1
