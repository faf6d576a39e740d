import json

import keras
import numpy as np
import tensorflow as tf

from modules.manifest import MANIFEST
from modules.serving import export


class Doubler(tf.Module):
    def __init__(self):
        super().__init__()
        self.factor = tf.Variable(2.0)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def double(self, x):
        return {"y": x * self.factor}


def test_export_writes_model_and_manifest_at_once_and_leaves_nothing_beside(tmp_path):
    module = Doubler()
    (tmp_path / "model").mkdir()  # as TFX makes it
    signatures = {"serving_default": module.double.get_concrete_function()}
    export(module, signatures, str(tmp_path / "model"), {"classes": ["à", "b"]})
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert json.loads((tmp_path / "model" / MANIFEST).read_text("utf-8")) == {"classes": ["à", "b"]}
    loaded = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    assert loaded(x=tf.constant([1.5]))["y"].numpy().tolist() == [3.0]


def test_variables_of_keras_are_restored_by_the_graph_alone(tmp_path):
    """As TensorFlow Serving loads it, without a Python object, tables included."""
    class Shift(tf.Module):
        def __init__(self):
            super().__init__()
            self.layer = keras.layers.Dense(2, bias_initializer="ones")
            self.layer.build((None, 3))
            self.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["a"], [2.0]), 0.0)

        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, "x")])
        def shift(self, x):
            return {"y": self.layer(x) + self.table.lookup(tf.constant("a"))}

    module, folder, x = Shift(), str(tmp_path / "model"), np.float32([[1, 2, 3]])
    expected = module.shift(x)["y"].numpy()
    export(module, {"serving_default": module.shift.get_concrete_function()}, folder, {})
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        signature = tf.compat.v1.saved_model.loader.load(session, ["serve"], folder).signature_def["serving_default"]
        found = session.run(signature.outputs["y"].name, {signature.inputs["x"].name: x})
    np.testing.assert_allclose(found, expected)
    loaded = tf.saved_model.load(folder).signatures["serving_default"]
    np.testing.assert_allclose(loaded(x=tf.constant(x))["y"], expected)


def test_export_replaces_what_a_killed_one_left(tmp_path):
    module = Doubler()
    (tmp_path / "model.part").mkdir()
    (tmp_path / "model.part" / "half").write_text("")
    export(module, {"serving_default": module.double.get_concrete_function()}, str(tmp_path / "model"), {})
    assert not (tmp_path / "model" / "half").exists()
