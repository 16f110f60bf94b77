"""What several commands share: where they print, how they name a testbed.

Whatever is printed may come from a stranger's file or from a host: no markup is read in it,
and what would move the terminal's cursor is shown as text.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem
from rich.console import Console
from rich.text import Text

from discovery_xp import places
from discovery_xp.boundary.names import TestbedName
from discovery_xp.errors import Refused
from discovery_xp.testbeds.testbed import testbeds
from discovery_xp.text import printable

if TYPE_CHECKING:
    from discovery_xp.testbeds.pings import PairRtt

F = TypeVar("F", bound=Callable[..., Any])


class PlainConsole(Console):
    """A console that prints texts as they are: in tables and titles, too."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Make a line of `text`, without markup, its control characters as escapes."""
        return super().render_str(printable(text), **{**options, "markup": False, "emoji": False})


def console(wide: int = 160) -> PlainConsole:
    """Made at each use, so that it prints to where stdout leads then.

    Where that is no terminal, lines have up to `wide` characters.
    """
    return PlainConsole(width=None if sys.stdout.isatty() else wide)


def echo(line: str, err: bool = False) -> None:
    """Print a line, its control characters as escapes; to stderr with `err`."""
    click.echo(printable(line), err=err)


def require_new(path: Path) -> None:
    """Raise Refused where something is at `path`, or nothing can be."""
    remedy = "name a folder that isn't there"
    try:
        path.lstat()
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise Refused(f"{path} can't be made ({why})", remedy) from None
    raise Refused(f"{path} exists", remedy)


class InputFile(click.ParamType[Path]):
    """A topology's or a scenario's file, or the name of one that the toolkit comes with."""

    name = "file"

    def __init__(self, folder: str) -> None:
        """Look for names in `folder`, 'topologies' or 'scenarios'."""
        self.folder = folder

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Make a path of the value; what is wrong with the file is told when it is read."""
        try:
            return places.shipped_file(self.folder, Path(value))
        except ValueError:  # a NUL within
            return Path(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Offer the names, and whatever the shell completes to files and folders."""
        names = [name for name in places.shipped_names(self.folder) if name.startswith(incomplete)]
        return [*(CompletionItem(name) for name in names), CompletionItem(incomplete, type="file")]


class NameOption(click.ParamType[TestbedName]):
    """The name of a testbed, as an option takes it; another text is refused at once."""

    name = "name"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> TestbedName:
        """Check it; raises BadName with the option as its place."""
        return TestbedName.parse(value, param.opts[0] if param else "name")

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Offer the testbeds that there are."""
        try:
            names = testbeds()
        except (Refused, OSError):
            return []
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def testbed_option(command: F) -> F:
    # `up`, `deploy` and `bench` give it a --name: the same word finds it again.
    words = ("--testbed", "--name")
    return click.option(
        *words, "name", type=NameOption(), help="Which one, if there are several."
    )(command)  # fmt: skip


def worst_pair(pairs: Sequence[PairRtt], wan: str) -> str:
    """Describe how well the links keep to what was asked, by the pair that is furthest off."""
    worst = max(pairs, key=lambda pair: abs(pair.error_ms or 0.0))
    scale = "" if worst.time_scale == 1 else (
        f", {worst.measured_ms:.2f} ms by a clock at the time scale of {worst.time_scale:g}"
    )  # fmt: skip
    return (
        f"links:     {len(pairs)} pairs imposed by {wan}, all within tolerance; the worst is "
        f"{worst.source} - {worst.target}: {worst.observed_ms:.2f} ms for {worst.requested_ms:g} ms"
        f"{scale}"
    )
