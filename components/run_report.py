"""RunReport: one HTML file that tells what a run did; the last component of every pipeline."""

from __future__ import annotations

import datetime
import json
import os
import pickle
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import apache_beam as beam
from tfx import types
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.artifacts import DataBlessing, Encoder, Report, Vocabulary
from components.report_facts import gather
from components.report_rows import Rows, Task
from components.report_sections import report
from components.run_record import Artifact, Run, Step, read_runs, value_of
from components.tfrecords import read_records
from modules import progress

FILE = "report.html"
# Inputs → the steps that made them, and their names there.
MAKERS = {
    "examples": ("ExampleGen", "examples"), "statistics": ("StatisticsGen", "statistics"),
    "anomalies": ("ExampleValidator", "anomalies"), "gate": ("AnomalyGate", "blessing"),
    "encoder": ("EncoderImporter", "encoder"), "vocabulary": ("VocabularyGen", "vocabulary"),
    "transformed_examples": ("TextTransform", "transformed_examples"), "model": ("Trainer", "model"),
    "model_run": ("Trainer", "model_run"), "evaluation": ("Evaluator", "evaluation"),
    "pushed_model": ("Pusher", "pushed_model"),
}


class Executor(base_beam_executor.BaseBeamExecutor):
    """Reads what the run left behind, the rows with Beam, and writes the page."""

    def Do(self, input_dict: dict[str, list[types.Artifact]], output_dict: dict[str, list[types.Artifact]],
           exec_properties: dict[str, Any]) -> None:
        """Writes `report.html` into `report`.

        Args:
            input_dict: see `MAKERS`.
            output_dict: `report`.
            exec_properties: see `RunReport`.
        """
        runs = read_runs(exec_properties["metadata"]) if exec_properties["metadata"] else []
        settings = json.loads(exec_properties["settings"])
        run = runs[-1] if runs else _run_of(input_dict, settings.get("shape", ""))
        folder = artifact_utils.get_single_uri(output_dict["report"])
        facts = gather(exec_properties["run"], run, settings, exec_properties["command"],
                       partial(self._each, os.path.join(folder, "temp")), runs[-2] if len(runs) > 1 else None)
        path = os.path.join(folder, FILE)
        with fileio.open(path, "wb") as file:
            file.write(report(facts).encode("utf-8", "xmlcharrefreplace"))
        progress.report(f"wrote {path}", lasting=True)

    def _each(self, temp: str, function: Callable[[Task], Rows], tasks: Sequence[Task]) -> Iterable[Rows]:
        """Applies a function to tasks as Beam spreads them; what comes back is read one at a time."""
        if not tasks:
            return
        try:
            with self._make_beam_pipeline() as pipeline:
                _ = (pipeline
                     | "Files" >> beam.Create([pickle.dumps(task) for task in tasks])
                     | "SpreadFiles" >> beam.Reshuffle()
                     | "Measure" >> beam.Map(lambda task: pickle.dumps(function(pickle.loads(task))))
                     | "Write" >> beam.io.WriteToTFRecord(os.path.join(temp, "rows")))
            for path in sorted(fileio.glob(os.path.join(temp, "rows*"))):
                yield from (pickle.loads(record.data) for record in read_records(path))
        finally:
            if fileio.exists(temp):
                fileio.rmtree(temp)


def _run_of(input_dict: dict[str, list[types.Artifact]], shape: str) -> Run:
    """What inputs tell of a run where nobody can be asked for more: who made what."""
    makers = MAKERS | ({"transformed_examples": ("InstanceGen", "transformed_examples")}
                       if shape == "pretraining" else {})
    now, outputs = datetime.datetime.now(), dict[str, dict[str, Artifact]]()
    for name, (step, key) in makers.items():
        for artifact in input_dict.get(name, ()):
            properties = {one: value_of(value) for one, value in artifact.mlmd_artifact.custom_properties.items()}
            outputs.setdefault(step, {})[key] = Artifact(key, artifact.type_name, artifact.uri, properties)
    return Run(1, now, [Step(name, 0, "done", now, 0.0, {}, made) for name, made in outputs.items()])


class RunReportSpec(ComponentSpec):
    PARAMETERS = {"run": ExecutionParameter(type=str), "settings": ExecutionParameter(type=str),
                  "command": ExecutionParameter(type=str), "metadata": ExecutionParameter(type=str)}
    INPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "statistics": ChannelParameter(type=standard_artifacts.ExampleStatistics),
        "anomalies": ChannelParameter(type=standard_artifacts.ExampleAnomalies),
        "gate": ChannelParameter(type=DataBlessing),
        "encoder": ChannelParameter(type=Encoder, optional=True),
        "vocabulary": ChannelParameter(type=Vocabulary, optional=True),
        "transformed_examples": ChannelParameter(type=standard_artifacts.Examples),
        "model": ChannelParameter(type=standard_artifacts.Model),
        "model_run": ChannelParameter(type=standard_artifacts.ModelRun),
        "evaluation": ChannelParameter(type=standard_artifacts.ModelEvaluation),
        "pushed_model": ChannelParameter(type=standard_artifacts.PushedModel),
    }
    OUTPUTS = {"report": ChannelParameter(type=Report)}


class RunReport(base_beam_component.BaseBeamComponent):
    """Tells in one HTML file what a run did. It comes after the push, so that it tells of that, too."""

    SPEC_CLASS = RunReportSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(self, run: str, settings: dict[str, Any], command: str, metadata: str,
                 **inputs: types.BaseChannel):
        """Builds the component.

        Args:
            run: its name.
            settings: all of them.
            command: what repeats the run.
            metadata: path of ML Metadata's SQLite file, for times and caching; "" where it cannot be read.
            **inputs: see `MAKERS`; `encoder` or `vocabulary` may be missing.
        """
        super().__init__(RunReportSpec(run=run, settings=json.dumps(settings, sort_keys=True), command=command,
                                       metadata=metadata, report=types.Channel(type=Report), **inputs))
