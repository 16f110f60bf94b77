"""Round trips between sites: how they are pinged, and whether they are those asked for.  Pure."""

from __future__ import annotations

import dataclasses
import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from discovery_xp.errors import Failed
from discovery_xp.inputs.topology import Link, Tolerance
from discovery_xp.planning.plan_checks import answered_share

PINGS = 10
ROUNDS = 3
PERIOD_MS = 100
# Of a ping on the wire: 56 bytes of data, headers of ICMP and IP, an Ethernet frame.
PING_BITS = 98 * 8
# How many standard errors of the median a jittered pair may be off: one in 16,000 is further.
JITTER_ERRORS = 4.0
# On a link that loses nearly all, as many pings as let one in 10,000 measurements see none.
UNSEEN = 1e-4


@dataclass(frozen=True)
class PairRtt:
    """Round trips between two sites: asked for, and observed.

    `samples` and `lost` count pings in both directions; `observed_ms` is the median,
    None when nothing came back.  `rounds` is how often the pair was measured.  The median
    may be off by `allowed_ms`, the links' jitter included; up to `queueing_ms` more is what
    pings take to get through links with a rate.  All of these are what the pings took by
    `time_scale`, so that they stand beside what was asked for.
    """

    source: str
    target: str
    requested_ms: float
    observed_ms: float | None
    least_ms: float | None
    most_ms: float | None
    samples: int
    lost: int
    allowed_ms: float
    rounds: int = 1
    queueing_ms: float = 0.0
    time_scale: float = 1.0

    @property
    def measured_ms(self) -> float | None:
        """The median as the pings took it, by a clock on the wall."""
        return None if self.observed_ms is None else round(self.observed_ms * self.time_scale, 3)

    @property
    def error_ms(self) -> float | None:
        """Observed less requested."""
        return None if self.observed_ms is None else self.observed_ms - self.requested_ms

    @property
    def is_off(self) -> bool:
        """True outside the tolerance."""
        if self.error_ms is None:
            return True
        return not -self.allowed_ms <= self.error_ms <= self.allowed_ms + self.queueing_ms

    @property
    def cause(self) -> str:
        """Why a pair that is off may be so, as far as its pings tell."""
        if self.error_ms is None or self.least_ms is None:
            return "where nothing answers, a host or a link is down"
        if self.error_ms < 0:
            return "what is too quick isn't delayed as asked"
        if self.least_ms <= self.requested_ms + self.allowed_ms + self.queueing_ms:
            return "a busy machine adds latency of its own to some pings"
        return "the network under the links adds latency of its own to every ping"

    def to_json(self) -> dict[str, Any]:
        """Plain values, the verdict included."""
        return {**dataclasses.asdict(self), "measured_ms": self.measured_ms, "is_off": self.is_off}


@dataclass(frozen=True)
class Pace:
    """How pings are sent: so many, one each `period_ms`, each waited for `wait_ms`."""

    pings: int = PINGS
    period_ms: int = PERIOD_MS
    wait_ms: int = 3000


def pace_of(
    pairs: Sequence[tuple[Link, Link]], pings: int = PINGS, time_scale: float = 1.0
) -> Pace:
    """The pace that suits all of these pairs, each of its links there and back.

    Links are those asked for: what is imposed, and so the pace, is `time_scale` times slower.

    More pings where most get lost, and further apart where they would fill a slow link: what
    waits for each other measures the queue.
    """
    longest_ms = max((requested_ms(*pair) + queueing_ms(*pair) for pair in pairs), default=0.0)
    slowest_ms = max((serialisation_ms(link) for pair in pairs for link in pair), default=0.0)
    for there, back in pairs:
        lost = 1 - answered_share(there, back)
        if 0 < lost < 1:  # both ends ping
            pings = max(pings, math.ceil(math.log(UNSEEN) / math.log(lost) / 2))
    return Pace(
        pings,
        max(PERIOD_MS, math.ceil(4 * slowest_ms * time_scale)),
        round(longest_ms * time_scale) + 3000,
    )


def requested_ms(there: Link, back: Link) -> float:
    """The round trip that two links ask for, in ms."""
    return there.delay_ms + back.delay_ms


