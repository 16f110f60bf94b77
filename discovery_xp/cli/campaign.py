"""`discovery-xp campaign`: many runs from one file; planned, made, looked at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from discovery_xp.cli.common import InputFile, console, echo
from discovery_xp.cli.compare import Percentage
from discovery_xp.cli.progress import Follower, duration_in_words
from discovery_xp.errors import Failed, Refused
from discovery_xp.inputs.campaign import read_campaign
from discovery_xp.inputs.campaign_file import campaign_schema
from discovery_xp.inputs.campaign_values import Campaign
from discovery_xp.inputs.units import QuantityError, parse_time_s
from discovery_xp.text import shortened

if TYPE_CHECKING:
    from discovery_xp.bench_request import BenchRequest
    from discovery_xp.campaigns.forecast import Forecast
    from discovery_xp.campaigns.ledger import Entry, Ledger
    from discovery_xp.planning.plan import Plan
    from discovery_xp.store import Run

_SUMMARY = 100  # characters of why an attempt failed

file_argument = click.argument("file", type=InputFile("campaigns"))
results_option = click.option(
    "--results", type=click.Path(path_type=Path), default=Path("results"), show_default=True,
    help="Where the campaign's folder is.",
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="Everything, for programs.")


@click.group()
def campaign() -> None:
    """Many runs from one file: planned, made, stopped and gone on with at any time."""


@campaign.command("schema")
def print_schema() -> None:
    """Print the JSON Schema of campaigns' files, for editors."""
    click.echo(json.dumps(campaign_schema(), indent=2))


@campaign.command("plan")
@file_argument
@results_option
@json_option
def print_plan(file: Path, results: Path, as_json: bool) -> None:
    """Print what 'run' would do: each run in order, and what all of them need. Touches nothing."""
    ledger = _ledger(read_campaign(file), results)
    from discovery_xp.campaigns.forecast import forecast
    from discovery_xp.campaigns.requests import check_all

    check_all(ledger.campaign, [entry.job for entry in ledger.of("left")], ledger.folder)
    _show(ledger, forecast(ledger), as_json, _excluded(ledger.campaign))


@campaign.command("status")
@file_argument
@results_option
@json_option
def print_status(file: Path, results: Path, as_json: bool) -> None:
    """Print what was run, what failed and what is left. The code is 1 while anything is."""
    ledger = _ledger(read_campaign(file), results)
    from discovery_xp.campaigns.forecast import forecast

    _show(ledger, forecast(ledger), as_json)
    _require_done(ledger)


@campaign.command("run")
@file_argument
@results_option
@click.option("--for", "limit", metavar="TIME", help="Begin nothing that wouldn't end within it, "
              "such as '10h'.")  # fmt: skip
def make_runs(file: Path, results: Path, limit: str | None) -> None:
    """Make all runs that are left; the same command goes on after an interruption.

    Of an endless campaign ('repeats: endless') it makes another block once all are done. On
    Grid'5000 further processes of the same command work side by side, each on a testbed of its
    own. The code is 1 where a point failed as often as it may.
    """
    within_s = _within(limit)
    ledger = _ledger(read_campaign(file), results)
    ledger.begin_another_block()
    from discovery_xp.campaigns import running
    from discovery_xp.campaigns.forecast import forecast

    for line in _needs(ledger, forecast(ledger)):
        echo(line)
    maker = _Maker()
    for outcome in running.run_all(ledger, maker.make, maker.begins, within_s):
        job = outcome.entry.job
        subject = f"{job.point.words}, block {job.block}"
        if outcome.failure is None:
            run = outcome.run
            echo(f"{subject}: done, {run.folder if run else ''}")
        else:
            reason = shortened(outcome.failure.reason, _SUMMARY)
            echo(f"{subject}: attempt {outcome.failure.attempt} failed: {reason}", err=True)
    ledger.refresh()
    if left := ledger.of("left"):
        echo(f"{len(left)} runs are left; the same command goes on with them")
        return
    _require_done(ledger)


