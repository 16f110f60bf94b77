"""Files of other programs: what their own readers get out of them is what was put in."""

import ast
import json
import math
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from discovery_xp.boundary import writers
from discovery_xp.boundary.writers import Unwritable
from discovery_xp.errors import Refused
from discovery_xp.testbeds.testbed import Testbed
from tests.unit import unchecked

# Texts that look like parts of the formats as well as any others.
PIECES = st.sampled_from(
    ["\n", "\r", "\t", " ", "#", ";", "=", ":", "[", "]", "[x]", '"', "'", "\\", "$", "$$", "${x}",
     "%", "%%", "%(x)s", "{{", "}}", "{%", "{#", "#{x}", "`", "$(x)", "x = 1", "a", "é", "\x00",
     "\x0b", "\x1b[2J", "\x85", "\u2028", "-", "~", "*", "!", ",", "  ProxyCommand touch x\n"]
)  # fmt: skip
TEXTS = st.lists(PIECES | st.text(max_size=3), max_size=6).map("".join)
# Few are refused: lines and quotes, but no control characters.
LINES = st.lists(st.sampled_from([*"ab #;=:[]\"'$%{}\\", "\n", "[x]", "x = 1"]), max_size=8).map(
    "".join
)
ONE_LINE = LINES.map(lambda text: text.replace("\n", "/"))
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,10}", fullmatch=True)


def written(write: Callable[[], str]) -> str:
    """What a writer makes of values; those that it refuses are no examples."""
    try:
        return write()
    except Unwritable:
        assume(False)
    raise AssertionError("assume returned")


# ---------------------------------------------------------------- INI


def read_ini(text: str) -> dict[str, dict[str, list[str]]]:
    """Read INI by the rules of oslo.config: lines that begin with blanks go on with a value,
    blank ones end it, and a pair of quotes around its first line is taken off.
    """
    found: dict[str, dict[str, list[str]]] = {}
    section: dict[str, list[str]] | None = None
    values: list[str] | None = None
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        line = line.rstrip()
        if not line:
            values = None
        elif line[0] in " \t":
            assert values is not None, "a line goes on with nothing"
            values[-1] += "\n" + line.lstrip()
        elif line[0] == "[":
            assert line.endswith("]")
            section, values = found.setdefault(line[1:-1], {}), None
        elif line[0] not in "#;":
            assert section is not None
            cut = min(place for place in (line.find("="), line.find(":")) if place >= 0)
            value = line[cut + 1 :].strip()
            if value and value[0] == value[-1] and value[0] in "\"'":
                value = value[1:-1]
            values = section.setdefault(line[:cut].strip(), [])
            values.append(value)
    return found


@given(st.dictionaries(NAMES, st.dictionaries(NAMES, LINES, max_size=2), max_size=2))
@example({"DEFAULT": {"a": " x "}})
@example({"DEFAULT": {"a": '"x"'}})
@example({"DEFAULT": {"a": '"'}})
@example({"DEFAULT": {"a": "one\n[two]\nthree = 3"}})
def test_oslo_config_reads_what_was_given(values: dict[str, dict[str, str]]) -> None:
    text = written(lambda: writers.ini(values))
    assert read_ini(text) == {
        section: {option: [value.rstrip("\n")] for option, value in options.items()}
        for section, options in values.items()
    }


@pytest.mark.parametrize(
    ("section", "option", "value"),
    [
        ("DEFAULT", "a", "x\n\ny = 1"),
        ("DEFAULT", "a", "x\r[y]"),
        ("DEFAULT", "a", "x\x00"),
        ("DEFAULT", "a", "x\u2028y"),
        ("DEFAULT", "a", "x\n  y"),
        ("DEFAULT", "a\nb", "x"),
        ("DEFAULT", "a=b", "x"),
        ("DEFAULT", "#a", "x"),
        ("DEFAULT", "", "x"),
        ("x]\n[y", "a", "x"),
        ("", "a", "x"),
        ("DEFAULT", "a", math.inf),
        ("DEFAULT", "a", math.nan),
    ],
)
def test_what_ini_cannot_hold_is_refused(section: str, option: str, value: object) -> None:
    with pytest.raises(Unwritable):
        writers.ini({section: {option: value}})
    assert writers.ini_problem(section, option, value)


@pytest.mark.parametrize(
    "write", [writers.redis_word, writers.systemd_word, writers.sql_text, writers.ssh_path]
)
@pytest.mark.parametrize(
    "text", ["a\nb", "a\rb", "a\x00", "\x1b[2J", "a\x85b", "a\u2028b", "\ud800"]
)
def test_a_line_holds_no_control_character(write: Callable[[str], str], text: str) -> None:
    with pytest.raises(Unwritable):
        write(text)


@pytest.mark.parametrize("section", ["DEFAULT", "filter:authtoken", "ml2_type_vlan", "a b"])
def test_sections_of_services_are_names(section: str) -> None:
    assert writers.ini_problem(section, "a.b-c", "$state_path/%(x)s") is None


# ---------------------------------------------------------------- ssh_config


def seen_by_ssh(file: Path, host: str) -> dict[str, list[str]]:
    """What ssh itself takes out of a configuration."""
    done = subprocess.run(
        ["ssh", "-G", "-F", str(file), host], capture_output=True, text=True, check=True
    )
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        key, _, value = line.partition(" ")
        found.setdefault(key, []).append(value)
    return found


