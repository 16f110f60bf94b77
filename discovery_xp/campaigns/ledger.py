"""What became of a campaign's runs, read from its folder: done, failed, left.

A complete run says so itself.  An attempt that failed is a line of `failures.jsonl`, since one
that failed early has no run.  What was killed is neither: it is made again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from discovery_xp import files
from discovery_xp.campaigns.schedule import Job, jobs
from discovery_xp.errors import Refused
from discovery_xp.inputs.campaign import Campaign
from discovery_xp.store import Run, RunRecord, runs_under
from discovery_xp.text import printable

FAILURES, CLAIMS, FILE = "failures.jsonl", "claims", "campaign.yaml"
_MOST_BYTES = 2**24
_MOST_OF_REASON = 400

State = Literal["done", "failed", "left"]


@dataclass(frozen=True)
class Failure:
    """An attempt at a run that didn't end as it should."""

    point: str
    block: int
    attempt: int
    at: str
    reason: str
    run: str | None = None

    @property
    def key(self) -> tuple[str, int]:
        """Which job it was an attempt at."""
        return self.point, self.block


@dataclass(frozen=True)
class Entry:
    """What became of a job: the run that is complete, or the attempts that failed."""

    job: Job
    run: Run | None
    record: RunRecord | None
    failures: tuple[Failure, ...]
    attempts: int

    @property
    def state(self) -> State:
        """In a word."""
        if self.run is not None:
            return "done"
        return "failed" if len(self.failures) >= self.attempts else "left"

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
    """

    campaign: Campaign
    folder: Path
    entries: list[Entry] = field(default_factory=list)
    strangers: list[Run] = field(default_factory=list)

    def refresh(self) -> Ledger:
        """Read the folder; raises Refused where it can't be read, or a record in it is damaged."""
        found: dict[tuple[str, int], tuple[Run, RunRecord]] = {}
        self.strangers = []
        wanted = {job.key for job in jobs(self.campaign)}
        for run in runs_under(self.folder) if self.folder.is_dir() else ():
            record = run.load()
            place = record.in_campaign
            if place is None or place.campaign != self.campaign.name or record.is_partial:
                continue
            key = place.point, place.block
            if key not in wanted:
                self.strangers.append(run)
            else:
                found.setdefault(key, (run, record))
        failed: dict[tuple[str, int], list[Failure]] = {}
        for failure in self._failures():
            failed.setdefault(failure.key, []).append(failure)
        self.entries = []
        for job in jobs(self.campaign):
            own = found.get(job.key)
            self.entries.append(
                Entry(
                    job,
                    None if own is None else own[0],
                    None if own is None else own[1],
                    tuple(failed.get(job.key, ())),
                    self.campaign.attempts,
                )
            )
        return self

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
        reason = failure.reason[:_MOST_OF_REASON]
        line = json.dumps({**vars(failure), "reason": reason}) + "\n"
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
        for number, line in enumerate(lines, start=1):
            # A line that a full disk or a power cut ended early is an attempt more, no more.
            with contextlib.suppress(ValueError, TypeError):
                yield _failure(json.loads(line), path, number)

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
            yield Claim(descriptor)
        finally:
            os.close(descriptor)


def _failure(values: Mapping[str, Any], path: Path, number: int) -> Failure:
    """Return a line of the file; raises ValueError or TypeError where it is none."""
    if not isinstance(values, Mapping):
        raise TypeError(f"{path}:{number}: no mapping")
    failure = Failure(**values)
    if not (isinstance(failure.point, str) and isinstance(failure.block, int)):
        raise TypeError(f"{path}:{number}: no attempt")
    return failure
