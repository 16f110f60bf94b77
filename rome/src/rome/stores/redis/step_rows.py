"""What a read in pages has found for one step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from rome.stores.rows import NULL, pack_value, unpack_value
from rome.stores.steps import Defaults, column
from rome.stores.wire import Lookup, RangeLookup, Step


@dataclass(slots=True)
class StepRows:
    """What was found for a step.

    columns: slots that its rows have; empty: they are whole.  added: all rows that ever came.
    lookup: the one that finds them, or None: the whole table is looked at.  asked: keys that
    were looked for.  used: how many of the rows that came for the step that the look-up names
    have given their keys.  size: rows that it will look at.  walking: whether the look-up is a
    walk for the first rows.  walked: the rows that it has met and that are unchanged, in its order.
    met: how many it has met.  trips: round trips of the walk.
    """

    step: Step
    columns: tuple[int, ...]
    defaults: Defaults
    rows: dict[bytes, bytes] = field(default_factory=dict)
    added: list[bytes] = field(default_factory=list)
    removed: int = 0
    looked: int = 0
    size: float = 0
    done: bool = False
    lookup: Lookup | None = None
    asked: set[Any] = field(default_factory=set)
    used: int = 0
    walking: bool = False
    walked: dict[bytes, None] = field(default_factory=dict)
    met: int = 0
    trips: int = 0

    def add(self, pairs: Sequence[bytes]) -> None:
        """Take rows, given as numbers and rows by turns."""
        self.rows.update(zip(pairs[::2], pairs[1::2], strict=True))
        self.added += pairs[1::2]

    def remove(self, numbers: Iterable[bytes]) -> None:
        """Take out rows that were changed."""
        for number in numbers:
            if self.rows.pop(number, None) is not None:
                self.removed += 1
                self.walked.pop(number, None)

    def walk(self, pairs: Sequence[bytes]) -> None:
        """Take rows that a walk has met."""
        self.add(pairs)
        for number in pairs[::2]:
            self.walked.pop(number, None)  # it may have moved on to where it is met again
            self.walked[number] = None
            self.met += 1

    def walked_enough(self) -> bool:
        """Whether the first rows are there, and those equal to the last of them."""
        limit = self.step.limit
        if self.done or not self.walking:
            return self.done
        if len(self.walked) < limit:
            return False
        numbers = list(self.walked)
        assert isinstance(self.lookup, RangeLookup)
        ties = self.lookup.ties
        return not ties or any(
            self._value(numbers[limit - 1], slot) != self._value(numbers[-1], slot) for slot in ties
        )

    def _value(self, number: bytes, slot: int) -> Any:
        row = self.rows[number]
        if slot in self.columns:
            return unpack_value(row)[self.columns.index(slot)]
        return unpack_value(column(row, slot, self.defaults))

    def values(self, slot: int) -> Iterator[Any]:
        """What each row has in a column."""
        if slot in self.columns:
            place = self.columns.index(slot)
            return (unpack_value(row)[place] for row in self.rows.values())
        return (unpack_value(column(row, slot, self.defaults)) for row in self.rows.values())

    def keys(self, kind: str, slots: Sequence[int], start: int) -> Iterator[Any]:
        """What rows have in some columns, as keys of a look-up."""
        places = [self.columns.index(slot) for slot in slots] if self.columns else []
        for row in self.added[start:]:
            if places:
                values = unpack_value(row)
                parts = [pack_value(values[place]) for place in places]
            else:
                parts = [column(row, slot, self.defaults) for slot in slots]
            if NULL in parts:
                continue
            if kind != "row":
                yield b"".join(parts)
            elif isinstance(number := unpack_value(parts[0]), int):
                yield str(number)
