"""What a check finds of a classification: rows through the encoder, classes, and a new head that knows nothing."""

from __future__ import annotations

import math
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from components.anomaly_gate import bound_findings, drift, refuse
from components.encoder_positions import check_positions
from components.encoder_sources import import_encoder
from components.rows import Row, wanted
from components.sample import Sample
from components.schema_gen import check_classes, class_names, read_curated
from components.text_transform import unknown_label, write_classes
from components.verdict import check_thresholds, metric_names
from modules.classifier import (
    Classifier,
    layer_precision,
    length_buckets,
    preprocessing_fn,
    starting_model,
    sums,
)
from modules.opaque import OpaqueEncoder
from modules.optimization import Schedule
from modules.tokenization import Vocabulary
from modules.training import replicas
from pipelines.check import BATCH, Check, Encode, epoch_steps, read_sample, skipped
from pipelines.classification import trainer_settings, transform_settings
from pipelines.classification_sections import Settings

UNCUT = 1 << 30    # Tokens that no text has.
LOSS_ROWS = 10     # At least so many are asked, for a loss that one row does not decide.
# A new head's logits are near 0, and its loss near ln(classes). With BERT's own deviation of new weights, 0.02, two
# logits differ by 0.7 or so in the widest encoders, which adds 0.1 to the loss of balanced rows, rarely 0.4. More comes
# from weights or arithmetic that are not what they should be.
LOSS_TOLERANCE = 0.5
MUCH_CUT = 0.1     # Share of the texts.
MUCH_UNKNOWN = 0.05  # Share of the tokens.
RARE = 0.2         # Of the share that a class would have if all were equally frequent.


class ShownRow(NamedTuple):
    """One row on its way through the model.

    Attributes:
        texts: one, or two of a pair.
        label: name of the class.
        tokens: wordpieces with [CLS] and [SEP].
        token_ids: [tokens].
        segments: [tokens] 0 and, for the second text of a pair, 1.
        logits: [classes].
    """

    texts: tuple[str, ...]
    label: str
    tokens: list[str]
    token_ids: list[int]
    segments: list[int]
    logits: list[float]


@dataclass(frozen=True)
class ClassificationCheck(Check):
    """What was found.

    Attributes:
        settings: of the run.
        classes: names in the order of their ids.
        labels: class → rows of the training split that were read.
        lengths: [training rows] tokens before cutting, [CLS] and [SEP] included.
        unknown: share of [UNK] among the tokens, special ones left out.
        shown: some rows on their way through the model.
        loss: mean cross entropy before training of these rows, and some more where they are few, in nats.
    """

    settings: Settings
    classes: list[str]
    labels: dict[str, int]
    lengths: np.ndarray
    unknown: float
    shown: list[ShownRow]
    loss: float

    @property
    def chance(self) -> float:
        """The loss of equal scores for all classes, in nats."""
        return math.log(len(self.classes))

    @property
    def cut(self) -> float:
        """Share of the training texts that are longer than the model reads."""
        return float(np.mean(self.lengths > self.settings.model.max_length))

    def problem(self) -> str:
        """A sentence, if the run should not be started so."""
        # A head that was kept may know the answers; a new one cannot.
        least = 0.0 if self.settings.encoder.head == "keep" else self.chance - LOSS_TOLERANCE
        if least <= self.loss <= self.chance + LOSS_TOLERANCE:
            return ""
        return (f"expected a loss before training within {LOSS_TOLERANCE} of ln({len(self.classes)} classes) = "
                f"{self.chance:.3f}; received {self.loss:.3f}. Try training.precision=float32, and look whether "
                "encoder.source has the weights that belong to its config.json.")

    def warnings(self) -> list[str]:
        """Sentences about what a run survives and its result may not."""
        model, rows = self.settings.model, len(self.lengths)
        found = []
        rarest = min(self.classes, key=lambda name: self.labels[name])
        if self.labels[rarest] < RARE * rows / len(self.classes):
            found.append(f"only {self.labels[rarest]:,} of {rows:,} training rows are {rarest!r}: hold macro_f1 or mcc "
                         "under evaluation.thresholds to a bound, accuracy hardly notices that class.")
        most = max(self.classes, key=lambda name: self.labels[name])
        threshold, share = self.settings.evaluation.thresholds.get("accuracy"), self.labels[most] / rows
        if threshold and threshold.min is not None and threshold.min <= share:
            found.append(f"evaluation.thresholds.accuracy.min is {threshold.min:g}, and answering {most!r} to "
                         f"everything reaches {share:.3f}: raise it.")
        if self.cut > MUCH_CUT:
            found.append(f"{self.cut:.1%} of the training texts are longer than model.max_length={model.max_length} "
                         f"and lose their {'end' if self.settings.data.text_pair else model.truncate}: 95% have at "
                         f"most {np.percentile(self.lengths, 95):.0f} tokens.")
        if self.unknown > MUCH_UNKNOWN:
            found.append(f"{self.unknown:.1%} of the tokens are [UNK]: is the encoder's vocabulary of the texts' "
                         "language, and encoder.lower_case right for it?")
        return found


