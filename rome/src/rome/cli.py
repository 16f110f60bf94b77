"""The command `rome`: look into a database of a store, explain, check, copy, remove it."""

# ruff: noqa: T201 (a command prints)
from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import unquote

from sqlalchemy import create_engine, exc
from sqlalchemy.engine.url import URL, make_url
from sqlalchemy.pool import NullPool

from rome.admin import load
from rome.admin.check import check
from rome.admin.entries import check_entries
from rome.admin.inspection import Usage, inspect
from rome.dialect import RomeDialect, RomeMemoryDialect, explain
from rome.dialect.parse import NotParsed, ParametersMissing, parse_select
from rome.errors import Error
from rome.schema.catalogue import Catalogue
from rome.schema.dump import statements
from rome.stores.base import SchemaChanged, ServerStore
from rome.stores.etcd.store import EtcdStore
from rome.stores.redis.store import RedisStore

_PATIENCE_S = "3"  # a person waits for the answer
# The command line stands in the list of processes, for all users of the machine to read.
_PASSWORD_VARIABLE = "ROME_PASSWORD"


class Wrong(Exception):
    """What the caller should know, in one line."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Print one line, where argparse shows the usage as well, and exit."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 0: done, 1: `check` left something wrong, 2: it couldn't be done."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SchemaChanged:
        problem = "the schema was changed meanwhile: try again"
    except (Wrong, Error) as error:
        problem = str(error)
    except KeyboardInterrupt:
        problem = "interrupted"
    line = " ".join(_without_password(problem, options).split())
    print(f"rome: {line}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="rome", description="Look into a database that ROME keeps in Redis or etcd."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Any, description: str) -> argparse.ArgumentParser:
        parser = commands.add_parser(name, help=description, description=description)
        parser.add_argument("url", metavar="URL", help="rome+redis://[user@]host:port/database")
        parser.add_argument(
            "--password-file",
            metavar="FILE",
            help="whose first line is the password; without it, the one in the URL or in"
            f" ${_PASSWORD_VARIABLE} counts",
        )
        parser.set_defaults(run=run)
        return parser

    command_parser = command("inspect", _inspect, "Tables, rows, memory.")
    command_parser.add_argument("--json", action="store_true", help="for programs")
    command_parser = command(
        "check",
        _check,
        "Index entries, constraints and leftovers against the rows. Ends with 1 if something is"
        " wrong (with --repair: still wrong). Writers may go on meanwhile.",
    )
    command_parser.add_argument(
        "--repair", action="store_true", help="make right what the rows tell"
    )
    command_parser = command(
        "explain",
        _explain,
        "The plan of a SELECT: access paths, what is pushed down, round trips. Nothing is run.",
    )
    command_parser.add_argument("sql", metavar="SQL", help="the SELECT, as SQLAlchemy writes it")
    command_parser.add_argument(
        "values", metavar="VALUE", nargs="*", help="those of its parameters"
    )
    command("dump", _dump, "The database as SQL, to standard output; while nobody writes.")
    command("load", _load, "Fill an empty database with SQL from standard input.")
    command_parser = command("drop", _drop, "Remove the database.")
    command_parser.add_argument("--yes", action="store_true", help="really")
    return parser


# ---------------------------------------------------------------- where


def _url(options: argparse.Namespace) -> URL:
    try:
        url = make_url(options.url)
        dialect = url.get_dialect()
    except (exc.ArgumentError, exc.NoSuchModuleError, ValueError):
        dialect = None
    if dialect is None or not issubclass(dialect, RomeDialect):
        raise Wrong("this is no URL of ROME: rome+redis://[user:password@]host:port/database")
    if issubclass(dialect, RomeMemoryDialect):
        raise Wrong("rome+memory:// is inside another process: nothing can be seen from here")
    if "fresh" in url.query:
        raise Wrong("a URL with fresh= has an empty database each time")
    if "patience" not in url.query:
        url = url.update_query_dict({"patience": _PATIENCE_S})
    password = _password(options)
    if password and (options.password_file or url.password is None):
        url = url.set(password=password)
    return url


def _password(options: argparse.Namespace) -> str | None:
    """Return the password of a file, or else of the environment."""
    if not options.password_file:
        return os.environ.get(_PASSWORD_VARIABLE) or None
    try:
        with Path(options.password_file).open(encoding="utf-8") as file:
            password = file.readline().rstrip("\r\n")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise Wrong(f"the password file {options.password_file}: {reason}") from None
    if not password:
        raise Wrong(f"the password file {options.password_file} has an empty first line")
    return password


def _connect_arguments(options: argparse.Namespace) -> dict[str, Any]:
    url = _url(options)
    try:
        _, arguments = url.get_dialect()().create_connect_args(url)
    except exc.ArgumentError as error:
        raise Wrong(str(error)) from None
    return dict(arguments)


def _store(options: argparse.Namespace) -> ServerStore:
    # Of a store in memory _url has said that it can't be looked into.
    store: ServerStore = _connect_arguments(options)["store"]()
    return store


def _without_password(problem: str, options: argparse.Namespace) -> str:
    """Return a message without any password that it may quote."""
    secrets = [os.environ.get(_PASSWORD_VARIABLE)]
    if match := re.search(r"://[^/@]*?:([^/]+)@", options.url):
        secrets += [match[1], unquote(match[1])]
    for secret in secrets:
        if secret:
            problem = problem.replace(secret, "***")
    return problem


# ---------------------------------------------------------------- commands


def _inspect(options: argparse.Namespace) -> int:
    usage = inspect(_store(options), Catalogue())
    print(json.dumps(usage.as_dict(), indent=2) if options.json else _table(usage))
    return 0


def _table(usage: Usage) -> str:
    if not usage.tables:
        return "the database has no tables"
    lines: list[tuple[str, ...]] = [("table", "rows", "bytes: rows", "unique", "sets", "ordered")]
    lines += [
        (t.name, *map(str, (t.rows, t.row_bytes, t.unique_bytes, t.set_bytes, t.ordered_bytes)))
        for t in usage.tables
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    text.append(f"other keys: {usage.other_bytes} bytes; all: {usage.total_bytes} bytes")
    text.append(f"version of the schema: {usage.schema_version}")
    return "\n".join(text)


def _check(options: argparse.Namespace) -> int:
    store = _store(options)
    if isinstance(store, RedisStore):
        findings = check(store, Catalogue(), options.repair)
    elif isinstance(store, EtcdStore) and not options.repair:
        findings = check_entries(store, Catalogue())
    else:
        raise Wrong(
            "--repair is for databases in Redis: in etcd, drop the index that is wrong and create"
            " it anew"
        )
    wrong = repaired = 0
    for finding in findings:
        wrong += 1
        repaired += finding.repaired
        print(finding.text + (" (repaired)" if finding.repaired else ""))
    if not wrong:
        print("nothing is wrong")
    elif options.repair:
        print(f"wrong: {wrong}, repaired: {repaired}")
    else:
        print(f"wrong: {wrong}")
    return int(wrong > repaired)


def _explain(options: argparse.Namespace) -> int:
    engine = create_engine(_url(options), poolclass=NullPool)
    values = [int(value) if re.fullmatch(r"-?\d+", value) else value for value in options.values]
    try:
        with engine.connect() as connection:
            driver: Any = connection.connection.dbapi_connection
            schema = driver.catalogue.load(driver.store)
            try:
                statement = parse_select(options.sql, values, schema)
                lines = connection.execute(explain(statement)).scalars()
            except ParametersMissing as error:
                raise Wrong(f"{error} is missing: write the values behind the statement") from None
            except NotParsed as error:
                print(f"planned as text, for it can't be read back: {error}")
                plan = connection.exec_driver_sql(f"EXPLAIN {options.sql}", tuple(values))
                lines = plan.scalars()
            print(*lines, sep="\n")
    except exc.DBAPIError as error:
        raise Wrong(str(error.orig)) from None
    finally:
        engine.dispose()
    return 0


def _dump(options: argparse.Namespace) -> int:
    store = _store(options)
    schema = Catalogue().load(store)
    print("PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;")
    for statement in statements(store, schema):
        print(statement)
    print("COMMIT;")
    return 0


def _load(options: argparse.Namespace) -> int:
    arguments = _connect_arguments(options)
    try:
        script = sys.stdin.buffer.read().decode()
    except UnicodeDecodeError:
        raise Wrong("the SQL isn't UTF-8 text") from None
    try:
        tables, count = load.load(arguments, script)
    except load.Refused as error:
        raise Wrong(str(error)) from None
    print(f"tables: {tables}, rows: {count}")
    return 0


def _drop(options: argparse.Namespace) -> int:
    store = _store(options)
    tables = len(Catalogue().load(store).tables)
    if not options.yes:
        raise Wrong(f"this would remove {tables} tables: say --yes")
    store.drop()
    print(f"removed: {tables} tables")
    return 0


if __name__ == "__main__":
    sys.exit(main())
