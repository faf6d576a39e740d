"""The report's sections: what is known of a run → HTML. Pure functions; each gives nothing where nothing is known."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from components import report_plots as plots
from components.report_facts import (
    AttentionMap,
    DataFacts,
    Facts,
    QualityFacts,
    TrainingFacts,
    calibration_error,
    wilson,
)
from components.report_page import (
    Cell,
    Html,
    attribute,
    card,
    figure,
    grid,
    join,
    number,
    page,
    pairs,
    shown,
    table,
    texts,
)
from components.run_record import Run, Step, total_bytes
from components.verdict import verdict_sentence
from modules.progress import duration

MAIN = ("accuracy", "macro_f1", "auc", "mcc", "bleu", "chrf", "loss")
SLICED = ("accuracy", "bleu", "chrf", "loss")   # Others mean little where a slice has one label.
SHARES = ("accuracy",)   # Metrics that are counted shares, of which an interval is known.
PERCENT = ("bleu", "chrf")   # Metrics from 0 to 100.
SYMBOLS = {"done": "✓", "cached": "≡", "failed": "✗", "running": "…"}
WORDS = {"done": "executed", "cached": "cached", "failed": "failed", "running": "not finished"}
BOUNDS = {"min": "≥", "max": "≤", "max_drop": "drop ≤"}
FEW = 0.05   # Seconds below which a step's time is not worth a bar.


def report(facts: Facts) -> str:
    """The whole file."""
    return page(f"{facts.name} · run {facts.run.number}", heading(facts), [
        ("verdict", "Verdict", verdict(facts)), ("pipeline", "Pipeline", pipeline(facts.run)),
        ("data", "Data", data(facts.data) if facts.data else Html("")),
        ("training", "Training", training(facts.training, facts.run) if facts.training else Html("")),
        ("quality", "Quality", quality(facts.quality) if facts.quality else Html("")),
        ("card", "Model card", model_card(facts))])


def size(count: int | None) -> str:
    """Bytes as a person says them: "532 B", "1.2 MB"; "?" if nobody knows."""
    if count is None:
        return "?"
    for unit, bytes_ in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= bytes_:
            return f"{count / bytes_:.1f} {unit}"
    return f"{count} B"


def metric(name: str, value: float | None, sign: bool = False) -> str:
    """A metric's value: those from 0 to 100 have two decimals, those from 0 to 1 four."""
    decimals = 2 if name.partition("/")[0] in PERCENT else 4
    return "–" if value is None else f"{value:{'+' if sign else ''}.{decimals}f}"


def _metric_cell(name: str, value: float | None, sign: bool = False) -> Cell:
    return Cell(metric(name, value, sign), value=-1e308 if value is None else value, kind="n")


# 1. Verdict.


def outcome(run: Run) -> tuple[str, str]:
    """In a word or two, and the class of its colour."""
    return run.outcome, "good" if run.pushed else "bad" if run.failed else "so"


def heading(facts: Facts) -> Html:
    """The run's name, its outcome and when it was; the reason, if a gate stopped it; main metrics."""
    word, tone = outcome(facts.run)
    description = facts.settings.get("description", "")
    run = facts.run
    tiles = [("", duration(run.seconds), "in all")]
    if facts.quality:
        found = facts.quality.verdict
        tiles = [*((name, metric(name, found["metrics"][name]), name) for name in MAIN if name in found["metrics"]),
                 ("", f"{found['examples']:,}", f"{found['split']} examples"), *tiles]
    shown_tiles = "".join(f'<div class="tile"><b>{value}</b><span class="muted">{attribute(name)}</span></div>'
                          for _, value, name in tiles)
    return join([
        f'<h1>{attribute(facts.name)}</h1><span class="badge {tone}">{attribute(word)}</span>',
        f"<p>{shown(description)}</p>" if description else "",
        f'<p class="muted">Run {run.number} of {run.began:%Y-%m-%d %H:%M} · '
        f"{attribute(facts.settings.get('shape', ''))}</p>",
        reason(facts), f'<div class="tiles">{shown_tiles}</div>'])


def reason(facts: Facts) -> Html:
    """Why the run stopped; nothing if it did not."""
    failed = facts.run.failed
    if failed is None:
        return Html("")
    said = failed.reason
    if not said and facts.quality and not facts.quality.verdict["passed"]:
        said = verdict_sentence(facts.quality.verdict)
    return Html(f'<div class="card alert" role="alert"><b class="bad">{attribute(failed.name)} stopped the run.</b>\n'
                f"{shown(said or 'The log of the run says why.', 8000)}</div>")


