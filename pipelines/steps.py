"""The steps that every shape takes: the way in, from the rows to the gate, and the way out, from the judge to the push.

What stands between the two is the shape's own; see `classification.build`, `translation.build` and
`pretraining.build`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tensorflow_data_validation import StatsOptions
from tfx.components.example_validator.component import ExampleValidator
from tfx.components.statistics_gen.component import StatisticsGen
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.orchestration import metadata, pipeline
from tfx.types.channel import BaseChannel

from components.anomaly_gate import AnomalyGate
from components.code_fingerprint import code_fingerprint, executor_fingerprint
from components.encoder_importer import EncoderImporter
from components.evaluator import Evaluator
from components.example_gen import ExampleGen
from components.model_check import ModelCheck
from components.pusher import Pusher
from components.rows import ROLES
from components.run_report import RunReport
from components.schema_gen import SchemaGen
from components.served_model import ServedModel
from pipelines.place import Place
from pipelines.sections import Encoder, Settings

# Sections that no model depends on.
NO_RECIPE = {"push", "description", "card", "beam", "kubeflow"}

# Counted with sketches of a fixed size. TFDV's default groups the rows by each of their values, which for texts is all
# of the data once more: in memory on this machine, through the network on a cluster. Up to 1,000 values are counted
# exactly, and of classes there are fewer; of texts the counts are wrong by 0.1 % of the rows at most.
STATISTICS = StatsOptions(use_sketch_based_topk_uniques=True)


class WayIn(NamedTuple):
    """Rows that passed the gate.

    Attributes:
        examples: rows as tf.Examples, splits kept.
        schema: what every row looks like.
        gate: that the data passed.
        components: what made them, in order.
        fingerprints: of what was read, by what it is.
    """

    examples: BaseChannel
    schema: BaseChannel
    gate: BaseChannel
    components: list[BaseComponent]
    fingerprints: dict[str, str]


def column_names(settings: Settings) -> dict[str, str | None]:
    """The columns by what they are for, as far as the shape knows of it.

    Example: {"text": "review", "text_pair": None, "label": "sentiment", "slice": None}.
    """
    return {role: getattr(settings.data, role) for role in ROLES if hasattr(settings.data, role)}


def way_in(settings: Settings, place: Place) -> WayIn:
    """The steps read, look and gate.

    Args:
        settings: validated, with absolute paths.
        place: where it is to run.

    Raises:
        TextrailError: data or schema are not where the settings say.
    """
    data, columns = settings.data, json.dumps(column_names(settings))
    source = data.model_dump(exclude={"schema_file"})
    fingerprints = {"data": place.data(source), "schema": place.schema(data.schema_file)}

    examples = ExampleGen(data=json.dumps(source), fingerprint=fingerprints["data"])
    statistics = StatisticsGen(examples=examples.outputs["examples"], stats_options=STATISTICS)
    schema = SchemaGen(statistics=statistics.outputs["statistics"], columns=columns, curated=data.schema_file or "",
                       fingerprint=fingerprints["schema"])
    anomalies = ExampleValidator(statistics=statistics.outputs["statistics"], schema=schema.outputs["schema"])
    gate = AnomalyGate(examples=examples.outputs["examples"], anomalies=anomalies.outputs["anomalies"],
                       statistics=statistics.outputs["statistics"], columns=columns,
                       gate=settings.gate.model_dump_json(), destination=_destination(settings, place))
    return WayIn(examples.outputs["examples"], schema.outputs["schema"], gate.outputs["blessing"],
                 [examples, statistics, schema, anomalies, gate], fingerprints)


def imported(source: Encoder, place: Place, opaque: int = 0) -> tuple[BaseComponent, str]:
    """The step that brings an encoder, and the fingerprint of where it comes from.

    Args:
        source: the section of the settings.
        place: where the run is to be.
        opaque: longest input, in tokens, of a SavedModel that is taken as it is; 0 takes a BERT apart.

    Raises:
        TextrailError: the encoder is not where the settings say.
    """
    fingerprint = place.encoder(source.source, source.config or "", source.preprocessing or "")
    return EncoderImporter(source=source.source, sha256=source.sha256 or "",
                           lower_case="" if source.lower_case is None else json.dumps(source.lower_case),
                           config=source.config or "", preprocessing=source.preprocessing or "", opaque=opaque,
                           fingerprint=fingerprint), fingerprint


def way_out(settings: Settings, run: str, place: Place, rows: WayIn, *, made: Sequence[BaseComponent],
            functions: Sequence[str], fingerprints: Mapping[str, str] | None = None,
            judged: BaseChannel | None = None) -> pipeline.Pipeline:
    """The steps baseline, judge, check, push and tell, and with them the whole pipeline.

    Args:
        settings: validated, with absolute paths.
        run: name of the run.
        place: where it is to run.
        rows: the way in.
        made: what stands between, in order; the last trains.
        functions: import paths of what transforms and trains.
        fingerprints: of what else a model is made from, by what it is.
        judged: what the judge reads; none are the rows as they came.

    Returns:
        The pipeline, with caching on.

    Raises:
        TextrailError: the model served now reads other columns.
    """
    destination, *_, trainer = _destination(settings, place), *made
    model, columns = trainer.outputs["model"], column_names(settings)
    code, read = _code(settings, [*rows.components, *made], functions), rows.fingerprints | dict(fingerprints or {})
    reads = {key: columns.get(key) for key in ("text", "text_pair", "target")}
    now = place.served(destination, code, read, {"shape": settings.shape, **reads}, trainer.exec_properties)

    served = ServedModel(destination=destination, version=now.baseline)
    evaluator = Evaluator(examples=judged or rows.examples, model=model, baseline_model=served.outputs["model"],
                          settings=settings.model_dump())
    check = ModelCheck(model=model, examples=rows.examples, settings={"data": columns})
    pusher = Pusher(model=model, model_blessing=evaluator.outputs["blessing"],
                    infra_blessing=check.outputs["blessing"], evaluation=evaluator.outputs["evaluation"],
                    gate=rows.gate, destination=destination, keep=settings.push.keep, recipe=now.recipe,
                    baseline_version=now.baseline, attempt=now.attempt)
    report = _report(settings, run, place, rows, made, evaluator, pusher)
    return pipeline.Pipeline(
        pipeline_name=run, pipeline_root=place.pipeline_root, enable_cache=True,
        metadata_connection_config=metadata.sqlite_metadata_connection_config(place.metadata),
        components=[*rows.components, *made, served, evaluator, check, pusher, report])


def _report(settings: Settings, run: str, place: Place, rows: WayIn, made: Sequence[BaseComponent],
            evaluator: BaseComponent, pusher: BaseComponent) -> RunReport:
    """What tells of all the others: its inputs are what they made, by the names that they have there."""
    examples, statistics, _, anomalies, gate = rows.components
    outputs = {key: channel for maker in made for key, channel in maker.outputs.items()}
    return RunReport(
        run=run, settings=settings.model_dump(mode="json", exclude={"beam", "kubeflow"}),
        command=place.command(settings), metadata=place.metadata, examples=examples.outputs["examples"],
        statistics=statistics.outputs["statistics"], anomalies=anomalies.outputs["anomalies"],
        gate=gate.outputs["blessing"], evaluation=evaluator.outputs["evaluation"],
        pushed_model=pusher.outputs["pushed_model"],
        **{key: outputs[key] for key in ("encoder", "vocabulary", "transformed_examples", "model", "model_run")
           if key in outputs})


def _destination(settings: Settings, place: Place) -> str:
    return settings.push.destination or place.pushed


def _code(settings: Settings, makers: Sequence[BaseComponent], functions: Sequence[str]) -> str:
    """Names the settings and the code that a model is made with."""
    code = [code_fingerprint(function) for function in functions]
    code += [executor_fingerprint(maker.EXECUTOR_SPEC.class_path) for maker in makers]
    parts: dict[str, Any] = {"settings": settings.model_dump(exclude=NO_RECIPE), "code": code}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
