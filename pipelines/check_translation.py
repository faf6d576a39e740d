"""What a check finds of a translation: vocabularies of the rows read, pairs as a model sees them, its first loss."""

from __future__ import annotations

import itertools
import math
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from components.anomaly_gate import refuse
from components.rows import Row
from components.sample import Sample
from components.schema_gen import read_curated
from components.text_transform import NEEDED, all_too_long
from components.versions import served_version
from components.vocabulary_gen import KINDS, check_reserved, group_columns, learn_pieces
from modules.optimization import Schedule, choose_precision, policy_of
from modules.subwords import Subwords
from modules.training import replicas
from modules.translation import Vocabularies, length_buckets, preprocessing_fn
from modules.translator import Translator, positional_code, shifted, sums
from pipelines.check import BATCH, Check, Encode, count_words, epoch_steps, read_sample, skipped
from pipelines.translation import trainer_settings, transform_settings
from pipelines.translation_sections import Settings

LOSS_ROWS = 32   # At least so many are asked, for a loss that one row does not decide.
# New logits have a variance of 1 at most, which adds 0.5 to the loss.
LOSS_TOLERANCE = 1.0
MUCH_DROPPED = 0.1     # Share of the pairs.
MUCH_UNKNOWN = 0.01    # Share of the words.
MANY_PIECES = 2.5      # In a word, on average.
PICTURED = 20          # Tokens of a text whose attention is readable as a picture.


class ShownRow(NamedTuple):
    """One pair as the model sees it.

    Attributes:
        texts: source and target.
        slice: value of `data.slice`; "" without one.
        source: tokens with [START] and [END], and their ids.
        inputs: what the decoder is given of the target, and the ids.
        labels: what it shall answer at each place, and the ids.
    """

    texts: tuple[str, str]
    slice: str
    source: tuple[list[str], list[int]]
    inputs: tuple[list[str], list[int]]
    labels: tuple[list[str], list[int]]


class Attention(NamedTuple):
    """What each head of the last decoder layer looks at while one text is translated.

    Attributes:
        weights: [heads, target, source].
        source: tokens of the text.
        target: tokens that are said.
        model: which one it is.
    """

    weights: np.ndarray
    source: list[str]
    target: list[str]
    model: str