def verdict(facts: Facts) -> Html:
    """Why it was pushed or not, and all that is needed to do it again."""
    run, told = facts.run, facts.settings
    found = facts.quality.verdict if facts.quality else None
    sentence = attribute(verdict_sentence(found)) if found else "The run did not come as far as a verdict."
    where = f"Served from <code>{shown(run.pushed)}</code>." if run.pushed else ""
    return join([
        # Why a run was stopped stands on top already.
        card("" if run.failed else f"<p>{sentence}</p>", f"<p>{where}</p>" if where else "",
             _thresholds(found) if found else ""),
        grid(card(pairs([
            ("data", _source(told.get("data", {}))),
            ("starts from", shown(told["encoder"]["source"]) if "encoder" in told else Html("new weights")),
            ("seed", attribute(told.get("seed", "?"))),
            ("again", Html(f"<pre>{attribute(facts.command)}</pre>")),
        ]), title="What it was made from"),
            card(pairs([
                *((f"{what} sha256", Html(f'<span class="mono">{attribute(digest)}</span>'))
                  for what, digest in run.read.items()),
                ("code", Html("".join(f'<span class="mono keep" title="{attribute(digest)}">{attribute(name)} '
                                      f'<span class="muted">{attribute(digest[:12])}</span></span>'
                                      for name, digest in run.code.items()))),
                ("stack", attribute(", ".join(f"{name} {version}" for name, version in facts.stack.items()))),
                ("machine", attribute(facts.machine)),
            ]), title="Fingerprints"))])


def _source(told: Mapping[str, Any]) -> Html:
    path = told.get("path") or told.get("name") or ""
    places = path.items() if isinstance(path, dict) else [("", path)]
    lines = "<br>".join(f"{attribute(split)} <code>{shown(place)}</code>" for split, place in places)
    return Html(f"{attribute(told.get('source', '?'))} {'<br>' if isinstance(path, dict) else ''}{lines}")


def bound(row: Mapping[str, Any]) -> str:
    """A threshold's bounds in signs, e.g. "≥ 0.9, drop ≤ 0.01"."""
    return ", ".join(f"{sign} {row[key]:g}" for key, sign in BOUNDS.items() if row[key] is not None)


def _thresholds(found: Mapping[str, Any]) -> Html:
    failed = any(row["why"] for row in found["rows"])
    return table(("metric", "value", "bound", "baseline", "change", "verdict", *["why"] * failed), [
        [Cell(html=shown(row["metric"])), _metric_cell(row["metric"], row["value"]), Cell(bound(row)),
         _metric_cell(row["metric"], row["baseline"]), _metric_cell(row["metric"], row["change"], sign=True),
         Cell(html=f'<b class="{"good" if row["verdict"] == "passed" else "bad"}">{attribute(row["verdict"])}</b>'),
         *[Cell(html=shown(row["why"]))] * failed] for row in found["rows"]],
        f"Held against {found['examples']:,} examples of the {found['split']} split; the baseline is what was served")


# 2. Pipeline.


def pipeline(run: Run) -> Html:
    """The components in order, with what each took and what it made."""
    boxes = "".join(
        f'<li class="{step.state}"><b>{attribute(step.name)}</b><small>{SYMBOLS[step.state]} {_took(step)}'
        f'<span class="muted">{_made(step)}</span></small></li>'
        for step in run.steps)
    if run.failed or any(step.state == "running" for step in run.steps):
        boxes += '<li class="waiting muted"><small>what comes after did not run</small></li>'
    longest = max((step.seconds for step in run.steps), default=0) or 1
    bars = "".join(
        f'<div class="time {step.state}"><span>{attribute(step.name)}</span>'
        f'<span style="flex:1"><i style="width:{100 * step.seconds / longest:.1f}%"></i></span>'
        f"<span>{duration(step.seconds)}</span></div>"
        for step in run.steps if step.seconds > FEW)
    rows = [[Cell(place, value=place, kind="n"), Cell(step.name), Cell(WORDS[step.state]),
             Cell(duration(step.seconds) if step.state != "cached" else "–", value=step.seconds, kind="n"),
             Cell(html=_because(step)), Cell(html=_artifacts(step))] for place, step in enumerate(run.steps, start=1)]
    return join([
        card(f'<ol class="flow" aria-label="components in the order in which they ran">{boxes}</ol>'),
        card(bars, title=f"Where the {duration(run.seconds)} went") if bars else "",
        card(table(("", "component", "state", "time", "because", "made"), rows))])


