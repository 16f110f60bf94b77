"""What one transaction does: a workload yields after each statement, with what it saw.

The caller goes on with it when it likes, so one thread can have several transactions open.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from sqlalchemy import Connection, Update, delete, func, insert, literal, select, text, update
from sqlalchemy.exc import IntegrityError

from tests.histories.model import (
    Action,
    Append,
    Delete,
    Detail,
    Insert,
    Missed,
    Read,
    Swap,
    Taken,
)
from tests.histories.tables import (
    COUNTERS,
    LISTS,
    NAMES,
    counter_key,
    entries,
    generations,
    list_rows,
    list_text,
    members,
    named,
    read_counters,
    read_rows,
    row_key,
    texts,
)

# Yields what a statement did or saw, or None: nothing that a history has to know.
Workload = Callable[["Turn"], Iterator[Action | None]]


class Turn:
    """What a workload needs for one transaction."""

    def __init__(
        self, connection: Connection, chance: random.Random, value: Callable[[], int], stage: int
    ) -> None:
        """`value` gives another number each time; `stage` says which lists are in use."""
        self.connection = connection
        self.chance = chance
        self.value = value
        self.stage = stage


def text_lists(turn: Turn) -> Iterator[Action | None]:
    """Append to lists that are texts, and read one or all of them."""
    connection, chance = turn.connection, turn.chance
    names = [f"list-{turn.stage * LISTS + number}" for number in range(LISTS)]
    for _ in range(chance.randint(1, 4)):
        name = chance.choice(names)
        dice = chance.random()
        if dice < 0.5:
            value = turn.value()
            connection.execute(_appending(name, value))
            yield Append(list_text(name), value)
            continue
        wanted = [name] if dice < 0.8 else names
        found = connection.execute(
            select(texts.c.name, texts.c.members).where(texts.c.name.in_(wanted))
        )
        yield Read({list_text(each): members(value) for each, value in found})


def _appending(name: str, value: int) -> Update:
    return update(texts).where(texts.c.name == name).values(members=texts.c.members + f"{value},")


def row_lists(turn: Turn) -> Iterator[Action | None]:
    """Append to lists that are rows with places, and read one or all of them."""
    connection, chance = turn.connection, turn.chance
    numbers = [turn.stage * LISTS + number for number in range(LISTS)]
    for _ in range(chance.randint(1, 4)):
        number = chance.choice(numbers)
        dice = chance.random()
        if dice < 0.5:
            value = turn.value()
            place = (
                select(func.coalesce(func.max(entries.c.place), 0) + 1)
                .where(entries.c["list"] == number)
                .scalar_subquery()
            )
            with connection.begin_nested():
                connection.execute(
                    insert(entries).from_select(
                        ["list", "place", "value"],
                        select(literal(number), place, literal(value)),
                    )
                )
            yield Append(list_rows(number), value)
            continue
        wanted = [number] if dice < 0.8 else numbers
        found: dict[int, list[int]] = {each: [] for each in wanted}
        for each, value in connection.execute(
            select(entries.c["list"], entries.c.value)
            .where(entries.c["list"].in_(wanted))
            .order_by(entries.c.place)
        ):
            found[each].append(value)
        yield Read({list_rows(each): tuple(values) for each, values in found.items()})


def rows(turn: Turn) -> Iterator[Action | None]:
    """Insert, replace and delete rows with keys of text, by comparison with what was read."""
    connection, chance = turn.connection, turn.chance
    for _ in range(chance.randint(1, 3)):
        name = chance.choice(NAMES)
        key = row_key(name)
        dice = chance.random()
        if dice < 0.1:
            yield Read({}, read_rows(connection))
            continue
        if dice < 0.2:
            yield _range(turn, name)
            continue
        if dice < 0.33:
            yield from _insert(turn, name)  # whether one is there or not
            continue
        if dice < 0.42:
            _regret(turn, name)
            yield None
            continue
        found = connection.execute(
            select(named.c.version, named.c.detail).where(named.c.name == name)
        ).one_or_none()
        yield Read({}, {key: None if found is None else (found[0], found[1])})
        if found is None:
            yield from _insert(turn, name)
            continue
        version, detail = found
        dice = chance.random()
        if dice < 0.25:
            value = turn.value()
            matched = connection.execute(
                update(named)
                .where(named.c.name == name, named.c.version == version)
                .values(version=value)
            ).rowcount
            yield Swap(key, version, value) if matched else Missed(key, version)
        elif dice < 0.5:
            value = turn.value()
            matched = connection.execute(
                update(named)
                .where(named.c.name == name, named.c.detail == detail)
                .values(detail=value)
            ).rowcount
            yield Detail(key, detail, value) if matched else None
        else:
            matched = connection.execute(
                delete(named).where(named.c.name == name, named.c.version == version)
            ).rowcount
            yield Delete(key, version) if matched else Missed(key, version)
            if dice < 0.8 and matched:
                yield from _insert(turn, name)


def _range(turn: Turn, start: str) -> Read:
    """Read the first rows from a key on, in the order of the keys or against it."""
    limit = turn.chance.randint(1, 3)
    ascending = turn.chance.random() < 0.5
    found = turn.connection.execute(
        select(named.c.name, named.c.version, named.c.detail)
        .where(named.c.name >= start if ascending else named.c.name <= start)
        .order_by(named.c.name if ascending else named.c.name.desc())
        .limit(limit)
    ).all()
    seen = {name: (version, detail) for name, version, detail in found}
    within = [name for name in NAMES if (name >= start if ascending else name <= start)]
    if len(found) == limit:
        # Of what comes behind the last one, nothing was said.
        last = found[-1][0]
        within = [name for name in within if (name <= last if ascending else name >= last)]
    return Read({}, {row_key(name): seen.get(name) for name in {*within, *seen}})


def _insert(turn: Turn, name: str) -> Iterator[Action | None]:
    version, detail = turn.value(), turn.value()
    statement = insert(named)
    if turn.chance.random() < 0.5:
        statement = statement.values(name=name, version=version, detail=detail)
    else:
        # The whole table is read by it.
        count = select(func.count()).select_from(named).scalar_subquery()
        statement = statement.from_select(
            ["name", "version", "detail"],
            select(literal(name), literal(version), literal(detail)).where(count < 1000),
        )
    try:
        turn.connection.execute(statement)
    except IntegrityError:
        yield Taken(row_key(name))
    else:
        yield Insert(row_key(name), version, detail)


def _regret(turn: Turn, name: str) -> None:
    """Write to some rows and roll that back to a savepoint: nobody may ever see it."""
    connection, chance = turn.connection, turn.chance
    nested = connection.begin_nested()
    connection.execute(delete(named).where(named.c.name == name))
    for _ in _insert(turn, chance.choice(NAMES)):
        pass
    connection.execute(update(named).values(detail=turn.value()))
    nested.rollback()


def swaps(turn: Turn) -> Iterator[Action | None]:
    """Compare and set generations, after reading one or all of them."""
    connection, chance = turn.connection, turn.chance
    for _ in range(chance.randint(1, 3)):
        number = chance.randrange(COUNTERS)
        key = counter_key(number)
        if chance.random() < 0.3:
            seen = read_counters(connection)
        else:
            found = connection.scalars(
                select(generations.c.generation).where(generations.c.id == number)
            ).one_or_none()
            seen = {key: None if found is None else (found, None)}
        yield Read({}, seen)
        row = seen[key]
        if row is None or chance.random() < 0.25:
            continue
        value = turn.value()
        matched = connection.execute(
            update(generations)
            .where(generations.c.id == number, generations.c.generation == row[0])
            .values(generation=value)
        ).rowcount
        yield Swap(key, row[0], value) if matched else Missed(key, row[0])


def mixed(turn: Turn) -> Iterator[Action | None]:
    """Do what one of the others does."""
    yield from turn.chance.choice((text_lists, row_lists, rows, swaps))(turn)


WORKLOADS: dict[str, Workload] = {
    "text lists": text_lists,
    "row lists": row_lists,
    "rows": rows,
    "swaps": swaps,
    "mixed": mixed,
}


def change_schema(connection: Connection, turn: int) -> None:
    """Change the schema of the tables and change it back, one statement after the other."""
    for sql in (
        f"ALTER TABLE named ADD COLUMN more{turn} VARCHAR DEFAULT 'x'",
        "CREATE INDEX named_by_version ON named (version)",
        "CREATE UNIQUE INDEX texts_by_both ON texts (name, members)",
        f"ALTER TABLE generations ADD COLUMN more{turn} INTEGER",
        f"CREATE TABLE other{turn} (id INTEGER PRIMARY KEY, generation INTEGER)",
        "DROP INDEX named_by_version",
        "DROP INDEX texts_by_both",
        f"ALTER TABLE named DROP COLUMN more{turn}",
        f"ALTER TABLE generations DROP COLUMN more{turn}",
        f"DROP TABLE other{turn}",
    ):
        connection.execute(text(sql))
        connection.commit()
