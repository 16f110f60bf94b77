"""The clients of memcached that services get: what strangers put there is never read.

Their libraries are on the hosts only: small ones stand here for dogpile.cache, msgpack and
pymemcache.  The real tests use the real ones.
"""

import importlib
import json
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from tests.unit.test_playbooks import loaded

ARGUMENTS = {
    "url": ["10.0.0.1:11211"], "username": "openstack", "password": "p1", "signing_key": "k1",
    "timeout_s": "3", "rest_s": "10",
}  # fmt: skip


class CachedValue(NamedTuple):
    payload: Any
    metadata: Any


class MemcacheError(Exception):
    pass


class Closed(MemcacheError):
    pass


class Wire:
    """A connection's socket: what was sent, and what memcached says."""

    def __init__(self, says: bytes) -> None:
        self.says, self.sent = [says[:4], says[4:]], b""

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def recv(self, _: int) -> bytes:
        return self.says.pop(0) if self.says else b""


class Client:
    says = b"STORED\r\n"

    def _connect(self) -> None:
        self.sock: Wire | None = Wire(self.says)

    def close(self) -> None:
        self.sock = None


class PooledClient:
    """A memcached in a dictionary; `failures` are raised first, one by one."""

    client_class: type = Client

    def __init__(self, server: tuple[str, int], **_: Any) -> None:
        self.server = server
        self.held: dict[str, bytes] = {}
        self.failures: list[Exception] = []
        self.asked = 0

    def _fail(self) -> None:
        self.asked += 1
        if self.failures:
            raise self.failures.pop(0)

    def get(self, key: str) -> bytes | None:
        self._fail()
        return self.held.get(key)

    def get_many(self, keys: list[str]) -> dict[str, bytes]:
        self._fail()
        return {key: self.held[key] for key in keys if key in self.held}

    def set(self, key: str, value: bytes, expire: int, noreply: bool) -> None:
        self._fail()
        assert isinstance(value, bytes)
        self.held[key] = value

    def delete(self, key: str, noreply: bool) -> None:
        self._fail()
        self.held.pop(key, None)


REGISTERED: list[tuple[str, str, str]] = []


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    def module(name: str, **members: Any) -> None:
        made = ModuleType(name)
        vars(made).update(members)
        monkeypatch.setitem(sys.modules, name, made)

    api = ModuleType("dogpile.cache.api")
    vars(api).update(CacheBackend=object, NO_VALUE="nothing", CachedValue=CachedValue)
    register: Callable[..., None] = lambda *words: REGISTERED.append(words)  # noqa: E731
    module("dogpile")
    module("dogpile.cache", api=api, register_backend=register)
    packing = ModuleType("msgpackutils")
    vars(packing).update(dumps=lambda value: json.dumps(value).encode(), loads=json.loads)
    module("oslo_serialization", msgpackutils=packing)
    module("pymemcache")
    module("pymemcache.client")
    module("pymemcache.client.base", Client=Client, PooledClient=PooledClient)
    module(
        "pymemcache.exceptions", MemcacheError=MemcacheError, MemcacheUnexpectedCloseError=Closed
    )
    yield loaded("roles/memcached/files/discovery_xp_cache.py")
    REGISTERED.clear()


@pytest.fixture
def backend(cache: ModuleType) -> Any:
    return cache.SignedBackend(ARGUMENTS)


def held(backend: Any) -> dict[str, bytes]:
    found: dict[str, bytes] = backend._cache._client.held
    return found


VALUE = CachedValue({"user": "a"}, {"ct": 1.5, "v": 2})


def test_a_value_comes_back(backend: Any) -> None:
    backend.set("a", VALUE)
    backend.set_multi({"b": VALUE})
    assert backend.get("a") == VALUE
    assert backend.get_multi(["a", "none", "b"]) == [VALUE, "nothing", VALUE]
    backend.delete("a")
    backend.delete_multi(["b"])
    assert backend.get_multi(["a", "b"]) == ["nothing", "nothing"]


