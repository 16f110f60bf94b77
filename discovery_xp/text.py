"""Text from files, hosts and command lines, made fit to be shown.

Names and values of topologies, scenarios, results and hosts may hold line breaks, escape
sequences that move a terminal's cursor or set its title, and characters that turn the
direction of writing around.  Whoever shows such text, in a message, a table or a page,
passes it through `printable` first: every character that has no glyph of its own is then
written as Python writes it in a string, `\\n`, `\\x1b`, `\\u202e`, and what is shown is one
line.  `shortened` bounds its length besides.

The result is for people: it can't be turned back, as a backslash stays what it is.  HTML,
LaTeX and ssh_config have quoting of their own, which comes after.
"""

from __future__ import annotations

import re

LIMIT = 200  # characters of a value in a message: two lines of a terminal

# What a page is made of may come in one piece; here no character can hide by being common.
_HIDDEN = re.compile(r"[^\x20-\x7e]")


def printable(text: str) -> str:
    """Return `text` with every character that can't be seen written as an escape.

    These are control and format characters (bidirectional overrides and zero-width ones
    among them), line and paragraph separators, all spaces but the usual one, surrogates,
    and code points that are private or unassigned: those of which `str.isprintable` is
    false.  Everything else, in any script, stays.
    """
    if text.isprintable():
        return text
    return _HIDDEN.sub(lambda found: _visible(found[0]), text)


def shortened(text: str, limit: int = LIMIT) -> str:
    """Return `printable(text)`, cut to `limit` characters; what was cut off is counted."""
    # Cut before escaping: of a gigabyte only what is shown is looked at.
    shown = printable(text[: limit + 1])
    if len(text) <= limit and len(shown) <= limit:
        return shown
    return f"{shown[:limit]}... ({len(text)} characters)"


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")
