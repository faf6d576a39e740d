"""Examples/s in training: this project's BERT beside the same encoder of plain Keras 3 layers with Keras's dropout.

    python benchmarks/train_step.py [--rounds 7] [--precision bfloat16]

Both have MiniLM-L6's sizes, the same head, loss, policy and AdamW, train on the same batches, and take turns in one
process, so that whatever else the machine does meets both alike. Of each the median step counts.
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

from modules.bert import Bert, BertConfig
from modules.hardware import cpu_flags
from modules.optimization import choose_precision

CONFIG = BertConfig(vocab_size=30522, hidden_size=384, num_hidden_layers=6, num_attention_heads=12,
                    intermediate_size=1536, max_position_embeddings=512, type_vocab_size=2, hidden_act="gelu",
                    layer_norm_eps=1e-12)
DROPOUT = 0.1
# A batch padded to 128, and two that length buckets make of the same number of tokens or fewer: [rows, length].
SHAPES = ((32, 128), (64, 32), (25, 80))


def plain_keras(config: BertConfig, dropout: float) -> keras.Model:
    """The same encoder as anyone would write it from Keras's layers."""
    layers = keras.layers
    ids, mask, types = (keras.Input([None], dtype="int32", name=name) for name in ("ids", "mask", "types"))

    def norm(x: Any) -> Any:
        return layers.LayerNormalization(epsilon=config.layer_norm_eps)(x)

    positions = layers.Embedding(config.max_position_embeddings, config.hidden_size)
    x = layers.Embedding(config.vocab_size, config.hidden_size)(ids)  # [batch, length, hidden]
    x = x + layers.Embedding(config.type_vocab_size, config.hidden_size)(types)
    x = x + positions(keras.ops.cumsum(keras.ops.ones_like(ids), axis=1) - 1)
    x = layers.Dropout(dropout)(norm(x))
    for _ in range(config.num_hidden_layers):
        attention = layers.MultiHeadAttention(
            config.num_attention_heads, config.hidden_size // config.num_attention_heads, dropout=dropout)
        x = norm(x + layers.Dropout(dropout)(attention(x, x, attention_mask=mask[:, None, :])))
        inner = keras.ops.gelu(layers.Dense(config.intermediate_size)(x), approximate=False)
        x = norm(x + layers.Dropout(dropout)(layers.Dense(config.hidden_size)(inner)))
    return keras.Model([ids, mask, types], x)


def train_step(encode: Callable[..., Any], encoder: keras.Model) -> Callable[..., Any]:
    """A compiled step: forward, mean pooling, two classes, backward, AdamW."""
    head = keras.layers.Dense(2, dtype="float32")
    head.build((None, CONFIG.hidden_size))
    optimizer = keras.optimizers.AdamW(1e-4, weight_decay=0.01)
    variables = encoder.trainable_variables + head.trainable_variables
    optimizer.build(variables)

    @tf.function(reduce_retracing=True)
    def step(ids: tf.Tensor, mask: tf.Tensor, types: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = head(tf.reduce_mean(tf.cast(encode(ids, mask, types), tf.float32), axis=1))
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        optimizer.apply(tape.gradient(loss, [variable.value for variable in variables]), variables)
        return loss

    return step


def batch(rows: int, length: int) -> list[tf.Tensor]:
    """Random ids, mask, types [rows, length] int32 and labels [rows] int32."""
    random = np.random.default_rng(0)
    ids = random.integers(1000, CONFIG.vocab_size, (rows, length))
    mask = np.arange(length)[None] < random.integers(length // 2, length + 1, rows)[:, None]
    return [tf.constant(x, tf.int32) for x in (ids * mask, mask, np.zeros_like(ids), random.integers(0, 2, rows))]


def cpu_features() -> str:
    """Which fast low-precision instructions the machine has."""
    if not (flags := cpu_flags()):
        return "unknown"
    return ", ".join(f for f in ("avx512f", "avx512_bf16", "amx_bf16") if f in flags) or "none of AVX512, AMX"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="timed steps of each encoder and shape")
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16", "float16"],
                        help="of both, as training.precision")
    options = parser.parse_args()
    precision, reason = choose_precision(options.precision)
    keras.config.set_dtype_policy(precision if precision == "float32" else f"mixed_{precision}")
    ours, plain = Bert(CONFIG, DROPOUT, seed=1, with_pooler=False), plain_keras(CONFIG, DROPOUT)
    keys = ("input_word_ids", "input_mask", "input_type_ids")
    steps = {
        "ours": train_step(lambda *x: ours(dict(zip(keys, x, strict=True)), training=True)["sequence_output"], ours),
        "plain Keras": train_step(lambda *x: plain(list(x), training=True), plain),
    }
    print(f"{os.cpu_count()} cores, {cpu_features()}; TensorFlow {tf.__version__}, Keras {keras.__version__}, "
          f"{precision}: {reason}")
    for shape in SHAPES:
        inputs = batch(*shape)
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for timed in range(options.rounds + 2):  # the first two trace and compile
            for name, step in steps.items():
                begin = time.perf_counter()
                step(*inputs).numpy()
                if timed >= 2:
                    seconds[name].append(time.perf_counter() - begin)
        speed = {name: shape[0] / statistics.median(values) for name, values in seconds.items()}
        print(f"{shape[0]}x{shape[1]}: " + ", ".join(f"{name} {value:.1f} examples/s" for name, value in speed.items())
              + f", ratio {speed['ours'] / speed['plain Keras']:.2f}", flush=True)


if __name__ == "__main__":
    main()
