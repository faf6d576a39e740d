"""What a pushed version says of itself: known without loading it, and without TensorFlow where it is a local folder."""

from __future__ import annotations

from components.versions import read_manifest
from pipelines.answers import ANSWERS


class Described:
    """A version by its manifest.

    Args:
        folder: of the version, local or a URI.

    Attributes:
        folder: as given.
        manifest: what the model says about itself, see `read_manifest`.
        columns: of the data, in the order in which they are read.
        names: of the inputs of `serving_default`, one for each column.
        answers: how its answers are read and shown.

    Raises:
        TextrailError: it is no model of this project.
    """

    def __init__(self, folder: str):
        self.folder = folder
        self.manifest = read_manifest(folder)
        self.columns = [self.manifest[key] for key in ("text", "text_pair") if self.manifest.get(key)]
        self.names: list[str] = self.manifest.get("inputs", self.columns)
        self.answers = ANSWERS[self.manifest["shape"]](self.manifest)
