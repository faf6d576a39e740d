"""`textrail predict --input FILES --output FOLDER`: a pushed model over files of any size, wherever Beam runs.

A reader goes through each file once and cuts it into parts of so many bytes, which it puts aside; Beam carries only
where they lie. Then every part is answered by whatever worker is free, and its file appears, whole, under a name that
sorts as the rows stand in the input: `part-FILE-PART`. What is there already is not answered again, so that a second
call goes on where a killed one was. Memory is that of a part, whatever the size of the files.
"""

from __future__ import annotations

import json
import os
import pickle
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import tensorflow as tf
from apache_beam.utils import shared

from components import files
from components.beam_runner import make_pipeline
from modules import progress
from modules.errors import TextrailError
from pipelines.bulk_formats import FORMATS, Format, format_named, format_of
from pipelines.described import Described
from pipelines.predict import Dialect, Predictor, newest_version

MEGABYTE = 1 << 20
MANIFEST = "manifest.json"   # Of a finished output; it comes last.
WORK = ".parts"              # In the output until it is finished: the plan, what is put aside, counts.
PLAN, SUMMARY = "plan.json", "summary.json"


class Done(NamedTuple):
    """What came of the files.

    Attributes:
        rows: how many they have.
        parts: files that were written.
        kept: of those, how many an earlier call had written.
        warning: a sentence on rows that the model has not answered as a whole; empty if there are none.
    """

    rows: int
    parts: int
    kept: int
    warning: str


def predict_files(destination: str, fix: str, patterns: Sequence[str], output: str, settings: Mapping[str, Any],
                  dialect: Dialect, kind: str | None = None, part_mb: int = 16) -> Done:
    """Answers every row of some files.

    Args:
        destination: folder or URI of the pushed versions; the newest one is asked, and by a call that goes on the one
            that was asked before.
        fix: what to do where nothing was pushed, for the error.
        patterns: of the files, absolute or URIs.
        output: folder or URI for the parts.
        settings: the section `beam` of the settings.
        dialect: of CSV files.
        kind: of `FORMATS`; none goes by the files' names.
        part_mb: MB (2^20 bytes) of text in a part.

    Returns:
        What came of them; `output` has `manifest.json` then.

    Raises:
        TextrailError: nothing was pushed, no file matches, a row cannot be used, or `output` has other files.
    """
    if part_mb < 1:
        raise TextrailError("at least 1 MB in a part", f"--part-mb {part_mb}", "16 suits most files.")
    found = _find(patterns)
    kind = kind or _kind(found)
    wanted = {"kind": kind, "part_mb": part_mb, "dialect": list(dialect), "files": [list(file) for file in found],
              "model": newest_version(destination, fix)}
    read = format_of(kind, dialect)
    # What is wrong with every file shows before anything is started.
    read.open(found[0].path, Described(str(wanted["model"])))
    plan = _begin(output, json.loads(json.dumps(wanted)))
    if plan is None:   # Finished before.
        with tf.io.gfile.GFile(os.path.join(output, MANIFEST)) as file:
            rows = json.load(file)["files"]
        parts = sum(one["parts"] for one in rows)
        return Done(sum(one["rows"] for one in rows), parts, parts, "")
    ask = _Ask(read, plan["model"], output, [file.path for file in found])
    with make_pipeline(settings, "predict", output) as pipeline:
        put_aside = (pipeline
                     | "Files" >> beam.Create([(number, file.path) for number, file in enumerate(found)])
                     | "SpreadFiles" >> beam.Reshuffle()
                     | "CutFile" >> beam.ParDo(_CutFile(read, plan["model"], output, part_mb * MEGABYTE)).with_outputs(
                         "counts", main="parts"))
        asked = put_aside.parts | "SpreadParts" >> beam.Reshuffle() | "Ask" >> beam.ParDo(ask)
        _ = ((put_aside.counts, asked)
             | "Counts" >> beam.Flatten()
             | "AddUp" >> beam.CombineGlobally(_AddUp())
             | "Summary" >> beam.Map(_write_json, os.path.join(output, WORK, SUMMARY)))
    return _finish(output, plan, [file.path for file in found])


def _find(patterns: Sequence[str]) -> list[files.File]:
    found: dict[str, files.File] = {}
    for pattern in patterns:
        matches = files.find(pattern)
        if not matches:
            raise TextrailError(f"a file at {pattern}", files.describe_missing(pattern), "Correct --input.")
        found |= {file.path: file for file in matches}
    return list(found.values())


def _kind(found: Sequence[files.File]) -> str:
    """The one format of all files.

    Raises:
        TextrailError: there are several, or a name tells nothing.
    """
    kinds = {format_named(file.path): file.path for file in found}
    if None in kinds or len(kinds) > 1:
        raise TextrailError("files of one kind: .csv, .tsv or .txt, also gzipped, or with tfrecord in their names",
                            " and ".join(sorted(kinds.values())),
                            f"Name one kind in --input, or say which it is: --format {'|'.join(FORMATS)}.")
    return str(next(iter(kinds)))


