"""Starting the probes of a process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import ModuleType

from . import calls, hooks, requests, series, spans, statements
from .recorder import Recorder

Patch = Callable[[ModuleType], None]
Probe = Callable[[Recorder], Mapping[str, Patch]]

# By name: what a probe does to which module, once that is imported.
PROBES: Mapping[str, Probe] = {
    "calls": calls.patches,
    "statements": statements.patches,
    "requests": requests.patches,
    "spans": spans.patches,
    "series": series.patches,
}


def start(names: Sequence[str], folder: str) -> Recorder:
    """Have the probes of these names wait for their modules; records go below `folder`."""
    recorder = Recorder(folder)
    patches: dict[str, list[Patch]] = {}
    for name in names:
        if name not in PROBES:
            recorder.problem(f"no probe '{name}'")
            continue
        for module, patch in PROBES[name](recorder).items():
            patches.setdefault(module, []).append(patch)
    hooks.install(patches, recorder.problem)
    return recorder
