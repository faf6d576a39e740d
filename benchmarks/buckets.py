"""Examples/s in training on real sentence lengths: length buckets beside padding every text to 128 tokens.

    python benchmarks/buckets.py [--rounds 5] [--steps 12]

The sentences are the shipped reviews; encoder (MiniLM-L6), optimizer, precision and the tokens of a batch are the same.
The two take turns in one process, and of each the median round counts.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

import keras
import tensorflow as tf

from modules.batching import Buckets, bucketed
from modules.classifier import Classifier, sums
from modules.optimization import AdamW, choose_precision
from modules.tokenization import Tokenizer, Vocabulary
from modules.weights import load_encoder, packaged_minilm

MAX_LENGTH, BATCH_TOKENS, MAX_BATCH, STEP = 128, 2048, 64, 16


def examples(vocabulary: Vocabulary) -> tf.data.Dataset:
    """The shipped training reviews as token ids, shuffled."""
    with open(PROJECT / "data" / "reviews" / "train.csv", newline="", encoding="utf-8") as file:
        texts = [row["review"] for row in csv.DictReader(file)]
    ids = Tokenizer(vocabulary).encode(tf.constant(texts), max_length=MAX_LENGTH)
    dataset = tf.data.Dataset.from_tensor_slices((ids, tf.zeros([len(texts)], tf.int64)))
    return dataset.map(lambda row, label: {"token_ids": row, "label_id": label}).cache()


def endless(dataset: tf.data.Dataset, buckets: Buckets) -> Iterator[dict[str, tf.Tensor]]:
    for epoch in itertools.count():
        yield from bucketed(dataset, buckets, "token_ids", 0, shuffle_buffer=10_000, seed=epoch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12, help="training steps a round")
    options = parser.parse_args()
    keras.utils.set_random_seed(1)
    precision, reason = choose_precision("auto")
    keras.config.set_dtype_policy("float32" if precision == "float32" else f"mixed_{precision}")
    encoder = packaged_minilm()
    vocabulary = Vocabulary.read(encoder)
    model = Classifier(load_encoder(encoder, 0.1, 1), 2, "mean", 0.1, vocabulary, 1)
    model.bert.fine_tune("all", "mean")
    trained = [variable.value for variable in model.trainable_variables]
    optimizer = AdamW(trained, [variable.path for variable in model.trainable_variables])

    @tf.function(input_signature=[{"token_ids": tf.TensorSpec([None, None], tf.int32),
                                   "label_id": tf.TensorSpec([None], tf.int64)}])
    def step(batch):
        with tf.GradientTape() as tape:
            found = sums(model, batch, True)
            loss = found["loss"] / found["weight"]
        optimizer.apply(tape.gradient(loss, trained), tf.constant(1e-5))
        return found["weight"]

    dataset = examples(vocabulary)
    sides = {"length buckets": endless(dataset, Buckets.of(MAX_LENGTH, STEP, BATCH_TOKENS, MAX_BATCH)),
             "padded to 128": endless(dataset, Buckets.of(MAX_LENGTH, MAX_LENGTH, BATCH_TOKENS, MAX_BATCH))}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for batch in sides.values():
        for one in itertools.islice(batch, 30):   # each shape compiles once
            step(one)
    for _ in range(options.rounds):
        for name, batches in sides.items():
            chosen = list(itertools.islice(batches, options.steps))
            began = time.perf_counter()
            done = sum(float(step(batch)) for batch in chosen)
            rates[name].append(done / (time.perf_counter() - began))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(f"MiniLM-L6, {precision} ({reason}), {BATCH_TOKENS} tokens a batch, {options.rounds} rounds")
    for name, rate in medians.items():
        print(f"{name}: {rate:.1f} examples/s")
    print(f"ratio: {medians['length buckets'] / medians['padded to 128']:.2f}")


if __name__ == "__main__":
    main()
