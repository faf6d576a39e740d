"""Where Beam's work is done: what cannot work together is refused with the reason, and the rest becomes options."""

import subprocess
import sys
import zipfile

import pytest
from pydantic import ValidationError

from components.beam_options import beam_arguments
from pipelines.beam_sections import Beam, shown

IMAGE = "registry/textrail:1"
UNSTAGED = "--experiments=disable_logging_submission_environment"
DATAFLOW = {"runner": "dataflow", "image": IMAGE, "temp_location": "gs://mine/temp",
            "options": {"project": "mine", "region": "europe-west1"}}


@pytest.mark.parametrize("keys, arguments", [
    ({}, ["--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"]),
    ({"parallelism": 3}, ["--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner",
                          "--direct_num_workers=3", "--direct_running_mode=multi_processing"]),
    ({"runner": "flink", "parallelism": 4},
     ["--runner=PortableRunner", "--job_endpoint=localhost:8099", "--environment_type=LOOPBACK", "--parallelism=4",
      "--job_server_timeout=604800", UNSTAGED]),
    ({"runner": "flink", "job_endpoint": "cluster:8099", "environment": "EXTERNAL", "worker_pool": "localhost:50000",
      "processes": 0, "options": {"artifact_endpoint": "cluster:8098", "fast": True, "slow": False}},
     ["--runner=PortableRunner", "--job_endpoint=cluster:8099", "--environment_type=EXTERNAL",
      "--environment_config=localhost:50000", "--sdk_worker_parallelism=0", "--job_server_timeout=604800",
      "--artifact_endpoint=cluster:8098", "--fast", UNSTAGED]),
    ({"runner": "spark", "environment": "DOCKER", "image": IMAGE, "temp_location": "/mnt/temp"},
     ["--runner=PortableRunner", "--job_endpoint=localhost:8099", "--environment_type=DOCKER",
      f"--environment_config={IMAGE}", "--sdk_worker_parallelism=1", "--job_server_timeout=604800",
      "--temp_location=/mnt/temp", UNSTAGED]),
    ({"runner": "prism"}, ["--runner=PortableRunner", "--job_endpoint=localhost:8073", "--environment_type=LOOPBACK",
                           "--job_server_timeout=604800", UNSTAGED]),
    ({**DATAFLOW, "parallelism": 20},
     ["--runner=DataflowRunner", f"--sdk_container_image={IMAGE}", "--max_num_workers=20",
      "--temp_location=gs://mine/temp", "--project=mine", "--region=europe-west1"]),
])
def test_settings_become_options(keys, arguments):
    assert beam_arguments(Beam(**keys).model_dump()) == arguments


@pytest.mark.parametrize("keys, problem", [
    ({"job_endpoint": "localhost:8099"}, "no `beam.job_endpoint` with runner direct, which works in this process"),
    ({**DATAFLOW, "environment": "DOCKER"}, "no `beam.environment` with runner dataflow, which starts"),
    ({"runner": "flink", "job_endpoint": "cluster:8099"}, r"machine \(cluster:8099\), received none; say EXTERN"),
    ({"runner": "flink", "job_endpoint": "cluster:8099", "environment": "LOOPBACK"}, "which is not this machine there"),
    ({"runner": "flink", "job_endpoint": "cluster"}, "HOST:PORT, such as localhost:8099, received 'cluster'"),
    ({"runner": "spark", "environment": "EXTERNAL"}, "`beam.worker_pool` with environment EXTERNAL, received none"),
    ({"runner": "spark", "environment": "DOCKER"}, "`beam.image` .*has neither TensorFlow nor this project"),
    ({"runner": "flink", "image": IMAGE}, "`beam.image` with environment DOCKER alone, received .* with LOOPBACK"),
    ({"runner": "flink", "ship_code": True}, "LOOPBACK, whose workers install nothing"),
    ({"runner": "spark", "parallelism": 2}, "no `beam.parallelism` with runner spark, received 2"),
    ({"processes": 2}, "`beam.processes` 1 with direct, received 2"),
    ({"runner": "flink", "staging_location": "gs://mine/x"}, "with dataflow alone, received 'gs://mine/x' with flink"),
    ({"temp_location": "/tmp"}, "no `beam.temp_location` with runner direct"),
    ({"runner": "flink", "temp_location": "temp"}, "since a relative path is another one on every machine"),
    ({**DATAFLOW, "options": {"project": "mine"}}, "`beam.options.region` with runner dataflow, received none"),
    ({**DATAFLOW, "temp_location": None}, r"`beam.temp_location` in Google's storage \(gs://…\).*received none"),
    ({**DATAFLOW, "staging_location": "/tmp"}, "`beam.staging_location` in Google's storage .*received /tmp"),
    ({"options": {"runner": "FlinkRunner"}}, "`beam.runner` in place of the option runner"),
    ({"options": {"--project": "mine"}}, "names of options as Beam writes them, without dashes"),
])
def test_what_cannot_work_is_refused_with_the_reason(keys, problem):
    with pytest.raises(ValidationError, match=problem):
        Beam(**keys)


def test_a_person_reads_where():
    assert shown(Beam()) == "direct"
    assert shown(Beam(runner="flink")) == "flink at localhost:8099, workers LOOPBACK"


def test_shipped_code_is_this_code_and_can_be_imported(tmp_path):
    from components.beam_runner import code_package

    path = code_package()
    assert code_package() == path, "packed once"
    code = ("import sys; sys.path.insert(0, sys.argv[1]); import modules.errors as e, pipelines.settings as s; "
            "print(e.__file__, len(s.ready_made()) > 3)")
    with zipfile.ZipFile(path) as wheel:
        assert "Requires-Dist" not in wheel.read("textrail-0.dist-info/METADATA").decode()
        wheel.extractall(tmp_path)
    told = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True,
                          check=True).stdout
    assert told == f"{tmp_path}/modules/errors.py True\n"
