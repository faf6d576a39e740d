"""What is compiled, and what the checker refuses."""

import copy
from pathlib import Path

import pytest
import yaml

pytest.importorskip("kfp.pipeline_spec", reason="compiling for Kubeflow needs the extra `kubeflow`")

from kubeflow.checker import IMAGE, check
from kubeflow.compile import compile_run, write
from modules.errors import TextrailError
from pipelines import settings
from tests.pipelines.project import COMPONENTS

PLACE = ["kubeflow.volumes=[{claim: models, path: /mnt/models}]", "push.destination=/mnt/models/m"]
PODS = """{pods: {cpus: 0.5, memory_gb: 2.5, node_selector: {disk: fast}},
 components: {Trainer: {gpus: 2, gpu: amd.com/gpu, tolerations: [{key: gpu, effect: NoSchedule}], timeout_seconds: 3600,
                        retry_seconds: 10, retry_factor: 3},
              ExampleGen: {cache: false, retries: 1}},
 volumes: [{claim: models, path: /mnt/models}], pull_secrets: [registry], pull_policy: Always,
 secrets: [{name: store, keys: {AWS_ACCESS_KEY_ID: accesskey}}], environment: {AWS_ENDPOINT_URL: http://store:9000}}"""


def compiled(*overrides: str, run: str = "reviews", **options) -> list[dict]:
    loaded = settings.load(run, [*PLACE, *overrides])
    return compile_run(loaded, options.pop("name", run), options.pop("image", "registry/textrail:1"), **options)


@pytest.fixture(scope="module")
def plain() -> list[dict]:
    return compiled(pipeline_root="s3://bucket/runs/")


@pytest.fixture(scope="module")
def podded() -> list[dict]:
    return compiled(f"kubeflow={PODS}", "data.path=s3://texts/reviews.csv", cache=False)


def test_every_component_is_a_container_and_nothing_else(plain):
    spec = plain[0]
    assert spec["schemaVersion"] == "2.1.0" and spec["defaultPipelineRoot"] == "s3://bucket/runs"
    assert sorted(spec["root"]["dag"]["tasks"]) == sorted(["Lookup", *COMPONENTS])
    assert {tuple(one) for one in spec["deploymentSpec"]["executors"].values()} == {("container",)}
    container = spec["deploymentSpec"]["executors"]["exec-Pusher"]["container"]
    assert container["command"] == ["python", "-m", "kubeflow.entrypoint", "--component", "components.pusher.Pusher"]
    assert container["args"] == ["{{$}}"]


def test_what_lies_outside_is_looked_up_by_the_first_task(plain):
    tasks = plain[0]["root"]["dag"]["tasks"]
    assert tasks["Lookup"]["cachingOptions"] == {}
    for name, parameter, found in (
            ("ExampleGen", "fingerprint", "data"), ("SchemaGen", "fingerprint", "schema"),
            ("EncoderImporter", "fingerprint", "encoder"), ("ServedModel", "version", "baseline"),
            ("Pusher", "attempt", "attempt"), ("Pusher", "recipe", "recipe")):
        assert tasks[name]["inputs"]["parameters"][parameter] == {
            "taskOutputParameter": {"producerTask": "Lookup", "outputParameterKey": found}}
        assert "Lookup" in tasks[name]["dependentTasks"]
    assert "executor_code" in tasks["Trainer"]["inputs"]["parameters"]


def test_only_the_trainer_asks_for_a_gpu(plain):
    executors = plain[0]["deploymentSpec"]["executors"]
    asking = {name: one["container"]["resources"]["accelerator"] for name, one in executors.items()
              if "accelerator" in one["container"]["resources"]}
    assert asking == {"exec-Trainer": {"type": "nvidia.com/gpu", "count": 1}}


def test_settings_of_pods_stand_where_kubeflow_reads_them(podded):
    spec, platform = podded
    trainer = spec["deploymentSpec"]["executors"]["exec-Trainer"]["container"]
    assert trainer["resources"] == {"cpuRequest": 0.5, "memoryRequest": 2.5, "memoryLimit": 2.5,
                                    "accelerator": {"type": "amd.com/gpu", "count": 2}}
    assert trainer["env"] == [{"name": "AWS_ENDPOINT_URL", "value": "http://store:9000"}]
    tasks = spec["root"]["dag"]["tasks"]
    assert tasks["Trainer"]["retryPolicy"] == {"maxRetryCount": 2, "backoffDuration": "10s", "backoffFactor": 3,
                                               "backoffMaxDuration": "604800s"}
    assert "retryPolicy" not in tasks["Pusher"]
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert executors["exec-Trainer"] == {
        "pvcMount": [{"constant": "models", "mountPath": "/mnt/models"}],
        "secretAsEnv": [{"secretName": "store", "optional": False,
                         "keyToEnv": [{"envVar": "AWS_ACCESS_KEY_ID", "secretKey": "accesskey"}]}],
        "imagePullSecret": [{"secretName": "registry"}], "imagePullPolicy": "Always",
        "nodeSelector": {"labels": {"disk": "fast"}},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}], "activeDeadlineSeconds": 3600}
    assert "tolerations" not in executors["exec-Lookup"]