@campaign.command("report")
@file_argument
@results_option
@click.option("--site", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Where the site goes (default: 'site' in the campaign's folder).")  # fmt: skip
@click.option("--logs/--no-logs", "with_logs", default=True,
              help="Whether the site has each run's logs.")  # fmt: skip
@click.option("--light", is_flag=True,
              help="For a repository: images alone, none on runs' pages.")  # fmt: skip
def write_report(
    file: Path, results: Path, site: Path | None, with_logs: bool, light: bool
) -> None:
    """Write what was measured as a site: pages in one folder, which open offline.

    It can be written at any time: what failed or is left is on it, too.
    """
    ledger = _ledger(read_campaign(file), results)
    if not ledger.of("done"):
        raise Refused(
            f"no run of campaign {ledger.campaign.name} is complete in {ledger.folder}",
            "make some with 'discovery-xp campaign run', or name another folder with --results",
        )
    from discovery_xp.analysis.measurements import measured
    from discovery_xp.campaigns.state import state_of
    from discovery_xp.cli.report import write_site

    runs = measured(entry.done.run for entry in ledger.of("done") if entry.done is not None)
    page = write_site(site or ledger.folder / "site", runs, with_logs, light, state_of(ledger))
    echo(f"written: {page}")


@campaign.command("compare")
@file_argument
@results_option
@click.option("--fail-over", type=Percentage(), default="10%", show_default=True, metavar="SHARE",
              help="End with code 1 where a point is worse than before by more than this, over the "
              "whole interval of a figure, or in a figure that counts.")  # fmt: skip
def compare_blocks(file: Path, results: Path, fail_over: float) -> None:
    """Compare the newest run of each point with the one before it, as after a change.

    The code is 1 where one is worse, for continuous benchmarking.
    """
    ledger = _ledger(read_campaign(file), results)
    from discovery_xp.analysis.report import rich_table
    from discovery_xp.campaigns.newest import compare_newest, table

    compared = compare_newest(ledger)
    if not compared:
        raise Refused(
            f"no point of campaign {ledger.campaign.name} has two complete runs in {ledger.folder}",
            "run the campaign once more",
        )
    console(180).print(rich_table(table(compared)))
    worse = [f"{each.words}: {words}" for each in compared for words in each.worse(fail_over)]
    if worse:
        raise Failed(
            f"worse by more than {100 * fail_over:g} %: {'; '.join(worse)}",
            "compare the two runs with 'discovery-xp compare', which names what differs",
        )


class _Maker:
    """Makes runs, and says how they come on."""

    def __init__(self) -> None:
        self.expected_s: float | None = None

    def begins(self, entry: Entry, rest: Forecast) -> None:
        """Say which run begins, and how long all that is left takes."""
        number, job = len(rest.needs), entry.job
        self.expected_s = rest.needs[job.key].seconds
        again = f", attempt {entry.next_attempt}" if entry.next_attempt > 1 else ""
        echo(
            f"{number} left, about {duration_in_words(rest.seconds)}; now {job.point.part}: "
            f"{job.point.words}, block {job.block}{again}"
        )

    def make(self, plan: Plan, request: BenchRequest) -> Run:
        """Make a run."""
        from discovery_xp import bench

        follower = Follower(self.expected_s)
        try:
            run = bench.run(plan, request, follower, lambda _run: None, follower.pace)
        except BaseException:
            follower.end("it ended early")
            raise
        follower.end(f"the run is in {run.folder}")
        return run


# ---------------------------------------------------------------- what is shown


def _ledger(read: Campaign, results: Path) -> Ledger:
    from discovery_xp.campaigns.ledger import Ledger

    return Ledger(read, results.absolute() / read.name).refresh()


def _within(limit: str | None) -> float | None:
    if limit is None:
        return None
    try:
        return parse_time_s(limit)
    except QuantityError as error:
        raise Refused(f"--for: {error.reason}", error.remedy) from None


def _show(ledger: Ledger, rest: Forecast, as_json: bool, remarks: Sequence[str] = ()) -> None:
    """Print a campaign's runs and what is left of them."""
    if as_json:
        click.echo(json.dumps(_as_json(ledger, rest), indent=1))
        return
    out = console()
    out.print(_table(ledger, rest))
    for line in (*remarks, *_needs(ledger, rest)):
        out.print(line, soft_wrap=True)


def _table(ledger: Ledger, rest: Forecast) -> Table:
    from discovery_xp.campaigns.requests import plan_of

    factors, is_endless = ledger.campaign.factors, ledger.campaign.is_endless
    table = Table(title=f"Campaign {ledger.campaign.name}", title_justify="left")
    for title in ("#", "part", *factors, "block", "hosts", "takes", "state"):
        table.add_column(title, justify="right" if title in ("#", "block", "hosts") else "left")
    for number, entry in enumerate(ledger.entries, start=1):
        point = entry.job.point
        table.add_row(
            str(number), point.part, *(point.levels.get(factor, "") for factor in factors),
            str(entry.job.block) + ("" if is_endless else f" of {point.repeats}"),
            str(len(plan_of(ledger.campaign, entry.job).hosts)), _took(entry, rest), _state(entry),
        )  # fmt: skip
    return table


def _took(entry: Entry, rest: Forecast) -> str:
    from discovery_xp.campaigns.forecast import took_s

    if entry.done is not None:
        return duration_in_words(took_s(entry.done))
    need = rest.needs.get(entry.job.key)
    return "" if need is None else f"about {duration_in_words(need.seconds)}"


def _state(entry: Entry) -> str:
    if entry.done is not None:
        verdict, vms = entry.done.record.validity, entry.done.record.vms
        words = f"done, {vms.active} of {vms.asked} VMs" if vms.asked else "done"
        return words if verdict is None else f"{words}, {verdict.verdict}"
    if entry.failures:
        last = shortened(entry.failures[-1].reason, _SUMMARY)
        if entry.state == "failed":
            return f"failed {len(entry.failures)} times: {last}"
        return f"left, attempt {len(entry.failures)} failed: {last}"
    return entry.state


def _excluded(read: Campaign) -> list[str]:
    by_reason: dict[tuple[str, str], int] = {}
    for each in read.excluded:
        by_reason[each.part, each.because] = by_reason.get((each.part, each.because), 0) + 1
    return [
        f"left out of {part}: {count} points, {because}"
        for (part, because), count in by_reason.items()
    ]


def _needs(ledger: Ledger, rest: Forecast) -> list[str]:
    done, failed, left = (ledger.of(state) for state in ("done", "failed", "left"))
    lines = [
        f"{len(ledger.entries)} runs of {len(ledger.campaign.points)} points: {len(done)} done, "
        f"{len(failed)} failed, {len(left)} left; in {ledger.folder}"
    ]
    if left:
        basis = f"as {rest.measured} runs took" if rest.measured else "as foretold on two cores"
        lines.append(
            f"what is left takes about {duration_in_words(rest.seconds)} ({basis}), "
            f"{rest.disk_bytes / 1e6:.0f} MB of disk, {rest.node_hours:.1f} node-hours"
        )
    if ledger.strangers:
        lines.append(
            f"{len(ledger.strangers)} runs there are of points that the file hasn't any more"
        )
    return lines


def _as_json(ledger: Ledger, rest: Forecast) -> dict[str, object]:
    def row(entry: Entry) -> dict[str, object]:
        point, need = entry.job.point, rest.needs.get(entry.job.key)
        return {
            "part": point.part,
            "point": point.digest,
            "levels": dict(point.levels),
            "block": entry.job.block,
            "state": entry.state,
            "run": None if entry.done is None else str(entry.done.run.folder),
            "failures": [vars(failure) for failure in entry.failures],
            "seconds": None if need is None else round(need.seconds, 1),
        }

    read = ledger.campaign
    return {
        "campaign": read.name,
        "runs": [row(entry) for entry in ledger.entries],
        "excluded": [
            {"part": each.part, "levels": dict(each.levels), "because": each.because}
            for each in read.excluded
        ],
        "left": {
            "seconds": round(rest.seconds, 1),
            "disk_bytes": round(rest.disk_bytes),
            "node_hours": round(rest.node_hours, 2),
            "measured_runs": rest.measured,
        },
    }


def _require_done(ledger: Ledger) -> None:
    """Raise Failed while a run is left, or where one failed for good."""
    failed, left = ledger.of("failed"), ledger.of("left")
    if failed:
        raise Failed(
            f"{len(failed)} of {len(ledger.entries)} runs failed: {failed[0].job.point.words}: "
            f"{shortened(failed[0].failures[-1].reason, _SUMMARY)}",
            f"correct what it says, remove its lines from {ledger.folder}/failures.jsonl, and run "
            "the campaign again",
        )
    if left:
        raise Failed(
            f"{len(left)} of {len(ledger.entries)} runs are left",
            "go on with 'discovery-xp campaign run'",
        )
