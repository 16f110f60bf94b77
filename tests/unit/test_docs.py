"""The documents: blocks agree with their sources, links lead somewhere, no key is left out."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from discovery_xp.artifact.claims import ClaimEntry, ClaimsFile
from discovery_xp.inputs import platforms, scenario, topology_file
from docs.generator import blocks
from docs.generator.__main__ import main
from docs.generator.sources import SOURCES

REPOSITORY = Path(__file__).parents[2]
FOUR = {"four": lambda: "| 4 |\n"}
DOCUMENT = "A\n<!-- figures: four -->\n| 3 |\n<!-- end -->\nB\n"


def test_documents_and_their_sources_agree() -> None:
    differing = [str(path) for path in blocks.outdated(blocks.documents(), SOURCES)]
    assert differing == [], "run ./xp docs"


def test_every_source_is_shown() -> None:
    shown = {name for path in blocks.documents() for name in blocks.names_in(path.read_text())}
    assert shown == set(SOURCES)


def test_a_block_is_filled_and_what_is_around_it_stays(tmp_path: Path) -> None:
    assert blocks.filled(DOCUMENT, FOUR) == DOCUMENT.replace("3", "4")
    page = tmp_path / "page.md"
    page.write_text(DOCUMENT)
    assert blocks.outdated([page], FOUR) == {page: DOCUMENT.replace("3", "4")}
    page.write_text(DOCUMENT.replace("3", "4"))
    assert blocks.outdated([page], FOUR) == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (DOCUMENT.replace("four", "five"), "there is no source named 'five'"),
        (DOCUMENT.replace("<!-- end -->", ""), "the block 'four' has no '<!-- end -->'"),
        (DOCUMENT.replace("<!-- end -->", "", 1) + DOCUMENT, "the block 'four' has no"),
    ],
)
def test_marks_that_do_not_fit_are_refused(text: str, says: str) -> None:
    with pytest.raises(blocks.MarkError, match=says):
        blocks.filled(text, FOUR)


def test_check_names_what_differs_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- figures: listeners -->\nan outdated line\n<!-- end -->\n")
    monkeypatch.setattr("docs.generator.__main__.documents", lambda: [page])
    monkeypatch.setattr("docs.generator.__main__.ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["docs", "--check"])
    assert main() == 1
    assert capsys.readouterr().out == "page.md: differs\n"
    assert "outdated" in page.read_text()
    monkeypatch.setattr(sys, "argv", ["docs"])
    assert main() == 0
    assert "outdated" not in page.read_text()
    monkeypatch.setattr(sys, "argv", ["docs", "--check"])
    assert main() == 0


def test_a_bar_within_a_cell_is_escaped() -> None:
    assert blocks.table(["a"], [["b|c"]]) == "| a |\n|---|\n| b\\|c |\n"


@pytest.mark.parametrize("path", sorted((REPOSITORY / "benchmarks/results").glob("*.json")))
def test_a_benchmarks_file_says_where_its_figures_are_from(path: Path) -> None:
    found = json.loads(path.read_text())
    assert found["format"] == 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found["at"])
    assert all(found[key] for key in ("command", "commit", "processor", "cores", "memory_gib"))


def test_the_reference_runs_pages_are_made_by_todays_template() -> None:
    style = f"<style>\n{(REPOSITORY / 'discovery_xp/analysis/page.css').read_text()}</style>"
    pages = sorted((REPOSITORY / "results/reference").rglob("report.html"))
    assert len(pages) > 10
    old = [str(page) for page in pages if style not in page.read_text()]
    assert old == [], "run ./xp report on them with --html"


# ---------------------------------------------------------------- links


def _anchors(text: str) -> set[str]:
    """Return the anchors that a page's headings make."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.M)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", each) for each in headings)
    return {re.sub(r"[^\w\- ]", "", each.lower()).strip().replace(" ", "-") for each in plain}


def test_links_between_documents_lead_somewhere() -> None:
    broken = []
    for page in blocks.documents():
        text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            name, _, anchor = target.partition("#")
            if name.startswith(("http:", "https:")):
                continue
            path = page.parent / name if name else page
            if path.is_dir():
                path = path / "README.md" if anchor else path
            if not path.exists() or (anchor and anchor not in _anchors(path.read_text())):
                broken.append(f"{page.relative_to(REPOSITORY)}: {target}")
    assert broken == []


# ---------------------------------------------------------------- keys of files

ENTRIES: tuple[tuple[str, type[BaseModel]], ...] = (
    ("docs/topologies.md", topology_file.TopologyFile),
    ("docs/topologies.md", topology_file.SiteEntry),
    ("docs/topologies.md", topology_file.NetworkEntry),
    ("docs/topologies.md", topology_file.LinkEntry),
    ("docs/topologies.md", topology_file.ToleranceEntry),
    ("docs/topologies.md", topology_file.LocalEntry),
    ("docs/topologies.md", topology_file.LimitEntry),
    ("docs/topologies.md", topology_file.StaticEntry),
    ("docs/topologies.md", topology_file.StaticHostEntry),
    ("docs/topologies.md", platforms.G5kEntry),
    ("docs/topologies.md", platforms.VMonG5kEntry),
    ("docs/topologies.md", platforms.VagrantEntry),
    ("docs/topologies.md", platforms.ChameleonEntry),
    ("docs/openstack.md", topology_file.OpenStackEntry),
    ("docs/openstack.md", topology_file.RomeEntry),
    ("scenarios/README.md", scenario.ScenarioFile),
    ("docs/artifacts.md", ClaimsFile),
    ("docs/artifacts.md", ClaimEntry),
)


@pytest.mark.parametrize(
    ("page", "entry"), ENTRIES, ids=lambda value: getattr(value, "__name__", "")
)
def test_every_key_of_a_file_is_described(page: str, entry: type[BaseModel]) -> None:
    text = (REPOSITORY / page).read_text()
    first_cells = re.findall(r"^\| (`[^|]*?) \|", text, re.MULTILINE)
    described = {key for cell in first_cells for key in re.findall(r"`([a-z_]+)[^`]*`", cell)}
    keys = {field.alias or name for name, field in entry.model_fields.items()}
    assert keys - {"type"} <= described


# ---------------------------------------------------------------- the architecture


@pytest.mark.parametrize("root", ["discovery_xp", "rome/src/rome"])
def test_the_architecture_describes_each_package(root: str) -> None:
    text = (REPOSITORY / "docs/architecture.md").read_text()
    packages = text[text.index("## Packages") : text.index("## Modules")]
    section = packages[packages.index(f"| In `{root}/` |") :].split("\n\n")[0]
    described = set(re.findall(r"`([a-z_0-9]+(?:/|\.py))`", section))
    there = {
        f"{path.name}/" if path.is_dir() else path.name
        for path in (REPOSITORY / root).iterdir()
        if (path.suffix == ".py" and path.stem != "__init__") or (path / "__init__.py").exists()
    }
    assert there - {"errors.py"} <= described
