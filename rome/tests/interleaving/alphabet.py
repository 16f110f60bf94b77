"""The statements over a kind of database, for one session."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert

from tests.interleaving.kinds import Kind
from tests.interleaving.statements import NUMBER, Statement

# Rows that the store numbers get these on from the first one, as databases.py makes it.
FIRST_NUMBER = 101
SECOND_NUMBER = FIRST_NUMBER + 1


class Alphabet:
    """All statements of one session over a kind, by name.

    What a session writes tells which one wrote it: x is 10 times its number, and some.
    """

    def __init__(self, kind: Kind, session: int) -> None:
        self.kind = kind
        self.value = 10 * (session + 1)
        self.statements: dict[str, Statement] = {}
        if kind.family == "family":
            self._family()
        else:
            self._plain()

    def __getitem__(self, name: str) -> Statement:
        return self.statements[name]

    def upto(self, rank: int) -> list[Statement]:
        """Those of a rank and before, without DDL."""
        return [s for s in self.statements.values() if s.rank <= rank and s.kind != "ddl"]

    def ddl(self) -> list[Statement]:
        """The changes of the schema."""
        return [s for s in self.statements.values() if s.kind == "ddl"]

    def _add(self, name: str, kind: str, clause: Any, table: str, rank: int, **more: Any) -> None:
        relied = frozenset(more.pop("relied", ()))
        self.statements[name] = Statement(
            name, kind, clause, table, relied=relied, rank=rank, **more
        )

    # ------------------------------------------------------------ one table

    def _plain(self) -> None:
        t, keys, v = self.kind.main, self.kind.keys, self.value
        names = list(keys["A"]) if self.kind.family != "unique" else ["k"]

        def at(key: str) -> ColumnElement[bool]:
            return and_(*(t.c[name] == keys[key][name] for name in names))

        def row(key: str, x: int, y: int = 5) -> dict[str, Any]:
            return {**keys[key], "x": x, "y": y}

        for key, rank in (("C", 1), ("A", 1), ("D", 3), ("B", 3)):
            clause = insert(t).values(row(key, v + 1))
            self._add(f"insert {key}", "insert", clause, "t", rank)
        self._add(
            "insert C, D", "insert", insert(t).values([row("C", v + 1), row("D", v + 2)]), "t", 2
        )
        self._add(
            "insert C, A", "insert", insert(t).values([row("C", v + 1), row("A", v + 2)]), "t", 3
        )
        self._add(
            "insert many C, D", "insert", insert(t), "t", 3, sets=(row("C", v + 1), row("D", v + 2))
        )
        counted = select(
            *(literal(value).label(name) for name, value in keys["D"].items()),
            func.count() + v,
            literal(5),
        ).select_from(t)
        columns = [*keys["D"], "x", "y"]
        self._add("insert D from count", "insert", insert(t).from_select(columns, counted), "t", 1)
        copied = select(
            *(literal(value) for value in keys["D"].values()), t.c.x, t.c.y
        ).where(at("A"))  # fmt: skip
        self._add("insert D from A", "insert", insert(t).from_select(columns, copied), "t", 2)

        def set_(name: str, where: Any, relied: Iterable[str], rank: int, **values: Any) -> None:
            clause = update(t).values(values)
            if where is not None:
                clause = clause.where(where)
            self._add(name, "update", clause, "t", rank, relied=relied)

        set_("set x of A", at("A"), names, 1, x=v)
        set_("set y of A", at("A"), names, 1, y=v)
        set_("set x of A as it was", at("A"), names, 2, x=1)
        set_("set x of B", at("B"), names, 3, x=v)
        set_("add to x of A", at("A"), [*names, "x"], 1, x=t.c.x + v)
        set_("add to all x", None, ["x"], 2, x=t.c.x + v)
        set_("set y where x >= 2", t.c.x >= 2, ["x"], 2, y=v)
        set_("compare and set x of A", and_(at("A"), t.c.x == 1), [*names, "x"], 1, x=v)
        set_("compare y and set x of A", and_(at("A"), t.c.y == 5), [*names, "y"], 3, x=v)
        first = names[-1]  # of a key of two columns only one changes
        set_("key of A to C", at("A"), names, 1, **{first: keys["C"][first]})
        set_("key of A to B", at("A"), names, 3, **{first: keys["B"][first]})
        set_("key of B to A", at("B"), names, 3, **{first: keys["A"][first]})
        self._removals(t, at)
        if self.kind.family != "none":
            self._upserts(t, row, names)
        self._questions(t, at, v)
        if self.kind.family == "unique":
            set_("u of A to C", at("A"), names, 1, u=keys["C"]["u"])
            set_("u of B to A", at("B"), names, 2, u=keys["A"]["u"])
            taken = {**row("C", v + 1), "u": keys["A"]["u"]}
            self._add("insert C with u of A", "insert", insert(t).values(taken), "t", 1)
            free = {**row("D", v + 1), "u": keys["C"]["u"]}
            self._add("insert D with u of C", "insert", insert(t).values(free), "t", 2)
            empty = {**row("D", v + 1), "u": None}
            self._add("insert D without u", "insert", insert(t).values(empty), "t", 3)
        if self.kind.numbered:
            given = {**row("C", v + 3)}
            del given["k"]
            told = {**given, "k": bindparam(NUMBER, type_=Integer)}
            # The number that the store would give to a process's second row.
            second = {**given, "k": SECOND_NUMBER}
            self._add("insert second number", "insert", insert(t).values(second), "t", 3)
            self._add(
                "insert numbered", "insert", insert(t).values(given), "t", 2,
                numbered=True, for_sqlite=insert(t).values(told),
            )  # fmt: skip
        self._schema_changes(row)

    def _removals(self, t: Any, at: Callable[[str], Any]) -> None:
        names = list(self.kind.keys["A"]) if self.kind.family != "unique" else ["k"]
        for key, rank in (("A", 1), ("B", 3), ("C", 2), ("D", 3)):
            self._add(f"delete {key}", "delete", delete(t).where(at(key)), "t", rank, relied=names)
        self._add(
            "delete where x >= 2", "delete", delete(t).where(t.c.x >= 2), "t", 2, relied=["x"]
        )
        self._add("delete all", "delete", delete(t), "t", 3)
        self._add(
            "delete A returning", "delete", delete(t).where(at("A")).returning(t.c.x, t.c.y),
            "t", 3, relied=names,
        )  # fmt: skip

    def _upserts(self, t: Any, row: Callable[..., dict[str, Any]], names: list[str]) -> None:
        v = self.value
        for key, rank in (("A", 1), ("C", 2)):
            clause = upsert(t).values(row(key, v + 1))
            self._add(
                f"upsert {key}", "insert",
                clause.on_conflict_do_update(index_elements=names, set_={"x": v}),
                "t", rank, relied=names, relies_on_all=True,
            )  # fmt: skip
        for key in "AC":
            self._add(
                f"insert {key} or nothing", "insert",
                upsert(t).values(row(key, v + 1)).on_conflict_do_nothing(),
                "t", 3, relies_on_all=True,
            )  # fmt: skip
        self._add(
            "replace A", "insert", insert(t).prefix_with("OR REPLACE").values(row("A", v + 1)),
            "t", 2, relies_on_all=True,
        )  # fmt: skip

    def _questions(self, t: Any, at: Callable[[str], Any], v: int) -> None:
        columns = list(t.columns)
        for key, rank in (("A", 1), ("C", 2)):
            self._add(f"read {key}", "select", select(*columns).where(at(key)), "t", rank)
        self._add("read all", "select", select(*columns), "t", 1)
        self._add("read x >= 2", "select", select(*columns).where(t.c.x >= 2), "t", 2)
        self._add("read x + 0", "select", select(*columns).where(t.c.x + 0 >= 0), "t", 3)
        self._add("count", "select", select(func.count()).select_from(t), "t", 1)
        self._add("sum x", "select", select(func.sum(t.c.x)), "t", 3)
        self._add(
            "read A for update", "select", select(*columns).where(at("A")).with_for_update(),
            "t", 2, locks=True,
        )  # fmt: skip
        self._add(
            "set x of A returning", "update",
            update(t).where(at("A")).values(x=v + 4).returning(*columns), "t", 3,
            relied=list(self.kind.keys["A"]) if self.kind.family != "unique" else ["k"],
        )  # fmt: skip

    def _schema_changes(self, row: Callable[..., dict[str, Any]]) -> None:
        def change(name: str, sql: str) -> None:
            self._add(name, "ddl", sql, "t", 3)

        change("add z", "ALTER TABLE t ADD COLUMN z INTEGER")
        change("add z 7", "ALTER TABLE t ADD COLUMN z INTEGER DEFAULT 7 NOT NULL")
        change("add z not null", "ALTER TABLE t ADD COLUMN z INTEGER NOT NULL")
        change("add z check", "ALTER TABLE t ADD COLUMN z INTEGER DEFAULT 1 CHECK (z > 5)")
        change("drop y", "ALTER TABLE t DROP COLUMN y")
        change("rename y", "ALTER TABLE t RENAME COLUMN y TO w")
        change("index y", "CREATE INDEX t_y ON t (y)")
        change("unique y", "CREATE UNIQUE INDEX t_y ON t (y)")
        change("unique x", "CREATE UNIQUE INDEX t_x2 ON t (x)")
        change("drop t", "DROP TABLE t")
        change("create s", "CREATE TABLE s (k INTEGER PRIMARY KEY)")
        columns = ", ".join([*row("C", 0), "z"])
        values = ", ".join(map(repr, [*row("C", self.value + 5).values(), 8]))
        self._add(
            "insert C with z", "insert", text(f"INSERT INTO t ({columns}) VALUES ({values})"),
            "t", 3,
        )  # fmt: skip
        self._add("read z", "select", text("SELECT x, z FROM t"), "t", 3)
        self._add("set z", "update", text("UPDATE t SET z = 9 WHERE x = 1"), "t", 3, relied=["x"])

    # ------------------------------------------------------------ parent and child

    def _family(self) -> None:
        p, t, keys, v = self.kind.metadata.tables["p"], self.kind.main, self.kind.keys, self.value
        for key, rank in (("C", 1), ("A", 3)):
            clause = insert(p).values(k=keys[key]["parent"], x=v)
            self._add(f"insert parent {key}", "insert", clause, "p", rank)

        def child(key: str, of: str | None) -> dict[str, Any]:
            parent = None if of is None else keys[of]["p"]
            return {"k": keys[key]["k"], "p": parent, "x": v + 1}

        for key, of, rank in (("B", "A", 1), ("C", "C", 1), ("B", "B", 2), ("A", "A", 3)):
            clause = insert(t).values(child(key, of))
            self._add(f"insert child {key} of {of}", "insert", clause, "t", rank)
        orphan = insert(t).values(child("D", None))
        self._add("insert child D of none", "insert", orphan, "t", 3)
        several = insert(t).values([child("B", "A"), child("C", "B")])
        self._add("insert children of A and B", "insert", several, "t", 2)
        copied = select(literal(keys["D"]["k"]), t.c.p, t.c.x).where(t.c.k == keys["A"]["k"])
        self._add(
            "insert child D from A", "insert", insert(t).from_select(["k", "p", "x"], copied),
            "t", 3,
        )  # fmt: skip

        def parent_is(key: str) -> Any:
            return p.c.k == keys[key]["parent"]

        for key, rank in (("A", 1), ("B", 2), ("C", 3)):
            clause_ = delete(p).where(parent_is(key))
            self._add(f"delete parent {key}", "delete", clause_, "p", rank, relied=["k"])
        moved = update(p).where(parent_is("A")).values(k=keys["C"]["parent"])
        self._add("key of parent A to C", "update", moved, "p", 1, relied=["k"])
        self._add(
            "set x of parent A", "update", update(p).where(parent_is("A")).values(x=v), "p", 2,
            relied=["k"],
        )  # fmt: skip
        self._add(
            "compare and set parent A", "update",
            update(p).where(parent_is("A"), p.c.x == 1).values(x=v), "p", 3, relied=["k", "x"],
        )  # fmt: skip
        a = t.c.k == keys["A"]["k"]
        self._add("delete child A", "delete", delete(t).where(a), "t", 1, relied=["k"])
        of_a = t.c.p == keys["A"]["p"]
        self._add("delete children of A", "delete", delete(t).where(of_a), "t", 2, relied=["p"])
        for key, rank in (("B", 1), ("C", 2)):
            self._add(
                f"child A to parent {key}", "update",
                update(t).where(a).values(p=keys[key]["p"]), "t", rank, relied=["k"],
            )  # fmt: skip
        self._add(
            "set x of child A", "update", update(t).where(a).values(x=v), "t", 2, relied=["k"]
        )
        self._add("read parents", "select", select(p.c.k, p.c.x), "p", 2)
        for key, rank in (("A", 3), ("C", 1)):
            self._add(
                f"read parent {key}", "select", select(p.c.k, p.c.x).where(parent_is(key)), "p",
                rank,
            )  # fmt: skip
        self._add("read children", "select", select(t.c.k, t.c.p, t.c.x), "t", 1)
        self._add("read children of A", "select", select(t.c.k, t.c.p, t.c.x).where(of_a), "t", 2)
        both = select(p.c.k, t.c.k, t.c.x).select_from(p.outerjoin(t, t.c.p == p.c.k))
        self._add("read both", "select", both, "p", 2)
        self._add("count children", "select", select(func.count()).select_from(t), "t", 3)
