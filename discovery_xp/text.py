"""Text of others, such that it can be printed: on one line, in few words, as what it is.

Topologies, results and hosts are written by strangers.  What they hold must not move a
terminal's cursor, hide behind a change of direction, or fill a screen.  HTML, LaTeX and
ssh_config have quoting of their own, which comes after; what was escaped can't be turned back.
"""

from __future__ import annotations

import reprlib

from discovery_xp.onhost.checks import printable as printable

# As many characters of a value are shown in a message.
SHOWN = 40
# As many of a line that is all about it, such as a complaint.
LIMIT = 200


def printable_lines(text: str) -> str:
    """Return `text` with its line breaks, each of its lines printable."""
    return "\n".join(printable(line) for line in text.split("\n"))


def short(value: object) -> str:
    """Return the beginning of a value of a file, as a message shows it: `SHOWN` characters.

    Takes little time and memory, however large the value is: an alias of YAML can stand for
    gigabytes.
    """
    if isinstance(value, str):
        # One more than is shown tells whether there is more.
        text = printable(value[: SHOWN + 1])
    elif isinstance(value, bool | int | float | None):
        text = str(value)
    else:
        text = printable(_BRIEF.repr(value))
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def shortened(text: str, limit: int = LIMIT) -> str:
    """Return `printable(text)`, cut to `limit` characters; what was cut off is counted."""
    # Cut before escaping: of a gigabyte only what is shown is looked at.
    shown = printable(text[: limit + 1])
    if len(text) <= limit and len(shown) <= limit:
        return shown
    return f"{shown[:limit]}... ({len(text)} characters)"


class _Brief(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlist = self.maxdict = self.maxtuple = 4
        self.maxlevel = 2
        self.maxstring = self.maxlong = self.maxother = SHOWN


_BRIEF = _Brief()
