"""An artifact, made: what `discovery-xp artifact` does, in order.

1. collect the files of runs, and judge the claims on them;
2. search them for secrets, those of this machine's testbeds among them;
3. make the site, the source's archives, the data dictionary, the metadata and the appendix;
4. write folder, checksums and archive, or nothing.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from discovery_xp.analysis.measurements import Measurements, measured
from discovery_xp.artifact import appendix, crate, dictionary, metadata, packing
from discovery_xp.artifact.collecting import Collected, collect
from discovery_xp.artifact.judging import Verdict, chosen, judge
from discovery_xp.artifact.screening import Screening
from discovery_xp.artifact.source import Source, sources
from discovery_xp.artifact.subject import CLAIMS, Subject
from discovery_xp.errors import UserError
from discovery_xp.places import checkout
from discovery_xp.site.content import Content
from discovery_xp.site.writing import write_site
from discovery_xp.store.records import TIME
from discovery_xp.testbeds import passwords
from discovery_xp.testbeds.testbed import Testbed, testbeds

FORMAT = 1
ABOUT = "artifact.json"

Stage = Callable[[str], None]


@dataclass(frozen=True)
class Made:
    """An artifact that was written: where, what became of its claims, and what to know of it."""

    folder: Path
    archive: Path
    files: int
    verdicts: tuple[Verdict, ...]
    remarks: tuple[str, ...]


def make(
    subject: Subject,
    folder: Path,
    authors: Sequence[str] = (),
    without: Collection[str] = (),
    stage: Stage = lambda _words: None,
) -> Made:
    """Write the artifact of a subject to a folder that isn't there, and an archive beside it.

    `without` names folders of runs that are left out.  Raises Refused, with nothing written, where
    that can't be done, or a run holds a secret.
    """
    packing.require_free(folder)
    runs = measured(subject.runs)
    collected = collect(subject.runs, without)
    stage("judging claims")
    verdicts = [judge(claim, runs) for claim in subject.claims.claims]
    needs = _needs(subject, runs, collected)
    stage("looking for secrets")
    screening = Screening(_known_secrets())
    for each in collected:
        for path in each.files.values():
            screening.require_no_secret(path)
        screening.require_no_secret_in_tables(each.run)
    for path in subject.others:
        screening.require_no_secret(path)
    stage("drawing the site")
    contents: dict[str, packing.Content] = dict(_site(subject, runs))
    stage("packing the source")
    source = sources(run.record.commit for run in runs)
    contents |= source.archives
    moment = _moment(runs)
    title = f"{subject.name}: {len(runs)} runs of discovery-xp"
    description = subject.description or f"Runs of {subject.name}, with all that they measured."
    named = tuple(authors) or (metadata.MAINTAINERS,)
    contents |= _beside(subject)
    contents[dictionary.NAME] = dictionary.markdown().encode()
    for name, text in (
        (metadata.CITATION, metadata.artifact_citation(title, description, named, moment)),
        (metadata.ZENODO, metadata.zenodo(title, description, named, moment)),
        (ABOUT, json.dumps({"format": FORMAT, "name": subject.name}) + "\n"),
        (appendix.NAME,
         appendix.appendix(folder.name, title, description, collected, verdicts, needs, source,
                           _file_words(contents))),
    ):  # fmt: skip
        contents[name] = text.encode()
    contents[crate.NAME] = crate.metadata(
        title, description, named, moment, collected, list(contents)
    ).encode()
    for each in collected:
        contents |= each.files
    stage("writing")
    sums = packing.write(folder, contents, moment)
    return Made(
        folder, packing.archive_of(folder), len(sums) + 1, tuple(verdicts),
        _remarks(collected, screening, source),
    )  # fmt: skip


def _needs(
    subject: Subject, runs: Sequence[Measurements], collected: Sequence[Collected]
) -> dict[int, appendix.Need]:
    """Return what each claim's runs took, of the claims that have some for each side."""
    by_folder = {each.run.folder: each for each in collected}
    needs = {}
    for claim in subject.claims.claims:
        sides = [chosen(claim, levels, runs) for levels in claim.sides]
        if all(sides):
            needs[claim.number] = appendix.need_of(
                [by_folder[side[-1].run.folder] for side in sides]
            )
    return needs


