"""A stored verification whose every verdict is known."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

from discovery_xp.store import Run
from tests.unit.synthetic_run import make_run

PREFIX = "tempest.api"


def row(
    test: str, status: str = "passed", reason: str | None = None, **more: Any
) -> dict[str, Any]:
    """Return a verdict on `tempest.api.TEST`, whose first word is the service."""
    return {
        "test": f"{PREFIX}.{test}",
        "service": test.partition(".")[0],
        "status": status,
        "reason": reason,
        "duration_s": 1.5 if status in ("passed", "failed") else None,
        "traceback": "Traceback\n  here\nValueError: no" if status == "failed" else None,
        **more,
    }


ROWS = (
    row("identity.users.test_list"),
    row("compute.servers.test_boot"),
    row("compute.servers.test_stop", "failed", "ValueError: no"),
    row("compute.servers.test_console", "skipped", "no console"),
    row("image.images.test_import", "excluded", "has one store"),
)


def make_verification(
    root: Path,
    rows: tuple[dict[str, Any], ...] = ROWS,
    backend: str = "mysql",
    started: str = "2026-11-23T16:00:00Z",
    status: Literal["running", "complete", "partial"] = "complete",
) -> Run:
    """Write a run that has these verdicts, and no load; returns it."""
    run = make_run(
        root, experiment="verified", backend=backend, started=started, asked=0, failed=0,
        probes=(), status=status, reason="interrupted" if status == "partial" else None,
    )  # fmt: skip
    scenario = {"name": "verify", "kind": "verify", "services": ["identity"], "regex": ""}
    run.save(dataclasses.replace(run.load(), scenario=scenario, load=None, harness=None))
    for name in ("vms.parquet", "actions.parquet", "scenario.yaml"):
        (run.folder / name).unlink()
    run.write_table("verdicts", rows)
    return run
