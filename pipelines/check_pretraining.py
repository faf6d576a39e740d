"""What a check finds of a pretraining: documents on their way to masked examples, and what the model knows by then."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from components.anomaly_gate import refuse
from components.encoder_positions import check_positions
from components.encoder_sources import import_encoder
from components.instance_gen import Preparation, check_counts
from components.sample import Sample
from components.schema_gen import read_curated
from components.vocabulary_gen import KINDS, check_reserved, describe, learn_pieces
from components.wordpieces import measure
from modules.batching import Buckets
from modules.bert import BertConfig
from modules.instances import IS_RANDOM, Documents, Instance, Packing, token_ids_of
from modules.masking import Masker, Masking
from modules.optimization import Schedule, choose_precision
from modules.pretrainer import sums
from modules.pretraining import starting_model
from modules.sentences import split_sentences
from modules.tokenization import SPECIALS, Vocabulary
from modules.training import replicas
from pipelines.check import Check, count_words, epoch_steps, read_sample, skipped
from pipelines.pretraining import instance_settings, trainer_settings
from pipelines.pretraining_sections import Settings

MOST_BYTES = 4 << 20   # Text that is prepared in a few seconds; reading alone would do more.
MASKED = 512           # Examples that are masked, for shares that chance hardly moves.
LOSS_ROWS = 32         # Of them, so many are asked.
# New logits have a variance of 1 at most, which adds 0.5 to the loss; those of a new head on embeddings that have been
# trained, which are larger, have more.
LOSS_TOLERANCE, ENCODER_TOLERANCE, NEXT_TOLERANCE = 1.0, 3.0, 0.5
FEW_DOCUMENTS = 20       # Of the training split, where segments of other documents are asked for.
MANY_ALONE = 0.1         # Share of the documents.
MUCH_UNKNOWN = 0.01      # Share of the words.
MANY_PIECES = 2.5        # In a word, on average.


class ShownDocument(NamedTuple):
    """One document, and what becomes of it.

    Attributes:
        sentences: as the text is split.
        examples: that are made of it.
        is_swapped: whether the second segment of the first one is of another document.
        tokens: wordpieces of the first example.
        token_ids: of them.
        inputs: wordpieces that the model sees, with masks.
        labels: wordpieces that it has to tell; "" where there is none.
    """

    sentences: list[str]
    examples: int
    is_swapped: bool
    tokens: list[str]
    token_ids: list[int]
    inputs: list[str]
    labels: list[str]


class Masks(NamedTuple):
    """What was drawn.

    Attributes:
        chosen: share of the tokens that the model has to tell, special ones left out.
        masked: share of those that it sees as [MASK].
        random: share of those that it sees as another piece.
    """

    chosen: float
    masked: float
    random: float


class Loss(NamedTuple):
    """Mean cross entropies before training in nats: of a masked token and, with pairs, of a next sentence."""

    masked: float
    next: float | None


class Prepared(NamedTuple):
    """The training documents that were read, as examples.

    Attributes:
        documents: as token ids.
        texts: of those documents.
        instances: of each document.
    """

    documents: Documents
    texts: list[bytes]
    instances: list[list[Instance]]

    @property
    def all(self) -> list[Instance]:
        """The examples of all documents."""
        return [one for some in self.instances for one in some]


@dataclass(frozen=True)
class PretrainingCheck(Check):
    """What was found.

    Attributes:
        settings: of the run.
        report: on the vocabulary, see `components.vocabulary_gen.describe`.
        sentences: [sentences] tokens of each, parts of long ones counted by themselves.
        documents: [documents] tokens of each of the training split that was read and has any.
        alone: share of the documents that have one sentence.
        lengths: [examples] tokens of each, special ones included.
        swapped: share of the examples whose second segment is of another document.
        short: share of the examples that are filled only to a length drawn at random.
        examples_per_epoch: of the training split, estimated where the sample is not whole.
        masks: as drawn in some examples.
        shown: some documents.
        loss: of some examples.
        config: sizes of the model.
        kept: heads that come from the encoder.
    """

    settings: Settings
    report: dict[str, Any]
    sentences: np.ndarray
    documents: np.ndarray
    alone: float
    lengths: np.ndarray
    swapped: float
    short: float
    examples_per_epoch: int
    masks: Masks
    shown: list[ShownDocument]
    loss: Loss
    config: BertConfig
    kept: list[str]

    @property
    def chance(self) -> float:
        """The loss of equal scores for all wordpieces, in nats."""
        return math.log(self.config.vocab_size)

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and largest loss of a masked token before training, in nats."""
        if self.settings.encoder:
            return 0.0, self.chance + ENCODER_TOLERANCE
        return self.chance - LOSS_TOLERANCE, self.chance + LOSS_TOLERANCE

    def problem(self) -> str:
        """See `Check.problem`."""
        least, largest = self.bounds
        if not least <= self.loss.masked <= largest:
            return (f"expected a loss before training of {least:.1f} to {largest:.1f}, equal scores would have "
                    f"ln({self.config.vocab_size:,} pieces) = {self.chance:.3f}; received {self.loss.masked:.3f}. Try "
                    "training.precision=float32.")
        if self.loss.next is None or "seq_relationship" in self.kept:
            return ""
        if abs(self.loss.next - math.log(2)) <= NEXT_TOLERANCE:
            return ""
        return (f"expected a loss of next sentences before training within {NEXT_TOLERANCE} of ln(2) = "
                f"{math.log(2):.3f}; received {self.loss.next:.3f}. Try training.precision=float32.")

    def warnings(self) -> list[str]:
        """See `Check.warnings`."""
        instances, found = self.settings.instances, []
        if self.report["unknown_share"] > MUCH_UNKNOWN:
            found.append(f"{self.report['unknown_share']:.1%} of the words are [UNK]: " + (
                "is the encoder's vocabulary of the texts' language, and encoder.lower_case right for it?"
                if self.settings.encoder else "raise vocabulary.max_characters."))
        if self.report["tokens_per_word"] > MANY_PIECES:
            found.append(f"words take {self.report['tokens_per_word']:.1f} tokens: " + (
                "the encoder's vocabulary is not of these texts, and new weights with one of their own may do better."
                if self.settings.encoder else "raise vocabulary.size."))
        if instances.next_sentence and self.alone > MANY_ALONE:
            found.append(f"{self.alone:.0%} of the documents have one sentence and no next one, so that "
                         f"{self.swapped:.0%} of all second segments are of another document. See data.documents, or "
                         "set instances.next_sentence=false.")
        if instances.next_sentence and self.sample.whole and len(self.documents) < FEW_DOCUMENTS:
            found.append(f"the training split has only {len(self.documents)} documents to take segments of others "
                         "from: the model may learn to tell those apart. See data.documents, or set "
                         "instances.next_sentence=false.")
        return found


