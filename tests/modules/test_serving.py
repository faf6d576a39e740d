import json

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


def test_export_replaces_what_a_killed_one_left(tmp_path):
    module = Doubler()
    (tmp_path / "model.part").mkdir()
    (tmp_path / "model.part" / "half").write_text("")
    export(module, {"serving_default": module.double.get_concrete_function()}, str(tmp_path / "model"), {})
    assert not (tmp_path / "model" / "half").exists()
