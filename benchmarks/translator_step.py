"""Pairs/s in training: this project's translator beside the same Transformer of plain Keras 3 layers.

    python benchmarks/translator_step.py [--rounds 15] [--precision float32 bfloat16] [--xla]

Both have 4 + 4 layers 128 wide, 8 heads, vocabularies of 8,000, dropout 0.1, smoothed labels, Adam and no ties. They
train on the same batch, without padding, and take turns in one process, so that whatever else the machine does meets
both alike. Of each the median step counts, and the CPU's seconds of all threads.
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

from benchmarks.train_step import cpu_features
from modules.optimization import AdamW, policy_of
from modules.translator import build_translator, positional_code, sums

VOCABULARY, DROPOUT, SMOOTHING = 8000, 0.1, 0.1
MODEL = {"layers": 4, "decoder_layers": None, "hidden_size": 128, "num_heads": 8, "inner_size": 512,
         "dropout": DROPOUT, "norm": "post", "tied": "none"}


def plain_keras(width: int, layers: int, heads: int, inner: int) -> keras.Model:
    """The same model as anyone would write it from Keras's layers."""
    of = keras.layers

    def embedded(ids: Any) -> Any:
        code = positional_code(tf.range(512), width).numpy()
        x = of.Embedding(VOCABULARY, width)(ids) * width**0.5  # [batch, length, width]
        positions = keras.ops.cumsum(keras.ops.ones_like(ids), axis=1) - 1
        return of.Dropout(DROPOUT)(x + keras.ops.cast(keras.ops.take(code, positions, axis=0), x.dtype))

    def attended(x: Any, y: Any, mask: Any, causal: bool = False) -> Any:
        attention = of.MultiHeadAttention(heads, width // heads, dropout=DROPOUT)
        found = attention(x, y, attention_mask=mask[:, None, :], use_causal_mask=causal)
        return of.LayerNormalization(epsilon=1e-6)(x + of.Dropout(DROPOUT)(found))

    def fed(x: Any) -> Any:
        y = of.Dense(width)(of.Dense(inner, activation="relu")(x))
        return of.LayerNormalization(epsilon=1e-6)(x + of.Dropout(DROPOUT)(y))

    source, target = (keras.Input([None], dtype="int32", name=name) for name in ("source", "target"))
    memory, x = embedded(source), embedded(target)
    source_mask, target_mask = keras.ops.not_equal(source, 0), keras.ops.not_equal(target, 0)
    for _ in range(layers):
        memory = fed(attended(memory, memory, source_mask))
    for _ in range(layers):
        x = attended(x, x, target_mask, causal=True)
        x = fed(attended(x, memory, source_mask))
    return keras.Model([source, target], of.Dense(VOCABULARY, dtype="float32")(x))


def plain_step(model: keras.Model, xla: bool) -> Callable[..., Any]:
    """Forward, smoothed and masked cross entropy as Keras has it, backward, Keras's Adam."""
    optimizer = keras.optimizers.Adam(1e-4, 0.9, 0.98, 1e-9)
    optimizer.build(model.trainable_variables)
    entropy = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=SMOOTHING, reduction=None)

    @tf.function(reduce_retracing=True, jit_compile=xla or None)
    def step(source: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits, labels = model([source, target[:, :-1]], training=True), target[:, 1:]
            mask = tf.cast(labels != 0, tf.float32)
            loss = tf.reduce_sum(entropy(tf.one_hot(labels, VOCABULARY), logits) * mask) / tf.reduce_sum(mask)
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, [variable.value for variable in variables]), variables)
        return loss

    return step


def our_step(precision: str, xla: bool) -> Callable[..., Any]:
    """The same with what a run trains with."""
    model = build_translator({"seed": 1, "model": MODEL}, VOCABULARY, VOCABULARY, policy_of(precision))
    variables = [variable.value for variable in model.trainable_variables]
    optimizer = AdamW(variables, [variable.path for variable in model.trainable_variables], weight_decay=0.0,
                      clip_norm=0.0, beta_2=0.98, epsilon=1e-9)

    @tf.function(reduce_retracing=True, jit_compile=xla or None)
    def step(source: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            found = sums(model, {"source_ids": source, "target_ids": target}, True, SMOOTHING)
            loss = found["loss"] / found["weight"]
        optimizer.apply(tape.gradient(loss, variables), tf.constant(1e-4))
        return loss

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="timed steps of each model")
    parser.add_argument("--pairs", type=int, default=64, help="in a batch")
    parser.add_argument("--tokens", type=int, default=24, help="of each sentence")
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    parser.add_argument("--xla", action="store_true", help="compile both steps with XLA")
    parser.add_argument("--alone", action="store_true", help="leave the plain Keras model out")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, {cpu_features()}; TensorFlow {tf.__version__}, Keras {keras.__version__}; "
          f"{options.pairs} pairs of {options.tokens} + {options.tokens} tokens{', XLA' if options.xla else ''}")
    random = np.random.default_rng(0)
    batch = [tf.constant(random.integers(4, VOCABULARY, (options.pairs, options.tokens + one)), tf.int32)
             for one in (0, 1)]
    for precision in options.precision:
        keras.config.set_dtype_policy(policy_of(precision))
        steps = {"ours": our_step(precision, options.xla)}
        if not options.alone:
            plain = plain_keras(MODEL["hidden_size"], MODEL["layers"], MODEL["num_heads"], MODEL["inner_size"])
            steps["plain Keras"] = plain_step(plain, options.xla)
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
        for timed in range(options.rounds + 3):  # the first ones trace and compile
            for name, step in steps.items():
                begin, cpu = time.perf_counter(), time.process_time()
                step(*batch).numpy()
                if timed >= 3:
                    seconds[name].append((time.perf_counter() - begin, time.process_time() - cpu))
        median = {name: [statistics.median(one) for one in zip(*values, strict=True)]
                  for name, values in seconds.items()}
        told = ", ".join(f"{name} {options.pairs / wall:.0f} pairs/s ({cpu:.2f} CPU seconds a step)"
                         for name, (wall, cpu) in median.items())
        ratios = [median["plain Keras"][i] / median["ours"][i] for i in (0, 1)] if not options.alone else []
        print(f"{precision}: {told}" + (f", ratio {ratios[0]:.2f} ({ratios[1]:.2f} by CPU time)" if ratios else ""),
              flush=True)


if __name__ == "__main__":
    main()
