"""The SQLAlchemy dialect: `rome+redis://`, `rome+rediss://`, `rome+etcd://`, `rome+memory://`.

SQL is written as for SQLite, which evaluates it.  While a statement is compiled, its
SELECTs are noted; from them comes the plan that says which rows to read, once for each
statement in SQLAlchemy's cache.
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Sequence
from typing import Any

from sqlalchemy import exc, pool, types
from sqlalchemy.dialects.sqlite.base import (
    SQLiteDialect,
    SQLiteExecutionContext,
)
from sqlalchemy.engine.url import URL
from sqlalchemy.sql.compiler import InsertmanyvaluesSentinelOpts

from rome import driver
from rome.dialect.compiler import (
    RomeCompiler,
    RomeDDLCompiler,
    RomeTypeCompiler,
    as_for_sqlite,
    layout_of,
)
from rome.dialect.decimals import RomeNumeric
from rome.dialect.url import NO_NAME, UrlOptions, addresses_of, is_name
from rome.engine.shared import shared
from rome.planner.plan import Layout, Plan
from rome.stores.etcd.connection import ANSWER_S
from rome.stores.etcd.connection import Server as EtcdServer
from rome.stores.etcd.store import EtcdStore
from rome.stores.etcd.writing import LEAST_OPERATIONS
from rome.stores.memory.store import MemoryStore
from rome.stores.redis.link import Server
from rome.stores.redis.store import LONGEST_TABLE_LEASE_S, RedisStore


class RomeExecutionContext(SQLiteExecutionContext):
    """Carries the plan of a compiled statement to the driver."""

    def rome_plan(self) -> tuple[Plan | None, Layout]:
        """Return plan and layout, if the statement is one that was compiled."""
        compiled = self.compiled
        if not isinstance(compiled, RomeCompiler) or self.isddl:
            return None, {}
        if not (compiled.rome_scopes or compiled.isinsert or compiled.rome_explains):
            return None, {}  # text, savepoints
        plan = compiled.rome_plan
        if self._expanded_parameters:
            return plan, layout_of(compiled.positiontup or (), self._expanded_parameters)
        return plan, compiled.rome_layout


class RomeDialect(SQLiteDialect):
    """Databases in Redis, or in a Redis Cluster."""

    name = "rome"
    driver = "redis"
    supports_statement_cache = True
    statement_compiler = RomeCompiler
    ddl_compiler = RomeDDLCompiler
    type_compiler_cls = RomeTypeCompiler
    colspecs = {  # noqa: RUF012 - as SQLAlchemy's dialects have it
        **SQLiteDialect.colspecs,
        types.Numeric: RomeNumeric,
        types.Float: types.Float,
    }
    execution_ctx_cls = RomeExecutionContext
    default_paramstyle = "qmark"
    supports_sane_rowcount_returning = True
    # Rows of one INSERT are numbered in the order in which they stand there.
    insertmanyvalues_implicit_sentinel = InsertmanyvaluesSentinelOpts.ANY_AUTOINCREMENT
    returns_native_bytes = True
    tls = False
    # Whether `.op('LIKE')` is REGEXP, as Nova means it; `like()` never is.  The URL says it, before
    # a statement is compiled.
    nova_regexp = False

    _isolation_levels = ("READ COMMITTED", "SERIALIZABLE", "AUTOCOMMIT")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        from rome.dialect import integrations

        integrations.register()

    @classmethod
    def import_dbapi(cls) -> Any:
        return driver

    @classmethod
    def get_pool_class(cls, url: URL) -> type[pool.Pool]:
        return pool.QueuePool

    def _get_server_version_info(self, connection: Any) -> tuple[int, ...]:
        return driver.sqlite_version_info

    def _get_default_schema_name(self, connection: Any) -> str:
        return "main"

    def type_descriptor(self, typeobj: Any) -> Any:
        variant = as_for_sqlite(typeobj)
        if variant is not typeobj:
            return variant.dialect_impl(self)
        return super().type_descriptor(typeobj)

    # ------------------------------------------------------------ connections

    def create_connect_args(self, url: URL) -> tuple[list[Any], dict[str, Any]]:
        try:
            return [], self._arguments(url)
        except ValueError as error:
            # Without its options: who gives a password there doesn't want to read it here.
            place = url.set(query={}).render_as_string(hide_password=True)
            raise exc.ArgumentError(f"Invalid ROME URL {place}: {error}") from None

    def _arguments(self, url: URL) -> dict[str, Any]:
        options = UrlOptions(url.query)
        database = url.database or ""
        if not is_name(database):
            raise ValueError(
                "name a database, as in rome+redis://localhost:6379/nova, without spaces and"
                f" without any of {NO_NAME}"
            )
        if options.flag("fresh", False):
            database += "-" + secrets.token_hex(6)
        common: dict[str, Any] = {
            "foreign_keys": options.flag("foreign_keys", True),
            "serializable": options.flag("serializable", False),
            "result_cache": options.flag("result_cache", True),
            "prefetch": options.flag("prefetch", True),
        }
        self.nova_regexp = options.flag("nova_regexp", False)
        common |= self._store(url, database, options)
        options.done()
        return common

    def _store(self, url: URL, database: str, options: UrlOptions) -> dict[str, Any]:
        addresses = tuple(addresses_of(url))
        server = Server(
            addresses=addresses,
            username=url.username,
            password=url.password if url.password is None else str(url.password),
            tls=self.tls,
            tls_ca=options.text("tls_ca"),
            tls_cert=options.text("tls_cert"),
            tls_key=options.text("tls_key"),
            tls_check_hostname=options.flag("tls_check_hostname", True),
            timeout=options.number("timeout", 30),
            connect_timeout=options.number("connect_timeout", 5),
            patience=options.maybe_number("patience"),
            node_timeout=options.maybe_number("node_timeout"),
            hold=_hold(options),
        )
        if server.tls_key and not server.tls_cert:
            raise ValueError("option tls_key without tls_cert")
        if not self.tls and (server.tls_ca or server.tls_cert):
            raise ValueError("options of TLS are for rome+rediss://")
        tag = options.text("tag")
        if tag is not None and not is_name(tag):
            raise ValueError(f"option tag={tag}: it must have no spaces and none of {NO_NAME}")
        if tag == database:
            tag = None
        replicas = int(options.number("wait", 0))
        page = max(4, int(options.number("page", 20000)))
        table_lease = options.number("table_lease", 0)
        if table_lease > LONGEST_TABLE_LEASE_S:
            raise ValueError(
                f"option table_lease={table_lease:g}: give {LONGEST_TABLE_LEASE_S:g} seconds at"
                " most, as commits to a leased table wait for so long"
            )
        return {
            "store": functools.partial(
                RedisStore, server, database, tag, replicas, page, table_lease
            ),
            "shared": shared((addresses, database, tag)),
            "table_lease": table_lease,
        }

    def do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        plan, layout = context.rome_plan() if context is not None else (None, {})
        cursor.gathers_ddl = context is not None and context.isddl
        cursor.execute(statement, parameters, plan, layout)

    def do_executemany(
        self, cursor: Any, statement: str, parameters: Any, context: Any = None
    ) -> None:
        plan, layout = context.rome_plan() if context is not None else (None, {})
        cursor.executemany(statement, parameters, plan, layout)

    def do_ping(self, dbapi_connection: Any) -> bool:
        # The driver connects anew by itself: there is nothing to find out.
        return True

    def is_disconnect(self, e: Any, connection: Any, cursor: Any) -> bool:
        if isinstance(e, driver.OutcomeUnknown):
            return True  # of what the session thinks that it has written, nothing is known
        return isinstance(e, driver.ProgrammingError) and "connection is closed" in str(e)

    # ------------------------------------------------------------ isolation

    def get_isolation_level_values(self, dbapi_connection: Any) -> Sequence[Any]:
        return self._isolation_levels

    def get_default_isolation_level(self, dbapi_conn: Any) -> Any:
        return self.get_isolation_level(dbapi_conn)

    def set_isolation_level(self, dbapi_connection: Any, level: Any) -> None:
        dbapi_connection.rollback()
        dbapi_connection.autocommit = level == "AUTOCOMMIT"
        dbapi_connection.transaction.session.serializable = level == "SERIALIZABLE"

    def get_isolation_level(self, dbapi_connection: Any) -> Any:
        if dbapi_connection.autocommit:
            return "AUTOCOMMIT"
        return (
            "SERIALIZABLE"
            if dbapi_connection.transaction.session.serializable
            else "READ COMMITTED"
        )

    def detect_autocommit_setting(self, dbapi_conn: Any) -> bool:
        return bool(dbapi_conn.autocommit)


class RomeTLSDialect(RomeDialect):
    """Through TLS."""

    supports_statement_cache = True
    tls = True


class RomeMemoryDialect(RomeDialect):
    """In this process's memory, for tests: `rome+memory:///name`."""

    driver = "memory"
    supports_statement_cache = True

    def _store(self, url: URL, database: str, options: UrlOptions) -> dict[str, Any]:
        return {
            "store": functools.partial(MemoryStore, database),
            "shared": shared(("memory", database)),
        }


