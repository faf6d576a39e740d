"""Asking the pushed model, on the command line and over HTTP."""

from __future__ import annotations

import argparse
from typing import Any

from modules.errors import TextrailError
from pipelines.commands.shared import OK, beam_option, tell, workspace_option


def add(commands: Any) -> None:
    """Adds `predict` and `serve`."""
    command = commands.add_parser("predict", parents=[workspace_option(), beam_option()], help="ask the pushed model")
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
    command.set_defaults(command=predict)

    command = commands.add_parser("serve", parents=[workspace_option()],
                                  help="the pushed model over HTTP, and a page to try it on")
    command.add_argument("run", metavar="RUN")
    _add_serving_options(command)
    command.set_defaults(command=_serve)


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


def predict(options: argparse.Namespace) -> int:
    from pipelines import asking

    warning = asking.ask(options, _to_push(options.run))
    return tell(f"warning: {warning}", OK) if warning else OK


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

        def say(line: str) -> None:
            print(line, file=screen, flush=True)

        say(f"log: {log}; importing TensorFlow and loading the model takes 10 to 20 s")
        from pipelines.serving import batching, server

        limits = batching.Limits(options.max_batch, options.max_wait_ms / 1000)
        place = server.Place(options.host, options.port, int(options.max_request_mb * 2**20), limits,
                             not options.no_page)
        server.serve(paths, place, _to_push(options.run), say)
    return OK
