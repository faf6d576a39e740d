"""ModelCheck: does the exported model answer plain strings, moved elsewhere, in a process that has TensorFlow only?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import io_utils, path_utils

from components import model_check_script
from modules import progress
from modules.errors import TextrailError

# Run by its path, but imported: so the cache counts it among this component's code.
SCRIPT = model_check_script.__file__
# Real rows asked beside the script's own samples.
ROWS = 8
TIMEOUT_SECONDS = 600


class Executor(base_executor.BaseExecutor):
    """Asks the model in a fresh process and blesses it as TFX's InfraValidator does."""

    def Do(self, input_dict: dict[str, list[types.Artifact]], output_dict: dict[str, list[types.Artifact]],
           exec_properties: dict[str, Any]) -> None:
        """Writes INFRA_BLESSED into `blessing`.

        Raises:
            TextrailError: the model does not load, or answers wrongly.
        """
        data = json.loads(exec_properties["settings"])["data"]
        texts = [data[key] for key in ("text", "text_pair") if data.get(key)]
        source = path_utils.serving_model_path(artifact_utils.get_single_uri(input_dict["model"]))
        answer = check(source, texts, _first_rows(input_dict["examples"]))
        milliseconds = 1000 * answer["seconds_per_row"]
        progress.report(f"the moved model answered {answer['rows']} rows in a fresh process, "
                        f"{milliseconds:.1f} ms a row asked alone", lasting=True)
        blessing = artifact_utils.get_single_instance(output_dict["blessing"])
        fileio.makedirs(blessing.uri)
        with fileio.open(os.path.join(blessing.uri, "INFRA_BLESSED"), "w") as file:
            file.write("")
        blessing.set_int_custom_property("blessed", 1)


def _first_rows(examples: list[types.Artifact]) -> list[bytes]:
    """The first few serialized rows of the split that judges, or of what there is."""
    present = artifact_utils.decode_split_names(artifact_utils.get_single_instance(examples).split_names)
    split = next((name for name in ("test", "validation") if name in present), present[0])
    files = sorted(fileio.glob(os.path.join(artifact_utils.get_split_uri(examples, split), "*")))
    return list(tf.data.TFRecordDataset(files, compression_type="GZIP").take(ROWS).as_numpy_iterator())


def check(source: str, texts: Sequence[str], examples: Sequence[bytes],
          timeout: float = TIMEOUT_SECONDS) -> dict[str, float]:
    """Copies a SavedModel to a folder of its own and has a fresh Python process ask it plain strings.

    Args:
        source: folder of the SavedModel, local or a URI.
        texts: text features, one or two: the inputs that serving_default must have.
        examples: serialized raw tf.Examples, asked as strings and through the signature `examples`.
        timeout: seconds for the whole check.

    Returns:
        `seconds_per_row`, the median of rows asked one by one, and `rows`.

    Raises:
        TextrailError: the model does not load, answers wrongly or is not done in time.
    """
    with tempfile.TemporaryDirectory(prefix="textrail-check-") as folder:
        moved, request = os.path.join(folder, "elsewhere"), os.path.join(folder, "request.json")
        io_utils.copy_dir(source, moved)
        Path(request).write_text(json.dumps({"texts": list(texts), "examples": [record.hex() for record in examples]}))
        # -I hides the current folder, PYTHONPATH and the user's site; the script refuses what is installed.
        command = [sys.executable, "-I", SCRIPT, moved, request]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise TextrailError(f"answers of the exported model within {timeout:g} s", "none by then",
                                "Nothing was pushed. The model may be too slow for this machine, or hangs.") from None
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        tail = " / ".join(done.stderr.splitlines()[-3:])
        answer = {"failure": f"the process ended with status {done.returncode}: {tail}"}
    if "failure" in answer:
        raise TextrailError("a model that answers plain strings with only TensorFlow and tensorflow_text at hand",
                            answer["failure"],
                            "Nothing was pushed. The export is at fault: see modules/serving.py for what it promises.")
    return answer


class ModelCheckSpec(ComponentSpec):
    PARAMETERS = {"settings": ExecutionParameter(type=str)}
    INPUTS = {
        "model": ChannelParameter(type=standard_artifacts.Model),
        "examples": ChannelParameter(type=standard_artifacts.Examples),
    }
    OUTPUTS = {"blessing": ChannelParameter(type=standard_artifacts.InfraBlessing)}


class ModelCheck(base_component.BaseComponent):
    """Lets only a model pass that answers plain strings in a fresh process."""

    SPEC_CLASS = ModelCheckSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, model: types.BaseChannel, examples: types.BaseChannel, settings: dict[str, Any]):
        """Builds the component.

        Args:
            model: the candidate.
            examples: raw Examples, of which a few rows are asked.
            settings: a run's settings; the text columns under `data` are used.
        """
        columns = {key: settings["data"].get(key) for key in ("text", "text_pair")}
        super().__init__(ModelCheckSpec(model=model, examples=examples, settings=json.dumps({"data": columns}),
                                        blessing=types.Channel(type=standard_artifacts.InfraBlessing)))
