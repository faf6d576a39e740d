"""TextTransform beside TFX's usual text pattern: rows a second and bytes written, in one run on one machine.

    python benchmarks/transform.py [--rows 25000] [--max-length 256] [--rounds 3] [--data FILE.csv.gz]

The usual pattern is what TFX's BERT examples do: `BertTokenizer` on the vocabulary file and three dense features of
`max_length` integers (ids, mask, segments), through TFX's Transform executor with its statistics off. Both sides get
the same records and splits, run with Beam in this process, in turns, and write gzipped TFRecords. After a first round,
which has imports in it, medians count. On a shared machine seconds of processor are the steadier measure.
"""

import argparse
import csv
import gzip
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import tensorflow as tf
import tensorflow_text as tf_text
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.components.transform import executor as tfx_transform
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.types import artifact_utils, standard_artifacts

from benchmarks import IMDB
from components import text_transform
from components.artifacts import Encoder
from components.beam_runner import run_beam_in_this_process
from components.encoder_importer import import_encoder

SCHEMA = """
feature { name: "review" type: BYTES presence { min_fraction: 1 min_count: 1 } shape { dim { size: 1 } } }
feature { name: "sentiment" type: BYTES presence { min_fraction: 1 min_count: 1 } shape { dim { size: 1 } }
          string_domain { name: "sentiment" value: "negative" value: "positive" } }
"""


def usual_preprocessing_fn(inputs: dict, custom_config: dict) -> dict:
    """The pattern of TFX's BERT examples: [batch, max_length] int64 ids, mask and segments, padded."""
    length = custom_config["max_length"]
    tokenizer = tf_text.BertTokenizer(f"{custom_config['encoder']}/vocab.txt", token_out_type=tf.int64, lower_case=True)
    pieces = tokenizer.tokenize(tf.squeeze(inputs["review"], 1)).merge_dims(1, 2)[:, :length - 2]  # [batch, (pieces)]
    rows = pieces.nrows()
    cls, sep = (tf.fill([rows, 1], tf.constant(i, tf.int64)) for i in (101, 102))
    ids = tf.concat([cls, pieces, sep], axis=1)  # [batch, (tokens)]
    padded = ids.to_tensor(shape=[None, length])  # [batch, length]
    return {
        "input_word_ids": padded,
        "input_mask": tf.ones_like(ids).to_tensor(shape=[None, length]),
        "segment_ids": tf.zeros_like(padded),
        "label": tf.cast(tf.equal(tf.squeeze(inputs["sentiment"], 1), "positive"), tf.int64),
    }


def write_examples(rows: Iterable[dict[str, str]], folder: Path) -> standard_artifacts.Examples:
    """Writes rows as an Examples artifact, every tenth row into the validation split."""
    artifact = standard_artifacts.Examples()
    artifact.uri, artifact.split_names = str(folder), artifact_utils.encode_split_names(["train", "validation"])
    writers = {}
    for i, row in enumerate(rows):
        split = "validation" if i % 10 == 9 else "train"
        if split not in writers:
            (folder / f"Split-{split}").mkdir(parents=True)
            path = folder / f"Split-{split}" / "data_tfrecord-00000-of-00001.gz"
            writers[split] = tf.io.TFRecordWriter(str(path), options="GZIP")
        feature = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[row[name].encode()]))
                   for name in ("review", "sentiment")}
        writers[split].write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    for writer in writers.values():
        writer.close()
    return artifact


class Run(NamedTuple):
    """What one run took and wrote: seconds, seconds of processor, bytes of the records and of their gzipped files."""

    seconds: float
    cpu: float
    record_bytes: int
    disk_bytes: int


def timed(executor: type[BaseBeamExecutor], inputs: dict, properties: dict, folder: Path) -> Run:
    """Runs an executor into a new folder."""
    graph, examples = standard_artifacts.TransformGraph(), standard_artifacts.Examples()
    graph.uri, examples.uri = str(folder / "graph"), str(folder / "examples")
    context = BaseBeamExecutor.Context(beam_pipeline_args=[], tmp_dir=str(folder / "tmp"), unique_id="1")
    start, cpu = time.perf_counter(), time.process_time()
    executor(context).Do(inputs, {"transform_graph": [graph], "transformed_examples": [examples]}, properties)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    files = list((folder / "examples").rglob("*.gz"))
    return Run(seconds, cpu, sum(len(gzip.decompress(file.read_bytes())) for file in files),
               sum(file.stat().st_size for file in files))


def main() -> None:
    """Writes the rows as records, runs both sides in turns and prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=25_000)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=IMDB)
    options = parser.parse_args()
    if not options.data.is_file():
        print(f"skipped: no {options.data}; --data names a .csv.gz with the columns review and sentiment, "
              "TEXTRAIL_SHARED the folder of the larger texts")
        return
    run_beam_in_this_process()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with gzip.open(options.data, "rt", encoding="utf-8", newline="") as file:
            examples = write_examples(itertools.islice(csv.DictReader(file), options.rows), folder / "in")
        encoder, schema = Encoder(), standard_artifacts.Schema()
        encoder.uri, schema.uri = str(folder / "encoder"), str(folder / "schema")
        import_encoder("minilm", encoder.uri)
        (folder / "schema").mkdir()
        proto = text_format.Parse(SCHEMA, schema_pb2.Schema())
        (folder / "schema" / "schema.pbtxt").write_text(text_format.MessageToString(proto))
        inputs = {"examples": [examples], "schema": [schema]}
        data = {"text": "review", "text_pair": None, "label": "sentiment"}

        def usual(name: str) -> Run:
            config = {"max_length": options.max_length, "encoder": encoder.uri}
            return timed(tfx_transform.Executor, inputs, {
                "preprocessing_fn": "benchmarks.transform.usual_preprocessing_fn",
                "custom_config": json.dumps(config), "disable_statistics": 1}, folder / name)

        def ours(name: str) -> Run:
            return timed(text_transform.Executor, inputs | {"encoder": [encoder]}, {
                "preprocessing_fn": "modules.classifier.preprocessing_fn",
                "settings": json.dumps({"data": data, "max_length": options.max_length})}, folder / name)

        runs: dict[str, list[Run]] = {"usual": [], "TextTransform": []}
        for number in range(options.rounds + 1):
            for name, side in (("usual", usual), ("TextTransform", ours)):
                run = side(f"{name}{number}")
                runs[name].append(run)
                print(f"{name:14} {f'round {number}' if number else 'first'}: {run.seconds:6.1f} s  "
                      f"{run.cpu:6.1f} s CPU  {options.rows / run.seconds:7.0f} rows/s  "
                      f"{run.record_bytes / 1e6:6.2f} MB records  {run.disk_bytes / 1e6:6.2f} MB on disk", flush=True)
        theirs, mine = (Run(*map(statistics.median, zip(*runs[name][1:], strict=True))) for name in runs)
        print(f"TextTransform : usual pattern, medians of {options.rounds}")
        print(f"  rows/s                             {theirs.seconds / mine.seconds:.2f}")
        print(f"  rows/s of processor                {theirs.cpu / mine.cpu:.2f}")
        print(f"  bytes of records, parsed an epoch  {mine.record_bytes / theirs.record_bytes:.2f}")
        # Near 1 in any format: padding, mask and segments gzip to next to nothing, and the ids are the same.
        print(f"  bytes on disk, gzip                {mine.disk_bytes / theirs.disk_bytes:.2f}")


if __name__ == "__main__":
    main()
