"""SQLite's compilers, with notes of each SELECT from which a statement is planned."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import types
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler, SQLiteDDLCompiler, SQLiteTypeCompiler
from sqlalchemy.sql import elements

from rome.dialect.analysis import Analysis
from rome.dialect.decimals import storing_processor
from rome.dialect.elements import Scope, relied_columns
from rome.planner.plan import Layout, Plan
from rome.schema.tables import fold


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

    def visit_custom_op_binary(self, element: Any, operator: Any, **kwargs: Any) -> Any:
        """Write `.op('LIKE')` as REGEXP where the URL says that this is what it means.

        Nova puts percent signs around the expression, for a dialect that it doesn't know.
        """
        if self.dialect.nova_regexp and operator.opstring == "LIKE":  # type: ignore[attr-defined]
            left = self.process(element.left, **kwargs)
            return f"{left} REGEXP trim({self.process(element.right, **kwargs)}, '%')"
        return super().visit_custom_op_binary(element, operator, **kwargs)

    def _rome_seen(self, text: str) -> None:
        if re.search(r"\b(?:select|in)\b", text, re.IGNORECASE):
            self.rome_text = True

    def _written(self, statement: Any, visit: Callable[..., str], *args: Any, **kwargs: Any) -> str:
        """Compile an UPDATE or DELETE, which is a scope around its subqueries."""
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
                clauses = [statement._values, statement._ordered_values, statement._multi_values]
                for part in clauses:
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
        return layout_of(self.positiontup or (), {})


def _assigned_keys(statement: Any) -> set[str]:
    """Return the keys of parameters that an INSERT or UPDATE names as values themselves."""
    values: list[Any] = []
    for part in (getattr(statement, "_values", None), *_rows(statement)):
        values += part.values() if isinstance(part, Mapping) else part or ()
    values += [pair[1] for pair in getattr(statement, "_ordered_values", None) or ()]
    return {value.key for value in values if isinstance(value, elements.BindParameter)}


def _rows(statement: Any) -> list[Any]:
    """Return the rows of INSERT ... VALUES (...), (...)."""
    return [row for rows in getattr(statement, "_multi_values", ()) for row in rows]


def layout_of(names: Sequence[str], expanded: Mapping[str, Sequence[str]]) -> Layout:
    """Return where each bind parameter is among the positional ones."""
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


def as_for_sqlite(type_: Any) -> Any:
    """Return a type's variant for SQLite, if it has one and none for ROME: ROME keeps what SQLite
    keeps."""
    variants = getattr(type_, "_variant_mapping", {})
    return type_ if "rome" in variants else variants.get("sqlite", type_)


class RomeTypeCompiler(SQLiteTypeCompiler):
    """SQLite's, with its variants of types."""

    def process(self, type_: Any, **kwargs: Any) -> str:
        text: str = super().process(as_for_sqlite(type_), **kwargs)
        return text
