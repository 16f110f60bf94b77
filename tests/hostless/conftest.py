"""The command line with a home of its own: other tests' testbeds are nothing to it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.conftest import Cli

# One place for all runs, so that a run that was killed is cleaned by the next one.
HOME = Path("/var/tmp/discovery-xp-tests-hostless")


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """The command line; a module's tests leave nothing in its home."""
    shutil.rmtree(HOME, ignore_errors=True)
    yield Cli(tmp_path_factory.mktemp("topologies"), HOME)
    left = sorted(str(path) for path in HOME.rglob("*"))
    shutil.rmtree(HOME, ignore_errors=True)
    assert left == []
