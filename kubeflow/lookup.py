"""The first task of every run on Kubeflow: looks at what lies outside the pipeline, so that the cache sees it change.

It does what TFX's drivers do elsewhere, none of which Kubeflow runs: fingerprints of the data, the schema and the
encoder, and which version is served. It is never cached; the tasks behind it get what it found as parameters, hence
they are cached as long as it finds the same. That holds for recurring runs too, of one compiled file.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kubeflow.executor_input import ExecutorInput, run_task

NAME = "Lookup"
REQUEST = "request"   # Its parameter.


def look(request: Mapping[str, Any]) -> dict[str, str]:
    """Looks.

    Args:
        request: `read`, by what is read the arguments of its fingerprint: `data` [section `data`], `schema` [path],
            `encoder` [source, config, preprocessing]; `destination`, `code` and `reads` as
            `pipelines.place.Place.served` takes them; `forced`, whether the run's model is to be a new one.

    Returns:
        A fingerprint for each of `read`, and `recipe`, `baseline` and `attempt` of `pipelines.served.Served`.

    Raises:
        TextrailError: something is not where the settings say.
    """
    from components.encoder_sources import encoder_fingerprint
    from components.schema_gen import schema_fingerprint
    from components.sources import data_fingerprint
    from pipelines.place import recipe
    from pipelines.served import Served

    looks: dict[str, Callable[..., str]] = {
        "data": data_fingerprint, "schema": schema_fingerprint, "encoder": encoder_fingerprint}
    read = {name: looks[name](*arguments) for name, arguments in request["read"].items()}
    # Kubeflow's cache cannot be asked; of the same recipe it has the model, unless somebody emptied it.
    served = Served.find(request["destination"], recipe(request["code"], read), request["reads"],
                         lambda model: not request["forced"])
    return read | {"recipe": served.recipe, "baseline": served.baseline, "attempt": served.attempt}


def date_by_content(path: Path) -> None:
    """Gives files a time of change that follows from their content.

    What the launcher has brought was written a moment ago, and fingerprints of large files go by that time.

    Args:
        path: a file, or a folder of any depth.
    """
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        if file.is_file():
            digest = hashlib.sha256()
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
            seconds = int.from_bytes(digest.digest()[:4], "big")
            os.utime(file, (seconds, seconds))


def run(task: ExecutorInput) -> dict[str, Any]:
    """What the task answers: `ExecutorOutput` as JSON."""
    for places in task.inputs.values():
        for place in places:
            date_by_content(Path(place.path))
    return {"parameterValues": look(json.loads(task.parameters[REQUEST]))}


if __name__ == "__main__":
    run_task(run, sys.argv[-1])
