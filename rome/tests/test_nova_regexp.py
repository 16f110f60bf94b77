"""`.op('LIKE')`, which Nova writes where it means a regular expression: by the URL's option."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, select
from sqlalchemy.exc import ArgumentError

NAMES = ("web-1", "web-22", "db-1", "Web-3", None)
_numbers = itertools.count()

servers = Table(
    "servers", MetaData(), Column("id", Integer, primary_key=True), Column("name", String(50))
)


def found(options: str, condition: Callable[[Column[str]], object]) -> list[str]:
    """Return the names that a condition finds, in a database whose URL has these options."""
    engine = create_engine(f"rome+memory:///nova-regexp-{next(_numbers)}{options}")
    try:
        with engine.begin() as connection:
            servers.create(connection)
            connection.execute(servers.insert(), [{"name": name} for name in NAMES])
            query = select(servers.c.name).where(condition(servers.c.name))  # type: ignore[arg-type]
            return list(connection.scalars(query.order_by(servers.c.id)))
    finally:
        engine.dispose()


ON = "?nova_regexp=on"


@pytest.mark.parametrize(
    ("pattern", "names"),
    [("^web-[0-9]$", ["web-1"]), ("web", ["web-1", "web-22"]), ("1$", ["web-1", "db-1"]),
     ("2%2", []), ("", ["web-1", "web-22", "db-1", "Web-3"])],
)  # fmt: skip
def test_with_the_option_it_is_a_regular_expression(pattern: str, names: list[str]) -> None:
    assert found(ON, lambda name: name.op("LIKE")(f"%{pattern}%")) == names
    assert found(ON, lambda name: name.op("LIKE")(pattern)) == names


def test_without_the_option_it_is_what_it_says() -> None:
    for options in ("", "?nova_regexp=off"):
        assert found(options, lambda name: name.op("LIKE")("web-_")) == ["web-1", "Web-3"]
        assert found(options, lambda name: name.op("LIKE")("^web")) == []


def test_like_itself_is_never_changed() -> None:
    assert found(ON, lambda name: name.like("web-_")) == ["web-1", "Web-3"]
    assert found(ON, lambda name: name.op("REGEXP")("^db")) == ["db-1"]
    assert found(ON, lambda name: ~name.op("LIKE")("%^web%")) == ["db-1", "Web-3"]


def test_a_value_that_is_no_switch_is_refused() -> None:
    with pytest.raises(ArgumentError, match="option nova_regexp=maybe: say on or off"):
        found("?nova_regexp=maybe", lambda name: name.is_(None))
