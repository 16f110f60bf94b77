"""Progress for people: what happens, how far it is, how fast, and how long it still takes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.text import Text

from discovery_xp.cli.common import PlainConsole
from discovery_xp.text import printable

if TYPE_CHECKING:
    from discovery_xp.load.ledger import Pace

# Where lines can't be written over: a word each so many seconds.
SAY_EVERY_S = 15.0


class Follower:
    """A line for each stage, and its count while it runs."""

    def __init__(self, expected_s: float | None = None) -> None:
        """`expected_s` is how long all of it should take, in seconds."""
        self.console = PlainConsole(stderr=True)
        self.expected_s = expected_s
        self.started = self.stage_started = self.said = time.monotonic()
        self.stage = ""
        self.shown = 0

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage != self.stage:
            self._end_line()
            self.stage, self.stage_started, self.said = stage, now, now
            count = f" ({total})" if total else ""
            self._print(f"{stage}{count}{self._left(now)}")
        if total and 0 < done < total:
            rate = done / max(0.001, now - self.stage_started)
            # The first few say little of the others: hosts are worked on side by side.
            pace = pace_in_words(rate, (total - done) / rate) if 10 * done >= total else ""
            self._count(f"{done} of {total}{pace}")

    def pace(self, pace: Pace) -> None:
        """How a load comes on; in place of its stage's plain count."""
        if 0 < pace.done < pace.total:
            failed = f", {pace.failed} failed" if pace.failed else ""
            rate = pace_in_words(pace.rate_per_s, pace.remaining_s)
            self._count(f"{pace.done} of {pace.total}{failed}{rate}", is_pace=True)

    def _count(self, words: str, is_pace: bool = False) -> None:
        if self.stage.startswith("load: ") and not is_pace:
            return
        now = time.monotonic()
        if self.console.is_terminal:
            text = f"{now - self.started:6.1f} s    {words}"
            self.console.file.write(f"\r{text:<{self.shown}}")
            self.console.file.flush()
            self.shown = len(text)
        elif now - self.said >= SAY_EVERY_S:
            self.said = now
            self._print(f"  {words}")

    def _print(self, words: str) -> None:
        elapsed = time.monotonic() - self.started
        line = Text.assemble((f"{elapsed:6.1f} s  ", "dim"), printable(words))
        self.console.print(line, soft_wrap=True)  # one line, however narrow the terminal is

    def _left(self, now: float) -> str:
        """Of all that is to be done, as far as it was foretold."""
        if self.expected_s is None:
            return ""
        left_s = self.expected_s - (now - self.started)
        return f"  [about {duration_in_words(left_s)} left]" if left_s > 30 else ""

    def _end_line(self) -> None:
        if self.shown:
            self.console.file.write("\r" + " " * self.shown + "\r")
            self.shown = 0

    def end(self, words: str) -> None:
        """The last line."""
        self._end_line()
        self._print(words)


def pace_in_words(rate_per_s: float, remaining_s: float | None) -> str:
    """Such as ', 1.2/s, 3 min left'; empty where nothing moves."""
    if not rate_per_s or remaining_s is None:
        return ""
    rate = f"{rate_per_s:.1f}/s" if rate_per_s >= 1 else f"{rate_per_s * 60:.0f}/min"
    return f", {rate}, {duration_in_words(remaining_s)} left"


def duration_in_words(duration_s: float) -> str:
    """Whole seconds below two minutes, whole minutes below three hours, then hours and minutes."""
    minutes = round(duration_s / 60)
    if minutes >= 180:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{duration_s:.0f} s" if duration_s < 120 else f"{minutes} min"
