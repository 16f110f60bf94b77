"""ROME's URLs: their options, names and addresses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.engine.url import URL

# Options that had another name in an earlier version.
_RENAMED = {"answers": "result_cache", "foresight": "prefetch"}


# Names of databases and tags are parts of keys.  Braces and colons end these parts, the others
# have a meaning in patterns of keys.
NO_NAME = r"""{}:*?[]^\ and characters that can't be printed"""


class UrlOptions:
    """The options of a URL; each may be asked for once, and none may be left."""

    def __init__(self, query: Mapping[str, Any]) -> None:
        self._query = dict(query)
        self._asked: set[str] = set()

    def text(self, name: str) -> str | None:
        """Return a text, or None."""
        self._asked.add(name)
        value = self._query.pop(name, None)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"option {name} stands there twice")
        return value

    def number(self, name: str, default: float) -> float:
        """Return a number that isn't negative."""
        value = self.text(name)
        if value is None:
            return default
        try:
            number = float(value)
        except ValueError:
            number = -1
        if not 0 <= number < 1e9:
            raise ValueError(f"option {name}={value}: give a number from 0 on")
        return number

    def maybe_number(self, name: str) -> float | None:
        """Return a number that isn't negative, or None."""
        self._asked.add(name)
        return self.number(name, 0) if name in self._query else None

    def choice(self, name: str, *choices: str) -> str:
        """Return one of some words, the first of them where nothing is said."""
        value = self.text(name)
        if value is None:
            return choices[0]
        if value not in choices:
            raise ValueError(f"option {name}={value}: say {' or '.join(choices)}")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """Return a switch."""
        value = self.text(name)
        if value is None:
            return default
        switches = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}
        if value.lower() not in switches:
            raise ValueError(f"option {name}={value}: say on or off")
        return switches[value.lower()]

    def done(self) -> None:
        """Refuse what nobody asked for."""
        if not self._query:
            return
        unknown = min(self._query)
        if unknown in _RENAMED:
            raise ValueError(f"option {unknown} has the name {_RENAMED[unknown]} now")
        raise ValueError(
            f"unknown option {unknown}: the options are {', '.join(sorted(self._asked))}"
        )


def is_name(text: str) -> bool:
    """Tell whether a text may name a database or a tag."""
    return bool(text) and text.isprintable() and not any(c in "{}:*?[]^\\ " for c in text)


def addresses_of(url: URL, default_port: int = 6379) -> list[tuple[str, int]]:
    """Return the hosts: `host1,host2:port`, or with a port each `[host1:port1,host2:port2]`.

    SQLAlchemy's URLs have room for one port, and anything in brackets is a host to it.
    """
    default = url.port or default_port
    addresses = []
    for part in (url.host or "localhost").split(","):
        host, colon, port = part.rpartition(":")
        if not colon or ":" in host:  # a name, or an address of IPv6
            host, port = part, str(default)
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError(f"'{part}' is no host:port")
        addresses.append((host, int(port)))
    return addresses