def _took(step: Step) -> str:
    return "cached" if step.state == "cached" else f"failed, {duration(step.seconds)}" if step.state == "failed" else (
        duration(step.seconds) if step.state == "done" else "not finished")


def _made(step: Step) -> str:
    made = total_bytes(step.outputs.values())
    return f" · {size(made)}" if made else ""


def _because(step: Step) -> Html:
    if step.state == "cached":
        if step.maker is None:
            return Html("same inputs, settings and code as before")
        execution, began, seconds = step.maker
        return Html(f"same inputs, settings and code as execution {execution} of {began:%Y-%m-%d %H:%M}, which took "
                    f"{duration(seconds)}")
    return shown(step.reason) if step.reason else Html("")


def _artifacts(step: Step) -> Html:
    return Html("<br>".join(
        f'{attribute(artifact.key)} <span class="muted">{size(artifact.bytes)}</span>'
        for artifact in step.outputs.values()))


# 3. Data.


def data(facts: DataFacts) -> Html:
    """Rows, labels, lengths, and what was wrong with them."""
    some = "" if facts.whole else " (of the first rows)"
    return join([
        grid(card(_rows(facts), title="Rows"), card(_balance(facts.labels), title="Labels")),
        grid(*(card(figure(plots.lengths(facts.characters, "characters", _length_alt(facts.characters, "characters")),
                           _percentiles(facts.characters)), title=f"Length of texts, in characters{some}")
               for _ in range(bool(facts.characters))),
             *(card(figure(plots.lengths(facts.tokens, "tokens, special ones included",
                                         _length_alt(facts.tokens, "tokens"), _limit(facts)),
                           f"{_percentiles(facts.tokens)} {_cut(facts)}"), title=f"Length of texts, in tokens{some}")
               for _ in range(bool(facts.tokens)))),
        grid(card(_leaks(facts), title="Rows that stand in two splits"),
             card(_vocabulary(facts), title="What the vocabulary covers")),
        grid(card(_anomalies(facts), title="Anomalies"), card(_skipped(facts), title="Rows left out"))])


def _rows(facts: DataFacts) -> Html:
    total = sum(facts.rows.values()) or 1
    return table(("split", "rows", "share", "too long, left out", "blank texts"), [
        [Cell(split), number(count), number(count / total, ".1%"), number(facts.dropped.get(split, 0)),
         number(max(facts.empty.get(split, {"": 0.0}).values()), ".2%")] for split, count in facts.rows.items()],
        sortable=False)


def _balance(labels: Mapping[str, Mapping[str, int]]) -> Html:
    names = sorted({name for counts in labels.values() for name in counts})
    if not names:
        return Html("")
    alphas = {name: 0.85 - 0.65 * place / max(1, len(names) - 1) for place, name in enumerate(names)}
    bars = []
    for split, counts in labels.items():
        total = sum(counts.values()) or 1
        said = ", ".join(f"{name} {counts.get(name, 0) / total:.1%}" for name in names[:20])
        parts = "".join(f'<i style="width:{100 * counts.get(name, 0) / total:.2f}%;--a:{alphas[name]:.2f}" '
                        f'title="{attribute(name)}: {counts.get(name, 0):,}"></i>' for name in names)
        bars.append(f'<div class="time"><span>{attribute(split)}</span><span class="bar" style="flex:1" role="img" '
                    f'aria-label="{attribute(f"labels of {split}: {said}")}">{parts}</span></div>')
    splits = list(labels)
    return join([*bars, table(("label", *splits), [
        [texts(name, 80), *(number(labels[split].get(name, 0)) for split in splits)] for name in names])])


def _length_alt(sides: Mapping[str, np.ndarray], unit: str) -> str:
    return f"Histogram of lengths in {unit}. {_percentiles(sides)}"


def _percentiles(sides: Mapping[str, np.ndarray]) -> str:
    said = []
    for name, side in sides.items():
        half, most, longest = (f"{value:,.0f}" for value in (*np.percentile(side, (50, 95)), side.max()))
        said.append(f"{name}: half have at most {half}, 95% at most {most}, the longest {longest}.")
    return " ".join(said)


