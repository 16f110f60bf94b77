"""Machines before a load: what they say of themselves, clocks, and what is warned of."""

from __future__ import annotations

import dataclasses
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery_xp.store import MachineState
from discovery_xp.testbeds import conditions

SAID = """first cpu 1000 0 500 8000 10 0 5 100 0 0
second cpu 1060 0 520 8100 10 0 5 120 0 0
cpus 2
load 0.42 0.30 0.20 1/300 1234
memory MemAvailable: 18874368 kB
clock tsc
governor performance
mhz 2400.000 2600.000
"""


def test_what_a_machine_says_of_itself_is_read() -> None:
    assert conditions.parse(SAID, "site1-master-1") == MachineState(
        host="site1-master-1", cpus=2, load_1min=0.42, steal_percent=10.0,
        memory_available_bytes=18 * 2**30, governor="performance", frequency_mhz=2500.0,
        clock_source="tsc",
    )  # fmt: skip


def test_what_a_machine_doesnt_say_is_none() -> None:
    state = conditions.parse("governor\nmhz\nclock\nfirst cpu 1\n", "x")
    assert (state.governor, state.frequency_mhz, state.clock_source) == (None, None, None)
    assert (state.steal_percent, state.cpus, state.load_1min) == (None, 0, 0.0)


@given(st.text(max_size=300) | st.from_regex(r"(cpus|load|first cpu|mhz) [0-9e. -]{0,30}\n"))
def test_whatever_a_host_says_is_a_state(said: str) -> None:
    state = conditions.parse(said, "x")
    assert state.cpus >= 0 and state.memory_available_bytes >= 0
    assert isinstance(conditions.warnings_of([state]), list)


def test_this_machine_shares_its_clock_with_its_hosts() -> None:
    state = conditions.of_this_machine()
    assert state.cpus > 0 and state.memory_available_bytes > 0
    assert (state.host, state.clock_offset_ms, state.clock_uncertainty_ms) == ("", 0.0, 0.0)


def test_a_host_says_by_sh_what_this_machine_says_itself() -> None:
    done = subprocess.run(["sh", "-c", conditions.LOOK], capture_output=True, text=True, check=True)
    said, here = conditions.parse(done.stdout, ""), conditions.of_this_machine()
    assert (said.cpus, said.clock_source) == (here.cpus, here.clock_source)
    assert said.memory_available_bytes > 0 and said.steal_percent is not None


def test_a_clock_is_read_by_the_shortest_round_trip() -> None:
    exchanges = [(100.0, 100.9, 101.0), (200.0, 200.007, 200.004), (300.0, 300.1, 300.5)]
    assert conditions.offset(exchanges) == (5.0, 2.0)
    assert conditions.offset([]) is None


STATE = MachineState("a", 2, 0.5, 0.2, 2**30, None, None, "tsc", 0.1, 0.05)


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"load_1min": 1.01}, "busy before the run: a had a load average of 1.0 on 2 processors"),
        ({"steal_percent": 1.1}, "others took 1.1 % of the processors' time of a before the run"),
        ({"clock_offset_ms": 2.0, "clock_uncertainty_ms": 0.3},
         "the hosts' clocks differ by up to 1.9 ms (each read to 0.3 ms)"),
    ],
)  # fmt: skip
def test_what_makes_times_doubtful_is_a_note(changes: dict[str, Any], note: str) -> None:
    other = dataclasses.replace(STATE, host="b")
    assert conditions.warnings_of([STATE, other]) == []
    (said,) = conditions.warnings_of([dataclasses.replace(STATE, **changes), other])
    assert said.startswith(note)


def test_of_several_busy_machines_the_busiest_is_named() -> None:
    busy = [dataclasses.replace(STATE, host=name, load_1min=load)
            for name, load in (("a", 3.0), ("b", 8.0))]  # fmt: skip
    (said,) = conditions.warnings_of(busy)
    assert "b and 1 more had a load average of 8.0" in said
