"""A bench that is interrupted: its run is stored as partial, and nothing else is left."""

from __future__ import annotations

import signal
from collections import Counter

import pytest

from tests.real.pair.bench import NAME, Bench
from tests.real.traces import traces

pytestmark = [pytest.mark.real, pytest.mark.timeout(1200)]


def test_ctrl_c_leaves_a_partial_run_and_nothing_else(bench: Bench) -> None:
    known = len(bench.runs())
    (bench.results / "long.yaml").write_text("kind: boot\nvms: 200\nconcurrency: 2\nwarm_up: 0")
    process = bench.start("--scenario", str(bench.results / "long.yaml"))
    bench.wait_for_rows(process, known, 2)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 130
    assert "as a partial run; its report is" in said
    assert "Traceback" not in said
    run = bench.runs()[-1]
    record, found = run.load(), Counter(row["status"] for row in run.table("vms").to_pylist())
    assert (record.status, record.reason) == ("partial", "interrupted")
    assert found["ACTIVE"] >= 2 and found["TIMEOUT"] >= 1
    assert record.window is not None and run.table("usage").num_rows
    assert "PARTIAL" in (run.folder / "report.html").read_text()
    assert not bench.testbed.exists() and traces(NAME) == []
