"""Coroutines of a command that a signal may interrupt at any place."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end, as `asyncio.run`, and return what it does.

    An interruption is raised here, whatever was running; asyncio would print it once more for the
    task that it hit, which nobody waits for any longer.
    """

    async def all_of_it() -> Result:
        asyncio.get_running_loop().set_exception_handler(_say_unless_interrupted)
        return await main

    return asyncio.run(all_of_it())


def _say_unless_interrupted(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if not isinstance(context.get("exception"), KeyboardInterrupt):
        loop.default_exception_handler(context)
