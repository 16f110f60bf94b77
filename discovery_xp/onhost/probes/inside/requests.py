"""Every REST request that a service under gunicorn answers.

gunicorn tells its logger of each answer, also of those that it gives itself to requests
that it can't read, with the time that they took; the log itself stays off.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from ...wire.probes import REQUEST
from .recorder import Recorder


def patches(recorder: Recorder) -> Mapping[str, Callable[[ModuleType], None]]:
    """By module."""
    return {"gunicorn.glogging": functools.partial(_patch, recorder)}


def _patch(recorder: Recorder, module: ModuleType) -> None:
    access = module.Logger.access
    record, now = recorder.record, time.time

    @functools.wraps(access)
    def recorded(self: Any, resp: Any, req: Any, environ: Any, request_time: Any) -> Any:
        try:
            seconds = request_time.total_seconds()
            record((REQUEST, now(), seconds, req.method, req.path, resp.status))
        except Exception as error:
            recorder.failed(error)
        return access(self, resp, req, environ, request_time)

    module.Logger.access = recorded
