"""A Flink for all tests of this folder; where there can be none, they are skipped with the reason."""

import pytest

from tests.cluster import cluster


@pytest.fixture(scope="module")
def flink(tmp_path_factory):
    try:
        with cluster.started(tmp_path_factory.mktemp("flink")) as running:
            yield running
    except cluster.NoFlink as reason:
        pytest.skip(str(reason))
