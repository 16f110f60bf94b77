"""A site: its pages say what runs say, link to what is there, and take their place whole."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import plotly.graph_objects as go
import pytest
from click.testing import CliRunner, Result

from discovery_xp.analysis.measurements import measured
from discovery_xp.cli.main import cli
from discovery_xp.errors import Refused
from discovery_xp.site.content import CampaignState, Content, PointState
from discovery_xp.site.writing import write_site
from discovery_xp.store import Run, runs_under
from tests.unit.synthetic_run import make_run
from tests.unit.test_report import Page

PAGES = ("index.html", "tables.html", "figures.html", "runs.html")


def several(folder: Path) -> list[Run]:
    """MariaDB and ROME at 50 ms, and a run that died."""
    return [
        make_run(folder, started="2026-11-23T16:00:00Z", sites=2, latency_ms=50.0),
        make_run(folder, started="2026-11-23T16:01:00Z", sites=2, latency_ms=50.0, data=2,
                 backend="rome", s_per_vm=2.0),
        make_run(folder, started="2026-11-23T16:02:00Z", sites=2, latency_ms=50.0, data=2,
                 backend="rome", status="partial", reason="killed"),
    ]  # fmt: skip


STATE = CampaignState(
    name="tiny",
    description="What a replica costs.",
    text="",
    factors={"backend": ["mysql", "rome"], "latency": ["50ms"]},
    points=[
        PointState("all", {"backend": "mysql", "latency": "50ms"}, "1 of 1", "done", run=1),
        PointState("all", {"backend": "rome", "latency": "50ms"}, "1 of 1", "failed", "no memory"),
        PointState("all", {"backend": "rome", "latency": "10ms"}, "1 of 1", "left"),
    ],
    excluded=[("all: galera, 50ms", "it was measured last week")],
)


@pytest.fixture(scope="module", params=[False, True], ids=["", "light"])
def any_site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site, with all there is to it or light."""
    folder = tmp_path_factory.mktemp("any")
    runs = measured(several(folder / "results"))
    light = {"with_library": False, "with_run_figures": False} if request.param else {}
    content = Content(runs, "Campaign tiny", STATE, **light)
    write_site(folder / "site", content)
    return folder / "site"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    content = Content(measured(several(folder / "results")), "Campaign tiny", STATE)
    assert write_site(folder / "site", content) == folder / "site" / "index.html"
    return folder / "site"


def page(site: Path, name: str) -> Page:
    return Page((site / name).read_text())


def all_pages(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


def test_a_light_site_has_images_alone_and_none_for_a_run(tmp_path: Path) -> None:
    several(tmp_path / "results")
    said = xp("report", tmp_path / "results", "--site", tmp_path / "site", "--light")
    assert said.exit_code == 0, said.output
    light = tmp_path / "site"
    assert {path.name for path in (light / "assets").iterdir()} == {"site.css", "site.js"}
    assert not list((light / "runs").rglob("*.svg"))
    assert "application/json" not in "".join(path.read_text() for path in all_pages(light))
    assert "plotly" not in "".join(path.read_text() for path in all_pages(light))
    for name in ("index.html", "figures.html"):
        assert "figures/time-to-create-the-vms.svg" in (light / name).read_text()
    whole = sum(path.stat().st_size for path in light.rglob("*") if path.is_file())
    assert whole < 1_500_000


def test_every_link_leads_to_something_in_the_folder(any_site: Path) -> None:
    """The folder can be published as it is: nothing in it leads out of it."""
    assert len(all_pages(any_site)) == len(PAGES) + 3
    for path in all_pages(any_site):
        for _, attributes in Page(path.read_text()).elements:
            for key in ("href", "src", "srcset"):
                target = attributes.get(key)
                if target is None or target.startswith("#"):
                    continue
                assert not re.match(r"[a-z]+:|/", target), target
                file, _, part = unquote(target).partition("#")
                there = (path.parent / file).resolve()
                assert there.is_relative_to(any_site.resolve())
                assert there.is_file(), f"{path}: {target}"
                assert not part or f'id="{part}"' in there.read_text()


def test_the_first_page_says_what_was_asked_and_what_came_out(site: Path) -> None:
    words = page(site, "index.html").words
    assert "What a replica costs." in words
    assert "campaign tiny: 1 done, 1 failed, 1 left" in words
    assert "all: galera, 50ms : it was measured last week" in words.replace(": it", " : it")
    assert "holds With 2 sites at 50 ms the VMs are there later on Redis than on MySQL" in words
    assert "published 723 over 268 s" in words
    assert "1 partial, 2 unknown" in words  # verdicts
    assert "28 published findings that no run says anything of" in words
    assert "PARTIAL ( #3 )" in words or "PARTIAL (#3)" in words


def test_each_run_is_reached_with_its_records_and_logs(site: Path, tmp_path: Path) -> None:
    runs = page(site, "runs.html")
    assert "failed: no memory" in runs.words
    links = {attributes["href"] for attributes in runs.of("a")}
    folders = sorted(path.parent for path in site.glob("runs/*/index.html"))
    assert len(folders) == 3
    for folder in folders:
        assert str((folder / "index.html").relative_to(site)) in links
        record = json.loads((folder / "record.json").read_text())
        assert record["experiment"] == "synthetic"
        own = page(folder, "index.html")
        assert "Overview" in own.words
        assert "data:image" not in (folder / "index.html").read_text()


def test_a_site_among_results_is_no_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "results")
    write_site(tmp_path / "results/site", Content(measured([run]), "one"))
    assert [each.folder for each in runs_under(tmp_path / "results")] == [run.folder]


