"""Steps that every shape takes, with the options that all pipelines give them."""

import os
from pathlib import Path

import pytest
import tensorflow as tf
from tfx.components.statistics_gen import stats_artifact_utils
from tfx.components.statistics_gen.executor import Executor
from tfx.components.util import examples_utils
from tfx.proto import example_gen_pb2
from tfx.types import standard_artifacts

from components.schema_gen import label_counts
from pipelines.steps import STATISTICS
from tests.components.transforming import example


def memory(name: str) -> int:
    """This process's memory in bytes: VmRSS now, VmHWM the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))


def statistics_of(folder: Path, files: int, rows: int, text_bytes: int) -> standard_artifacts.ExampleStatistics:
    """Statistics of texts none of which is like another, `rows` a file, every third of them labelled `bad`."""
    examples, statistics = standard_artifacts.Examples(), standard_artifacts.ExampleStatistics()
    examples.uri, statistics.uri = str(folder / "examples"), str(folder / "statistics")
    examples.split_names = '["train"]'
    examples_utils.set_payload_format(examples, example_gen_pb2.FORMAT_TF_EXAMPLE)
    examples_utils.set_file_format(examples, "tfrecords_gzip")
    (folder / "examples" / "Split-train").mkdir(parents=True)
    for number in range(files):
        path = folder / "examples" / "Split-train" / f"data_tfrecord-{number:05d}-of-{files:05d}.gz"
        with tf.io.TFRecordWriter(str(path), options=tf.io.TFRecordOptions("GZIP", compression_level=1)) as writer:
            for row in range(rows):
                writer.write(example(text=f"{number} {row} ".ljust(text_bytes, "x"),
                                     stars="good" if row % 3 else "bad"))
    Executor().Do({"examples": [examples]}, {"statistics": [statistics]},
                  {"exclude_splits": "[]", "stats_options_json": STATISTICS.to_json()})
    return statistics


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="no peak of memory is told here")
def test_statistics_of_a_large_text_need_little_memory(tmp_path):
    """TFDV's default brings each value of a column together, and so held four times all of the texts."""
    statistics_of(tmp_path / "small", 1, 10, 10)   # What is imported and begun once does not count.
    Path("/proc/self/clear_refs").write_text("5")   # The peak is from now on.
    before = memory("VmRSS")
    statistics = statistics_of(tmp_path / "large", 20, 1000, 20_000)   # 400 MB
    assert memory("VmHWM") - before < 400e6
    assert label_counts(stats_artifact_utils.load_statistics(statistics, "train").proto(), "stars") == {
        "bad": 6680, "good": 13320}
