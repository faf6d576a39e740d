"""What the benchmarks of training share: real texts as transformed records, and MiniLM's training step."""

from __future__ import annotations

import csv
import gzip
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import tensorflow as tf

from benchmarks import IMDB, MRPC, SHARED
from modules.batching import Buckets, Loading, make_batches, read
from modules.classifier import FEATURES, Classifier, sums
from modules.optimization import AdamW, choose_precision
from modules.tokenization import Tokenizer, Vocabulary
from modules.weights import load_encoder, packaged_minilm

REVIEWS = Path(__file__).resolve().parent.parent / "data" / "reviews" / "train.csv"
BATCH_TOKENS, MAX_BATCH, BUCKET_STEP, SHUFFLE_BUFFER, SHARDS = 2048, 64, 16, 20_000, 4


class Texts(NamedTuple):
    """The training texts of a data set as transformed records."""

    title: str
    files: list[str]
    examples: int
    max_length: int

    @property
    def buckets(self) -> Buckets:
        return Buckets.of(self.max_length, BUCKET_STEP, BATCH_TOKENS, MAX_BATCH)

    @property
    def one_bucket(self) -> Buckets:
        """Every text padded to the longest allowed."""
        return Buckets.of(self.max_length, self.max_length, BATCH_TOKENS, MAX_BATCH)

    def batches(self, buckets: Buckets, epoch: int) -> tf.data.Dataset:
        """The batches of an epoch, through the stages that the Trainer's go through."""
        loading = Loading()
        return make_batches(read(self.files, loading), FEATURES, buckets, 0, loading,
                            shuffle_buffer=SHUFFLE_BUFFER, seed=epoch)


def texts(name: str, folder: Path, most: int = 25_000) -> Texts:
    """Writes the training texts of `imdb`, `mrpc` or the shipped `reviews` as transformed records.

    Args:
        name: of the data set.
        folder: where the records go.
        most: rows to take.

    Raises:
        FileNotFoundError: the larger texts are not at hand; its message says how to name their folder.
    """
    max_length, pairs = (256 if name == "imdb" else 128), None
    if name == "reviews":
        rows = _csv(REVIEWS)
        first = [row["review"] for row in rows]
    elif not SHARED.is_dir():
        raise FileNotFoundError(f"no {SHARED}; TEXTRAIL_SHARED names the folder of the larger texts")
    elif name == "imdb":
        rows = _csv(IMDB)
        first = [row["review"] for row in rows]
    else:
        rows = _csv(MRPC / "train.tsv", delimiter="\t", quoting=csv.QUOTE_NONE)
        first, pairs = ([row[column] for row in rows[:most]] for column in ("sentence1", "sentence2"))
    first = first[:most]
    ids = Tokenizer(Vocabulary.read(packaged_minilm())).encode(
        tf.constant(first), None if pairs is None else tf.constant(pairs), max_length=max_length)
    title = (f"{name}: {len(first):,} {'texts' if pairs is None else 'pairs'} of "
             f"{ids.row_lengths().numpy().mean():.0f} tokens on average, at most {max_length}")
    return Texts(title, _write(ids.to_list(), folder / name), len(first), max_length)


def _csv(path: Path, **dialect) -> list[dict[str, str]]:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file, **dialect))


def _write(ids: list[list[int]], folder: Path) -> list[str]:
    folder.mkdir(parents=True)
    files = [str(folder / f"{shard}.gz") for shard in range(SHARDS)]
    for shard, file in enumerate(files):
        with tf.io.TFRecordWriter(file, "GZIP") as writer:
            for i in range(shard, len(ids), SHARDS):
                writer.write(tf.train.Example(features=tf.train.Features(feature={
                    "token_ids$ragged_values": tf.train.Feature(int64_list=tf.train.Int64List(value=ids[i])),
                    "label_id": tf.train.Feature(int64_list=tf.train.Int64List(value=[i % 2])),
                })).SerializeToString())
    return files


def minilm_step() -> tuple[Callable[[dict[str, tf.Tensor]], tf.Tensor], str]:
    """A compiled training step of MiniLM, all of it training, and the precision it computes in, in words.

    The step takes a batch and returns its examples, [] float32.
    """
    keras.utils.set_random_seed(1)
    precision, reason = choose_precision("auto")
    keras.config.set_dtype_policy("float32" if precision == "float32" else f"mixed_{precision}")
    encoder = packaged_minilm()
    model = Classifier(load_encoder(encoder, 0.1, 1), 2, "mean", 0.1, Vocabulary.read(encoder), 1)
    model.bert.fine_tune("all", "mean")
    trained = [variable.value for variable in model.trainable_variables]
    optimizer = AdamW(trained, [variable.path for variable in model.trainable_variables])

    @tf.function(input_signature=[{"token_ids": tf.TensorSpec([None, None], tf.int32),
                                   "label_id": tf.TensorSpec([None], tf.int64)}])
    def step(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        with tf.GradientTape() as tape:
            found = sums(model, batch, True)
            loss = found["loss"] / found["weight"]
        optimizer.apply(tape.gradient(loss, trained), tf.constant(1e-5))
        return found["weight"]

    return step, f"{precision} ({reason})"


def warm_up(step: Callable, batches: tf.data.Dataset) -> None:
    """Takes a step in each shape of batch: the first of a shape is slower."""
    seen = set()
    for batch in itertools.islice(batches, 100):
        if (shape := tuple(batch["token_ids"].shape)) not in seen:
            step(batch)
            seen.add(shape)
