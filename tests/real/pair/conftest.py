"""One cloud over two sites for all tests of this folder: it takes a minute to make."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from discovery_xp.deployment import schemas
from discovery_xp.store import Run
from tests.real.cloud import kill_in
from tests.real.conftest import HOME, Cli, clean
from tests.real.pair.bench import CLOUD, CONFIG, NAME, VMS, Bench

# The first ones look at what a run from nothing left, the last one leaves nothing.
ORDER = ("test_bench", "test_probes", "test_verify", "test_deploy", "test_stopped_bench")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have this folder's modules run in order, in the places that they have together."""
    places = [
        place for place, item in enumerate(items) if item.path.parent == Path(__file__).parent
    ]
    own = sorted((items[place] for place in places), key=lambda item: ORDER.index(item.path.stem))
    for place, item in zip(places, own, strict=True):
        items[place] = item


@pytest.fixture(scope="package")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """The command line; what these tests left up is destroyed after them."""
    yield Cli(tmp_path_factory.mktemp("topologies"))
    assert clean() == []


@pytest.fixture(scope="package")
def bench(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """After a whole run, kept; the cloud's making was killed at three stages before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISCOVERY_XP_HOME", str(HOME))
        schemas.file().unlink(missing_ok=True)  # kills are to meet migrations
        made = Bench(cli, cli.topology(NAME, CLOUD + CONFIG), tmp_path_factory.mktemp("results"))
        run = made.command("--vms", str(VMS), "--keep")
        kill_in(cli, "schemas", *run)
        assert made.runs() == []
        kill_in(cli, "shared services", "deploy", made.topology)
        kill_in(cli, "computes", "deploy", made.topology)
        done = cli.run(*run, timeout_s=900)
        made.said = done.stdout + done.stderr
        assert len(made.runs()) == 1
        yield made


@pytest.fixture(scope="package")
def cloud(bench: Bench) -> str:
    """The topology of a cloud that is up."""
    return bench.topology


@pytest.fixture(scope="package")
def first(bench: Bench) -> Run:
    """What that first run stored."""
    return bench.runs()[0]