def examine(settings: Settings, rows: int, limit: int) -> PretrainingCheck:
    """See `check.examine`; the first documents of the training split are shown, each with its first example."""
    sample, columns = read_sample(settings, min(limit, MOST_BYTES))
    refuse(skipped(sample, settings))
    if settings.data.schema_file:
        read_curated(settings.data.schema_file, columns)
    keras.utils.set_random_seed(settings.seed)   # As the run does: its new weights are these.
    with tempfile.TemporaryDirectory(prefix="textrail-") as folder:
        encoder, report = _vocabulary(sample, settings, folder)
        vocabulary = Vocabulary.read(folder)
        prepared = _prepare(sample, settings, vocabulary)
        precision = choose_precision(settings.training.precision)
        pretrainer, kept = starting_model(trainer_settings(settings), vocabulary, precision[0], encoder)
    shown = [number for number, made in enumerate(prepared.instances) if made][:rows]
    batch, masks = _mask(prepared, shown, vocabulary, settings)
    added = sums(pretrainer, {name: values[:LOSS_ROWS] for name, values in batch.items()}, training=False)
    made = prepared.all
    lengths = np.array([_length(one) for one in made])
    examples = round(len(made) * sample.estimates["train"] / max(len(sample.rows["train"]), 1))
    training = settings.training.model_dump()
    buckets = Buckets.of_run(training, settings.instances.max_length, replicas(settings.training.strategy))
    steps = epoch_steps(buckets, lengths, examples, settings.training.loading.streams)
    return PretrainingCheck(
        settings=settings, sample=sample, report=report, sentences=np.diff(prepared.documents.sentences),
        documents=np.diff(np.take(prepared.documents.sentences, prepared.documents.starts)),
        alone=float(np.mean(np.diff(prepared.documents.starts) == 1)), lengths=lengths,
        swapped=float(np.mean([one.label == IS_RANDOM for one in made])),
        short=float(np.mean([one.is_short for one in made])), examples_per_epoch=examples, masks=masks,
        shown=[_shown(prepared, number, row, batch, vocabulary, settings) for row, number in enumerate(shown)],
        loss=Loss(float(added["masked_loss"] / added["masked_weight"]),
                  float(added["next_loss"] / added["next_weight"]) if "next_loss" in added else None),
        config=pretrainer.config, kept=kept, precision=precision,
        parameters=_parameters(pretrainer), steps_per_epoch=steps,
        schedule=Schedule.of(training, steps * settings.training.epochs))