def examine(settings: Settings, rows: int, limit: int) -> ClassificationCheck:
    """See `check.examine`; the rows that are shown are spread over the classes."""
    sample, columns = read_sample(settings, limit)
    used = columns.roles.index("label") + 1   # Behind it stands the slice, which nothing here asks for.
    sample = sample._replace(rows={split: [row[:used] for row in rows] for split, rows in sample.rows.items()})
    classes = _classes(sample, settings)
    _check_labels(sample, settings, classes)
    keras.utils.set_random_seed(settings.seed)   # As the run does: its new weights are these.
    with tempfile.TemporaryDirectory(prefix="textrail-") as folder:
        encoder = f"{folder}/encoder"
        import_encoder(target=encoder, max_length=settings.model.max_length,
                       **settings.encoder.model_dump(exclude_none=True, exclude={"head"}))
        check_positions(encoder, settings.model.max_length)
        config = transform_settings(settings) | {"encoder": encoder, "classes": write_classes(classes, folder)}
        vocabulary = Vocabulary.read(encoder)
        lengths, unknown = _measure(sample.rows["train"], columns.names[:used], config, vocabulary)
        precision = layer_precision(encoder, settings.training.precision)
        model = starting_model(encoder, trainer_settings(settings), classes, precision[0])
        shown, loss = _ask(model, spread(sample.rows["train"], max(rows, LOSS_ROWS)),
                           Encode(preprocessing_fn, columns.names[:used], config), vocabulary)
    buckets = length_buckets(trainer_settings(settings), replicas(settings.training.strategy))
    steps = epoch_steps(buckets, np.minimum(lengths, settings.model.max_length), sample.estimates["train"],
                        settings.training.loading.streams)
    labels = Counter(row[-1].decode() for row in sample.rows["train"])
    return ClassificationCheck(
        settings=settings, sample=sample, classes=classes, labels={name: labels[name] for name in classes},
        lengths=lengths, unknown=unknown, shown=shown[:rows], loss=loss, precision=precision,
        parameters=_parameters(model), steps_per_epoch=steps,
        schedule=Schedule.of(settings.training.model_dump(), steps * settings.training.epochs))


def _classes(sample: Sample, settings: Settings) -> list[str]:
    """The classes, from where SchemaGen would have them."""
    data = settings.data
    if data.schema_file:
        return class_names(read_curated(data.schema_file, wanted(data.model_dump())), data.label)
    classes = sorted({row[-1].decode() for row in sample.rows["train"]})
    check_classes(classes, data.label)
    return classes


