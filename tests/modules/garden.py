"""A tiny BERT with the structure and the names of TF Model Garden's encoders, to write their files with.

It is Keras 2, as theirs is: query, key and value have one axis for the heads, and the activation is the tanh
approximation of gelu. Sizes are odd, so that no transposed matrix fits by chance.
"""

import json
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] the a film good bad ##s ##ed and . !".split()
CASED = [*WORDS, "The", "Film"]
HIDDEN, HEADS, INNER, POSITIONS, LAYERS = 10, 2, 14, 12, 2
IDS = np.array([[2, 5, 7, 3, 0, 0], [2, 8, 9, 3, 7, 3]], "int32")
INPUTS = {"input_word_ids": IDS, "input_mask": (IDS > 0).astype("int32"),
          "input_type_ids": np.array([[0] * 6, [0, 0, 0, 0, 1, 1]], "int32")}


def config(words: list[str], **changes) -> dict:
    """As bert_config.json has it; it knows no epsilon."""
    return {"vocab_size": len(words), "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
            "intermediate_size": INNER, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.1, "max_position_embeddings": POSITIONS, "type_vocab_size": 2,
            "initializer_range": 0.02} | changes


def write_beside(folder: Path, words: list[str], **changes) -> None:
    """Writes bert_config.json and vocab.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bert_config.json").write_text(json.dumps(config(words, **changes)))
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words))


class Table(tf_keras.layers.Layer):
    """Rows looked up by ids, or one for each position."""

    def __init__(self, rows: int, name: str):
        super().__init__(name=name)
        self.rows = rows

    def build(self, shape):
        self.embeddings = self.add_weight("embeddings", shape=(self.rows, HIDDEN))

    def call(self, inputs):
        return tf.gather(self.embeddings, inputs) if inputs.dtype == tf.int32 else self.embeddings[:tf.shape(inputs)[1]]


def norm(name: str) -> tf_keras.layers.Layer:
    return tf_keras.layers.LayerNormalization(axis=-1, epsilon=1e-12, name=name)


class Block(tf_keras.layers.Layer):
    def __init__(self, name: str):
        super().__init__(name=name)
        self._attention_layer = tf_keras.layers.MultiHeadAttention(HEADS, HIDDEN // HEADS, name="self_attention")
        self._attention_layer_norm = norm("self_attention_layer_norm")
        self._intermediate_dense = tf_keras.layers.EinsumDense("abc,cd->abd", (None, INNER), bias_axes="d",
                                                               name="intermediate")
        self._activation = tf_keras.layers.Activation(lambda x: tf_keras.activations.gelu(x, approximate=True))
        self._output_dense = tf_keras.layers.EinsumDense("abc,cd->abd", (None, HIDDEN), bias_axes="d", name="output")
        self._output_layer_norm = norm("output_layer_norm")

    def call(self, inputs):
        x, mask = inputs
        x = self._attention_layer_norm(x + self._attention_layer(x, x, attention_mask=mask[:, tf.newaxis, :]))
        inner = self._activation(self._intermediate_dense(x))
        return self._output_layer_norm(x + self._output_dense(inner))


def layers(words: list[str]) -> dict:
    return {"_embedding_layer": Table(len(words), "word_embeddings"),
            "_position_embedding_layer": Table(POSITIONS, "position_embedding"),
            "_type_embedding_layer": Table(2, "type_embeddings"),
            "_embedding_norm_layer": norm("embeddings/layer_norm"),
            "_transformer_layers": [Block(f"transformer/layer_{i}") for i in range(LAYERS)],
            "_pooler_layer": tf_keras.layers.Dense(HIDDEN, "tanh", name="pooler_transform")}


def connect(parts: dict, inputs: dict) -> dict:
    words = parts["_embedding_layer"](inputs["input_word_ids"])
    x = words + parts["_position_embedding_layer"](words) + parts["_type_embedding_layer"](inputs["input_type_ids"])
    x = parts["_embedding_norm_layer"](x)
    for block in parts["_transformer_layers"]:
        x = block([x, inputs["input_mask"]])
    return {"sequence_output": x, "pooled_output": parts["_pooler_layer"](x[:, 0])}


def functional(words: list[str]) -> tf_keras.Model:
    """The first generation, BertEncoder: a functional model, whose checkpoints count `layer_with_weights`."""
    tf_keras.backend.clear_session()
    inputs = {name: tf_keras.Input((None,), dtype=tf.int32, name=name) for name in INPUTS}
    return random(tf_keras.Model(inputs, connect(layers(words), inputs)))


class EncoderV2(tf_keras.layers.Layer):
    """The second generation, BertEncoderV2: a layer, whose checkpoints have the names of its attributes."""

    def __init__(self, words: list[str]):
        super().__init__(name="bert_encoder_v2")
        for name, part in layers(words).items():
            setattr(self, name, part)

    def call(self, inputs):
        return connect(vars(self), inputs)


def encoder_v2(words: list[str]) -> tf_keras.layers.Layer:
    tf_keras.backend.clear_session()
    encoder = EncoderV2(words)
    encoder({name: tf.constant(value) for name, value in INPUTS.items()})
    return random(encoder)


def random(model):
    """The model with new weights, large enough that every one of them shows in the outputs."""
    generator = np.random.default_rng(5)
    for variable in model.variables:
        value = generator.normal(0, 0.4, variable.shape).astype("float32")
        variable.assign(1 + value if "gamma" in variable.name else value)
    return model


def outputs(model) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in model({k: tf.constant(v) for k, v in INPUTS.items()}).items()}


def write_saved_model(model: tf_keras.Model, folder: Path) -> None:
    """Saves variables and function, without vocabulary and without what Keras saves of every layer, which is slow."""
    root = tf.train.Checkpoint()
    root.variables = model.variables
    root.__call__ = tf.function(lambda inputs: model(inputs))
    root.__call__.get_concrete_function({name: tf.TensorSpec([None, None], tf.int32, name) for name in INPUTS})
    tf.saved_model.save(root, str(folder))


def write_tf1(model: tf_keras.Model, folder: Path, words: list[str], **others: np.ndarray) -> None:
    """The weights as google-research/bert saves them: its names, and matrices where the heads lie side by side.

    Args:
        model: of `functional`.
        folder: created.
        words: the vocabulary.
        **others: further variables.
    """
    write_beside(folder, words)
    names = (("word_embeddings/embeddings", "embeddings/word_embeddings"),
             ("position_embedding/embeddings", "embeddings/position_embeddings"),
             ("type_embeddings/embeddings", "embeddings/token_type_embeddings"),
             ("embeddings/layer_norm", "embeddings/LayerNorm"), ("output_layer_norm", "output/LayerNorm"),
             ("self_attention_layer_norm", "attention/output/LayerNorm"),
             ("self_attention/attention_output", "attention/output/dense"),
             ("self_attention/", "attention/self/"), ("intermediate/", "intermediate/dense/"),
             ("/output/kernel", "/output/dense/kernel"), ("/output/bias", "/output/dense/bias"),
             ("transformer/", "encoder/"), ("pooler_transform", "pooler/dense"))
    values = {}
    for variable in model.variables:
        name, value = variable.name.removesuffix(":0"), variable.numpy()
        old = next(old for old, _ in names if old in name)
        name = name.replace(*next(pair for pair in names if pair[0] == old)).replace("transformer/", "encoder/")
        if name.endswith("kernel"):
            value = value.reshape(-1, HIDDEN) if "attention/output" in name else value.reshape(value.shape[0], -1)
        elif value.ndim == 2 and name.endswith("bias"):
            value = value.reshape(-1)
        values[f"bert/{name}"] = value
    values |= others
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = {name: tf.compat.v1.get_variable(name, initializer=value) for name, value in values.items()}
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver(variables).save(session, str(folder / "bert_model.ckpt"), write_meta_graph=False)
