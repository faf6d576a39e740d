"""Classification: labelled text, or pairs of texts, to a pushed model that answers plain strings.

| step     | component                                   | what comes out                                    |
|----------|---------------------------------------------|---------------------------------------------------|
| read     | ExampleGen                                  | rows as tf.Examples, splits kept                  |
| look     | StatisticsGen, SchemaGen                    | statistics, schema                                |
| gate     | ExampleValidator, AnomalyGate               | nothing, or a stop with feature, reason and fix   |
| words    | EncoderImporter                             | the encoder, checked                              |
| encode   | TextTransform                               | unpadded token ids, and the graph that makes them |
| train    | Trainer                                     | SavedModel, history                               |
| baseline | ServedModel                                 | what the push destination serves now              |
| judge    | Evaluator                                   | metrics, slices, verdict                          |
| check    | ModelCheck                                  | a fresh process asked it plain strings            |
| push     | Pusher                                      | a new version, or a stop with the table           |
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from tfx.components.example_validator.component import ExampleValidator
from tfx.components.statistics_gen.component import StatisticsGen
from tfx.orchestration import metadata, pipeline

from components.anomaly_gate import AnomalyGate
from components.code_fingerprint import code_fingerprint, executor_fingerprint
from components.encoder_importer import EncoderImporter
from components.encoder_sources import encoder_fingerprint
from components.evaluator import Evaluator
from components.example_gen import ExampleGen
from components.model_check import ModelCheck
from components.pusher import Pusher
from components.schema_gen import SchemaGen, schema_fingerprint
from components.served_model import ServedModel
from components.sources import data_fingerprint
from components.text_transform import TextTransform
from components.trainer import Trainer
from pipelines.classification_sections import Settings
from pipelines.served import Served

if TYPE_CHECKING:
    from pipelines.workspace import Workspace

PREPROCESSING_FN = "modules.classifier.preprocessing_fn"
RUN_FN = "modules.classifier.run_fn"


def build(settings: Settings, run: str, paths: Workspace, forced: bool = False) -> pipeline.Pipeline:
    """The pipeline of a classification run.

    Args:
        settings: validated, with absolute paths.
        run: name of the run.
        paths: where its state lives.
        forced: true if any step is to run although cached, so that its model is a new one.

    Returns:
        The pipeline, with caching on.

    Raises:
        TextrailError: data, encoder or schema are not where the settings say.
    """
    data, columns = settings.data, column_names(settings)
    destination, lower_case = settings.push.destination or str(paths.pushed), settings.encoder.lower_case
    source = data.model_dump(exclude={"schema_file"})
    fingerprints = {
        "data": data_fingerprint(source), "encoder": encoder_fingerprint(
            settings.encoder.source, settings.encoder.config or "", settings.encoder.preprocessing or ""),
        "schema": schema_fingerprint(data.schema_file or "")}
    recipe = _recipe(settings, fingerprints)

    examples = ExampleGen(data=json.dumps(source), fingerprint=fingerprints["data"])
    statistics = StatisticsGen(examples=examples.outputs["examples"])
    schema = SchemaGen(statistics=statistics.outputs["statistics"], columns=json.dumps(columns),
                       curated=data.schema_file or "", fingerprint=fingerprints["schema"])
    anomalies = ExampleValidator(statistics=statistics.outputs["statistics"], schema=schema.outputs["schema"])
    gate = AnomalyGate(examples=examples.outputs["examples"], anomalies=anomalies.outputs["anomalies"],
                       statistics=statistics.outputs["statistics"],
                       columns=json.dumps(columns), gate=settings.gate.model_dump_json(),
                       destination=destination)
    encoder = EncoderImporter(source=settings.encoder.source, sha256=settings.encoder.sha256 or "",
                              lower_case=json.dumps(lower_case) if lower_case is not None else "",
                              config=settings.encoder.config or "",
                              preprocessing=settings.encoder.preprocessing or "",
                              opaque=settings.model.max_length if settings.encoder.opaque else 0,
                              fingerprint=fingerprints["encoder"])
    transform = TextTransform(examples=examples.outputs["examples"], schema=schema.outputs["schema"],
                              encoder=encoder.outputs["encoder"], gate=gate.outputs["blessing"],
                              settings=transform_settings(settings), preprocessing_fn=PREPROCESSING_FN)
    trainer = Trainer(examples=transform.outputs["transformed_examples"],
                      transform_graph=transform.outputs["transform_graph"], encoder=encoder.outputs["encoder"],
                      gate=gate.outputs["blessing"], settings=trainer_settings(settings), run_fn=RUN_FN,
                      checkpoints=str(paths.checkpoints))
    now = Served.find(destination, recipe, {key: columns[key] for key in ("text", "text_pair")}, paths,
                      trainer.exec_properties, forced)
    served = ServedModel(destination=destination, version=now.baseline)
    evaluator = Evaluator(examples=examples.outputs["examples"], model=trainer.outputs["model"],
                          baseline_model=served.outputs["model"], settings=settings.model_dump())
    check = ModelCheck(model=trainer.outputs["model"], examples=examples.outputs["examples"],
                       settings={"data": columns})
    pusher = Pusher(model=trainer.outputs["model"], model_blessing=evaluator.outputs["blessing"],
                    infra_blessing=check.outputs["blessing"], evaluation=evaluator.outputs["evaluation"],
                    gate=gate.outputs["blessing"], destination=destination, keep=settings.push.keep, recipe=recipe,
                    baseline_version=now.baseline, attempt=now.attempt)
    return pipeline.Pipeline(
        pipeline_name=run, pipeline_root=str(paths.pipeline_root), enable_cache=True,
        metadata_connection_config=metadata.sqlite_metadata_connection_config(str(paths.metadata)),
        components=[examples, statistics, schema, anomalies, gate, encoder, transform, trainer, served, evaluator,
                    check, pusher])


def column_names(settings: Settings) -> dict[str, str | None]:
    """The columns' names by what they are for: `text`, `text_pair`, `label` and `slice`."""
    return {key: getattr(settings.data, key) for key in ("text", "text_pair", "label", "slice")}


def transform_settings(settings: Settings) -> dict[str, Any]:
    """What the preprocessing function is told of the settings."""
    return {"data": column_names(settings), "max_length": settings.model.max_length,
            "truncate": settings.model.truncate}


def trainer_settings(settings: Settings) -> dict[str, Any]:
    """What the run function is told of the settings."""
    return {"seed": settings.seed, "data": column_names(settings), "model": settings.model.model_dump(),
            "training": settings.training.model_dump(), "head": settings.encoder.head}


def _recipe(settings: Settings, fingerprints: dict[str, str]) -> str:
    """Names all that a model is made from: settings, data, encoder, schema and code."""
    makers: tuple[Any, ...] = (ExampleGen, SchemaGen, AnomalyGate, EncoderImporter, TextTransform, Trainer)
    code = [code_fingerprint(function) for function in (PREPROCESSING_FN, RUN_FN)]
    code += [executor_fingerprint(maker.EXECUTOR_SPEC.class_path) for maker in makers]
    parts: dict[str, Any] = {"settings": settings.model_dump(exclude={"push", "description"}), "code": code,
                             **fingerprints}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

