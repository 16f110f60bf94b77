"""Waiting for what takes a moment, with an end."""

from __future__ import annotations

import time
from collections.abc import Callable

# Far more than anything takes that this is used for: a busy machine is late, a defect is never.
WITHIN_S = 240.0


def wait_until(
    holds: Callable[[], object],
    *,
    within_s: float = WITHIN_S,
    pause_s: float = 0.1,
    despite: tuple[type[Exception], ...] = (),
) -> None:
    """Return once `holds()` is true; AssertionError after `within_s` seconds.

    It is asked again every `pause_s` seconds; exceptions of the types in `despite` mean "no".
    """
    latest = time.monotonic() + within_s
    while True:
        try:
            if holds():
                return
        except despite:
            pass
        assert time.monotonic() < latest, f"not within {within_s:g} s"
        time.sleep(pause_s)
