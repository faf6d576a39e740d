"""What happened over time: a table of a run's executions, and two of them side by side. All of it from ML Metadata."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from components.report_page import MISSING, Cell, Html, attribute, card, number, page, shown, table, texts
from components.run_record import Change, Run, changes, read_runs
from components.verdict import load_verdict
from modules.errors import TextrailError
from modules.progress import duration
from pipelines.console import MAIN_METRICS, metric_text
from pipelines.workspace import Workspace

FEW = 4        # Changes that a line of the history names.
NUMBERS = ("metrics", "slices")   # Groups of a comparison whose values are numbers.
HASH = 12      # Characters of a fingerprint that are shown.


def verdict_of(run: Run) -> dict[str, Any] | None:
    """How the model of a run was judged; none if it was not, or if the judgement is gone."""
    found = run.artifact("Evaluator", "evaluation")
    try:
        return load_verdict(found.uri) if found else None
    except OSError:   # What fails while it is judged leaves none, and somebody may have cleaned up.
        return None


def summary(found: Sequence[Change]) -> str:
    """What changed, in a line: "training.epochs 3 → 5, data, code of Trainer"."""
    said = [f"{one.name} {brief(one.before)} → {brief(one.after)}" if one.what == "settings" else one.what
            for one in found if one.what != "code"]
    if code := [one.name for one in found if one.what == "code"]:
        said.append(f"code of {', '.join(code[:FEW])}{' …' if len(code) > FEW else ''}")
    more = len(said) - FEW
    return ", ".join(said[:FEW]) + (f" and {more} more" if more > 0 else "")


def brief(value: Any) -> str:
    """A value of a setting in few characters."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"…{text[-38:]}"


def history_table(paths: Workspace) -> Table:
    """Executions of a run, oldest first, each with what it was told otherwise than the one before."""
    runs = read_runs(str(paths.metadata))
    judged = [verdict_of(run) for run in runs]
    metrics = [name for name in MAIN_METRICS if any(name in one["metrics"] for one in judged if one)]
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=paths.run, title_justify="left")
    grid.add_column("#", justify="right", no_wrap=True)
    for name in ("when", "verdict"):
        grid.add_column(name, no_wrap=True)
    for name in (*metrics, "minutes"):
        grid.add_column(name, justify="right", no_wrap=True)
    grid.add_column("changed against the one before", overflow="fold")
    for before, run, verdict in zip([None, *runs], runs, judged, strict=False):
        tone = "green" if run.pushed else "bold red" if run.failed else "yellow"
        grid.add_row(str(run.number), f"{run.began:%Y-%m-%d %H:%M}", Text(run.outcome, tone),
                     *(metric_text(name, verdict["metrics"].get(name) if verdict else None) for name in metrics),
                     f"{run.seconds / 60:.1f}", (summary(changes(before, run)) or "nothing") if before else "")
    return grid


def chosen(paths: Workspace, numbers: Sequence[int]) -> list[Run]:
    """The executions of these numbers.

    Raises:
        TextrailError: there is none of a number.
    """
    runs = {run.number: run for run in read_runs(str(paths.metadata))}
    for one in numbers:
        if one not in runs:
            raise TextrailError(f"numbers that `textrail history {paths.run}` shows, 1 to {max(runs, default=0)}",
                                str(one), "Name two of those.")
    return [runs[one] for one in numbers]


Line = tuple[str, str, str]


def side_by_side(before: Run, after: Run) -> dict[str, list[Line]]:
    """What is to be said of two runs: group → lines of a name and two values."""
    judged = [verdict_of(run) for run in (before, after)]
    names = list(dict.fromkeys(name for one in judged if one for name in one["metrics"]))
    values = [{name: one["metrics"].get(name) if one else None for name in names} for one in judged]
    slices = [{part["slice"]: part["metrics"] for part in one["slices"]} if one else {} for one in judged]
    both = [part for part in slices[0] if part in slices[1]]
    steps = list(dict.fromkeys(step.name for run in (before, after) for step in run.steps))
    return {
        "outcome": [("when", *(f"{run.began:%Y-%m-%d %H:%M}" for run in (before, after))),
                    ("verdict", before.outcome, after.outcome),
                    ("time", duration(before.seconds), duration(after.seconds))],
        "metrics": [(name, *(metric_text(name, one[name]) for one in values)) for name in names],
        "slices": [(f"{part} · {name}", *(metric_text(name, one[part].get(name)) for one in slices))
                   for part in both for name in MAIN_METRICS if name in slices[0][part]],
        "changed": [(f"{one.name}" if one.what == "settings" else one.what if one.what == one.name else
                     f"code of {one.name}", *(_told(one, value) for value in (one.before, one.after)))
                    for one in changes(before, after)],
        "time": [(name, *(_time(run, name) for run in (before, after))) for name in steps],
    }


