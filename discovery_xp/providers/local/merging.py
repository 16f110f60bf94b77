"""Merging of identical pages of emulated hosts' memory, by the kernel (KSM).

Hosts run the same programs, so most of their memory is the same.  A host's first process is
marked before it starts, and all that it starts inherits the mark: the kernel's thread ksmd looks
at the pages of marked processes alone, and keeps one copy of those that are equal until somebody
writes.  Pages are hardly equal where addresses and hash seeds differ, so a marked host has its
programs at the same addresses (no randomisation), and its services the same hash seed.

`prepare` sets ksmd going, and notes what was set before; `restore` puts that back.  While a load is
measured ksmd is slowed down: at full speed it takes 15 % of a processor.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from discovery_xp.files import write_atomically

_KSM = Path("/sys/kernel/mm/ksm")
# In the order in which they are written, when they are put back, too: an advisor of the kernel
# has the number of pages to itself.  A pass over the 11 GiB of a cloud of 65 hosts takes 30 s.
_SETTINGS = {
    "advisor_mode": "none",
    "pages_to_scan": "2000",
    "sleep_millisecs": "20",
    "run": "1",
}

# What is merged stays so; a pass over a cloud of 65 hosts takes half an hour then.
_SLOWLY = {"sleep_millisecs": "1000"}

# Of linux/prctl.h and linux/personality.h.
_SET_MEMORY_MERGE, _GET_MEMORY_MERGE = 67, 68
_NO_RANDOMISATION, _ASK = 0x0040000, 0xFFFFFFFF
_MARK = f"""
import ctypes, os, sys
libc, long = ctypes.CDLL(None, use_errno=True), ctypes.c_ulong
if libc.prctl({_SET_MEMORY_MERGE}, long(1), long(0), long(0), long(0)):
    sys.exit(os.strerror(ctypes.get_errno()))
libc.personality(long(libc.personality(long({_ASK})) | {_NO_RANDOMISATION}))
os.execvp(sys.argv[1], sys.argv[1:])
"""
_IS_MARKED = f"""
import ctypes, sys
no = ctypes.c_ulong(0)
sys.exit(ctypes.CDLL(None).prctl({_GET_MEMORY_MERGE}, no, no, no, no) != 1)
"""
_PYTHON = (sys.executable, "-I", "-S", "-c")

# What a marked host gets besides: the environment of its services.
FILE = "etc/systemd/system.conf.d/discovery-xp-merging.conf"
FILE_TEXT = "[Manager]\nDefaultEnvironment=PYTHONHASHSEED=0\n"


def marked(command: list[str]) -> list[str]:
    """Return a command that runs `command` with its memory, and its children's, to be merged."""
    return [*_PYTHON, _MARK, *command]


@functools.cache
def obstacle() -> str | None:
    """Return why this kernel can't merge, in a few words; None where it can."""
    if not (_KSM / "run").exists():
        return "this kernel has no KSM"
    try:
        with (_KSM / "run").open("r+b"):
            pass
    except OSError as error:
        return f"{_KSM}/run can't be written: {(error.strerror or '').lower()}"
    done = subprocess.run(marked([*_PYTHON, _IS_MARKED]), capture_output=True, check=False)
    if done.returncode:
        return "this kernel doesn't keep PR_SET_MEMORY_MERGE when a program starts another"
    return None


def prepare() -> None:
    """Have ksmd look for equal pages; where the machine had it do so already, leave it at that.

    What was set before is noted first.  Raises OSError where nothing can be noted.
    """
    if _value("run") == "1" and not _noted():
        return
    settings = {name: value for name, value in _SETTINGS.items() if (_KSM / name).exists()}
    current = {name: _value(name) for name in settings}
    if current == settings:
        return
    _note({**current, **_noted()})
    _write(settings)


def restore() -> None:
    """Put the noted settings back: for when the last testbed is gone whose memory is merged."""
    noted = _noted()
    _write({name: noted[name] for name in _SETTINGS if name in noted})
    _notes().unlink(missing_ok=True)


def slow_down() -> None:
    """Have ksmd look at few pages, where its settings are ours; `prepare` undoes that, too."""
    if _noted():
        _write(_SLOWLY)


def speed_up() -> None:
    """Have ksmd look at as many pages as before."""
    if _noted():
        _write({name: _SETTINGS[name] for name in _SLOWLY})


def saved_bytes() -> int:
    """Return what the machine's processes would take more if no page were merged."""
    try:
        return int(_value("pages_sharing")) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def ksmd_cpu_s() -> float | None:
    """Return the CPU seconds of ksmd since the machine started; None where it can't be seen."""
    for entry in _processes():
        with contextlib.suppress(OSError, ValueError, IndexError):
            name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
            if name == "ksmd":
                user, system = rest.split()[11:13]
                return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return None


def _processes() -> list[Path]:
    """Return the folders of processes, those that started first before the others."""
    folders = [path for path in Path("/proc").iterdir() if path.name.isdigit()]
    return sorted(folders, key=lambda path: int(path.name))


def _value(name: str) -> str:
    """Return a setting; of one that lists its choices, the chosen one."""
    text = (_KSM / name).read_text().strip()
    return text.partition("[")[2].partition("]")[0] or text


def _write(settings: Mapping[str, str]) -> None:
    for name, value in settings.items():
        with contextlib.suppress(OSError):  # at worst ksmd is slower, or has nothing to do
            (_KSM / name).write_text(value)


def _notes() -> Path:
    """Beside no testbed: settings belong to the machine, and end with its run, as this file."""
    return Path("/run/discovery-xp-ksm-before.json")


def _noted() -> dict[str, str]:
    try:
        values = json.loads(_notes().read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(values, dict):
        return {}
    return {str(name): str(value) for name, value in values.items()}


def _note(values: Mapping[str, str]) -> None:
    write_atomically(_notes(), json.dumps(values, indent=1) + "\n")