def _limit(facts: DataFacts) -> tuple[int, str] | None:
    return (facts.limit, f"{'max_length' if facts.cuts else 'max_tokens'} {facts.limit}") if facts.limit else None


def _cut(facts: DataFacts) -> str:
    if not facts.limit or not facts.tokens:
        return ""
    if not facts.cuts:
        dropped = facts.dropped.get("train", 0)
        return (f"Longer pairs than {facts.limit} are left out of training: {dropped:,} of {facts.rows['train']:,} "
                f"({dropped / max(1, facts.rows['train']):.2%}).")
    reach = float(np.mean([np.mean(side >= facts.limit) for side in facts.tokens.values()]))
    if not reach:
        return f"Longer texts than {facts.limit} are cut; none is."
    return f"Longer texts than {facts.limit} are cut: {reach:.1%} fill it and lost their rest, or fit exactly."


def _leaks(facts: DataFacts) -> Html:
    return table(("rows of", "that also stand in", "rows", "share"), [
        [Cell(one), Cell(other), Cell(html=f'<b class="bad">{count:,}</b>' if count else "0", value=count, kind="n"),
         number(count / max(1, facts.rows.get(one, 1)), ".2%")]
        for (one, other), count in facts.duplicates.items()],
        "Same texts, whatever the label; a model is judged too well on rows it was trained on", sortable=False)


def _vocabulary(facts: DataFacts) -> Html:
    if facts.unknown:
        return table(("texts", "unknown tokens"), [[texts(name, 80), number(share, ".3%")]
                                                   for name, share in facts.unknown.items()], sortable=False)
    rows = [[Cell(side), number(one["size"]), number(one["tokens_per_word"], ".2f"),
              number(one["unknown_share"], ".3%"), number(one["characters_covered"], ".2%")]
             for side, one in facts.coverage.items()]
    return table(("texts", "pieces", "tokens/word", "unknown", "characters known"), rows, sortable=False)


def _anomalies(facts: DataFacts) -> Html:
    if not facts.anomalies:
        return Html("<p>None: every split fits the schema.</p>")
    return table(("split", "feature", "reason", ""), [
        [Cell(split), texts(feature, 80), texts(why), Cell("accepted" if accepted else "not accepted")]
        for split, feature, why, accepted in facts.anomalies])


def _skipped(facts: DataFacts) -> Html:
    if not facts.skipped:
        return Html("<p>None: every row that was read is in a split.</p>")
    return join([
        table(("reason", "rows"), [[texts(why), number(count)] for why, count in facts.skipped.items()]),
        table(("line", "reason", "row"), [
            [number(row["line"], "d"), texts(row["reason"]), texts(row["row"], 300)] for row in facts.skipped_rows],
            "Some of them")])


# 4. Training.


