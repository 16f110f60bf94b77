"""A database of a kind on ROME that is put back to its beginning between histories."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Protocol

import redis
from rome.engine.shared import Shared
from rome.stores.memory import store as memory
from sqlalchemy import create_engine, insert, make_url

from tests.etcd_servers import EtcdServer
from tests.interleaving.alphabet import FIRST_NUMBER
from tests.interleaving.kinds import Kind
from tests.servers import RedisCluster, RedisServer

_numbers = itertools.count()


class Database(Protocol):
    """One database, and how to open connections to it."""

    kind: Kind

    def restore(self) -> bool:
        """Put all rows and the schema back; whether the schema had been changed."""

    def fingerprint(self) -> Any:
        """A value that is equal for equal contents; None: not known."""

    def connect(self, shared: Shared, **options: bool) -> Any:
        """Open a connection of the driver as a process with these shared parts would."""

    def close(self) -> None:
        """Remove the database."""


def _opened(url: str, shared: Shared, options: dict[str, bool]) -> Any:
    dialect = make_url(url).get_dialect()()
    _, arguments = dialect.create_connect_args(make_url(url))
    return dialect.import_dbapi().connect(**{**arguments, "shared": shared, **options})


def _fill(url: str, kind: Kind) -> None:
    engine = create_engine(url)
    kind.metadata.create_all(engine)
    for table in kind.metadata.sorted_tables:
        with engine.begin() as connection:
            names = [column.name for column in table.columns]
            rows = [{name: row.get(name) for name in names} for row in kind.rows[table.name]]
            connection.execute(insert(table), rows)
    with engine.connect() as connection:
        driver: Any = connection.connection.dbapi_connection
        for made in driver.catalogue.load(driver.store).tables.values():
            # Far from the keys that statements choose.
            name = str(made.number)
            driver.store.reserve(name, FIRST_NUMBER - driver.store.reserve(name, 0))
    engine.dispose()


def _cloned(value: Any) -> Any:
    """A copy of nested containers and of plain objects that hold some."""
    if isinstance(value, dict):
        return {key: _cloned(one) for key, one in value.items()}
    if isinstance(value, set | list):
        return value.copy()  # of bytes, or of tuples of them
    if hasattr(value, "__dict__"):
        made = object.__new__(type(value))
        vars(made).update(_cloned(vars(value)))
        return made
    return value


def _frozen(value: Any) -> Any:
    """A value to compare and to hash in place of one that `_cloned` copies."""
    if isinstance(value, dict):
        return frozenset((key, _frozen(one)) for key, one in value.items())
    if isinstance(value, set):
        return frozenset(value)
    if isinstance(value, list):
        return tuple(value)
    return _frozen(vars(value)) if hasattr(value, "__dict__") else value


class InMemory:
    """In this process's memory."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self._name = f"interleaving{next(_numbers)}"
        self._url = f"rome+memory:///{self._name}"
        _fill(self._url, kind)
        self._store = memory.MemoryStore(self._name)
        self._saved = _cloned(self._contents())
        self._version = self._store.database.version

    def _contents(self) -> dict[str, Any]:
        """All that the store keeps, but for its lock and what counts upwards for ever."""
        others = ("lock", "version", "tokens")
        return {k: v for k, v in vars(self._store.database).items() if k not in others}

    def restore(self) -> bool:
        """Put all rows and the schema back; whether the schema had been changed."""
        base = self._store.database
        vars(base).update(_cloned(self._saved))
        base.tokens.clear()
        if base.version == self._version:
            return False
        # A version never stands for two schemas.
        base.version += 1
        self._version = base.version
        return True

    def fingerprint(self) -> Any:
        """A value that is equal for equal contents."""
        contents = self._contents()
        return tuple(
            _frozen(value) for name, value in contents.items() if name not in ("ids", "writes")
        )

    def connect(self, shared: Shared, **options: bool) -> Any:
        """Open a connection of the driver."""
        return _opened(self._url, shared, options)

    def close(self) -> None:
        """Remove the database."""
        memory.forget(self._name)


