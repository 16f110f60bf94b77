"""What several commands share: where they print, how they name a testbed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click
from rich.console import Console

F = TypeVar("F", bound=Callable[..., Any])


def console() -> Console:
    """Made at each use, so that it prints to where stdout leads then."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def testbed_option(command: F) -> F:
    # `up`, `deploy` and `bench` give it a --name: the same word finds it again.
    words = ("--testbed", "--name")
    return click.option(*words, "name", help="Which one, if there are several.")(command)
