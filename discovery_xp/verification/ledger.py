"""What is known of a verification so far: the host's lines, merged into rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from discovery_xp.boundary.answers import Unfit
from discovery_xp.onhost.wire import verification as wire

Row = dict[str, Any]
MOST_NOTES = 50


@dataclass
class Ledger:
    """A verification's lines so far, of which a test that failed may have a second one.

    `planned` is None until the tests are chosen; `ended` are the words of its unit's end, None
    while it runs.
    """

    planned: int | None = None
    rows: dict[str, Row] = field(default_factory=dict)
    stage: tuple[str, int, int] = ("", 0, 0)
    notes: list[str] = field(default_factory=list)
    crash: str | None = None
    is_done: bool = False
    ended: str | None = None
    new: list[Row] = field(default_factory=list)

    def take(self, line: object) -> None:
        """Take a line of the host's; raises Unfit unless it is one that can come now."""
        kind, values = wire.parse(line)
        if kind == "verdict":
            self._take_verdict(values)
        elif kind == "planned":
            if values["tests"] > wire.MOST_TESTS:
                raise Unfit("more tests than there are")
            self.planned = values["tests"]
        elif kind == "stage":
            self.stage = (values["stage"], values["done"], values["total"])
        elif kind == "note":
            self.note(values["text"])
        elif kind == "crash":
            self.crash = values["error"]
        elif kind == "done":
            self.is_done = True
        elif kind == "unit":
            self.ended = values["words"]

    def _take_verdict(self, row: Row) -> None:
        earlier = self.rows.get(row["test"])
        if earlier is not None and earlier["status"] != wire.FAILED:
            raise Unfit("a test ends twice")
        if len(self.rows) >= wire.MOST_TESTS:
            raise Unfit("more tests than there are")
        self.rows[row["test"]] = row
        self.new.append(row)

    def note(self, text: str) -> None:
        """Note what went wrong besides; of very many, the first ones."""
        if len(self.notes) < MOST_NOTES:
            self.notes.append(text)

    def new_rows(self) -> list[Row]:
        """Return the rows that came since this was last asked."""
        rows, self.new = self.new, []
        return rows

    @property
    def counts(self) -> Counter[str]:
        """Return how many tests ended how."""
        return Counter(row["status"] for row in self.rows.values())

    def reason(self) -> str | None:
        """Return why it is partial, None where every test has its verdict."""
        if self.is_done and self.crash is None:
            return None
        if self.crash is not None:
            return self.crash
        if self.ended is not None and "timeout" in self.ended:
            return "its time was up"
        return f"Tempest {self.ended}" if self.ended else "it was interrupted"
