"""What an encoder costs, by size: parameters, time of an answer as served, and time of fine-tuning.

    python benchmarks/encoders.py [--rounds 5]

Each has a mean head for two classes, dropout and AdamW as a run has them, and batches of 2,048 tokens, the default of
`training.batch_tokens`, without padding. Answers are computed in float32, as every exported model does, training in
the precision that the machine is fast at. Weights are random: time does not depend on them. The median round counts.
"""

from __future__ import annotations

import argparse
import gc
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
from modules.classifier import Classifier, sums
from modules.hardware import cpu_model
from modules.optimization import AdamW, choose_precision, policy_of
from modules.tokenization import SPECIALS, Vocabulary

# Name → layers, width, heads.
SIZES = {"BERT tiny": (2, 128, 2), "BERT mini": (4, 256, 4), "BERT small": (4, 512, 8), "MiniLM-L6": (6, 384, 12),
         "BERT medium": (8, 512, 8), "BERT base": (12, 768, 12)}
LENGTHS = (32, 128)   # tokens of a text
BATCH_TOKENS, TEXTS, PIECES, DROPOUT = 2048, 1000, 30522, 0.1
VOCABULARY = Vocabulary((*SPECIALS, *map(str, range(PIECES - len(SPECIALS)))))


def classifier(size: tuple[int, int, int], policy: str) -> Classifier:
    """A BERT of that size with a new head, in a Keras dtype policy."""
    layers, width, heads = size
    config = BertConfig(vocab_size=PIECES, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
                        intermediate_size=4 * width, max_position_embeddings=512, type_vocab_size=2,
                        hidden_act="gelu", layer_norm_eps=1e-12)
    keras.config.set_dtype_policy(policy)
    bert = Bert(config, DROPOUT, seed=1, with_pooler=False)
    bert.fine_tune("all", "mean")
    return Classifier(bert, 2, "mean", DROPOUT, VOCABULARY, 1)


def answering(model: Classifier) -> Callable[[dict[str, tf.Tensor]], Any]:
    return tf.function(lambda batch: model(batch["token_ids"], training=False), reduce_retracing=True)


def training(model: Classifier) -> Callable[[dict[str, tf.Tensor]], Any]:
    """A step as `modules.training` takes it."""
    trained = [variable for _, variable in model.trained]
    optimizer = AdamW(trained, [name for name, _ in model.trained])

    @tf.function(reduce_retracing=True)
    def step(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        with tf.GradientTape() as tape:
            found = sums(model, batch, True)
            loss = found["loss"] / found["weight"]
        return optimizer.apply(tape.gradient(loss, trained), tf.constant(1e-5))

    return step


def batch(length: int) -> dict[str, tf.Tensor]:
    """Texts of one length, as many as a batch holds."""
    shape = (BATCH_TOKENS // length, length)
    ids = np.random.default_rng(0).integers(len(SPECIALS), PIECES, shape)
    return {"token_ids": tf.constant(ids, tf.int32), "label_id": tf.constant(np.arange(shape[0]) % 2, tf.int64)}


def seconds(run: Callable[[dict[str, tf.Tensor]], Any], length: int, rounds: int) -> float:
    """Median seconds for 1,000 texts of a length."""
    texts, taken = batch(length), []
    for timed in range(rounds + 2):   # the first two trace and compile
        began = time.perf_counter()
        run(texts).numpy()
        if timed >= 2:
            taken.append(time.perf_counter() - began)
    return statistics.median(taken) * TEXTS / len(texts["label_id"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="timed batches of each kind")
    options = parser.parse_args()
    precision, reason = choose_precision("auto")
    print(f"{os.cpu_count()} cores, {cpu_model()}; TensorFlow {tf.__version__}; training in {precision}: {reason}")
    heads = [f"{what}, {length} tokens" for what in ("seconds to answer 1,000 texts", "minutes to train on 1,000 texts")
             for length in LENGTHS]
    print(f"| encoder | layers | width | million parameters | {' | '.join(heads)} |", "|---" * 8 + "|", sep="\n")
    for name, size in SIZES.items():
        cells = [name, str(size[0]), str(size[1])]
        for kind, policy, per in ((answering, "float32", 1), (training, policy_of(precision), 60)):
            model = classifier(size, policy)
            if kind is answering:
                cells.append(f"{model.count_params() / 1e6:.1f}")
            times = [seconds(kind(model), length, options.rounds) / per for length in LENGTHS]
            cells += [f"{value:.0f}" if value >= 10 else f"{value:.2g}" for value in times]
            gc.collect()
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
