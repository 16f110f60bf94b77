"""A load on hosts that aren't there: the lines that Rally's plugin would write, and their end."""

from __future__ import annotations

import io
import json
import queue
import tarfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, cast

from discovery_xp.onhost.wire.request import vm_name

# How long a VM takes to get ACTIVE, and how much later each next one gets there.
BOOT_S = 2.0
APART_S = 0.05
WARM_S = 0.1
# Between the first half of a load and the second: long enough that its pace is shown.
PAUSE_S = 0.6
_PAUSE = b"pause"


@dataclass(frozen=True)
class _Iteration:
    """One VM, or one round of requests: which, and at which region and site."""

    number: int
    region: Mapping[str, Any]


class CannedLoad:
    """What follows the load on one host: it says lines, and goes on at the words `go` and `on`.

    With 'load' in `faults` it ends half-way, as a process that is killed; with 'boot' no compute
    that its last region names boots a VM of the warm-up.
    """

    def __init__(self, host: str, task: Mapping[str, Any], faults: Collection[str]) -> None:
        self.host = host
        self.boots = str(task["kind"]).startswith("boot")
        self.dies = "load" in faults
        self._deletes = bool(task["delete_after"])
        self._all = _iterations(task["regions"])
        self._lines: queue.Queue[bytes] = queue.Queue()
        self.stdin: IO[bytes] = cast(IO[bytes], _Words(self))
        self.stdout: IO[bytes] = cast(IO[bytes], _Lines(self._lines))
        region = task["regions"][-1]
        if "boot" in faults and region["computes"]:
            words = f"no compute that {region['name']} was asked for boots a VM: a canned error"
            self._say({"line": "crash", "error": words})
            self._say({"line": "unit", "words": "ended (exit-code, exited 1)"})
        else:
            self._say({"line": "ready"})

    def kill(self) -> None:
        """End the lines."""
        self._lines.put(b"")

    def wait(self) -> int:
        """Return at once, as nothing runs."""
        return 0

    def on_word(self, word: str) -> None:
        """Say what happens from a word on: 'go' begins the load, 'on' what comes after it."""
        for line in self._loading() if word == "go" else self._ending():
            self._say(line)

    def _say(self, line: Mapping[str, Any]) -> None:
        self._lines.put(f"{json.dumps(line)}\n".encode())

    def _loading(self) -> Iterator[dict[str, Any]]:
        chosen = self._all[: len(self._all) // 2] if self.dies else self._all
        took_s = BOOT_S + APART_S * len(self._all)
        started = time.time() - took_s
        yield {"line": "usage", "at": started, "cpu_s": 0.0, "polls": 0, "mark": "start"}
        for number, each in enumerate(chosen):
            if number == len(self._all) // 2:
                self._lines.put(_PAUSE)
            yield from self._iteration(each, started)
        if self.dies:
            yield {"line": "unit", "words": "ended (signal, killed 9)"}
            return
        end = {"at": started + took_s, "cpu_s": 0.1, "polls": len(self._all), "mark": "end"}
        yield {"line": "usage", **end}
        yield {"line": "loaded", "last_sent_at": started + APART_S, "time_is_up": False}

    def _iteration(self, each: _Iteration, started: float) -> Iterator[dict[str, Any]]:
        place = {"region": each.region["name"], "site": each.region["site"]}
        if self.boots:
            name = self._name(each)
            iteration = {"requested_at": started, "accepted_at": started + WARM_S}
            yield {"line": "vm", "name": name, **place, **iteration}
            seen_at = started + BOOT_S + APART_S * each.number
            yield {"line": "vm", "name": name, "status": "ACTIVE", "seen_at": seen_at}
        else:
            took = {"started_at": started, "duration_s": WARM_S, "error": None}
            numbered = {"action": "authenticate", "iteration": each.number}
            yield {"line": "action", **numbered, **place, **took}
        yield {"line": "iteration"}

    def _ending(self) -> Iterator[dict[str, Any]]:
        for each in self._all if self.boots else ():
            placed, computes = each.region["placed"], each.region["computes"]
            where: dict[str, Any] = {}
            if computes:
                where["host"] = computes[each.number % len(computes)]
            if placed:
                where["host"] = placed[each.number]
            if self._deletes:
                where["deleted_at"] = time.time()
            yield {"line": "vm", "name": self._name(each), **where}
        yield {"line": "done", "lost": {}}
        yield {"line": "unit", "words": "ended (success, exited 0)"}

    def _name(self, each: _Iteration) -> str:
        return vm_name(each.region["name"], each.number + 1)


class _Words(io.BytesIO):
    """Takes the words that a load waits for, as 'go 1.0'."""

    def __init__(self, load: CannedLoad) -> None:
        super().__init__()
        self.load = load

    def write(self, data: Any) -> int:
        """Have the load go on."""
        self.load.on_word(bytes(data).split()[0].decode())
        return len(data)


class _Lines(io.BytesIO):
    """Gives a load's lines as they come."""

    def __init__(self, lines: queue.Queue[bytes]) -> None:
        super().__init__()
        self.lines = lines

    def readline(self, size: int | None = -1, /) -> bytes:
        """Wait for the next line; empty once nobody follows any more."""
        line = self.lines.get()
        if line != _PAUSE:
            return line
        time.sleep(PAUSE_S)
        return self.readline(size)


def _iterations(regions: Sequence[Mapping[str, Any]]) -> list[_Iteration]:
    return [
        _Iteration(number, region) for region in regions for number in range(int(region["count"]))
    ]


def load_of(host: str, archive: bytes, faults: Collection[str]) -> CannedLoad:
    """Make the load that is laid down for a host, of the tar that holds its task."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        file = tar.extractfile("task.json")
        assert file is not None
        task = json.load(file)
    return CannedLoad(host, task["subtasks"][0]["scenario"]["Discovery.load"]["load"], faults)