def _check_labels(sample: Sample, settings: Settings, classes: Sequence[str]) -> None:
    """Says of the labels what AnomalyGate, TextTransform and, after the training, Evaluator would."""
    labels = {split: Counter(row[-1].decode() for row in rows) for split, rows in sample.rows.items()}
    unknown = [name for found in labels.values() for name in found if name not in classes]
    if sample.whole or settings.data.schema_file:   # A sample may have missed a class.
        if unknown:
            raise unknown_label(settings.data.label, classes, unknown[0])
        check_thresholds(settings.evaluation.thresholds, metric_names(classes), slices=bool(settings.data.slice))
    if not sample.whole:
        return
    gate = settings.gate.model_dump()
    drifts = {split: drift(labels["train"], found) for split, found in labels.items() if split != "train"}
    findings = bound_findings({"unlabelled": {}, "label_drift": drifts, "empty_text": {}}, settings.data.label, gate)
    findings += skipped(sample, settings)
    refuse(finding for finding in findings if finding.feature not in gate["accept"] or not finding.acceptable)


def spread(rows: Sequence[Row], count: int) -> list[Row]:
    """The first rows of each class in turn, until there are `count`.

        spread([(b"fine", b"pos"), (b"good", b"pos"), (b"bad", b"neg")], 2) → [(b"fine", b"pos"), (b"bad", b"neg")]
    """
    by_label: dict[bytes, list[Row]] = defaultdict(list)
    for row in rows:
        if len(by_label[row[-1]]) < count:
            by_label[row[-1]].append(row)
    return [row for row in chain(*zip_longest(*by_label.values())) if row is not None][:count]


def _measure(rows: Sequence[Row], names: Sequence[str], config: dict[str, Any], vocabulary: Vocabulary
             ) -> tuple[np.ndarray, float]:
    """The lengths of rows in tokens before cutting, [rows], and the share of [UNK] among the tokens."""
    encode = Encode(preprocessing_fn, names, config | {"max_length": UNCUT})
    lengths, unknown, pieces = [], 0, 0
    specials = [vocabulary.ids["[CLS]"], vocabulary.ids["[SEP]"]]
    for start in range(0, len(rows), BATCH):
        token_ids = encode(rows[start:start + BATCH])["token_ids"]
        lengths.append(token_ids.row_lengths().numpy())
        ids = token_ids.values.numpy()
        unknown += int(np.sum(ids == vocabulary.ids["[UNK]"]))
        pieces += int(np.sum(~np.isin(ids, specials)))
    return np.concatenate(lengths), unknown / max(pieces, 1)


def _ask(model: Classifier, rows: Sequence[Row], encode: Encode, vocabulary: Vocabulary
         ) -> tuple[list[ShownRow], float]:
    """Rows with what the model makes of them, and their mean loss in nats."""
    features = encode(rows)
    token_ids = tf.cast(vocabulary.to_dense(features["token_ids"]), tf.int32)  # [rows, longest]
    added = sums(model, {"token_ids": token_ids, "label_id": features["label_id"]}, False)
    logits = model(token_ids, training=False).numpy().tolist()  # [rows, classes]
    segments = vocabulary.segment_ids(token_ids).numpy().tolist()
    shown = []
    for row, ids, kinds, scores in zip(rows, features["token_ids"].to_list(), segments, logits, strict=True):
        *texts, label = (value.decode() for value in row)
        shown.append(ShownRow(tuple(texts), label, [vocabulary.pieces[i] for i in ids], ids, kinds[:len(ids)], scores))
    return shown, float(added["loss"] / added["weight"])


def _parameters(model: Classifier) -> tuple[int, int]:
    """Numbers that train, and numbers that do not."""
    frozen = [variable for variable in model.non_trainable_variables if "seed" not in variable.path]
    if isinstance(model.bert, OpaqueEncoder):
        frozen += model.bert.state
    return (sum(math.prod(variable.shape) for _, variable in model.trained),
            sum(math.prod(variable.shape) for variable in frozen))
