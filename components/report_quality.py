"""The report's section on quality: where the model is right, and where it is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from components import report_plots as plots
from components.report_facts import AttentionMap, QualityFacts, calibration_error
from components.report_page import MISSING, Cell, Html, attribute, card, figure, grid, join, number, shown, table, texts
from components.report_words import PERCENT, all_intervals, interval, interval_cell, metric, metric_cell, spelled

MASK = "[MASK]"
CONFUSED = 30   # Classes that a matrix has at most.
SLICED = ("accuracy", "bleu", "chrf", "masked_accuracy", "pseudo_perplexity", "next_accuracy", "loss")


def quality(facts: QualityFacts) -> Html:
    """Where the model is right and where it is not."""
    found = facts.verdict
    signatures = "".join(f'<p class="muted mono">{attribute(name)}: {attribute(one)}</p>'
                         for name, one in found.get("signatures", {}).items())
    return join([
        grid(card(_confusion(found["confusion"]), title="Confusion") if "confusion" in found else "",
             card(_calibration(facts.calibration), title="Calibration")),
        card(_slices(found), signatures, title="Slices"),
        card(_classes(found), title="Classes"),
        card(_mistakes(facts.samples.get("mistakes", ())), title="Most confident mistakes"),
        *(card(_translations(facts.samples[kind]), title=title) for kind, title in (
            ("worst", "Worst translations"), ("best", "Best translations"), ("random", "Translations drawn at random"))
          if facts.samples.get(kind)),
        card(_attention_maps(facts.attention), title="What each word of a translation looked at"),
        card(_filled(facts.samples.get("masked", ())), title="Masked words, filled")])


def _confusion(found: Mapping[str, Any]) -> Html:
    names, counts = found["classes"], np.array(found["counts"])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)  # of the rows of a label
    if len(names) > CONFUSED:
        wrong = counts * (1 - np.eye(len(names), dtype=int))
        most = np.argsort(-wrong, axis=None, kind="stable")[:2 * CONFUSED]
        pairs = [divmod(int(place), len(names)) for place in most if wrong.flat[place]]
        return table(("label", "answer", "examples", "of the label"), [
            [texts(names[actual], 80), texts(names[predicted], 80), number(counts[actual, predicted]),
             number(shares[actual, predicted], ".1%")] for actual, predicted in pairs],
            f"The most frequent confusions of {len(names):,} classes")
    head = "".join(f'<th scope="col">{shown(name, 60)}</th>' for name in names)
    rows = "".join(
        f'<tr><th scope="row">{shown(name, 60)}</th>' + "".join(
            f'<td style="--a:{0.06 + 0.6 * shares[actual, predicted]:.2f}'
            f'{";--rgb:var(--red-rgb)" if actual != predicted else ""}" '
            f'title="{shares[actual, predicted]:.1%} of {attribute(name[:80])}">{counts[actual, predicted]:,}</td>'
            for predicted in range(len(names))) + "</tr>" for actual, name in enumerate(names))
    return Html(f'<table class="heat"><caption>Lines are the labels of the data, columns the answers</caption>'
                f"<thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table>")


def _calibration(bands: Sequence[Mapping[str, float]]) -> Html:
    if not bands:
        return Html("")
    error = calibration_error(bands)
    alt = f"Share of right answers by confidence; expected calibration error {error:.3f}"
    return figure(plots.calibration(bands, alt), "On the dashed line confidence and truth are the same. Expected "
                  f"calibration error {error:.3f}; larger dots are more examples.")


def _slices(found: Mapping[str, Any]) -> Html:
    whole = {"slice": "all", "examples": found["examples"], "metrics": found["metrics"],
             "intervals": found.get("intervals", {})}
    names = [name for name in SLICED if any(name in one["metrics"] for one in found["slices"])]
    if not names:
        return Html("")
    main, others = names[0], names[1:]
    lines = [(one, one["metrics"].get(main), one.get("intervals", {}).get(main)) for one in (whole, *found["slices"])]
    top = 100 if main in PERCENT else 1
    rows = [[texts(one["slice"], 80), number(one["examples"]), metric_cell(main, value), interval_cell(main, ends),
             Cell(html=_meter(value, ends, top), value=value or 0.0),
             *(_with_interval(name, one) for name in others)] for one, value, ends in lines]
    return table(("slice", "examples", spelled(main), "95% interval", "", *map(spelled, others)), rows,
                 "Of few examples little is known: the truth lies in the interval 95 times of 100")


def _with_interval(name: str, one: Mapping[str, Any]) -> Cell:
    """A metric with its interval below, of something that has `metrics` and maybe `intervals`."""
    value, ends = one["metrics"].get(name), one.get("intervals", {}).get(name)
    spread = f'<br><small class="muted">{interval(name, ends)}</small>' if ends else ""
    return Cell(html=f"{metric(name, value)}{spread}", value=MISSING if value is None else value, kind="n")


def _meter(value: float | None, ends: Sequence[float] | None, top: float) -> Html:
    if value is None:
        return Html("")
    low, high = (100 * end / top for end in ends) if ends else (0.0, 0.0)
    whisker = f'<u style="left:{low:.1f}%;width:{high - low:.1f}%"></u>' if ends else ""
    return Html(f'<span class="meter"><i style="width:{min(100, max(0, 100 * value / top)):.1f}%"></i>{whisker}</span>')


def _classes(found: Mapping[str, Any]) -> Html:
    if "confusion" not in found:
        return Html("")
    examples = np.array(found["confusion"]["counts"]).sum(axis=1)
    one = {"metrics": found["metrics"], "intervals": all_intervals(found)}
    return table(("class", "examples", "precision", "recall", "F1"), [
        [texts(name, 80), number(count), *(_with_interval(f"{kind}/{name}", one)
                                           for kind in ("precision", "recall", "f1"))]
        for name, count in zip(found["confusion"]["classes"], examples, strict=True)], "Each with its 95% interval")


def _mistakes(rows: Sequence[Mapping[str, Any]]) -> Html:
    return table(("score", "answer", "label", "text"), [
        [number(row["score"], ".3f"), texts(row["predicted"], 60), texts(row["label"], 60),
         Cell(html="<hr>".join(shown(text) for text in _texts_of(row["text"])), kind="text")] for row in rows])


def _texts_of(text: str | list[str]) -> list[str]:
    return text if isinstance(text, list) else [text]


def _translations(rows: Sequence[Mapping[str, Any]]) -> Html:
    return table(("chrF", "score", "text", "reference", "translation"), [
        [number(row["chrf"], ".1f"), number(row["score"], ".2f"), texts(row["source"]), texts(row["reference"]),
         texts(row["translation"])] for row in rows])


def _attention_maps(maps: Sequence[AttentionMap]) -> Html:
    if not maps:
        return Html("")
    return Html('<p class="muted">Each token of the translation (lines) on the text\'s (columns): the mean of the last '
                f'layer\'s heads</p><div class="side">{"".join(map(_attention, maps))}</div>')


def _attention(one: AttentionMap) -> Html:
    head = "".join(f'<th scope="col">{_token(token)}</th>' for token in one.source)
    top = float(one.weights.max()) or 1.0
    rows = "".join(
        f'<tr><th scope="row">{_token(token)}</th>' + "".join(
            f'<td style="--a:{weight / top:.2f}" title="{weight:.0%}"></td>' for weight in line) + "</tr>"
        for token, line in zip(one.target, one.weights, strict=True))
    return Html(f'<table class="heat maps"><thead><tr><td></td>{head}</tr></thead>'
                f"<tbody>{rows}</tbody></table>")


def _token(token: str) -> Html:
    """A token in characters that usual fonts have: the joiner is among those of Asian scripts."""
    return shown(token.replace("￭", "▪"), 24)


def _filled(rows: Sequence[Mapping[str, Any]]) -> Html:
    """Texts with what stood behind each mask, and what the model tells for it; right answers are marked."""
    return table(("text", "what was there → what the model tells for it"), [
        [Cell(html=shown(row["text"]).replace(MASK, f"<mark>{MASK}</mark>"), kind="text"),
         Cell(html="".join(f"<div>{_mask(mask)}</div>" for mask in row["masks"]), kind="text half")] for row in rows],
        sortable=False)


def _mask(mask: Mapping[str, Any]) -> Html:
    words = " ".join(
        f'<span class="word{" good" if word == mask["label"] else ""}">{shown(word, 40)} '
        f"<small>{probability:.0%}</small></span>"
        for word, probability in zip(mask["words"], mask["probabilities"], strict=True))
    return Html(f"<b>{shown(mask['label'], 40)}</b> → {words}")
