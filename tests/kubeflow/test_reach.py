"""Which paths of a run's settings containers can read."""

import pytest

from kubeflow.reach import brought, in_containers
from modules.errors import TextrailError
from pipelines import settings

VOLUME = ["kubeflow.volumes=[{claim: models, path: /mnt/models}]", "push.destination=/mnt/models/reviews"]


def load(*overrides: str, run: str = "reviews"):
    return settings.load(run, [*VOLUME, *overrides], check_files=False)


def test_the_projects_own_files_lie_where_the_image_has_them():
    told = in_containers(load())
    assert told.data.path["train"] == "/opt/textrail/data/reviews/train.csv"
    assert told.encoder.source == "minilm"


def test_what_nobody_set_stays_unset():
    told = in_containers(load("kubeflow.pods={memory_gb: 9}", "kubeflow.components={Trainer: {cpus: 2}}"))
    assert (told.kubeflow.pod("Trainer").memory_gb, told.kubeflow.pod("Trainer").cpus) == (9, 2)
    assert (told.kubeflow.pod("Trainer").gpus, told.kubeflow.pod("Pusher").gpus) == (1, 0)


def test_a_pattern_in_a_store_is_brought_with_its_folder():
    told = in_containers(load("data.path=s3://texts/reviews/part-*.csv", "encoder.source=hf://owner/name"))
    assert brought(told) == {"data.path": "s3://texts/reviews"}
    told = in_containers(load("data.path={train: s3://a/t.csv, validation: /mnt/models/v.csv}"))
    assert brought(told) == {"data.path.train": "s3://a/t.csv"}


@pytest.mark.parametrize(("override", "sentence"), [
    ("data.path=/home/me/reviews.csv", "expected data.path where containers reach it: .*; received /home/me/reviews"),
    ("data.path=hdfs://a/b.csv", r"expected data.path in a store that Kubeflow reads \(s3://, minio://, gs://\)"),
    ("data.schema_file=/home/me/schema.pbtxt", "expected data.schema_file where containers reach it"),
    ("encoder.source=/home/me/bert", "expected encoder.source where containers reach it"),
    ("push.destination=/home/me/pushed", "expected push.destination on one of kubeflow.volumes"),
    ("push.destination=null", "received none. For example --set push.destination="),
    ("push.destination=/mnt/models-2/x", "expected push.destination on one of kubeflow.volumes"),
    ("push.destination=ftp://a/b", "expected push.destination on one of kubeflow.volumes"),
    ("kubeflow.checkpoints=/tmp/x", "expected kubeflow.checkpoints on one of kubeflow.volumes"),
    ("beam.runner=flink", "expected no section `beam` of a run on Kubeflow, .*; received beam.runner=flink"),
    ("training.strategy=multi_worker", "expected a training.strategy of one process on Kubeflow"),
])
def test_what_no_container_reaches_is_refused(override, sentence):
    with pytest.raises(TextrailError, match=sentence):
        in_containers(load(override))
