"""Grid'5000's REST API: who asks it, and its errors as ours.

python-grid5000 is the client, with the login of ~/.python-grid5000.yaml.  EnOSlib has a
client of its own, of the same file; this one can be had without loading EnOSlib.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import requests
import yaml
from grid5000 import Grid5000
from grid5000.exceptions import Grid5000AuthenticationError, Grid5000Error

from discovery_xp.boundary.answers import printable
from discovery_xp.errors import Failed, Refused

GATEWAY = "access.grid5000.fr"
# An answer takes some seconds at most; without a limit a lost one is waited for forever.
TIMEOUT_S = 60.0
_WRITE_IT = (
    "write 'username: ...' and 'password: ...' of your Grid'5000 account into it, then "
    "'chmod 600' it"
)


def login_file() -> Path:
    """Where python-grid5000 and EnOSlib look for the login."""
    return Path(os.environ.get("HOME", "/")) / ".python-grid5000.yaml"


def inside_g5k() -> bool:
    """True on a machine of the platform, which knows who calls."""
    return socket.getfqdn().endswith("grid5000.fr")


def is_configured() -> bool:
    """True where the API can be asked: there is a login, or this is a frontend."""
    return login_file().exists() or inside_g5k()


def sites() -> list[Any]:
    """All sites, but for those that the login file excludes."""
    names = client()
    return [site for site in names.sites.list() if site.uid not in names.excluded_sites]


def require_login() -> None:
    """Raise Refused where EnOSlib would go on as nobody, and fail much later."""
    path = login_file()
    if not path.exists():
        if inside_g5k():
            return  # the platform knows who calls
        raise Refused(f"{path}: there is no such file", _WRITE_IT)
    try:
        login = yaml.safe_load(path.read_text())
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        words = printable(" ".join(str(error).split()))
        raise Refused(f"{path} can't be read: {words[:150]}", _WRITE_IT) from None
    if not isinstance(login, dict) or ("username" in login) != ("password" in login):
        raise Refused(f"{path} has no login", _WRITE_IT)
    if not inside_g5k() and "username" not in login and "sslcert" not in login:
        raise Refused(f"{path} has no username", _WRITE_IT)


class Client(Grid5000):
    """python-grid5000's client, and the login file's `excluded_sites`, as EnOSlib has it."""

    def __init__(self, excluded_sites: Sequence[str] | None = None, **login: Any) -> None:
        super().__init__(**{"timeout": TIMEOUT_S, **login})
        self.excluded_sites = tuple(excluded_sites or ())


def client() -> Any:
    """Return the client of today's login file.

    Raises Refused where it would ask as nobody.
    """
    if not is_configured():
        raise Refused(f"{login_file()}: there is no such file", _WRITE_IT)
    path = login_file()
    return _client(path, path.stat().st_mtime_ns if path.exists() else 0)


@functools.lru_cache(maxsize=1)
def _client(path: Path, _changed_ns: int) -> Client:
    return Client.from_yaml(path) if path.exists() else Client()


def username() -> str:
    """Whose jobs ours are; on a frontend, where the platform knows, whoever is logged in."""
    return str(client().username or os.environ.get("USER", ""))


def jump_host(choice: str) -> str | None:
    """What ssh jumps through, for a topology's `jump_host`; None for nothing."""
    if choice == "none" or (choice == "auto" and inside_g5k()):
        return None
    return f"{username()}@{GATEWAY}" if choice == "auto" else choice


@contextlib.contextmanager
def plainly(started: bool = False) -> Iterator[None]:
    """Turn the API's errors into ours: Failed where something was `started`, else Refused."""
    kind = Failed if started else Refused
    try:
        yield
    except Grid5000AuthenticationError:
        raise kind(
            "Grid'5000's API refuses the username or the password (401)",
            f"correct {login_file()}",
        ) from None
    except Grid5000Error as error:
        raise kind(f"Grid'5000's API: {said(error)}", _remedy(error.response_code)) from None
    except requests.exceptions.RequestException as error:
        raise kind(
            f"Grid'5000's API at {client()._uri} can't be reached ({_why(error)})",
            "try again later; https://www.grid5000.fr/w/Status tells of what is down",
        ) from None


def text_of(error: Grid5000Error) -> str:
    """All that the API said.

    What OAR prints comes as JSON inside of a text, its lines escaped.
    """
    text = error.error_message
    text = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
    match = re.search(r"failed with status \d+: *(.*)", text, re.DOTALL)
    if match:
        with contextlib.suppress(ValueError):
            inner = json.loads(match[1])
            parts = inner.values() if isinstance(inner, dict) else [inner]
            text = "\n".join(part for part in parts if isinstance(part, str))
    return text.replace("\\n", "\n")


def said(error: Grid5000Error) -> str:
    """What the API said last, on one line, with its status code.

    OAR talks of filters and defaults before it comes to the point.
    """
    lines = [line.strip() for line in text_of(error).splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"\bKO\b|[Ee]rror|ADMISSION", line)]
    words = printable(" / ".join((telling or lines)[-3:])[-300:]) or "no message"
    return f"{words} ({error.response_code})" if error.response_code else words


def _remedy(code: int | None) -> str:
    if code == 403:
        return "your account has no right to it: see 'project' and 'queue' of the topology"
    if code is not None and code >= 500:
        return "try again later; https://www.grid5000.fr/w/Status tells of what is down"
    return "correct the topology; 'discovery-xp plan' prints what is asked"


def _why(error: Exception) -> str:
    if isinstance(error, requests.exceptions.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.RetryError):
        return "it fails again and again"
    return type(error).__name__
