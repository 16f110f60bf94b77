"""Compiled statements agree with each other and with SQLite: see metamorphic/.

The seed of a failure stands in its message; `ROME_TESTS=night` runs for long.
"""

from __future__ import annotations

import itertools
from collections import Counter
from random import Random

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.etcd_servers import EtcdServer
from tests.metamorphic.relations import Relations, change
from tests.metamorphic.world import World
from tests.servers import RedisServer

# Joins without conditions are meant.
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")

_numbers = itertools.count()
_seeds = st.integers(0, 2**32 - 1)
OFF = "result_cache=off&prefetch=off"


def example(seed: int, urls: list[str], counts: Counter[str]) -> None:
    """Run one example."""
    world = World(Random(seed), urls)
    try:
        rng = world.rng
        # The same statements in each round: their answers are kept, their rows prefetched.
        script = [rng.randrange(2**32) for _ in range(2)]
        for _ in range(4):
            world.refresh()
            for way in world.ways:
                for statement in script:
                    Relations(world, way, Random(statement)).check()
            way = rng.choice(world.ways)
            with world.transaction(way, keep=rng.randrange(4) > 0):
                for _ in range(rng.randint(1, 3)):
                    table = change(world, way, rng)
                    for _ in range(3):
                        Relations(world, way, rng, table).check()
            for way in world.ways:
                Relations(world, way, rng).check()
                Relations(world, way, rng).check()
        counts.update(world.counts)
    finally:
        world.close()


def run(urls: list[str], share: float) -> Counter[str]:
    """Run a share of a profile's examples: what was done in them."""
    counts: Counter[str] = Counter()

    # A smaller seed isn't a smaller example: there is nothing to shrink.
    @settings(
        max_examples=max(1, int(settings().max_examples * share)),
        phases=(Phase.reuse, Phase.generate),
    )
    @given(seed=_seeds)
    def examples(seed: int) -> None:
        number = next(_numbers)
        example(seed, [url.format(f"metamorphic{number}") for url in urls], counts)

    examples()
    # Statements that all fail, or find nothing, would show nothing.
    assert counts["queries with rows"] > counts["queries"] / 3
    assert counts["failed queries"] < counts["queries"] / 50
    return counts


def test_in_memory() -> None:
    run(["rome+memory:///{}", f"rome+memory:///{{}}?{OFF}"], 0.15)


def test_in_redis(redis_server: RedisServer) -> None:
    url = redis_server.url("{}").replace("%7B%7D", "{}")
    run([url, f"{url}?{OFF}", f"{url}?page=4", f"{url}?serializable=on"], 0.05)


@pytest.mark.long
def test_in_etcd(etcd_server: EtcdServer) -> None:
    url = etcd_server.url("{}").replace("%7B%7D", "{}")
    run([url, f"{url}?{OFF}", f"{url}?reads=local", f"{url}?serializable=on"], 0.05)
