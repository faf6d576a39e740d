"""The kinds of pipelines and their settings. Another kind is a file of settings, one that builds, and lines here."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from pipelines import classification_sections, pretraining_sections, translation_sections
from pipelines.sections import Settings

if TYPE_CHECKING:
    from tfx.orchestration.pipeline import Pipeline

    from pipelines.place import Place

DEFAULT = "classification"
SHAPES: dict[str, type[Settings]] = {
    "classification": classification_sections.Settings,
    "translation": translation_sections.Settings,
    "pretraining": pretraining_sections.Settings,
}
# Modules with `build(settings, run, place)`. They import TFX, which settings do without.
BUILDERS = {"classification": "pipelines.classification", "translation": "pipelines.translation",
            "pretraining": "pipelines.pretraining"}


def build(settings: Settings, run: str, place: Place) -> Pipeline:
    """The pipeline of a run.

    Args:
        settings: validated, with absolute paths.
        run: its name.
        place: where it is to run.

    Raises:
        TextrailError: what the settings name is not there, or does not fit.
    """
    return importlib.import_module(BUILDERS[settings.shape]).build(settings, run, place)
