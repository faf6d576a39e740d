"""Accuracy on film reviews of a BERT that was pretrained on other reviews, and of random weights.

    python benchmarks/pretraining_pays.py --workspace DIR
    python benchmarks/pretraining_pays.py --workspace DIR --encoder FOLDER      # one that is pretrained already
    python benchmarks/pretraining_pays.py --workspace DIR --set training.epochs=2 --seeds 1

`textrail run pretrain` pretrains `mini` on the 50,000 reviews without labels. Then `textrail run` fine-tunes, a seed at
a time, on 2,000 reviews with labels, once from what was pushed and once from random weights of the same sizes (BERT's:
a deviation of 0.02) with the same wordpieces. 500 others choose the best epoch, 4,000 others judge. Each side has the
rate and the number of epochs that suit it; `--random KEY=VALUE` and `--pretrained KEY=VALUE` try others. Minutes are of
whole runs; processor minutes, of all threads, tell them from those of a busy machine. A killed pretraining is taken up
again in the same workspace. Skips with a sentence where the reviews are not there.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import gzip
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from benchmarks import IMDB, IMDB_TEXTS

DRAW = {"train": 2000, "validation": 500, "test": 4000}   # Reviews with labels.
# What helps to tell what a whole review says: long examples, of which most words are masked, so that those left must
# tell what it is about, words that begin beside those they stand with, and no heads that begin with their neighbours.
PRETRAINING = [
    "data.documents=line", "data.split={train: 0.96, validation: 0.02, test: 0.02}", "instances.max_length=256",
    "instances.next_sentence=false", "masking.mask_rate=0.6", "masking.mask_token_rate=0.7", "model.preset=mini",
    "model.first_words=cooccurrence", "model.neighbour_heads=0", "model.dropout=0", "training.epochs=1",
    "training.evaluations_per_epoch=3", "training.batch_tokens=2048", "training.max_batch=128",
    "training.bucket_step=16", "training.shuffle_buffer=100000", "training.learning_rate=1e-3", "training.warmup=0.03",
    "evaluation.thresholds.masked_accuracy.min=0.05"]
FINE_TUNING: dict[str, Any] = {
    "shape": "classification",
    "data": {"source": "csv", "text": "review", "label": "sentiment"},
    "model": {"max_length": 128, "truncate": "middle", "pooling": "mean"},
    "training": {"batch_tokens": 4096, "max_batch": 32, "patience": 8},
    "evaluation": {"thresholds": {"accuracy": {"min": 0}}},   # Whatever comes out is what is asked for.
}
BEST = {"random": ["training.learning_rate=5e-4", "training.epochs=6"],
        "pretrained": ["training.learning_rate=3e-4", "training.epochs=3"]}
SIDES = tuple(BEST)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", metavar="DIR", help="kept, so that a killed run is taken up again")
    parser.add_argument("--encoder", metavar="FOLDER", help="fine-tune from this one; pretrain nothing")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of the fine-tunings")
    parser.add_argument("--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[],
                        help="of the pretraining")
    for side in SIDES:
        parser.add_argument(f"--{side}", metavar="KEY=VALUE", action="append", default=[],
                            help=f"of the fine-tuning from {side} weights")
    options = parser.parse_args()
    if missing := next((path for path in (IMDB, IMDB_TEXTS) if not path.is_file()), None):
        print(f"Skipped: no {missing}; TEXTRAIL_SHARED names the folder with data/imdb.")
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.workspace or temporary).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        encoder = options.encoder or pretrained(folder, options.overrides)
        reviews, rows = draw(folder), []
        print(f"| seed | {' | '.join(SIDES)} |\n|---|---|---|", flush=True)
        with timed("fine-tuning"):
            for seed in options.seeds:
                sources = {"random": random_weights(encoder, folder / f"random_{seed}", seed), "pretrained": encoder}
                rows.append([fine_tuned(folder, reviews, side, sources[side], seed,
                                        [*BEST[side], *getattr(options, side)])
                             for side in SIDES])
                print(f"| {seed} | {rows[-1][0]:.3f} | {rows[-1][1]:.3f} |", flush=True)
            means = [statistics.mean(side) for side in zip(*rows, strict=True)]
            print(f"| mean | {means[0]:.3f} | {means[1]:.3f} |")
        print(f"{100 * (means[1] - means[0]):+.1f} points of accuracy on {DRAW['test']:,} reviews")


def pretrained(folder: Path, overrides: list[str]) -> str:
    """Pretrains as `textrail run pretrain` does, and returns where the encoder was pushed to."""
    with timed("pretraining"):
        done = textrail("run", "pretrain", "--workspace", str(folder),
                        *overriding([f"data.path={IMDB_TEXTS}", *PRETRAINING, *overrides]))
    if done.returncode:
        sys.exit(done.returncode)
    return str(folder / "pretrain" / "pushed")


def draw(folder: Path) -> dict[str, str]:
    """Writes the reviews of each split, always the same ones, and returns the files' paths."""
    csv.field_size_limit(1 << 20)
    with gzip.open(IMDB, "rt", encoding="utf-8", newline="") as file:
        reviews = list(csv.DictReader(file))
    random.Random(0).shuffle(reviews)
    paths, start = {}, 0
    for split, count in DRAW.items():
        paths[split] = str(folder / f"reviews_{split}.csv")
        with open(paths[split], "w", encoding="utf-8", newline="") as out:
            writer = csv.DictWriter(out, ["review", "sentiment"])
            writer.writeheader()
            writer.writerows(reviews[start:start + count])
        start += count
    return paths


def random_weights(encoder: str, folder: Path, seed: int) -> str:
    """Writes an encoder of the same sizes and wordpieces with BERT's random weights, and returns its folder."""
    import keras

    from components.encoder_sources import read_encoder
    from modules.bert import Bert
    from modules.weights import encoder_tensors, write_encoder

    keras.utils.set_random_seed(seed)
    checkpoint = read_encoder(encoder)
    config = dataclasses.replace(checkpoint.config, initializer_range=0.02)
    write_encoder(str(folder), config, encoder_tensors(Bert(config, with_pooler=False)), checkpoint.vocabulary)
    return str(folder)


def fine_tuned(folder: Path, reviews: dict[str, str], side: str, encoder: str, seed: int, overrides: list[str]
               ) -> float:
    """Accuracy on the test split of a run that starts from an encoder."""
    settings = folder / f"films_{side}.yaml"
    settings.write_text(yaml.safe_dump(FINE_TUNING | {
        "seed": seed, "data": FINE_TUNING["data"] | {"path": reviews}, "encoder": {"source": encoder}}))
    run = textrail("run", str(settings), "--workspace", str(folder), *overriding(overrides),
                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    judged = textrail("metrics", settings.stem, "--workspace", str(folder), "--json", stdout=subprocess.PIPE)
    if run.returncode or judged.returncode:
        sys.exit(f"textrail run {settings} failed:\n{run.stdout[-3000:]}")
    return json.loads(judged.stdout)["metrics"]["accuracy"]


def overriding(settings: list[str]) -> list[str]:
    return [word for one in settings for word in ("--set", one)]


def textrail(*arguments: str, **options: Any) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "pipelines.cli", *arguments], cwd=PROJECT, text=True, **options)


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Tells how many minutes something took, and how many of the processor its processes."""
    began, before = time.perf_counter(), processor_seconds()
    yield
    print(f"{what}: {(time.perf_counter() - began) / 60:.1f} minutes, {(processor_seconds() - before) / 60:.1f} "
          f"processor minutes on {os.cpu_count()} cores", flush=True)


def processor_seconds() -> float:
    """Of this process's finished children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
