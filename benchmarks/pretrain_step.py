"""Tokens/s in pretraining: this project's BERT with both heads beside the same of plain Keras 3 layers.

    python benchmarks/pretrain_step.py [--rounds 9] [--precision bfloat16] [--preset mini]

Both have the sizes of BERT-mini, dropout 0.1, masked words and next sentences, tied embeddings, AdamW, and project
masked positions only: the plain one the 20 of a row that BERT's own data preparation allows, ours those there are.
They train on the same batch, 32 rows of 128 tokens without padding, 15 % of them masked, and take turns in one process,
so that whatever else the machine does meets both alike. Of each the median step counts, and the CPU's seconds of all
threads.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import keras
import numpy as np
import tensorflow as tf

from benchmarks.train_step import DROPOUT, cpu_features
from modules.bert import BertConfig
from modules.optimization import AdamW, choose_precision, policy_of
from modules.presets import PRESETS
from modules.pretrainer import build_pretrainer, pretraining_config, sums
from modules.tokenization import SPECIALS, Vocabulary

VOCABULARY, MASK_RATE, MOST_MASKED = 30522, 0.15, 20
Batch = dict[str, tf.Tensor]


def plain_keras(config: BertConfig) -> keras.Model:
    """The same model as anyone would write it from Keras's layers."""
    layers = keras.layers
    ids, mask, types, where = (keras.Input([None], dtype="int32", name=name)
                               for name in ("ids", "mask", "types", "where"))

    def norm(x: Any) -> Any:
        return layers.LayerNormalization(epsilon=config.layer_norm_eps)(x)

    words = layers.Embedding(config.vocab_size, config.hidden_size)
    x = words(ids) + layers.Embedding(config.type_vocab_size, config.hidden_size)(types)  # [batch, length, hidden]
    positions = layers.Embedding(config.max_position_embeddings, config.hidden_size)
    x = x + positions(keras.ops.cumsum(keras.ops.ones_like(ids), axis=1) - 1)
    x = layers.Dropout(DROPOUT)(norm(x))
    for _ in range(config.num_hidden_layers):
        attention = layers.MultiHeadAttention(
            config.num_attention_heads, config.hidden_size // config.num_attention_heads, dropout=DROPOUT)
        x = norm(x + layers.Dropout(DROPOUT)(attention(x, x, attention_mask=mask[:, None, :])))
        inner = keras.ops.gelu(layers.Dense(config.intermediate_size)(x), approximate=False)
        x = norm(x + layers.Dropout(DROPOUT)(layers.Dense(config.hidden_size)(inner)))
    pooled = layers.Dense(config.hidden_size, activation="tanh")(x[:, 0])
    masked = keras.ops.take_along_axis(x, where[:, :, None], axis=1)  # [batch, masked, hidden]
    masked = norm(keras.ops.gelu(layers.Dense(config.hidden_size)(masked), approximate=False))
    return keras.Model([ids, mask, types, where], [TiedProjection(words)(masked), layers.Dense(2)(pooled)])


class TiedProjection(keras.layers.Layer):
    """x times the word embeddings, as in Keras's examples of tied embeddings."""

    def __init__(self, words: keras.layers.Embedding):
        super().__init__()
        self.words = words

    def build(self, shape: Any) -> None:
        self.bias = self.add_weight(shape=(self.words.input_dim,), initializer="zeros")

    def call(self, x: Any) -> Any:
        kernel = keras.ops.cast(self.words.embeddings, self.compute_dtype)
        return keras.ops.matmul(x, keras.ops.transpose(kernel)) + self.bias


def plain_step(model: keras.Model) -> Callable[[Batch], tf.Tensor]:
    """Forward, both losses, backward, Keras's AdamW."""
    optimizer = keras.optimizers.AdamW(1e-4, weight_decay=0.01, global_clipnorm=1.0)
    optimizer.build(model.trainable_variables)
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits

    @tf.function(reduce_retracing=True)
    def step(batch: Batch) -> tf.Tensor:
        with tf.GradientTape() as tape:
            inputs = [batch["token_ids"], batch["mask"], batch["types"], batch["masked_positions"]]
            scores, is_next = (tf.cast(one, tf.float32) for one in model(inputs, training=True))
            counts = batch["masked_weights"]
            loss = tf.reduce_sum(entropy(batch["masked_ids"], scores) * counts) / tf.reduce_sum(counts)
            loss += tf.reduce_mean(entropy(batch["next_sentence_label"], is_next))
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, [variable.value for variable in variables]), variables)
        return loss

    return step


