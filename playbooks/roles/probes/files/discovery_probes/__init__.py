"""Probes inside OpenStack's services: what they measure goes to a file for each process.

They come in by PYTHONPATH and patch modules as those get imported, so that no line of a
service is changed and a process that never imports a module pays nothing for its probe.
Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import ModuleType

from . import calls, hooks, requests, statements
from .recorder import Recorder

Patch = Callable[[ModuleType], None]
Probe = Callable[[Recorder], Mapping[str, Patch]]

# By name: what a probe does to which module, once that is imported.
PROBES: Mapping[str, Probe] = {
    "calls": calls.patches,
    "statements": statements.patches,
    "requests": requests.patches,
}


def start(wanted: Sequence[str], folder: str) -> Recorder:
    """Have the wanted probes wait for their modules; records go below `folder`."""
    recorder = Recorder(folder)
    patches: dict[str, list[Patch]] = {}
    for name in wanted:
        if name not in PROBES:
            recorder.problem(f"no probe '{name}'")
            continue
        for module, patch in PROBES[name](recorder).items():
            patches.setdefault(module, []).append(patch)
    hooks.install(patches, recorder.problem)
    return recorder
