"""One testbed for all tests of this folder: what holds the databases changes on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.real.at_sites.hosts import NAME
from tests.real.conftest import Cli, clean
from tests.real.traces import traces


@pytest.fixture(scope="package")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """The command line; what these tests left up is destroyed after them."""
    yield Cli(tmp_path_factory.mktemp("topologies"))
    assert clean() == []


@pytest.fixture(scope="package")
def testbed(cli: Cli) -> Iterator[str]:
    """The name of the testbed, which is destroyed once all of this folder's tests have run."""
    yield NAME
    cli.run("destroy")
    assert traces(NAME) == []
