"""Text to pretraining examples: megabytes of text a second and core, and memory for more and more text.

    python benchmarks/pretraining_data.py [--copies 1 10] [--max-length 128] [--data FILE.txt.gz]

Reads a document a line, shuffles and splits as ExampleGen does, then prepares examples as InstanceGen does, with Beam
in this process. A core's rate is of seconds of processor, all threads together; memory is the most that the process
ever had. Every size runs in a process of its own. A copy of the corpus begins its documents with its number, for they
would be sorted beside each other otherwise.
"""

import argparse
import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import SHARED

TEXT = SHARED / "data/imdb/unlabelled.txt.gz"   # 50,000 reviews, one a line
VOCABULARY = SHARED / "data/vocab/bert_uncased_vocab.txt"
SHARES = {"train": 0.9, "validation": 0.1, "test": 0.0}


def write_copies(data: Path, copies: int, path: Path) -> int:
    """Writes the documents `copies` times; returns the bytes of text."""
    size = 0
    with gzip.open(path, "wb", compresslevel=1) as out:
        for number in range(copies):
            with gzip.open(data, "rb") as file:
                for line in file:
                    line = b"Copy %d. %b" % (number, line) if number else line
                    size += len(line)
                    out.write(line)
    return size


def measure(folder: Path, size: int, max_length: int) -> None:
    """Runs both steps on the text in `folder` and prints what they took, as JSON."""
    import apache_beam as beam
    from tfx.types import artifact_utils, standard_artifacts

    from components import splits_writer
    from components.artifacts import Vocabulary
    from components.beam_runner import run_beam_in_this_process
    from components.instance_gen import Executor
    from components.rows import wanted
    from components.source_text import TextSource

    run_beam_in_this_process()
    (folder / "vocab.txt").write_bytes(VOCABULARY.read_bytes())
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    examples, vocabulary = standard_artifacts.Examples(), Vocabulary()
    prepared = standard_artifacts.Examples()
    examples.uri, vocabulary.uri, prepared.uri = str(folder / "examples"), str(folder), str(folder / "prepared")

    def read() -> None:
        source = TextSource({"path": str(folder / "texts.txt.gz"), "documents": "line"})
        pieces = source.pieces()
        plan = splits_writer.Plan(pieces, SHARES, splits_writer.SHARD_BYTES)
        with beam.Pipeline() as pipeline:
            splits_writer.write_splits(pipeline, source, wanted({"text": "text"}), pieces, plan, examples.uri,
                                       str(folder / "temp"))
        counts = splits_writer.finish(examples.uri, str(folder / "temp"), plan, skip=False)
        examples.split_names = artifact_utils.encode_split_names(list(counts.written))

    def prepare() -> None:
        packing = {"max_length": max_length, "short_rate": 0.1, "swap_rate": 0.5, "next_sentence": True}
        Executor().Do({"examples": [examples], "vocabulary": [vocabulary]}, {"transformed_examples": [prepared]},
                      {"settings": json.dumps({"text": "text", "split_on": [], "seed": 1, "packing": packing})})

    told: dict[str, float] = {"megabytes": size / 1e6, "start_mb": peak_mb()}
    for name, step in (("read", read), ("prepare", prepare)):
        start, cpu = time.perf_counter(), time.process_time()
        step()
        told |= {f"{name}_s": time.perf_counter() - start, f"{name}_cpu_s": time.process_time() - cpu,
                 f"{name}_peak_mb": peak_mb()}
    told |= {name: prepared.get_int_custom_property(f"{name}_train")
             for name in ("documents", "sentences", "instances", "tokens", "swapped", "short")}
    print(json.dumps(told))


def peak_mb() -> float:
    """The most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main() -> None:
    """Runs each size in a process of its own and prints a line for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--data", type=Path, default=TEXT)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(Path(options.measure[0]), int(options.measure[1]), options.max_length)
        return
    missing = next((path for path in (options.data, VOCABULARY) if not path.is_file()), None)
    if missing:
        print(f"skipped: no {missing}; --data names a .txt.gz with a document a line, TEXTRAIL_SHARED the folder of "
              "the larger texts")
        return
    for copies in options.copies:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            size = write_copies(options.data, copies, folder / "texts.txt.gz")
            done = subprocess.run([sys.executable, __file__, "--measure", temporary, str(size), "--max-length",
                                   str(options.max_length)], stdout=subprocess.PIPE, check=True)
            told = json.loads(done.stdout.splitlines()[-1])
        print(f"{told['megabytes']:6.0f} MB of text: read {told['megabytes'] / told['read_cpu_s']:.1f}, prepared "
              f"{told['megabytes'] / told['prepare_cpu_s']:.1f} MB/s and core, in {told['read_s']:.0f} + "
              f"{told['prepare_s']:.0f} s; memory at the start {told['start_mb']:.0f}, at most "
              f"{told['read_peak_mb']:.0f} and {told['prepare_peak_mb']:.0f} MB", flush=True)
        print(f"       training split: {told['documents']:,} documents, {told['sentences']:,} sentences, "
              f"{told['instances']:,} examples of {told['tokens'] / told['instances']:.0f} tokens, "
              f"{told['swapped'] / told['instances']:.1%} swapped, {told['short'] / told['instances']:.1%} short",
              flush=True)


if __name__ == "__main__":
    main()
