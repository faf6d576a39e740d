"""What a run shows: a live table on a terminal, one plain line an event elsewhere, and the tables at its end."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from components.verdict import CALIBRATION
from modules.progress import LOGGER, duration

if TYPE_CHECKING:
    from pipelines.local_runner import Node

SYMBOLS = {"waiting": ("·", "dim"), "cached": ("≡", "cyan"), "done": ("✓", "green"), "skipped": ("-", "dim"),
           "failed": ("✗", "bold red"), "interrupted": ("■", "yellow")}
PLAIN_WIDTH = 120
# Up to this many slices are shown at the end of a run; `textrail metrics` shows all.
FEW_SLICES = 20
MAIN_METRICS = ("accuracy", "loss", "bleu", "chrf", "masked_accuracy", "pseudo_perplexity", "next_accuracy")
TWO_DECIMALS = ("bleu", "chrf", "pseudo_perplexity")   # Those that go beyond 1.


@contextmanager
def captured(log: Path | str) -> Iterator[TextIO]:
    """Sends everything that is printed, by Python or by C++, to a file.

    Args:
        log: file to append to; its folder is made.

    Yields:
        A stream to where standard output went before.
    """
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    screen = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
    with open(log, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        yield screen
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        screen.close()
        for number, copy in enumerate(saved, start=1):
            os.dup2(copy, number)
            os.close(copy)


def is_live(stream: TextIO) -> bool:
    """Whether a table can be redrawn there: a terminal, and nobody asked for plain text."""
    plain = os.environ.get("CI") or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return stream.isatty() and not plain


def open_view(stream: TextIO, run: str, folder: Path, log: Path) -> PlainView | LiveView:
    """The view that suits a stream.

    Args:
        stream: where to.
        run: its name.
        folder: its workspace.
        log: its log file.
    """
    return (LiveView if is_live(stream) else PlainView)(stream, run, folder, log)


def plain_console(stream: TextIO) -> Console:
    """A rich console that prints text as it is given, and colours only on a terminal."""
    width = None if stream.isatty() else PLAIN_WIDTH
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False,
                   no_color=None if is_live(stream) else True)


@contextmanager
def ticking(stream: TextIO) -> Iterator[None]:
    """Shows the newest progress in one line of a terminal for as long as the block lasts; elsewhere nothing."""
    with plain_console(stream).status("reading") as status:
        handler = logging.Handler()
        handler.emit = lambda record: status.update(record.getMessage())   # type: ignore[method-assign]
        LOGGER.addHandler(handler)
        try:
            yield
        finally:
            LOGGER.removeHandler(handler)


class PlainView(logging.Handler):
    """One line an event, for files, pipes and CI. Use it as a context; it is a `local_runner.Listener`."""

    def __init__(self, stream: TextIO, run: str, folder: Path, log: Path):
        super().__init__()
        self.console = plain_console(stream)
        self.run, self.folder, self.log = run, folder, log
        self.nodes: Sequence[Node] = ()

    def __enter__(self):
        LOGGER.addHandler(self)
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        LOGGER.removeHandler(self)
        self._close()

    def _open(self) -> None:
        self.say(f"{self.run}: workspace {self.folder}, log {self.log}")

    def _close(self) -> None:
        pass

    def say(self, line: str) -> None:
        """Prints a line that stays."""
        self.console.print(line, soft_wrap=True)

    def starting(self, what: str) -> None:
        """Tells what goes on before the first component."""
        self.say(what)

    def begin(self, nodes: Sequence[Node]) -> None:
        self.nodes = nodes

    def changed(self, node: Node) -> None:
        time_and_memory = f"{duration(node.seconds)}, peak {node.peak_mb} MB"
        self.say({"running": f"{node.id}: running", "done": f"{node.id}: done in {time_and_memory}"}.get(
            node.state, f"{node.id}: {node.state}, {node.note}"))

    def emit(self, record: logging.LogRecord) -> None:
        """A component's progress; ticks would flood a file, lasting events stay."""
        if record.__dict__["progress"].get("lasting"):
            self.say(f"{self._running()}: {record.getMessage()}")

    def _running(self) -> str:
        return next((node.id for node in self.nodes if node.state == "running"), self.run)