def our_step(preset: str, vocabulary: Vocabulary, precision: str) -> Callable[[Batch], tf.Tensor]:
    """The same with what a run trains with."""
    settings = {"seed": 1, "model": {"preset": preset, "dropout": DROPOUT}}
    model, _ = build_pretrainer(settings, vocabulary, policy_of(precision))
    names, variables = zip(*model.trained, strict=True)
    optimizer = AdamW(variables, names, weight_decay=0.01, clip_norm=1.0)

    @tf.function(reduce_retracing=True)
    def step(batch: Batch) -> tf.Tensor:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            found = sums(model, batch, True)
            loss = found["masked_loss"] / found["masked_weight"] + found["next_loss"] / found["next_weight"]
        optimizer.apply(tape.gradient(loss, variables), tf.constant(1e-4))
        return loss

    return step


def make_batch(rows: int, length: int, vocabulary: Vocabulary) -> Batch:
    """Random pairs without padding, masked."""
    random = np.random.default_rng(0)
    ids = random.integers(len(SPECIALS), VOCABULARY, (rows, length)).astype("int32")
    ids[:, 0], ids[:, length // 2], ids[:, -1] = vocabulary.cls_id, vocabulary.sep_id, vocabulary.sep_id
    count = min(MOST_MASKED, round(length * MASK_RATE))
    ordinary = [position for position in range(1, length - 1) if position != length // 2]
    where = np.stack([np.sort(random.choice(ordinary, count, replace=False)) for _ in range(rows)])  # [rows, masked]
    words, masked = np.take_along_axis(ids, where, 1), ids.copy()
    np.put_along_axis(masked, where, vocabulary.mask_id, 1)
    padding = ((0, 0), (0, MOST_MASKED - count))
    types = np.broadcast_to(np.arange(length) > length // 2, ids.shape)
    values = {"token_ids": masked, "mask": np.ones_like(ids), "types": types,
              "masked_positions": np.pad(where, padding), "masked_ids": np.pad(words, padding),
              "next_sentence_label": random.integers(0, 2, rows)}
    batch = {name: tf.constant(value, tf.int32) for name, value in values.items()}
    return {**batch, "masked_weights": tf.constant(np.pad(np.ones_like(words), padding), tf.float32)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="timed steps of each model")
    parser.add_argument("--preset", default="mini", choices=list(PRESETS))
    parser.add_argument("--rows", type=int, default=32, help="of a batch")
    parser.add_argument("--length", type=int, default=128, help="of a row, in tokens")
    parser.add_argument("--precision", nargs="+", default=["auto"], choices=["auto", "float32", "bfloat16", "float16"],
                        help="of both, as training.precision")
    parser.add_argument("--alone", action="store_true", help="leave the plain Keras model out")
    options = parser.parse_args()
    vocabulary = Vocabulary((*SPECIALS, *(f"w{i}" for i in range(VOCABULARY - len(SPECIALS)))))
    config = pretraining_config({"preset": options.preset}, VOCABULARY)
    batch, tokens = make_batch(options.rows, options.length, vocabulary), options.rows * options.length
    print(f"{os.cpu_count()} cores, {cpu_features()}; TensorFlow {tf.__version__}, Keras {keras.__version__}; "
          f"{options.preset}, {options.rows} rows of {options.length} tokens")
    for wanted in options.precision:
        precision, reason = choose_precision(wanted)
        steps = {"ours": our_step(options.preset, vocabulary, precision)}
        if not options.alone:
            keras.config.set_dtype_policy(policy_of(precision))
            steps["plain Keras"] = plain_step(plain_keras(config))
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
        for timed in range(options.rounds + 3):  # the first ones trace and compile
            for name, step in steps.items():
                begin, cpu = time.perf_counter(), time.process_time()
                step(batch).numpy()
                if timed >= 3:
                    seconds[name].append((time.perf_counter() - begin, time.process_time() - cpu))
        median = {name: [statistics.median(one) for one in zip(*values, strict=True)]
                  for name, values in seconds.items()}
        told = ", ".join(f"{name} {tokens / wall:.0f} tokens/s ({cpu:.2f} CPU seconds a step)"
                         for name, (wall, cpu) in median.items())
        ratios = [median["plain Keras"][i] / median["ours"][i] for i in (0, 1)] if not options.alone else []
        print(f"{precision} ({reason}): {told}"
              + (f", ratio {ratios[0]:.2f} ({ratios[1]:.2f} by CPU time)" if ratios else ""), flush=True)


if __name__ == "__main__":
    main()
