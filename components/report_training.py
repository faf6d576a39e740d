"""The report's section on training: curves, speed, padding, and which round was taken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from components import report_plots as plots
from components.report_facts import TrainingFacts
from components.report_page import Cell, Html, attribute, card, figure, grid, join, number, pairs, table
from components.report_words import spelled
from modules.progress import duration


def training(facts: TrainingFacts) -> Html:
    """Curves, speed, padding, and which round was taken."""
    rounds, best = facts.history["rounds"], facts.history["best_round"]
    taken = rounds[best] if rounds else None
    average = facts.history.get("average")
    chosen = (f"the mean of the last {len(average['steps'])} rounds' weights" if average and average["taken"] else
              f"round {best + 1} of {len(rounds)}, in epoch {taken['epoch']}, step {taken['step']:,}" if taken else "")
    speed = next((name for name in (taken or {}) if name.endswith("_per_second")), "")
    return join([
        card(pairs([
            ("taken as best", attribute(chosen)),
            ("steps", f"{facts.history['step']:,} in {duration(facts.history['seconds'])}"),
            ("speed", _speed(rounds, speed)),
            ("padding", _padding(facts)),
        ])),
        grid(*_curves(facts, taken)),
        card(_rounds(rounds, best, speed))])


def _speed(rounds: Sequence[Mapping[str, Any]], name: str) -> str:
    if not name:
        return ""
    return attribute(f"{np.median([one[name] for one in rounds]):,.0f} {_words(name, '/s')}, the median of the rounds")


def _words(name: str, per: str) -> str:
    return name.removesuffix("_per_second").replace("_", " ") + per


def _padding(facts: TrainingFacts) -> Html:
    if not facts.tokens:
        return Html("")
    bucketed, fixed = (1 - facts.tokens / padded for padded in (facts.bucketed, facts.fixed))
    return Html(f"{bucketed:.1%} of what was computed on was padding. With every text padded to the limit it would be "
                f"{fixed:.1%}, of {facts.fixed / facts.bucketed:.1f} times the tokens: batches of like length saved "
                "the difference.")


def _curves(facts: TrainingFacts, taken: Mapping[str, Any] | None) -> Iterable[Html]:
    rounds = facts.history["rounds"]
    mark = (taken["step"], "taken") if taken else None
    steps = np.array([one["step"] for one in rounds])
    # TensorBoard has a point a second or so, and of a training of seconds perhaps none: then the rounds tell.
    means = {name: (steps, np.array([one["train"][name] for one in rounds]))
             for name in (rounds[0]["train"] if rounds else ())}
    means |= {"learning_rate": (steps, np.array([one["learning_rate"] for one in rounds]))} if rounds else {}
    train = means | {tag.removeprefix("train/"): curve for tag, curve in facts.curves.items()
                     if tag.startswith("train/")}
    for name in dict.fromkeys(["loss", *sorted(rounds[0]["validation"])] if rounds else ()):
        lines = {"training": train[name]} if name in train else {}
        lines["validation"] = steps, np.array([one["validation"][name] for one in rounds])
        said = f"{spelled(name)} over the steps of training; in the last validation {lines['validation'][1][-1]:.4f}"
        yield card(figure(plots.curves(lines, "step", said, mark, dots=("validation",))), title=_titled(name))
    for name, title, alt in (("learning_rate", "Learning rate, as it was run", "learning rate over the steps"),
                             ("gradient_norm", "Gradient norm", "global gradient norm over the steps")):
        if name in train:
            said = f"{alt}; at most {train[name][1].max():.3g}"
            yield card(figure(plots.curves({title: train[name]}, "step", said)), title=title)
    for tag, curve in facts.curves.items():
        if tag.endswith("_per_second"):
            unit = _words(tag.removeprefix("train/"), " a second")
            yield card(figure(plots.curves({unit: curve}, "step", f"{unit} over the steps; in the median "
                                           f"{np.median(curve[1]):,.0f}")), title=f"Throughput, {unit}")


def _titled(name: str) -> str:
    said = spelled(name)
    return said[:1].upper() + said[1:]


def _rounds(rounds: Sequence[Mapping[str, Any]], best: int, speed: str) -> Html:
    names = sorted(rounds[0]["validation"]) if rounds else []
    return table(("round", "epoch", "step", "learning rate", "time", "training loss",
                  *(f"val. {spelled(name)}" for name in names), _words(speed, "/s").rpartition(" ")[2], ""), [
        [number(place + 1), number(one["epoch"]), number(one["step"]), number(one["learning_rate"], ".2e"),
         Cell(duration(one["seconds"]), value=one["seconds"], kind="n"), number(one["train"]["loss"], ".4f"),
         *(number(one["validation"][name], ".4f") for name in names), number(one.get(speed), ",.0f"),
         Cell("best" if place == best else "")] for place, one in enumerate(rounds)], "Validation rounds")


