"""Jobs of OAR: find, submit, wait for, end, and what they cost.

A job is known by its site and number; ours are called 'discovery-xp-TESTBED'.
"""

from __future__ import annotations

import datetime as dt
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import requests
from grid5000.exceptions import Grid5000DeleteError, Grid5000Error, Grid5000GetError

from discovery_xp.boundary import answers
from discovery_xp.errors import Failed, Refused
from discovery_xp.planning import oar
from discovery_xp.planning.oar import Request
from discovery_xp.providers.grid5000 import api

# The last one is our word for a job that the platform doesn't know any more.
FORGOTTEN = "unknown to the platform"
ENDED = ("terminated", "error", FORGOTTEN)
# A queue may be long; who waits for more than that isn't waiting any more.
LONGEST_WAIT_S = 8 * 24 * 3600
ENDING_S = 120
LATE_S = 30
LOST_S = 600
# The API lists fifty by default, ended ones among them.
LISTED = 500
# No job of the platform is later than that, in s since 1970.
LATEST = 2**33
POLLS_S = (2, 3, 5, 5, 10, 10, 15, 30)


@dataclass(frozen=True)
class Job:
    """A job as the API told it; times in seconds since 1970, None where not known yet."""

    site: str
    uid: int
    name: str
    state: str
    nodes: tuple[str, ...]
    types: tuple[str, ...]
    walltime_s: int
    started_at: float | None
    scheduled_at: float | None
    ended_at: float | None

    @property
    def is_over(self) -> bool:
        """True when it has ended, however it did."""
        return self.state in ENDED

    @property
    def testbed(self) -> str:
        """The testbed that its name speaks of."""
        return self.name.removeprefix(oar.JOB_PREFIX)

    @property
    def ends_at(self) -> float | None:
        """When its walltime is over."""
        return None if self.started_at is None else self.started_at + self.walltime_s

    def used_node_hours(self, now: float) -> float:
        """What it has cost until `now`."""
        if self.started_at is None:
            return 0.0
        until = min(now, self.ended_at or now, self.ends_at or now)
        return len(self.nodes) * max(0.0, until - self.started_at) / 3600

    def in_words(self, now: float) -> str:
        """One line for a person: what it is, what it costs."""
        words = f"job {self.uid} on {self.site}: {self.state}"
        if self.started_at is None:
            when = f", expected to start at {date(self.scheduled_at)}" if self.scheduled_at else ""
            return f"{words}{when}"
        words += f", {len(self.nodes)} nodes since {date(self.started_at)}"
        words += f", {self.used_node_hours(now):.1f} node-hours used"
        if self.is_over:
            return words
        whole = len(self.nodes) * self.walltime_s / 3600
        return f"{words} of {whole:.1f}, ends at {date(self.ends_at)}"


def date(at: float | None) -> str:
    """A date in Paris, where the platform's are."""
    if at is None:
        return "?"
    return dt.datetime.fromtimestamp(at, oar.PARIS).strftime("%Y-%m-%d %H:%M")


def _job(site: str, answer: Any) -> Job:
    """Return a job as the API told it; raises Refused when it told something else."""
    try:
        return _read_job(site, answer)
    except (AttributeError, TypeError, ValueError):  # Unfit is a ValueError
        raise Refused(
            f"the API of {site} tells of something that is no job", "try again later"
        ) from None


def _read_job(site: str, answer: Any) -> Job:
    def number(key: str) -> float | None:
        value = getattr(answer, key, None)
        if not value:
            return None
        parsed = answers.number_of(value) if isinstance(value, str) else answers.number(value)
        if not 0 <= parsed < LATEST:
            raise answers.Unfit(f"{answers.shown(value)} is no time")
        return parsed

    def texts(key: str) -> tuple[str, ...]:
        return tuple(answers.text(each, 300) for each in getattr(answer, key, None) or ())

    state = answers.text(answer.state, 100).lower()
    # A reservation that waits has its start there already.
    has_started = state in ("launching", "running", *ENDED)
    planned = number("scheduled_at") or number("started_at")
    return Job(
        site=site,
        uid=answers.whole_of(str(answer.uid)),
        name=answers.text(getattr(answer, "name", None) or "", 300),
        state=state,
        nodes=texts("assigned_nodes"),
        types=texts("types"),
        walltime_s=answers.whole_of(str(getattr(answer, "walltime", None) or 0)),
        started_at=number("started_at") if has_started else None,
        scheduled_at=planned,
        ended_at=number("stopped_at") if state in ENDED else None,
    )


def look(site: str, uid: int) -> Job:
    """A job as it is now; one that the platform doesn't know any more has ended."""
    try:
        return _job(site, api.client().sites[site].jobs[str(uid)])
    except Grid5000GetError as error:
        if error.response_code != 404:
            raise
        return Job(site, uid, "", FORGOTTEN, (), (), 0, None, None, None)


def active(sites: Iterable[str], testbed: str) -> list[Job]:
    """The user's jobs of a testbed's name that haven't ended, site by site.

    EnOSlib's own search leaves out those that are about to launch or on hold.
    """
    current = []
    for site in sites:
        listed = (
            api.client()
            .sites[site]
            .jobs.list(name=oar.job_name(testbed), user=api.username(), limit=LISTED)
        )
        current += [look(site, job.uid) for job in listed if str(job.state).lower() not in ENDED]
    return current


