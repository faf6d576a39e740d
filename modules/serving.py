"""What every exported model has in common: it owns its transform graph, takes plain strings, and says what it is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

import keras
import tensorflow as tf
import tensorflow_transform as tft

from modules.manifest import DESCRIPTION, MANIFEST


class RawFeatures(tf.Module):
    """The transform graph, ready to be called from a signature.

    Args:
        transform_graph: folder that the Transform step wrote.
    """

    def __init__(self, transform_graph: str):
        super().__init__()
        output = tft.TFTransformOutput(transform_graph)
        self.spec = output.raw_feature_spec()
        self.layer = output.transform_features_layer()  # kept, so that its assets are saved with the model

    def from_strings(self, texts: Mapping[str, tf.Tensor]) -> dict[str, Any]:
        """Plain strings by feature name, each [batch], to transformed features."""
        return self.layer({name: self._as_parsed(name, values) for name, values in texts.items()})

    def from_examples(self, serialized: tf.Tensor, *, without: str | None = None) -> dict[str, Any]:
        """Serialized tf.Examples [batch] to transformed features.

        Args:
            serialized: [batch] string.
            without: feature that is not read: the label, which a server does not know.
        """
        spec = {name: feature for name, feature in self.spec.items() if name != without}
        return self.layer(tf.io.parse_example(serialized, spec))

    def strings(self, serialized: tf.Tensor, name: str) -> tf.Tensor:
        """One raw column of serialized tf.Examples [batch]: [batch] string, "" where it is missing and may be."""
        return column(tf.io.parse_example(serialized, {name: self.spec[name]})[name])

    def _as_parsed(self, name: str, values: tf.Tensor) -> tf.Tensor | tf.SparseTensor:
        """[batch] strings in the form in which tf.io.parse_example would have given them."""
        if isinstance(self.spec[name], tf.io.FixedLenFeature):
            return tf.reshape(values, [-1, *self.spec[name].shape])  # [batch] or [batch, 1]
        rows = tf.range(tf.size(values, out_type=tf.int64))
        return tf.SparseTensor(tf.stack([rows, tf.zeros_like(rows)], axis=1), values,
                               tf.stack([tf.size(values, out_type=tf.int64), 1]))


def column(values: tf.Tensor | tf.SparseTensor) -> tf.Tensor:
    """One string a row from a raw column, dense or sparse [batch, at most 1] → [batch]; a missing one is ""."""
    if isinstance(values, tf.SparseTensor):
        rows = values.dense_shape[0]
        values = tf.sparse.to_dense(tf.sparse.reset_shape(values, tf.stack([rows, 1])), default_value="")
    return tf.reshape(values, [-1])  # [batch]


def export(module: tf.Module, signatures: Mapping[str, Any], folder: str, manifest: Mapping[str, Any],
           describe: Callable[[str], None] | None = None) -> None:
    """Writes a SavedModel with its manifest, beside and then renamed: a reader never sees half of it.

    Args:
        module: owns all variables and assets.
        signatures: name → concrete function.
        folder: where the SavedModel goes.
        manifest: what a client needs to know beside the signatures, written to `assets.extra/textrail.json`.
        describe: writes into the folder it is given what the encoder is, so that it can be had back.
    """
    beside = folder.rstrip("/") + ".part"
    if tf.io.gfile.exists(beside):
        tf.io.gfile.rmtree(beside)
    save(module, beside, signatures)
    path = os.path.join(beside, MANIFEST)
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(json.dumps(manifest, indent=1, ensure_ascii=False))
    if describe is not None:
        describe(os.path.join(beside, DESCRIPTION))
    if tf.io.gfile.isdir(folder) and not tf.io.gfile.listdir(folder):
        tf.io.gfile.rmtree(folder)  # TFX makes the folder of an output before the component runs
    tf.io.gfile.rename(beside, folder, overwrite=True)


def save(module: Any, folder: str, signatures: Mapping[str, Any]) -> None:
    """Writes a SavedModel whose variables are filled whoever loads it.

    TensorFlow Serving, KServe and every other loader in C++ run the graph's restore operation. Keras 3 puts a second
    variable in the place of each of its own when it is asked into the graph (`keras.Variable`, and no other, in Keras
    3.12 and 3.15): the operation would fill those, signatures read the first ones, and a request would be answered with
    "Could not find variable". `tf.saved_model.load` assigns variables itself and does not notice.

    Args:
        module: owns all variables and assets.
        folder: a new one.
        signatures: name → concrete function.
    """
    def into_graph(variable: keras.Variable, object_map: Any, tensor_map: Any, options: Any, **kwargs: Any) -> Any:
        resources = variable.value._export_to_saved_model_graph(object_map, tensor_map, options, **kwargs)
        object_map[variable] = object_map[variable.value]
        return resources

    with mock.patch.object(keras.Variable, "_export_to_saved_model_graph", into_graph):
        tf.saved_model.save(module, folder, signatures=dict(signatures))
