"""Pretrained encoders: in, looked at, out."""

from __future__ import annotations

import argparse
import os
from typing import Any

from pipelines.commands.shared import OK, workspace_option


def add(commands: Any) -> None:
    """Adds `encoder` with its commands."""
    command = commands.add_parser("encoder", help="bring a pretrained BERT in, look at one, take ours out")
    commands = command.add_subparsers(metavar="COMMAND", required=True)
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
    command.set_defaults(command=_import)

    command = commands.add_parser("show", parents=[source], help="architecture, parameters, vocabulary, hash")
    command.add_argument("--summary", action="store_true", help="also each tensor's name, shape and parameters")
    command.set_defaults(command=_show)

    command = commands.add_parser("export", parents=[workspace_option()],
                                  help="a run's model in a layout that other tools load")
    command.add_argument("run", metavar="RUN")
    command.add_argument("folder", metavar="DIR", help="a new folder")
    command.add_argument("--format", choices=("hf", "tfhub"), required=True, help="hf: HuggingFace's, with its "
                         "heads; tfhub: SavedModels of encoder and preprocessing")
    command.add_argument("--trained", action="store_true", help="the model trained last, pushed or not (default: the "
                         "version served)")
    command.set_defaults(command=_export)


def _import(options: argparse.Namespace) -> int:
    from pipelines.console import captured

    with captured(os.devnull) as screen:
        from pipelines import encoders

        encoders.bring_in(_source(options), options.folder, screen)
    return OK


def _show(options: argparse.Namespace) -> int:
    from pipelines.console import captured

    with captured(os.devnull) as screen:
        from pipelines import encoders

        encoders.show(_source(options), options.summary, screen)
    return OK


def _export(options: argparse.Namespace) -> int:
    from pipelines import workspace
    from pipelines.console import captured

    paths = workspace.existing(options.run, options.workspace)
    with captured(os.devnull) as screen:
        from pipelines import encoders

        encoders.take_out(paths, options.folder, options.format, options.trained, screen)
    return OK


def _source(options: argparse.Namespace) -> dict[str, Any]:
    """Of the command line, what `read_encoder` takes."""
    return {key: getattr(options, key) for key in ("source", "sha256", "lower_case", "config", "preprocessing")}