def _vocabulary(sample: Sample, settings: Settings, folder: str) -> tuple[str, dict[str, Any]]:
    """Writes what VocabularyGen would learn of the training rows, or the encoder that the run goes on from.

    Returns:
        The encoder's folder, "" without one, and the report on the wordpieces.
    """
    kind, rows, name = KINDS["bert"], sample.rows["train"], settings.data.text
    if settings.encoder:
        import_encoder(target=folder, max_length=settings.instances.max_length,
                       **settings.encoder.model_dump(exclude_none=True))
        check_positions(folder, settings.instances.max_length, "instances.max_length")
        vocabulary = Vocabulary.read(folder)
        counts = count_words(rows, 0, kind.codec({"lower_case": vocabulary.lower_case}))
        known = vocabulary.pieces
        return folder, describe(measure(counts.items(), known), known, len(SPECIALS)) | {
            "wanted": len(known), "reason": ""}
    wanted = settings.vocabulary.model_dump()
    reserved = check_reserved([*kind.specials, *wanted["reserved"]])
    pieces, report = learn_pieces(count_words(rows, 0, kind.codec(wanted)), [name], reserved, kind, wanted)
    kind.write(pieces, wanted, folder)
    return "", report


def _prepare(sample: Sample, settings: Settings, vocabulary: Vocabulary) -> Prepared:
    """The training documents as InstanceGen prepares them; only which other document stands in may differ.

    Raises:
        TextrailError: what InstanceGen would say of a split, if all of its documents were read.
    """
    told = instance_settings(settings)
    preparation = Preparation(vocabulary, Packing(**told["packing"]), told["split_on"], told["seed"])
    for split, rows in sample.rows.items():
        if sample.whole and split != "train" and rows:
            counts: Counter[str] = Counter(documents=0, instances=0)
            for _ in preparation.instances([row[0] for row in rows], counts):
                pass
            check_counts(split, counts, settings.instances.next_sentence)
    documents, texts = preparation.documents([row[0] for row in sample.rows["train"]])
    made = [list(preparation.instances_of(documents, number, text)) for number, text in enumerate(texts)]
    check_counts("train", Counter(documents=len(texts), instances=sum(map(len, made))),
                 settings.instances.next_sentence)
    return Prepared(documents, texts, made)


def _mask(prepared: Prepared, shown: Sequence[int], vocabulary: Vocabulary, settings: Settings
          ) -> tuple[dict[str, tf.Tensor], Masks]:
    """A masked batch, the first example of each document that is shown in front, and what was drawn in it."""
    rows = [prepared.instances[number][0] for number in shown] + prepared.all[:MASKED]
    special = {"cls_id": vocabulary.cls_id, "sep_id": vocabulary.sep_id}
    ids = vocabulary.to_dense(tf.ragged.constant(
        [token_ids_of(row, prepared.documents, **special) for row in rows], tf.int32))  # [rows, longest]
    masking = Masking(**settings.masking.model_dump())
    batch = Masker(vocabulary, masking)(ids, tf.constant([settings.seed, 0], tf.int64))
    weights, labels = batch["masked_weights"].numpy() > 0, batch["masked_ids"].numpy()  # each [rows, size]
    seen = np.take_along_axis(batch["token_ids"].numpy(), batch["masked_positions"].numpy(), axis=1)[weights]
    can_be = ~np.isin(ids.numpy(), [vocabulary.ids[special] for special in SPECIALS])  # [rows, longest]
    is_masked = seen == vocabulary.mask_id
    masks = Masks(weights.sum() / can_be.sum(), is_masked.mean(), (~is_masked & (seen != labels[weights])).mean())
    return {**batch, "next_sentence_label": tf.constant([row.label for row in rows])}, masks


def _shown(prepared: Prepared, number: int, row: int, batch: Mapping[str, tf.Tensor], vocabulary: Vocabulary,
           settings: Settings) -> ShownDocument:
    first, *_ = made = prepared.instances[number]
    ids = token_ids_of(first, prepared.documents, vocabulary.cls_id, vocabulary.sep_id)
    labels = [""] * len(ids)
    for position, label, weight in zip(*(batch[f"masked_{name}"][row].numpy() for name in
                                         ("positions", "ids", "weights")), strict=True):
        if weight:
            labels[position] = vocabulary.pieces[label]
    inputs = batch["token_ids"][row].numpy()[:len(ids)]
    return ShownDocument(split_sentences(prepared.texts[number].decode(), settings.instances.split_on), len(made),
                         first.label == IS_RANDOM, [vocabulary.pieces[i] for i in ids], ids,
                         [vocabulary.pieces[i] for i in inputs], labels)


def _length(instance: Instance) -> int:
    """Tokens with [CLS] and a [SEP] behind each segment."""
    first, second = (stop - start for start, stop in (instance.first, instance.second))
    return first + second + (3 if second else 2)


def _parameters(pretrainer: keras.Model) -> tuple[int, int]:
    """Numbers that train, and numbers that do not."""
    frozen = [one for one in pretrainer.non_trainable_variables if "seed" not in one.path]
    return (sum(math.prod(one.shape) for _, one in pretrainer.trained),
            sum(math.prod(one.shape) for one in frozen))
