"""The kinds of pipelines and their settings. Another kind is a file of settings, one that builds, and lines here."""

from __future__ import annotations

from pipelines import classification_sections, pretraining_sections, translation_sections
from pipelines.sections import Settings

DEFAULT = "classification"
SHAPES: dict[str, type[Settings]] = {
    "classification": classification_sections.Settings,
    "translation": translation_sections.Settings,
    "pretraining": pretraining_sections.Settings,
}
