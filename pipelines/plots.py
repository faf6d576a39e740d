"""Plots of what a run is going to do: in the terminal, and as PNG files."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
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
MAPS_ABREAST = 4
BLUE, ORANGE, RED, GREY = "#1f5fa8", "#e08e2b", "#c0392b", "#8a8a8a"


def sampled_steps(total_steps: int, count: int) -> np.ndarray:
    """[count] int64 steps from the first to the last one, evenly spaced."""
    return np.linspace(0, total_steps - 1, count).round().astype(np.int64)


def peak_of(schedule: Schedule) -> tuple[int, float]:
    """The step with the largest learning rate, the first of several, and the rate."""
    rates = schedule(np.arange(schedule.total_steps)).numpy()  # [total_steps]
    step = int(rates.argmax())
    return step, float(rates[step])


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
    _, peak = peak_of(schedule)
    rates = schedule(sampled_steps(schedule.total_steps, width)).numpy()  # [width]
    eighths = np.ceil(rates / peak * height * 8 - 1e-3).astype(int)  # [width]; what is not 0 shows
    labels = {height - 1: f"{peak:.1e}", height // 2 - 1: f"{peak / 2:.1e}"}
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
    _, largest = peak_of(schedule)
    exponent = math.floor(math.log10(largest))
    peak = largest / 10**exponent
    figure, axes = _figure("Learning rate over the run", f"step (one batch; {steps_per_epoch:,} are an epoch)",
                           f"learning rate ($\\times 10^{{{exponent}}}$, of Adam in each step)")
    steps = sampled_steps(schedule.total_steps, min(schedule.total_steps, 2000))
    axes.plot(steps, schedule(steps).numpy() / 10**exponent, color=BLUE, linewidth=2)
    axes.set_xlim(0, schedule.total_steps)
    axes.set_ylim(0, peak * 1.12)
    axes.set_xticks(ticks := _ticks(schedule.total_steps, steps_per_epoch))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    for tick in ticks[1:-1]:
        axes.axvline(tick, color=GREY, linewidth=0.8, linestyle=":")
    if 0 < schedule.warmup_steps < schedule.total_steps:
        axes.axvline(schedule.warmup_steps, color=RED, linewidth=1, linestyle="--")
        axes.annotate(f"warmup ends at step {schedule.warmup_steps:,}", (schedule.warmup_steps, peak * 1.06),
                      xytext=(6, 0), textcoords="offset points", color=RED, va="center")
    _save(figure, path)


def lengths_png(lengths: Mapping[str, Sequence[int] | np.ndarray], limit: int, key: str, fate: str, path: Path
                ) -> None:
    """Writes the histogram of text lengths with the longest that the model reads.

    Args:
        lengths: what the texts are called → [texts] tokens of each, special ones included; one entry, or one for
            each side of pairs.
        limit: tokens of the longest text that the model reads.
        key: of the settings, for the limit.
        fate: of longer texts, such as "are cut".
        path: of the PNG.
    """
    sides = {name: np.asarray(side) for name, side in lengths.items()}
    longest = max(int(side.max()) for side in sides.values())
    count = len(next(iter(sides.values())))
    # A few texts beyond all others would leave the rest a few bars.
    usual = max(np.percentile(side, 99.5) for side in sides.values())
    end = max(math.ceil(usual), round(limit * 1.05))
    beyond = f"; the last bar also has the longer ones, up to {longest:,}" if longest > end else ""
    what = next(iter(sides)) if len(sides) == 1 else "texts"
    figure, axes = _figure(f"Lengths of {count:,} training {what if len(sides) == 1 else 'pairs'}",
                           f"length (tokens, special ones included{beyond})", what)
    width = max(1, -(-end // 60))
    edges = [edge + 0.5 for edge in range(0, end + width, width)]
    axes.hist([np.minimum(side, end) for side in sides.values()], bins=edges, color=[BLUE, ORANGE][:len(sides)],
              label=list(sides))
    axes.axvline(limit + 0.5, color=RED, linewidth=1.2, linestyle="--")
    axes.set_xlim(0, edges[-1])
    longer = float(np.mean(np.any([side > limit for side in sides.values()], axis=0)))
    # The words stand on the side of the limit that has more room.
    left = limit > end / 2
    axes.annotate(f"{key} {limit}, {longer:.1%} {fate}", (limit + 0.5, 0.95), color=RED,
                  xycoords=("data", "axes fraction"), xytext=(-6 if left else 6, 0), textcoords="offset points",
                  ha="right" if left else "left", va="center")
    if len(sides) > 1:
        axes.legend(frameon=False, loc="upper right" if left else "upper left",
                    bbox_to_anchor=((limit + 0.5) / edges[-1], 0.92))
    _save(figure, path)


def positions_png(code: np.ndarray, path: Path) -> None:
    """Writes the positional code as an image.

    Args:
        code: [length, width] floats from -1 to 1.
        path: of the PNG.
    """
    length, width = code.shape
    figure, axes = _figure("Positional code, added to the embedding of each token",
                           "position (tokens; [START] is at 0)", f"column of the embedding ({width} in all)")
    image = axes.imshow(code.T, aspect="auto", cmap="RdBu", vmin=-1, vmax=1, origin="lower", interpolation="nearest",
                        extent=(-0.5, length - 0.5, -0.5, width - 0.5))
    figure.colorbar(image, ax=axes, label="sine (even columns) or cosine (odd)", ticks=[-1, -0.5, 0, 0.5, 1])
    _save(figure, path)


def attention_png(weights: np.ndarray, source: Sequence[str], target: Sequence[str], title: str, path: Path) -> None:
    """Writes what each head of a layer looks at, a map a head.

    Args:
        weights: [heads, target, source] shares; those of a target token sum to 1.
        source: tokens of the text.
        target: tokens of the translation.
        title: of the picture.
        path: of the PNG.
    """
    from matplotlib.figure import Figure

    heads = len(weights)
    columns = min(heads, MAPS_ABREAST)
    rows = -(-heads // columns)
    cell = 0.24   # Inches a token: room for its name.
    size = (columns * (cell * len(source) + 0.25) + 2.2, rows * (cell * len(target) + 0.45) + 1.7)
    figure = Figure(figsize=size, dpi=DOTS_PER_INCH, layout="constrained")
    maps = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    top = max(float(weights.max()), 1e-9)
    for number, axes in enumerate(maps.flat):
        if number >= heads:
            axes.set_visible(False)
            continue
        image = axes.imshow(weights[number], cmap="Blues", vmin=0, vmax=top, aspect="auto")
        axes.set_title(f"head {number + 1}", fontsize=10)
        axes.set_xticks(range(len(source)), map(printable, source), rotation=90, fontsize=9)
        axes.set_yticks(range(len(target)), map(printable, target), fontsize=9)
        # Below the maps of a last row that is not full stand tokens, too.
        axes.tick_params(length=0, labelbottom=number + columns >= heads)
    figure.suptitle(title, fontweight="bold", ha="left", x=0.01)
    figure.supxlabel("text (tokens; ▪ where there was no space, ## inside a word)", fontsize=10)
    figure.supylabel("token about to be said", fontsize=10)
    figure.colorbar(image, ax=maps, label="attention (share; 1 in each line)", fraction=0.03, aspect=30)
    _save(figure, path)


def printable(token: str) -> str:
    """A token in characters that the plot's font has: the joiner is among those of Asian scripts."""
    return token.replace("￭", "▪")


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
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")   # A box is shown for it.
        figure.savefig(beside, format="png")
    beside.replace(path)
