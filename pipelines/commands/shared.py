"""What several commands have in common: options, exit statuses, the sentence of what went wrong."""

from __future__ import annotations

import argparse
import shlex
import sys

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def workspace_option() -> argparse.ArgumentParser:
    """Where runs keep their state: `options.workspace`."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--workspace", metavar="DIR",
                        help="folder of all runs' state (default: $TEXTRAIL_WORKSPACE, else ./workspace)")
    return parser


def run_options() -> argparse.ArgumentParser:
    """Which run, with which settings: `options.run` and `options.overrides`."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("run", metavar="NAME|FILE", help="a ready-made run, or a settings file of your own")
    parser.add_argument("--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[],
                        help="another value for a setting, as YAML; repeatable")
    return parser


def beam_option() -> argparse.ArgumentParser:
    """Where the data work is done, as one of `options.overrides`."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--beam", metavar="RUNNER", dest="overrides", action="append", default=[],
                        type="beam.runner={}".format, help="where the data work is done: direct (this process), "
                        "flink, spark, dataflow or prism; short for --set beam.runner=RUNNER")
    return parser


def tell(sentence: str, status: int) -> int:
    """Says on standard error why a command ends, and returns its exit status."""
    print(f"textrail: {sentence}", file=sys.stderr)
    return status


def run_again(options: argparse.Namespace) -> str:
    """The command that runs these very settings."""
    changes = (word for override in options.overrides for word in ("--set", override))
    return shlex.join(["textrail", "run", options.run, *changes])
