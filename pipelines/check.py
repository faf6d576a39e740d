"""A look at a run before it starts: rows of its data through its own steps, as far as the loss before training.

What reads, encodes and builds the model is the run's own code, so that what would stop a run in its first minutes
stops here in seconds. Nothing is trained, and nothing is written but the plots that are asked for.

Here is what all shapes have in common; each has a module of its own beside this one.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from components.anomaly_gate import Finding, skipped_findings
from components.rows import Columns, Row, wanted
from components.sample import SAMPLE_BYTES, Sample, take_sample
from components.sources import make_source
from components.splits_writer import check_no_split_is_empty, unusable
from components.verdict import check_thresholds
from components.vocabulary_gen import Codec, word_parts
from modules.batching import Buckets
from modules.optimization import Schedule
from pipelines.sections import Settings

EXAMINERS = {shape: f"pipelines.check_{shape}" for shape in ("classification", "translation", "pretraining")}
BATCH = 512   # Rows tokenized at a time.


@dataclass(frozen=True)
class Check:
    """What was found of any run.

    Attributes:
        settings: of the run.
        sample: the rows that were read.
        precision: arithmetic of the layers, and why.
        parameters: numbers that train, and numbers that do not.
        steps_per_epoch: batches of an epoch, estimated where the sample is not whole.
        schedule: the learning rate.
    """

    settings: Any   # those of its shape
    sample: Sample
    precision: tuple[str, str]
    parameters: tuple[int, int]
    steps_per_epoch: int
    schedule: Schedule

    def problem(self) -> str:
        """A sentence, if the run should not be started so."""
        raise NotImplementedError

    def warnings(self) -> list[str]:
        """Sentences about what a run survives and its result may not."""
        raise NotImplementedError


def examine(settings: Settings, rows: int, limit: int = SAMPLE_BYTES) -> Check:
    """Takes rows of a run's data through its steps.

    Args:
        settings: of the run, with absolute paths.
        rows: how many rows go through the model and are shown.
        limit: text to read, in bytes.

    Returns:
        What was found, as the run's shape has it.

    Raises:
        TextrailError: what would stop the run before or in its training.
    """
    return importlib.import_module(EXAMINERS[settings.shape]).examine(settings, rows, limit)


def read_sample(settings: Settings, limit: int) -> tuple[Sample, Columns]:
    """Rows of a run's data and their columns.

    Raises:
        TextrailError: what ExampleGen would say of the rows, or Evaluator of thresholds on slices.
    """
    data = settings.data.model_dump(exclude={"schema_file"})
    columns = wanted(data)
    sample = take_sample(make_source(data), columns, settings.data.split.model_dump(), limit)
    if sample.bad and settings.data.bad_rows == "stop":
        raise unusable(len(sample.bad), sample.read, sample.bad)
    # What was not read may be rows of the other splits.
    check_no_split_is_empty({split: len(rows) for split, rows in sample.rows.items()
                             if sample.whole or split == "train"}, len(sample.bad))
    if sample.whole and "slice" in columns.roles:
        _check_slices(sample, columns, settings)
    return sample, columns


def _check_slices(sample: Sample, columns: Columns, settings: Settings) -> None:
    """Refuses thresholds on values of `data.slice` that no judged row has, which a run meets after its training."""
    place, overall = columns.roles.index("slice"), settings.evaluation.overall
    judged = sample.rows.get("test") or sample.rows["validation"]
    values = sorted({row[place].decode() for row in judged})
    named = [name for name in settings.evaluation.thresholds if "/" in name and name.partition("/")[0] in overall]
    if named:
        check_thresholds(named, [f"{metric}/{value}" for metric in overall for value in values])


def skipped(sample: Sample, settings: Settings) -> list[Finding]:
    """What AnomalyGate would say of the rows that `data.bad_rows: skip` leaves out, if all rows were read."""
    if not sample.whole:
        return []
    reasons = dict(Counter(row.reason for row in sample.bad).most_common())
    share = len(sample.bad) / max(sample.read, 1)
    return skipped_findings({"skipped": {"all splits": {"share": share, "reasons": reasons}}},
                            settings.gate.max_skipped_rows, "skipped_rows.jsonl of a run")


class Encode:
    """Rows through the run's preprocessing function, traced once as Transform traces it.

    Args:
        preprocessing_fn: of the run.
        names: of the columns of the rows.
        config: what the function is told.
    """

    def __init__(self, preprocessing_fn: Callable[..., dict[str, Any]], names: Sequence[str], config: dict[str, Any]):
        self._names = names
        # The graph and not what makes it: TensorFlow warns of a function that is traced anew for each of many runs.
        self._graph = tf.function(lambda columns: preprocessing_fn(columns, config), input_signature=[
            {name: tf.TensorSpec([None, 1], tf.string) for name in names}]).get_concrete_function()

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        columns = zip(*rows, strict=True)
        return self._graph({name: tf.constant([[value] for value in values])
                            for name, values in zip(self._names, columns, strict=True)})


def count_words(rows: Sequence[Row], place: int, codec: Codec) -> Counter[str]:
    """The words of a column, as VocabularyGen counts them.

    Args:
        rows: that are read.
        place: of the column in a row.
        codec: what splits texts into words.
    """
    counts: Counter[str] = Counter()
    for start in range(0, len(rows), BATCH):
        words = codec.words(tf.constant([row[place] for row in rows[start:start + BATCH]])).values.numpy()
        counts.update(part.decode() for word in words for part in word_parts(word))
    return counts


def epoch_steps(buckets: Buckets, lengths: np.ndarray, rows: int, streams: int) -> int:
    """Batches of an epoch of `rows` rows whose lengths, none above the last bucket's, are distributed as these.

    Of several streams each makes a part of every batch, of which `buckets` are, from a part of the rows.
    """
    counts = np.bincount(np.searchsorted(buckets.lengths, lengths), minlength=len(buckets.lengths))
    return buckets.batches([-(-int(count) * rows // (len(lengths) * streams)) for count in counts])
