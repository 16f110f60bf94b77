"""Runs Tempest, and writes what becomes of each test as it ends.

Run in Tempest's environment, as `python -m discovery_xp.onhost.verification.run`, in a folder
with `request.json` and `tempest.conf`; lines go to `records.jsonl` there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ..wire import verification as wire
from ..wire.verification import VerificationRequest
from . import verdicts
from .verdicts import Selection, Verdicts

CONFIGURATION = "tempest.conf"
RECORDS = "records.jsonl"
_LIST = "tests.txt"
_LISTS_WITHIN_S = 300
# With more failures than these it is the cloud that is broken.
MOST_AGAIN = 50
# Tells tests from what else is printed when they are listed.
_TEST = "tempest."


def say(kind: str, **values: Any) -> None:
    """Add a line to the records."""
    with open(RECORDS, "a", encoding="utf-8") as file:
        file.write(wire.encode(kind, **values))


def read_request() -> VerificationRequest:
    """Return what is to be done."""
    with open("request.json", encoding="utf-8") as file:
        return VerificationRequest.from_json(json.load(file))


def main() -> int:
    """List, choose and run the tests; returns an exit code that is 0 whatever became of them."""
    request = read_request()
    say("stage", stage="listing Tempest's tests", done=0, total=0)
    chosen = _chosen(request)
    say("planned", tests=len(chosen.chosen) + len(chosen.excluded))
    for each in chosen.excluded:
        say("verdict", **each)
    for exclusion in chosen.unused:
        say("note", text=f"no test of this Tempest is called {exclusion.name}, an exclusion")
    if chosen.chosen:
        _run(request, chosen.chosen)
    say("done")
    return 0


def _program(name: str) -> str:
    return f"{os.path.dirname(sys.executable)}/{name}"


def _tempest(*arguments: str) -> list[str]:
    return [_program("tempest"), "run", "--config-file", CONFIGURATION, *arguments]


def _chosen(request: VerificationRequest) -> Selection:
    # Listing wants a repository of results, which only running makes by itself.
    subprocess.run([_program("stestr"), "init"], capture_output=True, check=False)
    done = subprocess.run(
        _tempest("--list-tests"), capture_output=True, text=True, timeout=_LISTS_WITHIN_S,
        check=False,
    )  # fmt: skip
    if done.returncode:
        crash(f"Tempest can't list its tests: {done.stderr.strip()[-500:]}")
    listed = (line.strip() for line in done.stdout.splitlines() if line.startswith(_TEST))
    return verdicts.select(listed, request.services, request.regex, request.exclusions)


def crash(words: str) -> None:
    """Say what ended it all, and end."""
    say("crash", error=words)
    sys.exit(1)


def _run(request: VerificationRequest, chosen: Sequence[str]) -> None:
    """Run the tests that were chosen, and once more, alone, those that failed."""
    failed: dict[str, verdicts.Verdict] = {}

    def take(verdict: verdicts.Verdict) -> None:
        if verdict["status"] == wire.FAILED:
            failed[verdict["test"]] = verdict
        say("verdict", **verdict)

    _run_together("Tempest's tests", request, chosen, request.concurrency, take)
    again = [each for each in chosen if verdicts.name_of(each) in failed]
    if len(again) > MOST_AGAIN:
        say("note", text=f"{len(again)} tests failed, which are too many to be run again")
    elif again:
        _run_together(
            "failed tests again, alone", request, again, 1,
            lambda verdict: say("verdict", **verdicts.second(failed[verdict["test"]], verdict)),
        )  # fmt: skip


def _run_together(
    stage: str,
    request: VerificationRequest,
    identities: Sequence[str],
    concurrency: int,
    on_verdict: Callable[[verdicts.Verdict], None],
) -> None:
    """Run some tests; each verdict is handed on as soon as it is known."""
    with open(_LIST, "w", encoding="utf-8") as file:
        file.writelines(f"{each}\n" for each in identities)
    done = 0

    def take(verdict: verdicts.Verdict) -> None:
        nonlocal done
        done += 1
        on_verdict(verdict)
        say("stage", stage=stage, done=min(done, len(identities)), total=len(identities))

    result = Verdicts(identities, take)
    say("stage", stage=stage, done=0, total=len(identities))
    process = subprocess.Popen(
        _tempest("--subunit", "--load-list", _LIST, "--concurrency", str(concurrency)),
        stdout=subprocess.PIPE, env={**os.environ, "OS_TEST_TIMEOUT": str(request.most_s)},
    )  # fmt: skip
    _follow(process, result)
    code = process.wait()
    result.finish()
    lost = len(result.waiting)
    if lost:
        crash(f"{lost} tests have no end: Tempest ended with code {code}")


def _follow(process: subprocess.Popen[bytes], result: Verdicts) -> None:
    """Read the stream of a run until its end."""
    import subunit
    import testtools

    class Events(testtools.StreamResult):  # type: ignore[misc]
        """Passes events on."""

        def status(self, **event: Any) -> None:
            """Pass one on."""
            result.status(**event)

    subunit.ByteStreamToStreamResult(process.stdout, non_subunit_name="stdout").run(Events())


if __name__ == "__main__":
    sys.exit(main())