def _hold(options: UrlOptions) -> float | None:
    """Return the option `hold`; raises ValueError where it is next to nothing, or a day."""
    hold = options.maybe_number("hold")
    if hold is not None and not 0.1 <= hold <= 86_400:
        raise ValueError(f"option hold={hold:g}: give 0.1 to 86400 seconds")
    return hold


class RomeEtcdDialect(RomeDialect):
    """Databases in etcd: `rome+etcd://host,host:2379/name`."""

    driver = "etcd"
    supports_statement_cache = True

    def _store(self, url: URL, database: str, options: UrlOptions) -> dict[str, Any]:
        addresses = tuple(addresses_of(url, 2379))
        server = EtcdServer(
            addresses=addresses,
            username=url.username,
            password=url.password if url.password is None else str(url.password),
            timeout=options.number("timeout", ANSWER_S),
            connect_timeout=options.number("connect_timeout", 5),
            patience=options.number("patience", 15),
            local_reads=options.choice("reads", "linearizable", "local") == "local",
            txn_ops=int(options.number("txn_ops", 128)),
            hold=_hold(options),
        )
        if server.txn_ops < LEAST_OPERATIONS:
            raise ValueError(
                f"option txn_ops={server.txn_ops}: etcd's --max-txn-ops must be"
                f" {LEAST_OPERATIONS} or more for ROME"
            )
        return {
            "store": functools.partial(EtcdStore, server, database),
            "shared": shared(("etcd", addresses, database)),
        }


__all__ = ["RomeDialect", "RomeEtcdDialect", "RomeMemoryDialect", "RomeTLSDialect"]
