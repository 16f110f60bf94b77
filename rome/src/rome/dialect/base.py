"""The SQLAlchemy dialect: `rome+redis://`, `rome+rediss://` and `rome+memory://`.

SQL is written as for SQLite, which evaluates it.  While a statement is compiled, its
SELECTs are noted; from them comes the plan that says which rows to read, once for each
statement in SQLAlchemy's cache.
"""

from __future__ import annotations

import functools
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import exc, pool, types
from sqlalchemy.dialects.sqlite.base import (
    SQLiteCompiler,
    SQLiteDDLCompiler,
    SQLiteDialect,
    SQLiteExecutionContext,
    SQLiteTypeCompiler,
)
from sqlalchemy.engine.url import URL
from sqlalchemy.sql import elements
from sqlalchemy.sql.compiler import InsertmanyvaluesSentinelOpts

from rome import driver
from rome.dialect.analysis import Analysis, Scope, relied_columns
from rome.dialect.decimals import RomeNumeric, storing_processor
from rome.engine.shared import shared
from rome.planner.plan import Layout, Plan
from rome.schema.tables import fold
from rome.stores.memory.store import MemoryStore
from rome.stores.redis.link import Server
from rome.stores.redis.store import RedisStore


class RomeCompiler(SQLiteCompiler):
    """SQLite's compiler, which notes each SELECT that it writes."""

    rome_explains = False  # whether the statement is explained, not run

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.rome_scopes: list[Scope] = []
        self._rome_around: list[Scope] = []
        self.rome_tables: list[str] = []  # as often as each stands in a FROM
        self.rome_text = False  # whether there is text that may name tables
        self._rome_stored: set[str] = set()  # keys of parameters that are columns' new values
        super().__init__(*args, **kwargs)

    def visit_select(self, select_stmt: Any, *args: Any, **kwargs: Any) -> str:
        scope = Scope(self._rome_around[-1] if self._rome_around else None, source=select_stmt)
        self.rome_scopes.append(scope)
        self._rome_around.append(scope)
        try:
            text: str = super().visit_select(select_stmt, *args, **kwargs)
        finally:
            self._rome_around.pop()
        return text

    def _compose_select_body(
        self, text: Any, select: Any, compile_state: Any, inner_columns: Any, froms: Any, *rest: Any
    ) -> str:
        scope = self._rome_around[-1]
        scope.statement = select
        scope.froms = list(froms)
        scope.width = len(inner_columns)
        body: str = super()._compose_select_body(
            text, select, compile_state, inner_columns, froms, *rest
        )
        return body

    def process(self, obj: Any, **kwargs: Any) -> str:
        if kwargs.get("is_upsert_set") and isinstance(obj, elements.BindParameter):
            self._rome_stored.add(obj.key)
        text: str = super().process(obj, **kwargs)
        return text

    @functools.cached_property
    def _bind_processors(self) -> Any:
        """SQLAlchemy's, but values that are stored in a decimal column are rounded."""
        processors: dict[str, Any] = dict(super()._bind_processors)
        stored = self._rome_stored.union(_assigned_keys(self.statement))
        for bind, name in self.bind_names.items():
            if bind._is_crud or bind.key in stored:
                processor = storing_processor(bind.type, self.dialect)
                if processor is not None:
                    processors[name] = processor
        return processors

    def visit_table(self, table: Any, *args: Any, **kwargs: Any) -> str:
        if kwargs.get("asfrom"):
            self.rome_tables.append(fold(str(table.name)))
        text: str = super().visit_table(table, *args, **kwargs)
        return text

    def visit_textclause(self, textclause: Any, *args: Any, **kwargs: Any) -> str:
        self._rome_seen(textclause.text)
        text: str = super().visit_textclause(textclause, *args, **kwargs)
        return text

    def visit_column(self, column: Any, *args: Any, **kwargs: Any) -> str:
        if column.is_literal:
            self._rome_seen(str(column.name))
        text: str = super().visit_column(column, *args, **kwargs)
        return text

    def _rome_seen(self, text: str) -> None:
        if re.search(r"\b(?:select|in)\b", text, re.IGNORECASE):
            self.rome_text = True

    def _written(self, statement: Any, visit: Callable[..., str], *args: Any, **kwargs: Any) -> str:
        """An UPDATE or DELETE: its table and conditions are a scope around its subqueries."""
        scope = Scope(None, source=statement, statement=statement, froms=[statement.table])
        self.rome_scopes.append(scope)
        self._rome_around.append(scope)
        try:
            text = visit(statement, *args, **kwargs)
        finally:
            self._rome_around.pop()
        state = self.compile_state
        if state is not None:
            scope.statement = state.statement
            scope.froms = [state.statement.table]
        return text

    def visit_update(self, update_stmt: Any, *args: Any, **kwargs: Any) -> str:
        return self._written(update_stmt, super().visit_update, *args, **kwargs)

    def visit_delete(self, delete_stmt: Any, *args: Any, **kwargs: Any) -> str:
        return self._written(delete_stmt, super().visit_delete, *args, **kwargs)

    @functools.cached_property
    def rome_plan(self) -> Plan:
        """Which rows the statement may need."""
        statement: Any = self.statement
        if self.compile_state is not None:
            statement = self.compile_state.statement
        analysis = Analysis(self, self.rome_scopes)
        if self.isupdate or self.isdelete:
            criteria = list(statement._where_criteria)
            values: list[Any] = []
            if self.isupdate:
                given = [statement._values, statement._ordered_values, statement._multi_values]
                for part in given:
                    pairs = part.items() if isinstance(part, Mapping) else part or ()
                    values += [pair[1] for pair in pairs if len(pair) == 2]
            expressions = [v for v in (*criteria, *values) if hasattr(v, "__visit_name__")]
            relied = relied_columns(statement.table, expressions)
            return analysis.plan("update" if self.isupdate else "delete", statement.table, relied)
        if self.isinsert:
            upsert = statement._post_values_clause is not None or statement._prefixes
            return analysis.plan("insert", statement.table, None if upsert else frozenset())
        return analysis.plan("select")

    @functools.cached_property
    def rome_layout(self) -> Layout:
        """Where each bind parameter is, if none expands."""
        return _layout(self.positiontup or (), {})


