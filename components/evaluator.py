"""Evaluator: judges a trained model, and the model served now beside it, and says whether it may be pushed."""

from __future__ import annotations

import json
import os
from typing import Any

import tensorflow as tf
from tfx import types
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import path_utils

from components.verdict import VERDICT_FILE, check_thresholds, number, threshold_rows
from components.versions import read_manifest
from modules import progress
from modules.errors import TextrailError

# Of `data`, what a judge may need to read.
COLUMNS = ("text", "text_pair", "target", "label", "slice")


class Executor(base_beam_executor.BaseBeamExecutor):
    """Runs TFMA over the split that judges, then holds the thresholds against its values."""

    def Do(self, input_dict: dict[str, list[types.Artifact]], output_dict: dict[str, list[types.Artifact]],
           exec_properties: dict[str, Any]) -> None:
        """Writes TFMA's files and `verdict.json` into `evaluation`, and the blessing TFX's Pusher understands.

        Args:
            input_dict: examples, model and, if any, baseline_model; see `EvaluatorSpec`.
            output_dict: evaluation and blessing.
            exec_properties: settings, JSON with the keys `seed`, `evaluation` and `data` of a run's settings.

        Raises:
            TextrailError: a threshold names an unknown metric or slice, or there is no row to judge on.
        """
        # TFMA takes seconds to import, which building a pipeline need not wait for.
        from components import judging, judging_classification, judging_pretraining, judging_translation

        self._log_startup(input_dict, output_dict, exec_properties)
        settings = json.loads(exec_properties["settings"])
        folders = _model_folders(input_dict)
        manifests = {name: read_manifest(folder) for name, folder in folders.items()}
        shape = manifests["candidate"]["shape"]
        judges: dict[str, type[judging.Judge]] = {"classification": judging_classification.ClassificationJudge,
                                                  "translation": judging_translation.TranslationJudge,
                                                  "pretraining": judging_pretraining.PretrainingJudge}
        reason = judges[shape].not_comparable(folders, manifests) if "baseline" in folders else ""
        if reason:
            del folders["baseline"], manifests["baseline"]
        judge = judges[shape](manifests, settings)
        thresholds = settings["evaluation"]["thresholds"]
        check_thresholds(thresholds, judge.metric_names(), slices=bool(judge.slice))
        split, pattern = _judging_split(input_dict["examples"])
        output = artifact_utils.get_single_uri(output_dict["evaluation"])

        beside = f", without the served model: {reason}" if reason else ", beside the served model"
        progress.report(f"judging on the {split} split" + (beside if reason or len(folders) > 1 else ""))
        with self._make_beam_pipeline() as pipeline:
            judging.evaluate(pipeline, pattern, folders, judge, output)
        results = judging.read_results(output, judge)
        check_thresholds(thresholds, list(results["metrics"]))

        rows = threshold_rows(thresholds, results["metrics"], results["baseline_metrics"])
        verdict = {"passed": all(row["verdict"] == "passed" for row in rows), "shape": shape, "split": split,
                   "not_comparable": reason, "rows": rows, **results}
        for key in ("metrics", "baseline_metrics"):
            verdict[key] = verdict[key] and {name: number(value) for name, value in verdict[key].items()}
        with fileio.open(os.path.join(output, VERDICT_FILE), "w") as file:
            file.write(json.dumps(verdict, ensure_ascii=False, indent=1, allow_nan=False))
        _bless(input_dict["model"], _baselines(input_dict) if "baseline" in folders else [], output_dict["blessing"],
               verdict["passed"])


def _model_folders(input_dict: dict[str, list[types.Artifact]]) -> dict[str, str]:
    """SavedModel folders by TFMA's model names; no baseline if none is served."""
    folders = {"candidate": path_utils.serving_model_path(artifact_utils.get_single_uri(input_dict["model"]))}
    for baseline in _baselines(input_dict):
        folders["baseline"] = path_utils.serving_model_path(baseline.uri)
    return folders


def _baselines(input_dict: dict[str, list[types.Artifact]]) -> list[types.Artifact]:
    return [artifact for artifact in input_dict.get("baseline_model", [])
            if not artifact.get_int_custom_property("none")]


def _judging_split(examples: list[types.Artifact]) -> tuple[str, str]:
    """Name and file pattern of the test split, or of the validation split where test is missing or empty."""
    present = artifact_utils.decode_split_names(artifact_utils.get_single_instance(examples).split_names)
    for split in ("test", "validation"):
        if split in present:
            pattern = os.path.join(artifact_utils.get_split_uri(examples, split), "*")
            if _has_rows(pattern):
                return split, pattern
    raise TextrailError("rows in a test or validation split to judge on", f"the splits {present}, those two empty",
                        "Set data.split.test or data.split.validation above 0, or give more rows.")


def _has_rows(pattern: str) -> bool:
    return any(True for path in fileio.glob(pattern)
               for _ in tf.data.TFRecordDataset(path, compression_type="GZIP").take(1))


def _bless(models: list[types.Artifact], baselines: list[types.Artifact], blessings: list[types.Artifact],
           passed: bool) -> None:
    """Marks the blessing as TFX's own Evaluator does."""
    blessing = artifact_utils.get_single_instance(blessings)
    for prefix, artifacts in (("current", models), ("baseline", baselines)):
        for artifact in artifacts:
            blessing.set_string_custom_property(f"{prefix}_model", artifact.uri)
            blessing.set_int_custom_property(f"{prefix}_model_id", artifact.id)
    blessing.set_int_custom_property("blessed", int(passed))
    fileio.makedirs(blessing.uri)
    with fileio.open(os.path.join(blessing.uri, "BLESSED" if passed else "NOT_BLESSED"), "w") as file:
        file.write("")


class EvaluatorSpec(ComponentSpec):
    PARAMETERS = {"settings": ExecutionParameter(type=str)}
    INPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "model": ChannelParameter(type=standard_artifacts.Model),
        "baseline_model": ChannelParameter(type=standard_artifacts.Model, optional=True),
    }
    OUTPUTS = {
        "evaluation": ChannelParameter(type=standard_artifacts.ModelEvaluation),
        "blessing": ChannelParameter(type=standard_artifacts.ModelBlessing),
    }


class Evaluator(base_beam_component.BaseBeamComponent):
    """Judges a model on the test split, or on the validation split where there is none."""

    SPEC_CLASS = EvaluatorSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(self, examples: types.BaseChannel, model: types.BaseChannel, settings: dict[str, Any],
                 baseline_model: types.BaseChannel | None = None):
        """Builds the component.

        Args:
            examples: what the model's signature `examples` takes, with the split `test` or `validation`: raw
                Examples, or of an encoder that is pretrained those of InstanceGen.
            model: the candidate, with the three signatures of `modules/serving.py`.
            settings: a run's settings; `seed`, `evaluation` and the columns under `data` are used.
            baseline_model: what `ServedModel` gives.
        """
        super().__init__(EvaluatorSpec(
            examples=examples, model=model, baseline_model=baseline_model,
            settings=json.dumps({
                "seed": settings["seed"], "evaluation": settings["evaluation"],
                "data": {key: settings["data"].get(key) for key in COLUMNS}}, sort_keys=True),
            evaluation=types.Channel(type=standard_artifacts.ModelEvaluation),
            blessing=types.Channel(type=standard_artifacts.ModelBlessing)))
