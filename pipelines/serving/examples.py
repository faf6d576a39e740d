"""A few texts of a run's data, to try its model on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

COUNT = 5
A_LABEL = 2          # Of each label, so that a sorted split shows more than one.
LOOKED_AT = 100      # Rows for each that is wanted.
MAX_CHARACTERS = 300


def examples(pipeline_root: Path, columns: Sequence[str], label: str | None, count: int = COUNT) -> list[list[str]]:
    """Short texts from the split that the model was not trained on.

    Args:
        pipeline_root: of the run; without its data there are none.
        columns: that the model reads.
        label: column of the class, if there is one.
        count: of the rows.

    Returns:
        A few rows, a text for each column.
    """
    found: list[list[str]] = []
    seen: Counter[str] = Counter()
    for record in tf.data.TFRecordDataset(_files(pipeline_root), "GZIP").take(LOOKED_AT * count).as_numpy_iterator():
        features = tf.train.Example.FromString(record).features.feature
        texts = [_value(features, column) for column in columns]
        kind = _value(features, label) if label else ""
        usual = all(text.strip() and len(text) <= MAX_CHARACTERS for text in texts)
        if usual and texts not in found and (not label or seen[kind] < A_LABEL):
            found.append(texts)
            seen[kind] += 1
        if len(found) == count:
            break
    return found


def _files(pipeline_root: Path) -> list[str]:
    """Those of the newest data, of the test split or else of the one for validation."""
    made = sorted(pipeline_root.glob("ExampleGen/examples/*"), key=lambda path: int(path.name))
    for split in ("test", "validation") if made else ():
        if files := sorted(map(str, made[-1].glob(f"Split-{split}/*.gz"))):
            return files
    return []


def _value(features: object, column: str) -> str:
    values = features[column].bytes_list.value   # type: ignore[index]
    return values[0].decode("utf-8", "replace") if values else ""
