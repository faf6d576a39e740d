"""A classifier that goes by one word, with the signature and manifest that every exported model has."""

import json
from pathlib import Path

from modules.manifest import input_names


def save_classifier(folder: Path, columns: list[str]) -> None:
    """A model that is 75 % sure of `pos` where "good" occurs in any text, and of `neg` elsewhere."""
    import tensorflow as tf

    module, names = tf.Module(), input_names(columns)

    def answer(**texts):
        good = tf.reduce_any([tf.strings.regex_full_match(texts[name], r"(?s).*good.*") for name in names], axis=0)
        scores = tf.where(good[:, None], [[0.25, 0.75]], [[0.75, 0.25]])
        classes = tf.broadcast_to(tf.constant([["neg", "pos"]]), tf.shape(scores))
        return {"label": tf.where(good, "pos", "neg"), "score": tf.reduce_max(scores, axis=1), "scores": scores,
                "classes": classes}

    module.answer = tf.function(answer, input_signature=None)
    inputs = {name: tf.TensorSpec([None], tf.string, name) for name in names}
    tf.saved_model.save(module, folder, {"serving_default": module.answer.get_concrete_function(**inputs)})
    (folder / "assets.extra").mkdir()
    (folder / "assets.extra/textrail.json").write_text(json.dumps({
        "shape": "classification", "text": columns[0], "text_pair": columns[1] if columns[1:] else None,
        "label": "kind", "inputs": names, "classes": ["neg", "pos"], "max_length": 128}))