def test_logs_are_there_unless_they_are_left_out(tmp_path: Path) -> None:
    run = make_run(tmp_path / "results")
    path = run.path("logs/records.tar.xz")
    path.write_bytes(b"logs")
    for with_logs in (True, False):
        place = tmp_path / f"site-{with_logs}"
        write_site(place, Content(measured([run]), "one", with_logs=with_logs))
        kept = list(place.glob("runs/*/logs/records.tar.xz"))
        assert [each.read_bytes() for each in kept] == [b"logs"] * with_logs
        assert ("logs/records.tar.xz" in (place / "runs.html").read_text()) == with_logs


def data_of(page: str) -> dict[str, Any]:
    """The figures' data by their names."""
    figures = re.findall(
        r'<figure class="picture plot" id="([^"]+)">.*?'
        r'<script type="application/json">(.*?)</script>', page, re.DOTALL,
    )  # fmt: skip
    return {name: json.loads(text) for name, text in figures}


def test_figures_are_what_plotly_draws(site: Path) -> None:
    data = data_of((site / "figures.html").read_text())
    assert set(data) == {
        "time-to-create-the-vms", "each-run", "where-the-time-of-a-boot-went",
        "response-time-of-nova-database-api", "vms-becoming-active",
    }  # fmt: skip
    for figure in data.values():
        go.Figure({"data": figure["data"], "layout": figure["layout"]})  # raises on a wrong key
        for trace in figure["data"]:
            meta = trace["meta"]
            points = meta.get("points")
            assert "tags" in meta or len(points) == len(trace["y"])
            for tags in points or [meta["tags"]]:
                assert set(tags) == {"backend", "layout", "verdict"}


def test_measured_bars_stand_beside_published_ones(site: Path) -> None:
    bars = data_of((site / "index.html").read_text())["time-to-create-the-vms"]["data"]
    by_name = {trace["name"]: trace for trace in bars}
    # Not 500 VMs: seconds per VM.
    assert by_name["mysql"]["y"] == [pytest.approx(19 / 18)]
    assert by_name["rome"]["y"] == [pytest.approx(37 / 18)]
    assert (
        by_name["mysql, published"]["y"] == [pytest.approx(268 / 500)] * 1
        or len(by_name["mysql, published"]["y"]) == 4
    )
    assert by_name["rome"]["meta"]["points"][0]["backend"] == "rome"
    assert by_name["redis, published"]["meta"]["points"][0]["backend"] == "rome"
    assert list(by_name)[:2] == ["mysql", "mysql, published"]


def test_rows_say_what_they_are_chosen_by(site: Path) -> None:
    rows = [attributes for attributes in page(site, "tables.html").of("tr")
            if "data-backend" in attributes]  # fmt: skip
    assert {row["data-backend"] for row in rows} == {"mysql", "rome"}
    assert {"partial", "unknown"} <= {row.get("data-verdict") for row in rows}


def test_every_table_has_its_files(site: Path) -> None:
    names = re.findall(r'id="site-([^"]+)"', (site / "tables.html").read_text())
    assert {"findings", "runs", "costs", *(f"table-{n}" for n in range(1, 7))} <= set(names)
    for name in names:
        assert (site / f"tables/{name}.csv").read_text()
        assert "\\begin{tabular}" in (site / f"tables/{name}.tex").read_text()


def test_words_of_a_run_end_no_element(tmp_path: Path) -> None:
    nasty = "</script><script>alert(1)</script>"
    run = make_run(
        tmp_path / "results", sites=2, latency_ms=50.0, more_options={"rome": {"store": nasty}},
        more_record={"notes": (nasty,)},
    )  # fmt: skip
    write_site(tmp_path / "site", Content(measured([run]), nasty))
    for path in all_pages(tmp_path / "site"):
        text = path.read_text()
        assert "<script>alert" not in text
        Page(text)


def test_equal_results_give_equal_files(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "results", sites=2, latency_ms=50.0)]
    for name in ("one", "two"):
        write_site(tmp_path / name, Content(measured(runs), "twice"))
    one, two = (
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (tmp_path / "one", tmp_path / "two")
    )
    assert [path for path in one if one[path] != two.get(path)] == []


# ---------------------------------------------------------------- its place


def test_a_newer_site_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    run = make_run(tmp_path / "results")
    place = tmp_path / "site"
    write_site(place, Content(measured([run]), "older"))
    (place / "left").write_text("of the older one")
    write_site(place, Content(measured([run]), "newer"))
    assert "newer" in (place / "index.html").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results", "site"]
    assert not (place / "left").exists()


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_is_no_site_is_left_alone(tmp_path: Path, kind: str) -> None:
    run = make_run(tmp_path / "results")
    place = tmp_path / "place"
    if kind == "folder":
        place.mkdir()
        (place / "thesis.tex").write_text("mine")
    elif kind == "file":
        place.write_text("mine")
    else:
        place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refused, match="place"):
        write_site(place, Content(measured([run]), "one"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["place", "results"]


def test_nothing_is_left_where_a_page_can_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "results")
    place = tmp_path / "site"
    write_site(place, Content(measured([run]), "older"))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("discovery_xp.site.writing.shutil.copyfile", full)
    with pytest.raises(Refused, match=r"can't be written \(No space left on device\)"):
        write_site(place, Content(measured([run]), "newer"))
    assert "older" in (place / "index.html").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results", "site"]


# ---------------------------------------------------------------- the command


def xp(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [*map(str, arguments)])


def test_report_writes_a_site_of_any_runs(tmp_path: Path) -> None:
    several(tmp_path / "results")
    said = xp("report", tmp_path / "results", "--site", tmp_path / "site")
    assert said.exit_code == 0, said.output
    assert f"written: {tmp_path}/site/index.html" in said.output
    assert "synthetic" in page(tmp_path / "site", "index.html").words
