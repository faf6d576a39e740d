"""Examples/s of loading with the model taken out, stage by stage, beside what training needs and a usual tf.data text
pattern.

    python benchmarks/input_pipeline.py [--rows 25000] [--rounds 5] [--steps 20]

Loading is measured as training sees it: batches that arrive in Python, over whole epochs, what starts an epoch
included; medians of rounds in which all sides take turns. The stages up to the shuffled records come a thousand to an
element, so that Python is not what is measured. Training is MiniLM-L6's step on the same batches, made ready before.
The usual pattern parses each record in a call of its own, and pads batches of as many tokens, in the order in which
texts come, to the longest of each (`padded_batch`).

IMDB and MRPC are looked for in the folder that TEXTRAIL_SHARED names; without them, the shipped reviews are read.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import tensorflow as tf

from benchmarks.minilm import BATCH_TOKENS, SHUFFLE_BUFFER, Texts, minilm_step, texts, warm_up
from modules.batching import Loading, bucketed, cached, parsed, prefetched, read, shuffled
from modules.classifier import FEATURES

ALL, CACHED, USUAL = "+ prefetch (all stages)", "all stages, cache: memory", "usual pattern"


def stages(data: Texts) -> dict[str, tf.data.Dataset]:
    """What to iterate over, by name: our stages one after another, all of them from a cache, and the usual pattern."""
    loading = Loading()
    records = read(data.files, loading)
    mixed = shuffled(records, SHUFFLE_BUFFER, seed=1)
    examples = parsed(mixed, FEATURES, loading)
    batches = bucketed(examples, data.buckets, 0)
    kept = shuffled(cached(records, Loading(cache="memory"), ""), SHUFFLE_BUFFER, seed=1)
    return {"read": records.batch(1000), "+ shuffle": mixed.batch(1000), "+ parse": examples, "+ bucket": batches,
            ALL: prefetched(batches, loading),
            CACHED: prefetched(bucketed(parsed(kept, FEATURES, loading), data.buckets, 0),
                               loading),
            USUAL: usual(data)}


def usual(data: Texts) -> tf.data.Dataset:
    """Records parsed, shuffled and padded one by one."""
    spec = {"token_ids$ragged_values": tf.io.VarLenFeature(tf.int64), "label_id": tf.io.FixedLenFeature([], tf.int64)}

    def parse(record: tf.Tensor) -> dict[str, tf.Tensor]:
        example = tf.io.parse_single_example(record, spec)
        return {"token_ids": tf.cast(tf.sparse.to_dense(example["token_ids$ragged_values"]), tf.int32),
                "label_id": example["label_id"]}

    return (tf.data.TFRecordDataset(data.files, "GZIP").map(parse, num_parallel_calls=tf.data.AUTOTUNE)
            .shuffle(SHUFFLE_BUFFER, seed=1).padded_batch(BATCH_TOKENS // data.max_length).prefetch(tf.data.AUTOTUNE))


def seconds(dataset: tf.data.Dataset) -> float:
    """How long a pass takes."""
    began = time.perf_counter()
    for _ in dataset:
        pass
    return time.perf_counter() - began


def main() -> None:
    """Measures each data set and prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=25_000, help="most texts of a data set")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="training steps a round")
    options = parser.parse_args()
    step, precision = minilm_step()
    print(f"{os.cpu_count()} cores; MiniLM-L6 in {precision}, {BATCH_TOKENS} tokens a batch")
    with tempfile.TemporaryDirectory() as folder:
        try:
            sets = [texts(name, Path(folder), options.rows) for name in ("imdb", "mrpc")]
        except FileNotFoundError as error:
            print(f"the shipped reviews only: {error}")
            sets = [texts("reviews", Path(folder), options.rows)]
        for data in sets:
            measure(data, step, options.rounds, options.steps)


def measure(data: Texts, step, rounds: int, steps: int) -> None:
    """Prints a table of one data set."""
    datasets = stages(data)
    rates: dict[str, list[float]] = {name: [] for name in [*datasets, "train"]}
    warm_up(step, datasets[ALL])
    seconds(datasets[CACHED])   # the pass that fills the cache
    ready = iter(datasets[ALL].repeat())
    for _ in range(rounds):
        for name, dataset in datasets.items():
            rates[name].append(data.examples / seconds(dataset))
        batches = list(itertools.islice(ready, steps))
        began = time.perf_counter()
        done = sum(float(step(batch)) for batch in batches)
        rates["train"].append(done / (time.perf_counter() - began))
    median = {name: statistics.median(values) for name, values in rates.items()}
    print(f"\n{data.title}")
    for name in datasets:
        print(f"  {name:26} {median[name]:9,.0f} examples/s")
    print(f"  {'the training step needs':26} {median['train']:9,.0f} examples/s")
    print(f"  ratio: loading / training {median[ALL] / median['train']:.0f}, "
          f"loading / usual pattern {median[ALL] / median[USUAL]:.2f}", flush=True)


if __name__ == "__main__":
    main()