class LiveView(PlainView):
    """A table of all components, drawn anew several times a second."""

    def __init__(self, stream: TextIO, run: str, folder: Path, log: Path):
        super().__init__(stream, run, folder, log)
        self._notes: dict[str, str] = {}
        self._spinner = Spinner("dots", style="yellow")
        self._starting = Spinner("dots", "starting", style="yellow")
        self._ended = False
        # Not redirected to the screen: what TFX and TensorFlow write belongs to the log.
        self._live = Live(console=self.console, get_renderable=self._render, refresh_per_second=5,
                          redirect_stdout=False, redirect_stderr=False)

    def _open(self) -> None:
        self._live.start()

    def _close(self) -> None:
        self._ended = True
        self._live.stop()

    def starting(self, what: str) -> None:
        self._starting.update(text=what)

    def changed(self, node: Node) -> None:
        if node.state != "running":
            lasting = self._notes.get(f"{node.id} lasting", "")
            peak = f"peak {node.peak_mb} MB"
            self._notes[node.id] = {"failed": "stopped the run, see below",
                                    "done": f"{lasting}, {peak}" if lasting else peak}.get(node.state, node.note)

    def emit(self, record: logging.LogRecord) -> None:
        node, message = self._running(), record.getMessage()
        self._notes[node] = message
        if record.__dict__["progress"].get("lasting"):
            self._notes[f"{node} lasting"] = message

    def _render(self) -> RenderableType:
        header = Text.assemble((self.run, "bold"), f"\nworkspace  {self.folder}\nlog        {self.log}",
                               overflow="fold")
        if not self.nodes:
            return Group(header, "" if self._ended else self._starting)
        # While it is redrawn a row is one line, so that the table stays as high as the run has components.
        table = Table.grid(padding=(0, 2, 0, 0), expand=True)
        table.add_column(width=1)
        table.add_column(no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(ratio=1, no_wrap=not self._ended, overflow="fold" if self._ended else "ellipsis")
        for node in self.nodes:
            table.add_row(*self._row(node))
        return Group(header, "", table, "")

    def _row(self, node: Node) -> tuple[RenderableType, ...]:
        note = Text(self._notes.get(node.id, ""))
        if node.state == "running":
            elapsed = duration(time.monotonic() - node.started)
            return self._spinner, Text(node.id, "bold"), elapsed, note
        symbol, style = SYMBOLS[node.state]
        if node.state in ("waiting", "skipped"):
            return Text(symbol, style), Text(node.id, "dim"), "", note
        if node.state == "cached":
            return Text(symbol, style), Text(node.id), Text("cached", style), Text(note.plain, "dim")
        return Text(symbol, style), Text(node.id), duration(node.seconds), note


def verdict_table(verdict: Mapping[str, Any]) -> Table:
    """Thresholds: metric, value, bound, baseline, change, verdict."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False,
                  title=f"{verdict['examples']} examples of the {verdict['split']} split", title_justify="left")
    for name in ("metric", "value", "bound", "baseline", "change", "verdict"):
        table.add_column(name, justify="left" if name in ("metric", "bound", "verdict") else "right")
    for row in verdict["rows"]:
        name, tone = row["metric"], "green" if row["verdict"] == "passed" else "bold red"
        table.add_row(name, metric_text(name, row["value"]), bound(row), metric_text(name, row["baseline"]),
                      metric_text(name, row["change"], sign=True), Text(row["verdict"], tone))
    return table


def bound(row: Mapping[str, Any]) -> str:
    """A threshold's bounds in signs, e.g. "≥ 0.9, drop ≤ 0.01"."""
    signs = {"min": "≥", "max": "≤", "max_drop": "drop ≤"}
    return ", ".join(f"{sign} {row[key]:g}" for key, sign in signs.items() if row[key] is not None)


def slices_table(verdict: Mapping[str, Any]) -> Table:
    """Each slice's examples and main metrics: a class's own mean little where one label is all there is."""
    names = [name for name in MAIN_METRICS if any(name in part["metrics"] for part in verdict["slices"])]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("slice")
    for name in ("examples", *names):
        table.add_column(name, justify="right")
    for part in verdict["slices"]:
        table.add_row(part["slice"], str(part["examples"]),
                      *(metric_text(name, part["metrics"].get(name)) for name in names))
    return table


def samples_table(kind: str, samples: Sequence[Mapping[str, Any]]) -> Table:
    """Translations below their sources and references, with their scores and chrF."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"{kind} translations", title_justify="left")
    for name in ("chrf", "score"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("", overflow="fold")
    for sample in samples:
        numbers = [metric_text("chrf", sample["chrf"]), f"{sample['score']:.4f}"]
        for name in ("source", "reference", "translation"):
            table.add_row(*numbers, name, sample[name], end_section=name == "translation")
            numbers = ["", ""]
    return table


def mistakes_table(samples: Sequence[Mapping[str, Any]]) -> Table:
    """Wrong answers of a classifier, the surest first."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="most confident mistakes", title_justify="left")
    table.add_column("score", justify="right", no_wrap=True)
    for name in ("predicted", "label"):
        table.add_column(name)
    table.add_column("text", overflow="fold")
    for sample in samples:
        text = sample["text"] if isinstance(sample["text"], str) else "\n".join(sample["text"])
        table.add_row(f"{sample['score']:.4f}", sample["predicted"], sample["label"], text)
    return table


def masks_table(samples: Sequence[Mapping[str, Any]]) -> Table:
    """Texts with masks in them: for each mask what stood there, and the likeliest words."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="masked words", title_justify="left")
    for name in ("text", "label", "words"):
        table.add_column(name, overflow="fold")
    for sample in samples:
        text, masks = sample["text"], sample["masks"] or [{"label": "", "words": [], "probabilities": []}]
        for mask in masks:
            words = zip(mask["words"], mask["probabilities"], strict=True)
            table.add_row(text, mask["label"], "  ".join(f"{probability:.2f} {word}" for word, probability in words),
                          end_section=mask is masks[-1])
            text = ""
    return table


def metric_text(metric: str, value: float | None, sign: bool = False) -> str:
    """Metrics from 0 to 1 have four decimals, others two."""
    decimals = 2 if metric.partition("/")[0] in TWO_DECIMALS else 4
    return "-" if value is None else f"{value:{'+' if sign else ''}.{decimals}f}"


def show_verdict(console: Console, verdict: Mapping[str, Any], all_slices: bool) -> None:
    """Prints the tables of a judgement.

    Args:
        console: where to.
        verdict: as `components.verdict` describes it.
        all_slices: whether slices are shown however many there are.
    """
    console.print(verdict_table(verdict))
    if reason := verdict.get("not_comparable"):
        console.print(f"baseline: not comparable: {reason}", soft_wrap=True)
    if verdict["slices"] and (all_slices or len(verdict["slices"]) <= FEW_SLICES):
        console.print(slices_table(verdict))
    for name, signature in verdict.get("signatures", {}).items():
        console.print(f"{name}: {signature}", soft_wrap=True)


def show_samples(console: Console, samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Prints the rows that an Evaluator keeps for a person to read, by kind."""
    shown = {kind: rows for kind, rows in samples.items() if kind != CALIBRATION}
    tables = {"mistakes": mistakes_table, "masked": masks_table}
    for kind, rows in shown.items():
        console.print(tables[kind](rows) if kind in tables else samples_table(kind, rows))
    if not shown:
        console.print("no examples were kept: of translations and masked texts, evaluation.examples says how many",
                      soft_wrap=True)
