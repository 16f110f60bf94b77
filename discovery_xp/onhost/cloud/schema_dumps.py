"""Empty databases at their newest schemas, kept as SQL: loaded instead of migrated.

A dump is what the migrations alone made of an empty database of MariaDB's: tables, and the rows
that migrations write.  Whatever belongs to one cloud (users, passwords, cells) is written later,
whether a database was migrated or loaded.  A dump is loaded by the database's own user, who has
no rights beyond that database, and by the server alone: MariaDB's client would run commands that
a dump may hold.

All dumps travel to a host as one text, base64 of JSON: `{database: {"server": version, "sql":
packed}}`.
"""

from __future__ import annotations

import base64
import json
import lzma
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

MYSQL = "mysql+pymysql:"
# Alembic says here which migrations a database has; loaded last, as migrations write it last.
VERSION_TABLE = "alembic_version"
# There from the first statement of a load to its last.
LOADING_TABLE = "discovery_xp_loading"
MOST_SQL_BYTES = 64 * 2**20
_MOST_MEMORY = 256 * 2**20


class BadDump(Exception):
    """The server refuses a statement of a dump."""


class Dumps:
    """The dumps that a deployment was given, and those that it makes.

    `text` holds those that were given, empty for none.  Where dumps are to be kept (`keeps`),
    `made` holds those of `keep`, by database.
    """

    def __init__(self, text: str, keeps: bool) -> None:
        self.keeps = keeps
        self.made: dict[str, dict[str, str]] = {}
        self._given = _read(text)

    def load(self, name: str, url: str, is_newest: Callable[[], bool]) -> bool:
        """Load a database's dump if it is empty and there is one of the same server's version.

        `is_newest` judges what was loaded.  Returns whether it passed; leaves the database empty
        where it didn't, and untouched where nothing was loaded.
        """
        sql = self._fitting(name, url)
        if sql is None or not is_empty(url):
            return False
        try:
            _load(url, sql)
            if is_newest():
                return True
        except BadDump:
            pass  # the migrations do it
        clear(url)
        return False

    def keep(self, name: str, url: str) -> None:
        """Dump a database that was just migrated from nothing, if dumps are to be kept."""
        if not self.keeps or not url.startswith(MYSQL):
            return
        try:
            sql = dump(name)
        except (OSError, subprocess.CalledProcessError, UnicodeError):
            return  # the next cloud may do better
        self.made[name] = {"server": server_version(url), "sql": pack(sql)}

    def _fitting(self, name: str, url: str) -> str | None:
        """Return the SQL of a database's dump, None where there is none that fits its server."""
        entry = self._given.get(name)
        if not url.startswith(MYSQL) or not isinstance(entry, Mapping):
            return None
        if entry.get("server") != server_version(url):
            return None
        try:
            return unpack(entry["sql"])
        except (KeyError, ValueError):
            return None


def _read(text: str) -> Mapping[str, Any]:
    try:
        dumps = json.loads(base64.b64decode(text, validate=True) or "{}")
    except ValueError:
        return {}
    return dumps if isinstance(dumps, Mapping) else {}


def server_version(url: str) -> str:
    """Return the version of a database's server, as it says it."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(url)
    try:
        with engine.connect() as connection:
            return str(connection.execute(sqlalchemy.text("SELECT VERSION()")).scalar_one())
    finally:
        engine.dispose()


def is_empty(url: str) -> bool:
    """Tell whether a database has no tables; what a load left that was broken off is dropped."""
    import sqlalchemy

    if not url.startswith(MYSQL):
        return False
    engine = sqlalchemy.create_engine(url)
    try:
        tables = sqlalchemy.inspect(engine).get_table_names()
    finally:
        engine.dispose()
    if LOADING_TABLE in tables:
        clear(url)
        return True
    return not tables


def clear(url: str) -> None:
    """Drop every table of a database."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(url)
    try:
        with engine.connect() as connection:
            names = sqlalchemy.inspect(connection).get_table_names()
            # What says that it is being loaded goes last.
            names.sort(key=lambda name: name == LOADING_TABLE)
            connection.execute(sqlalchemy.text("SET FOREIGN_KEY_CHECKS = 0"))
            for name in names:
                quoted = name.replace("`", "``")
                connection.execute(sqlalchemy.text(f"DROP TABLE `{quoted}`"))
    finally:
        engine.dispose()


def dump(database: str) -> str:
    """Return a database's tables and rows as SQL, the version last; as root, by the socket."""
    command = ["mariadb-dump", "--skip-comments", "--skip-lock-tables", "--skip-add-locks",
               "--skip-add-drop-table", "--skip-disable-keys", "--single-transaction",
               "--hex-blob"]  # fmt: skip
    parts = ([f"--ignore-table={database}.{VERSION_TABLE}", database], [database, VERSION_TABLE])
    return "".join(
        subprocess.run([*command, *part], capture_output=True, text=True, check=True).stdout
        for part in parts
    )


def _load(url: str, sql: str) -> None:
    """Load a dump into an empty database; raises BadDump where a statement fails.

    `is_empty` knows a database by its LOADING_TABLE whose load didn't come to its end.
    """
    import pymysql
    import sqlalchemy
    from pymysql.constants import CLIENT

    place = sqlalchemy.engine.make_url(url)
    connection = pymysql.connect(
        host=place.host, port=place.port or 0,  # 0: the usual one
        user=place.username,
        password=place.password or "", database=place.database, charset="utf8mb4",
        client_flag=CLIENT.MULTI_STATEMENTS, autocommit=True, read_timeout=60, write_timeout=60,
    )  # fmt: skip
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE TABLE `{LOADING_TABLE}` (nothing INT)")
            cursor.execute(sql)
            while cursor.nextset():
                pass
            cursor.execute(f"DROP TABLE `{LOADING_TABLE}`")
    except pymysql.err.MySQLError as error:
        raise BadDump(str(error)) from None
    finally:
        connection.close()


def pack(sql: str) -> str:
    """Return a small form of a dump: base64 of xz."""
    return base64.b64encode(lzma.compress(sql.encode(), preset=1)).decode()


def unpack(packed: str) -> str:
    """Return a packed dump's SQL; raises ValueError for what is none, or is far too large."""
    reader = lzma.LZMADecompressor(memlimit=_MOST_MEMORY)
    try:
        data = reader.decompress(base64.b64decode(packed, validate=True), MOST_SQL_BYTES)
    except (lzma.LZMAError, TypeError, EOFError) as error:
        raise ValueError(f"this is no dump: {error}") from None
    if not reader.eof:
        raise ValueError("the dump is cut off, or too large")
    return data.decode()
