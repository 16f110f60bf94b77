"""`discovery-xp artifact`: runs, claims and source as one artifact; registered by `cli`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from discovery_xp.cli.common import InputFile, console, echo
from discovery_xp.errors import Failed, Refused
from discovery_xp.store import FOLDERS
from discovery_xp.text import printable, shortened

if TYPE_CHECKING:
    from discovery_xp.artifact.judging import Verdict
    from discovery_xp.artifact.subject import Subject

# What draws and judges is loaded by the command, not by every other one.

claims_option = click.option(
    "--claims", type=InputFile("campaigns/claims"), metavar="FILE",
    help="Claims, in place of those beside the runs or the campaign's file.",
)  # fmt: skip


@click.command()
@click.argument("campaign", type=InputFile("campaigns"))
@click.option("--output", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Where it goes; the archive is beside it. Default: NAME-artifact.")  # fmt: skip
@claims_option
@click.option("--results", type=click.Path(path_type=Path), default=Path("results"),
              show_default=True, help="Where the folder of a campaign's file is.")  # fmt: skip
@click.option("--author", "authors", multiple=True, metavar="NAME",
              help="Who made the runs, for citing; may be given several times.")  # fmt: skip
@click.option("--without", multiple=True, type=click.Choice(FOLDERS),
              help="Leave this folder of each run out.")  # fmt: skip
@click.option("--check", is_flag=True,
              help="Write nothing: say whether each claim holds on the stored runs.")  # fmt: skip
def artifact(
    campaign: Path,
    output: Path | None,
    claims: Path | None,
    results: Path,
    authors: tuple[str, ...],
    without: tuple[str, ...],
    check: bool,
) -> None:
    """Write runs as an artifact: a folder and an archive for Zenodo, or check the claims.

    CAMPAIGN is a campaign's file, a folder of results, or an artifact. The artifact has an
    appendix, the claims with their commands, records, report, source, data dictionary, metadata
    and checksums. With --check the code is 1 where a claim doesn't hold within its tolerance.
    """
    with subject(campaign, results, claims) as found:
        if check:
            _check(found)
            return
        from discovery_xp.artifact import making

        folder = (output or Path(f"{found.name}-artifact")).absolute()
        if folder.is_relative_to(found.folder.resolve()):
            raise Refused(f"{folder} is within the runs", "name another place with --output")
        made = making.make(found, folder, authors, without, lambda words: echo(words, err=True))
    if made.verdicts:
        _print(made.verdicts)
    for remark in made.remarks:
        echo(f"look at this before you publish it: {remark}", err=True)
    echo(f"{made.files} files are in {made.folder}, and in {made.archive}")
    echo(f"begin with {made.folder / 'ARTIFACT.md'}")


@contextlib.contextmanager
def subject(named: Path, results: Path, claims: Path | None = None) -> Iterator[Subject]:
    """Yield what a campaign's file, a folder of results, or an artifact names.

    Raises Refused where an artifact is damaged, or there is no run.
    """
    from discovery_xp.artifact.opening import is_artifact, opened
    from discovery_xp.artifact.subject import subject_of

    if is_artifact(named):
        with opened(named) as folder:
            yield subject_of(folder, results, claims)
    else:
        yield subject_of(named, results, claims)


def _check(found: Subject) -> None:
    """Print the verdict on each claim; raise Failed where one doesn't hold."""
    from discovery_xp.analysis.measurements import measured
    from discovery_xp.artifact.judging import judge

    if not found.claims.claims:
        raise Refused(
            f"{printable(str(found.folder))}: there are no claims about these runs",
            "name a file of claims with --claims",
        )
    runs = measured(found.runs)
    verdicts = [judge(claim, runs) for claim in found.claims.claims]
    _print(verdicts)
    wrong = [verdict for verdict in verdicts if not verdict.is_good]
    if wrong:
        raise Failed(
            f"{len(wrong)} of {len(verdicts)} claims don't hold: {in_words(wrong[0])}",
            "look at its runs with 'discovery-xp compare'",
        )
    echo(f"{len(verdicts)} claims hold, within their tolerances")


def _print(verdicts: Sequence[Verdict]) -> None:
    from discovery_xp.analysis.report import rich_table
    from discovery_xp.artifact.judging import table

    console(180).print(rich_table(table(verdicts)))


def in_words(verdict: Verdict) -> str:
    """Return what became of a claim, in a line: 'claim 2: 1.3, not ratio at most 1'."""
    number = f"claim {verdict.claim.number}"
    if verdict.value is None:
        return f"{number}: {verdict.outcome}, {shortened(verdict.remark)}"
    if verdict.is_good:
        return f"{number}: {verdict.value:.4g}, as {verdict.claim.relation}"
    return f"{number}: {verdict.value:.4g}, not {verdict.claim.relation}"
