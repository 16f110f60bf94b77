"""What became of a campaign, as its site tells it."""

from __future__ import annotations

from discovery_xp.campaigns.ledger import Entry, Ledger
from discovery_xp.site.content import CampaignState, PointState


def state_of(ledger: Ledger) -> CampaignState:
    """Return a campaign's state; runs are numbered in the order of those that are done."""
    read = ledger.campaign
    levels: dict[str, dict[str, None]] = {factor: {} for factor in read.factors}
    for point in read.points:
        for factor, word in point.levels.items():
            levels[factor][word] = None
    number = 0
    points = []
    for entry in ledger.entries:
        number += entry.state == "done"
        of = "" if read.is_endless else f" of {entry.job.point.repeats}"
        points.append(_point(entry, f"{entry.job.block}{of}", number))
    return CampaignState(
        name=str(read.name),
        description=read.description,
        text=read.text,
        factors={factor: list(words) for factor, words in levels.items()},
        points=points,
        excluded=[
            (f"{each.part}: {', '.join(each.levels.values())}", each.because)
            for each in read.excluded
        ],
    )


def _point(entry: Entry, block: str, number: int) -> PointState:
    job = entry.job
    return PointState(
        part=job.point.part,
        levels=dict(job.point.levels),
        block=block,
        state=entry.state,
        reason=entry.failures[-1].reason if entry.failures and entry.state != "done" else "",
        run=number if entry.state == "done" else None,
    )
