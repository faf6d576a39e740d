"""Rows a second, memory and bytes of reading, statistics and Transform on 1, 4 and 16 times the IMDB texts.

    python benchmarks/scale.py [--flink] [--times 1 4 16] [--repeats 3] [--set beam.KEY=VALUE …]

Each size is prepared by a process of its own: ExampleGen, StatisticsGen and TextTransform, in that process or where
`beam` says; `--flink` starts a Flink on this machine for it, the one of `tests/cluster`. Of a size the median time of
all repeats is told, and the most memory that the process ever had, as well as each part of that Flink; of its Python
workers, the largest. Memory is to stay within 1.3 times that of the smallest size, and the time, less that of a
thousand rows, which is start-up, within 1.05 times its multiple. Every copy of the texts has a word of its own, so that
no two rows are the same.
"""

import argparse
import contextlib
import csv
import gzip
import io
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from benchmarks import IMDB

START_ROWS = 1000   # What a run of so few takes is start-up.


def write_copies(texts: Path, copies: int, rows: int | None, folder: Path) -> tuple[int, int]:
    """Writes the table as often as asked for, a gzipped file each. Returns the number of rows and of bytes of text."""
    folder.mkdir()
    written = text_bytes = 0
    for copy in range(copies):
        with gzip.open(texts, "rt", encoding="utf-8", newline="") as source, \
                gzip.open(folder / f"{copy:02}.csv.gz", "wb", compresslevel=1) as target:
            out = csv.writer(io.TextIOWrapper(target, "utf-8", newline="", write_through=True))
            out.writerow(["review", "sentiment"])
            for row in itertools.islice(csv.DictReader(source), rows):
                text = f"copy{copy} {row['review']}"
                out.writerow([text, row["sentiment"]])
                written, text_bytes = written + 1, text_bytes + len(text.encode())
    return written, text_bytes


def prepare(folder: Path, beam: dict) -> None:
    """Runs the three components on `folder/in`; prints seconds of each, and this process's peak memory in MB."""
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2
    from tfx.components.statistics_gen.executor import Executor as StatisticsGen
    from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
    from tfx.types import standard_artifacts

    from benchmarks.transform import SCHEMA
    from components import example_gen, text_transform
    from components.artifacts import Encoder
    from components.beam_runner import make_pipeline
    from components.encoder_importer import import_encoder
    from pipelines.classification_sections import Data
    from pipelines.steps import STATISTICS

    kinds = {"examples": standard_artifacts.Examples, "schema": standard_artifacts.Schema, "encoder": Encoder,
             "statistics": standard_artifacts.ExampleStatistics, "transform_graph": standard_artifacts.TransformGraph,
             "transformed_examples": standard_artifacts.Examples}
    made = {}
    for name, kind in kinds.items():
        made[name] = [kind()]
        made[name][0].uri = str(folder / name)
    import_encoder("minilm", made["encoder"][0].uri)
    (folder / "schema").mkdir()
    (folder / "schema/schema.pbtxt").write_text(
        text_format.MessageToString(text_format.Parse(SCHEMA, schema_pb2.Schema())))
    data = Data(source="csv", path=str(folder / "in" / "*.csv.gz"), text="review", label="sentiment")
    columns = {"text": "review", "text_pair": None, "label": "sentiment"}
    steps = {
        "ExampleGen": (example_gen.Executor, [], ["examples"],
                       {"data": data.model_dump_json(exclude={"schema_file"}), "fingerprint": ""}),
        "StatisticsGen": (StatisticsGen, ["examples"], ["statistics"],
                          {"exclude_splits": "[]", "stats_options_json": STATISTICS.to_json()}),
        "TextTransform": (text_transform.Executor, ["examples", "schema", "encoder"],
                          ["transform_graph", "transformed_examples"],
                          {"preprocessing_fn": "modules.classifier.preprocessing_fn",
                           "settings": json.dumps({"data": columns, "max_length": 128})})}
    seconds = {}
    for name, (executor, inputs, outputs, properties) in steps.items():
        began = time.monotonic()
        context = BaseBeamExecutor.Context(
            tmp_dir=str(folder / "tmp"), unique_id="1",
            make_beam_pipeline_fn=lambda name=name: make_pipeline(beam, name, str(folder)))   # type: ignore[misc]
        executor(context).Do({key: made[key] for key in inputs}, {key: made[key] for key in outputs}, properties)
        seconds[name] = time.monotonic() - began
    written = {key: sum(path.stat().st_size for path in (folder / key).rglob("*") if path.is_file())
               for key in ("examples", "transformed_examples")}
    print(json.dumps({"seconds": seconds, "written": written, "peak": peak_mb(os.getpid())}))


def peak_mb(pid: int) -> int:
    """A process's peak memory in MB (10⁶ bytes), 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 // 10**6 for line in lines if line.startswith("VmHWM")), 0)


def resident_mb(pid: int) -> int:
    """A process's memory now, in MB (10⁶ bytes), 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 10**6
    except OSError:
        return 0


Processes = Callable[[], dict[str, list[int]]]   # Name → PIDs, as they are now.