def _assigned_keys(statement: Any) -> set[str]:
    """Keys of the parameters that an INSERT or UPDATE names as values themselves."""
    values: list[Any] = []
    for part in (getattr(statement, "_values", None), *_rows(statement)):
        values += part.values() if isinstance(part, Mapping) else part or ()
    values += [pair[1] for pair in getattr(statement, "_ordered_values", None) or ()]
    return {value.key for value in values if isinstance(value, elements.BindParameter)}


def _rows(statement: Any) -> list[Any]:
    """The rows of INSERT ... VALUES (...), (...)."""
    return [row for rows in getattr(statement, "_multi_values", ()) for row in rows]


def _layout(names: Sequence[str], expanded: Mapping[str, Sequence[str]]) -> Layout:
    layout: dict[str, list[int]] = {}
    place = 0
    for name in names:
        count = len(expanded[name]) if name in expanded else 1
        layout.setdefault(name, []).extend(range(place, place + count))
        place += count
    return layout


class RomeDDLCompiler(SQLiteDDLCompiler):
    """SQLite's, with a row number for every column that counts by itself, and with a name
    for every key, by which it can be dropped."""

    def _named(self, text: Any, constraint: Any, *words: str) -> Any:
        if not text or text.lstrip().upper().startswith("CONSTRAINT"):
            return text
        name = self.preparer.quote("_".join((constraint.table.name, *words)))
        return f"CONSTRAINT {name} {text}"

    def visit_primary_key_constraint(self, constraint: Any, **kwargs: Any) -> Any:
        text = super().visit_primary_key_constraint(constraint, **kwargs)
        return self._named(text, constraint, "pkey")

    def visit_unique_constraint(self, constraint: Any, **kwargs: Any) -> Any:
        text = super().visit_unique_constraint(constraint, **kwargs)
        return self._named(text, constraint, *(c.name for c in constraint.columns), "key")

    def visit_foreign_key_constraint(self, constraint: Any, **kwargs: Any) -> Any:
        text = super().visit_foreign_key_constraint(constraint, **kwargs)
        return self._named(text, constraint, *(c.name for c in constraint.columns), "fkey")

    def get_column_specification(self, column: Any, **kwargs: Any) -> str:
        text: str = super().get_column_specification(column, **kwargs)
        if column.table is None or column is not column.table._autoincrement_column:
            return text
        if not issubclass(column.type._type_affinity, types.Integer):
            return text
        # Only a key that is declared INTEGER is SQLite's row number; BIGINT is as large.
        name = self.preparer.format_column(column)
        kind = self.dialect.type_compiler_instance.process(column.type, type_expression=column)
        start = f"{name} {kind}"
        if kind != "INTEGER" and text.startswith(start):
            text = f"{name} INTEGER{text[len(start) :]}"
        return text


def _as_for_sqlite(type_: Any) -> Any:
    """A type's variant for SQLite, if it has one and none for ROME: ROME keeps what SQLite
    keeps."""
    variants = getattr(type_, "_variant_mapping", {})
    return type_ if "rome" in variants else variants.get("sqlite", type_)


class RomeTypeCompiler(SQLiteTypeCompiler):
    """SQLite's, with its variants of types."""

    def process(self, type_: Any, **kwargs: Any) -> str:
        text: str = super().process(_as_for_sqlite(type_), **kwargs)
        return text


