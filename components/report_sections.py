"""The report of a run as a page: verdict, pipeline and model card here; data, training and quality beside this.

Pure functions; each gives nothing where nothing is known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from components.report_data import data
from components.report_facts import Facts
from components.report_page import Cell, Html, attribute, card, grid, join, page, pairs, shown, table
from components.report_quality import quality
from components.report_training import training
from components.report_words import (
    all_intervals,
    interval,
    interval_cell,
    metric,
    metric_cell,
    metrics_of,
    size,
    spelled,
)
from components.rows import SPLITS
from components.run_record import Run, Step, changes, total_bytes
from components.verdict import verdict_sentence
from modules.progress import duration

SYMBOLS = {"done": "✓", "cached": "≡", "failed": "✗", "running": "…"}
WORDS = {"done": "executed", "cached": "cached", "failed": "failed", "running": "not finished"}
BOUNDS = {"min": "≥", "max": "≤", "max_drop": "drop ≤"}
FEW = 0.05   # Seconds below which a step's time is not worth a bar.


def report(facts: Facts) -> str:
    """The whole file."""
    return page(f"{facts.name} · run {facts.run.number}", heading(facts), [
        ("verdict", "Verdict", verdict(facts)), ("pipeline", "Pipeline", pipeline(facts.run)),
        ("data", "Data", data(facts.data) if facts.data else Html("")),
        ("training", "Training", training(facts.training) if facts.training else Html("")),
        ("quality", "Quality", quality(facts.quality) if facts.quality else Html("")),
        ("card", "Model card", model_card(facts))])


# 1. Verdict.


def outcome(run: Run) -> tuple[str, str]:
    """In a word or two, and the class of its colour."""
    return run.outcome, "good" if run.pushed else "bad" if run.failed else "so"


def heading(facts: Facts) -> Html:
    """The run's name, its outcome and when it was; the reason, if a gate stopped it; main metrics."""
    word, tone = outcome(facts.run)
    description, run = facts.settings.get("description", ""), facts.run
    tiles = [_tile(duration(run.seconds), "in all")]
    if facts.quality:
        found = facts.quality.verdict
        tiles = [*(_metric_tile(name, found) for name in metrics_of(found)),
                 _tile(f"{found['examples']:,}", f"{found['split']} examples"), *tiles]
    return join([
        f'<h1>{attribute(facts.name)}</h1><span class="badge {tone}">{attribute(word)}</span>',
        f"<p>{shown(description)}</p>" if description else "",
        f'<p class="muted">Run {run.number} of {run.began:%Y-%m-%d %H:%M} · '
        f"{attribute(facts.settings.get('shape', ''))}</p>",
        reason(facts), f'<div class="tiles">{"".join(tiles)}</div>'])


def _metric_tile(name: str, found: Mapping[str, Any]) -> str:
    value, served = found["metrics"][name], (found.get("baseline_metrics") or {}).get(name)
    said = [interval(name, found.get("intervals", {}).get(name)),
            f"{metric(name, value - served, sign=True)} against the served" if served is not None else ""]
    return _tile(metric(name, value), spelled(name), *filter(None, said))


def _tile(value: str, name: str, *said: str) -> str:
    below = "".join(f"<small>{attribute(one)}</small>" for one in said)
    return f'<div class="tile"><b>{attribute(value)}</b><span class="muted">{attribute(name)}</span>{below}</div>'


def reason(facts: Facts) -> Html:
    """Why the run stopped; nothing if it did not."""
    failed = facts.run.failed
    if failed is None:
        under_way = next((step for step in facts.run.steps if step.state == "running"), None)
        return Html(f'<div class="card alert wait" role="note"><b class="so">{attribute(under_way.name)} did not end.'
                    "</b>\nThe run is under way, or was interrupted; started again, it takes up there.</div>"
                    if under_way else "")
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
            ("starts from", shown(told["encoder"]["source"]) if told.get("encoder") else Html("new weights")),
            ("seed", attribute(told.get("seed", "?"))),
            ("again", Html(f"<pre>{attribute(facts.command)}</pre>")),
            ("changed", _changed(facts)),
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


def _changed(facts: Facts) -> Html:
    """What the run was told otherwise than the one before it; nothing of a first one."""
    if facts.before is None:
        return Html("")
    found = changes(facts.before, facts.run)
    lines = [f"{attribute(one.name)} <code>{shown(json.dumps(one.before, ensure_ascii=False), 80)}</code> → "
             f"<code>{shown(json.dumps(one.after, ensure_ascii=False), 80)}</code>"
             for one in found if one.what == "settings"]
    lines += [attribute(one.what) for one in found if one.what not in ("settings", "code")]
    if code := [one.name for one in found if one.what == "code"]:
        lines.append(attribute(f"code of {', '.join(code)}"))
    against = f'<span class="muted">against run {facts.before.number}</span>'
    return Html("<br>".join([f"{against}: nothing" if not lines else against, *lines]))


