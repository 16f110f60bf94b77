"""Text of others, such that it can be printed: on one line, in few words, as what it is.

Topologies, results and hosts are written by strangers.  What they hold must not move a
terminal's cursor, hide behind a change of direction, or fill a screen.  HTML, LaTeX and
ssh_config have quoting of their own, which comes after; what was escaped can't be turned back.
"""

from __future__ import annotations

import reprlib

# As many characters of a value are shown in a message.
SHOWN = 40
# As many of a line that is all about it, such as a complaint.
LIMIT = 200


def printable(text: str) -> str:
    r"""Return `text` on one line, whatever isn't printed as it is as an escape.

    A line break becomes `\n`, an escape sequence begins with `\x1b`, a change of direction
    is `\u202e`; a byte of a command line that is no UTF-8 is `\xff`.  What it returned stays
    as it is when it is given again.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def printable_lines(text: str) -> str:
    """Return `text` with its line breaks, each of its lines printable."""
    return "\n".join(printable(line) for line in text.split("\n"))


def _escaped(char: str) -> str:
    if 0xDC80 <= ord(char) <= 0xDCFF:  # how Python keeps a byte that it can't decode
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


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
