"""Artifact types that TFX lacks."""

from tfx.types.artifact import Artifact


class Encoder(Artifact):
    """A BERT in HuggingFace's layout: `config.json`, `vocab.txt`, `tokenizer_config.json`, `model.safetensors`.

    Of an opaque encoder `saved_model/` stands in the place of the weights; see `modules.opaque`.
    """

    TYPE_NAME = "Encoder"


class DataBlessing(Artifact):
    """That the data passed its gate: `report.json` with label counts, blank texts and accepted anomalies by split."""

    TYPE_NAME = "DataBlessing"