def _source(told: Mapping[str, Any]) -> Html:
    path = told.get("path") or told.get("name") or ""
    places = {split: path[split] for split in SPLITS if split in path} if isinstance(path, dict) else {"": path}
    lines = "<br>".join(f"{attribute(split)} <code>{shown(place)}</code>" for split, place in places.items())
    return Html(f"{attribute(told.get('source', '?'))} {'<br>' if isinstance(path, dict) else ''}{lines}")


def bound(row: Mapping[str, Any]) -> str:
    """A threshold's bounds in signs, e.g. "≥ 0.9, drop ≤ 0.01"."""
    return ", ".join(f"{sign} {row[key]:g}" for key, sign in BOUNDS.items() if row[key] is not None)


def _thresholds(found: Mapping[str, Any]) -> Html:
    failed, intervals = any(row["why"] for row in found["rows"]), all_intervals(found)
    lines = table(("metric", "value", "95% interval", "bound", "baseline", "change", "verdict", *["why"] * failed), [
        [Cell(html=shown(row["metric"])), metric_cell(row["metric"], row["value"]),
         interval_cell(row["metric"], intervals.get(row["metric"])), Cell(bound(row)),
         metric_cell(row["metric"], row["baseline"]), metric_cell(row["metric"], row["change"], sign=True),
         Cell(html=f'<b class="{"good" if row["verdict"] == "passed" else "bad"}">{attribute(row["verdict"])}</b>'),
         *[Cell(html=shown(row["why"]))] * failed] for row in found["rows"]],
        f"Held against {found['examples']:,} examples of the {found['split']} split; the baseline is what was served")
    if different := found.get("not_comparable"):
        return join([lines, f'<p class="muted">The served model was not compared: {attribute(different)}.</p>'])
    return lines


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
    because = any(_because(step) for step in run.steps)
    rows = [[Cell(place, value=place, kind="n"), Cell(step.name), Cell(WORDS[step.state]),
             Cell(duration(step.seconds) if step.state != "cached" else "–", value=step.seconds, kind="n"),
             *[Cell(html=_because(step))] * because, Cell(html=_artifacts(step))]
            for place, step in enumerate(run.steps, start=1)]
    return join([
        card(f'<ol class="flow" aria-label="components in the order in which they ran">{boxes}</ol>'),
        card(bars, title=f"Where the {duration(run.seconds)} went") if bars else "",
        card(table(("#", "component", "state", "time", *["because"] * because, "made"), rows))])


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
    return Html("the reason on top of the page" if step.state == "failed" else "")


def _artifacts(step: Step) -> Html:
    return Html("<br>".join(
        f'<span title="{attribute(artifact.uri)}">{attribute(artifact.key)}</span> '
        f'<span class="muted">{size(artifact.bytes) if artifact.bytes != 0 else ""}</span>'
        for artifact in step.outputs.values()))


# 6. Model card.


def model_card(facts: Facts) -> Html:
    """What the model is for, what it was made from, and what it may be used for."""
    told, found = facts.settings.get("card", {}), facts.quality.verdict if facts.quality else None
    shape = facts.settings.get("shape", "")
    columns = facts.settings.get("data", {})
    everything = json.dumps(facts.settings, ensure_ascii=False, indent=1)
    rows = facts.data.rows if facts.data else {}

    def said(key: str) -> Html:
        return shown(told[key], 4000) if told.get(key) else Html(f'<span class="muted">not said; set card.{key}</span>')

    metrics = ", ".join(f"{spelled(name)} {metric(name, found['metrics'][name])}"
                        for name in metrics_of(found)) if found else ""
    return card(pairs([
        ("model", Html(f"{attribute(shape)}, reads {_names(columns, ('text', 'text_pair'))}"
                       + (f", answers {_names(columns, ('label', 'target'))}" if _names(columns, ("label", "target"))
                          else ", tells masked words"))),
        ("intended use", said("intended_use")), ("limits", said("limits")),
        ("training data", Html(f"{_source(columns)}<br>{rows.get('train', 0):,} rows") if rows else Html("")),
        ("metrics", attribute(f"{metrics}, on {found['examples']:,} examples of the {found['split']} split")
         if found else Html("")),
        ("licence", said("licence")), ("licence of the data", said("data_licence")), ("contact", said("contact")),
        ("settings", Html(f"<details><summary>all of them</summary><pre>{shown(everything, 50_000)}</pre></details>")),
        ("written", f"{facts.written:%Y-%m-%d %H:%M}"),
    ]))


def _names(columns: Mapping[str, Any], roles: Sequence[str]) -> Html:
    return Html(" and ".join(f"<code>{shown(columns[role], 80)}</code>" for role in roles if columns.get(role)))
