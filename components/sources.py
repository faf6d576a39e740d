"""What `data.source` can name. A new kind is a class that does what `rows.Source` says, and a line here."""

from __future__ import annotations

from collections.abc import Callable

from components.rows import Source
from components.source_csv import CsvSource
from components.source_grammar import GrammarSource
from components.source_text import TextSource
from components.source_tfds import TfdsSource
from components.source_tfrecord import TfrecordSource

SOURCES: dict[str, Callable[[dict], Source]] = {
    "csv": CsvSource, "grammar": GrammarSource, "text": TextSource, "tfds": TfdsSource, "tfrecord": TfrecordSource}


def make_source(data: dict) -> Source:
    """The source that `sections.Data`, as a dict with absolute paths or URIs, describes."""
    return SOURCES[data["source"]](data)


def data_fingerprint(data: dict) -> str:
    """Hex digest of what `data` points to, so that the cache sees a changed file and only that.

    Imports neither TensorFlow nor TFX, unless a TFDS data set is missing and `data.download` asks for it.

    Args:
        data: `sections.Data` as a dict; paths are absolute or URIs.

    Raises:
        TextrailError: no file matches, or the data set is not there.
    """
    return make_source(data).fingerprint()