def all_of_ours() -> tuple[list[Job], list[str]]:
    """Every job of the user's that hasn't ended and has a testbed's name, on all sites.

    And the names of sites that can't be asked.
    """
    ours, silent = [], []
    for site in api.sites():
        try:
            for answer in site.jobs.list(user=api.username(), limit=LISTED):
                is_ours = str(getattr(answer, "name", None) or "").startswith(oar.JOB_PREFIX)
                if is_ours and str(answer.state).lower() not in ENDED:
                    ours.append(look(site.uid, answer.uid))
        except (Grid5000Error, requests.exceptions.RequestException):
            silent.append(str(site.uid))
    return ours, silent


class Taken(Refused):
    """OAR has no room at that start; `could_run_at` is its own proposal, if it made one."""

    could_run_at: float | None = None


def submit(job_requests: Sequence[Request], testbed: str) -> list[tuple[str, int]]:
    """Submit all requests, or none: site and number of each job.

    Raises Refused, in OAR's words, when one of them is refused; Taken where another start
    may do.  Where an answer is lost, jobs that were made all the same are ended; Failed where
    that can't be done, as some may be there then.
    """
    from enoslib.infra.enos_g5k import g5k_api_utils

    try:
        submitted = g5k_api_utils.submit_jobs([(one.site, dict(one.body)) for one in job_requests])
    except (Grid5000Error, requests.exceptions.RequestException) as error:
        _end_what_was_made(error, [request.site for request in job_requests], testbed)
        if not isinstance(error, Grid5000Error):
            raise
        reason, remedy = api.text_of(error), "'discovery-xp slots' lists when it would fit"
        words = f"OAR refuses the reservation: {api.said(error)}"
        if "could run at" not in reason and "Reservation too old" not in reason:
            raise Refused(words, remedy) from None
        refusal = Taken(words, remedy)
        proposed = re.search(r"could run at (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)", reason)
        refusal.could_run_at = oar.timestamp(proposed[1]) if proposed else None
        raise refusal from None
    return [
        (request.site, int(job.uid)) for request, job in zip(job_requests, submitted, strict=True)
    ]


def _end_what_was_made(error: Exception, sites: Sequence[str], testbed: str) -> None:
    """After a submission failed; EnOSlib's own cleaning up may have failed, too."""
    code = getattr(error, "response_code", None)
    try:
        if code is None or code >= 500:
            end_late_ones(sites, testbed)
        elif len(sites) > 1:
            end((job.site, job.uid) for job in active(sites, testbed))
    except (Grid5000Error, requests.exceptions.RequestException) as second:
        raise Failed(
            f"the submission had no answer ({error}), and whether it made jobs can't be asked",
            f"'discovery-xp destroy --testbed {testbed}' looks for them",
        ) from second


def end_late_ones(sites: Sequence[str], testbed: str) -> int:
    """End jobs of the testbed's name that come up within half a minute; their number.

    A submission whose answer was lost, or wasn't waited for, may be at work still.
    """
    latest, ended = time.monotonic() + LATE_S, 0
    while time.monotonic() < latest:
        late = active(sites, testbed)
        end((job.site, job.uid) for job in late)
        ended += len(late)
        time.sleep(3)
    return ended


def wait_until_running(
    refs: Sequence[tuple[str, int]], waiting: Callable[[list[Job]], None]
) -> list[Job]:
    """Until all jobs run; `waiting` gets them at each look.  Raises Failed when one ends."""
    latest = time.monotonic() + LONGEST_WAIT_S
    polls = iter(POLLS_S)
    lost_at: float | None = None
    while True:
        try:
            current = [look(site, uid) for site, uid in refs]
            lost_at = None
        except (Grid5000Error, requests.exceptions.RequestException):
            # Who has waited for hours doesn't give up at the first answer that is missing.
            lost_at = lost_at or time.monotonic()
            if time.monotonic() - lost_at > LOST_S:
                raise
            time.sleep(next(polls, POLLS_S[-1]))
            continue
        over = [job for job in current if job.is_over]
        if over:
            raise Failed(
                f"job {over[0].uid} on {over[0].site} ended before it ran ({over[0].state})",
                "the same command asks anew; the platform's mail to you tells why",
            )
        if all(job.state == "running" for job in current):
            return current
        if time.monotonic() > latest:
            raise Failed(
                f"job {current[0].uid} on {current[0].site} has waited for eight days",
                "ask for less, or for another cluster: see 'discovery-xp slots'",
            )
        waiting(current)
        time.sleep(next(polls, POLLS_S[-1]))


def _delete(job: Any) -> None:
    """Ask OAR to end a job; one that it is ending already is left alone."""
    try:
        job.delete()
    except Grid5000DeleteError as error:
        if "already killed" not in str(error):
            raise


def end(refs: Iterable[tuple[str, int]]) -> None:
    """End jobs, and wait until they have; those that are over or unknown are left alone.

    All are tried, whatever becomes of the others.  Raises Failed when one doesn't end within
    two minutes, and the first of the API's errors.
    """
    ending, errors = [], []
    for site, uid in refs:
        try:
            answer = api.client().sites[site].jobs[str(uid)]
            if str(answer.state).lower() in ENDED:
                continue
            _delete(answer)
        except (Grid5000Error, requests.exceptions.RequestException) as error:
            if getattr(error, "response_code", None) != 404:
                errors.append(error)
            continue
        ending.append((site, uid))
    if errors:
        raise errors[0]
    latest = time.monotonic() + ENDING_S
    while still := [look(site, uid) for site, uid in ending]:
        ending = [(job.site, job.uid) for job in still if not job.is_over]
        if not ending:
            return
        if time.monotonic() > latest:
            raise Failed(
                f"job {ending[0][1]} on {ending[0][0]} doesn't end", "run 'destroy' again later"
            )
        time.sleep(1)
