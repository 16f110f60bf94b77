"""What state machines are in before a load: busy or not, how fast, and how well clocks agree.

Emulated hosts are one machine with one clock, which is looked at once.  Others are each asked
over ssh: the clock by the round trips of a connection that is open.
"""

from __future__ import annotations

import concurrent.futures
import inspect
import shlex
import subprocess
import time
from collections.abc import Iterable, Sequence

from discovery_xp.boundary import answers
from discovery_xp.onhost import machine
from discovery_xp.store import MachineState
from discovery_xp.testbeds.hosts import Hosts
from discovery_xp.testbeds.remote import run_each
from discovery_xp.testbeds.testbed import Testbed

# Beyond these a run's times say little: of the load average for each processor, of the
# processors' time in percent, of milliseconds between two hosts' clocks.
MOST_LOAD = 0.5
MOST_STEAL_PERCENT = 1.0
MOST_OFFSET_MS = 1.0

# The whole module as a line of sh, for hosts that have nothing of ours yet.
LOOK = f"python3 -c {shlex.quote(inspect.getsource(machine))}"
_STEAL = 7  # the place of stolen time behind 'cpu' in /proc/stat

_ASK_TIME = 'python3 -uc "import sys, time\nfor _ in sys.stdin: print(time.time())"'
_EXCHANGES = 8
_AT_ONCE = 8
_TIMEOUT_S = 30.0


def parse(text: str, host: str) -> MachineState:
    """Return what `onhost.machine` printed on a host; what it doesn't say is None, or 0."""
    said: dict[str, list[str]] = {}
    for line in text[:100_000].splitlines():
        key, *words = line.split()[:200] or [""]
        said[key] = words
    memory = said.get("memory", [])
    frequencies = [_number(word) for word in said.get("mhz", [])]
    known = [each for each in frequencies if each is not None]
    return MachineState(
        host=host,
        cpus=int(_number(_first(said, "cpus")) or 0),
        load_1min=_number(_first(said, "load")) or 0.0,
        steal_percent=_steal(said.get("first", []), said.get("second", [])),
        memory_available_bytes=int(_number(memory[1]) or 0) * 1024 if len(memory) > 1 else 0,
        governor=_word(_first(said, "governor")),
        frequency_mhz=round(sum(known) / len(known), 1) if known else None,
        clock_source=_word(_first(said, "clock")),
    )


def _first(said: dict[str, list[str]], key: str) -> str:
    return (said.get(key) or [""])[0]


def _word(text: str) -> str | None:
    return answers.printable(text[:100]) or None


def _number(text: str) -> float | None:
    try:
        value = answers.number_of(text)
    except answers.Unfit:
        return None
    return value if value >= 0 else None


def _steal(first: Sequence[str], second: Sequence[str]) -> float | None:
    """Return the share of the processors' time that went to others, in percent."""
    before, after = ([_number(word) for word in words[1:9]] for words in (first, second))
    spent = [
        late - early
        for early, late in zip(before, after, strict=False)
        if early is not None and late is not None
    ]
    total = sum(spent)
    if len(spent) <= _STEAL or total <= 0:
        return None
    return round(100 * max(0.0, spent[_STEAL]) / total, 2)


def of_this_machine() -> MachineState:
    """Return this machine's state, with the one clock of all emulated hosts."""
    return _with_clock(parse(machine.look(), ""), (0.0, 0.0))


def of_hosts(hosts: Hosts) -> list[MachineState]:
    """Return each host's state, in the plan's order; a clock that can't be read is None."""
    names = [host.name for host in hosts.plan.hosts]
    outputs = run_each(hosts, dict.fromkeys(names, LOOK))
    clocks: dict[str, tuple[float, float] | None] = dict.fromkeys(names)
    if hosts.transport is None:
        testbed = Testbed(hosts.plan.name)
        with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
            read = pool.map(lambda name: read_clock(testbed, name), names)
            clocks = dict(zip(names, read, strict=True))
    return [
        _with_clock(parse(outputs[name].stdout, name), clocks[name])
        for name in names
        if name in outputs
    ]


