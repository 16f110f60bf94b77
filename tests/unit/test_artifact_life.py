"""`artifact` and `reproduce --claim` on canned hosts, through the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from discovery_xp.artifact import making
from discovery_xp.artifact.source import Source
from tests.unit.dummy_life import Life, Said

CAMPAIGN = """\
name: tiny
topology:
  sites: [{name: site, count: 2, controllers: 1, computes: 1}]
  provider: {type: dummy}
scenario: {kind: boot, vms: 2}
factors:
  store: {SQL: {backend: mysql}, key/value: {backend: rome}}
parts:
  - name: stores
    over: {store: all, latency: [10ms]}
"""
CLAIMS = """\
claims:
  - sentence: All VMs get ACTIVE on the key/value store.
    figure: vms_failed
    of: {store: key/value}
    at_most: 0
  - sentence: Nobody knows what canned hosts are good for.
    figure: boot_median_s
    of: {store: key/value}
    to: {store: SQL}
    at_least: 50
  - sentence: There is a third store.
    figure: vms_failed
    of: {backend: galera}
    at_most: 0
"""


@pytest.fixture
def made(life: Life, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file of a campaign that was run on canned hosts, with claims beside it."""
    monkeypatch.setattr(making, "sources", lambda _commits: Source({}, None, {}, (), ()))
    monkeypatch.setattr("discovery_xp.analysis.export.write_csv", lambda *_: [])
    path = life.folder / "tiny.yaml"
    path.write_text(CAMPAIGN)
    said = life.xp("campaign", "run", str(path), "--results", str(life.results))
    assert said.code == 0, said.err
    claims = life.folder / "claims.yaml"
    claims.write_text(CLAIMS.rpartition("  - sentence")[0])
    (life.folder / "claims").mkdir()
    claims.rename(life.folder / "claims/tiny.yaml")
    return path


def artifact(life: Life, *words: object) -> Said:
    return life.xp("artifact", *map(str, words), "--results", str(life.results))


def again(life: Life, *words: object) -> Said:
    return life.xp("reproduce", *map(str, words), "--results", str(life.folder / "again"))


def test_claims_are_checked_made_anew_and_judged(life: Life, made: Path) -> None:
    said = artifact(life, made, "--check")
    assert said.code == 1
    assert said.last_line.startswith("1 of 2 claims don't hold: claim 2: 1, not ratio at least 50")
    said = artifact(life, made, "--output", life.folder / "out")
    assert said.code == 0, said.err
    out = life.folder / "out"
    assert (out / "campaign.yaml").read_text() == CAMPAIGN
    assert len(list((out / "records/tiny").iterdir())) == 2
    assert f"begin with {out}/ARTIFACT.md" in said.out

    said = again(life, out, "--claim", 1)
    assert said.code == 0, said.err
    assert "it holds: claim 1: 0, as at most 0" in said.out
    (run,) = (life.folder / "again").rglob("run.json")
    assert json.loads(run.read_text())["backend"] == "rome"

    said = again(life, life.folder / "out.tar.gz", "--claim", 2)
    assert said.code == 1
    assert said.last_line.startswith("it doesn't hold: claim 2: 1, not ratio at least 50; ")
    assert len(list((life.folder / "again").rglob("run.json"))) == 3, "a run of each side"
    life.requires_nothing_left()


def test_a_new_run_that_is_partial_judges_nothing(life: Life, made: Path) -> None:
    for topology in life.results.rglob("topology.yaml"):
        text = topology.read_text()
        assert "faults: []" in text
        topology.write_text(text.replace("faults: []", "faults: [load]"))
    said = again(life, life.results / "tiny", "--claims", made.parent / "claims/tiny.yaml",
                 "--claim", 1)  # fmt: skip
    assert said.code == 1
    assert "a new run is partial" in said.last_line
    life.requires_nothing_left()


def test_what_is_refused_is_one_line_and_leaves_nothing(life: Life, made: Path) -> None:
    assert artifact(life, made, "--output", life.folder / "out").code == 0
    out, empty = life.folder / "out", life.folder / "empty"
    empty.mkdir()
    more = life.folder / "more.yaml"
    more.write_text(CLAIMS)
    unknown = life.folder / "unknown.yaml"
    unknown.write_text(CLAIMS.replace("vms_failed", "vm_failed", 1))
    before = sorted(life.folder.iterdir())
    tiny = life.results / "tiny"
    cases = (
        (artifact, (empty,), "empty: there is no run under it; "),
        (artifact, (life.folder / "nowhere.yaml",), "no such file"),
        (artifact, (made, "--output", out), "out is there already; "),
        (artifact, (tiny, "--output", tiny / "out"), "is within the runs; "),
        (artifact, (tiny, "--check"), "there are no claims about these runs; "),
        (artifact, (made, "--claims", more, "--check"), "campaign 'tiny' has no point with backend "
         "galera; "),
        (artifact, (made, "--claims", unknown, "--check"), "unknown.yaml:3: claims[0].figure: "
         "'vm_failed' is unknown; did you mean 'vms_failed'?"),
        (again, (out, "--claim", 9), "there is no claim 9; name one of 1 to 2 with --claim"),
        (again, (tiny, "--claim", 1), "there are no claims about these runs; "),
        (again, (tiny, "--claims", more, "--claim", 3), "there is no complete run with backend "
         "galera"),
        (again, (out, "--claim", 1, "--tolerance", "5%"), "--tolerance: a claim has its own; "),
        (again, (out, "--claims", more), "--claims says nothing without a claim; "),
        (again, (out,), "no run.json, so not a run; "),
    )  # fmt: skip
    for command, words, says in cases:
        said = command(life, *words)
        assert says in said.err, (words, said)
        assert (said.code, len(said.err.splitlines())) == (2, 1), (words, said)
    assert sorted(life.folder.iterdir()) == before
    life.requires_nothing_left()


def test_results_of_another_format_are_refused(life: Life, made: Path) -> None:
    record = next(life.results.rglob("run.json"))
    record.write_text(record.read_text().replace('"format": 3', '"format": 99'))
    said = artifact(life, life.results / "tiny", "--output", life.folder / "out")
    assert said.code == 2
    assert "a run of format 99, but this version reads 1, 2 and 3; use the version" in said.err
    assert not (life.folder / "out").exists()


def test_a_damaged_artifact_is_refused(life: Life, made: Path) -> None:
    assert artifact(life, made, "--output", life.folder / "out").code == 0
    table = next((life.folder / "out/records").rglob("vms.parquet"))
    table.write_bytes(table.read_bytes() + b"x")
    for said in (artifact(life, life.folder / "out", "--check"),
                 again(life, life.folder / "out", "--claim", 1)):  # fmt: skip
        assert said.code == 2
        assert "vms.parquet is damaged: its checksum isn't that of SHA256SUMS; " in said.err
    shutil.rmtree(life.folder / "out")
    assert artifact(life, life.folder / "out.tar.gz", "--check").code == 1
