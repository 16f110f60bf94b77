"""What strangers wrote, as errors, consoles and progress print it."""

import io

import pytest
from rich.table import Table

from discovery_xp.cli.common import PlainConsole
from discovery_xp.cli.progress import Follower
from discovery_xp.errors import LONGEST_LINE, Failed, InvalidInput, Problem, Refused
from discovery_xp.text import SHOWN, printable, printable_lines, short


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, 10 ms ± 1, é, 漢", "plain, 10 ms ± 1, é, 漢"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("abc\u202egnp.exe", "abc\\u202egnp.exe"),
        ("\u2028\u200b\ufeff", "\\u2028\\u200b\\ufeff"),
        ("\udcff\udc80", "\\xff\\x80"),
        ("\ud800", "\\ud800"),
        ("\\n stays", "\\n stays"),
    ],
)
def test_what_moves_a_cursor_is_shown_as_text(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown
    shown.encode("utf-8")


def test_lines_stay_lines_where_a_file_is_printed() -> None:
    assert printable_lines("a\n\x1bb\n") == "a\n\\x1bb\n"


def test_values_are_shortened() -> None:
    assert short("x" * 10**7) == "x" * (SHOWN - 3) + "..."
    assert short([1, 2]) == "[1, 2]"
    assert short("\x1b" * 100).endswith("...")
    assert len(short("\x1b" * 100)) == SHOWN
    assert short(None) == "None"


def test_a_value_that_stands_for_gigabytes_is_shown_at_once() -> None:
    value: list[object] = ["x" * 1000]
    for _ in range(60):
        value = [value] * 10
    assert len(short(value)) <= SHOWN
    assert len(short({"x" * 10**6: value})) <= SHOWN


HOSTILE = "a\x1b[2J\nb\u202e"


@pytest.mark.parametrize(
    "error",
    [
        Refused(HOSTILE, HOSTILE),
        Failed(HOSTILE, HOSTILE),
        InvalidInput([Problem(HOSTILE, 1, HOSTILE, HOSTILE, HOSTILE)]),
    ],
)
def test_an_error_is_one_line_whatever_is_in_it(error: Exception) -> None:
    assert str(error).isprintable()


def test_a_long_line_keeps_its_remedy() -> None:
    line = str(Refused("x" * 100_000, "name another"))
    assert len(line) == LONGEST_LINE
    assert line.endswith("x; name another")


def test_a_console_reads_no_markup_and_shows_escapes() -> None:
    written = io.StringIO()
    out = PlainConsole(file=written, width=60)
    table = Table("[bold]c[/]", title="[red]t\x1b[/]", caption=":smile:")
    table.add_row("[/x] \x1b[31m\u202e")
    out.print(table)
    out.print("[/x] :smile: \x1b[31m\nb")
    text = written.getvalue()
    for words in ("[bold]c[/]", "[red]t\\x1b[/]", "[/x] \\x1b[31m\\u202e", ":smile:", "\\nb"):
        assert words in text
    assert all(line.isprintable() for line in text.splitlines())


def test_progress_is_a_line_each_with_escapes() -> None:
    follower, written = Follower(), io.StringIO()
    follower.console = PlainConsole(file=written, width=1)
    follower("[/x]\x1b[2J", 0, 0)
    follower.end("done\r")
    first, last = written.getvalue().splitlines()
    assert first.endswith(" s  [/x]\\x1b[2J")
    assert last.endswith(" s  done\\r")
