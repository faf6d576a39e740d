"""Names of a served model's inputs, checked against what TensorFlow makes of them."""

import pytest
import tensorflow as tf

from modules.manifest import input_names


@pytest.mark.parametrize("columns, names", [
    (["review"], ["review"]), (["Review_2"], ["Review_2"]), (["question", "answer"], ["question", "answer"]),
    (["#1 String", "#2 String"], ["text", "text_pair"]),   # GLUE's
    (["review text"], ["text"]), (["review-text"], ["text"]), (["отзыв"], ["text"]), (["self"], ["text"]),
    (["Text", "text"], ["text", "text_pair"]),   # TensorFlow would call both "text"
])
def test_tensorflow_keeps_the_names(columns, names, tmp_path):
    assert input_names(columns) == names
    module = tf.Module()
    module.join = tf.function(lambda *texts: {"joined": tf.strings.join(texts)})
    specs = [tf.TensorSpec([None], tf.string, name) for name in names]
    tf.saved_model.save(module, tmp_path, {"serving_default": module.join.get_concrete_function(*specs)})
    loaded = tf.saved_model.load(tmp_path)
    answer = loaded.signatures["serving_default"](**{name: tf.constant([name]) for name in names})
    assert answer["joined"].numpy() == ["".join(names).encode()]