def _with_clock(state: MachineState, clock: tuple[float, float] | None) -> MachineState:
    if clock is None:
        return state
    values = vars(state) | {"clock_offset_ms": clock[0], "clock_uncertainty_ms": clock[1]}
    return MachineState(**values)


# ---------------------------------------------------------------- clocks


def read_clock(testbed: Testbed, host: str) -> tuple[float, float] | None:
    """Return a host's clock minus this machine's, and its uncertainty, in ms; None if unknown."""
    command = [
        "ssh", "-F", str(testbed.ssh_config), "-o", "BatchMode=yes", "-o", "ConnectTimeout=30",
        host, _ASK_TIME,
    ]  # fmt: skip
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, start_new_session=True,
        )  # fmt: skip
    except OSError:
        return None
    killer = concurrent.futures.ThreadPoolExecutor(1)
    try:
        asked = killer.submit(_exchanges, process)
        return offset(asked.result(_TIMEOUT_S))
    except (TimeoutError, OSError, answers.Unfit):
        return None
    finally:
        process.kill()
        process.communicate()
        killer.shutdown()


def _exchanges(process: subprocess.Popen[str]) -> list[tuple[float, float, float]]:
    """Return when this machine asked, what the host said, and when that was here."""
    assert process.stdin is not None and process.stdout is not None
    exchanges = []
    for _ in range(_EXCHANGES):
        asked = time.time()
        process.stdin.write("\n")
        process.stdin.flush()
        said = process.stdout.readline(100)
        exchanges.append((asked, answers.number_of(said.strip()), time.time()))
    return exchanges


def offset(exchanges: Iterable[tuple[float, float, float]]) -> tuple[float, float] | None:
    """Return the offset of a clock and its uncertainty in ms; None without any exchange.

    An exchange is when we asked, what the host's clock was, and when we knew it: the host's
    reading was between the two, so the shortest round trip says most.
    """
    shortest = min(exchanges, key=lambda each: each[2] - each[0], default=None)
    if shortest is None:
        return None
    asked, said, known = shortest
    return round((said - (asked + known) / 2) * 1000, 3), round((known - asked) / 2 * 1000, 3)


# ---------------------------------------------------------------- what is wrong with it


def warnings_of(states: Sequence[MachineState]) -> list[str]:
    """Return notes on what makes a run's times doubtful, a line for each kind."""
    notes = []
    loaded = [each for each in states if each.cpus and each.load_1min > MOST_LOAD * each.cpus]
    if loaded:
        worst = max(loaded, key=lambda each: each.load_1min / each.cpus)
        notes.append(
            f"busy before the run: {_named(worst, len(loaded))} had a load average of "
            f"{worst.load_1min:.1f} on {worst.cpus} processors"
        )
    robbed = [each for each in states if (each.steal_percent or 0.0) > MOST_STEAL_PERCENT]
    if robbed:
        worst = max(robbed, key=lambda each: each.steal_percent or 0.0)
        notes.append(
            f"others took {worst.steal_percent:.1f} % of the processors' time of "
            f"{_named(worst, len(robbed))} before the run"
        )
    clocks = [each for each in states if each.clock_offset_ms is not None]
    offsets = [each.clock_offset_ms or 0.0 for each in clocks]
    if clocks and max(offsets) - min(offsets) > MOST_OFFSET_MS:
        uncertainty_ms = max(each.clock_uncertainty_ms or 0.0 for each in clocks)
        notes.append(
            f"the hosts' clocks differ by up to {max(offsets) - min(offsets):.1f} ms (each read "
            f"to {uncertainty_ms:.1f} ms): so do times of one host from those of another"
        )
    return notes


def _named(state: MachineState, count: int) -> str:
    name = state.host or "this machine"
    return name if count == 1 else f"{name} and {count - 1} more"