def config_of(folder: Path, **values: Any) -> Path:
    """The ssh_config of a testbed with one host."""
    testbed = Testbed("t")
    testbed.folder = folder
    host = unchecked.ssh_host(**values)
    testbed.write_ssh_config({"a-compute-1": host}, check_keys="accept-new")
    return testbed.ssh_config


@settings(max_examples=30, deadline=None)
@given(
    user=NAMES,
    key=st.text("ab #;=:[]'{}!*,é", max_size=8).map(lambda text: f"/my keys/{text}#"),
    port=st.integers(1, 65535),
)
def test_ssh_takes_out_of_its_configuration_what_was_given(
    user: str, key: str, port: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("t")
    try:
        file = config_of(folder, user=user, key=key, port=port)
    except Refused:
        assume(False)
    found = seen_by_ssh(file, "a-compute-1")
    assert (found["user"], found["port"]) == ([user], [str(port)])
    assert (found["identityfile"], found["hostname"]) == ([key], ["192.0.2.1"])
    assert "proxycommand" not in found
    assert found["userknownhostsfile"] == [str(folder / "known_hosts")]
    assert found["stricthostkeychecking"] == ["accept-new"]


@pytest.mark.parametrize(
    "values",
    [
        {"user": "root\n  ProxyCommand touch /tmp/pwned"},
        {"user": "{{ lookup('pipe', 'id') }}"},
        {"user": "-oProxyCommand=id"},
        {"user": "a b"},
        {"user": ""},
        {"key": '/k"\n  ProxyCommand touch /tmp/pwned\n  IdentityFile "/k'},
        {"key": "/k\\"},
        {"key": "/k/%h"},
        {"key": "/k/${HOME}"},
        {"key": "~/k"},
        {"address": "192.0.2.1 *"},
        {"address": "-oProxyCommand=id"},
        {"address": "*"},
        {"jump": "a@b,c@d"},
        {"jump": "none"},
        {"jump": "b\n  ProxyCommand touch /tmp/pwned"},
        {"jump": "-J"},
        {"port": "22\nProxyCommand touch /tmp/pwned"},
        {"port": 0},
    ],
)
def test_what_ssh_would_take_apart_is_refused_in_one_line(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    with pytest.raises(Refused) as refused:
        config_of(tmp_path, **values)
    assert "host" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_a_blank_is_quoted_and_one_with_a_quote_refused(tmp_path: Path) -> None:
    (tmp_path / "my testbeds").mkdir()
    file = config_of(tmp_path / "my testbeds")
    assert seen_by_ssh(file, "192.0.2.1")["userknownhostsfile"] == [
        str(tmp_path / "my testbeds/known_hosts")
    ]
    with pytest.raises(Refused, match="the testbed's folder"):
        config_of(tmp_path / 'my "testbeds')


# ---------------------------------------------------------------- shells, units, languages


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(NAMES.map(lambda name: f"X{name}"), LINES, max_size=3))
def test_a_shell_exports_what_was_given(values: dict[str, str]) -> None:
    text = written(lambda: writers.shell_exports(values))
    script = text + "".join(f'printf "%s\\0" "${name}"\n' for name in values)
    done = subprocess.run(["sh"], input=script.encode(), capture_output=True, check=True)
    assert done.stdout == b"".join(value.encode() + b"\0" for value in values.values())


@given(TEXTS | st.integers() | st.booleans())
def test_python_reads_what_was_given(value: object) -> None:
    assert ast.literal_eval(writers.python_literal(value)) == value
    assert "\n" not in writers.python_literal(value)


def unquoted(text: str, quote: str) -> str:
    """What a reader gets out of quotes in which a backslash stands before any character."""
    assert text[0] == text[-1] == quote
    found, rest = "", text[1:-1]
    while rest:
        assert rest[0] != quote, "the text ends here"
        step = 2 if rest[0] == "\\" else 1
        found, rest = found + rest[step - 1 : step], rest[step:]
    return found


@given(ONE_LINE)
def test_redis_reads_what_was_given(value: str) -> None:
    assert unquoted(written(lambda: writers.redis_word(value)), '"') == value


@given(ONE_LINE)
def test_systemd_reads_what_was_given_and_expands_nothing(value: str) -> None:
    text = unquoted(written(lambda: writers.systemd_word(value)), '"')
    assert text.replace("%%", "").count("%") == 0
    assert text.replace("%%", "%") == value


@given(ONE_LINE)
def test_sql_reads_what_was_given(value: str) -> None:
    text = written(lambda: writers.sql_text(value))
    assert unquoted("'" + text[1:-1].replace("''", "\\'") + "'", "'") == value


@settings(max_examples=30)
@given(st.recursive(LINES, lambda inside: st.lists(inside) | st.dictionaries(TEXTS, inside)))
@example({"a": "{{ 7 * 7 }}{% raw %}{# x #}"})
@example({"a": [{"b": {}}]})
def test_json_is_no_template_of_jinja(value: object) -> None:
    text = writers.json_without_templates(value)
    assert json.loads(text) == value
    assert jinja2.Template(text, keep_trailing_newline=True).render() == text


@pytest.mark.parametrize(
    "value",
    ["{{ x }}", "#{`id`}", 'a"b', "a'b", "a\nb", "a$(id)", "a;b", "a|b", "a\\b", "-x", "é", "<a>"],
)
def test_what_enoslib_pastes_is_plain(value: str) -> None:
    with pytest.raises(Unwritable):
        writers.plain(value)


@pytest.mark.parametrize("value", ["generic/debian12", "/home/me/my image.qcow2", "a@b:c=1", ""])
def test_usual_names_are_plain(value: str) -> None:
    assert writers.plain(value) == value
