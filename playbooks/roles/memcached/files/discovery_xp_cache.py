"""OpenStack's two caches in memcached: with a login, and without Python's pickle.

Keystone caches what its databases hold, through dogpile.cache; the other services cache tokens
that Keystone found valid, through keystonemiddleware.  The clients that both bring along give
memcached no password and unpickle what they find there, before any signature is checked, so
whoever can write to memcached runs code as the service.  This module takes their place, by
what both offer for that: a backend of dogpile.cache, and the object in a request's environment
that keystonemiddleware's option `cache` names.  No line of OpenStack is changed.

- Each connection begins with memcached's login (its option -Y).
- Only bytes are stored and read.  Keystone's are msgpack behind a signature (HMAC-SHA256) of the
  key and the value, which is checked before anything is read; tokens are JSON that
  keystonemiddleware itself encrypts and signs (`memcache_security_strategy`).
- A memcached that doesn't answer is an empty one.

gunicorn finds the module in the folder of each service's configuration, and calls `keystone` or
`with_token_cache` for the application.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dogpile.cache import api, register_backend
from oslo_serialization import msgpackutils
from pymemcache.client.base import Client, PooledClient
from pymemcache.exceptions import MemcacheError, MemcacheUnexpectedCloseError

LOG = logging.getLogger(__name__)

# The key of a request's environment; keystonemiddleware's option `cache` has the same.
ENVIRONMENT_KEY = "discovery_xp.cache"
# The name under which oslo.cache, which knows a fixed list of names, asks for the backend.
BACKEND = "dogpile.cache.pymemcache"

SIGNATURE_BYTES = hashlib.sha256().digest_size
ANSWER_BYTES = 1024
# More than a process with our number of threads ever holds.
CONNECTIONS = 64


class Connection(Client):
    """A connection that begins with memcached's login; `login` is 'user password'."""

    login = b""

    def _connect(self) -> None:
        super()._connect()
        # The key is of no meaning: before the login, whatever is set is taken for one.
        self.sock.sendall(b"set login 0 0 %d\r\n%s\r\n" % (len(self.login), self.login))
        answer = b""
        while not answer.endswith(b"\r\n") and len(answer) < ANSWER_BYTES:
            part = self.sock.recv(ANSWER_BYTES)
            if not part:
                break
            answer += part
        if answer != b"STORED\r\n":
            self.close()
            raise ConnectionError("memcached refuses the login")


class Memcached:
    """Bytes in a memcached, by key; safe for threads.  Where it fails, nothing is found.

    It has `timeout_s` to answer; one that failed is left alone for `rest_s`, as requests
    shouldn't each wait for it.
    """

    def __init__(
        self, server: str, username: str, password: str, timeout_s: float, rest_s: float
    ) -> None:
        host, _, port = server.rpartition(":")
        login = f"{username} {password}".encode()
        self._client = PooledClient(
            (host, int(port)), connect_timeout=timeout_s, timeout=timeout_s, no_delay=True
        )
        self._client.client_class = type("Login", (Connection,), {"login": login})
        self._rest_s = rest_s
        self._rests_until = 0.0

    def get(self, key: str | bytes) -> bytes | None:
        """Return the value of a key; None where there is none."""
        value: bytes | None = self._ask(lambda: self._client.get(key), None)
        return value

    def get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """Return the values of those keys that have one."""
        values: Mapping[str, bytes] = self._ask(lambda: self._client.get_many(keys), {})
        return values

    def set(self, key: str | bytes, value: bytes, time: int = 0) -> None:
        """Set a key, for `time` seconds (0: until memcached needs the room)."""
        self._ask(lambda: self._client.set(key, value, expire=time, noreply=False), None)

    def delete(self, key: str | bytes) -> None:
        """Remove a key, if it is there."""
        self._ask(lambda: self._client.delete(key, noreply=False), None)

    def _ask(self, ask: Callable[[], Any], otherwise: Any) -> Any:
        if time.monotonic() < self._rests_until:
            return otherwise
        failure: Exception | None = None
        for _ in range(CONNECTIONS):
            try:
                return ask()
            except (MemcacheUnexpectedCloseError, ConnectionResetError, BrokenPipeError) as error:
                failure = error  # of before memcached's last restart; the client has dropped it
            except MemcacheError as error:  # of this key or value alone, such as its length
                LOG.info("memcached refuses: %s", error)
                return otherwise
            except OSError as error:
                failure = error
                break
        LOG.warning("memcached can't be asked: %s", failure)
        self._rests_until = time.monotonic() + self._rest_s
        return otherwise


class SignedBackend(api.CacheBackend):
    """What dogpile.cache stores, as msgpack behind a signature; what has none isn't read.

    Arguments: `url` (a list of one HOST:PORT), `username`, `password`, `signing_key`, and
    `timeout_s` and `rest_s` of `Memcached`.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        url = arguments["url"]
        server = url if isinstance(url, str) else url[0]
        self._cache = Memcached(
            server,
            arguments["username"],
            str(arguments["password"]),
            float(arguments["timeout_s"]),
            float(arguments["rest_s"]),
        )
        self._signing_key = str(arguments["signing_key"]).encode()

    def get(self, key: str) -> Any:
        return self._read(key, self._cache.get(key))

    def get_multi(self, keys: Iterable[str]) -> list[Any]:
        keys = list(keys)
        values = self._cache.get_many(keys)
        return [self._read(key, values.get(key)) for key in keys]

    def set(self, key: str, value: Any) -> None:
        body = msgpackutils.dumps({"payload": value.payload, "metadata": value.metadata})
        self._cache.set(key, self._signature(key, body) + body)

    def set_multi(self, mapping: Mapping[str, Any]) -> None:
        for key, value in mapping.items():
            self.set(key, value)

    def delete(self, key: str) -> None:
        self._cache.delete(key)

    def delete_multi(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.delete(key)

    def _signature(self, key: str, body: bytes) -> bytes:
        """Return the signature of both: a value of one key is none of another."""
        name = key.encode()
        signed = len(name).to_bytes(4, "big") + name + body
        return hmac.digest(self._signing_key, signed, "sha256")

    def _read(self, key: str, stored: bytes | None) -> Any:
        if stored is None:
            return api.NO_VALUE
        signature, body = stored[:SIGNATURE_BYTES], stored[SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._signature(key, body)):
            LOG.warning("what memcached has under %s isn't ours", key)
            return api.NO_VALUE
        value = msgpackutils.loads(body)
        return api.CachedValue(value["payload"], value["metadata"])


def keystone() -> Any:
    """Return Keystone's application, with `SignedBackend` for its cache."""
    register_backend(BACKEND, __name__, SignedBackend.__name__)
    return importlib.import_module("keystone.wsgi.api").application


def with_token_cache(module: str, settings: str) -> Callable[..., Any]:
    """Return the application of `module`, with a cache of tokens in each request's environment.

    `settings` is a JSON file: server (HOST:PORT), username, password, timeout_s, rest_s.
    """
    # First of all: Nova must be the first to import some of the standard library.
    application = importlib.import_module(module).application
    options = json.loads(Path(settings).read_text(encoding="utf-8"))
    cache = Memcached(
        options["server"],
        options["username"],
        options["password"],
        float(options["timeout_s"]),
        float(options["rest_s"]),
    )

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        environ[ENVIRONMENT_KEY] = cache
        return application(environ, start_response)

    return answer
