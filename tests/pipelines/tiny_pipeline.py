"""A pipeline of real TFX components that do next to nothing, for tests of what runs and shows pipelines.

`settings.description` says what the Trainer does: "well", "fails" (TextrailError), "breaks" (another exception),
"beams" (TextrailError inside a Beam DoFn), "loses" (a Beam job that fails the first time, for no reason of ours) or
"sleeps" (a minute).
"""

# ruff: noqa: RUF012  # TFX declares specs as plain dicts

import json
import time
from pathlib import Path

import apache_beam as beam
from tfx import types
from tfx.dsl.components.base import (
    base_beam_component,
    base_beam_executor,
    base_component,
    base_executor,
    executor_spec,
)
from tfx.orchestration import metadata, pipeline
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from modules import progress
from modules.errors import TextrailError

ERROR = ("labels in 'sentiment'", "a blank one in rows.csv, line 3", "Fill it in.")
VERDICT = {
    "passed": True, "split": "test", "examples": 4,
    "rows": [{"metric": "accuracy", "value": 0.75, "min": 0.5, "max": None, "max_drop": 0.1, "baseline": 0.5,
              "change": 0.25, "verdict": "passed", "why": ""},
             {"metric": "loss", "value": 0.5, "min": None, "max": 1.0, "max_drop": None, "baseline": None,
              "change": None, "verdict": "passed", "why": ""}],
    "metrics": {"accuracy": 0.75, "loss": 0.5}, "baseline_metrics": {"accuracy": 0.5},
    "slices": [{"slice": "label neg", "examples": 1, "metrics": {"accuracy": 1.0, "loss": 0.25}},
               {"slice": "label pos", "examples": 3, "metrics": {"accuracy": 0.6667}}],
    "confusion": {"classes": ["neg", "pos"], "counts": [[1, 0], [1, 2]]},
}

SAMPLE = {"source": "o gato", "reference": "the cat", "translation": "a cat", "score": -0.5, "chrf": 51.25}


class MakerSpec(ComponentSpec):
    PARAMETERS = {}
    INPUTS = {}
    OUTPUTS = {"examples": ChannelParameter(type=standard_artifacts.Examples)}


class TrainerSpec(ComponentSpec):
    PARAMETERS = {"how": ExecutionParameter(type=str)}
    INPUTS = {"examples": ChannelParameter(type=standard_artifacts.Examples)}
    OUTPUTS = {"model": ChannelParameter(type=standard_artifacts.Model)}


class EvaluatorSpec(ComponentSpec):
    PARAMETERS = {}
    INPUTS = {"model": ChannelParameter(type=standard_artifacts.Model)}
    OUTPUTS = {"evaluation": ChannelParameter(type=standard_artifacts.ModelEvaluation)}


class PusherSpec(ComponentSpec):
    PARAMETERS = {"destination": ExecutionParameter(type=str)}
    INPUTS = {"model": ChannelParameter(type=standard_artifacts.Model),
              "evaluation": ChannelParameter(type=standard_artifacts.ModelEvaluation)}
    OUTPUTS = {"pushed_model": ChannelParameter(type=standard_artifacts.PushedModel)}


class Make(base_executor.BaseExecutor):
    def Do(self, input_dict, output_dict, exec_properties):
        print("noise on standard output")
        Path(output_dict["examples"][0].uri, "rows").write_text("fine,pos\n")


class Train(base_beam_executor.BaseBeamExecutor):
    def Do(self, input_dict, output_dict, exec_properties):
        for step in (1, 2):
            progress.report(f"epoch 1/1, step {step}/2, loss 0.{5 - step}", step=step)
        progress.report("epoch 1/1: accuracy 0.75", lasting=True)
        how = exec_properties["how"]
        if how == "sleeps":
            time.sleep(60)
        if how == "fails":
            raise TextrailError(*ERROR)
        if how == "breaks":
            raise ValueError("first line\nlast line")
        if how == "beams":
            with self._make_beam_pipeline() as graph:
                graph | beam.Create([1]) | "Look" >> beam.Map(_fail)
        if how == "loses":
            with self._make_beam_pipeline() as graph:
                graph | beam.Create([output_dict["model"][0].uri]) | "Lose" >> beam.Map(_lose_once)
        Path(output_dict["model"][0].uri, "weights").write_text("1")


def _fail(_):
    raise TextrailError(*ERROR)


def _lose_once(folder):
    """Leaves half an output and fails, unless it has before."""
    met = Path(folder).parent / "met"
    if not met.exists():
        met.touch()
        Path(folder, "half").touch()
        raise OSError("the worker is gone")


class Evaluate(base_executor.BaseExecutor):
    def Do(self, input_dict, output_dict, exec_properties):
        folder = Path(output_dict["evaluation"][0].uri)
        (folder / "verdict.json").write_text(json.dumps(VERDICT))
        (folder / "samples").mkdir()
        (folder / "samples" / "worst.jsonl").write_text(json.dumps(SAMPLE) + "\n")


class Push(base_executor.BaseExecutor):
    def Do(self, input_dict, output_dict, exec_properties):
        version = Path(exec_properties["destination"], "7")
        version.mkdir(parents=True, exist_ok=True)
        (version / "saved_model.pb").touch()
        progress.report("pushed version 7", lasting=True)


class Maker(base_component.BaseComponent):
    SPEC_CLASS, EXECUTOR_SPEC = MakerSpec, executor_spec.ExecutorClassSpec(Make)


class Trainer(base_beam_component.BaseBeamComponent):
    SPEC_CLASS, EXECUTOR_SPEC = TrainerSpec, executor_spec.BeamExecutorSpec(Train)


class Evaluator(base_component.BaseComponent):
    SPEC_CLASS, EXECUTOR_SPEC = EvaluatorSpec, executor_spec.ExecutorClassSpec(Evaluate)


class Pusher(base_component.BaseComponent):
    SPEC_CLASS, EXECUTOR_SPEC = PusherSpec, executor_spec.ExecutorClassSpec(Push)


def build(settings, run, place):
    """As `pipelines.classification.build`."""
    maker = Maker(MakerSpec(examples=types.Channel(type=standard_artifacts.Examples)))
    trainer = Trainer(TrainerSpec(examples=maker.outputs["examples"], how=settings.description,
                                  model=types.Channel(type=standard_artifacts.Model)))
    evaluator = Evaluator(EvaluatorSpec(model=trainer.outputs["model"],
                                        evaluation=types.Channel(type=standard_artifacts.ModelEvaluation)))
    pusher = Pusher(PusherSpec(model=trainer.outputs["model"], evaluation=evaluator.outputs["evaluation"],
                               destination=place.pushed,
                               pushed_model=types.Channel(type=standard_artifacts.PushedModel)))
    return pipeline.Pipeline(
        pipeline_name=run, pipeline_root=place.pipeline_root, enable_cache=True,
        metadata_connection_config=metadata.sqlite_metadata_connection_config(place.metadata),
        components=[maker, trainer, evaluator, pusher])
