"""How a run's Beam components get their pipelines: as the run's settings say, whatever the component is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import message
from tfx.orchestration.portable import beam_executor_operator, data_types, outputs_utils
from tfx.proto.orchestration import executable_spec_pb2

from components.beam_runner import make_pipeline
from modules import progress
from modules.errors import is_interruption
from pipelines.failures import gist, told


class BeamOperator(beam_executor_operator.BeamExecutorOperator):
    """Runs a Beam component's executor with pipelines of `components.beam_runner`.

    TFX's way, `beam_pipeline_args` in the executor's spec, would make where the work is done a part of the cache's key.

    Args:
        executor_spec: of the component.
        platform_config: none.
        beam: the section `beam` of the settings.
        root: folder or URI of the pipeline's artifacts.
    """

    SUPPORTED_EXECUTOR_SPEC_TYPE = [executable_spec_pb2.BeamExecutableSpec]   # noqa: RUF012  # as TFX has it

    def __init__(self, executor_spec: message.Message, platform_config: message.Message | None = None, *,
                 beam: Mapping[str, Any], root: str):
        super().__init__(executor_spec, platform_config)
        self._beam, self._root = beam, root

    def run_executor(self, execution_info: data_types.ExecutionInfo, make_beam_pipeline_fn: Any = None) -> Any:
        """Runs it, and again where its job failed for a reason that another attempt may not meet."""
        name = execution_info.pipeline_node.node_info.id

        def make() -> Any:
            return make_pipeline(self._beam, name, self._root)

        for attempt in range(1, self._beam["retries"] + 2):
            try:
                return super().run_executor(execution_info, make_beam_pipeline_fn or make)
            except Exception as error:
                if attempt > self._beam["retries"] or told(error) or is_interruption(error):
                    raise
                progress.report(f"{name} begins again, attempt {attempt + 1} of {self._beam['retries'] + 1}: "
                                + gist(error), lasting=True)
                outputs_utils.remove_output_dirs(execution_info.output_dict)
                outputs_utils.make_output_dirs(execution_info.output_dict)
