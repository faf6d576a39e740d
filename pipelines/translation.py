"""Translation: two columns of texts to a pushed model that answers plain strings in the other language.

| step     | component                                   | what comes out                                    |
|----------|---------------------------------------------|---------------------------------------------------|
| read     | ExampleGen                                  | rows as tf.Examples, splits kept                  |
| look     | StatisticsGen, SchemaGen                    | statistics, schema                                |
| gate     | ExampleValidator, AnomalyGate               | nothing, or a stop with feature, reason and fix   |
| words    | VocabularyGen                               | subwords of both languages, learned, checked      |
| encode   | TextTransform                               | unpadded token ids, and the graph that makes them |
| train    | Trainer                                     | SavedModel with its search, history               |
| baseline | ServedModel                                 | what the push destination serves now              |
| judge    | Evaluator                                   | BLEU and chrF, slices, verdict                    |
| check    | ModelCheck                                  | a fresh process asked it plain strings            |
| push     | Pusher                                      | a new version, or a stop with the table           |
| tell     | RunReport                                   | one HTML page on all of it                        |
"""

from __future__ import annotations

from typing import Any

from tfx.orchestration import pipeline

from components.text_transform import TextTransform
from components.trainer import Trainer
from components.vocabulary_gen import VocabularyGen
from pipelines.place import Place
from pipelines.steps import column_names, way_in, way_out
from pipelines.translation_sections import Settings

PREPROCESSING_FN = "modules.translation.preprocessing_fn"
RUN_FN = "modules.translation.run_fn"


def build(settings: Settings, run: str, place: Place) -> pipeline.Pipeline:
    """The pipeline of a translation run.

    Args:
        settings: validated, with absolute paths.
        run: name of the run.
        place: where it is to run.

    Returns:
        The pipeline, with caching on.

    Raises:
        TextrailError: data or schema are not where the settings say.
    """
    rows = way_in(settings, place)

    vocabulary = VocabularyGen(examples=rows.examples, gate=rows.gate, settings=vocabulary_settings(settings))
    transform = TextTransform(examples=rows.examples, schema=rows.schema, vocabulary=vocabulary.outputs["vocabulary"],
                              gate=rows.gate, settings=transform_settings(settings), preprocessing_fn=PREPROCESSING_FN)
    trainer = Trainer(examples=transform.outputs["transformed_examples"],
                      transform_graph=transform.outputs["transform_graph"],
                      vocabulary=vocabulary.outputs["vocabulary"], gate=rows.gate, settings=trainer_settings(settings),
                      run_fn=RUN_FN, checkpoints=place.checkpoints)
    return way_out(settings, run, place, rows, made=[vocabulary, transform, trainer],
                   functions=[PREPROCESSING_FN, RUN_FN])


def vocabulary_settings(settings: Settings) -> dict[str, Any]:
    """What the learner of vocabularies is told of the settings."""
    return {"data": column_names(settings), "vocabulary": settings.vocabulary.model_dump()}


def transform_settings(settings: Settings) -> dict[str, Any]:
    """What the preprocessing function is told of the settings."""
    return {"data": column_names(settings), "max_tokens": settings.model.max_tokens}


def trainer_settings(settings: Settings) -> dict[str, Any]:
    """What the run function is told of the settings."""
    return {"seed": settings.seed, "data": column_names(settings), "vocabulary": settings.vocabulary.model_dump(),
            "model": settings.model.model_dump(), "training": settings.training.model_dump(),
            "decoding": settings.decoding.model_dump()}
