"""Rows a second of Textrail's ExampleGen beside TFX's CsvExampleGen, on the 25,000 IMDB reviews, in one process.

    python benchmarks/example_gen.py [--rounds 3]

Both read the whole file, split it 80/10/10 by hash and write shuffled, gzipped TFRecords with Beam in this process, in
turns. Textrail's reads the `.csv.gz` as it is; CsvExampleGen gets it unzipped.
"""

import argparse
import gzip
import importlib
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from benchmarks import IMDB, SHARED
from components.beam_runner import run_beam_in_this_process

ROWS = 25_000


def ours_into(out: Path) -> None:
    """Reads the file into `out` with Textrail's executor."""
    from tfx.types import standard_artifacts

    from components.example_gen import Executor
    from pipelines.classification_sections import Data

    examples = standard_artifacts.Examples()
    examples.uri = str(out)
    data = Data(source="csv", path=str(IMDB), text="review", label="sentiment").model_dump_json()
    Executor().Do({}, {"examples": [examples]}, {"data": data, "fingerprint": ""})


def theirs_into(out: Path, folder: Path) -> None:
    """Reads the CSV files of `folder` into `out` with TFX's executor."""
    from tfx.components.example_gen.csv_example_gen.executor import Executor
    from tfx.proto import example_gen_pb2
    from tfx.types import standard_artifacts

    shares = {"train": 8, "validation": 1, "test": 1}
    splits = [{"name": name, "hashBuckets": buckets} for name, buckets in shares.items()]
    examples = standard_artifacts.Examples()
    examples.uri = str(out)
    Executor().Do({}, {"examples": [examples]}, {
        "input_base": str(folder), "input_config": json.dumps({"splits": [{"name": "all", "pattern": "*.csv"}]}),
        "output_config": json.dumps({"splitConfig": {"splits": splits}}),
        "output_data_format": example_gen_pb2.FORMAT_TF_EXAMPLE,
        "output_file_format": example_gen_pb2.FORMAT_TFRECORDS_GZIP})


def seconds(work: Callable[[Path], None], out: Path) -> float:
    """Time that `work` takes to fill `out`, which must then hold every row, and is deleted."""
    import tensorflow as tf

    start = time.perf_counter()
    work(out)
    taken = time.perf_counter() - start
    written = sum(1 for _ in tf.data.TFRecordDataset([str(file) for file in out.rglob("*.gz")], "GZIP"))
    assert written == ROWS, f"{written} rows written"
    shutil.rmtree(out)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="runs of each; the median counts")
    rounds = parser.parse_args().rounds
    if not IMDB.is_file():
        print(f"skipped: no {IMDB.relative_to(SHARED)} in {SHARED}, the folder that TEXTRAIL_SHARED names")
        return
    with tempfile.TemporaryDirectory() as temp:
        plain = Path(temp, "plain")
        plain.mkdir()
        with gzip.open(IMDB) as packed, open(plain / "imdb.csv", "wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
        ours, theirs = [], []
        run_beam_in_this_process()
        for module in ("components.example_gen", "tfx.components.example_gen.csv_example_gen.executor"):
            importlib.import_module(module)   # so that neither side's time has imports in it
        for _ in range(rounds):
            ours.append(ROWS / seconds(ours_into, Path(temp, "ours")))
            theirs.append(ROWS / seconds(lambda out: theirs_into(out, plain), Path(temp, "theirs")))
    print(f"ExampleGen      {statistics.median(ours):9,.0f} rows/s   {[round(speed) for speed in ours]}")
    print(f"CsvExampleGen   {statistics.median(theirs):9,.0f} rows/s   {[round(speed) for speed in theirs]}")
    print(f"ratio           {statistics.median(ours) / statistics.median(theirs):9.2f}")


if __name__ == "__main__":
    main()
