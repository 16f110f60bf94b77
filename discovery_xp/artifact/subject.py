"""What an artifact is made of: the runs of a campaign or of a folder of results, and claims."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from discovery_xp import places
from discovery_xp.artifact.claims import Claims, read_claims
from discovery_xp.artifact.levels import factors_of, in_words, may_have
from discovery_xp.boundary.names import ExperimentName
from discovery_xp.campaigns.ledger import FAILURES, FILE
from discovery_xp.errors import Refused
from discovery_xp.inputs.campaign import read_campaign
from discovery_xp.inputs.campaign_values import Campaign, Point
from discovery_xp.store import Run, find_runs
from discovery_xp.text import printable

CLAIMS = "claims.yaml"
SHIPPED_CLAIMS = "campaigns/claims"


@dataclass(frozen=True)
class Subject:
    """Runs and the claims about them.

    `folder` is where they are; `campaign_text` is the campaign's file, empty without one;
    `others` are files beside the runs that belong to them.
    """

    name: str
    description: str
    folder: Path
    runs: tuple[Run, ...]
    claims: Claims
    campaign_text: str = ""
    others: tuple[Path, ...] = ()


def subject_of(named: Path, results: Path, claims: Path | None = None) -> Subject:
    """Return what a campaign's file, or a folder of results, names.

    The runs of a campaign's file are in a folder of its name in `results`.  Without `claims` they
    are those beside the runs (claims.yaml), or beside the campaign's file (claims/NAME.yaml).
    Raises Refused where there are no runs, InvalidInput where a file isn't right.
    """
    if named.is_dir():
        return _of_folder(named, claims)
    campaign = read_campaign(named)
    folder = results / campaign.name
    if not folder.is_dir():
        raise Refused(
            f"{printable(str(folder))}: no such folder, so there are no runs of campaign "
            f"'{campaign.name}'",
            f"make them with 'discovery-xp campaign run {printable(str(named))}', or say where "
            "they are with --results",
        )
    runs = find_runs([folder])
    beside = named.parent / "claims" / f"{named.stem}.yaml"
    path = claims or _there(folder / CLAIMS) or _there(beside)
    return Subject(
        name=campaign.name,
        description=campaign.description,
        folder=folder,
        runs=tuple(runs),
        claims=_claims(path, runs, campaign),
        campaign_text=campaign.text,
        others=_others(folder),
    )


def _of_folder(folder: Path, claims: Path | None) -> Subject:
    runs = find_runs([folder])
    name = folder.resolve().name
    text = ""
    if (written := folder / FILE).is_file():
        text = read_text(written)
        shipped = places.shipped_file(SHIPPED_CLAIMS, Path(f"{name}.yaml"))
        beside = _there(shipped) if shipped.is_absolute() else None
    else:
        beside = None
    found = _claims(claims or _there(folder / CLAIMS) or beside, runs, None)
    return Subject(
        name=name if ExperimentName.objection(name) is None else "results",
        description=found.description,
        folder=folder,
        runs=tuple(runs),
        claims=found,
        campaign_text=text,
        others=_others(folder),
    )


def _claims(path: Path | None, runs: list[Run], campaign: Campaign | None) -> Claims:
    if path is None:
        return Claims()
    factors = dict.fromkeys(factors_of(run.load() for run in runs))
    if campaign is not None:  # a point may have no run yet
        factors |= dict.fromkeys(campaign.factors)
    claims = read_claims(path, list(factors))
    if campaign is not None:
        require_points(claims, campaign)
    return claims


def require_points(claims: Claims, campaign: Campaign) -> None:
    """Raise Refused where a claim is about levels that no point of a campaign has."""
    for claim in claims.claims:
        for levels in claim.sides:
            if not any(may_have(_own_levels(point), levels) for point in campaign.points):
                raise Refused(
                    f"{claim.place}: claim {claim.number}: campaign '{campaign.name}' has no point "
                    f"with {in_words(levels)}",
                    "write levels of its 'parts'",
                )


def _own_levels(point: Point) -> dict[str, str]:
    """Return the levels of a point, and those that its files have without varying them."""
    cloud = point.topology.openstack
    own = {
        "backend": cloud.backend,
        "layout": cloud.layout,
        "placement": cloud.placement,
        "time_scale": point.topology.time_scale,
        "vms": point.scenario.vms,
    }
    return {**{factor: str(level) for factor, level in own.items()}, **point.levels}


def _others(folder: Path) -> tuple[Path, ...]:
    failures = _there(folder / FAILURES)
    return () if failures is None else (failures,)


def _there(path: Path) -> Path | None:
    return path if path.is_file() else None


def read_text(path: Path) -> str:
    """Return a file that is to go into an artifact; raises Refused where it can't be read."""
    from discovery_xp.boundary.reading import Unreadable
    from discovery_xp.boundary.reading import read_text as read

    try:
        return read(path, 4_000_000)
    except Unreadable as error:
        raise Refused(f"{printable(str(path))}: {error.reason}", "move it away") from None
