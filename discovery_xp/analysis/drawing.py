"""What all figures have: their colours, their files, and names of anybody's as plain text."""

from __future__ import annotations

import base64
import functools
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.figure import Figure

from discovery_xp.text import shortened

_NAME = 40  # characters of a name at an axis


@dataclass(frozen=True)
class Theme:
    """Colours of a figure: on paper, or on a dark screen."""

    background: str
    ink: str
    faint: str
    series: tuple[str, ...]


LIGHT = Theme(
    "#ffffff",
    "#1a1a1a",
    "#d5d5d5",
    ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#8a7f00", "#555555"),
)
DARK = Theme(
    "#17191c",
    "#e8e8e8",
    "#3d4147",
    ("#56b4e9", "#e8833a", "#2cc298", "#de9cc0", "#4a90d0", "#e69f00", "#f0e442", "#a8a8a8"),
)

# A back end keeps its colour in every figure.


@functools.cache
def _glyphs() -> frozenset[int]:
    """Return the code points that the figures' font can draw."""
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    return frozenset(font.get_charmap())


def plain(text: str, most: int = _NAME) -> str:
    """Return a name from a run as matplotlib draws it: as text, in one line.

    A pair of dollars would be a formula, an underscore at the start keeps a name out of a
    legend, and what the font lacks becomes an escape.
    """
    shown = "".join(
        each if ord(each) in _glyphs() else each.encode("unicode_escape").decode()
        for each in shortened(text, most)
    )
    return ("\N{ZERO WIDTH SPACE}" if shown.startswith("_") else "") + shown.replace("$", r"\$")


def axis_label(words: str, shown: int, count: int, of: str = "sites") -> str:
    """Return an axis' label, which says when there is more than could be drawn."""
    return words if shown == count else f"{words} ({shown} of {count} {of})"


def drawing(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Make a function's figure with our settings, whatever a `matplotlibrc` says.

    matplotlib reads one from the working directory, which may be that of a stranger's run,
    and with `text.usetex` text becomes a program for TeX.
    """

    @functools.wraps(draw)
    def drawn(*arguments: Any, **named: Any) -> Figure:
        with mpl.rc_context({"text.usetex": False}):
            return draw(*arguments, **named)

    return drawn


class PlainFigure(Figure):
    """A figure that never hands its text to TeX; some of it is made only when it is drawn."""

    def draw(self, renderer: Any) -> None:
        """Draw as matplotlib does."""
        with mpl.rc_context({"text.usetex": False}):
            super().draw(renderer)


# ---------------------------------------------------------------- as files


def image(figure: Figure, kind: str) -> bytes:
    """Return the figure as a file of a kind: "svg", "pdf" or "png".

    SVG has letters as outlines. Equal figures give equal bytes.
    """
    _lay_out(figure)
    buffer = io.BytesIO()
    metadata = {"svg": {"Date": None, "Creator": None}, "pdf": {"CreationDate": None}}.get(kind)
    with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": "discovery-xp"}):
        figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
    return buffer.getvalue()


def _lay_out(figure: Figure) -> None:
    """Find the places of all parts, once for all files: it takes longer than drawing them."""
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        # "none" would keep a placeholder, for which each file is drawn twice.
        with mpl.rc_context({"figure.autolayout": False, "figure.constrained_layout.use": False}):
            figure.set_layout_engine(None)


def data_uris(figure: Figure) -> tuple[str, str]:
    """Return a figure of LIGHT as two data URIs for a page that is one file: light and dark."""
    light = _lean(image(figure, "svg").decode())
    return _data_uri(light), _data_uri(darkened(light))


def darkened(svg: str) -> str:
    """Return the SVG of a figure in DARK's colours that was drawn in LIGHT's."""
    dark = dict(zip(_colours(LIGHT), _colours(DARK), strict=True))
    return re.sub("#[0-9a-f]{6}", lambda found: dark.get(found[0], found[0]), svg)


def _colours(theme: Theme) -> tuple[str, ...]:
    return (theme.background, theme.ink, theme.faint, *theme.series)


def _lean(svg: str) -> str:
    """Return an SVG with its paths to 0.01 points, in one line each."""
    return re.sub(
        r'(?<= d=")[^"]+',
        lambda path: re.sub(r"\d+\.\d{3,}", lambda n: f"{float(n[0]):.2f}", path[0]).replace(
            "\n", ""
        ),
        svg,
    )


def _data_uri(svg: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
