"""Which paths of a run's settings containers can read."""

import pytest

from kubeflow.reach import brought, hints, in_containers
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
    ("data.path=s3://texts", r"as s3://BUCKET/FILE; received s3://texts \(a bucket, and nothing in it\)"),
    ("data.path=s3://texts/*.csv", r"received s3://texts/\*.csv \(a bucket, and nothing in it\)"),
    ("data.path=s3:///a.csv", r"received s3:///a.csv \(without a bucket's name\)"),
    ("data.path=minio://*/a.csv", r"received minio://\*/a.csv \(without a bucket's name\)"),
    ("data.path=S3://texts/a.csv", r"received S3://texts/a.csv \(none of s3://"),
    ("data.path=/mnt/models/../a.csv", "expected data.path where containers reach it"),
    ("encoder.source=s3://", r"expected encoder.source in a store .* \(without a bucket's name\)"),
    ("data.schema_file=/home/me/schema.pbtxt", "expected data.schema_file where containers reach it"),
    ("encoder.source=/home/me/bert", "expected encoder.source where containers reach it"),
    ("push.destination=/home/me/pushed", "expected push.destination on one of kubeflow.volumes"),
    ("push.destination=null", "received none. For example --set push.destination="),
    ("push.destination=/mnt/models-2/x", "expected push.destination on one of kubeflow.volumes"),
    ("push.destination=ftp://a/b", "expected push.destination on one of kubeflow.volumes"),
    ("push.destination=/mnt/models/../x", "expected push.destination on one of kubeflow.volumes"),
    ("push.destination=s3://models", r"received s3://models \(a bucket, and nothing in it\). For example"),
    ("push.destination=s3://models/m?x=1", r"\(with '\?'\)"),
    ("push.destination=minio://models/m", "expected the address of the store of push.destination=minio://models/m"),
    ("kubeflow.checkpoints=/tmp/x", "expected kubeflow.checkpoints on one of kubeflow.volumes"),
    ("beam.runner=flink", "expected no section `beam` of a run on Kubeflow, .*; received beam.runner=flink"),
    ("training.strategy=multi_worker", "expected a training.strategy of one process on Kubeflow"),
])
def test_what_no_container_reaches_is_refused(override, sentence):
    with pytest.raises(TextrailError, match=sentence):
        in_containers(load(override))


def test_half_of_the_credentials_is_refused():
    half = "kubeflow.secrets=[{name: store, keys: {AWS_ACCESS_KEY_ID: accesskey}}]"
    with pytest.raises(TextrailError, match="or neither of both; received only AWS_ACCESS_KEY_ID"):
        in_containers(load("push.destination=s3://models/m", half))


def test_what_the_cluster_may_lack_is_told():
    keys = "kubeflow.environment={AWS_ACCESS_KEY_ID: a, AWS_SECRET_ACCESS_KEY: b}"
    store, data = "push.destination=s3://models/m", "data.path=s3://texts/a.csv"
    assert hints(load(data), "") == hints(load(data), "s3://texts/runs") == []
    assert hints(load(store, data, keys), "s3://runs") == []
    pushed, read = hints(load(store, data), "s3://runs")
    assert pushed.startswith("push.destination=s3://models/m: nothing in kubeflow.secrets or kubeflow.environment")
    assert read.startswith("data.path=s3://texts/a.csv: another bucket than that of --pipeline-root")


@pytest.mark.parametrize(("override", "sentence"), [
    ("volumes=[{claim: a, path: /mnt/a}, {claim: b, path: /mnt/a/}]", "the path /mnt/a among the volumes once"),
    ("volumes=[{claim: a, path: /mnt/a}, {claim: a, path: /mnt/b}]", "the claim a among the volumes once"),
    ("volumes=[{claim: a.b, path: /mnt/a}]", "expected a claim's name of at most 63 .*; received 'a.b'"),
    ("volumes=[{claim: a, path: mnt/a}]", "expected an absolute path without colons"),
    ("volumes=[{claim: a, path: '/mnt/a:b'}]", "expected an absolute path without colons"),
    *((f"volumes=[{{claim: a, path: {path}}}]", f"received '{path}', which would hide {taken}, or lie in it")
      for path, taken in (("/", "/gcs"), ("/tmp", "/tmp/kfp_outputs"), ("/opt", "/opt/textrail"), ("//s3/b", "/s3"),
                          ("/opt/venv/lib", "/opt/venv"), ("/mnt/../usr", "/usr"))),
    ("environment={A=B: x}", "kubeflow.environment.A=B .*expected the name of an environment variable"),
    ("environment={A: 3}", "kubeflow.environment.A .*expected a text; received 3. Put quotes"),
    ("environment={A: '{{x}}'}", "expected a text without '{{', which Argo"),
    ("secrets=[{name: s, keys: {1A: a}}]", "kubeflow.secrets.0.keys.1A .*expected the name of an environment variable"),
    ("secrets=[{name: s, keys: {A: 'a b'}}]", "expected a key of a Secret"),
    ("secrets=[{name: s, keys: {A: x}}, {name: t, keys: {A: y}}]", "the variable A among environment and secrets once"),
    ("pods.gpu=''", "kubeflow.pods.gpu .*expected a name as Kubernetes has them"),
    ("pods.node_selector={a: 'b c'}", "kubeflow.pods.node_selector.a .*expected a label's value"),
    ("pods.tolerations=[{key: a, value: x}]", "expected no value with operator Exists; received 'x'; say `operator"),
    ("pods.tolerations=[{operator: Equal, value: x}]", "expected a key with operator Equal"),
    ("pods.tolerations=[{key: a, seconds: 3}]", "expected seconds with effect NoExecute alone"),
])
def test_what_kubernetes_would_refuse_when_a_pod_is_to_start_is_refused_before(override, sentence):
    with pytest.raises(TextrailError, match=sentence):
        load(f"kubeflow.{override}")
