"""First come, first served: what a limited number of processes have at a time.

SimPy's own `Resource` makes an event of every request, whether it has to wait or not; most
requests of a simulated boot don't.
"""

from __future__ import annotations

from collections import deque

import simpy


class Places:
    """So many places, which are taken and given back.

    if (wait := places.take()) is not None:
        yield wait
    ...
    places.give_back()
    """

    __slots__ = ("_env", "_free", "_waiting")

    def __init__(self, env: simpy.Environment, number: int) -> None:
        self._env = env
        self._free = max(1, number)
        self._waiting: deque[simpy.Event] = deque()

    def take(self) -> simpy.Event | None:
        """Take a place: at once, which is None, or when the event that is returned happens."""
        if self._free > 0:
            self._free -= 1
            return None
        event = self._env.event()
        self._waiting.append(event)
        return event

    def give_back(self) -> None:
        """Give a place back, to who has waited longest if anybody has."""
        if self._waiting:
            self._waiting.popleft().succeed()
        else:
            self._free += 1
