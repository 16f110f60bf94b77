"""What people are told while they wait."""

import io
from collections.abc import Iterator

import pytest

from discovery_xp.cli import progress as cli_progress
from discovery_xp.cli.common import PlainConsole
from discovery_xp.cli.progress import Follower, duration_in_words, pace_in_words
from discovery_xp.load.ledger import Pace


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    made = Clock()
    monkeypatch.setattr(cli_progress, "time", made)
    yield made


def follower(
    expected_s: float | None = None, terminal: bool = False
) -> tuple[Follower, io.StringIO]:
    made, written = Follower(expected_s), io.StringIO()
    made.console = PlainConsole(file=written, force_terminal=terminal, width=80)
    return made, written


def test_each_stage_is_a_line_with_what_is_left(clock: Clock) -> None:
    told, written = follower(300)
    told("booting hosts", 0, 17)
    clock.now += 100
    told("computes [x]", 0, 0)
    clock.now += 190
    told("collecting", 0, 0)
    told.end("it is over")
    assert written.getvalue().splitlines() == [
        "   0.0 s  booting hosts (17)  [about 5 min left]",
        " 100.0 s  computes [x]  [about 3 min left]",
        " 290.0 s  collecting",
        " 290.0 s  it is over",
    ]


def test_where_lines_cant_be_written_over_a_count_is_told_now_and_then(clock: Clock) -> None:
    told, written = follower()
    for done in range(41):
        told("computes", done, 40)
        clock.now += 1
    assert written.getvalue().splitlines()[1:] == [
        "  15.0 s    15 of 40, 1.0/s, 25 s left",
        "  30.0 s    30 of 40, 1.0/s, 10 s left",
    ]


def test_a_load_is_told_by_its_own_pace(clock: Clock) -> None:
    told, written = follower(terminal=True)
    told("load: boot", 0, 500)
    told("load: boot", 100, 500)
    assert "of 500" not in written.getvalue()
    told.pace(Pace(done=100, total=500, active=98, failed=2, rate_per_s=0.5, remaining_s=800))
    assert "100 of 500, 2 failed, 30/min, 13 min left" in written.getvalue()
    told.pace(Pace(done=100, total=500, active=100, failed=0, rate_per_s=0, remaining_s=None))
    last = written.getvalue().rpartition("\r")[2]
    assert last.rstrip().endswith("100 of 500"), "nothing moves: no rate"
    assert len(last) >= len("   0.0 s    100 of 500, 2 failed, 30/min, 13 min left"), "written over"


def test_words_for_paces_and_times() -> None:
    assert pace_in_words(2.25, 61.2) == ", 2.2/s, 61 s left"
    assert pace_in_words(0, 5) == pace_in_words(1, None) == ""
    assert (duration_in_words(119), duration_in_words(180)) == ("119 s", "3 min")
