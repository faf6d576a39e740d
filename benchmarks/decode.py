"""Sentences/s of decoding: batches over a cache beside one sentence at a time with everything computed anew.

    python benchmarks/decode.py [--seconds 3]

The model is the translator of the paper's kind, 4 + 4 layers and 128 wide, with a vocabulary of 8,000, in float32 and
with random weights. Every sentence has 24 tokens and gets 24 more: [END] is made too unlikely to come before the limit.
What is timed is what is exported: the encoder, all steps and the search in one graph, ids in and ids out. All take
turns in one process, so that whatever else the machine does meets all alike; of each the median counts. Beside the
seconds of the clock stands the processor's time, which says more where other programs run as well.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import tensorflow as tf

from modules.decoding import beam_search, greedy
from modules.hardware import cpu_model
from modules.translation import TOKENS
from modules.translator import Translator, build_translator

MODEL = {"layers": 4, "decoder_layers": 4, "hidden_size": 128, "num_heads": 8, "inner_size": 512, "dropout": 0.1,
         "norm": "post", "tied": "none"}
VOCABULARY, LENGTH = 8000, 24
# Seen on a machine of this kind with 32 sentences at a time: `generate` of PyTorch, and CTranslate2.
PEERS = {1: "PyTorch 198, CTranslate2 114", 4: "PyTorch 62, CTranslate2 75"}

Decode = Callable[[tf.Tensor], tf.Tensor]


def translator() -> Translator:
    """Random weights, and no chance of [END]."""
    model = build_translator({"seed": 1, "model": MODEL}, VOCABULARY, VOCABULARY, "float32")
    model.projection.bias.assign(-100.0 * np.eye(VOCABULARY, dtype="float32")[TOKENS.end])
    return model


def cached(model: Translator, beams: int) -> Decode:
    """Batches over a cache, as an exported model does: [batch, length] int32 → [batch, length] int32."""
    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32)])
    def decode(source_ids: tf.Tensor) -> tf.Tensor:
        limits, cache = tf.fill([tf.shape(source_ids)[0]], LENGTH), model.start(source_ids)
        found = (greedy(model.step, cache, limits, TOKENS) if beams == 1
                 else beam_search(model.step, cache, limits, TOKENS, beams=beams, alpha=0.6))
        return found.token_ids[:, 0]

    return decode


def recomputed(model: Translator) -> Decode:
    """One sentence at a time, the likeliest token each time, all layers over all tokens for every one of them."""
    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32)] * 2)
    def next_token(source_ids: tf.Tensor, said: tf.Tensor) -> tf.Tensor:
        allowed = model(source_ids, said)[:, -1, TOKENS.end:]
        return tf.argmax(allowed, axis=-1, output_type=tf.int32) + TOKENS.end

    def decode(source_ids: tf.Tensor) -> tf.Tensor:
        sentences = []
        for at in range(len(source_ids)):
            said = tf.constant([[TOKENS.start]])
            for _ in range(LENGTH):
                said = tf.concat([said, next_token(source_ids[at:at + 1], said)[:, None]], axis=1)
            sentences.append(said[:, 1:])
        return tf.concat(sentences, axis=0)

    return decode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3, help="spent on each, at least, after warming up")
    options = parser.parse_args()
    model = translator()
    sources = tf.constant(np.random.default_rng(0).integers(4, VOCABULARY, (32, LENGTH)), tf.int32)
    plain, decoders = recomputed(model), {beams: cached(model, beams) for beams in (1, 4)}
    runs: dict[str, tuple[Decode, tf.Tensor]] = {
        f"{rows} at a time, beam {beams}": (decoders[beams], sources[:rows]) for rows in (32, 1) for beams in (1, 4)}
    runs["1 at a time, all computed anew"] = plain, sources[:2]
    print(f"{cpu_model()}, {os.cpu_count()} cores; TensorFlow {tf.__version__}; {LENGTH} tokens to {LENGTH} tokens")

    same = np.mean(decoders[1](sources[:2])[:, :-1] == plain(sources[:2])[:, :-1])  # the last one is [END] by force
    print(f"{same:.0%} of the tokens are those of the full computation")
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    processor: dict[str, list[float]] = {name: [] for name in runs}
    for timed in range(1000):
        for name, (decode, ids) in runs.items():
            begin, begin_processor = time.perf_counter(), time.process_time()
            decode(ids).numpy()
            if timed >= 3:
                seconds[name].append((time.perf_counter() - begin) / len(ids))
                processor[name].append((time.process_time() - begin_processor) / len(ids))
        if timed >= 5 and min(sum(spent) * len(runs[name][1]) for name, spent in seconds.items()) > options.seconds:
            break
    for name, spent in seconds.items():
        peers = PEERS[int(name[-1])] if name.startswith("32") else ""
        print(f"{name:32} {1 / statistics.median(spent):7.1f} sentences/s (fastest {1 / min(spent):.1f}), processor "
              f"{1e3 * statistics.median(processor[name]):.1f} ms a sentence" + (f"; seen of {peers}" if peers else ""))
    first, last = "32 at a time, beam 1", "1 at a time, all computed anew"
    print(f"ratio {statistics.median(seconds[last]) / statistics.median(seconds[first]):.1f}, of processor time "
          f"{statistics.median(processor[last]) / statistics.median(processor[first]):.1f}")


if __name__ == "__main__":
    main()
