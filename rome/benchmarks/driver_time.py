"""How long a process waits for its database's driver."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

_CALLS = {
    "pymysql.cursors.Cursor": ("execute", "executemany"),
    "pymysql.connections.Connection": ("commit", "rollback", "ping"),
    "rome.driver.Cursor": ("execute", "executemany"),
    "rome.driver.Connection": ("commit", "rollback"),
}


class DriverTime:
    """Sums up the seconds of the DBAPI's calls from now on."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._inside = False
        for path, names in _CALLS.items():
            module, _, kind = path.rpartition(".")
            found = getattr(__import__(module, fromlist=[kind]), kind)
            for name in names:
                setattr(found, name, self._timed(getattr(found, name)))

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def timed(*arguments: Any, **more: Any) -> Any:
            if self._inside:  # one call of the driver in another
                return call(*arguments, **more)
            self._inside = True
            started = time.perf_counter()
            try:
                return call(*arguments, **more)
            finally:
                self.seconds += time.perf_counter() - started
                self._inside = False

        return timed