def training(facts: TrainingFacts, run: Run) -> Html:
    """Curves, speed, padding, and which round was taken."""
    rounds, best = facts.history["rounds"], facts.history["best_round"]
    taken = rounds[best] if rounds else None
    average = facts.history.get("average")
    chosen = (f"the mean of the last {len(average['steps'])} rounds' weights" if average and average["taken"] else
              f"round {best + 1} of {len(rounds)}, step {taken['step']:,}" if taken else "")
    speed = next((name for name in (taken or {}) if name.endswith("_per_second")), "")
    return join([
        card(pairs([
            ("taken", attribute(chosen)),
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
        said = f"{name} over the steps of training; in the last validation {lines['validation'][1][-1]:.4f}"
        yield card(figure(plots.curves(lines, "step", said, mark, dots=("validation",))), title=name.capitalize())
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


def _rounds(rounds: Sequence[Mapping[str, Any]], best: int, speed: str) -> Html:
    names = sorted(rounds[0]["validation"]) if rounds else []
    return table(("round", "epoch", "step", "learning rate", "time", "training loss",
                  *(f"val. {name}" for name in names), _words(speed, "/s").rpartition(" ")[2], ""), [
        [number(place + 1), number(one["epoch"]), number(one["step"]), number(one["learning_rate"], ".2e"),
         Cell(duration(one["seconds"]), value=one["seconds"], kind="n"), number(one["train"]["loss"], ".4f"),
         *(number(one["validation"][name], ".4f") for name in names), number(one.get(speed), ",.0f"),
         Cell("best" if place == best else "")] for place, one in enumerate(rounds)], "Validation rounds")


# 5. Quality.


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
    head = "".join(f'<th scope="col">{shown(name, 60)}</th>' for name in names)
    rows = "".join(
        f'<tr><th scope="row">{shown(name, 60)}</th>' + "".join(
            f'<td style="--a:{0.06 + 0.6 * shares[actual, predicted]:.2f}'
            f'{";--rgb:var(--red-rgb)" if actual != predicted else ""}" '
            f'title="{shares[actual, predicted]:.1%} of {attribute(name)}">{counts[actual, predicted]:,}</td>'
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
    slices = [{"slice": "all", "examples": found["examples"], "metrics": found["metrics"]}, *found["slices"]]
    names = [name for name in SLICED if any(name in one["metrics"] for one in found["slices"])]
    if not names:
        return Html("")
    main = names[0]
    top = 100 if main in PERCENT else 1
    rows = []
    for one in slices:
        value = one["metrics"].get(main)
        interval = wilson(value, one["examples"]) if main in SHARES and value is not None else None
        rows.append([
            texts(one["slice"], 80), number(one["examples"]),
            *(_metric_cell(name, one["metrics"].get(name)) for name in names),
            *([Cell(f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "–",
                    value=interval[0] if interval else None, kind="n")] if main in SHARES else []),
            Cell(html=_meter(value, interval, top), value=value or 0.0)])
    columns = ("slice", "examples", *names, *(["95% interval"] if main in SHARES else []), main)
    return table(columns, rows, "Intervals of the accuracy are Wilson's: few examples tell little"
                 if main in SHARES else "")


def _meter(value: float | None, interval: tuple[float, float] | None, top: float) -> Html:
    if value is None:
        return Html("")
    ends = (f'<u style="left:{100 * interval[0]:.1f}%;width:{100 * (interval[1] - interval[0]):.1f}%"></u>'
            if interval else "")
    return Html(f'<span class="meter"><i style="width:{min(100, max(0, 100 * value / top)):.1f}%"></i>{ends}</span>')


def _classes(found: Mapping[str, Any]) -> Html:
    classes = found.get("confusion", {}).get("classes", ())
    return table(("class", "precision", "recall", "F1"), [
        [texts(name, 80), *(_metric_cell(kind, found["metrics"].get(f"{kind}/{name}"))
                            for kind in ("precision", "recall", "f1"))] for name in classes])


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
    return table(("text", "was", "filled with"), [
        [texts(row["text"]), texts(row["label"]), texts(row["predicted"])] for row in rows])


# 6. Model card.


def model_card(facts: Facts) -> Html:
    """What the model is for, what it was made from, and what it may be used for."""
    told, found = facts.settings.get("card", {}), facts.quality.verdict if facts.quality else None
    shape = facts.settings.get("shape", "")
    columns = facts.settings.get("data", {})
    rows = facts.data.rows if facts.data else {}

    def said(key: str) -> Html:
        return shown(told[key], 4000) if told.get(key) else Html(f'<span class="muted">not said; set card.{key}</span>')

    metrics = ", ".join(f"{name} {metric(name, found['metrics'][name])}" for name in MAIN
                        if name in found["metrics"]) if found else ""
    return card(pairs([
        ("model", Html(f"{attribute(shape)}, reads {_names(columns, ('text', 'text_pair'))}, answers "
                       f"{_names(columns, ('label', 'target'))}")),
        ("intended use", said("intended_use")), ("limits", said("limits")),
        ("training data", Html(f"{_source(columns)}<br>{rows.get('train', 0):,} rows") if rows else Html("")),
        ("metrics", attribute(f"{metrics}, on {found['examples']:,} examples of the {found['split']} split")
         if found else Html("")),
        ("licence", said("licence")), ("licence of the data", said("data_licence")), ("contact", said("contact")),
        ("settings", Html(f"<details><summary>all of them</summary><pre>"
                          f"{attribute(json.dumps(facts.settings, ensure_ascii=False, indent=1))}</pre></details>")),
        ("written", f"{facts.written:%Y-%m-%d %H:%M}"),
    ]))


def _names(columns: Mapping[str, Any], roles: Sequence[str]) -> Html:
    return Html(" and ".join(f"<code>{shown(columns[role], 80)}</code>" for role in roles if columns.get(role)))
