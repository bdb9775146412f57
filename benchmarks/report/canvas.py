"""Render one figure as PNG and SVG: the same bytes for the same figure, SVG colors that a page can set."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bioner_edge.benchmarks.report.styles import BAR, INK, LINE, MUTED, PAGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Plot", "save", "sheet"]

_FONTS = ("DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Hiragino Sans", "Noto Sans Arabic")
_DPI = 160  # of the PNG
_VARIABLES = {INK: "--ink", MUTED: "--muted", LINE: "--line", PAGE: "--page", BAR: "--bar"}


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot by file name, with a text description."""

    name: str
    shown: str
    png: bytes
    svg: str


@contextmanager
def sheet(name: str, title: str, width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure of the given size in inches, whatever matplotlib's user settings. Raises ImportError without
    matplotlib."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        # Glyphs missing in all installed fonts become boxes; a browser finds other fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_settings(name))
        figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.set_title(title, loc="left", fontsize=10, color=INK, pad=10)
        axes.grid(color=LINE, lw=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        yield figure, axes


def _settings(name: str) -> Any:
    """matplotlib's settings by name."""
    from matplotlib import font_manager

    there = set(font_manager.get_font_names())
    return {
        "font.family": [font for font in _FONTS if font in there],
        "font.size": 8.5,
        "text.parse_math": False,  # a name may contain two dollar signs
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": LINE,
        "axes.facecolor": PAGE,
        "figure.facecolor": PAGE,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "legend.frameon": False,
        "svg.fonttype": "none",
        "svg.hashsalt": name,
    }


def save(figure: Figure, name: str, shown: str) -> Plot:
    """The figure in both file formats."""
    png, svg = io.BytesIO(), io.StringIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return Plot(f"{name}.png", shown, png.getvalue(), _inline(svg.getvalue(), name))


def _inline(svg: str, name: str) -> str:
    """An SVG to embed in a page with others: its own ids, the page's colors, full width."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    # Only inside attributes, so that a name that looks like a color is unchanged.
    svg = re.sub(r'(?<=style=")[^"]*', lambda found: _replace_colors(found.group()), svg)
    return re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', svg, count=1)


def _replace_colors(style: str) -> str:
    for colour, variable in _VARIABLES.items():
        style = style.replace(colour, f"var({variable})")
    return style
