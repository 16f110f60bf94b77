"""Coroutines: what they return and raise, and what is said of one that a signal interrupts."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from discovery_xp import coroutines

INTERRUPTED = """
import asyncio, os, signal
from discovery_xp import coroutines

def interrupt(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGTERM, interrupt)

async def one(number):
    await asyncio.sleep(0)
    if number == 3:
        os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(30)

async def all_of_them():
    await asyncio.gather(*map(one, range(5)))

try:
    %s.run(all_of_them())
except KeyboardInterrupt:
    print("interrupted")
"""


def of(module: str) -> tuple[str, str]:
    """What a program says that is interrupted in a coroutine which this module runs."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED % module],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.stdout, done.stderr


def test_an_interruption_is_raised_and_not_said_once_more() -> None:
    assert of("coroutines") == ("interrupted\n", "")
    assert "never retrieved" in of("asyncio")[1]


def test_what_a_coroutine_returns_and_raises_comes_out() -> None:
    async def seven() -> int:
        return 7

    async def fails() -> int:
        raise ValueError("no")

    assert coroutines.run(seven()) == 7
    with pytest.raises(ValueError, match="no"):
        coroutines.run(fails())


def test_other_lost_exceptions_are_still_said(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        raise ValueError("lost")

    async def forgets() -> None:
        task = asyncio.ensure_future(fails())
        await asyncio.sleep(0)
        del task

    coroutines.run(forgets())
    assert "never retrieved" in caplog.text
