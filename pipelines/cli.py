"""The `textrail` command. Imports only what every command needs; the rest when a command needs it."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence

from modules.errors import TextrailError, is_interruption
from pipelines.commands import encoders, kubeflow, machines, models, results, runs
from pipelines.commands.shared import FAILED, INTERRUPTED, USAGE, tell
from pipelines.failures import gist


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: as on the command line; that of this process if None.

    Returns:
        The exit status: 0 done, 1 stopped by a gate or an error, 2 wrong settings or usage, 130 interrupted.
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and (options.command is not models.predict or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:   # argparse ends a list of positionals at the first option; texts may stand on either side of one.
        options.texts += rest
    # Whoever ends a job ends it like a person would: what was begun is put away, checkpoints are kept.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return options.command(options)
    except TextrailError as error:
        return tell(str(error), USAGE)
    except (KeyboardInterrupt, Exception) as error:
        return tell("interrupted", INTERRUPTED) if is_interruption(error) else _tell_unexpected(error)


def _tell_unexpected(error: BaseException) -> int:
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="textrail-", suffix=".log", delete=False) as file:
        traceback.print_exception(type(error), error, error.__traceback__, file=file)
    return tell(f"{gist(error).rstrip('.')}. The traceback is in {file.name}", FAILED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="textrail",
        description="From texts, labelled, in pairs or plain, to a pushed model that answers plain strings.",
        epilog="Settings, key by key: docs/settings.md.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for group in (runs, results, models, encoders, machines, kubeflow):
        group.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
