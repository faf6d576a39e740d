"""The `textrail` command. Imports only what every command needs; the rest when a command needs it."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modules.errors import TextrailError, is_interruption

if TYPE_CHECKING:
    from pipelines.console import PlainView
    from pipelines.local_runner import Node
    from pipelines.sections import Settings
    from pipelines.workspace import Workspace

# Module with `build(settings, run, place)` for each `shape` of the settings.
BUILDERS = {"classification": "pipelines.classification", "translation": "pipelines.translation",
            "pretraining": "pipelines.pretraining"}
OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: as on the command line; that of this process if None.

    Returns:
        The exit status: 0 done, 1 stopped by a gate or an error, 2 wrong settings or usage, 130 interrupted.
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and (options.command is not _predict or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:   # argparse ends a list of positionals at the first option; texts may stand on either side of one.
        options.texts += rest
    # Whoever ends a job ends it like a person would: what was begun is put away, checkpoints are kept.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return options.command(options)
    except TextrailError as error:
        return _tell(str(error), USAGE)
    except (KeyboardInterrupt, Exception) as error:
        return _tell("interrupted", INTERRUPTED) if is_interruption(error) else _tell_unexpected(error)


def _tell(sentence: str, status: int) -> int:
    print(f"textrail: {sentence}", file=sys.stderr)
    return status


def _tell_unexpected(error: BaseException) -> int:
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="textrail-", suffix=".log", delete=False) as file:
        traceback.print_exception(type(error), error, error.__traceback__, file=file)
    line = (str(error).strip().splitlines() or [""])[-1].rstrip(".")
    return _tell(f"{type(error).__name__}: {line}. The traceback is in {file.name}", FAILED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="textrail",
        description="From texts, labelled, in pairs or plain, to a pushed model that answers plain strings.",
        epilog="Settings, key by key: docs/settings.md.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument("--workspace", metavar="DIR",
                       help="folder of all runs' state (default: $TEXTRAIL_WORKSPACE, else ./workspace)")

    run = argparse.ArgumentParser(add_help=False)
    run.add_argument("run", metavar="NAME|FILE", help="a ready-made run, or a settings file of your own")
    run.add_argument("--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[],
                     help="another value for a setting, as YAML; repeatable")
    cluster = argparse.ArgumentParser(add_help=False)
    cluster.add_argument("--beam", metavar="RUNNER", dest="overrides", action="append", default=[],
                         type="beam.runner={}".format, help="where the data work is done: direct (this process), "
                         "flink, spark, dataflow or prism; short for --set beam.runner=RUNNER")

    command = commands.add_parser("list", help="ready-made runs")
    command.set_defaults(command=_list)

    command = commands.add_parser("run", parents=[run, place, cluster], help="run a pipeline")
    command.add_argument("--force", metavar="NODE", action="append", default=[],
                         help="run this component although cached; repeatable")
    command.add_argument("--fresh", action="store_true", help="run all components although cached")
    command.set_defaults(command=_run)

    command = commands.add_parser("check", parents=[run, place],
                                  help="rows of a run's data through its steps, before a long run")
    command.add_argument("--rows", metavar="N", type=int, default=10, help="rows to show (default: 10)")
    command.add_argument("--plots", metavar="DIR", help="also write pictures there: learning rate and lengths, of a "
                         "translation also positional code and attention")
    command.set_defaults(command=_check)

    command = commands.add_parser("metrics", parents=[place], help="how the last model was judged")
    command.add_argument("run", metavar="RUN")
    command.add_argument("--json", action="store_true", help="the verdict as it is stored")
    command.add_argument("--examples", action="store_true", help="also examples: translations, words for masks, or a "
                         "classifier's most confident mistakes")
    command.set_defaults(command=_metrics)

    command = commands.add_parser("report", parents=[place], help="one page on what the last run did")
    command.add_argument("run", metavar="RUN")
    command.add_argument("--open", action="store_true", help="open it in the browser")
    command.set_defaults(command=_report)

    command = commands.add_parser("history", parents=[place], help="executions: verdict, metrics, what changed")
    command.add_argument("run", metavar="RUN", nargs="?", help="a run (default: all of the workspace)")
    command.set_defaults(command=_history)

    command = commands.add_parser("compare", parents=[place], help="two executions of a run side by side")
    command.add_argument("run", metavar="RUN")
    for name in ("A", "B"):
        command.add_argument(name.lower(), metavar=name, type=int, help="its number, as `textrail history` shows it")
    command.set_defaults(command=_compare)

    command = commands.add_parser("tensorboard", parents=[place], help="TensorBoard on all trainings of a run")
    command.add_argument("run", metavar="RUN")
    command.add_argument("--port", metavar="PORT", type=int, default=6006, help="0 takes a free one (default: 6006)")
    command.set_defaults(command=_tensorboard)

    command = commands.add_parser("predict", parents=[place, cluster], help="ask the pushed model")
    command.add_argument("run", metavar="RUN")
    command.add_argument("texts", metavar="TEXT", nargs="*")
    command.add_argument("--text-a", metavar="TEXT", help="first text, for models that read pairs")
    command.add_argument("--text-b", metavar="TEXT", help="second text, for models that read pairs")
    command.add_argument("--file", metavar="IN", help="CSV or TSV file, .gz too, with the column the model reads; "
                         "without header where the run's data.columns names the columns")
    command.add_argument("--out", metavar="OUT", help="with --file: its rows with the answers: label, score and each "
                         "class's score, or translation and score, or the filled text with words and probabilities")
    command.add_argument("--json", action="store_true", help="one JSON object a line")
    command.add_argument("--input", metavar="FILE", nargs="+", default=[], help="files of any number and size, "
                         "patterns too: CSV and TSV as --file, .txt with a text a line, TFRecords; by Beam, see --beam")
    command.add_argument("--output", metavar="DIR", help="with --input: folder for its rows with the answers, in parts "
                         "whose names sort as the rows stand; begun ones are finished")
    command.add_argument("--format", choices=("csv", "text", "tfrecord"), help="of --input where names do not tell")
    command.add_argument("--part-mb", metavar="MB", type=int, default=16,
                         help="text in a part of --output; so much is held in memory (default: 16)")
    command.add_argument("--set", dest="overrides", metavar="beam.KEY=VALUE", action="append", default=[],
                         help="another value for where Beam works (default: as the run had it); repeatable")
    command.set_defaults(command=_predict)

    command = commands.add_parser("serve", parents=[place], help="the pushed model over HTTP, and a page to try it on")
    command.add_argument("run", metavar="RUN")
    _add_serving_options(command)
    command.set_defaults(command=_serve)

    command = commands.add_parser("encoder", help="bring a pretrained BERT in, look at one, take ours out")
    _add_encoder_commands(command.add_subparsers(metavar="COMMAND", required=True), place)

    command = commands.add_parser("convert", parents=[cluster],
                                  help="prepare data once: rows to shuffled TFRecord files")
    command.add_argument("source", metavar="NAME|FILE|DATA",
                         help="a run, whose data is meant, or data files: CSV, TSV or TFRecord, a pattern too")
    command.add_argument("out", metavar="OUT", help="folder to write")
    command.add_argument("--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[],
                         help="another value for data.KEY, such as data.text=review, for shape or seed; repeatable")
    command.add_argument("--shard-mb", metavar="MB", type=int, default=64,
                         help="text in a file, before compression; so much is held in memory (default: 64)")
    command.set_defaults(command=_convert)

    command = commands.add_parser("workers", help="a pool of Beam workers, for beam.environment=EXTERNAL")
    command.add_argument("--port", metavar="N", type=int, default=50000, help="default: 50000")
    command.set_defaults(command=_workers)

    command = commands.add_parser("train-worker", help="take part in a training with training.strategy=multi_worker, "
                                  "as the process that TF_CONFIG says")
    command.add_argument("--wait-minutes", metavar="N", type=float, default=1440,
                         help="for the run to come to its training (default: 1440, a day)")
    command.set_defaults(command=_train_worker)

    command = commands.add_parser("kubeflow", help="the same runs on Kubeflow Pipelines")
    _add_kubeflow_commands(command.add_subparsers(metavar="COMMAND", required=True), run)

    command = commands.add_parser("doctor", parents=[place], help="what is installed, what is missing, and the fix")
    command.set_defaults(command=_doctor)
    return parser


def _add_serving_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--port", metavar="N", type=int, default=8501,
                         help="default: 8501, that of TensorFlow Serving's REST API; 0 takes a free one")
    command.add_argument("--host", metavar="ADDRESS", default="127.0.0.1",
                         help="address to bind to (default: 127.0.0.1, this machine alone; 0.0.0.0 is all)")
    command.add_argument("--max-batch", metavar="ROWS", type=int, default=32,
                         help="rows of the requests that share a call of the model; 1 shares none (default: 32)")
    command.add_argument("--max-wait-ms", metavar="MS", type=float, default=2.0,
                         help="that an idle model waits for requests to share a call (default: 2)")
    command.add_argument("--max-request-mb", metavar="MB", type=float, default=4.0,
                         help="largest body of a request (default: 4)")
    command.add_argument("--no-page", action="store_true", help="the API alone")


def _add_encoder_commands(commands: Any, place: argparse.ArgumentParser) -> None:
    source = argparse.ArgumentParser(add_help=False)
    source.add_argument("source", metavar="SOURCE", help="as encoder.source of the settings: minilm, a folder, "
                        "hf://owner/name, or a TF Hub or Kaggle handle")
    source.add_argument("--sha256", metavar="HEX", default="", help="expected of the weights")
    source.add_argument("--lower-case", action=argparse.BooleanOptionalAction, default=None,
                        help="whether texts are lower-cased (default: as the encoder says)")
    source.add_argument("--config", metavar="FILE", default="", help="config.json or bert_config.json of weights "
                        "without one")
    source.add_argument("--preprocessing", metavar="SOURCE", default="", help="where the vocabulary is, if not beside "
                        "the weights")

    command = commands.add_parser("import", parents=[source], help="check an encoder and write it in our layout")
    command.add_argument("folder", metavar="DIR", help="a new folder, in HuggingFace's layout")
    command.set_defaults(command=_encoder_import)

    command = commands.add_parser("show", parents=[source], help="architecture, parameters, vocabulary, hash")
    command.add_argument("--summary", action="store_true", help="also each tensor's name, shape and parameters")
    command.set_defaults(command=_encoder_show)

    command = commands.add_parser("export", parents=[place], help="a run's model in a layout that other tools load")
    command.add_argument("run", metavar="RUN")
    command.add_argument("folder", metavar="DIR", help="a new folder")
    command.add_argument("--format", choices=("hf", "tfhub"), required=True, help="hf: HuggingFace's, with its "
                         "heads; tfhub: SavedModels of encoder and preprocessing")
    command.add_argument("--trained", action="store_true", help="the model trained last, pushed or not (default: the "
                         "version served)")
    command.set_defaults(command=_encoder_export)


def _add_kubeflow_commands(commands: Any, run: argparse.ArgumentParser) -> None:
    made = argparse.ArgumentParser(add_help=False)
    made.add_argument("--image", required=True, metavar="IMAGE", help="of kubeflow/Dockerfile, as the cluster pulls it")
    made.add_argument("--pipeline-root", metavar="URI", default="", help="where artifacts go: s3://…, minio://…, "
                      "gs://… or a folder of a volume (default: as the cluster is set up)")
    made.add_argument("--no-cache", action="store_true", help="every task runs although nothing changed")

    command = commands.add_parser("compile", parents=[run, made], help="write a run as YAML to upload")
    command.add_argument("--out", metavar="FILE", help="default: NAME.kubeflow.yaml")
    command.set_defaults(command=_kubeflow_compile)

    api = argparse.ArgumentParser(add_help=False)
    api.add_argument("--host", required=True, metavar="URL", help="Kubeflow Pipelines' API, e.g. "
                     "http://localhost:8888")
    api.add_argument("--namespace", metavar="NAME", default="", help="of a profile, on Kubeflow with several users")
    api.add_argument("--token", metavar="FILE", default="", help="file with a bearer token for the API")

    command = commands.add_parser("submit", parents=[run, made, api], help="compile a run and have a cluster run it")
    command.add_argument("--name", metavar="NAME", help="what Kubeflow calls it (default: as the run)")
    command.add_argument("--experiment", metavar="NAME", default="textrail", help="default: textrail")
    command.add_argument("--service-account", metavar="NAME", help="that pods run as")
    command.add_argument("--cron", metavar="EXPRESSION", default="", help="a recurring run, e.g. '0 0 3 * * *': six "
                         "fields, seconds first")
    command.add_argument("--wait", action="store_true", help="follow it, and exit with 0 only if it succeeds")
    command.set_defaults(command=_kubeflow_submit)

    command = commands.add_parser("follow", parents=[api], help="follow a run, as submit --wait does")
    command.add_argument("run_id", metavar="RUN_ID", help="as submit and Kubeflow's pages tell it")
    command.set_defaults(command=_kubeflow_follow)


def _kubeflow_compile(options: argparse.Namespace) -> int:
    from pipelines import settings
    from pipelines.console import captured

    name = settings.settings_file(options.run).stem
    out = Path(options.out or f"{name}.kubeflow.yaml")
    with captured(os.devnull) as screen:
        documents, hints = _compiled(options, name)
        from kubeflow import compile as kubeflow

        kubeflow.write(documents, out)
        print(kubeflow.described(documents, out), *hints, sep="\n", file=screen)
    return OK


def _kubeflow_submit(options: argparse.Namespace) -> int:
    from kubeflow.api import Api
    from kubeflow.submit import Order, follow, submit
    from pipelines import settings
    from pipelines.console import captured

    name = settings.settings_file(options.run).stem
    api = Api(options.host, options.namespace, options.token)
    order = Order(options.name or name, options.experiment, options.service_account, options.cron)
    if options.wait and options.cron:
        raise TextrailError("--wait or --cron", "both", "Once a recurring run has started, `textrail kubeflow follow`.")
    with captured(os.devnull) as screen:
        def tell(line: str) -> None:
            print(line, file=screen, flush=True)

        documents, hints = _compiled(options, name)
        for hint in hints:
            tell(hint)
        run_id = submit(documents, order, api, tell)
        problem = follow(api, run_id, tell) if options.wait else ""
    return _tell(problem, FAILED) if problem else OK


def _kubeflow_follow(options: argparse.Namespace) -> int:
    from kubeflow.api import Api
    from kubeflow.submit import follow

    api = Api(options.host, options.namespace, options.token)
    api.health()
    problem = follow(api, options.run_id, lambda line: print(line, flush=True))
    return _tell(problem, FAILED) if problem else OK


def _compiled(options: argparse.Namespace, name: str) -> tuple[list[dict[str, Any]], list[str]]:
    """The YAML documents of the run that the command line names, and what may be missing on the cluster."""
    from pipelines import settings

    # What the containers read may lie where only they see it.
    loaded = settings.load(options.run, options.overrides, check_files=False)
    sys.argv = sys.argv[:1]
    from kubeflow import compile as kubeflow
    from kubeflow import reach

    documents = kubeflow.compile_run(loaded, name, options.image, options.pipeline_root, not options.no_cache)
    return documents, reach.hints(loaded, options.pipeline_root)


def _encoder_import(options: argparse.Namespace) -> int:
    from pipelines.console import captured

    with captured(os.devnull) as screen:
        from pipelines import encoders

        encoders.bring_in(_encoder_source(options), options.folder, screen)
    return OK


def _encoder_show(options: argparse.Namespace) -> int:
    from pipelines.console import captured

    with captured(os.devnull) as screen:
        from pipelines import encoders

        encoders.show(_encoder_source(options), options.summary, screen)
    return OK


def _encoder_export(options: argparse.Namespace) -> int:
    from pipelines import workspace
    from pipelines.console import captured

    paths = workspace.existing(options.run, options.workspace)
    with captured(os.devnull) as screen:
        from pipelines import encoders

        encoders.take_out(paths, options.folder, options.format, options.trained, screen)
    return OK


def _encoder_source(options: argparse.Namespace) -> dict[str, Any]:
    """Of the command line, what `read_encoder` takes."""
    return {key: getattr(options, key) for key in ("source", "sha256", "lower_case", "config", "preprocessing")}


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
    return _tell(sentence, status) if sentence else status


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

    logging.set_verbosity(logging.INFO)
    builder = importlib.import_module(BUILDERS[loaded.shape])
    if is_shared := loaded.training.strategy == "multi_worker":
        from modules import train_worker

        train_worker.check_is_first(loaded.training.loading.streams)
    view.starting("looking at data, encoder and code")
    place = ThisMachine(paths, bool(options.force or options.fresh), loaded.beam.artifacts)
    pipeline = builder.build(loaded, paths.run, place)
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
        view.say(f"next: {_run_again(options)}{place} takes up where it stopped")
        return INTERRUPTED, f"{paths.run} interrupted at {stopped.id}"
    if stopped.id == "Pusher":
        view.say(f"next: textrail metrics {options.run}{place}")
    return FAILED, f"{paths.run} stopped at {stopped.id}: {stopped.note}"


def _run_again(options: argparse.Namespace) -> str:
    """The command that runs these very settings."""
    changes = (word for override in options.overrides for word in ("--set", override))
    return shlex.join(["textrail", "run", options.run, *changes])


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
                console.print(f"next: {_run_again(options)}", soft_wrap=True)
        except TextrailError as error:
            problem = str(error)
    return _tell(problem, FAILED) if problem else OK


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


def _predict(options: argparse.Namespace) -> int:
    from pipelines import asking

    warning = asking.ask(options, _to_push(options.run))
    return _tell(f"warning: {warning}", OK) if warning else OK


def _to_push(run: str) -> str:
    """What to do where a run has pushed nothing."""
    return f"Push one with `textrail run {run}`; `textrail metrics {run}` tells why one was refused."


def _serve(options: argparse.Namespace) -> int:
    from pipelines import workspace
    from pipelines.console import captured

    paths = workspace.existing(options.run, options.workspace)
    for name, least in (("max_batch", 1), ("max_wait_ms", 0), ("max_request_mb", 0.001), ("port", 0)):
        if not getattr(options, name) >= least:
            raise TextrailError(f"--{name.replace('_', '-')} of at least {least}", str(getattr(options, name)),
                                "Leave it out for the default.")
    with captured(log := paths.new_log()) as screen:

        def tell(line: str) -> None:
            print(line, file=screen, flush=True)

        tell(f"log: {log}; importing TensorFlow and loading the model takes 10 to 20 s")
        from pipelines.serving import batching, server

        limits = batching.Limits(options.max_batch, options.max_wait_ms / 1000)
        place = server.Place(options.host, options.port, int(options.max_request_mb * 2**20), limits,
                             not options.no_page)
        server.serve(paths, place, _to_push(options.run), tell)
    return OK


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


def _workers(options: argparse.Namespace) -> int:
    # Beam's pool starts its workers as plain `python`: that must be ours, and find this project from any folder.
    paths = {"PATH": os.path.dirname(sys.executable), "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    for name, first in paths.items():
        os.environ[name] = os.pathsep.join(filter(None, (first, os.environ.get(name))))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    print(f"a pool of workers on port {options.port}; Ctrl-C ends it", flush=True)
    os.execv(sys.executable, [sys.executable, "-W", "ignore", "-m", "apache_beam.runners.worker.worker_pool_main",
                              f"--service_port={options.port}"])


def _train_worker(options: argparse.Namespace) -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from components.code_fingerprint import project_fingerprint
    from modules import train_worker

    train_worker.take_part(project_fingerprint(), options.wait_minutes * 60)
    return OK


def _doctor(options: argparse.Namespace) -> int:
    from pipelines import doctor, workspace

    findings = doctor.examine(workspace.root(options.workspace))
    for finding in findings:
        print(finding)
    return FAILED if any(finding.state == "missing" for finding in findings) else OK


if __name__ == "__main__":
    sys.exit(main())
