"""Scaled time on two hosts: links are slower, and what burns CPU is held to its share."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from discovery_xp.planning.shares import HostShare, quota_and_period_us
from discovery_xp.providers.local import cgroups, containers, shares
from discovery_xp.testbeds.shares import HeldShare, disagreements
from tests.real.conftest import Cli

pytestmark = [pytest.mark.real, pytest.mark.long]

NAME, HOST, UNIT, SCALE = "slowed", "a-controller-1", "burner", 2
TOPOLOGY = f"""
name: {NAME}
sites: [{{name: a, computes: 0}}, {{name: b, computes: 0}}]
master: none
network: {{delay: 20ms}}
time_scale: {SCALE}
"""
GROUPS = {HOST: containers.group(HOST)}
PLANNED = [HostShare(HOST, 2.0, {UNIT: 1.0})]
# As nice as systemd makes it: three loops want three cores.
BURN = "systemd-run --quiet --unit=burner sh -c 'for i in 1 2; do while :; do :; done & done; wait'"
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module")
def slowed(cli: Cli) -> Iterator[str]:
    path = cli.topology(NAME, TOPOLOGY)
    assert "by a clock at the time scale of 2" in cli.run("up", path).stdout
    yield path
    cli.run("destroy", "--testbed", NAME, code=None)


def impose() -> None:
    shares.impose(NAME, GROUPS, PLANNED, SCALE, lambda _commands: None)


def held() -> dict[str, HeldShare]:
    return {each.unit: each for each in shares.held(NAME, GROUPS, PLANNED, SCALE)}


def used_s() -> float:
    """CPU seconds of the unit's processes."""
    total = 0
    for pid in shares._processes_of(NAME, GROUPS[HOST], [UNIT])[UNIT]:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total * TICK_S


def test_links_are_slower_by_the_scale_and_judged_without_it(cli: Cli, slowed: str) -> None:
    (pair,) = json.loads(cli.run("network", "measure", "--json", "--testbed", NAME).stdout)
    assert pair["requested_ms"] == 40
    assert abs(pair["observed_ms"] - 40) <= pair["allowed_ms"]
    assert pair["measured_ms"] == pytest.approx(SCALE * pair["observed_ms"], abs=0.01)
    shown = json.loads(cli.run("network", "show", "--json", "--testbed", NAME).stdout)
    assert {reading["link"]["delay_ms"] for reading in shown["read_back"]} == {20}


@pytest.mark.skipif(shares.is_version_2(), reason="there each host's systemd holds its shares")
def test_a_share_is_held_of_what_burns_the_processor(cli: Cli, slowed: str) -> None:
    cli.run("ssh", "--testbed", NAME, HOST, BURN)
    impose()
    before, used = held(), used_s()
    assert disagreements(PLANNED, list(before.values())) == []
    time.sleep(3)
    after = held()
    spent_s = used_s() - used
    periods = after[UNIT].periods - before[UNIT].periods
    quota_us, _ = quota_and_period_us(1, SCALE)
    # Not by a clock: of each of the kernel's periods it got its quota at most, but for those that
    # ended between the looks and what the kernel lets a quota run over.
    assert 0 < spent_s <= periods * quota_us / 1e6 * 1.15 + 5 * TICK_S
    assert after[UNIT].throttled > before[UNIT].throttled
    assert after[UNIT].throttled_s > before[UNIT].throttled_s


@pytest.mark.skipif(shares.is_version_2(), reason="there each host's systemd holds its shares")
def test_what_is_started_again_is_found_again_and_lifted(cli: Cli, slowed: str) -> None:
    cli.run("ssh", "--testbed", NAME, HOST, f"systemctl stop {UNIT}; {BURN}")
    assert held()[UNIT].strays >= 1
    impose()
    assert held()[UNIT].strays == 0
    # Nothing else of the host is held: ssh is where it was.
    inside = {int(pid) for each in shares._processes_of(NAME, GROUPS[HOST], [UNIT]).values()
              for pid in each}  # fmt: skip
    assert inside < cgroups.processes(NAME, GROUPS[HOST])
    shares.lift(NAME, GROUPS, PLANNED, lambda _commands: None)
    assert held() == {}


def test_destroy_leaves_no_group(cli: Cli, slowed: str) -> None:
    impose()
    cli.run("destroy", "--testbed", NAME)
    assert not [tree for tree in cgroups.trees() if (tree / cgroups.TOP / NAME).exists()]
