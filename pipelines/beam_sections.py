"""The settings that say where Beam's work is done: the same for every shape, and part of no model's recipe."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from components.beam_options import (
    ENDPOINTS,
    ENVIRONMENTS,
    OWN,
    environment_of,
    is_here,
    without_a_server,
)
from pipelines.section import Section


def _address(value: str) -> str:
    if not re.fullmatch(r"[^\s/:]+:\d{1,5}", value):
        raise ValueError(f"HOST:PORT, such as localhost:8099, received {value!r}")
    return value


def _location(value: str) -> str:
    if not re.match(r"/|\w[\w+.-]*://", value):
        raise ValueError(f"an absolute path or a URI, since a relative path is another one on every machine, "
                         f"received {value!r}")
    return value


Address = Annotated[str, AfterValidator(_address)]
Location = Annotated[str, AfterValidator(_location)]


class Beam(Section):
    runner: Literal["direct", "flink", "spark", "dataflow", "prism"] = Field(
        "direct", description="What does the data work: `direct` this machine, in the run's own process; `flink`, "
        "`spark` and `prism` through Beam's job server; `dataflow` Google's service. `--beam RUNNER` is short for it.")
    job_endpoint: Address | None = Field(
        None, description="`flink`, `spark`, `prism`: HOST:PORT of Beam's job server; none is `localhost:8099`, of "
        "Prism `localhost:8073`.")
    environment: Literal["LOOPBACK", "EXTERNAL", "DOCKER"] | None = Field(
        None, description="`flink`, `spark`, `prism`: where the Python workers are. `LOOPBACK` is the run's own "
        "process, for a job server on this machine; `EXTERNAL` a pool of workers beside each machine of the cluster "
        "(`textrail workers`); `DOCKER` a container of `beam.image`. None is `LOOPBACK` where the job server is on "
        "this machine, otherwise it must be said.")
    worker_pool: Address | None = Field(
        None, description="`EXTERNAL`: HOST:PORT of the pool as the cluster's machines reach it; `localhost:50000` "
        "where each has its own.")
    image: str | None = Field(
        None, description="`DOCKER` and `dataflow`: container image with this project's environment.")
    ship_code: bool = Field(
        False, description="`DOCKER` and `dataflow`: send this very code to the workers, over what the image has.")
    parallelism: Annotated[int, Field(ge=1)] | None = Field(
        None, description="`flink`: tasks at a time; `dataflow`: most machines; `direct`: processes, of which one is "
        "fastest on a few cores. None leaves it to the cluster; of `direct` it is one.")
    processes: int = Field(
        1, ge=0, description="`flink`, `spark` with `EXTERNAL` or `DOCKER`: Python processes beside each machine's "
        "tasks; 0 leaves it to the runner.")
    retries: int = Field(
        0, ge=0, description="How often a component whose job failed, though not for a row or a setting, begins again. "
        "What a cluster itself tries again is the cluster's setting, see `docs/cluster.md`.")
    artifacts: Location | None = Field(
        None, description="Folder or URI that this machine and all workers reach, for what the components make; none "
        "is the run's workspace.")
    temp_location: Location | None = Field(
        None, description="Where the runner keeps temporary files; `dataflow` needs it.")
    staging_location: Location | None = Field(
        None, description="`dataflow`: where code for the workers is put; none is below `beam.temp_location`.")
    preflight_seconds: float = Field(
        60, ge=0, description="How long the first, small job may take that looks whether workers start, have the same "
        "code and versions, and reach the run's files; 0 goes without it.")
    options: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="Further options of Beam's runner, such as `{project: mine, region: "
        "europe-west1}` of `dataflow` or `{artifact_endpoint: 'localhost:8098'}`.")

    @model_validator(mode="after")
    def _can_work(self) -> Beam:
        if problem := next(_problems(self), None):
            raise ValueError(problem)
        return self


def _problems(beam: Beam) -> Iterator[str]:
    """What cannot work together, and why."""
    runner, values = beam.runner, beam.model_dump()
    served = runner in ENDPOINTS
    for key in ("job_endpoint", "environment", "worker_pool"):
        if not served and values[key] is not None:
            yield f"no `beam.{key}` with runner {runner}, which {without_a_server(runner)}, received {values[key]!r}"
    environment = environment_of(values)
    if served and environment is None:
        yield (f"`beam.environment` with a job server on another machine ({beam.job_endpoint}), received none; say "
               "EXTERNAL or DOCKER")
    if environment == "LOOPBACK" and served and not is_here(beam.job_endpoint):
        yield (f"environment EXTERNAL or DOCKER with the job server {beam.job_endpoint}, received LOOPBACK: its "
               "machines would look for the workers on localhost, which is not this machine there")
    for name, key in ENVIRONMENTS.items():
        if key and environment == name and not values[key]:
            yield f"`beam.{key}` with {'runner dataflow' if not served else f'environment {name}'}, received none" + (
                ": Beam's own image has neither TensorFlow nor this project" if key == "image" else "")
        if key and environment != name and values[key]:
            yield f"`beam.{key}` with environment {name} alone, received {values[key]!r} with {environment or runner}"
    if beam.ship_code and environment != "DOCKER":
        yield (f"`beam.ship_code` with an image alone, received true with {environment or runner}, whose workers "
               "install nothing")
    if beam.parallelism and runner not in ("direct", "flink", "dataflow"):
        yield (f"no `beam.parallelism` with runner {runner}, received {beam.parallelism}; {runner} takes it from the "
               "cluster's own settings")
    if beam.processes != 1 and (environment not in ("EXTERNAL", "DOCKER") or not served):
        yield f"`beam.processes` 1 with {environment or runner}, received {beam.processes}"
    if beam.staging_location and runner != "dataflow":
        yield (f"`beam.staging_location` with dataflow alone, received {beam.staging_location!r} with {runner}, whose "
               "job server has a folder of its own")
    if beam.temp_location and runner == "direct":
        yield f"no `beam.temp_location` with runner direct, received {beam.temp_location!r}"
    if runner == "dataflow":
        for key in ("project", "region"):
            if not beam.options.get(key):
                yield f"`beam.options.{key}` with runner dataflow, received none"
        for key in ("temp_location", "staging_location"):
            place = values[key]
            if not (place or "").startswith("gs://") and (place or key == "temp_location"):
                yield f"`beam.{key}` in Google's storage (gs://…) with runner dataflow, received {place or 'none'}"
    for name in beam.options:
        if name in OWN:
            yield f"`beam.{OWN[name]}` in place of the option {name}, received it in `beam.options`"
        if not re.fullmatch(r"\w+", name):
            yield f"names of options as Beam writes them, without dashes, received {name!r}"


def shown(beam: Beam) -> str:
    """Where the work is done, in a few words, such as "flink at localhost:8099, workers LOOPBACK"."""
    values: dict[str, Any] = beam.model_dump()
    if beam.runner not in ENDPOINTS:
        return beam.runner
    return f"{beam.runner} at {beam.job_endpoint or ENDPOINTS[beam.runner]}, workers {environment_of(values)}"
