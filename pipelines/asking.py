"""`textrail predict`: from what the command line asks to the answers of the pushed model."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from components import files
from modules.errors import TextrailError
from pipelines import workspace
from pipelines.console import captured, ticking

if TYPE_CHECKING:
    from pipelines.predict import Predictor
    from pipelines.workspace import Workspace


def ask(options: argparse.Namespace, fix: str) -> str:
    """Answers texts, the rows of a file, or those of many files.

    Args:
        options: of the command line.
        fix: what to do where nothing was pushed, for the error.

    Returns:
        A sentence on texts that the model has not answered as a whole; empty if there are none.

    Raises:
        TextrailError: options do not go together, or texts or files cannot be used.
    """
    pair = [text for text in (options.text_a, options.text_b) if text is not None]
    ways = (bool(options.texts), bool(pair), bool(options.file), bool(options.input))
    to_files = options.file or options.input
    if (sum(ways) != 1 or len(pair) == 1 or bool(options.file) != bool(options.out)
            or bool(options.input) != bool(options.output) or (to_files and options.json)):
        raise TextrailError("texts, or --text-a with --text-b, or --file with --out, or --input with --output, the "
                            "last two without --json", "another combination",
                            f'For example: textrail predict {options.run} "a fine film".')
    _check_utf8([*options.texts, *pair])
    paths = workspace.existing(options.run, options.workspace)
    if options.input:
        return _ask_for_many(options, paths, fix)
    # TensorFlow greets on standard error, which nobody asked for; exceptions still say what is wrong.
    with captured(os.devnull) as screen:
        from pipelines.predict import Dialect, Predictor, newest_version, predict_file

        predictor = Predictor(newest_version(paths.destination(), fix))
        if not options.file:
            return _ask_for_texts(options, pair, predictor, screen)
        rows, warning = predict_file(predictor, options.file, options.out, Dialect.of(paths))
        print(f"{rows} rows with {predictor.answers.what} in {options.out}", file=screen)
    return warning


def _check_utf8(texts: Sequence[str]) -> None:
    """Refuses texts of the command line with bytes that Python could not decode."""
    for number, text in enumerate(texts, start=1):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise TextrailError(f"UTF-8 in text {number}", f"{text[error.start]!a} at character {error.start + 1}",
                                "Write it on a terminal in UTF-8, or in a file for --file.") from None


def _ask_for_texts(options: argparse.Namespace, pair: Sequence[str], predictor: Predictor, screen: TextIO) -> str:
    from pipelines.predict import cut_warning

    rows = [tuple(pair)] if pair else [(text,) for text in options.texts]
    if len(rows[0]) != len(predictor.columns):
        needs = "--text-a and --text-b" if len(predictor.columns) == 2 else "single texts"
        raise TextrailError(f"{needs}: the model reads {' and '.join(predictor.columns)}",
                            "single texts" if len(rows[0]) == 1 else "a pair", "Ask it so.")
    cut = {}
    for number, (row, answer) in enumerate(zip(rows, predictor(rows), strict=True), start=1):
        # The text of a pair is a list of two.
        print(json.dumps({"text": row[0] if len(row) == 1 else row, **answer._asdict()}, ensure_ascii=False)
              if options.json else predictor.answers.line(answer, row), file=screen)
        if reason := predictor.answers.cut(answer):
            cut[number] = reason
    return cut_warning("text", cut)


def _ask_for_many(options: argparse.Namespace, paths: Workspace, fix: str) -> str:
    from pipelines import settings

    place = settings.load_beam(paths.recorded("beam"), options.overrides).model_dump()
    inputs, (output,) = ([path if files.is_uri(path) else os.path.abspath(os.path.expanduser(path)) for path in some]
                         for some in (options.input, [options.output]))
    with captured(paths.new_log()) as screen, ticking(screen):
        from pipelines import bulk, preflight
        from pipelines.predict import Dialect

        if preflight.is_wanted(place):
            first = [found[0].path for found in map(files.find, inputs) if found]
            print(preflight.check(place, output, first), file=screen)
        done = bulk.predict_files(paths.destination(), fix, inputs, output, place, Dialect.of(paths), options.format,
                                  options.part_mb)
        rows, parts = (f"{count:,} {what}{'s' * (count != 1)}" for count, what in (
            (done.rows, "row"), (done.parts, "part")))
        kept = f", {done.kept:,} of them from before" if done.kept else ""
        print(f"{rows} in {parts}{kept}: {output}", file=screen)
    return done.warning
