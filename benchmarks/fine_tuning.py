"""Minutes and quality of whole MRPC runs: how many layers to fine-tune, and how much the seed matters.

    python benchmarks/fine_tuning.py --layers 0 2 4 all --seeds 1 2 3
    python benchmarks/fine_tuning.py --layers all --set model.pooling=cls --set training.learning_rate=5e-5

Each line is `textrail run mrpc` from reading to verdict in a workspace of its own; the last lines are medians over the
seeds. Skips with a sentence where the corpus is not there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from benchmarks import MRPC, mrpc_settings


class Seen(NamedTuple):
    """What one run took and reached."""

    minutes: float
    accuracy: float
    f1: float

    def row(self, layers: str, seed: str) -> str:
        return f"| {layers} | {seed} | {self.minutes:.1f} | {self.accuracy:.3f} | {self.f1:.3f} |"


def run(overrides: list[str]) -> Seen:
    """Runs the pipeline with `--set` of each override; a model below its bounds counts like any other."""
    command = [sys.executable, "-m", "pipelines.cli"]
    with tempfile.TemporaryDirectory() as folder:
        place = ["mrpc", "--workspace", folder]
        settings = [word for override in overrides for word in ("--set", override)]
        began = time.perf_counter()
        done = subprocess.run([*command, "run", *place, *settings], cwd=PROJECT, capture_output=True, text=True)
        minutes = (time.perf_counter() - began) / 60
        judged = subprocess.run([*command, "metrics", *place, "--json"], cwd=PROJECT, capture_output=True, text=True)
    if judged.returncode:
        sys.exit(f"textrail run mrpc came to no verdict:\n{done.stdout[-2000:]}{done.stderr}")
    metrics = json.loads(judged.stdout)["metrics"]
    return Seen(minutes, metrics["accuracy"], metrics["f1/equivalent"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", nargs="+", default=["0", "2", "4", "all"], help="values of model.fine_tune_layers")
    parser.add_argument("--seeds", nargs="+", default=["1", "2", "3"])
    parser.add_argument("--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[])
    options = parser.parse_args()
    if not MRPC.is_dir():
        print(f"Skipped: no MRPC at {MRPC}; TEXTRAIL_SHARED names the folder with data/mrpc/train.tsv.")
        return
    print("| layers | seed | minutes | accuracy | F1 |\n|---|---|---|---|---|")
    medians = []
    for layers in options.layers:
        runs = []
        for seed in options.seeds:
            seen = run([*mrpc_settings(), f"model.fine_tune_layers={layers}", f"seed={seed}", *options.overrides])
            print(seen.row(layers, seed), flush=True)
            runs.append(seen)
        medians.append((layers, Seen(*map(statistics.median, zip(*runs, strict=True)))))
    for layers, seen in medians:
        print(seen.row(layers, "median"))


if __name__ == "__main__":
    main()