def _known_secrets() -> dict[str, str]:
    """Return the passwords of this machine's testbeds, as far as they can be read."""
    known: dict[str, str] = {}
    with contextlib.suppress(UserError, OSError):
        for name in testbeds():
            with contextlib.suppress(UserError, OSError):
                for key, secret in passwords.load(Testbed(name)).items():
                    known[f"{key} of {name}"] = secret
    return known


def _site(subject: Subject, runs: Sequence[Measurements]) -> dict[str, bytes]:
    """Return a site of all runs by the names of its files in the artifact.

    Runs' pages have no figures, which would be most of the artifact's bytes: `report` on the
    records draws them.
    """
    content = Content(runs, subject.name, with_logs=False, with_run_figures=False)
    with tempfile.TemporaryDirectory(prefix="discovery-xp-site-") as temporary:
        place = Path(temporary) / "site"
        write_site(place, content)
        return {
            f"site/{path.relative_to(place)}": path.read_bytes()
            for path in sorted(place.rglob("*"))
            if path.is_file()
        }


def _beside(subject: Subject) -> dict[str, packing.Content]:
    contents: dict[str, packing.Content] = {path.name: path for path in subject.others}
    if subject.claims.text:
        contents[CLAIMS] = subject.claims.text.encode()
    if subject.campaign_text:
        contents["campaign.yaml"] = subject.campaign_text.encode()
    for place in (checkout(), checkout() / "rome"):  # a wheel has that of ROME alone
        if (path := place / "LICENSE").is_file():
            contents["LICENSE"] = path
            break
    return contents


def _moment(runs: Sequence[Measurements]) -> int:
    """Return when the newest run ended, s since 1970: the time of the artifact."""
    ends = [run.record.ended or run.record.started for run in runs]
    newest = max(datetime.datetime.strptime(end, TIME) for end in ends)
    return int(newest.replace(tzinfo=datetime.UTC).timestamp())


_WORDS = {
    appendix.NAME: "this page",
    dictionary.NAME: "every file of a run, and every column with its unit",
    CLAIMS: "the claims, for `reproduce --claim` and `artifact --check`",
    "campaign.yaml": "the campaign's file",
    "failures.jsonl": "attempts of the campaign that failed",
    metadata.CITATION: "how to cite it",
    metadata.ZENODO: "metadata for Zenodo",
    crate.NAME: "metadata for programs: RO-Crate",
    ABOUT: "the format's number",
    "LICENSE": "the licence of source and records",
    packing.SUMS: "checksums of all files",
    "records/": "the runs; `DATA-DICTIONARY.md` says what is in one",
    "site/": "the runs beside each other: pages that open offline, tables as CSV and LaTeX",
    "source/": "the toolkit: the version that made this artifact, and those that made the runs",
}


def _file_words(contents: Collection[str]) -> dict[str, str]:
    optional = (CLAIMS, "campaign.yaml", "failures.jsonl", "LICENSE")
    there = {name for name in optional if name in contents}
    if any(name.startswith("source/") for name in contents):
        there.add("source/")
    return {
        name: words
        for name, words in _WORDS.items()
        if name in there or name not in (*optional, "source/")
    }


def _remarks(
    collected: Sequence[Collected], screening: Screening, source: Source
) -> tuple[str, ...]:
    remarks = [*source.remarks]
    left_out = [path for each in collected for path in each.left_out]
    if left_out:
        remarks.append(f"{len(left_out)} files of runs are left out, such as {left_out[0]}")
    for home, place in sorted(screening.homes.items()):
        remarks.append(f"the home folder {home} is named, as in {place}")
    for provider in sorted({each.run.load().machine.provider for each in collected}):
        if provider == "static":
            remarks.append("topologies and plans name hosts and addresses of your own")
    return tuple(remarks)
