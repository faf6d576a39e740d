"""A few texts of a run's data, to try its model on."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

import tensorflow as tf

from modules.sentences import split_sentences
from pipelines.answers import MASK

COUNT = 5
A_LABEL = 2          # Of each label, so that a sorted split shows more than one.
LOOKED_AT = 100      # Rows for each that is wanted.
MAX_CHARACTERS = 300
MASKED_WORDS = 8     # At least, of a sentence that says something about a word in it.
LOOKED_INTO = 4000   # Characters of a text, for a sentence.


def examples(artifacts: str, columns: Sequence[str], label: str | None, count: int = COUNT, masked: bool = False
             ) -> list[list[str]]:
    """Short texts from the split that the model was not trained on.

    Args:
        artifacts: folder or URI of what the run's components made; without its data there are none.
        columns: that the model reads.
        label: column of the class, if there is one.
        count: of the rows.
        masked: whether to take a sentence of each text, with a mask in it.

    Returns:
        A few rows, a text for each column.
    """
    found: list[list[str]] = []
    seen: Counter[str] = Counter()
    for record in tf.data.TFRecordDataset(_files(artifacts), "GZIP").take(LOOKED_AT * count).as_numpy_iterator():
        features = tf.train.Example.FromString(record).features.feature
        texts = [_value(features, column) for column in columns]
        texts = [with_mask(text) for text in texts] if masked else texts
        kind = _value(features, label) if label else ""
        usual = all(text.strip() and len(text) <= MAX_CHARACTERS for text in texts)
        if usual and texts not in found and (not label or seen[kind] < A_LABEL):
            found.append(texts)
            seen[kind] += 1
        if len(found) == count:
            break
    return found


def with_mask(text: str) -> str:
    """The first usual sentence of a text with [MASK] for a word near its middle, or "" if it has none.

    Example:
        >>> with_mask("Yes. The old bridge was opened by a queen in 1850.")
        'The old bridge was [MASK] by a queen in 1850.'
    """
    for sentence in split_sentences(text[:LOOKED_INTO]):
        words = sentence.split()
        middle = len(words) // 2
        near = sorted(range(1, len(words) - 1), key=lambda place: abs(place - middle))
        place = next((place for place in near if len(words[place]) > 3 and words[place].isalpha()), None)
        if place is not None and len(words) >= MASKED_WORDS and len(sentence) <= MAX_CHARACTERS:
            return " ".join([*words[:place], MASK, *words[place + 1:]])
    return ""


def _files(artifacts: str) -> list[str]:
    """Those of the newest data, of the test split or else of the one for validation."""
    made = sorted(tf.io.gfile.glob(os.path.join(artifacts, "ExampleGen", "examples", "*")),
                  key=lambda path: int(os.path.basename(path)))
    for split in ("test", "validation") if made else ():
        if files := sorted(tf.io.gfile.glob(os.path.join(made[-1], f"Split-{split}", "*.gz"))):
            return files
    return []


def _value(features: object, column: str) -> str:
    values = features[column].bytes_list.value   # type: ignore[index]
    return values[0].decode("utf-8", "replace") if values else ""