def _begin(output: str, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """Makes the output's folder, or finds what an earlier call left there.

    Returns:
        The plan in force; none if it has been carried out.

    Raises:
        TextrailError: the folder has something else.
    """
    work = os.path.join(output, WORK)
    if tf.io.gfile.exists(output) and not tf.io.gfile.isdir(output):
        raise TextrailError("a folder for --output", f"the file {output}", "Name another one; it is made.")
    there = tf.io.gfile.listdir(output) if tf.io.gfile.isdir(output) else []
    names = {name.rstrip("/") for name in there}
    before = next((os.path.join(output, name) for name in (MANIFEST, os.path.join(WORK, PLAN))
                   if name.split("/")[0] in names and tf.io.gfile.exists(os.path.join(output, name))), None)
    if before is None:
        if names - {WORK}:
            raise TextrailError(f"nothing, an empty folder or an earlier call's parts in {output}",
                                f"other files, such as {min(names - {WORK})}", "Name another folder in --output.")
        tf.io.gfile.makedirs(work)
        _write_json(wanted, os.path.join(work, PLAN))
        return wanted
    with tf.io.gfile.GFile(before) as file:
        plan = json.load(file)
    plan = plan.get("plan", plan)   # A manifest holds it.
    is_finished = before.endswith(MANIFEST)
    files_are = "files" if is_finished else "paths"   # A file that was mended meanwhile is answered anew.
    for key, what in (("kind", "--format"), ("part_mb", "--part-mb"), ("dialect", "the run's data settings"),
                      (files_are, "--input" + ", or the files have changed" * is_finished)):
        then, now = ([file[0] for file in one["files"]] if key == "paths" else one[key] for one in (plan, wanted))
        if then != now:
            raise TextrailError(f"the parts of this very call in {output}", f"those of one with another {what}",
                                "Name another folder in --output, or delete that one.")
    if is_finished:
        if plan["model"] != wanted["model"]:
            raise TextrailError(f"answers of {wanted['model']} in {output}", f"finished ones of {plan['model']}",
                                "Name another folder in --output.")
        return None
    if plan["model"] != wanted["model"]:
        progress.report(f"goes on with {plan['model']}, which was asked before; served now is {wanted['model']}",
                        lasting=True)
    changed = [number for number, (then, now) in enumerate(zip(plan["files"], wanted["files"], strict=True))
               if then != now]
    for folder in (output, work):
        for name in tf.io.gfile.listdir(folder) if changed else []:
            if name.startswith(tuple(part_name(number, 0, "")[:-6] for number in changed)):
                tf.io.gfile.remove(os.path.join(folder, name))
    if changed:
        plan |= {"files": wanted["files"]}
        _write_json(plan, os.path.join(work, PLAN))
    return plan


def _finish(output: str, plan: dict[str, Any], paths: Sequence[str]) -> Done:
    with tf.io.gfile.GFile(os.path.join(output, WORK, SUMMARY)) as file:
        summary = json.load(file)
    if summary["errors"]:
        _, error = min(summary["errors"])
        raise TextrailError(*error)
    of_files = {int(number): counts for number, counts in summary["files"].items()}
    read, asked = (sum(counts[key] for counts in of_files.values()) for key in ("read", "asked"))
    assert read == asked, f"{read} rows read, {asked} answered"
    manifest = {"plan": plan, "rows": read, "files": [
        {"file": path, "rows": of_files[number]["asked"], "parts": of_files[number]["parts"]}
        for number, path in enumerate(paths)]}
    _write_json(manifest, os.path.join(output, MANIFEST))
    tf.io.gfile.rmtree(os.path.join(output, WORK))
    parts = sum(counts["parts"] for counts in of_files.values())
    return Done(read, parts, summary["kept"], _warning(summary["cut"], paths))


def _warning(cut: Mapping[str, Mapping[str, Any]], paths: Sequence[str]) -> str:
    """A sentence on each reason why texts were not answered as a whole; empty if there is none."""
    found = []
    for reason, of in sorted(cut.items(), key=lambda one: one[1]["first"]):
        (number, row), more = of["first"], f" (and {of['rows'] - 1:,} more)" if of["rows"] > 1 else ""
        found.append(f"{paths[number]}, row {row}{more}: the text is {reason}")
    return "; ".join(found)


def part_name(number: int, part: int, suffix: str) -> str:
    """The name of a part, which sorts as the rows stand in the input: `part-00002-000017.csv`."""
    return f"part-{number:05d}-{part:06d}{suffix}"


class _CutFile(beam.DoFn):
    """A numbered file to its parts that are not answered yet, put aside; and, tagged `counts`, what was read."""

    def __init__(self, read: Format, model: str, output: str, part_bytes: int):
        self._read, self._model, self._output, self._part_bytes = read, model, output, part_bytes

    def process(self, numbered: tuple[int, str]) -> Iterator[Any]:
        number, path = numbered
        held: list[Any] = []
        part = rows = size = 0
        try:
            header, found = self._read.open(path, Described(self._model))
            for row, row_size in found:
                held.append(row)
                size += row_size
                if size >= self._part_bytes:
                    yield self._cut(number, path, part, rows, header, held)
                    part, rows, held, size = part + 1, rows + len(held), [], 0
            if held or not part:   # A file without rows has a part without rows: its header.
                yield self._cut(number, path, part, rows, header, held)
                rows += len(held)
            counts = _counted(number, read=rows)
        except TextrailError as error:
            counts = _counted(number) | {"errors": [[number, [error.expected, error.received, error.fix]]]}
        yield beam.pvalue.TaggedOutput("counts", counts)

    def _cut(self, number: int, path: str, part: int, before: int, header: Any, held: list[Any]) -> Any:
        name = part_name(number, part, self._read.suffix(path))
        counts = os.path.join(self._output, WORK, f"{name}.json")
        if tf.io.gfile.exists(os.path.join(self._output, name)) and tf.io.gfile.exists(counts):
            with tf.io.gfile.GFile(counts) as file:
                return beam.pvalue.TaggedOutput("counts", json.load(file) | {"kept": 1})
        aside = os.path.join(self._output, WORK, f"{name}.rows")
        unfinished = f"{aside}.{uuid.uuid4().hex}"
        with tf.io.gfile.GFile(unfinished, "wb") as file:
            file.write(pickle.dumps((header, held), protocol=pickle.HIGHEST_PROTOCOL))
        tf.io.gfile.rename(unfinished, aside, overwrite=True)
        return number, name, before


class _Ask(beam.DoFn):
    """A part that was put aside to its file with answers; outputs what was counted. The model is one a process."""

    def __init__(self, read: Format, model: str, output: str, paths: Sequence[str]):
        self._read, self._folder, self._output, self._paths = read, model, output, paths
        self._shared = shared.Shared()

    def setup(self) -> None:
        self._model = self._shared.acquire(lambda: Predictor(self._folder))

    def process(self, put_aside: tuple[int, str, int]) -> Iterator[dict[str, Any]]:
        number, name, before = put_aside
        aside = os.path.join(self._output, WORK, f"{name}.rows")
        with tf.io.gfile.GFile(aside, "rb") as file:
            header, rows = pickle.loads(file.read())
        cut: dict[str, dict[str, Any]] = {}   # Reason → how many rows, and file and row of the first.

        def answers() -> Iterator[Any]:
            asked = self._model(self._read.texts(row, header) for row in rows)
            for place, answer in enumerate(asked, start=before + 1):
                if reason := self._model.answers.cut(answer):
                    cut.setdefault(reason, {"rows": 0, "first": [number, place]})["rows"] += 1
                yield answer

        unfinished = os.path.join(self._output, WORK, f"{uuid.uuid4().hex}{os.path.splitext(name)[1]}")
        self._read.write(unfinished, self._paths[number], header, rows, answers(), self._model)
        counts = _counted(number, asked=len(rows), parts=1) | {"cut": cut}
        # Counts first, then the part under its name: where that is, the counts are.
        _write_json(counts, os.path.join(self._output, WORK, f"{name}.json"))
        tf.io.gfile.rename(unfinished, os.path.join(self._output, name), overwrite=True)
        progress.report(f"{name}: {len(rows):,} rows answered")
        yield counts


def _counted(number: int, read: int = 0, asked: int = 0, parts: int = 0) -> dict[str, Any]:
    """Counts of a file or of a part of it."""
    return {"files": {str(number): {"read": read, "asked": asked, "parts": parts}}, "cut": {}, "errors": [],
            "kept": 0}


class _AddUp(beam.CombineFn):
    """Adds up counts; of errors the first one stays."""

    def create_accumulator(self) -> dict[str, Any]:
        return {"files": {}, "cut": {}, "errors": [], "kept": 0}

    def add_input(self, total: dict[str, Any], counts: dict[str, Any]) -> dict[str, Any]:
        return self.merge_accumulators([total, counts])

    def merge_accumulators(self, accumulators: Iterable[dict[str, Any]]) -> dict[str, Any]:
        total = self.create_accumulator()
        for one in accumulators:
            for number, counts in one["files"].items():
                before = total["files"].get(number, {})
                total["files"][number] = {key: value + before.get(key, 0) for key, value in counts.items()}
            for reason, of in one["cut"].items():
                known = total["cut"].get(reason, {"rows": 0, "first": of["first"]})
                total["cut"][reason] = {"rows": known["rows"] + of["rows"], "first": min(known["first"], of["first"])}
            total["errors"] = sorted([*total["errors"], *one["errors"]])[:1]
            total["kept"] += one["kept"]
        return total

    def extract_output(self, total: dict[str, Any]) -> dict[str, Any]:
        return total


def _write_json(content: dict[str, Any], path: str) -> None:
    """Writes beside, then renames."""
    beside = f"{path}.{uuid.uuid4().hex}"
    with tf.io.gfile.GFile(beside, "w") as file:
        file.write(json.dumps(content, ensure_ascii=False, indent=1) + "\n")
    tf.io.gfile.rename(beside, path, overwrite=True)
