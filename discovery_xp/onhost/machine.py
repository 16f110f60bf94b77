"""Print what state a machine is in: load, memory, clock source, frequency, stolen time.

One module of Python's own library: a host runs its text, this machine calls `look`.
"""

from __future__ import annotations

import os
import re
import sys
import time

_MOST = 10_000_000  # characters of a file


def look() -> str:
    """Return a line for each thing, its name first; one that can't be read is a name alone.

    Stolen time is in the two first lines, /proc/stat's of all processors a second apart.
    """
    first = _processors()
    time.sleep(1)
    system = "/sys/devices/system/"
    said = {
        "first": first,
        "second": _processors(),
        "cpus": str(len(os.sched_getaffinity(0))),
        "load": _read("/proc/loadavg"),
        "memory": " ".join(re.findall("MemAvailable:.*", _read("/proc/meminfo"))),
        "clock": _read(system + "clocksource/clocksource0/current_clocksource"),
        "governor": _read(system + "cpu/cpu0/cpufreq/scaling_governor"),
        "mhz": " ".join(re.findall("(?i)cpu MHz[^:]*: *([0-9.]+)", _read("/proc/cpuinfo"))),
    }
    return "\n".join(f"{name} {' '.join(text.split())}" for name, text in said.items())


def _processors() -> str:
    return _read("/proc/stat").partition("\n")[0]


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read(_MOST)
    except OSError:
        return ""


if __name__ == "__main__":
    sys.stdout.write(look() + "\n")
