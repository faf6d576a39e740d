"""Rows a second, memory and bytes of reading, statistics and Transform on 1, 4 and 16 times the IMDB texts.

    python benchmarks/scale.py [--times 1 4 16] [--set beam.KEY=VALUE …]

Each size is prepared by a process of its own: ExampleGen, StatisticsGen and TextTransform, where `beam` says (default:
in that process; for a Flink on this machine `--set beam.runner=flink`). Memory is the peak of that process and, with
`--watch PID …`, of others such as Flink's. It is to stay within 1.3 times that of the smallest size, and the time, less
what a thousand rows take, within 1.05 times its multiple. Every copy of the texts has a word of its own, so that no
two rows are the same.
"""

import argparse
import csv
import gzip
import io
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from benchmarks import IMDB

START_ROWS = 1000   # What a run of so few takes is start-up.


def write_copies(texts: Path, copies: int, rows: int | None, folder: Path) -> int:
    """Writes the table as often as asked for, a gzipped file each. Returns the number of rows."""
    folder.mkdir()
    written = 0
    for copy in range(copies):
        with gzip.open(texts, "rt", encoding="utf-8", newline="") as source, \
                gzip.open(folder / f"{copy:02}.csv.gz", "wb", compresslevel=1) as target:
            out = csv.writer(io.TextIOWrapper(target, "utf-8", newline="", write_through=True))
            out.writerow(["review", "sentiment"])
            for row in itertools.islice(csv.DictReader(source), rows):
                out.writerow([f"copy{copy} {row['review']}", row["sentiment"]])
                written += 1
    return written


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
        "StatisticsGen": (StatisticsGen, ["examples"], ["statistics"], {"exclude_splits": "[]"}),
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
    written = sum(path.stat().st_size for key in ("examples", "transformed_examples")
                  for path in (folder / key).rglob("*") if path.is_file())
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


class Watch(threading.Thread):
    """The largest memory of processes while it runs; a process's own peak would count what was before."""

    def __init__(self, pids: Sequence[int]):
        super().__init__(daemon=True)
        self.peaks, self._stopped = dict.fromkeys(pids, 0), threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(0.5):
            self.peaks = {pid: max(peak, resident_mb(pid)) for pid, peak in self.peaks.items()}

    def stop(self) -> dict[int, int]:
        """PID → MB."""
        self._stopped.set()
        self.join()
        return self.peaks


def main() -> None:
    """Prepares each size and prints its figures and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--data", type=Path, default=IMDB)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="beam.KEY=VALUE")
    parser.add_argument("--watch", type=int, nargs="*", default=[], metavar="PID")
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.data.is_file():
        print(f"skipped: no {options.data}; --data names a .csv.gz with the columns review and sentiment, "
              "TEXTRAIL_SHARED the folder of the larger texts")
        return
    from pipelines import settings
    from pipelines.beam_sections import shown

    beam = settings.load_beam({}, options.overrides)
    if options.prepare:
        prepare(options.prepare, beam.model_dump())
        return
    print(f"{shown(beam)}; {os.cpu_count()} cores")
    start = first = None
    for copies, limit in [(1, START_ROWS), *((copies, None) for copies in options.times)]:
        with tempfile.TemporaryDirectory() as temporary:
            rows = write_copies(options.data, copies, limit, Path(temporary) / "in")
            watch = Watch(options.watch)
            watch.start()
            command = [sys.executable, __file__, "--prepare", temporary, "--data", str(options.data)]
            done = subprocess.run([*command, *(word for one in options.overrides for word in ("--set", one))],
                                  stdout=subprocess.PIPE, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            others = watch.stop()
        total = sum(found["seconds"].values())
        each = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in found["seconds"].items())
        memory = ", ".join(f"{peak:,} MB" for peak in (found["peak"], *others.values()))
        print(f"{rows:9,} rows  {total:7.1f} s  {rows / total:7.0f} rows/s  memory {memory}  "
              f"{found['written'] / rows:6.0f} bytes a row  ({each})", flush=True)
        if start is None:
            start = total
        elif first is None:
            first = rows, total - start, [found["peak"], *others.values()]
        else:
            linear = first[1] * rows / first[0]
            grown = max(now / max(then, 1) for now, then in zip([found["peak"], *others.values()], first[2],
                                                                strict=True))
            print(f"{'':14} time beyond start-up : linear {(total - start) / linear:.2f}, "
                  f"memory : smallest {grown:.2f}")


if __name__ == "__main__":
    main()
