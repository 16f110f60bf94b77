"""Text for files of other programs, with every value quoted as its reader takes it apart.

Each writer either writes a text from which the format's own reader gets exactly the values
that were given, or raises `Unwritable`: no value can become a line, an option or a command of
its own.  A template of `playbooks/` reaches them as filters.
"""

from __future__ import annotations

import json
import math
import re
import shlex
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Settings = Mapping[str, Mapping[str, Any]]


class Unwritable(ValueError):
    """A value that a format can't hold; the message says why, without the value."""


def control_character(text: str, allowed: str = "") -> str | None:
    """The first character that is no text: a control, a separator of lines, half of a pair."""
    for character in text:
        if character not in allowed and (
            unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        ):
            return character
    return None


def _require_text(text: str, allowed: str = "") -> str:
    character = control_character(text, allowed)
    if character is not None:
        raise Unwritable(f"has the control character {character!a}")
    return text


# ---------------------------------------------------------------- INI, as oslo.config reads it

_SECTION = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.:/@+ -]*[A-Za-z0-9_.:/@+-])?")
_OPTION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./@+-]*")


def ini(settings: Settings, *overrides: Settings | None) -> str:
    """Write `settings` with `overrides` on top, as oslo.config and MariaDB read them.

    A list gives one line for each item; True and False are lower case; None leaves the
    option out; further lines of a text are indented, so that they stay a part of it.  Blanks
    and quotes at the ends of a value are kept by quotes around it.  `$OPTION` is what
    oslo.config makes of it: the value of another option of that service.
    """
    merged: dict[str, dict[str, Any]] = {}
    for layer in (settings, *overrides):
        for section, options in (layer or {}).items():
            merged.setdefault(section, {}).update(options or {})
    blocks = []
    for section, options in merged.items():
        if not _SECTION.fullmatch(section):
            raise Unwritable(f"{section!a} is no name of a section")
        lines = [f"[{section}]"]
        for option, value in options.items():
            if value is None:
                continue
            for item in value if isinstance(value, list) else [value]:
                try:
                    lines.append(_ini_line(option, item))
                except Unwritable as error:
                    raise Unwritable(f"[{section}] {option!a}: {error}") from None
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def ini_problem(section: str, option: str, value: object) -> str | None:
    """Say why a setting can't be written, None where it can."""
    try:
        ini({section: {option: value}})
    except Unwritable as error:
        return str(error)
    return None


def _ini_line(option: str, value: object) -> str:
    if not _OPTION.fullmatch(option):
        raise Unwritable("that is no name of an option")
    if isinstance(value, bool):
        return f"{option} = {str(value).lower()}"
    if isinstance(value, float) and not math.isfinite(value):
        raise Unwritable("that is no number")
    text = _require_text(str(value).rstrip("\n"), allowed="\n\t")
    first, *further = text.split("\n")
    for line in further:
        if line != line.strip() or not line:
            raise Unwritable("further lines of a text can't be empty, nor begin or end with blanks")
    # One pair of quotes around the first line is taken off by the reader.
    if first != first.strip() or (first and first[0] == first[-1] and first[0] in "\"'"):
        first = f'"{first}"'
    return "\n  ".join([f"{option} = {first}", *further])


# ---------------------------------------------------------------- ssh_config

_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_CHECK_KEYS = ("yes", "no", "accept-new")


def ssh_user(text: str) -> str:
    """A login's name, which ssh neither splits nor expands."""
    if not _USER.fullmatch(text):
        raise Unwritable(f"{_shown(text)} is no name of a user")
    return text


def ssh_host(text: str) -> str:
    """A host's name or IPv4 address: no pattern, no option."""
    if not _HOST.fullmatch(text):
        raise Unwritable(f"{_shown(text)} is no name or address of a host")
    return text


def ssh_jump(text: str) -> str:
    """What ProxyJump takes, one host of it: [USER@]HOST[:PORT]."""
    user, at, place = text.rpartition("@")
    host, colon, port = place.partition(":")
    if at:
        ssh_user(user)
    ssh_host(host)
    if colon:
        ssh_port(port)
    if host == "none":
        raise Unwritable("'none' is ssh's word for no jump host")
    return text


def ssh_port(value: int | str) -> int:
    """A TCP port."""
    text = str(value)
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise Unwritable(f"{_shown(text)} is no port")
    return int(text)


def ssh_path(text: str) -> str:
    """A path in quotes, which ssh takes as it is.

    What ssh would expand (`~`, `%h`, `${HOME}`) or can't quote in all its versions is refused:
    Ansible hands the same path to it in another way.
    """
    _require_text(text)
    if not text or text.startswith(("~", "-")) or re.search(r'["\\%$]', text):
        raise Unwritable(f'{_shown(text)} is no path that ssh takes as it is (no ~ % $ " \\)')
    return f'"{text}"'


def ssh_config(blocks: Iterable[tuple[str, Sequence[tuple[str, str]]]]) -> str:
    """Write blocks of (criterion, options); values come from the functions above."""
    lines = []
    for criterion, options in blocks:
        for word in (criterion, *(f"{key} {value}" for key, value in options)):
            _require_text(word)
        lines.append(criterion)
        lines += [f"  {key} {value}" for key, value in options]
    return "".join(f"{line}\n" for line in lines)


def ssh_check_keys(word: str) -> str:
    """A value of StrictHostKeyChecking."""
    if word not in _CHECK_KEYS:
        raise Unwritable(f"{_shown(word)} is none of {', '.join(_CHECK_KEYS)}")
    return word


# ---------------------------------------------------------------- others' templates and languages

_PLAIN = re.compile(r"[A-Za-z0-9_./:@=,+~ -]*")


def plain(text: str) -> str:
    """A value without any character that Jinja, YAML, Ruby, a shell or Ansible has a use for.

    EnOSlib pastes what it is given into files and commands of its own.
    """
    if not _PLAIN.fullmatch(text) or text.startswith("-"):
        raise Unwritable(
            f"{_shown(text)} has other characters than A-Z a-z 0-9 _ . / : @ = , + ~ -"
        )
    return text


def shell_exports(variables: Mapping[str, str]) -> str:
    """Write a file for a shell's `.` that sets and exports variables."""
    lines = []
    for name, value in variables.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise Unwritable(f"{_shown(name)} is no name of a variable")
        lines.append(f"export {name}={shlex.quote(_require_text(value, allowed=chr(10) + chr(9)))}")
    return "".join(f"{line}\n" for line in lines)


def systemd_word(value: object) -> str:
    """A value in quotes for a line of a unit, such as Environment=; nothing in it is expanded."""
    text = _require_text(str(value))
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'


def python_literal(value: object) -> str:
    """A text or a number as Python writes it."""
    return str(value) if isinstance(value, bool | int) else ascii(str(value))


def sql_text(value: object) -> str:
    """A text as a literal of MariaDB's SQL."""
    text = _require_text(str(value))
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def redis_word(value: object) -> str:
    """One argument of a line of redis.conf."""
    text = _require_text(str(value))
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def json_without_templates(value: object) -> str:
    """JSON that a reader may take for a template of Jinja: nothing in it begins an expression."""
    # With an indent, braces of JSON itself never stand side by side.
    return re.sub(r"\{(?=[{%#])", r"\\u007b", json.dumps(value, indent=1))


def _shown(text: str) -> str:
    """A short form of a refused value, safe to print."""
    shown = ascii(text)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