def serialisation_ms(link: Link) -> float:
    """How long a ping takes to get through a link's rate, in ms."""
    return 0.0 if link.rate_mbit is None else PING_BITS / link.rate_mbit / 1000


def queueing_ms(there: Link, back: Link) -> float:
    """What rates add to a round trip at most, in ms.

    Both ends ping at once, so each way a ping may wait for the answer to the other's.  tc lets
    a burst through without any of it, wirefilter doesn't.
    """
    return 2 * (serialisation_ms(there) + serialisation_ms(back))


def jitter_allowance_ms(there: Link, back: Link, replies: int) -> float:
    """How far from the round trip asked for the median of so many may be, by jitter alone.

    The sum of two uniform jitters has the density 1 / (2 max) in its middle, so the median of
    n has the standard error max / sqrt(n).
    """
    largest_ms = max(there.jitter_ms, back.jitter_ms)
    error_ms = JITTER_ERRORS * largest_ms / math.sqrt(max(1, replies))
    return min(error_ms, there.jitter_ms + back.jitter_ms)


def fping_command(addresses: Sequence[str], pace: Pace = Pace()) -> str:
    """One line of sh that pings all addresses; the first ping only warms caches up."""
    install = "command -v fping >/dev/null || apt-get install -qq -y fping >/dev/null"
    return (
        f"{install}; fping -q -C {pace.pings + 1} -p {pace.period_ms} -i 2 -t {pace.wait_ms} "
        f"{' '.join(addresses)}"
    )


_REPLIES = re.compile(r"([0-9.]{7,15})\s+:((?: (?:-|[0-9]{1,9}(?:\.[0-9]{1,9})?))+)\s*", re.ASCII)


def parse_fping(text: str) -> dict[str, list[float | None]]:
    """fping's '-C -q' lines to milliseconds by address, the first ping left out."""
    replies: dict[str, list[float | None]] = {}
    for line in text.splitlines():
        match = _REPLIES.fullmatch(line.strip())
        if match is not None:
            values = [None if word == "-" else float(word) for word in match[2].split()]
            replies[match[1]] = values[1:]
    return replies


def summarise(
    source: str,
    target: str,
    links: tuple[Link, Link],
    samples: Sequence[float | None],
    tolerance: Tolerance,
    rounds: int = 1,
    time_scale: float = 1.0,
) -> PairRtt:
    """Judge one pair's pings, which took `time_scale` times as long as what they stand for.

    `links` are those asked for, there and back.
    """
    replies = [round(sample / time_scale, 3) for sample in samples if sample is not None]
    return PairRtt(
        source=source,
        target=target,
        requested_ms=requested_ms(*links),
        observed_ms=round(statistics.median(replies), 3) if replies else None,
        least_ms=min(replies, default=None),
        most_ms=max(replies, default=None),
        samples=len(samples),
        lost=len(samples) - len(replies),
        allowed_ms=round(
            tolerance.allowed_ms(requested_ms(*links))
            + jitter_allowance_ms(*links, replies=len(replies)),
            3,
        ),
        rounds=rounds,
        queueing_ms=round(queueing_ms(*links), 3),
        time_scale=time_scale,
    )


def require_within_tolerance(pairs: Sequence[PairRtt]) -> None:
    """Raise Failed, naming them, when pairs are off."""
    off = [pair for pair in pairs if pair.is_off]
    if off:
        words = [
            f"{pair.source} - {pair.target}: "
            + ("no answer" if pair.observed_ms is None else f"{pair.observed_ms:.1f} ms")
            + f" instead of {pair.requested_ms:g} ms"
            for pair in off
        ]
        causes = [pair.cause for pair in off]
        shown = ", ".join(words[:6]) + (f" and {len(words) - 6} more" if len(words) > 6 else "")
        raise Failed(
            f"{len(off)} of {len(pairs)} pairs are off by more than the tolerance: {shown}",
            f"see 'discovery-xp network show'; {'; '.join(dict.fromkeys(causes))}; "
            "widen network.tolerance if that is acceptable",
        )
