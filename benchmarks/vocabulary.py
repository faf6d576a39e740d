"""How long a vocabulary takes to learn, beside tensorflow_text's learner, and what a million pairs of sentences cost.

    python benchmarks/vocabulary.py [--rows 1000000] [--size 8000] [--skip-peer]

First both learners get the same counts of the Portuguese words of the pairs under TEXTRAIL_SHARED. Then VocabularyGen
learns both languages from `--rows` pairs, which are made from words of the real ones: of every 100 words 3 are glued
from the halves of two, so that there are more rare words than any language has. It counts with Beam in this process.
Seconds are of the component, peak memory is the process's; on a shared machine seconds of processor are the steadier
measure.
"""

import argparse
import gzip
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import tensorflow as tf
from tensorflow_text.tools.wordpiece_vocab import wordpiece_tokenizer_learner_lib
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.types import artifact_utils, standard_artifacts

from benchmarks import PT_EN
from components import vocabulary_gen
from components.artifacts import Vocabulary
from components.beam_runner import run_beam_in_this_process
from components.wordpieces import learn, measure
from modules.subwords import JOINER, SPECIALS, Subwords

FILES = 16
PAIRS = [PT_EN / f"{name}.tsv.gz" for name in ("tatoeba", "pydocs")]


def real_pairs() -> list[list[str]]:
    """Portuguese and English of every line."""
    pairs = []
    for path in PAIRS:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            pairs += [line.rstrip("\n").split("\t") for line in file]
    return pairs


def count(texts: Sequence[str]) -> Counter[str]:
    """Words as the graph splits them."""
    words, counts = Subwords(SPECIALS).words, Counter()
    for start in range(0, len(texts), 4096):
        counts.update(word.decode() for word in words(tf.constant(texts[start:start + 4096])).values.numpy().tolist())
    return counts


def compare(counts: Counter[str], size: int) -> None:
    """Times both learners on the same counts and prints size, tokens a word, and the ratio of their seconds."""
    seconds = []   # of processor
    for name, run in (
            ("tensorflow_text", lambda: wordpiece_tokenizer_learner_lib.learn(
                counts, size, list(SPECIALS), lower_thresh=1)),
            ("components.wordpieces", lambda: learn(counts, size, SPECIALS, 1000, JOINER).pieces)):
        start = time.process_time()
        pieces = run()
        seconds.append(time.process_time() - start)
        coverage = measure(counts.items(), pieces)
        print(f"{name}: {seconds[-1]:.1f} s, {len(pieces):,} pieces of {size:,} asked for, "
              f"{coverage.tokens / coverage.words:.4f} tokens a word, {coverage.unknown:,} words [UNK]")
    print(f"{len(counts):,} different words: {seconds[0] / seconds[1]:.0f} times the speed")


def made_texts(texts: Sequence[str], rng: random.Random) -> Iterator[str]:
    """Endless sentences as long as the real ones, of their words and of glued ones."""
    words, lengths = [word for text in texts for word in text.split()], [len(text.split()) for text in texts]
    while True:
        chosen = rng.choices(words, k=rng.choice(lengths))
        for i in range(len(chosen)):
            if rng.random() < 0.03:
                other = rng.choice(words)
                chosen[i] = chosen[i][:len(chosen[i]) // 2 + 1] + other[len(other) // 2:]
        yield " ".join(chosen)


def write_rows(rows: int, folder: Path) -> standard_artifacts.Examples:
    """Writes made pairs as the split train of an artifact, a file at a time."""
    rng, pairs = random.Random(1), real_pairs()
    sides = [made_texts([pair[side] for pair in pairs], rng) for side in (0, 1)]
    examples = standard_artifacts.Examples()
    examples.uri, examples.split_names = str(folder), artifact_utils.encode_split_names(["train"])
    (folder / "Split-train").mkdir(parents=True)
    for number in range(FILES):
        path = folder / "Split-train" / f"data_tfrecord-{number:05d}-of-{FILES:05d}.gz"
        with tf.io.TFRecordWriter(str(path), options="GZIP") as writer:
            for _ in range(number * rows // FILES, (number + 1) * rows // FILES):
                feature = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[next(side).encode()]))
                           for name, side in zip(("pt", "en"), sides, strict=True)}
                writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    return examples


def run(examples: standard_artifacts.Examples, size: int, rows: int, folder: Path) -> None:
    """Learns both vocabularies and prints seconds, rows a second and memory."""
    vocabulary = Vocabulary()
    vocabulary.uri = str(folder / "vocabulary")
    settings = {"data": {"text": "pt", "target": "en"}, "vocabulary": {
        "size": size, "joint": False, "lower_case": False, "normalization": "nfkc", "min_count": 1, "reserved": [],
        "max_characters": 1000}}
    context = BaseBeamExecutor.Context(beam_pipeline_args=[], tmp_dir=str(folder / "tmp"), unique_id="1")
    before, start, cpu = _peak(), time.perf_counter(), time.process_time()
    vocabulary_gen.Executor(context).Do({"examples": [examples]}, {"vocabulary": [vocabulary]},
                                        {"settings": json.dumps(settings)})
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    report = json.loads((folder / "vocabulary" / "report.json").read_text())
    for name, told in report.items():
        print(f"{vocabulary_gen.sentence(name, told)}; {told['words']:,} words, {told['learned_from']:,} different")
    print(f"{rows:,} pairs: {seconds:.0f} s, {rows / seconds:,.0f} pairs/s; {cpu:.0f} s of processor, "
          f"{rows / cpu:,.0f} pairs/s; peak memory {_peak():.2f} GB, {before:.2f} GB of it before")


def _peak() -> float:
    """The most memory that this process has had, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Compares the learners, then learns from many rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--size", type=int, default=8000)
    parser.add_argument("--skip-peer", action="store_true", help="tensorflow_text's learner takes minutes")
    options = parser.parse_args()
    if not all(path.is_file() for path in PAIRS):
        print(f"skipped: no {PAIRS[0]}; TEXTRAIL_SHARED names the folder of the larger texts")
        return
    if not options.skip_peer:
        compare(count([source for source, _ in real_pairs()]), options.size)
    run_beam_in_this_process()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run(write_rows(options.rows, folder / "examples"), options.size, options.rows, folder)


if __name__ == "__main__":
    main()
