"""What goes wrong on demand: which calls it hits, and how often."""

import pytest

from tests.grid5000 import Emulator, Faults, ManualClock
from tests.grid5000.jobs import Refused, Submission


def statuses(faults: Faults, *calls: str) -> list[int | None]:
    found = []
    for call in calls:
        method, path = call.split()
        fault = faults.on_call(method, path)[1]
        found.append(fault.status if fault else None)
    return found


def test_the_next_calls_fail() -> None:
    faults = Faults()
    faults.fail(500, calls=2)
    assert statuses(faults, "GET /a", "POST /b", "GET /c") == [500, 500, None]


def test_calls_that_match_fail() -> None:
    faults = Faults()
    faults.fail(503, path=r"/deployments$", method="POST")
    faults.fail(403, path=r"/sites/nantes")
    calls = ("GET /sites/rennes/deployments", "POST /sites/rennes/deployments", "GET /sites/nantes")
    assert statuses(faults, *calls) == [None, 503, 403]
    faults.clear()
    assert statuses(faults, *calls) == [None, None, None]


def test_errors_have_their_text() -> None:
    faults = Faults()
    faults.fail(401, calls=1)
    faults.fail(500, text="Unable to contact Kadeploy")
    texts = [fault.text for _ in range(2) if (fault := faults.on_call("GET", "/")[1])]
    assert texts == ["Authorization Required", "Unable to contact Kadeploy"]


def test_slow_calls_can_fail_as_well() -> None:
    faults = Faults()
    faults.slow(2, path="/jobs")
    faults.fail(504, path="/jobs", calls=1)
    delay_s, fault = faults.on_call("GET", "/sites/rennes/jobs")
    assert fault is not None
    assert (delay_s, fault.status) == (2, 504)
    assert faults.on_call("GET", "/sites/rennes/jobs") == (2, None)
    assert faults.on_call("GET", "/sites") == (0, None)


def test_a_quota_that_refuses() -> None:
    emulator = Emulator.of({"rennes": {"paravance": 2}}, clock=ManualClock())
    emulator.faults.refuse_jobs("[ADMISSION RULE] Error: too much for one day")
    with pytest.raises(Refused, match="too much for one day"):
        emulator.jobs.submit(Submission("rennes", "alice"))
    emulator.faults.refuse_jobs(None)
    emulator.jobs.submit(Submission("rennes", "alice"))
