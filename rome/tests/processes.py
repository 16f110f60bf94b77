"""Functions in several processes at once, which start together."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from typing import Any

_WAIT_S = 120


def at_once(function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    """The results of calls in a process each, made when all processes are up.

    A call's exception is raised here.
    """
    context = new_processes()
    start = context.Barrier(len(arguments))
    with context.Pool(len(arguments), initializer=_prepare, initargs=(start,)) as pool:
        calls = [pool.apply_async(_call, (function, args)) for args in arguments]
        return [call.get(_WAIT_S) for call in calls]


def new_processes() -> Any:
    """multiprocessing's context for processes that share nothing with this one."""
    context = multiprocessing.get_context("forkserver")
    # Imported once, for all of them.
    context.set_forkserver_preload(["rome.dialect", "tests.histories.clients"])
    return context


_start: Any = None


def _prepare(start: Any) -> None:
    global _start
    _start = start


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    _start.wait(_WAIT_S)
    return function(*arguments)