def test_without_the_cache_every_task_runs_and_the_model_is_a_new_one(podded):
    tasks = podded[0]["root"]["dag"]["tasks"]
    assert all(task["cachingOptions"] == {} for task in tasks.values())
    assert '"forced": true' in tasks["Lookup"]["inputs"]["parameters"]["request"]["runtimeValue"]["constant"]


def test_what_lies_in_a_store_is_imported_for_those_that_read_it(podded):
    spec = podded[0]
    assert spec["deploymentSpec"]["executors"]["exec-import-data-path"]["importer"]["artifactUri"] == {
        "constant": "s3://texts/reviews.csv"}
    reading = [name for name, task in spec["root"]["dag"]["tasks"].items()
               if "imported_data_path" in task.get("inputs", {}).get("artifacts", {})]
    assert reading == ["Lookup", "ExampleGen"]


def test_resources_make_nothing_new():
    def told(*overrides: str) -> dict:
        return compiled(*overrides)[0]["root"]["dag"]["tasks"]

    assert told() == told("kubeflow.pods={cpus: 3, memory_gb: 9}")


@pytest.mark.parametrize(("run", "overrides"), [("phrasebook", []), ("paraphrases", [])])
def test_other_shapes_compile(run, overrides):
    assert "Trainer" in compiled(*overrides, run=run)[0]["root"]["dag"]["tasks"]


def test_artifacts_may_stay_on_a_volume():
    spec = compiled(pipeline_root="/mnt/models/runs")[0]
    assert "defaultPipelineRoot" not in spec
    assert spec["deploymentSpec"]["executors"]["exec-Trainer"]["container"]["args"] == [
        "--root", "/mnt/models/runs", "{{$}}"]


def test_kfp_loads_what_is_written(podded, tmp_path):
    from kfp import components

    file = tmp_path / "reviews.yaml"
    write(podded, file)
    assert components.load_component_from_file(str(file)).component_spec.name == "reviews"
    assert list(yaml.safe_load_all(file.read_text("utf-8"))) == podded
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(("options", "sentence"), [
    ({"pipeline_root": "hdfs://a/b"}, r"expected --pipeline-root as s3://BUCKET/FOLDER, .* hdfs://a/b \(none of s3://"),
    ({"pipeline_root": "S3://a/b"}, r"received S3://a/b \(none of"),
    ({"pipeline_root": "s3:///"}, r"received s3:/// \(without a bucket's name\)\. Leave it out for the cluster's own"),
    ({"pipeline_root": "s3://b/x?region=eu"}, r"received s3://b/x\?region=eu \(with '\?'\)"),
    ({"pipeline_root": "s3://b/{{x}}"}, r"\(with '\{\{'\)"),
    ({"pipeline_root": "s3://b/../x"}, "with a part that is empty"),
    ({"pipeline_root": "/elsewhere"}, "received /elsewhere .* Leave it out"),
    ({"pipeline_root": "/mnt/models/../x"}, "a folder on one of kubeflow.volumes; received /mnt/models/../x"),
    ({"name": "Größe"}, "expected a run whose name Kubeflow takes: .*; received 'größe'. Rename its settings file"),
    ({"name": "a..b"}, "received 'a..b'"), ({"name": "_a"}, "received '-a'"), ({"name": "x" * 64}, "up to 63 letters"),
    ({"image": ""}, "expected --image as registries name them, in lower case: .*; received ''. Correct it"),
    ({"image": "Registry/Textrail:1"}, "received 'Registry/Textrail:1'"),
    ({"image": "https://registry/textrail:1"}, "expected --image"), ({"image": "a b"}, "expected --image"),
    ({"image": "a:b:c"}, "expected --image"), ({"image": "r/t@sha256:12"}, "expected --image"),
])
def test_a_bad_place_name_or_image_is_refused(options, sentence):
    with pytest.raises(TextrailError, match=sentence):
        compiled(**options)


@pytest.mark.parametrize("image", ["textrail", "registry:5000/a/textrail:1.2_x-y", f"r.example/t:1@sha256:{'0' * 64}"])
def test_images_are_named_as_registries_do(image):
    assert IMAGE.fullmatch(image)


