import csv
import functools
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from rich.console import Console

from discovery_xp.analysis import export, facts, paper, paper_tables, report
from discovery_xp.analysis.measurements import Measurements, read_runs
from discovery_xp.cli.main import cli
from discovery_xp.errors import Refused
from discovery_xp.store import Run
from tests.unit.synthetic_run import make_run

REPOSITORY = Path(__file__).parents[2]


def read(*runs: Run) -> list[Measurements]:
    return read_runs([run.folder for run in runs])


def discovery_xp(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["report", *map(str, arguments)])


def printed(runs: list[Measurements], whole: bool = False) -> str:
    console = Console(width=200, record=True, quiet=True)
    with console.capture() as captured:
        console.quiet = False
        report.print_report(console, runs, whole)
    return captured.get()


class Page(HTMLParser):
    """A page's elements; fails on tags that don't close in their order."""

    VOID = frozenset({"meta", "link", "img", "br", "hr", "source", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


# ---------------------------------------------------------------- the page


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    make_run(root / "one", sites=2, latency_ms=10)
    make_run(root / "several")
    make_run(root / "several", started="2026-11-23T16:00:01Z", s_per_vm=2)
    make_run(root / "several", started="2026-11-23T16:00:02Z", sites=2, latency_ms=10)
    make_run(root / "several", started="2026-11-23T16:00:03Z", sites=4, latency_ms=50,
             backend="redis", data=4, status="partial", reason="the <disk> was full")  # fmt: skip
    make_run(root / "no-probes", probes=())
    empty = make_run(root / "empty", probes=(), failed=20, status="running")
    empty.write_table("vms", [])
    empty.write_table("actions", [])
    return root


@pytest.mark.parametrize("which", ["one", "several", "no-probes", "empty"])
def test_the_page_is_one_file_that_loads_nothing(runs: Path, which: str) -> None:
    text = report.html(read_runs([runs / which]))
    page = Page(text)
    for _, attributes in page.elements:
        for name in ("src", "srcset"):
            if name in attributes:
                assert str(attributes[name]).startswith("data:image/svg+xml;base64,")
        assert "href" not in attributes
    assert not page.of("script")
    assert not page.of("link")
    styles = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    assert len(styles) == 1
    assert "url(" not in styles[0]
    assert "@import" not in styles[0]
    assert "http:" not in text
    assert "https:" not in text


def test_the_page_can_be_read_by_anybody(runs: Path) -> None:
    text = report.html(read_runs([runs / "one"]))
    page = Page(text)
    assert page.of("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.of("meta")
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert len(page.of("h1")) == 1
    assert len(page.of("img")) == 8
    assert all(len(str(image["alt"])) > 20 for image in page.of("img"))
    assert all(head["scope"] == "col" for head in page.of("th"))
    regions = [each for each in page.of("div") if each.get("role") == "region"]
    names = {each["id"] for each in page.of("figcaption") if "id" in each}
    assert len(regions) == len(page.of("table")) > 10
    assert {each["aria-labelledby"] for each in regions} == names
    assert all(each["tabindex"] == "0" for each in regions)
    identifiers = [value["id"] for _, value in page.elements if "id" in value]
    assert len(set(identifiers)) == len(identifiers)


def test_tables_fit_into_windows_of_1000_pixels_and_more(runs: Path) -> None:
    """Widths by the page's own style: its letters and gaps for windows of this width."""
    text = report.html(read_runs([runs / "empty"]))
    assert "max-width: calc(100vw - 3rem)" in text
    reference = REPOSITORY / "results/reference"
    shown = report.tables_of(read_runs([runs / "several"]), whole=True)
    shown += report.tables_of(read_runs([reference / "sites-2", reference / "sites-8"]))
    for window in (1400, 1200, 1000):
        letters, gap, names_break = _style_of_tables(text, window)
        for table in shown:
            total = 0.0
            cells = table.cells()
            for index, heading in enumerate(table.headings()):
                column = [row[index] for row in cells]
                unbroken = table.numeric()[index] or heading == "run"
                words = column if unbroken else [word for each in column for word in each.split()]
                widest = max(_width(word) for word in [*heading.split(), *words] if word)
                total += gap + (128 if heading == "run" and names_break else widest * letters)
            assert total < window - 48, (window, table.name)


@functools.cache
def _width(word: str) -> float:
    """Return the width of a word whose letters are one pixel high."""
    font = FontProperties(family="DejaVu Sans")
    return float(TextPath((0, 0), word, size=100, prop=font).get_extents().width) / 100


def _style_of_tables(page: str, window: int) -> tuple[float, float, bool]:
    """Return pixels of letters, pixels between two columns, and whether names of runs break."""
    style = page[page.index("<style>") : page.index("</style>")]
    rules = re.findall(
        r"@media screen and \(max-width: ([\d.]+)rem\) \{\n(.*?)\n\}", style, re.DOTALL
    )
    narrow = [body for limit, body in rules if window <= float(limit) * 16]
    letters = re.findall(r"table \{[^}]*font-size: ([\d.]+)rem", "\n".join([style, *narrow]))
    gaps = re.findall(r"th, td \{ padding: [\d.]+rem ([\d.]+)rem", "\n".join([style, *narrow]))
    return float(letters[-1]) * 16, float(gaps[-1]) * 32, any("td.name" in body for body in narrow)


def test_the_page_says_what_was_measured(runs: Path) -> None:
    words = Page(report.html(read_runs([runs / "one"]))).words
    for said in (
        "synthetic: mysql, 2 sites, 10 ms",
        "18 of 20",
        "19.0 s",
        "10 ms one-way, imposed by vde; median round trip observed 20.5 ms",
        "Table 3. Time to create the VMs, 10 ms between clusters",
        "209",
        "No valid host was found.",
        "Not 500 VMs as published, but 20",
        "[talk] J. Pastor, M. Simonin, A. Lebre, T. Carrez",
        "[ic2e] A. Lebre, J. Pastor, A. Simonet, F. Desprez",
        "one-way or a round trip",
        "nova 34.0.0",
        "300 ms per VM in all, the most by nova-conductor: 200 ms.",
    ):
        assert said in words, said
    assert "PARTIAL" not in words


def test_several_runs_stand_beside_each_other(runs: Path) -> None:
    page = Page(report.html(read_runs([runs / "several"])))
    for said in (
        "synthetic: 4 runs",
        "#4 synthetic/20261123T160003Z-1f2e3d4c5b6a: the <disk> was full",
        "not all of these runs came to their end",
        "Spread over repeats",
        "Table 2. Time to create the VMs, single cluster",
        "#1 #2",
        "#4 is PARTIAL: the <disk> was full.",
    ):
        assert said in page.words, said
    assert [str(image["alt"]).split(".")[0] for image in page.of("img")] == [
        "Time to create the VMs",
        "Where the time of a boot went",
        "Response time of Nova's database API",
        "VMs becoming ACTIVE",
        "Whose CPU time it was",
    ]


def test_partial_is_said_wherever_a_run_is_shown(tmp_path: Path) -> None:
    read_runs_ = read(make_run(tmp_path, status="partial", reason="the load was interrupted"))
    page = Page(report.html(read_runs_))
    assert "PARTIAL : the load was interrupted. All figures" in page.words
    assert "mysql, 1 site, PARTIAL" in page.words
    assert any("is-partial" in str(row.get("class")) for row in page.of("tr"))
    told = printed(read_runs_)
    assert "PARTIAL: the load was interrupted" in told
    assert "PARTIAL" in told.split("Table 2.")[1]
    for table in paper_tables.paper_tables(read_runs_):
        assert "PARTIAL" in export.latex(table)


def test_what_wasnt_measured_is_said(runs: Path) -> None:
    read_ = read_runs([runs / "no-probes"])
    probes = "calls, requests, statements, spans, traffic, messages, usage, series"
    words = f"Not measured in this run: {probes}."
    assert words in Page(report.html(read_)).words
    assert words in printed(read_)
    told = printed(read_runs([runs / "empty"]))
    assert "0 of 20 VMs ACTIVE" in told
    assert "PARTIAL: it has not ended, or was killed" in told


def test_words_of_a_run_are_text_and_not_markup(tmp_path: Path) -> None:
    reason = "<script>alert(1)</script> [bold]&amp; 100% of a_b"
    (run,) = read(make_run(tmp_path, status="partial", reason=reason))
    page = Page(report.html([run]))
    assert not page.of("script")
    assert reason in page.words
    assert reason in re.sub(r"\s+", " ", printed([run]))


# ---------------------------------------------------------------- terminal


def test_the_terminal_report_of_one_run(runs: Path) -> None:
    told = printed(read_runs([runs / "one"]))
    for said in (
        "18 of 20 VMs ACTIVE",
        "19.0 s to create them",
        "30.0 ms mean call of the database API",
        "300 ms of CPU per VM",
        "21.0 database round trips per VM",
        "4.00 MB over the network",
        "75 % of the machine busy",
    ):
        assert said in told, said
    assert re.findall(r"^Table (\d)", told, re.MULTILINE) == ["3", "5"]


def test_whole_tables_when_asked_for(runs: Path) -> None:
    told = printed(read_runs([runs / "one"]), whole=True)
    assert re.findall(r"^Table (\d)", told, re.MULTILINE) == ["1", "2", "3", "4", "5", "6"]
    galera = [line for line in told.splitlines() if "galera" in line]
    assert len(galera) == 4
    assert "[ic2e]" in galera[0]


# ---------------------------------------------------------------- CSV and LaTeX


def test_csv_files_hold_everything_unrounded(runs: Path, tmp_path: Path) -> None:
    paths = export.write_csv(tmp_path / "csv", read_runs([runs / "several"]))
    names = {path.name for path in paths}
    assert names >= {"runs.csv", "costs.csv", "repeats.csv", "table-1.csv", "table-2.csv",
                     "20261123T160000Z-1f2e3d4c5b6a.usage.csv"}  # fmt: skip
    assert {path.name for path in (tmp_path / "csv").iterdir()} == names
    with (tmp_path / "csv/runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["complete"] * 3 + ["partial"]
    assert float(rows[0]["s_per_vm"]) == 19 / 18
    assert rows[3]["reason"] == "the <disk> was full"
    with (tmp_path / "csv/table-2.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["runs"], float(row["measured_s"])) == ("2", (19 + 37) / 2)
    assert float(row["published_s"]) == 298


def test_latex_tables_are_floats(runs: Path, tmp_path: Path) -> None:
    paths = export.write_latex(tmp_path / "tex", read_runs([runs / "several"]))
    for path in paths:
        text = path.read_text()
        assert text.count(r"\begin{") == text.count(r"\end{") == 2
        body = text.split(r"\midrule")[1].split(r"\bottomrule")[0]
        columns = len(re.findall(r"\\begin\{tabular\}\{([lr]+)\}", text)[0])
        for line in body.strip().splitlines():
            assert line.count("&") - line.count(r"\&") == columns - 1
            assert line.endswith(r"\\")
        for line in text.splitlines()[1:]:
            assert not re.search(r"(?<!\\)[%#_]", line), line
    text = (tmp_path / "tex/table-2.tex").read_text()
    assert r"\caption{Time to create the VMs, single cluster}" in text
    assert r"\label{tab:table-2}" in text
    assert "298" in text


def test_latex_of_odd_characters() -> None:
    assert export._tex(r"50 % of a_b & c\d {#1} ~^$<>") == (
        r"50 \% of a\_b \& c\textbackslash{}d \{\#1\} "
        r"\textasciitilde{}\textasciicircum{}\$\textless{}\textgreater{}"
    )


# ---------------------------------------------------------------- the command


def test_one_run_gets_its_page_in_its_folder(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    done = discovery_xp(run.folder)
    assert done.exit_code == 0
    assert "18 of 20 VMs ACTIVE" in done.stdout
    assert done.stderr == f"written: {run.folder}/report.html\n"
    assert (run.folder / "report.html").read_text().startswith("<!DOCTYPE html>")
    # It is still a run.
    assert discovery_xp(tmp_path).exit_code == 0


def test_several_runs_get_their_page_here(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = discovery_xp(runs / "several")
    assert done.exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["report-synthetic-4.html"]


def test_only_what_was_asked_for_is_written(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = discovery_xp(runs / "one", "--csv", "tables", "--latex", "tables", "--paper")
    assert done.exit_code == 0
    assert done.stderr == "written: tables, tables\n"
    assert [path.name for path in tmp_path.iterdir()] == ["tables"]
    assert len(list(tmp_path.glob("tables/table-?.csv"))) == 6
    assert len(list(tmp_path.glob("tables/table-?.tex"))) == 6
    done = discovery_xp(runs / "one", "--figures", "figures")
    assert done.stderr == "written: figures\n"
    figures = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert "response-time-of-nova-database-api.pdf" in figures and len(figures) == 16
    for name in figures:
        start = b"%PDF-" if name.endswith(".pdf") else b"\x89PNG"
        assert (tmp_path / "figures" / name).read_bytes().startswith(start)
    done = discovery_xp(runs / "one", runs / "no-probes", "--html", "page.html")
    assert done.exit_code == 0
    assert "2 runs" in (tmp_path / "page.html").read_text()


def test_nothing_is_written_if_a_folder_can_not_be_made(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for bad in ("x" * 300, "/dev/null/tables"):
        options = ("--html", "page.html", "--csv", "new/tables", "--figures", bad)
        done = discovery_xp(runs / "one", *options)
        assert isinstance(done.exception, Refused)
        assert "can't be written to" in done.exception.message
        assert list(tmp_path.iterdir()) == []


def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    damaged = make_run(tmp_path / "damaged")
    (damaged.folder / "run.json").write_text("{")
    other = make_run(tmp_path / "other")
    data = json.loads((other.folder / "run.json").read_text())
    (other.folder / "run.json").write_text(json.dumps({**data, "format": 7}))
    broken = make_run(tmp_path / "broken")
    (broken.folder / "usage.parquet").write_bytes(b"nonsense")
    good = make_run(tmp_path / "good")
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        ([tmp_path / "nowhere"], "nowhere: no such folder; "),
        ([tmp_path / "empty"], "there is no run under it; "),
        ([damaged.folder], "run.json: the run is damaged (EOF while parsing an object at line 1 "),
        ([other.folder], "a run of format 7, but this version reads 1, 2 and 3; use"),
        ([broken.folder], "usage.parquet: the run is damaged ("),
        ([good.folder, "--html", tmp_path / "nowhere/page.html"], "can't be written"),
        ([good.folder, "--csv", good.folder / "run.json"], "can't be written to"),
        ([good.folder, "--figures", good.folder / "run.json"], "can't be written to"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "discovery_xp.cli", "report", *map(str, arguments)],
            capture_output=True, text=True, check=False, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1


# ---------------------------------------------------------------- notebooks and docs


def test_the_notebooks_run_on_a_known_run(tmp_path: Path) -> None:
    make_run(tmp_path / "results", sites=2, latency_ms=10)
    environment = {**os.environ, "IPYTHONDIR": str(tmp_path / "ipython")}
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "notebooks/refresh.py"), "--results",
         str(tmp_path / "results"), "--output", str(tmp_path / "out")],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said_by = {
        "1-one-run": "18 ACTIVE",
        "2-paper-tables": "18 of 20",
        "3-latency": "20.5",
        "4-rome-and-others": "nothing to compare",
        "5-a-figure-of-your-own": "('mysql, 2 sites, 10 ms', ",
    }
    for name, said in said_by.items():
        before = json.loads((REPOSITORY / f"notebooks/{name}.ipynb").read_text())
        after = json.loads((tmp_path / f"out/{name}.ipynb").read_text())
        for cell, was in zip(after["cells"], before["cells"], strict=True):
            assert "".join(cell["source"]) == "".join(was["source"])
        outputs = json.dumps([cell.get("outputs", []) for cell in after["cells"]])
        assert said in outputs
        assert "image/png" in outputs
        assert str(tmp_path) not in outputs


def test_a_notebook_that_fails_says_where(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "notebooks/refresh.py"), "--results",
         str(tmp_path / "nowhere"), "--output", str(tmp_path)],
        capture_output=True, text=True, check=False,
        env={**os.environ, "IPYTHONDIR": str(tmp_path / "ipython")},
    )  # fmt: skip
    assert done.returncode == 1
    assert "Refused: " in done.stderr
    assert "nowhere: no such folder" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_docs_name_what_there_is() -> None:
    text = (REPOSITORY / "docs/analysis.md").read_text()
    for table in ("table_1", "table_2", "table_3", "table_4", "table_5", "table_6", "repeats",
                  "costs", "overview"):  # fmt: skip
        assert f"`{table}`" in text
    for figure in ("creation_times", "response_times", "timeline", "vms_by_site", "cpu_shares",
                   "traffic_by_service", "cpu_by_service"):  # fmt: skip
        assert f"`{figure}`" in text
    assert all(source.key in text for source in paper.SOURCES)


ROME = {
    "rome": {"store": "server", "persistence": "everysec", "replicas": 0},
    "databases": {"nova": "rome", "nova_api": "rome", "neutron": "mysql"},
    "nodes": 1,
    "replicas": 0,
}
CLUSTER = {
    **ROME,
    "rome": {"store": "cluster", "persistence": "none", "replicas": 1},
    "nodes": 3,
    "replicas": 1,
}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (ROME, "nova, nova_api on rome; neutron on mysql; one Redis server; appendfsync everysec"),
        (CLUSTER, "nova, nova_api on rome; neutron on mysql; "
         "a Redis Cluster of 3 nodes + 1 replica; appendfsync none"),
        ({}, None),
    ],
)  # fmt: skip
def test_the_facts_say_what_held_which_database(
    tmp_path: Path, options: dict[str, Any], words: str | None
) -> None:
    make_run(tmp_path, backend="rome" if options else "mysql", more_options=options)
    (run,) = read_runs([tmp_path])
    assert dict(facts.facts(run)).get("databases") == words
