"""A Flink for all tests of this folder; where there can be none, they are skipped with the reason."""

from pathlib import Path

import pytest

from tests.cluster import cluster


@pytest.fixture(scope="module")
def flink(tmp_path_factory):
    if reason := cluster.missing():
        pytest.skip(reason)
    lib = Path(__file__).parents[2] / "build" / "flink"
    lib.mkdir(parents=True, exist_ok=True)
    try:
        jars = cluster.jars(lib)
    except RuntimeError as error:
        pytest.skip(str(error))
    running = cluster.Flink(jars, tmp_path_factory.mktemp("flink"))
    try:
        running.start()
        yield running
    finally:
        running.stop()