def test_artifacts_may_go_to_a_whole_bucket():
    assert compiled(pipeline_root="gs://b//")[0]["defaultPipelineRoot"] == "gs://b"


def test_data_beside_the_pipeline_root_with_the_same_beginning_is_refused():
    """The launcher compares beginnings without the slash, hence would look for s3://b/runs/-data/a.csv."""
    with pytest.raises(TextrailError, match=r"expected data\.path under --pipeline-root, or of another beginning"):
        compiled("data.path=s3://b/runs-data/a.csv", pipeline_root="s3://b/runs")


def test_settings_of_an_unknown_component_are_refused():
    with pytest.raises(TextrailError, match=r"received Trianer\. Did you mean Trainer"):
        compiled("kubeflow.components={Trianer: {gpus: 0}}")


def refused(documents: list[dict], change, sentence: str) -> None:
    changed = copy.deepcopy(documents)
    change(changed[0], changed[0]["deploymentSpec"]["executors"], changed[0]["root"]["dag"]["tasks"])
    with pytest.raises(TextrailError, match=sentence):
        check(changed)


def test_the_checker_names_component_and_reason(plain):
    def resolver(spec, executors, tasks):
        executors["exec-ServedModel"] = {"resolver": {}}

    def driver(spec, executors, tasks):
        executors["exec-ExampleGen"]["container"]["lifecycle"] = {"preCacheCheck": {}}

    def old_type(spec, executors, tasks):
        spec["components"]["comp-Pusher"]["inputDefinitions"]["parameters"]["keep"] = {"type": "INT"}

    def name(spec, executors, tasks):
        inputs = spec["components"]["comp-Pusher"]["inputDefinitions"]["parameters"]
        given = tasks["Pusher"]["inputs"]["parameters"]
        inputs["no-name"], given["no-name"] = inputs.pop("keep"), given.pop("keep")

    def image(spec, executors, tasks):
        executors["exec-Trainer"]["container"]["image"] = "Registry Of Mine"

    def order(spec, executors, tasks):
        tasks["Trainer"]["dependentTasks"].remove("TextTransform")

    def placeholder(spec, executors, tasks):
        tasks["RunReport"]["inputs"]["parameters"]["run"]["runtimeValue"]["constant"] = "{{workflow.name}}"

    def version(spec, executors, tasks):
        spec["schemaVersion"] = "2.0.0"

    def bucket(spec, executors, tasks):
        spec["defaultPipelineRoot"] = "s3://"

    def unknown(spec, executors, tasks):
        tasks["Trainer"]["priority"] = 3

    refused(plain, resolver, "ServedModel: a resolver executor; open-source Kubeflow runs containers and importers")
    refused(plain, driver, r"ExampleGen: a lifecycle hook \(a custom driver\), which Kubeflow ignores")
    refused(plain, old_type, "Pusher: the parameter keep has no parameterType")
    refused(plain, name, "Pusher: Kubeflow takes letters, digits and '_' .* not 'no-name'")
    refused(plain, image, "Trainer: the image 'Registry Of Mine' is no name of an image")
    refused(plain, order, "Trainer: the input .* is made by TextTransform, which is not among dependentTasks")
    refused(plain, placeholder, "RunReport: the parameter run has '{{', which Argo")
    refused(plain, version, "schemaVersion '2.0.0', Kubeflow takes 2.1.0 only")
    refused(plain, bucket, r"defaultPipelineRoot 's3://' \(without a bucket's name\)")
    refused(plain, unknown, 'the pipeline against Kubeflow\'s schema: .*"priority"')


@pytest.mark.parametrize("out", ["nowhere/reviews.yaml", "folder"])
def test_a_file_that_cannot_be_written_leaves_nothing(plain, tmp_path, out):
    (tmp_path / "folder").mkdir()
    with pytest.raises(TextrailError, match=rf"expected a file that can be written; received .*{out} \(.*--out"):
        write(plain, tmp_path / out)
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


def test_the_command_writes_the_file(tmp_path, capfd, monkeypatch):
    from pipelines import cli

    monkeypatch.chdir(tmp_path)
    told = [*PLACE, "push.destination=s3://models/reviews"]
    status = cli.main(["kubeflow", "compile", "reviews", "--image", "textrail:1",
                       *(word for one in told for word in ("--set", one))])
    assert status == 0
    spec = next(yaml.safe_load_all(Path("reviews.kubeflow.yaml").read_text("utf-8")))
    assert spec["pipelineInfo"]["name"] == "reviews"
    said = capfd.readouterr().out
    assert "Trainer asks for 1 nvidia.com/gpu" in said
    assert "push.destination=s3://models/reviews: nothing in kubeflow.secrets or kubeflow.environment gives" in said
