"""From the section `beam` of the settings to options as Beam reads them. Imports nothing, so that settings can use it.

This is the one place that does so. The options reach Beam through `components/beam_runner.py`, never through TFX's
`beam_pipeline_args`: those would count for the cache, and have TFX pack a distribution of itself for each component.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# By its path: Beam 2.62 does not know it by its short name.
IN_THIS_PROCESS = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"

# Runners that are reached through a job server, and where it listens unless it was told otherwise.
ENDPOINTS = {"flink": "localhost:8099", "spark": "localhost:8099", "prism": "localhost:8073"}

# Environment of the workers → the key of `beam` that says where it is.
ENVIRONMENTS: dict[str, str] = {"LOOPBACK": "", "EXTERNAL": "worker_pool", "DOCKER": "image"}

# Beam's option → the key of `beam` that stands for it.
OWN = {
    "runner": "runner", "job_endpoint": "job_endpoint", "environment_type": "environment",
    "environment_config": "worker_pool or beam.image", "sdk_container_image": "image", "parallelism": "parallelism",
    "max_num_workers": "parallelism", "direct_num_workers": "parallelism", "sdk_worker_parallelism": "processes",
    "temp_location": "temp_location", "staging_location": "staging_location", "extra_package": "ship_code",
    "extra_packages": "ship_code", "setup_file": "ship_code"}

# Seconds that a call of the job server may take; a job itself may take as long as it does. Beam's own minute also
# ends jobs of Prism that take longer.
SERVER_SECONDS = 7 * 24 * 3600

# Beam would send a list of this machine's packages with every job, for the log: the one file for which the job server
# and all workers would have to share a folder.
NOTHING_STAGED = "disable_logging_submission_environment"


def is_here(endpoint: str | None) -> bool:
    """Whether a job server is on this machine; none stands for the default, which is."""
    return endpoint is None or endpoint.rsplit(":", 1)[0] in ("localhost", "127.0.0.1", "::1")


def environment_of(beam: Mapping[str, Any]) -> str | None:
    """Where the workers are: as the settings say, else what follows from the runner; none where that is not settled.

    `direct` has none, and Dataflow's workers are containers.
    """
    if beam["runner"] == "dataflow":
        return "DOCKER"
    if beam["runner"] not in ENDPOINTS:
        return None
    return beam["environment"] or ("LOOPBACK" if is_here(beam["job_endpoint"]) else None)


def without_a_server(runner: str) -> str:
    """Why a runner has no use for a job server, as the end of a sentence."""
    return "works in this process" if runner == "direct" else "starts its own workers"


def beam_arguments(beam: Mapping[str, Any]) -> list[str]:
    """The section `beam` as command-line arguments of Beam.

        >>> beam_arguments(Beam(runner="flink", parallelism=4).model_dump())
        ['--runner=PortableRunner', '--job_endpoint=localhost:8099', '--environment_type=LOOPBACK',
         '--parallelism=4', '--job_server_timeout=604800', '--experiments=disable_logging_submission_environment']

    Args:
        beam: validated, see `pipelines.beam_sections.Beam`.
    """
    runner, environment = beam["runner"], environment_of(beam)
    options: dict[str, Any] = {}
    if runner == "direct":
        options["runner"] = IN_THIS_PROCESS
        if (beam["parallelism"] or 1) > 1:
            options |= {"direct_num_workers": beam["parallelism"], "direct_running_mode": "multi_processing"}
    elif runner == "dataflow":
        options |= {"runner": "DataflowRunner", "sdk_container_image": beam["image"],
                    "max_num_workers": beam["parallelism"]}
    else:
        options |= {"runner": "PortableRunner", "job_endpoint": beam["job_endpoint"] or ENDPOINTS[runner],
                    "environment_type": environment}
        if environment in ("EXTERNAL", "DOCKER"):
            options |= {"environment_config": beam[ENVIRONMENTS[environment]],
                        "sdk_worker_parallelism": beam["processes"]}
        options |= {"parallelism": beam["parallelism"], "job_server_timeout": SERVER_SECONDS}
    options |= {key: beam[key] for key in ("temp_location", "staging_location")}
    options |= beam["options"]
    arguments = [f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items()
                 if value is not None and value is not False]
    return arguments + [f"--experiments={NOTHING_STAGED}"] * (runner in ENDPOINTS)
