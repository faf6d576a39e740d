"""The manifests of docs/cluster.md: what the operator's schema takes, and what agrees with all the rest."""

import re
import shlex
import zipfile
from pathlib import Path

import apache_beam
import jsonschema
import pytest
import yaml

from pipelines import cli, settings
from tests.cluster import cluster

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cluster.md").read_text("utf-8")
# What differs by the machines: a busy one is silent for longer.
THEIRS = {"taskmanager.numberOfTaskSlots", "heartbeat.timeout"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def manifests() -> dict[str, dict]:
    """Kind → manifest."""
    return {one["kind"]: one for block in blocks("yaml") for one in yaml.safe_load_all(block) if "kind" in one}


@pytest.fixture(scope="module")
def schema() -> dict:
    """What the operator takes for the `spec` of a FlinkDeployment; unknown keys are refused, as API servers do."""
    try:
        jar, = cluster.jars("flink-operator", "provided").glob("flink-kubernetes-operator-api-*.jar")
    except cluster.NoFlink as reason:
        pytest.skip(str(reason))
    with zipfile.ZipFile(jar) as opened:
        resource = yaml.safe_load(opened.read("META-INF/fabric8/flinkdeployments.flink.apache.org-v1.yml"))
    version, = resource["spec"]["versions"]
    assert (resource["spec"]["group"], version["name"]) == ("flink.apache.org", "v1beta1")
    return closed(version["schema"]["openAPIV3Schema"]["properties"]["spec"])


def closed(schema: dict) -> dict:
    """A schema whose objects have no keys but those that it names."""
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema = {"additionalProperties": False, **schema}
    return {key: {name: closed(one) for name, one in value.items()} if key == "properties"
            else closed(value) if isinstance(value, dict) else value for key, value in schema.items()}


def flat(config: dict, prefix: str = "") -> dict[str, str]:
    """Nested settings as Flink's old form has them: {"a": {"b": 1}} → {"a.b": "1"}."""
    return {name: found for key, value in config.items() for name, found in (
        flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": str(value)}).items()}


def test_the_operator_takes_the_deployment(manifests, schema):
    spec = manifests["FlinkDeployment"]["spec"]
    jsonschema.validate(spec, schema)
    wrong = {**spec, "taskManager": {**spec["taskManager"], "replica": 4}}
    with pytest.raises(jsonschema.ValidationError, match="'replica' was unexpected"):
        jsonschema.validate(wrong, schema)


def test_settings_of_flink_are_those_that_the_tests_run_with(manifests):
    told = manifests["FlinkDeployment"]["spec"]["flinkConfiguration"]
    run = flat(yaml.safe_load((cluster.HERE / "config.yaml").read_text()))
    assert {key: value for key, value in told.items() if key not in THEIRS}.items() <= run.items()


def test_names_ports_and_versions_agree(manifests):
    beam, flink = apache_beam.__version__, cluster.FLINK.get(apache_beam.__version__)
    deployment, server = manifests["FlinkDeployment"], manifests["Deployment"]
    service, spec = manifests["Service"], deployment["spec"]
    container, = server["spec"]["template"]["spec"]["containers"]
    arguments = dict(argument.removeprefix("--").split("=") for argument in container["args"])
    name, labels = service["metadata"]["name"], server["spec"]["template"]["metadata"]["labels"]
    assert arguments["flink-master"] == f"{deployment['metadata']['name']}-rest:8081"
    assert arguments["job-host"] == name
    assert service["spec"]["selector"] == server["spec"]["selector"]["matchLabels"] == labels
    ports = [int(arguments["job-port"]), int(arguments["artifact-port"])]
    assert [port["port"] for port in service["spec"]["ports"]] == ports
    assert [port["containerPort"] for port in container["ports"]] == ports
    if flink:   # Where Beam is the one that the page is about.
        assert spec["image"].startswith(f"flink:{flink}.") and spec["flinkVersion"] == f"v{flink.replace('.', '_')}"
        assert container["image"] == f"apache/beam_flink{flink}_job_server:{beam}"
        assert f"beam-runners-flink-{flink}-job-server-{beam}.jar" in PAGE

    run, = manifests["Job"]["spec"]["template"]["spec"]["containers"]
    place = settings.load(run["command"][2], cli._parser().parse_args(run["command"][1:]).overrides).beam
    _, pool = spec["taskManager"]["podTemplate"]["spec"]["containers"]
    assert place.job_endpoint == f"{name}:{arguments['job-port']}"
    assert place.worker_pool == f"localhost:{pool['command'][-1]}" and pool["image"] == run["image"]
    slots = int(spec["flinkConfiguration"]["taskmanager.numberOfTaskSlots"])
    assert place.parallelism == slots * spec["taskManager"]["replicas"] and place.processes == slots


def test_every_command_of_the_page_is_one():
    commands = [shlex.split(line) for block in blocks("console") for line in block.replace("\\\n", " ").splitlines()
                if line.startswith("textrail ")]
    beams = {}
    for command in commands:
        options = cli._parser().parse_args(command[1:])
        beam = [override for override in getattr(options, "overrides", []) if override.startswith("beam.")]
        beams[settings.load_beam({}, beam).runner] = command
    assert set(beams) == {"direct", "flink", "spark", "dataflow"}
