"""Patches modules right after they are imported."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

Patch = Callable[[ModuleType], None]


class Watcher:
    """A finder that finds nothing itself: it lets the others, and patches what they load."""

    def __init__(self, patches: Mapping[str, Sequence[Patch]], problem: Callable[[str], None]):
        self.patches = patches
        self.problem = problem

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The spec that Python would find without us, its loader told to patch afterwards."""
        if name not in self.patches:
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                self._patch_after(spec.loader, name)
                return spec
        return None

    def _patch_after(self, loader: Any, name: str) -> None:
        """Each module has a loader object of its own: shadow its method once."""
        try:
            load = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                del loader.exec_module
                load(module)
                self.apply(module, name)

            loader.exec_module = exec_module
        except Exception as error:
            self.problem(f"{name} can't be watched: {error!r}")

    def apply(self, module: ModuleType, name: str) -> None:
        """Patch a module that is loaded; what fails is noted, and the module stays usable."""
        for patch in self.patches[name]:
            try:
                patch(module)
            except Exception as error:
                self.problem(f"{name} can't be patched: {error!r}")


def install(patches: Mapping[str, Sequence[Patch]], problem: Callable[[str], None]) -> None:
    """Patch the modules that are there, and the others when they come."""
    watcher = Watcher(patches, problem)
    for name in patches:
        if name in sys.modules:
            watcher.apply(sys.modules[name], name)
    sys.meta_path.insert(0, watcher)
