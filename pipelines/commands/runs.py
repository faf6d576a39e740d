"""Running pipelines, and what comes before: ready-made runs, a look at a run's data, data prepared once."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modules.errors import TextrailError
from pipelines.commands.shared import (
    FAILED,
    INTERRUPTED,
    OK,
    beam_option,
    run_again,
    run_options,
    tell,
    workspace_option,
)

if TYPE_CHECKING:
    from pipelines.console import PlainView
    from pipelines.local_runner import Node
    from pipelines.sections import Settings
    from pipelines.workspace import Workspace


def add(commands: Any) -> None:
    """Adds `list`, `run`, `check` and `convert`."""
    command = commands.add_parser("list", help="ready-made runs")
    command.set_defaults(command=_list)

    command = commands.add_parser("run", parents=[run_options(), workspace_option(), beam_option()],
                                  help="run a pipeline")
    command.add_argument("--force", metavar="NODE", action="append", default=[],
                         help="run this component although cached; repeatable")
    command.add_argument("--fresh", action="store_true", help="run all components although cached")
    command.set_defaults(command=_run)

    command = commands.add_parser("check", parents=[run_options(), workspace_option()],
                                  help="rows of a run's data through its steps, before a long run")
    command.add_argument("--rows", metavar="N", type=int, default=10, help="rows to show (default: 10)")
    command.add_argument("--plots", metavar="DIR", help="also write pictures there: learning rate and lengths, of a "
                         "translation also positional code and attention")
    command.set_defaults(command=_check)

    command = commands.add_parser("convert", parents=[beam_option()],
                                  help="prepare data once: rows to shuffled TFRecord files")
    command.add_argument("source", metavar="NAME|FILE|DATA",
                         help="a run, whose data is meant, or data files: CSV, TSV or TFRecord, a pattern too")
    command.add_argument("out", metavar="OUT", help="folder to write")
    command.add_argument("--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[],
                         help="another value for data.KEY, such as data.text=review, for shape or seed; repeatable")
    command.add_argument("--shard-mb", metavar="MB", type=int, default=64,
                         help="text in a file, before compression; so much is held in memory (default: 64)")
    command.set_defaults(command=_convert)


def _list(options: argparse.Namespace) -> int:
    from rich import box
    from rich.table import Table

    from pipelines import settings
    from pipelines.console import plain_console

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("run", "shape", "source", "starts from", "description"):
        table.add_column(column, no_wrap=column == "run")
    for name in settings.ready_made():
        run = settings.load(name, check_files=False)
        source = f"{run.data.source} {run.data.name}" if run.data.name else run.data.source
        table.add_row(name, run.shape, source, run.start, run.description)
    plain_console(sys.stdout).print(table)
    return OK


def _run(options: argparse.Namespace) -> int:
    began = time.monotonic()
    from components.versions import served_version
    from pipelines import settings, workspace
    from pipelines.console import captured, open_view

    loaded = settings.load(options.run, options.overrides)
    paths = workspace.new(options.run, options.workspace)
    with paths.lock():
        paths.claim(settings.settings_file(options.run))
        paths.record(loaded)
        before = served_version(paths.destination())
        log = paths.new_log()
        with captured(log) as screen:
            try:
                with open_view(screen, paths.run, paths.folder, log) as view:
                    nodes = _build_and_run(options, loaded, paths, view)
                status, sentence = _sum_up(options, loaded, paths, view, nodes, before)
                view.say(f"{time.monotonic() - began:.0f} s in all")
            except Exception as error:
                if isinstance(error, TextrailError):
                    raise
                status, sentence = FAILED, _logged(error, log)
    return tell(sentence, status) if sentence else status


def _logged(error: Exception, log: Path) -> str:
    from pipelines.local_runner import log_traceback, sentence

    log_traceback(error)
    return sentence(error, log)


def _build_and_run(options: argparse.Namespace, loaded: Settings, paths: Workspace, view: PlainView) -> list[Node]:
    view.starting("starting: importing TFX and TensorFlow takes 10 to 20 s")
    # TFX hands the command line to absl, which would take our options for its own.
    sys.argv = sys.argv[:1]
    from absl import logging

    from pipelines import local_runner, preflight
    from pipelines.beam_sections import shown
    from pipelines.place import ThisMachine
    from pipelines.shapes import build

    logging.set_verbosity(logging.INFO)
    if is_shared := loaded.training.strategy == "multi_worker":
        from modules import train_worker

        train_worker.check_is_first(loaded.training.loading.streams)
    view.starting("looking at data, encoder and code")
    place = ThisMachine(paths, bool(options.force or options.fresh), loaded.beam.artifacts)
    pipeline = build(loaded, paths.run, place)
    beam = loaded.beam.model_dump()
    if preflight.is_wanted(beam):
        view.starting(f"asking a worker of {shown(loaded.beam)}")
        view.say(str(preflight.check(beam, place.pipeline_root, preflight.files_read(loaded, paths.destination()))))
    nodes = local_runner.run(pipeline, view, view.log, options.force, options.fresh, beam)
    if is_shared and any(node.id == "Trainer" and node.state == "cached" for node in nodes):
        train_worker.send_away()
    return nodes


def _sum_up(options: argparse.Namespace, loaded: Settings, paths: Workspace, view: PlainView,
            nodes: Sequence[Node], before: str | None) -> tuple[int, str]:
    """Prints what came of a run.

    Args:
        options: of the command line.
        loaded: the run's settings.
        paths: its workspace.
        view: where to print.
        nodes: its components.
        before: the version served when it began.

    Returns:
        The exit status and, if nothing was pushed, the sentence that says why.
    """
    from components.versions import served_version
    from pipelines import workspace
    from pipelines.console import show_verdict

    states = {node.id: node.state for node in nodes}
    if states.get("Evaluator") in ("done", "cached") and (evaluation := workspace.last_evaluation(paths)):
        show_verdict(view.console, evaluation.verdict, all_slices=False)
    place = f" --workspace {options.workspace}" if options.workspace else ""
    if states.get("Pusher") in ("done", "cached"):
        destination = paths.destination()
        version = served_version(destination) or ""
        if page := workspace.newest_output(paths, "Report", {}):
            view.say(f"report: {os.path.join(page, 'report.html')}")
        view.say(f"{'already pushed' if version == before else 'pushed'}: {os.path.join(destination, version)}")
        view.say(f"next: textrail predict {options.run} {loaded.question}{place}")
        return OK, ""
    stopped = next((node for node in nodes if node.state in ("failed", "interrupted", "skipped")), None)
    view.say(f"not pushed{f': {stopped.id} {stopped.state}' if stopped else ''}")
    view.say(f"report: textrail report {options.run}{place}")
    if stopped is None:
        return FAILED, f"{paths.run} has no step that pushes"
    if stopped.state == "interrupted":
        view.say(f"next: {run_again(options)}{place} takes up where it stopped")
        return INTERRUPTED, f"{paths.run} interrupted at {stopped.id}"
    if stopped.id == "Pusher":
        view.say(f"next: textrail metrics {options.run}{place}")
    return FAILED, f"{paths.run} stopped at {stopped.id}: {stopped.note}"



def _check(options: argparse.Namespace) -> int:
    from pipelines import settings, workspace
    from pipelines.console import captured, plain_console

    if options.rows < 1:
        raise TextrailError("--rows of at least 1", str(options.rows), "Leave it out for 10.")
    if options.plots and Path(options.plots).exists() and not Path(options.plots).is_dir():
        raise TextrailError("a folder for --plots", f"the file {options.plots}", "Name another one; it is made.")
    loaded = settings.load(options.run, options.overrides)
    destination = loaded.push.destination or str(workspace.new(options.run, options.workspace).pushed)
    problem = ""   # Told at the end: until then standard error is captured, too.
    with captured(os.devnull) as screen:
        console = plain_console(screen)
        console.print("importing TensorFlow, then reading data and encoder, takes 10 to 20 s\n", soft_wrap=True)
        try:
            from pipelines import check, check_view

            found = check.examine(loaded, options.rows)
            check_view.show(found, console)
            plots = check_view.write_plots(found, Path(options.plots), destination) if options.plots else ()
            for path in plots:
                console.print(f"written: {path}", soft_wrap=True)
            problem = found.problem()
            if not problem:
                console.print(f"next: {run_again(options)}", soft_wrap=True)
        except TextrailError as error:
            problem = str(error)
    return tell(problem, FAILED) if problem else OK


def _convert(options: argparse.Namespace) -> int:
    import yaml

    from pipelines import settings
    from pipelines.console import captured, ticking

    loaded = settings.load_data(options.source, options.overrides)
    with captured(os.devnull) as screen:
        with ticking(screen):
            from pipelines.convert import convert

            done = convert(loaded, options.out, options.shard_mb)
        rows = ", ".join(f"{split} {count:,}" for split, count in done.rows.items())
        skipped = f"{done.skipped:,}{' (listed in skipped_rows.jsonl there)' if done.skipped else ''}"
        print(f"rows: {rows}; skipped {skipped}; {done.shards} files in {done.data['path']}. "
              "Settings that read them:\n\n"
              + yaml.safe_dump({"shape": loaded.shape, "data": done.data}, sort_keys=False, allow_unicode=True),
              file=screen)
    return OK
