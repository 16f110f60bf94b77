import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery_xp.text import printable, printable_lines, short, shortened


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("site1, 10 ms", "site1, 10 ms"),
        ("été 東京 🙂", "été 東京 🙂"),
        ("C:\\new", "C:\\new"),
        ("a\nb\tc\rd", r"a\nb\tc\rd"),
        ("\x1b[31mred\x1b]0;title\x07", r"\x1b[31mred\x1b]0;title\x07"),
        ("\x9b2J", r"\x9b2J"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\u2066\u2069\u200b\ufeff", r"\u2066\u2069\u200b\ufeff"),
        ("a\u2028b\u2029", r"a\u2028b\u2029"),
        ("a\xa0b", r"a\xa0b"),
        ("\udc80", r"\x80"),  # a byte that is no UTF-8
        ("\ud800", r"\ud800"),
        ("\U000e0041\U0010fffd", r"\U000e0041\U0010fffd"),
        ("\0\x7f", r"\x00\x7f"),
    ],
)
def test_what_cant_be_seen_is_written_as_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters()))
def test_whatever_is_shown_is_one_line_without_a_hidden_character(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1
    assert not {unicodedata.category(each) for each in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert printable(shown) == shown
    shown.encode()


def test_a_long_value_is_cut_and_its_length_is_said() -> None:
    assert shortened("x" * 200) == "x" * 200
    assert shortened("x" * 201) == "x" * 200 + "... (201 characters)"
    assert shortened("\x1b" * 10, limit=8) == r"\x1b\x1b... (10 characters)"
    assert len(shortened("\U000e0041" * 10**6)) < 230


def test_lines_stay_lines_where_they_are_wanted() -> None:
    assert printable_lines("a\x1b\nb\u202e\n") == "a\\x1b\nb\\u202e\n"


def test_a_value_of_any_kind_is_shown_in_few_words() -> None:
    assert short("x" * 41) == "x" * 37 + "..."
    assert short([[[[1]]]] * 1000) == "[[[...]], [[...]], [[...]], [[...]], ...]"[:37] + "..."
    assert short(None) == "None"
