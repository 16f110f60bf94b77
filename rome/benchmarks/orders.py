"""A worker's orders and answers: lines of JSON on its input and output."""

from __future__ import annotations

import importlib.util
import json
import sys
import traceback
from collections.abc import Callable
from typing import Any, TextIO


def begin() -> TextIO:
    """Where answers go; what anyone prints from now on goes to standard error."""
    answers, sys.stdout = sys.stdout, sys.stderr
    return answers


def serve(answers: TextIO, worker: Any) -> None:
    """Say that all is ready; then do as told until the orders end.

    An order names a method of the worker; what it raises is the answer.
    """
    _answer(answers, {"done": "ready"})
    for line in sys.stdin:
        order = json.loads(line)
        method: Callable[..., Any] = getattr(worker, order.pop("do"))
        try:
            answer = {"done": method(**order)}
        except Exception:
            answer = {"failed": traceback.format_exc()}
        _answer(answers, answer)


def _answer(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def nothing_reused() -> str:
    """Return the options of a URL without result cache and prefetching, for the ROME of this
    process, which may be an earlier version with other names for them."""
    if importlib.util.find_spec("rome.engine"):
        return "result_cache=off&prefetch=off"
    return "answers=off&foresight=off"
