"""What Tempest's host is told to do, and the lines of JSON that it writes as tests end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .. import checks
from ..checks import Check, maybe
from . import lines

# The services whose API tests can be run, by the name that Tempest has for them.
SERVICES = ("identity", "compute", "image", "network")
# What becomes of a test.
PASSED, FAILED, SKIPPED, EXCLUDED = STATUSES = ("passed", "failed", "skipped", "excluded")

LONGEST_LINE = lines.LONGEST_LINE
# All that the host says: Tempest has 1100 tests of these services.
MOST_BYTES = 64 * 2**20
MOST_TESTS = 20_000
LONGEST_TRACEBACK = 4000


@dataclass(frozen=True)
class Exclusion:
    """Tests that aren't run: the test `name`, or all of that class, module or package."""

    name: str
    reason: str

    def covers(self, test: str) -> bool:
        """Tell whether a test is one of them."""
        return test == self.name or test.startswith(f"{self.name}.")


@dataclass(frozen=True)
class FlavorRequest:
    """A flavor that the tests use, by an identity of ours."""

    id: str
    ram_mb: int
    disk_gb: int
    vcpus: int


@dataclass(frozen=True)
class VerificationRequest:
    """What is to be verified on a cloud, and with what.

    `regex` is what a test's name must match besides being one of `services`; empty for all.
    `images` are the identities of those that are made; `most_s` is how long a test may take.
    """

    services: tuple[str, ...]
    regex: str
    exclusions: tuple[Exclusion, ...]
    concurrency: int
    most_s: int
    region: str
    flavors: tuple[FlavorRequest, ...]
    images: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> VerificationRequest:
        """Return what `to_json` gave; raises TypeError for anything else."""
        return cls(
            **{
                **values,
                "services": tuple(values["services"]),
                "exclusions": tuple(Exclusion(**each) for each in values["exclusions"]),
                "flavors": tuple(FlavorRequest(**each) for each in values["flavors"]),
                "images": tuple(values["images"]),
            }
        )


# ---------------------------------------------------------------- lines


def _traceback(value: object) -> str:
    """Return lines of text, each of them printable."""
    if not isinstance(value, str):
        raise checks.Unfit(f"{checks.shown(value)} is no text")
    return "\n".join(checks.printable(line) for line in value[-LONGEST_TRACEBACK:].split("\n"))


# By kind of line: what it must hold.
REQUIRED: Mapping[str, Mapping[str, Check]] = {
    "stage": {"stage": checks.name, "done": checks.whole, "total": checks.whole},
    "planned": {"tests": checks.whole},
    "verdict": {
        "test": checks.name,
        "service": lambda value: checks.one_of(value, SERVICES),
        "status": lambda value: checks.one_of(value, STATUSES),
        "reason": maybe(checks.text),
        "duration_s": maybe(checks.number),
        "traceback": maybe(_traceback),
    },
    "note": {"text": checks.text},
    "crash": {"error": checks.text},
    "done": {},
    "unit": lines.UNIT,
}


def encode(kind: str, **values: Any) -> str:
    """Return a line of a kind, with its end; raises ValueError unless such a line holds these."""
    return lines.encode(REQUIRED, {}, kind, values)


def parse(line: object) -> tuple[str, dict[str, Any]]:
    """Return a line's kind and its values; raises Unfit unless they are what such a line holds."""
    return lines.parse(REQUIRED, {}, line)
