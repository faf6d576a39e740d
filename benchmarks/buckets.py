"""Examples/s of a training epoch on real lengths: length buckets beside padding every text to 128 tokens.

    python benchmarks/buckets.py [--data reviews] [--rows 25000] [--slices 12]

The texts are the shipped reviews; `mrpc_epoch.py` is the same on sentence pairs. Encoder (MiniLM-L6), optimizer,
precision, shuffling and the tokens of a batch are the same, and so are the examples of an epoch. Each side's epoch is
cut into slices of as many examples, the two sides take turns, and what reads and batches counts like the steps. Printed
are the medians of the slices, and the whole epoch of both.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.minilm import BATCH_TOKENS, Texts, minilm_step, texts, warm_up
from modules.batching import Buckets


def slices(data: Texts, buckets: Buckets, step, number: int) -> Iterator[tuple[float, float]]:
    """Trains an epoch, and after each slice of it gives its examples and seconds."""
    epoch = iter(data.batches(buckets, epoch=1))
    left = data.examples
    for remaining in range(number, 0, -1):
        examples, began = 0.0, time.perf_counter()
        while examples < left / remaining and (batch := next(epoch, None)) is not None:
            examples += float(step(batch))
        left -= int(examples)
        yield examples, time.perf_counter() - began


def main(default: str = "reviews", description: str | None = __doc__) -> None:
    """Runs both sides in turns and prints their ratio."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=default, choices=["reviews", "mrpc", "imdb"])
    parser.add_argument("--rows", type=int, default=25_000, help="most texts of an epoch")
    parser.add_argument("--slices", type=int, default=12, help="turns that each side's epoch is cut into")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            data = texts(options.data, Path(folder), options.rows)
        except FileNotFoundError as error:
            print(f"skipped: {error}")
            return
        step, precision = minilm_step()
        sides = {"length buckets": data.buckets, f"padded to {data.max_length}": data.one_bucket}
        for buckets in sides.values():
            warm_up(step, data.batches(buckets, epoch=0))
        turns = zip(*(slices(data, buckets, step, options.slices) for buckets in sides.values()), strict=True)
        columns = list(zip(*turns, strict=True))
    print(f"MiniLM-L6, {precision}, {BATCH_TOKENS} tokens a batch; {data.title}")
    medians, epochs = [], []
    for name, column in zip(sides, columns, strict=True):
        medians.append(statistics.median(examples / seconds for examples, seconds in column))
        epochs.append(sum(seconds for _, seconds in column))
        assert sum(examples for examples, _ in column) == data.examples
        print(f"{name}: {medians[-1]:.1f} examples/s, an epoch of {data.examples:,} in {epochs[-1]:.1f} s")
    print(f"ratio: {medians[0] / medians[1]:.2f} (median slice), {epochs[1] / epochs[0]:.2f} (epoch)")


if __name__ == "__main__":
    main()
