"""RunReport: one HTML file that tells what a run did; the last component of every pipeline."""

from __future__ import annotations

import datetime
import json
import os
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.artifacts import DataBlessing, Encoder, Report, Vocabulary
from components.report_facts import gather
from components.report_sections import report
from components.run_record import Artifact, Run, Step, read_runs, value_of
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


class Executor(base_executor.BaseExecutor):
    """Reads what the run left behind, and writes the page."""

    def Do(self, input_dict: dict[str, list[types.Artifact]], output_dict: dict[str, list[types.Artifact]],
           exec_properties: dict[str, Any]) -> None:
        """Writes `report.html` into `report`.

        Args:
            input_dict: see `MAKERS`.
            output_dict: `report`.
            exec_properties: see `RunReport`.
        """
        runs = read_runs(exec_properties["metadata"]) if exec_properties["metadata"] else []
        run = runs[-1] if runs else _run_of(input_dict)
        facts = gather(exec_properties["run"], run, json.loads(exec_properties["settings"]), exec_properties["command"])
        path = os.path.join(artifact_utils.get_single_uri(output_dict["report"]), FILE)
        with fileio.open(path, "w") as file:
            file.write(report(facts))
        progress.report(f"wrote {path}", lasting=True)


def _run_of(input_dict: dict[str, list[types.Artifact]]) -> Run:
    """What inputs tell of a run where nobody can be asked for more: who made what."""
    now, outputs = datetime.datetime.now(), dict[str, dict[str, Artifact]]()
    for name, (step, key) in MAKERS.items():
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


class RunReport(base_component.BaseComponent):
    """Tells in one HTML file what a run did. It comes after the push, so that it tells of that, too."""

    SPEC_CLASS = RunReportSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

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
