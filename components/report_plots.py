"""The report's plots: matplotlib's SVG, inline, in colours that the page names, so that they are right in the dark.

matplotlib draws in colours of no meaning, each of which stands for a CSS variable of `report_page.STYLE`. Texts stay
texts: they take the page's font, can be selected, and are escaped by matplotlib.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from components.report_rows import Histogram

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Stand-in → CSS variable. No two are alike, and nobody would pick them.
INK, MUTED, GRID, BLUE, ORANGE, RED = "#010203", "#040506", "#070809", "#0a0b0c", "#0d0e0f", "#101112"
VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--line)", BLUE: "var(--blue)",
             ORANGE: "var(--orange)", RED: "var(--red)"}
SERIES = (BLUE, ORANGE, MUTED)
SIZE = (5.4, 2.9)       # Inches, of 72 points.
ZOOM = 1.3              # Pixels a point at most, so that letters are of one size in all plots.
BINS = 48
POINTS = 400            # Of a curve; more would be wider than the plot.
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "textrail", "font.size": 10, "font.family": "sans-serif",
         "text.color": INK, "axes.labelcolor": MUTED, "axes.edgecolor": GRID, "xtick.color": GRID,
         "ytick.color": GRID, "xtick.labelcolor": MUTED, "ytick.labelcolor": MUTED, "axes.grid": True,
         "grid.color": GRID, "grid.linewidth": 0.6, "axes.axisbelow": True, "axes.spines.top": False,
         "axes.spines.right": False, "axes.spines.left": False, "xtick.major.size": 0, "ytick.major.size": 0,
         "legend.frameon": False, "lines.linewidth": 1.8, "lines.solid_capstyle": "round"}

Curve = tuple[np.ndarray, np.ndarray]


def curves(lines: Mapping[str, Curve], x: str, alt: str, mark: tuple[float, str] | None = None,
           dots: Sequence[str] = (), log: bool = False) -> str:
    """Lines over steps.

    Args:
        lines: name → steps and values, in the order of the colours.
        x: what the steps are.
        alt: what the picture shows, for those who do not see it.
        mark: a step and what it was.
        dots: names whose points are few and show as such.
        log: whether the values' axis is logarithmic.
    """
    with _style():
        figure, axes = _figure(x)
        for colour, (name, (steps, values)) in zip(SERIES, lines.items(), strict=False):
            steps, values = thinned(steps, values)
            axes.plot(steps, values, color=colour, label=_plain(name), marker="o" if name in dots else None,
                      markersize=4, zorder=3 if name in dots else 2)
        if mark:
            axes.axvline(mark[0], color=RED, linewidth=1, linestyle=(0, (4, 3)))
            left = mark[0] > np.mean(axes.get_xlim())
            axes.annotate(_plain(mark[1]), (mark[0], 0.5), xycoords=("data", "axes fraction"), color=RED, fontsize=9,
                          xytext=(-5 if left else 5, 0), textcoords="offset points", ha="right" if left else "left",
                          va="top")
        if log:
            axes.set_yscale("log")
        elif _is_near_zero([values for _, values in lines.values()]):
            axes.set_ylim(bottom=0)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        if len(lines) > 1:
            _legend(axes, len(lines))
        return _svg(figure, alt)


def lengths(sides: Mapping[str, Histogram], x: str, alt: str, limit: tuple[int, str] | None = None) -> str:
    """Histogram of lengths, of one text or of two; a few texts far beyond all others share the last bar.

    Args:
        sides: name → lengths.
        x: what a length is counted in.
        alt: what the picture shows.
        limit: the longest that is read, and what it is called.
    """
    end = max(*(side.quantile(0.995) for side in sides.values()), limit[0] if limit else 0, 1)
    if limit and limit[0] > 4 * max(side.longest for side in sides.values()):
        end, limit = max(1, *(side.quantile(0.995) for side in sides.values())), None
    shortest = min(int(side.values[0]) for side in sides.values())
    start = shortest - 1 if shortest > end / 2 else 0
    width = max(1, -(-(end - start) // BINS))
    edges = [edge + 0.5 for edge in range(start, end + width, width)]
    with _style():
        figure, axes = _figure(x)
        axes.hist([np.minimum(side.values, end) for side in sides.values()], bins=edges,
                  weights=[side.counts for side in sides.values()], color=list(SERIES[:len(sides)]),
                  label=[_plain(name) for name in sides], alpha=0.9)
        if limit:
            axes.axvline(limit[0] + 0.5, color=RED, linewidth=1, linestyle=(0, (4, 3)))
            left = limit[0] > (start + end) / 2
            axes.annotate(_plain(limit[1]), (limit[0] + 0.5, 0.97), xycoords=("data", "axes fraction"), color=RED,
                          fontsize=9, xytext=(-5 if left else 5, 0), textcoords="offset points",
                          ha="right" if left else "left", va="top")
        axes.grid(visible=False, axis="x")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.locator_params(axis="y", integer=True)
        axes.yaxis.set_major_formatter("{x:,.0f}")
        if len(sides) > 1:
            _legend(axes, len(sides))
        return _svg(figure, alt)


def calibration(bands: Sequence[Mapping[str, float]], alt: str) -> str:
    """How often answers were right, by how sure the model was: a dot a band, as large as it has examples."""
    with _style():
        figure, axes = _figure("confidence of the answer", size=(3.6, 3.2))
        confidence, accuracy = (np.array([band[key] for band in bands]) for key in ("confidence", "accuracy"))
        examples = np.array([band["examples"] for band in bands])
        low = min(0.5, float(confidence.min()), float(accuracy.min())) // 0.1 * 0.1
        axes.plot([low, 1], [low, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.plot(confidence, accuracy, color=BLUE, linewidth=1.2)
        axes.scatter(confidence, accuracy, s=20 + 180 * examples / examples.max(), color=BLUE, zorder=3)
        axes.set_ylabel("share that was right")
        axes.set_xlim(low - 0.02, 1.03)
        axes.set_ylim(low - 0.02, 1.03)
        return _svg(figure, alt)


def _is_near_zero(curves_values: Sequence[np.ndarray]) -> bool:
    """Whether 0 belongs on an axis: values far from it would be one flat line."""
    values = np.concatenate(curves_values)
    return bool(len(values)) and 0 <= values.min() <= values.max() / 2


def thinned(steps: np.ndarray, values: np.ndarray) -> Curve:
    """At most `POINTS` points of a curve: means of neighbours, so that noise stays visible and files small."""
    if len(steps) <= POINTS:
        return steps, values
    parts = np.array_split(np.arange(len(steps)), POINTS)
    return np.array([steps[part].mean() for part in parts]), np.array([values[part].mean() for part in parts])


def _style() -> Any:
    import matplotlib as mpl

    return mpl.rc_context(STYLE)


def _figure(x: str, size: tuple[float, float] = SIZE) -> tuple[Figure, Axes]:
    # Without pyplot: no window system is looked for and nothing stays in memory.
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=72, layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.subplots()
    axes.patch.set_alpha(0)
    axes.set_xlabel(_plain(x))
    return figure, axes


def _legend(axes: Axes, columns: int) -> None:
    """Above the plot, where no line or bar can be."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.1, handlelength=1.4)


def _plain(text: str) -> str:
    """A text in which matplotlib finds no formula."""
    return text.replace("$", r"\$")


def _svg(figure: Figure, alt: str) -> str:
    """The figure as an element of a page, without what only files of their own need."""
    text = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")   # The page's font has it, or shows a box.
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg"):]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (xmlns(:xlink)?|version|width|height)="[^"]*"', "", svg[:svg.index(">")]) + svg[svg.index(">"):]
    # A style sheet inside would hold for the whole page, and names of groups would stand in it several times.
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r" font-family: [^;\"]*;", "", svg)
    used = set(re.findall(r"(?:url\(#|href=\"#)([^\")]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in used else "", svg)
    svg = re.sub(r"\s*\n\s*", " ", svg)
    for stand_in, variable in VARIABLES.items():
        svg = svg.replace(stand_in, variable)
    said, width = html.escape(alt), round(ZOOM * 72 * figure.get_figwidth())
    return svg.replace(">", f' role="img" aria-label="{said}" class="plot" style="max-width:{width}px">'
                       f"<title>{said}</title>", 1).strip()
