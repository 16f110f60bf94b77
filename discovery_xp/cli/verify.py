"""`discovery-xp verify`: OpenStack's own API tests against a cloud."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from discovery_xp.boundary.names import TestbedName
from discovery_xp.cli.bench import as_file
from discovery_xp.cli.common import NameOption, echo
from discovery_xp.cli.options import (
    backend_option,
    chosen_topology,
    expose_option,
    layout_option,
    topology_options,
    with_backend,
)
from discovery_xp.cli.progress import Follower
from discovery_xp.cli.report import report, write_page
from discovery_xp.errors import Failed, Refused, UserError
from discovery_xp.onhost.wire.verification import FAILED, SERVICES
from discovery_xp.planning.plan import make_plan
from discovery_xp.testbeds import testbed as testbeds
from discovery_xp.text import short

if TYPE_CHECKING:
    from discovery_xp.store import Run

MOST_AT_ONCE = 16
MOST_MINUTES = 24 * 60


@click.command()
@topology_options
@backend_option
@layout_option
@click.option("--testbed", "there", type=NameOption(),
              help="A cloud that is up, in place of a topology; it stays.")  # fmt: skip
@click.option("--only", default="all", show_default=True,
              help="'all', or some of identity, compute, image, network, with commas.")  # fmt: skip
@click.option("--regex", default="", help="Only tests whose name matches it, such as 'flavors'.")
@click.option("--region", help="Whose APIs are asked (default: the cloud's first).")
@click.option("--concurrency", type=click.IntRange(1, MOST_AT_ONCE), default=2, show_default=True,
              help="Tests at a time.")  # fmt: skip
@click.option("--minutes", type=click.IntRange(1, MOST_MINUTES), default=120, show_default=True,
              help="After so many the tests end, wherever they are.")  # fmt: skip
@click.option("--results", type=click.Path(path_type=Path), default=Path("results"),
              show_default=True, help="Where the run's folder goes.")  # fmt: skip
@click.option("--keep", is_flag=True, help="Leave up what was deployed for it.")
@expose_option
def verify(
    topology: Path | None,
    sites: int | None,
    latency: str | None,
    name: TestbedName | None,
    backend: str | None,
    layout: str | None,
    there: TestbedName | None,
    only: str,
    regex: str,
    region: str | None,
    concurrency: int,
    minutes: int,
    results: Path,
    keep: bool,
    expose: bool,
) -> None:
    """Run OpenStack's own API tests, Tempest's, on a cloud, and store every verdict.

    On a topology: its cloud is deployed, and destroyed afterwards. Without one: on the cloud that
    is up, which stays. Exit code 1 when a test failed.
    """
    from discovery_xp import verify as verifications
    from discovery_xp.verification import Wish

    wish = Wish(
        services=chosen_services(only),
        regex=checked_regex(regex),
        concurrency=concurrency,
        longest_s=60.0 * minutes,
    )
    request = verifications.VerifyRequest(wish, results, region, keep, expose)
    follower = Follower()
    opened: list[Run] = []
    if topology is None and sites is None and latency is None:
        given = {"--backend": backend, "--layout": layout, "--name": name, "--keep": keep,
                 "--expose": expose}  # fmt: skip
        _require_none(given)
        testbed = testbeds.choose(there)

        def work() -> Run:
            return verifications.run_there(testbed, request, follower, opened.append)
    else:
        if there is not None:
            raise Refused(
                f"--testbed {there} and a topology both say which cloud", "give one of them"
            )
        chosen, text = chosen_topology(topology, sites, latency)
        made = make_plan(with_backend(chosen, backend, layout), name, cloud=True)
        with_text = dataclasses.replace(
            request,
            topology_text=as_file(text, sites, latency, None, backend, None, layout=layout),
        )

        def work() -> Run:
            return verifications.run(made, with_text, follower, opened.append)

    _conclude(_followed(work, follower, opened))


def chosen_services(text: str) -> tuple[str, ...]:
    """Return the services that a comma-separated list names; raises Refused for another."""
    if text == "all":
        return SERVICES
    named = [word.strip() for word in text.split(",") if word.strip()]
    unknown = [word for word in named if word not in SERVICES]
    if unknown or not named:
        raise Refused(
            f"--only: no service '{short(unknown[0] if unknown else text)}'",
            f"write 'all', or some of {', '.join(SERVICES)}",
        )
    return tuple(service for service in SERVICES if service in named)


def checked_regex(text: str) -> str:
    """Return a regular expression; raises Refused for what is none."""
    try:
        re.compile(text)
    except re.error as error:
        raise Refused(
            f"--regex: '{short(text)}' is no regular expression ({error})",
            "write one as Python's re has them",
        ) from None
    return text


def _require_none(options: Mapping[str, object]) -> None:
    """Raise Refused for an option that says how a cloud is made, where one is up."""
    for option, value in options.items():
        if value:
            raise Refused(
                f"{option} is for a cloud that is deployed for this, and no topology was given",
                "name a topology, or leave the option out",
            )


def _followed(work: Callable[[], Run], follower: Follower, opened: Sequence[Run]) -> Run:
    """Do the work, and say at its end where the run is, whatever end that is."""
    try:
        run = work()
    except BaseException:
        follower.end("it ended early")
        if opened:
            remarks = [f"what was found is in {opened[0].folder}, as a partial run"]
            with contextlib.suppress(UserError, OSError):
                remarks.append(f"its report is {write_page(opened[0].folder)}")
            echo("; ".join(remarks), err=True)
        raise
    follower.end(f"the run is in {run.folder}")
    return run


def _conclude(run: Run) -> None:
    """Print the report; raise Failed where a test failed, or not all of them ended."""
    click.get_current_context().invoke(
        report, run=(run.folder,), page=None, csv=None, latex=None, figures=None, whole=False
    )
    record = run.load()
    if record.is_partial:
        raise Failed(
            f"the run is partial: {record.why_partial}",
            "what was found is kept; the same command makes another run",
        )
    failed = run.table("verdicts").column("status").to_pylist().count(FAILED)
    if failed:
        raise Failed(
            f"{failed} test{'s' * (failed != 1)} failed",
            f"the report has the end of each one's traceback: {run.path('report.html')}",
        )
