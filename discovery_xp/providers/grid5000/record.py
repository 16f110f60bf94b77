"""What a testbed has of Grid'5000: its jobs and its nodes, in a file of its folder.

Written before and after each step, so that whatever a killed run left is found again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from discovery_xp.errors import Refused
from discovery_xp.files import read_json, write_atomically
from discovery_xp.providers.kinds import JOBS_RECORD
from discovery_xp.testbeds.testbed import Testbed

RECORD_FORMAT = 1


@dataclass(frozen=True)
class Node:
    """A node: its name in its network, and its IPv4 address there."""

    fqdn: str
    address: str


@dataclass(frozen=True)
class Record:
    """`jobs` are site and number of each; `nodes` by host of the plan; `lost` didn't come up.

    `is_submitting` while jobs may have been made whose numbers aren't known; `jump_host` is
    what ssh goes through, None for nothing.
    """

    jobs: tuple[tuple[str, int], ...] = ()
    nodes: Mapping[str, Node] = field(default_factory=dict)
    spares: Mapping[str, tuple[Node, ...]] = field(default_factory=dict)
    lost: tuple[str, ...] = ()
    jump_host: str | None = None
    is_submitting: bool = False
    format: int = RECORD_FORMAT


_RECORD = TypeAdapter(Record)


def path(testbed: Testbed) -> Path:
    """The record's file."""
    return testbed.folder / JOBS_RECORD


def load(testbed: Testbed) -> Record:
    """The record; an empty one where nothing was asked for yet."""
    try:
        data = read_json(path(testbed))
        if data["format"] != RECORD_FORMAT:
            raise Refused(
                f"{path(testbed)}: a record of format {data['format']}, but this version "
                f"reads {RECORD_FORMAT}",
                "use the version that wrote it",
            )
        return _RECORD.validate_python(data)
    except FileNotFoundError:
        return Record()
    except (ValidationError, ValueError, KeyError, TypeError):
        raise Refused(
            f"{path(testbed)}: the record is damaged",
            f"run 'discovery-xp destroy --testbed {testbed.name}', which looks for its jobs",
        ) from None


def save(testbed: Testbed, record: Record) -> Record:
    """Replace the record in one step; returns it."""
    testbed.make_folder()
    write_atomically(path(testbed), json.dumps(dataclasses.asdict(record), indent=1) + "\n")
    return record
