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
| tell     | RunReport                                   | one HTML page on all of it                        |
"""

from __future__ import annotations

from typing import Any

from tfx.orchestration import pipeline

from components.text_transform import TextTransform
from components.trainer import Trainer
from pipelines.classification_sections import Settings
from pipelines.place import Place
from pipelines.steps import column_names, imported, way_in, way_out

PREPROCESSING_FN = "modules.classifier.preprocessing_fn"
RUN_FN = "modules.classifier.run_fn"


def build(settings: Settings, run: str, place: Place) -> pipeline.Pipeline:
    """The pipeline of a classification run.

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

    opaque = settings.model.max_length if settings.encoder.opaque else 0
    encoder, fingerprint = imported(settings.encoder, place, opaque)
    transform = TextTransform(examples=rows.examples, schema=rows.schema, encoder=encoder.outputs["encoder"],
                              gate=rows.gate, settings=transform_settings(settings), preprocessing_fn=PREPROCESSING_FN)
    trainer = Trainer(examples=transform.outputs["transformed_examples"],
                      transform_graph=transform.outputs["transform_graph"], encoder=encoder.outputs["encoder"],
                      gate=rows.gate, settings=trainer_settings(settings), run_fn=RUN_FN,
                      checkpoints=place.checkpoints)
    return way_out(settings, run, place, rows, made=[encoder, transform, trainer],
                   functions=[PREPROCESSING_FN, RUN_FN], fingerprints={"encoder": fingerprint})


def transform_settings(settings: Settings) -> dict[str, Any]:
    """What the preprocessing function is told of the settings."""
    return {"data": column_names(settings), "max_length": settings.model.max_length,
            "truncate": settings.model.truncate}


def trainer_settings(settings: Settings) -> dict[str, Any]:
    """What the run function is told of the settings."""
    return {"seed": settings.seed, "data": column_names(settings), "model": settings.model.model_dump(),
            "training": settings.training.model_dump(), "head": settings.encoder.head}
