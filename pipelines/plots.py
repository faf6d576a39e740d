"""Plots of what a run is going to do: in the terminal, and as PNG files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from modules.optimization import Schedule

BLOCKS = " ▁▂▃▄▅▆▇█"
MAX_TICKS = 6
INCHES, DOTS_PER_INCH = (8, 4), 150   # A PNG is 1200 pixels wide and 600 high.
BLUE, RED, GREY = "#1f5fa8", "#c0392b", "#8a8a8a"


def sampled_steps(total_steps: int, count: int) -> np.ndarray:
    """[count] int64 steps from the first to the last one, evenly spaced."""
    return np.linspace(0, total_steps - 1, count).round().astype(np.int64)


def schedule_text(schedule: Schedule, steps_per_epoch: int, width: int = 72, height: int = 8) -> str:
    """The learning rate over a training, drawn in block characters.

    Args:
        schedule: of the training.
        steps_per_epoch: where the marks on the axis are.
        width: characters of the plot without its labels.
        height: lines of the plot without its axis.

    Returns:
        Lines: the rate as columns of a height in eighths of a character, then the axis with epochs in steps.
    """
    rates = schedule(sampled_steps(schedule.total_steps, width)).numpy()  # [width]
    eighths = np.ceil(rates / schedule.peak * height * 8 - 1e-3).astype(int)  # [width]; what is not 0 shows
    labels = {height - 1: f"{schedule.peak:.1e}", height // 2 - 1: f"{schedule.peak / 2:.1e}"}
    gutter = max(map(len, labels.values()))
    lines = [f"{labels.get(line, ''):>{gutter}} {'┤' if line in labels else '│'}"
             + "".join(BLOCKS[min(max(column - 8 * line, 0), 8)] for column in eighths).rstrip()
             for line in reversed(range(height))]
    ticks = _ticks(schedule.total_steps, steps_per_epoch)
    places = {round(tick / schedule.total_steps * (width - 1)): tick for tick in ticks}
    axis = "".join("┴" if place in places else "─" for place in range(width))
    numbers = [" "] * (width + gutter)
    for place, tick in places.items():
        numbers[place:place + len(str(tick))] = str(tick)
    return "\n".join([*lines, f"{'0':>{gutter}} └{axis}", f"{'':{gutter}}  {''.join(numbers).rstrip()} steps"])


def _ticks(total_steps: int, steps_per_epoch: int) -> list[int]:
    """The steps where epochs end, thinned to a few, with 0; of a single epoch its quarters."""
    epochs = total_steps // steps_per_epoch
    if epochs == 1:
        return sorted({total_steps * quarter // 4 for quarter in range(5)})
    stride = -(-epochs // MAX_TICKS)
    return [*range(0, total_steps - stride * steps_per_epoch // 2, stride * steps_per_epoch), total_steps]


def schedule_png(schedule: Schedule, steps_per_epoch: int, path: Path) -> None:
    """Writes the learning rate over a training.

    Args:
        schedule: of the training.
        steps_per_epoch: where the marks of epochs are.
        path: of the PNG.
    """
    exponent = math.floor(math.log10(schedule.peak))
    peak = schedule.peak / 10**exponent
    figure, axes = _figure("Learning rate over the run", f"step (one batch; {steps_per_epoch:,} are an epoch)",
                           f"learning rate ($\\times 10^{{{exponent}}}$, of AdamW in each step)")
    steps = sampled_steps(schedule.total_steps, min(schedule.total_steps, 2000))
    axes.plot(steps, schedule(steps).numpy() / 10**exponent, color=BLUE, linewidth=2)
    axes.set_xlim(0, schedule.total_steps)
    axes.set_ylim(0, peak * 1.12)
    axes.set_xticks(ticks := _ticks(schedule.total_steps, steps_per_epoch))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    for tick in ticks[1:-1]:
        axes.axvline(tick, color=GREY, linewidth=0.8, linestyle=":")
    if schedule.warmup_steps:
        axes.axvline(schedule.warmup_steps, color=RED, linewidth=1, linestyle="--")
        axes.annotate(f"warmup ends at step {schedule.warmup_steps:,}", (schedule.warmup_steps, peak * 1.06),
                      xytext=(6, 0), textcoords="offset points", color=RED, va="center")
    _save(figure, path)


def lengths_png(lengths: Sequence[int] | np.ndarray, max_length: int, path: Path) -> None:
    """Writes the histogram of text lengths with the longest that the model reads.

    Args:
        lengths: [texts] tokens of each text before it is cut.
        max_length: tokens of the longest text that is not cut.
        path: of the PNG.
    """
    lengths = np.asarray(lengths)
    longest = int(lengths.max())
    # A few texts beyond all others would leave the rest a few bars.
    end = max(math.ceil(np.percentile(lengths, 99.5)), round(max_length * 1.05))
    beyond = f"; the last bar also has the longer ones, up to {longest:,}" if longest > end else ""
    figure, axes = _figure(f"Lengths of {len(lengths):,} training texts",
                           f"length (tokens, with [CLS] and [SEP]{beyond})", "texts")
    width = max(1, -(-end // 60))
    edges = [edge + 0.5 for edge in range(0, end + width, width)]
    axes.hist(np.minimum(lengths, end), bins=edges, color=BLUE)
    axes.axvline(max_length + 0.5, color=RED, linewidth=1.2, linestyle="--")
    axes.set_xlim(0, edges[-1])
    cut = float(np.mean(lengths > max_length))
    side, gap = ("right", -6) if max_length > end / 2 else ("left", 6)
    axes.annotate(f"model.max_length {max_length}, {cut:.1%} are cut", (max_length + 0.5, 0.95), color=RED,
                  xycoords=("data", "axes fraction"), xytext=(gap, 0), textcoords="offset points", ha=side,
                  va="center")
    _save(figure, path)


def _figure(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    # Without pyplot: no window system is looked for and nothing stays in memory.
    from matplotlib.figure import Figure

    figure = Figure(figsize=INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    beside = path.with_name(f".{path.name}")
    figure.savefig(beside, format="png")
    beside.replace(path)