class InRedis:
    """On a Redis server, or on a master of a cluster; other databases stay as they are."""

    def __init__(
        self, kind: Kind, url: Callable[[str], str], client: Callable[[str], redis.Redis]
    ) -> None:
        """`url`, `client`: of a database by its name, and to the server that has it."""
        self.kind = kind
        name = f"interleaving{next(_numbers)}"
        self._url = url(name)
        self._prefix = f"{{{name}}}".encode()
        self._client = client(name)
        _fill(self._url, kind)
        self._saved = {key: self._client.dump(key) for key in self._keys()}
        self._schema = self._schema_now()

    def _keys(self) -> list[bytes]:
        """The keys that stay: tokens of commits and the like go by themselves."""
        found: Any = self._client.keys(self._prefix + b"*")
        pipe = self._client.pipeline(transaction=False)
        for key in found:
            pipe.pttl(key)
        return [key for key, left in zip(found, pipe.execute(), strict=True) if left < 0]

    def _schema_now(self) -> list[Any]:
        keys = sorted(key for key in self._saved if key.endswith((b"meta", b"schema")))
        return [self._client.hgetall(key) for key in keys]

    def restore(self) -> bool:
        """Put all rows and the schema back; whether the schema had been changed."""
        changed = self._schema_now() != self._schema
        pipe = self._client.pipeline(transaction=True)
        pipe.delete(*self._keys())
        for key, value in self._saved.items():
            pipe.restore(key, 0, value)  # type: ignore[arg-type]
        pipe.execute()
        return changed

    def fingerprint(self) -> Any:
        """Nothing: it would cost more than what it saves."""
        return None

    def connect(self, shared: Shared, **options: bool) -> Any:
        """Open a connection of the driver."""
        return _opened(self._url, shared, options)

    def close(self) -> None:
        """Remove the database."""
        keys = self._keys()
        if keys:
            self._client.delete(*keys)
        self._client.close()


class InEtcd:
    """In an etcd member; other databases stay as they are."""

    def __init__(self, kind: Kind, server: EtcdServer) -> None:
        self.kind = kind
        self._server = server
        self._name = f"interleaving{next(_numbers)}"
        self._url = server.url(self._name)
        _fill(self._url, kind)
        self._saved = self._contents()

    def _contents(self) -> dict[bytes, bytes]:
        """The keys that stay: tokens go by themselves."""
        keys = self._server.keys(self._name)
        return {key: value for key, value in keys.items() if not key.startswith(b"t:")}

    def restore(self) -> bool:
        """Put all rows and the schema back; whether the schema had been changed."""
        now = self._contents()
        puts = {key: value for key, value in self._saved.items() if now.get(key) != value}
        self._server.change(self._name, puts, now.keys() - self._saved.keys())
        return any(now.get(key) != value for key, value in self._saved.items() if key[:1] in b"sv")

    def fingerprint(self) -> Any:
        """Nothing: it would cost more than what it saves."""
        return None

    def connect(self, shared: Shared, **options: bool) -> Any:
        """Open a connection of the driver."""
        return _opened(self._url, shared, options)

    def close(self) -> None:
        """Remove the database."""
        self._server.change(self._name, {}, self._contents())


def in_etcd(server: EtcdServer) -> Callable[[Kind], InEtcd]:
    """Make databases in an etcd member."""
    return lambda kind: InEtcd(kind, server)


def on_server(server: RedisServer) -> Callable[[Kind], InRedis]:
    """Make databases on a Redis server."""
    return lambda kind: InRedis(kind, server.url, lambda name: server.client())


def on_cluster(cluster: RedisCluster) -> Callable[[Kind], InRedis]:
    """Make databases on a Redis Cluster."""
    return lambda kind: InRedis(kind, cluster.url, lambda name: cluster.owner(name).client())
