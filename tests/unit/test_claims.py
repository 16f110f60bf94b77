"""Files of claims: read strictly, and judged on runs whose numbers are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from discovery_xp.analysis.measurements import Measurements, measured
from discovery_xp.artifact import levels
from discovery_xp.artifact.claims import CLAIMED, Claims, claims_schema, parse_claims, read_claims
from discovery_xp.artifact.judging import Verdict, judge, table
from discovery_xp.artifact.subject import require_points
from discovery_xp.errors import InvalidInput, Refused
from discovery_xp.inputs.campaign import read_campaign
from discovery_xp.places import checkout
from tests.unit.synthetic_run import make_run

FACTORS = (*levels.BUILT_IN, "store")
ONE = """\
claims:
  - sentence: Redis is as quick.
    figure: duration_s
    of: {backend: rome, sites: 2}
    to: {backend: mysql, sites: 2}
    at_most: 1.5
    tolerance: 10%
"""


def parsed(text: str) -> Claims:
    return parse_claims(text, FACTORS)


def problems(text: str) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        parsed(text)
    return str(caught.value).splitlines()


def test_a_claim_says_what_is_compared_and_how() -> None:
    (claim,) = parsed(ONE).claims
    assert (claim.number, claim.sentence, claim.figure.key) == (
        1, "Redis is as quick.", "duration_s",
    )  # fmt: skip
    assert claim.sides == ({"backend": "rome", "sites": "2"}, {"backend": "mysql", "sites": "2"})
    assert claim.relation == "ratio at most 1.5, ± 10 %"
    assert claim.place == "claims.yaml:2"


@pytest.mark.parametrize(
    ("value", "holds", "within"), [(1.5, True, True), (1.6, False, True), (1.66, False, False)]
)
def test_a_bound_may_be_missed_by_the_tolerance(value: float, holds: bool, within: bool) -> None:
    (claim,) = parsed(ONE).claims
    assert (claim.holds(value), claim.holds_within_tolerance(value)) == (holds, within)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("duration_s", "durations", "claims.yaml:3: claims[0].figure: 'durations' is unknown; "
         "did you mean 'duration_s'?"),
        ("sites: 2}\n    to", "site: 2}\n    to", "claims.yaml:4: claims[0].of.site: 'site' is "
         "unknown; did you mean 'sites'?"),
        ("{backend: mysql, sites: 2}", "{}", "claims.yaml:5: claims[0].to: names no level; "),
        ("{backend: mysql, sites: 2}", "{backend: rome, sites: 2}",
         "claims.yaml:5: claims[0].to: are the runs of 'of'; "),
        ("backend: mysql", "backend: [mysql]", "claims.yaml:5: claims[0].to.backend: '['mysql']' "
         "is not a level; "),
        ("    at_most: 1.5\n", "", "claims.yaml:2: claims[0]: has no bound; "),
        ("at_most: 1.5", "at_most: -1", "claims.yaml:2: claims[0]: '-1' is out of range; "),
        ("at_most: 1.5", "at_most: 1\n    at_least: 2",
         "claims.yaml:2: claims[0]: 'at_least' is over 'at_most'; "),
        ("tolerance: 10%", "tolerance: 10", "claims.yaml:7: claims[0].tolerance: '10' has no unit"),
        ("tolerance:", "tolerances:", "claims.yaml:7: claims[0].tolerances: unknown key; "),
        ("claims:", "claim:", "'claims' is missing"),
        (ONE, "claims: []", "claims.yaml:1: claims: has too few items (0); "),
        (ONE, "[]", "claims.yaml:1: holds no claims; "),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_line(old: str, new: str, says: str) -> None:
    assert old in ONE
    assert any(says in line for line in problems(ONE.replace(old, new, 1))), problems(
        ONE.replace(old, new, 1)
    )


def test_the_schema_names_each_key() -> None:
    entry = claims_schema()["$defs"]["ClaimEntry"]
    assert set(entry["required"]) == {"sentence", "figure", "of"}
    assert entry["additionalProperties"] is False


# ---------------------------------------------------------------- files that ship


def test_the_claims_that_ship_are_about_points_of_their_campaigns() -> None:
    paths = sorted((checkout() / "campaigns/claims").glob("*.yaml"))
    assert [path.stem for path in paths] == ["paper"]
    for path in paths:
        campaign = read_campaign(checkout() / "campaigns" / path.name)
        claims = read_claims(path, [*levels.BUILT_IN, *campaign.factors])
        require_points(claims, campaign)
    (claim, *_) = claims.claims
    other = replace(claim, of={"store": "4 Galera", "sites": "8"})
    wrong = Claims(claims=(other,))
    with pytest.raises(Refused, match="campaign 'paper' has no point with store 4 Galera, sites 8"):
        require_points(wrong, campaign)


def test_the_reference_runs_have_claims() -> None:
    assert len(read_claims(checkout() / "results/reference/claims.yaml", FACTORS).claims) == 8


# ---------------------------------------------------------------- levels of runs


def test_a_run_has_the_levels_of_its_record_or_of_its_campaign(tmp_path: Path) -> None:
    record = make_run(tmp_path, sites=2, data=2, latency_ms=10).load()
    expected = {"sites": "2", "controllers": "1", "computes": "6", "data": "1", "latency": "10ms",
                "time_scale": "1", "backend": "mysql", "layout": "shared", "vms": "20",
                "placement": "shared", "concurrency": "all"}  # fmt: skip
    assert {factor: levels.level_of(record, factor) for factor in expected} == expected
    assert levels.level_of(record, "store") is None
    of_campaign = make_run(
        tmp_path / "other", sites=2, latency_ms=10,
        more_record={"in_campaign": {"campaign": "c", "part": "p", "point": "ab", "block": 1,
                                     "attempt": 1, "levels": {"store": "one Redis"}}},
    ).load()  # fmt: skip
    assert levels.level_of(of_campaign, "store") == "one Redis"
    assert levels.has(of_campaign, {"store": "one Redis", "latency": "10ms"})
    assert "store" in levels.factors_of([of_campaign])


def test_equal_levels_are_equal_texts() -> None:
    assert levels.canonical("latency", "0.01s") == levels.canonical("latency", "10 ms") == "10ms"
    assert levels.canonical("time_scale", 6) == levels.canonical("time_scale", "6.0") == "6"
    assert levels.canonical("sites", 8) == "8"


# ---------------------------------------------------------------- verdicts


def stored(folder: Path, **slower: Any) -> list[Measurements]:
    one = make_run(folder, sites=2, latency_ms=10)
    other = make_run(folder, sites=2, latency_ms=10, backend="rome", started="2026-11-23T17:00:00Z",
                     **{"s_per_vm": 2.0, **slower})  # fmt: skip
    return measured([one, other])


def verdict(runs: list[Measurements], **changes: str) -> Verdict:
    text = ONE
    for key, value in changes.items():
        text = "".join(
            f"    {key}: {value}\n" if line.strip().startswith(f"{key}:") else line
            for line in text.splitlines(keepends=True)
        )
    return judge(parsed(text).claims[0], runs)


def test_a_ratio_is_of_the_first_side_to_the_other(tmp_path: Path) -> None:
    runs = stored(tmp_path)
    found = verdict(runs)
    assert found.value is not None and found.of is not None and found.to is not None
    assert found.of > found.to
    assert found.value == pytest.approx(found.of / found.to)
    assert found.outcome == "FAILS" and not found.is_good
    assert verdict(runs, at_most="1.8").outcome == "within tolerance"
    assert verdict(runs, at_most="2").outcome == "holds"
    shown = table([found]).frame.iloc[0]
    assert (shown["verdict"], shown["relation"]) == ("FAILS", "ratio at most 1.5, ± 10 %")


def test_a_figure_of_one_side_has_no_ratio(tmp_path: Path) -> None:
    text = ONE.replace("    to: {backend: mysql, sites: 2}\n", "").replace(
        "duration_s", "vms_failed"
    )
    runs = stored(tmp_path)
    failed = judge(parsed(text).claims[0], runs)
    assert (failed.value, failed.outcome) == (2.0, "FAILS")
    assert judge(parsed(text.replace("1.5", "2")).claims[0], runs).outcome == "holds"


def test_what_cannot_be_known_says_why(tmp_path: Path) -> None:
    runs = stored(tmp_path)
    missing = verdict(runs, of="{backend: galera, sites: 2}")
    assert missing.outcome == "not known" and not missing.is_good
    assert missing.remark == "there is no complete run with backend galera, sites 2"
    whole = stored(tmp_path / "whole", failed=0)
    zero = verdict(whole, figure="vms_failed", of="{backend: mysql, sites: 2}",
                   to="{backend: rome, sites: 2}")  # fmt: skip
    assert zero.remark == "there is no ratio to a figure of 0"
    bare = stored(tmp_path / "bare", probes=())
    assert "didn't measure it" in verdict(bare, figure="cpu_ms_per_vm").remark


def test_runs_that_are_partial_are_of_no_side(tmp_path: Path) -> None:
    runs = stored(tmp_path, status="partial", reason="a reason")
    assert verdict(runs).outcome == "not known"


def test_runs_that_are_no_repeats_are_refused_with_the_claims_place(tmp_path: Path) -> None:
    more = make_run(tmp_path, sites=2, latency_ms=50, started="2026-11-23T18:00:00Z")
    runs = [*stored(tmp_path), *measured([more])]
    with pytest.raises(
        Refused, match=r"claims.yaml:2: claim 1: the runs with backend mysql.*links"
    ):
        verdict(runs)
    assert verdict(
        runs, of="{backend: rome, latency: 10ms}", to="{backend: mysql, latency: 10ms}"
    ).value  # fmt: skip


def test_each_figure_that_a_claim_may_name_is_one_of_a_run(tmp_path: Path) -> None:
    (run,) = measured([make_run(tmp_path, sites=2, latency_ms=10)])
    assert [key for key, figure in CLAIMED.items() if figure.of(run) is None] == []
