"""What a database driver counts of itself: ROME's commits, conflicts and retries.

Another driver joins by a list `commit_observers` in its module and a line in DRIVERS.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import ModuleType

from ...wire.probes import COUNT
from ...wire.series import COUNTED_INSIDE
from .recorder import Recorder

DRIVERS = ("rome.driver",)


def patches(recorder: Recorder) -> Mapping[str, Callable[[ModuleType], None]]:
    """Return what this probe does to which module: one for each driver."""
    return dict.fromkeys(DRIVERS, functools.partial(_watch, recorder))


def _watch(recorder: Recorder, module: ModuleType) -> None:
    record = recorder.record

    def count(commits: int, conflicts: int, retries: int) -> None:
        for metric, number in zip(COUNTED_INSIDE, (commits, conflicts, retries), strict=True):
            if number:
                record((COUNT, metric, number))

    module.commit_observers.append(count)