def _told(change: Change, value: Any) -> str:
    return brief(value) if change.what == "settings" else str(value)[:HASH]


def _time(run: Run, name: str) -> str:
    step = run.step(name)
    return "–" if step is None else "cached" if step.state == "cached" else duration(step.seconds)


def comparison_tables(numbers: Sequence[int], groups: Mapping[str, Sequence[Line]]) -> list[Table]:
    """`side_by_side` for a terminal; a line whose values differ is marked."""
    tables = []
    for title, lines in groups.items():
        grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
        grid.add_column("", overflow="fold")
        for one in numbers:
            grid.add_column(f"run {one}", justify="right", overflow="fold")
        for name, before, after in lines:
            grid.add_row(name, before, Text(after, "bold" if before != after else ""))
        if lines:
            tables.append(grid)
    return tables


def comparison_page(name: str, runs: Sequence[Run], groups: Mapping[str, Sequence[Line]]) -> str:
    """`side_by_side` as a file of its own, like the report."""
    before, after = runs
    top = Html(f"<h1>{attribute(name)}</h1><p>Run {before.number} of {before.began:%Y-%m-%d %H:%M} and "
               f"run {after.number} of {after.began:%Y-%m-%d %H:%M}, side by side.</p>")
    columns = ("", f"run {before.number}", f"run {after.number}")
    sections = []
    for title, lines in groups.items():
        numbers = title in NUMBERS   # Of those a difference is more than that there is one.
        rows = [[texts(line[0], 120), *(_value(title, value) for value in line[1:]),
                 *[_difference(*line[1:])] * numbers] for line in lines]
        if rows:
            sections.append((title, title.capitalize(), card(table((*columns, *["difference"] * numbers), rows,
                                                                   sortable=numbers))))
    return page(f"{name} · {before.number} and {after.number}", top, sections)


def _value(title: str, text: str) -> Cell:
    known = _as_number(text)
    value = MISSING if known is None else known
    return Cell(html=shown(text, 200), value=value if title in NUMBERS else None, kind="n")


def _as_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _difference(before: str, after: str) -> Cell:
    numbers = [_as_number(value) for value in (before, after)]
    return number(None if None in numbers else numbers[1] - numbers[0], "+.4f")   # type: ignore[operator]


def compare(paths: Workspace, first: int, second: int) -> tuple[list[Table], Path]:
    """Two executions side by side: tables for the terminal, and the path of the page that was written.

    Raises:
        TextrailError: there is none of a number.
    """
    runs = chosen(paths, (first, second))
    groups = side_by_side(*runs)
    path = paths.folder / f"compare-{first}-{second}.html"
    beside = path.with_suffix(".part")
    beside.write_text(comparison_page(paths.run, runs, groups), "utf-8", "xmlcharrefreplace")
    beside.replace(path)
    return comparison_tables((first, second), groups), path


def logs(paths: Workspace) -> str:
    """The folder with TensorBoard's logs of all executions, one folder each.

    Raises:
        TextrailError: nothing was trained yet.
    """
    folders = {os.path.dirname(artifact.uri) for run in read_runs(str(paths.metadata))
               if (artifact := run.artifact("Trainer", "model_run"))}
    if not folders:
        raise TextrailError(f"a training of {paths.run} in {paths.folder}", "none",
                            f"Start it: textrail run {paths.run}.")
    return os.path.commonpath(list(folders)) if len(folders) > 1 else folders.pop()