class Watch(threading.Thread):
    """The largest memory of others while it runs; a process's own peak would count what was before."""

    def __init__(self, processes: Processes):
        super().__init__(daemon=True)
        self._processes, self.peaks, self._stopped = processes, {}, threading.Event()   # type: ignore[var-annotated]

    def run(self) -> None:
        while not self._stopped.wait(0.5):
            for name, pids in self._processes().items():
                self.peaks[name] = max([self.peaks.get(name, 0), *map(resident_mb, pids)])

    def stop(self) -> dict[str, int]:
        """Name → MB of its largest process."""
        self._stopped.set()
        self.join()
        return self.peaks


class Found(NamedTuple):
    """What preparing some rows took.

    Attributes:
        rows: how many.
        seconds: component → seconds.
        memory: process → MB.
        read: bytes of their text.
        written: artifact → bytes of its files.
    """

    rows: int
    seconds: dict[str, float]
    memory: dict[str, int]
    read: int
    written: dict[str, int]

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    def __str__(self) -> str:
        each = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds.items())
        memory = ", ".join(f"{name} {peak:,} MB" for name, peak in self.memory.items())
        written = ", ".join(f"{name} {size / self.rows:.0f}" for name, size in self.written.items())
        return (f"{self.rows:9,} rows  {self.total:7.1f} s  {self.rows / self.total:6,.0f} rows/s  ({each})\n"
                f"{'':16}bytes a row: text {self.read / self.rows:.0f}, {written}\n{'':16}{memory}")


def measure(texts: Path, copies: int, limit: int | None, overrides: list[str], others: Processes, repeats: int
            ) -> Found:
    """Has the rows prepared `repeats` times, each time in a new process. Times are medians, memory is the most."""
    found = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as temporary:
            rows, read = write_copies(texts, copies, limit, Path(temporary) / "in")
            watch = Watch(others)
            watch.start()
            command = [sys.executable, __file__, "--prepare", temporary]
            done = subprocess.run([*command, *(word for one in overrides for word in ("--set", one))],
                                  stdout=subprocess.PIPE, text=True, check=True)
            one = json.loads(done.stdout.splitlines()[-1])
            found.append(Found(rows, one["seconds"], {"its process": one["peak"]} | watch.stop(), read,
                               one["written"]))
    return found[0]._replace(
        seconds={name: statistics.median(one.seconds[name] for one in found) for name in found[0].seconds},
        memory={name: max(one.memory[name] for one in found) for name in found[0].memory})


def growth(start: Found, first: Found, found: Found) -> str:
    """How time and memory of `found` compare with those of `first`, the smallest size; `start` is start-up."""
    linear = (first.total - start.total) * (found.rows - start.rows) / (first.rows - start.rows)
    memory = {name: peak / max(first.memory[name], 1) for name, peak in found.memory.items()}
    return (f"{'':16}time beyond start-up : linear {(found.total - start.total) / linear:.2f}; memory : smallest "
            + ", ".join(f"{name} {ratio:.2f}" for name, ratio in memory.items()))


@contextlib.contextmanager
def flink() -> Iterator[tuple[list[str], Processes]]:
    """A Flink on this machine: the settings to reach it, and its processes.

    Raises:
        SystemExit: there can be none, of which the reason is printed.
    """
    from tests.cluster import cluster

    with tempfile.TemporaryDirectory() as folder:
        try:
            with cluster.started(Path(folder)) as running:
                yield ["beam.runner=flink", f"beam.job_endpoint={running.job_endpoint}", "beam.environment=EXTERNAL",
                       f"beam.worker_pool={running.worker_pool}", "beam.parallelism=2"], running.processes
        except cluster.NoFlink as reason:
            print(f"skipped: {reason}")
            raise SystemExit from reason


def main() -> None:
    """Prepares each size and prints its figures and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--flink", action="store_true")
    parser.add_argument("--data", type=Path, default=IMDB)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="beam.KEY=VALUE")
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    from pipelines import settings
    from pipelines.beam_sections import shown

    if options.prepare:
        prepare(options.prepare, settings.load_beam({}, options.overrides).model_dump())
        return
    if not options.data.is_file():
        print(f"skipped: no {options.data}; --data names a .csv.gz with the columns review and sentiment, "
              "TEXTRAIL_SHARED the folder of the larger texts")
        return
    with flink() if options.flink else contextlib.nullcontext(([], dict)) as (keys, others):
        overrides = [*keys, *options.overrides]
        print(f"{shown(settings.load_beam({}, overrides))}; {os.cpu_count()} cores", flush=True)
        measure(options.data, 1, START_ROWS, overrides, others, 1)   # The first jobs of a Java process are slow.
        start, first = measure(options.data, 1, START_ROWS, overrides, others, options.repeats), None
        print(start, flush=True)
        for copies in options.times:
            found = measure(options.data, copies, None, overrides, others, options.repeats)
            first = first or found
            print(found, growth(start, first, found), sep="\n", flush=True)
    seconds = (found.total - start.total) / (found.rows - start.rows)
    print(f"{start.total - seconds * start.rows:.1f} s, and {seconds * 1e6:.0f} s for each million rows")


if __name__ == "__main__":
    main()
