"""EXPLAIN of a statement that SQLAlchemy has compiled: the plan that it would run by."""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import coercions, roles
from sqlalchemy.sql.elements import ClauseElement
from sqlalchemy.sql.expression import Executable


class explain(Executable, ClauseElement):  # noqa: N801 - written like select(), insert()
    """`EXPLAIN` of a statement: rows of one column, a line of the plan each.

        connection.execute(explain(select(users).where(users.c.name == "a"))).scalars()

    Nothing of the statement is run: a SELECT isn't sent, and a statement that writes changes
    nothing.
    """

    inherit_cache = False

    def __init__(self, statement: Any) -> None:
        self.statement = coercions.expect(roles.StatementRole, statement)


@compiles(explain)
def _compile(element: explain, compiler: Any, **options: Any) -> str:
    text: str = "EXPLAIN " + compiler.process(element.statement, **options)
    plan = getattr(compiler, "rome_plan", None)  # made while the compiler knows what it compiles
    if plan is not None:
        compiler.rome_explains = True
        # What comes back is no row of the statement's own.
        compiler.isinsert = compiler.isupdate = compiler.isdelete = False
        compiler.effective_returning = compiler.implicit_returning = None
        compiler._result_columns = []
    return text
