"""From the events of a run of tests to verdicts: one for each test that was to be run.

Events are those of subunit's second version, as testtools' `StreamResult.status` takes them.
A class whose set-up is skipped or fails has no events of its tests: the class's verdict is theirs.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..wire.verification import EXCLUDED, FAILED, PASSED, SERVICES, SKIPPED, Exclusion

# Lines of a failed test's traceback that are kept: its end says what was expected.
TRACEBACK_LINES = 12
_MOST_DETAILS = 2**20  # bytes of one detail, such as a log

_SERVICE = re.compile(r"tempest\.api\.([a-z_]+)\.")
_CLASS_STEP = re.compile(r"(setUpClass|tearDownClass) \((.+)\)")

# What events call the end of a test.
_STATUSES = {
    "success": PASSED, "fail": FAILED, "uxsuccess": FAILED, "skip": SKIPPED, "xfail": SKIPPED,
}  # fmt: skip

Verdict = dict[str, Any]


def name_of(identity: str) -> str:
    """Return a test's name: its identity in the stream without the attributes in brackets."""
    return identity.partition("[")[0].strip()


def service_of(test: str) -> str | None:
    """Return the service whose API a test is about; None where it is none of ours."""
    found = _SERVICE.match(test)
    return found[1] if found is not None and found[1] in SERVICES else None


def verdict(
    test: str,
    status: str,
    reason: str | None = None,
    duration_s: float | None = None,
    traceback: str | None = None,
) -> Verdict:
    """Return the values of a line of kind 'verdict'."""
    return {
        "test": test, "service": service_of(test), "status": status, "reason": reason,
        "duration_s": duration_s, "traceback": traceback,
    }  # fmt: skip


def second(first: Verdict, again: Verdict) -> Verdict:
    """Return the verdict on a test that failed and was run again, alone.

    It passes or fails as it did then; that it had failed is said.
    """
    if again["status"] == FAILED:
        return again
    return {**again, "reason": f"only when it was run again, alone: first {first['reason']}"}


# ---------------------------------------------------------------- which tests are run


@dataclass(frozen=True)
class Selection:
    """The tests of a run by their identity, and verdicts on those that are left out."""

    chosen: tuple[str, ...]
    excluded: tuple[Verdict, ...]
    unused: tuple[Exclusion, ...]


def select(
    identities: Iterable[str],
    services: Iterable[str],
    regex: str,
    exclusions: Iterable[Exclusion],
) -> Selection:
    """Choose among all tests; `unused` are the exclusions that no test of Tempest has."""
    known = sorted(set(identities))
    asked, pattern, listed = set(services), re.compile(regex), list(exclusions)
    chosen, excluded = [], []
    for identity in known:
        test = name_of(identity)
        if service_of(test) not in asked or not pattern.search(test):
            continue
        exclusion = next((each for each in listed if each.covers(test)), None)
        if exclusion is None:
            chosen.append(identity)
        else:
            excluded.append(verdict(test, EXCLUDED, exclusion.reason))
    names = [name_of(identity) for identity in known]
    unused = [each for each in listed if not any(each.covers(name) for name in names)]
    return Selection(tuple(chosen), tuple(excluded), tuple(unused))


# ---------------------------------------------------------------- what becomes of them


@dataclass
class _Running:
    """A test that has begun: when, and the details that came with its events."""

    began: datetime.datetime | None = None
    details: dict[str, bytearray] = field(default_factory=dict)


class Verdicts:
    """Takes events, and gives a verdict to `on_verdict` as soon as it is known."""

    def __init__(self, identities: Iterable[str], on_verdict: Callable[[Verdict], None]) -> None:
        self.waiting = {name_of(identity) for identity in identities}
        self.on_verdict = on_verdict
        self.running: dict[str, _Running] = {}

    def status(
        self,
        test_id: str | None = None,
        test_status: str | None = None,
        file_name: str | None = None,
        file_bytes: bytes | None = None,
        timestamp: datetime.datetime | None = None,
        **_more: Any,
    ) -> None:
        """Take an event, as testtools' `StreamResult` does; others than of tests are nothing."""
        if test_id is None or test_status == "exists":
            return
        running = self.running.setdefault(test_id, _Running())
        if running.began is None:
            running.began = timestamp
        if file_name is not None and file_bytes:
            detail = running.details.setdefault(file_name, bytearray())
            detail += bytes(file_bytes)[: _MOST_DETAILS - len(detail)]
        if test_status in _STATUSES:
            del self.running[test_id]
            self._end(test_id, _STATUSES[test_status], running, timestamp)

    def finish(self) -> None:
        """Take it that no more events come: a test that had begun has died."""
        for test_id, running in list(self.running.items()):
            self._end(test_id, FAILED, running, None, "its process died while it ran")
        self.running.clear()

    def _end(
        self,
        test_id: str,
        status: str,
        running: _Running,
        ended: datetime.datetime | None,
        reason: str | None = None,
    ) -> None:
        reason = reason or _reason(status, running.details)
        traceback = _traceback(running.details) if status == FAILED else None
        step = _CLASS_STEP.match(test_id)
        if step is None:
            took_s = (ended - running.began).total_seconds() if ended and running.began else None
            self._say(name_of(test_id), status, reason, took_s, traceback)
        elif step[1] == "setUpClass":
            for test in self._tests_of(name_of(step[2])):
                self._say(test, status, reason and f"set-up of its class: {reason}", None,
                          traceback)  # fmt: skip
        elif status == FAILED:  # its tests have their verdicts
            test = f"{name_of(step[2])}.tearDownClass"
            self.waiting.add(test)
            self._say(test, status, reason, None, traceback)

    def _tests_of(self, class_name: str) -> Iterator[str]:
        """Yield the tests of a class that have no verdict yet."""
        yield from sorted(test for test in self.waiting if test.rpartition(".")[0] == class_name)

    def _say(
        self,
        test: str,
        status: str,
        reason: str | None,
        duration_s: float | None,
        traceback: str | None,
    ) -> None:
        if test in self.waiting:  # no test ends twice
            self.waiting.discard(test)
            duration_s = None if duration_s is None else round(max(0.0, duration_s), 3)
            self.on_verdict(verdict(test, status, reason, duration_s, traceback))


def _text(data: bytes | bytearray) -> str:
    return data.decode(errors="replace").strip()


def _reason(status: str, details: Mapping[str, bytes | bytearray]) -> str | None:
    """Return why a test was skipped, or the line that says what it failed with."""
    if status == PASSED:
        return None
    if status == SKIPPED:
        return _text(details.get("reason", b"")) or "it doesn't say why"
    lines = _text(_traceback_detail(details)).splitlines()
    # The exception's own line stands at the left, those of its traceback don't.
    errors = [line for line in lines if re.match(r"[A-Za-z_][\w.]*(:|$)", line)]
    errors = [line for line in errors if not line.startswith("Traceback")]
    if not errors:
        return lines[-1] if lines else "it doesn't say why"
    first = lines.index(errors[-1])
    if errors[-1].startswith("Details:") and len(errors) > 1:
        first = lines.index(errors[-2])
    return " ".join(line.strip() for line in lines[first : first + 4])


def _traceback_detail(details: Mapping[str, bytes | bytearray]) -> bytes | bytearray:
    """Return the first traceback of a test; later ones are of its cleaning up."""
    names = sorted(name for name in details if name.startswith("traceback"))
    return details[names[0]] if names else b""


def _traceback(details: Mapping[str, bytes | bytearray]) -> str | None:
    lines = _text(_traceback_detail(details)).splitlines()[-TRACEBACK_LINES:]
    return "\n".join(lines) or None
