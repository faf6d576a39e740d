"""Pretraining: documents to a pushed BERT that knows their words, and that other models start from.

| step     | component                                   | what comes out                                    |
|----------|---------------------------------------------|---------------------------------------------------|
| read     | ExampleGen                                  | documents as tf.Examples, splits kept             |
| look     | StatisticsGen, SchemaGen                    | statistics, schema                                |
| gate     | ExampleValidator, AnomalyGate               | nothing, or a stop with feature, reason and fix   |
| words    | VocabularyGen, or EncoderImporter           | wordpieces, learned; or an encoder, checked       |
| encode   | InstanceGen                                 | unpadded token ids, two segments to an example    |
| train    | Trainer                                     | SavedModel that fills masks, history              |
| baseline | ServedModel                                 | what the push destination serves now              |
| judge    | Evaluator                                   | accuracy behind masks, slices, verdict            |
| check    | ModelCheck                                  | a fresh process asked it plain strings            |
| push     | Pusher                                      | a new version, or a stop with the table           |
| tell     | RunReport                                   | one HTML page on all of it                        |
"""

from __future__ import annotations

from typing import Any

from tfx.orchestration import pipeline

from components.instance_gen import InstanceGen
from components.trainer import Trainer
from components.vocabulary_gen import VocabularyGen
from pipelines.place import Place
from pipelines.pretraining_sections import Settings
from pipelines.steps import column_names, imported, way_in, way_out

RUN_FN = "modules.pretraining.run_fn"


def build(settings: Settings, run: str, place: Place) -> pipeline.Pipeline:
    """The pipeline of a pretraining run.

    Args:
        settings: validated, with absolute paths.
        run: name of the run.
        place: where it is to run.

    Returns:
        The pipeline, with caching on.

    Raises:
        TextrailError: data, encoder or schema are not where the settings say.
    """
    rows = way_in(settings, place)

    fingerprints: dict[str, str] = {}
    if settings.encoder:
        words, fingerprints["encoder"] = imported(settings.encoder, place)
    else:
        words = VocabularyGen(examples=rows.examples, gate=rows.gate, settings=vocabulary_settings(settings))
    known = dict(words.outputs)   # `encoder` or `vocabulary`
    instances = InstanceGen(examples=rows.examples, gate=rows.gate, settings=instance_settings(settings), **known)
    trainer = Trainer(examples=instances.outputs["transformed_examples"], gate=rows.gate,
                      settings=trainer_settings(settings), run_fn=RUN_FN, checkpoints=place.checkpoints, **known)
    return way_out(settings, run, place, rows, made=[words, instances, trainer], functions=[RUN_FN],
                   fingerprints=fingerprints, judged=instances.outputs["transformed_examples"])


def vocabulary_settings(settings: Settings) -> dict[str, Any]:
    """What the learner of wordpieces is told of the settings."""
    return {"kind": "bert", "data": column_names(settings), "vocabulary": settings.vocabulary.model_dump()}


def instance_settings(settings: Settings) -> dict[str, Any]:
    """What the maker of examples is told of the settings."""
    packing = settings.instances.model_dump()
    return {"text": settings.data.text, "split_on": packing.pop("split_on"), "seed": settings.seed, "packing": packing}


def trainer_settings(settings: Settings) -> dict[str, Any]:
    """What the run function is told of the settings."""
    told = settings.model_dump(include={"seed", "instances", "masking", "model", "training", "filling"})
    return {**told, "data": column_names(settings), "evaluation": {"passes": settings.evaluation.passes}}
