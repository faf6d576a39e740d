"""ServedModel: what the push destination serves when a run begins, as the baseline of its Evaluator."""

from __future__ import annotations

import os
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import io_utils, path_utils

from components import object_store  # noqa: F401  # serves s3:// and minio://
from modules.errors import TextrailError


class Executor(base_executor.BaseExecutor):
    """Copies the served version, so that the baseline outlives the version's deletion."""

    def Do(self, input_dict: dict[str, list[types.Artifact]], output_dict: dict[str, list[types.Artifact]],
           exec_properties: dict[str, Any]) -> None:
        """Fills `model`: the SavedModel with custom property `served_version`, or nothing with `none` = 1.

        Raises:
            TextrailError: the version is not in the destination any more.
        """
        model = artifact_utils.get_single_instance(output_dict["model"])
        destination, version = exec_properties["destination"], exec_properties["version"]
        if not version:
            fileio.makedirs(model.uri)
            model.set_int_custom_property("none", 1)
            return
        source = os.path.join(destination, version)
        if not fileio.exists(os.path.join(source, "saved_model.pb")):
            raise TextrailError(f"a served SavedModel in {source}", "no saved_model.pb there",
                                "It was deleted since the run began: start the run again.")
        io_utils.copy_dir(source, path_utils.serving_model_dir(model.uri))
        model.set_string_custom_property("served_version", version)


class ServedModelSpec(ComponentSpec):
    PARAMETERS = {"destination": ExecutionParameter(type=str), "version": ExecutionParameter(type=str)}
    INPUTS: dict[str, ChannelParameter] = {}
    OUTPUTS = {"model": ChannelParameter(type=standard_artifacts.Model)}


class ServedModel(base_component.BaseComponent):
    """Gives the model served now.

    The version is fixed when the pipeline is built, so that the cache sees a change of what is served.
    """

    SPEC_CLASS = ServedModelSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, destination: str, version: str):
        """Builds the component.

        Args:
            destination: folder or URI that the model server watches.
            version: version to compare with, see `versions.served_version`; "" if nothing is served.
        """
        super().__init__(ServedModelSpec(destination=destination, version=version,
                                         model=types.Channel(type=standard_artifacts.Model)))