def test_a_pickle_of_a_stranger_is_nothing(backend: Any, tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    for stored in (pickle.dumps(Attack()), b"\0" * 32 + pickle.dumps(Attack()), b""):
        held(backend)["a"] = stored
        assert backend.get("a") == "nothing"
    assert not (tmp_path / "ran").exists()


def test_a_value_of_another_key_or_another_signer_is_nothing(
    cache: ModuleType, backend: Any
) -> None:
    backend.set("a", VALUE)
    held(backend)["b"] = held(backend)["a"]
    assert backend.get("b") == "nothing"
    stranger = cache.SignedBackend({**ARGUMENTS, "signing_key": "k2"})
    stranger.set("a", CachedValue({"user": "admin"}, {}))
    held(backend)["a"] = held(stranger)["a"]
    assert backend.get("a") == "nothing"


def test_a_changed_value_is_nothing(backend: Any) -> None:
    backend.set("a", VALUE)
    held(backend)["a"] = held(backend)["a"].replace(b'"a"', b'"b"')
    assert backend.get("a") == "nothing"


def test_a_connection_begins_with_the_login(backend: Any) -> None:
    connection = backend._cache._client.client_class()
    connection._connect()
    assert connection.sock.sent == b"set login 0 0 12\r\nopenstack p1\r\n"


@pytest.mark.parametrize("says", [b"CLIENT_ERROR authentication failure\r\n", b"", b"x" * 5000])
def test_a_login_that_is_refused_is_a_failure(
    backend: Any, says: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Client, "says", says)
    connection = backend._cache._client.client_class()
    with pytest.raises(ConnectionError, match="refuses the login"):
        connection._connect()
    assert connection.sock is None


def test_connections_of_before_a_restart_are_tried_and_dropped(backend: Any) -> None:
    backend.set("a", VALUE)
    backend._cache._client.failures = [ConnectionResetError(), Closed(), BrokenPipeError()] * 6
    assert backend.get("a") == VALUE


def test_a_value_that_memcached_refuses_is_missing_and_nothing_else(backend: Any) -> None:
    backend._cache._client.failures = [MemcacheError("object too large for cache")]
    backend.set("a", VALUE)
    assert backend.get("a") == "nothing"
    backend.set("b", VALUE)
    assert backend.get("b") == VALUE


def test_a_memcached_that_hangs_up_each_time_is_an_empty_one(backend: Any) -> None:
    backend.set("a", VALUE)
    backend._cache._client.failures = [ConnectionResetError()] * 1000
    assert backend.get("a") == "nothing"


def test_a_memcached_that_fails_is_an_empty_one_and_left_alone_for_a_while(
    cache: ModuleType, backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(cache.time, "monotonic", lambda: now)
    client = backend._cache._client
    backend.set("a", VALUE)
    client.failures, client.asked = [TimeoutError()], 0
    assert backend.get("a") == "nothing"
    assert backend.get_multi(["a"]) == ["nothing"]
    backend.set("a", VALUE)
    assert client.asked == 1
    now += 10
    assert backend.get("a") == VALUE


def test_keystone_gets_the_backend_under_the_name_of_its_settings(
    cache: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = ModuleType("keystone.wsgi.api")
    vars(api).update(application="keystone")
    monkeypatch.setitem(sys.modules, "keystone.wsgi.api", api)
    assert cache.keystone() == "keystone"
    assert [("dogpile.cache.pymemcache", cache.__name__, "SignedBackend")] == REGISTERED


def test_a_service_finds_the_cache_in_each_request(
    cache: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = ModuleType("service")
    vars(service).update(application=lambda environ, _: environ["discovery_xp.cache"])
    monkeypatch.setitem(sys.modules, "service", service)
    assert importlib.import_module("service") is service
    settings = tmp_path / "memcached.json"
    settings.write_text(
        json.dumps(
            {"server": "h:1", "username": "u", "password": "p", "timeout_s": 3, "rest_s": 10}
        )
    )
    answer = cache.with_token_cache("service", str(settings))
    found = answer({}, None)
    assert answer({}, None) is found
    found.set("tokens/x", b"1", time=60)
    assert found.get("tokens/x") == b"1"
