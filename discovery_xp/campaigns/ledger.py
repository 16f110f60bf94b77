"""What became of a campaign's runs, read from its folder: done, failed, left.

A complete run says so itself.  An attempt that failed is a line of `failures.jsonl`, since one
that failed early has no run.  What was killed is neither: it is made again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from discovery_xp import files
from discovery_xp.campaigns.schedule import Job, jobs
from discovery_xp.errors import Refused
from discovery_xp.inputs.campaign_values import Campaign
from discovery_xp.store import Run, RunRecord, runs_under
from discovery_xp.store.values import Count, Digest, Line, Strict, Time, read
from discovery_xp.text import printable

FAILURES, CLAIMS, FILE = "failures.jsonl", "claims", "campaign.yaml"
_MOST_BYTES = 2**24

State = Literal["done", "failed", "left"]


@dataclass(frozen=True)
class Failure(Strict):
    """An attempt at a run that didn't end as it should: a line of the file."""

    point: Digest
    block: Count
    attempt: Count
    at: Time
    reason: Line
    run: Line | None = None

    @property
    def key(self) -> tuple[str, int]:
        """Which job it was an attempt at."""
        return self.point, self.block


@dataclass(frozen=True)
class Done:
    """A run that is complete, with its record."""

    run: Run
    record: RunRecord


@dataclass(frozen=True)
class Entry:
    """What became of a job: the run that is complete, if there is one; attempts that failed.

    `is_given_up` says that there were as many of these as the campaign allows.
    """

    job: Job
    done: Done | None
    failures: tuple[Failure, ...]
    is_given_up: bool

    @property
    def state(self) -> State:
        """In a word."""
        if self.done is not None:
            return "done"
        return "failed" if self.is_given_up else "left"

    @property
    def next_attempt(self) -> int:
        """The number of the next attempt, from 1."""
        return len(self.failures) + 1


@dataclass
class Claim:
    """What this process holds; it may note something there, which outlives it."""

    descriptor: int

    @property
    def note(self) -> str:
        """What was noted last, by whichever process; '' for nothing."""
        return os.pread(self.descriptor, 200, 0).decode(errors="replace")

    @note.setter
    def note(self, text: str) -> None:
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, text.encode(), 0)


@dataclass
class Ledger:
    """A campaign's folder: its runs, and what became of each job.

    `strangers` are complete runs of the campaign's name of points that it hasn't any more.
    Of an endless campaign `newest` is the last block, the only one of which runs may be left.
    """

    campaign: Campaign
    folder: Path
    entries: list[Entry] = field(default_factory=list)
    strangers: list[Run] = field(default_factory=list)
    newest: int = 1

    def refresh(self) -> Ledger:
        """Read the folder; raises Refused where it can't be read, or a record in it is damaged."""
        done: dict[tuple[str, int], Done] = {}
        complete: list[tuple[tuple[str, int], Run]] = []
        for run in runs_under(self.folder) if self.folder.is_dir() else ():
            record = run.load()
            place = record.in_campaign
            if place is None or place.campaign != self.campaign.name or record.is_partial:
                continue
            key = (place.point, place.block)
            complete.append((key, run))
            done.setdefault(key, Done(run, record))
        failed: dict[tuple[str, int], list[Failure]] = {}
        for failure in self._failures():
            failed.setdefault(failure.key, []).append(failure)
        wanted = self._wanted({*done, *failed})
        keys = {job.key for job in wanted}
        self.strangers = [run for key, run in complete if key not in keys]
        self.entries = []
        for job in wanted:
            failures = tuple(failed.get(job.key, ()))
            is_given_up = len(failures) >= self.campaign.attempts
            self.entries.append(Entry(job, done.get(job.key), failures, is_given_up))
        return self

    def _wanted(self, begun: set[tuple[str, int]]) -> list[Job]:
        """Return the jobs that there are; `begun` are those that runs or failures are of.

        Earlier blocks of an endless campaign are what they came to: a point that the file has
        since, or a run that was removed, isn't made for all of them.
        """
        if not self.campaign.is_endless:
            return jobs(self.campaign)
        points = {point.digest for point in self.campaign.points}
        blocks = {block for point, block in begun if point in points}
        self.newest = max((self.newest, *blocks))
        return [
            job
            for job in jobs(self.campaign, sorted({*blocks, self.newest}))
            if job.block == self.newest or job.key in begun
        ]

    def begin_another_block(self) -> None:
        """Give an endless campaign a further block, if nothing of the newest is left."""
        if self.campaign.is_endless and not self.of("left"):
            self.newest += 1
            self.refresh()

    def of(self, state: State) -> list[Entry]:
        """Return the entries in a state, in the order in which jobs are made."""
        return [entry for entry in self.entries if entry.state == state]

    # ------------------------------------------------ what is written

    def begin(self) -> None:
        """Make the folder and keep the campaign's file in it.

        Raises Refused where that can't be done.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            files.write_atomically(self.folder / FILE, self.campaign.text)
        except OSError as error:
            raise Refused(
                f"{self.folder} can't be written to ({error.strerror or error})",
                "name another folder with --results",
            ) from None

    def add_failure(self, failure: Failure) -> None:
        """Keep an attempt that failed; on disk when this returns."""
        line = json.dumps(dataclasses.asdict(failure)) + "\n"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self.folder / FAILURES, flags, files.PRIVATE_FILE)
        try:
            os.write(descriptor, line.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _failures(self) -> Iterator[Failure]:
        path = self.folder / FAILURES
        try:
            with path.open("rb") as file:
                lines = file.read(_MOST_BYTES).splitlines()
        except FileNotFoundError:
            return
        except OSError as error:
            raise Refused(
                f"{printable(str(path))} can't be read ({error.strerror})", "move it away"
            ) from None
        for line in lines:
            # One that a full disk or a power cut ended early costs an attempt more.
            with contextlib.suppress(ValueError):
                yield read(Failure, line)

    # ------------------------------------------------ several processes at once

    @contextlib.contextmanager
    def claimed(self, name: str) -> Iterator[Claim | None]:
        """Hold something against other processes; yields None where another one has it."""
        place = self.folder / CLAIMS
        place.mkdir(exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(place / name, flags, files.PRIVATE_FILE)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            with files.not_shared(descriptor):
                yield Claim(descriptor)
        finally:
            os.close(descriptor)
