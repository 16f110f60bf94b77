"""Tests on hosts that aren't there: the lines that Tempest's host would write, and their end."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from typing import IO, Any

from discovery_xp.onhost.wire import lines
from discovery_xp.onhost.wire import verification as wire
from discovery_xp.onhost.wire.verification import (
    EXCLUDED,
    FAILED,
    PASSED,
    SKIPPED,
    VerificationRequest,
)

TESTS_EACH = 3


class CannedVerification:
    """What follows the tests on a host: it says all of its lines at once.

    One test of each service passes, one is skipped, and the third is excluded; with `fails` that
    one fails.
    """

    def __init__(self, request: Mapping[str, Any], fails: bool) -> None:
        self.request = VerificationRequest.from_json(request)
        self.fails = fails
        self.stdin: IO[bytes] = io.BytesIO()
        self.stdout: IO[bytes] = io.BytesIO("".join(self._lines()).encode())

    def kill(self) -> None:
        """Say nothing more."""

    def wait(self) -> int:
        """Return at once, as nothing runs."""
        return 0

    def _lines(self) -> Iterator[str]:
        services = self.request.services
        yield wire.encode("planned", tests=TESTS_EACH * len(services))
        total = TESTS_EACH * len(services)
        for number, service in enumerate(services, start=1):
            third = (FAILED, "canned failure", "canned traceback") if self.fails else (
                EXCLUDED, "canned reason", None
            )  # fmt: skip
            yield _verdict(service, "test_passes", PASSED, None, None)
            yield _verdict(service, "test_is_skipped", SKIPPED, "canned reason", None)
            yield _verdict(service, "test_of_a_third_kind", *third)
            done = TESTS_EACH * number
            yield wire.encode("stage", stage="Tempest's tests", done=done, total=total)
        yield wire.encode("done")
        yield lines.end("ended (success, exited 0)")


def _verdict(
    service: str, name: str, status: str, reason: str | None, traceback: str | None
) -> str:
    return wire.encode(
        "verdict", test=f"tempest.api.{service}.canned.{name}", service=service, status=status,
        reason=reason, duration_s=0.1 if status in (PASSED, FAILED) else None, traceback=traceback,
    )  # fmt: skip


def verification_of(file: IO[bytes], fails: bool) -> CannedVerification:
    """Make the tests of the request that is laid down for a host."""
    return CannedVerification(json.load(file), fails)
