"""What the container of a component runs: `python -m kubeflow.entrypoint --component PATH '{{$}}'`.

TFX's own entry code takes the types of artifacts from the messages, where Kubeflow leaves them out; here they come from
the component's spec, as do the types of parameters.
"""

from __future__ import annotations

import argparse
import importlib
import os
import tempfile
from collections.abc import Mapping
from typing import Any

from tfx.dsl.components.base import base_beam_executor, base_component, base_executor
from tfx.types.artifact import Artifact

from components.artifacts import Report
from components.beam_runner import run_beam_in_this_process
from components.run_report import FILE
from kubeflow.executor_input import ExecutorInput, Place, is_imported, run_task
from modules.errors import TextrailError

CODE = "executor_code"   # A parameter for the cache alone.


def component_class(path: str) -> type[base_component.BaseComponent]:
    """The component of an import path, e.g. `components.pusher.Pusher`.

    Raises:
        TextrailError: the image has none of that name.
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise TextrailError(f"the component {path} in the image", f"none ({error})",
                            "Build the image of the code that the pipeline was compiled with.") from error


def read_artifact(kind: type[Artifact], place: Place) -> Artifact:
    """An input as the executor knows it.

    Args:
        kind: its type.
        place: where it lies. Whole numbers become integers: Kubeflow has numbers of one kind only.
    """
    artifact = kind()
    artifact.uri = place.path
    if place.name.isdigit():
        artifact.id = int(place.name)
    for key, value in place.metadata.items():
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if key in artifact.artifact_type.properties:
            setattr(artifact, key, value)
        elif isinstance(value, str):
            artifact.set_string_custom_property(key, value)
        elif isinstance(value, int):
            artifact.set_int_custom_property(key, value)
        elif isinstance(value, float):
            artifact.set_float_custom_property(key, value)
    return artifact


def new_artifact(kind: type[Artifact], place: Place) -> Artifact:
    """An output to be written, whose folder is there."""
    os.makedirs(place.path, exist_ok=True)
    artifact = kind()
    artifact.uri = place.path
    return artifact


def written(artifact: Artifact, place: Place, stored_at: Mapping[str, str]) -> dict[str, Any]:
    """An output as the launcher reads it: a RuntimeArtifact as JSON."""
    metadata: dict[str, Any] = dict(stored_at)
    for properties in (artifact.mlmd_artifact.properties, artifact.mlmd_artifact.custom_properties):
        for key, value in properties.items():
            kind = value.WhichOneof("value")
            if kind in ("int_value", "double_value", "string_value"):
                metadata[key] = getattr(value, kind)
    # Kubeflow's pages show the file of a report, not a folder.
    uri = f"{place.uri}/{FILE}" if isinstance(artifact, Report) else place.uri
    return {"name": place.name, "uri": uri, "metadata": metadata}


def parameters(component: type[base_component.BaseComponent], task: ExecutorInput) -> dict[str, Any]:
    """Execution properties, of the types that the component's spec gives them."""
    types = {key: parameter.type for key, parameter in component.SPEC_CLASS.PARAMETERS.items()}
    return {key: int(value) if types.get(key) is int else value for key, value in task.parameters.items()
            if key != CODE}


def execute(component: type[base_component.BaseComponent], task: ExecutorInput) -> dict[str, Any]:
    """Runs a component's executor.

    Args:
        component: whose executor is run, and whose spec says what types there are.
        task: what Kubeflow says.

    Returns:
        ExecutorOutput as JSON.
    """
    run_beam_in_this_process()
    spec = component.SPEC_CLASS
    inputs = {key: [read_artifact(spec.INPUTS[key].type, place) for place in places]
              for key, places in task.inputs.items() if not is_imported(key)}
    outputs = {key: [new_artifact(spec.OUTPUTS[key].type, place)] for key, place in task.outputs.items()}
    executor = component.EXECUTOR_SPEC.executor_class
    with tempfile.TemporaryDirectory(prefix="textrail-") as temp:
        context: Mapping[str, Any] = {"tmp_dir": temp, "unique_id": ""}
        if issubclass(executor, base_beam_executor.BaseBeamExecutor):
            ready = executor(base_beam_executor.BaseBeamExecutor.Context(beam_pipeline_args=[], **context))
        else:
            ready = executor(base_executor.BaseExecutor.Context(**context))
        ready.Do(inputs, outputs, parameters(component, task))
    return {"artifacts": {key: {"artifacts": [written(artifact, place, task.stored_at(place))]}
                          for key, (artifact,) in outputs.items() if (place := task.outputs[key])}}


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="python -m kubeflow.entrypoint")
    parser.add_argument("--component", required=True, help="import path")
    parser.add_argument("--root", default="", help="folder of a volume that keeps what is made")
    parser.add_argument("message", help="ExecutorInput as JSON")
    options = parser.parse_args()
    run_task(lambda task: execute(component_class(options.component), task), options.message, options.root)


if __name__ == "__main__":
    main()