@dataclass(frozen=True)
class TranslationCheck(Check):
    """What was found.

    Attributes:
        settings: of the run.
        reports: on the vocabularies `source` and `target`, as VocabularyGen makes them.
        lengths: [training rows, 2] tokens of source and target, [START] and [END] included.
        shown: some pairs that are short enough to be trained on.
        loss: mean cross entropy a token before training, of these pairs and some more where they are few, in nats,
            without label smoothing.
        attention: for a picture, of one text.
        code: [longest, width] the positional code.
    """

    settings: Settings
    reports: dict[str, dict[str, Any]]
    lengths: np.ndarray
    shown: list[ShownRow]
    loss: float
    attention: Attention
    code: np.ndarray

    @property
    def pieces(self) -> int:
        """Of the target vocabulary."""
        return self.reports["target"]["size"]

    @property
    def chance(self) -> float:
        """The loss of equal scores for all pieces, in nats."""
        return math.log(self.pieces)

    @property
    def is_dropped(self) -> np.ndarray:
        """[training rows] whether a pair has a text that is too long."""
        return np.any(self.lengths > self.settings.model.max_tokens, axis=1)

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and largest loss of new weights, in nats.

        With tied embeddings what comes in is what is answered first: its own score is √width or so above the others'.
        """
        model = self.settings.model
        own = model.hidden_size**0.5 if model.tied != "none" else 0.0
        return self.chance - LOSS_TOLERANCE, self.chance + LOSS_TOLERANCE + own

    def problem(self) -> str:
        """See `Check.problem`."""
        least, largest = self.bounds
        if least <= self.loss <= largest:
            return ""
        return (f"expected a loss before training of {least:.1f} to {largest:.1f}, about ln({self.pieces:,} pieces) = "
                f"{self.chance:.3f}; received {self.loss:.3f}. Try training.precision=float32.")

    def warnings(self) -> list[str]:
        """See `Check.warnings`."""
        model, training, found = self.settings.model, self.settings.training, []
        dropped = float(self.is_dropped.mean())
        if dropped > MUCH_DROPPED:
            found.append(f"{dropped:.1%} of the pairs have a text of more than model.max_tokens={model.max_tokens} "
                         "tokens and are not trained on: 95% of the texts have at most "
                         f"{np.percentile(self.lengths, 95):.0f}.")
        for side, name in (("source", self.settings.data.text), ("target", self.settings.data.target)):
            report = self.reports[side]
            if report["unknown_share"] > MUCH_UNKNOWN:
                found.append(f"{report['unknown_share']:.1%} of the words of '{name}' are [UNK]: raise "
                             "vocabulary.max_characters.")
            if report["tokens_per_word"] > MANY_PIECES:
                found.append(f"'{name}' takes {report['tokens_per_word']:.1f} tokens a word: raise vocabulary.size.")
        if training.warmup_steps > self.schedule.total_steps:
            found.append(f"training.warmup_steps={training.warmup_steps:,} are more than the "
                         f"{self.schedule.total_steps:,} steps of the run: the learning rate never reaches its peak.")
        return found


def examine(settings: Settings, rows: int, limit: int) -> TranslationCheck:
    """See `check.examine`; the rows that are shown are the first of the training split that are trained on."""
    sample, columns = read_sample(settings, limit)
    refuse(skipped(sample, settings))
    if settings.data.schema_file:
        read_curated(settings.data.schema_file, columns)
    read = sample.rows["train"]
    keras.utils.set_random_seed(settings.seed)   # As the run does: its new weights are these.
    with tempfile.TemporaryDirectory(prefix="textrail-") as folder:
        reports = _learn_vocabularies(read, settings, folder)
        encode = Encode(preprocessing_fn, columns.names[:2], transform_settings(settings) | {"vocabulary": folder})
        lengths = _measure(sample, encode, settings.model.max_tokens)
        is_short = np.all(lengths <= settings.model.max_tokens, axis=1)
        some = list(itertools.islice(itertools.compress(read, is_short), max(rows, LOSS_ROWS)))
        vocabularies = Vocabularies.read(folder)
        precision = choose_precision(settings.training.precision)
        translator = vocabularies.new_translator(trainer_settings(settings), policy_of(precision[0]))
        ids = {name: tf.cast(ids.to_tensor(), tf.int32) for name, ids in encode([row[:2] for row in some]).items()}
    added = sums(translator, ids, training=False)
    shown = [_shown(row, source, target, vocabularies)
             for row, source, target in zip(some, *(side.numpy() for side in ids.values()), strict=True)]
    schedule, steps = _plan(lengths, sample.estimates["train"], settings)
    return TranslationCheck(
        settings=settings, sample=sample, reports=reports, lengths=lengths, shown=shown[:rows],
        loss=float(added["loss"] / added["weight"]), precision=precision,
        parameters=(sum(math.prod(one.shape) for one in translator.trainable_variables), 0),
        steps_per_epoch=steps, schedule=schedule, attention=_untrained(translator, pictured(shown)),
        code=positional_code(tf.range(settings.model.max_tokens), settings.model.hidden_size).numpy())


def _learn_vocabularies(rows: Sequence[Row], settings: Settings, folder: str) -> dict[str, dict[str, Any]]:
    """What VocabularyGen would learn of these rows, written as its artifact has it; returns the reports on it."""
    kind, vocabulary, data = KINDS["subwords"], settings.vocabulary.model_dump(), settings.data
    columns = {"source": data.text, "target": data.target}
    groups = group_columns({side: [name] for side, name in columns.items()}, vocabulary["joint"])
    codec, counts = kind.codec(vocabulary), {group: Counter[str]() for group in groups.values()}
    for place, group in enumerate(groups.values()):
        counts[group].update(count_words(rows, place, codec))
    reserved = check_reserved([*kind.specials, *vocabulary["reserved"]])
    learned = {group: learn_pieces(found, [name for name in groups if groups[name] == group], reserved, kind,
                                   vocabulary) for group, found in counts.items()}
    for side, name in columns.items():
        os.mkdir(f"{folder}/{side}")
        kind.write(learned[groups[name]][0], vocabulary, f"{folder}/{side}")
    return {side: learned[groups[name]][1] for side, name in columns.items()}


def _measure(sample: Sample, encode: Encode, max_tokens: int) -> np.ndarray:
    """Tokens of both sides of the training rows, however long, [rows, 2].

    Raises:
        TextrailError: no row of the training or the validation split is short enough.
    """
    measured = {}
    for split in NEEDED:
        rows, lengths = sample.rows[split], [np.zeros((0, 2), np.int64)]
        for start in range(0, len(rows), BATCH):
            features = encode([row[:2] for row in rows[start:start + BATCH]])
            lengths.append(np.stack([ids.row_lengths().numpy() for ids in features.values()], axis=1))
        measured[split] = np.concatenate(lengths)
        if rows and measured[split].max(axis=1).min() > max_tokens:
            raise all_too_long(split, len(rows), max_tokens)
    return measured["train"]


def _plan(lengths: np.ndarray, rows: int, settings: Settings) -> tuple[Schedule, int]:
    """The learning rate, and the batches of an epoch of `rows` pairs, less those that are dropped."""
    kept = lengths.max(axis=1)[lengths.max(axis=1) <= settings.model.max_tokens]
    buckets = length_buckets(trainer_settings(settings), replicas(settings.training.strategy))
    steps = epoch_steps(buckets, kept, round(rows * len(kept) / len(lengths)), settings.training.loading.streams)
    training = settings.training
    return Schedule.of(training.model_dump(), steps * training.epochs, settings.model.hidden_size), steps


def _shown(row: Row, source_ids: np.ndarray, target_ids: np.ndarray, vocabularies: Vocabularies) -> ShownRow:
    def named(subwords: Subwords, ids: np.ndarray) -> tuple[list[str], list[int]]:
        return [subwords.pieces[i] for i in ids], ids.tolist()

    inputs, labels = shifted(target_ids[target_ids != Subwords.pad_id][None])
    return ShownRow((row[0].decode(), row[1].decode()), row[2].decode() if len(row) > 2 else "",
                    named(vocabularies.source, source_ids[source_ids != Subwords.pad_id]),
                    named(vocabularies.target, inputs[0]), named(vocabularies.target, labels[0]))


def pictured(shown: Sequence[ShownRow]) -> ShownRow:
    """The longest row whose tokens are readable beside a picture, or else the shortest."""
    def tokens(row: ShownRow) -> int:
        return max(len(row.source[0]), len(row.labels[0]))

    return max((row for row in shown if tokens(row) <= PICTURED), key=tokens, default=min(shown, key=tokens))


def _untrained(translator: Translator, row: ShownRow) -> Attention:
    """Of the reference, since an untrained model has no translation."""
    weights = translator.cross_attention(tf.constant([row.source[1]]), tf.constant([row.inputs[1]]))[0, -1]
    return Attention(weights.numpy(), row.source[0], row.labels[0], "an untrained model, for none is pushed")


def pushed_attention(destination: str, text: str) -> Attention | None:
    """That of the model served now while it translates a text; none if there is no model."""
    version = served_version(destination)
    if version is None:
        return None
    model = tf.saved_model.load(os.path.join(destination, version))
    found = model.signatures["attention"](tf.constant([text]))
    source, target = ([token.decode() for token in found[f"{side}_tokens"][0].numpy()] for side in ("source", "target"))
    return Attention(found["attention"][0, -1].numpy(), source, target, f"pushed as version {version}")