class RomeExecutionContext(SQLiteExecutionContext):
    """Carries the plan of a compiled statement to the driver."""

    def rome_plan(self) -> tuple[Plan | None, Layout]:
        """Plan and layout, if the statement is one that was compiled."""
        compiled = self.compiled
        if not isinstance(compiled, RomeCompiler) or self.isddl:
            return None, {}
        if not (compiled.rome_scopes or compiled.isinsert or compiled.rome_explains):
            return None, {}  # text, savepoints
        plan = compiled.rome_plan
        if self._expanded_parameters:
            return plan, _layout(compiled.positiontup or (), self._expanded_parameters)
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
        variant = _as_for_sqlite(typeobj)
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
        options = Options(url.query)
        database = url.database or ""
        if not _is_name(database):
            raise ValueError(
                "name a database, as in rome+redis://localhost:6379/nova, without spaces and"
                f" without any of {_NO_NAME}"
            )
        if options.flag("fresh", False):
            database += "-" + secrets.token_hex(6)
        common: dict[str, Any] = {
            "foreign_keys": options.flag("foreign_keys", True),
            "serializable": options.flag("serializable", False),
            "result_cache": options.flag("result_cache", True),
            "prefetch": options.flag("prefetch", True),
        }
        common |= self._store(url, database, options)
        options.done()
        return common

    def _store(self, url: URL, database: str, options: Options) -> dict[str, Any]:
        addresses = tuple(_addresses(url))
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
        )
        if server.tls_key and not server.tls_cert:
            raise ValueError("option tls_key without tls_cert")
        if not self.tls and (server.tls_ca or server.tls_cert):
            raise ValueError("options of TLS are for rome+rediss://")
        tag = options.text("tag")
        if tag is not None and not _is_name(tag):
            raise ValueError(f"option tag={tag}: it must have no spaces and none of {_NO_NAME}")
        if tag == database:
            tag = None
        replicas = int(options.number("wait", 0))
        page = max(4, int(options.number("page", 20000)))
        return {
            "store": functools.partial(RedisStore, server, database, tag, replicas, page),
            "shared": shared((addresses, database, tag)),
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

    def _store(self, url: URL, database: str, options: Options) -> dict[str, Any]:
        return {
            "store": functools.partial(MemoryStore, database),
            "shared": shared(("memory", database)),
        }


# Options that had another name in an earlier version.
_RENAMED = {"answers": "result_cache", "foresight": "prefetch"}


class Options:
    """The options of a URL; each may be asked for once, and none may be left."""

    def __init__(self, query: Mapping[str, Any]) -> None:
        self._query = dict(query)

    def text(self, name: str) -> str | None:
        """A text, or None."""
        value = self._query.pop(name, None)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"option {name} stands there twice")
        return value

    def number(self, name: str, default: float) -> float:
        """A number that isn't negative."""
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
        """A number that isn't negative, or None."""
        return self.number(name, 0) if name in self._query else None

    def flag(self, name: str, default: bool) -> bool:
        """A switch."""
        value = self.text(name)
        if value is None:
            return default
        known = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}
        if value.lower() not in known:
            raise ValueError(f"option {name}={value}: say on or off")
        return known[value.lower()]

    def done(self) -> None:
        """Refuse what nobody asked for."""
        if not self._query:
            return
        unknown = min(self._query)
        if unknown in _RENAMED:
            raise ValueError(f"option {unknown} has the name {_RENAMED[unknown]} now")
        raise ValueError(
            f"unknown option {unknown}: the options are connect_timeout, foreign_keys, fresh,"
            " node_timeout, page, patience, prefetch, result_cache, serializable, tag, timeout,"
            " tls_ca, tls_cert, tls_check_hostname, tls_key, wait"
        )


# Names of databases and tags are parts of keys.  Braces and colons end these parts, the others
# have a meaning in patterns of keys.
_NO_NAME = r"""{}:*?[]^\ and characters that can't be printed"""


def _is_name(text: str) -> bool:
    return bool(text) and text.isprintable() and not any(c in "{}:*?[]^\\ " for c in text)


def _addresses(url: URL) -> list[tuple[str, int]]:
    """The hosts: `host1,host2:port`, or with a port each `[host1:port1,host2:port2]`.

    SQLAlchemy's URLs have room for one port, and anything in brackets is a host to it.
    """
    default = url.port or 6379
    found = []
    for part in (url.host or "localhost").split(","):
        host, colon, port = part.rpartition(":")
        if not colon or ":" in host:  # a name, or an address of IPv6
            host, port = part, str(default)
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError(f"'{part}' is no host:port")
        found.append((host, int(port)))
    return found


__all__ = ["RomeDialect", "RomeMemoryDialect", "RomeTLSDialect"]
