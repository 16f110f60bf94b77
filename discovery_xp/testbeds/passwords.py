"""A testbed's passwords: made once, kept beside its state, readable by its owner only."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Mapping
from pathlib import Path

from discovery_xp.errors import Refused
from discovery_xp.files import read_json
from discovery_xp.testbeds.testbed import Testbed, write_atomically

# One for each party that must not be able to act as another.  'redis' is of its administrator,
# 'erlang' the cookie of RabbitMQ's node, 'keystone_cache' signs what Keystone caches, and
# 'token_cache' encrypts the tokens that the other services cache.
PASSWORDS = (
    "admin", "user", "services", "database", "rabbitmq", "erlang", "redis", "memcached",
    "keystone_cache", "token_cache",
)  # fmt: skip
# Of these, those that a cloud made by an earlier version hasn't: it gets them when it is repaired,
# and can be taken off its hosts.
ADDED = ("erlang", "memcached", "keystone_cache", "token_cache")
FERNET_KEYS = ("fernet_staged", "fernet_primary")


def path(testbed: Testbed) -> Path:
    """Where they are."""
    return testbed.folder / "passwords.json"


def ensure(testbed: Testbed) -> dict[str, str]:
    """The testbed's passwords, made if they aren't there yet; raises Refused on damaged ones."""
    file = path(testbed)
    if not file.exists():
        # Letters and digits: they stand in URLs, too.
        passwords = {name: secrets.token_hex(16) for name in PASSWORDS}
        passwords |= {
            name: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode() for name in FERNET_KEYS
        }
        write_atomically(file, json.dumps(passwords, indent=1) + "\n", mode=0o600)
    saved = _read(file, testbed)
    if added := {name: secrets.token_hex(16) for name in ADDED if name not in saved}:
        _check({**saved, **added}, file, testbed)
        write_atomically(file, json.dumps({**saved, **added}, indent=1) + "\n", mode=0o600)
    return load(testbed)


def load(testbed: Testbed) -> dict[str, str]:
    """The testbed's passwords; raises Refused when there are none, or damaged ones."""
    file = path(testbed)
    return _check(_read(file, testbed), file, testbed)


def _read(file: Path, testbed: Testbed) -> dict[str, object]:
    try:
        content = read_json(file)
    except FileNotFoundError:
        raise Refused(
            f"'{testbed.name}' has no cloud", "make one with 'discovery-xp deploy TOPOLOGY'"
        ) from None
    except (PermissionError, ValueError) as error:  # ValueError: no text, or no JSON
        raise Refused(
            f"{file} can't be read ({type(error).__name__})",
            f"run as the user who made it, or 'discovery-xp destroy --testbed {testbed.name}'",
        ) from None
    return content if isinstance(content, dict) else {}


def _check(saved: Mapping[str, object], file: Path, testbed: Testbed) -> dict[str, str]:
    missing = [name for name in (*PASSWORDS, *FERNET_KEYS) if not isinstance(saved.get(name), str)]
    if missing:
        raise Refused(
            f"{file} lacks {', '.join(missing)}",
            f"'discovery-xp destroy --testbed {testbed.name}', then deploy again",
        )
    return {name: str(value) for name, value in saved.items()}


def forget(testbed: Testbed) -> None:
    """Remove them, with the cloud that knew them."""
    path(testbed).unlink(missing_ok=True)


def rabbitmq_hash(password: str, salt: str) -> str:
    """A password as RabbitMQ keeps it: base64 of 4 bytes of salt and SHA-256 of both.

    The salt is drawn from `salt`, so that the same password gives the same text each time.
    (https://www.rabbitmq.com/docs/passwords)
    """
    drawn = hashlib.sha256(salt.encode()).digest()[:4]
    return base64.b64encode(drawn + hashlib.sha256(drawn + password.encode()).digest()).decode()
