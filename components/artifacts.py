"""Artifact types that TFX lacks."""

from tfx.types.artifact import Artifact


class Encoder(Artifact):
    """A BERT in HuggingFace's layout: `config.json`, `vocab.txt`, `tokenizer_config.json`, `model.safetensors`.

    Of an opaque encoder `saved_model/` stands in the place of the weights; see `modules.opaque`.
    """

    TYPE_NAME = "Encoder"


class Vocabulary(Artifact):
    """Pieces of words, learned from the training split, and `report.json` on how well they cover it.

    Of a translation there are the folders `source/` and `target/`, each with `vocab.txt` and `subwords.json` as
    `modules.subwords.Subwords` reads them; of a BERT, `vocab.txt` and `tokenizer_config.json` as
    `modules.tokenization.Vocabulary` does.
    """

    TYPE_NAME = "Vocabulary"


class DataBlessing(Artifact):
    """That the data passed its gate: `report.json` with label counts, blank texts and accepted anomalies by split."""

    TYPE_NAME = "DataBlessing"


class Report(Artifact):
    """`report.html`: what a run did, for a person to read."""

    TYPE_NAME = "Report"
