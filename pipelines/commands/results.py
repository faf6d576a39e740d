"""Looking at what came of runs."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from modules.errors import TextrailError
from pipelines.commands.shared import OK, workspace_option


def add(commands: Any) -> None:
    """Adds `metrics`, `report`, `history`, `compare` and `tensorboard`."""
    command = commands.add_parser("metrics", parents=[workspace_option()], help="how the last model was judged")
    command.add_argument("run", metavar="RUN")
    command.add_argument("--json", action="store_true", help="the verdict as it is stored")
    command.add_argument("--examples", action="store_true", help="also examples: translations, words for masks, or a "
                         "classifier's most confident mistakes")
    command.set_defaults(command=_metrics)

    command = commands.add_parser("report", parents=[workspace_option()], help="one page on what the last run did")
    command.add_argument("run", metavar="RUN")
    command.add_argument("--open", action="store_true", help="open it in the browser")
    command.set_defaults(command=_report)

    command = commands.add_parser("history", parents=[workspace_option()],
                                  help="executions: verdict, metrics, what changed")
    command.add_argument("run", metavar="RUN", nargs="?", help="a run (default: all of the workspace)")
    command.set_defaults(command=_history)

    command = commands.add_parser("compare", parents=[workspace_option()], help="two executions of a run side by side")
    command.add_argument("run", metavar="RUN")
    for name in ("A", "B"):
        command.add_argument(name.lower(), metavar=name, type=int, help="its number, as `textrail history` shows it")
    command.set_defaults(command=_compare)

    command = commands.add_parser("tensorboard", parents=[workspace_option()],
                                  help="TensorBoard on all trainings of a run")
    command.add_argument("run", metavar="RUN")
    command.add_argument("--port", metavar="PORT", type=int, default=6006, help="0 takes a free one (default: 6006)")
    command.set_defaults(command=_tensorboard)


def _metrics(options: argparse.Namespace) -> int:
    from components.verdict import load_samples, verdict_sentence
    from pipelines import workspace
    from pipelines.console import plain_console, show_samples, show_verdict

    paths = workspace.existing(options.run, options.workspace)
    evaluation = workspace.last_evaluation(paths)
    if evaluation is None:
        raise TextrailError(f"a judged model of {paths.run} in {paths.folder}", "none",
                            f"Run it until its Evaluator: textrail run {options.run}.")
    samples = load_samples(evaluation.folder)
    if options.json:
        print(json.dumps(evaluation.verdict | ({"samples": samples} if samples else {}), ensure_ascii=False, indent=1))
        return OK
    console = plain_console(sys.stdout)
    show_verdict(console, evaluation.verdict, all_slices=True)
    if options.examples:
        show_samples(console, samples)
    console.print(verdict_sentence(evaluation.verdict), soft_wrap=True)
    console.print(f"judged {evaluation.time:%Y-%m-%d %H:%M}, files in {evaluation.folder}", soft_wrap=True)
    return OK


def _report(options: argparse.Namespace) -> int:
    from pipelines import workspace
    from pipelines.console import captured

    paths = workspace.existing(options.run, options.workspace)
    with captured(os.devnull) as screen:
        from pipelines import report

        path = report.write(paths)
        print(path, file=screen)
    if options.open:
        import webbrowser

        webbrowser.open(path.as_uri())
    return OK


def _history(options: argparse.Namespace) -> int:
    from pipelines import workspace
    from pipelines.console import plain_console
    from pipelines.history import history_table

    shown = ([workspace.existing(options.run, options.workspace)] if options.run else
             workspace.all_started(options.workspace))
    for paths in shown:
        plain_console(sys.stdout).print(history_table(paths))
    return OK


def _compare(options: argparse.Namespace) -> int:
    from pipelines import workspace
    from pipelines.console import plain_console
    from pipelines.history import compare

    tables, path = compare(workspace.existing(options.run, options.workspace), options.a, options.b)
    console = plain_console(sys.stdout)
    for table in tables:
        console.print(table)
    console.print(str(path), soft_wrap=True)
    return OK


def _tensorboard(options: argparse.Namespace) -> int:
    from pipelines import workspace
    from pipelines.history import logs

    folder = logs(workspace.existing(options.run, options.workspace))
    print(f"logs of all executions: {folder}", flush=True)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")   # TensorFlow greets, which nobody asked for.
    # TensorBoard is a server of its own: it takes this process's place, and Ctrl-C is its to answer.
    os.execv(sys.executable, [sys.executable, "-m", "tensorboard.main", "--logdir", folder, "--port",
                              str(options.port)])
