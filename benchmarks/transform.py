"""TextTransform beside TFX's usual text pattern: rows a second and bytes written, in one run on one machine.

    python -m benchmarks.transform [--rows 25000] [--max-length 256] [--data ../shared/data/imdb/train.csv.gz]

The usual pattern is what TFX's BERT examples do: `BertTokenizer` on the vocabulary file and three dense features of
`max_length` integers (ids, mask, segments). Both sides run through the same Transform executor of TFX with its
statistics off, on the same records, splits and Beam runner (in_memory). The second of two runs counts, alternating, so
that imports and first traces burden neither. Seconds of processor are the steadier measure on a shared machine.
"""

import argparse
import csv
import gzip
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import tensorflow as tf
import tensorflow_text as tf_text
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.components.transform import executor as tfx_transform
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.types import artifact_utils, standard_artifacts

from components import text_transform
from components.artifacts import Encoder
from components.encoder_importer import import_encoder

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "imdb" / "train.csv.gz"
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


def timed(executor: type[BaseBeamExecutor], inputs: dict, properties: dict, folder: Path
          ) -> tuple[float, float, int, int]:
    """One run: its seconds, seconds of processor, and the bytes of its transformed examples on disk and unpacked."""
    graph, examples = standard_artifacts.TransformGraph(), standard_artifacts.Examples()
    graph.uri, examples.uri = str(folder / "graph"), str(folder / "examples")
    context = BaseBeamExecutor.Context(beam_pipeline_args=[], tmp_dir=str(folder / "tmp"), unique_id="1")
    start, cpu = time.perf_counter(), time.process_time()
    executor(context).Do(inputs, {"transform_graph": [graph], "transformed_examples": [examples]}, properties)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    files = list((folder / "examples").rglob("*.gz"))
    return seconds, cpu, sum(f.stat().st_size for f in files), sum(len(gzip.decompress(f.read_bytes())) for f in files)


def main() -> None:
    """Writes the rows as records, runs both sides twice and prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=25_000)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    if not options.data.is_file():
        raise SystemExit(f"{options.data} is not there; give a CSV with the columns review and sentiment in --data")
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

        def usual(name: str) -> tuple[float, float, int, int]:
            config = {"max_length": options.max_length, "encoder": encoder.uri}
            return timed(tfx_transform.Executor, inputs, {
                "preprocessing_fn": "benchmarks.transform.usual_preprocessing_fn",
                "custom_config": json.dumps(config), "disable_statistics": 1}, folder / name)

        def ours(name: str) -> tuple[float, float, int, int]:
            return timed(text_transform.Executor, inputs | {"encoder": [encoder]}, {
                "preprocessing_fn": "modules.classifier.preprocessing_fn",
                "settings": json.dumps({"data": data, "max_length": options.max_length})}, folder / name)

        runs: list[tuple[str, Callable]] = [("usual", usual), ("TextTransform", ours)]
        results = {}
        for attempt in range(2):
            for name, run in runs:
                results[name] = run(f"{name}{attempt}")
                seconds, cpu, packed, unpacked = results[name]
                print(f"{name:14} run {attempt + 1}: {seconds:6.1f} s  {cpu:6.1f} s CPU  "
                      f"{options.rows / seconds:7.0f} rows/s  {packed / 1e6:6.2f} MB gzip  "
                      f"{unpacked / 1e6:6.2f} MB unpacked", flush=True)
        ratios = [a / b for a, b in zip(results["TextTransform"], results["usual"], strict=True)]
        print("TextTransform : usual pattern")
        print(f"  rows/s               {1 / ratios[0]:.2f}")
        print(f"  rows/s of processor  {1 / ratios[1]:.2f}")
        print(f"  bytes on disk, gzip  {ratios[2]:.2f}")
        print(f"  bytes unpacked       {ratios[3]:.2f}")


if __name__ == "__main__":
    main()
