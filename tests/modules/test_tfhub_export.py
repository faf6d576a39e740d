"""What TF Hub's own loader makes of an exported encoder, in a process that does not know this project."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from modules.bert import pool
from modules.checkpoints import Hints, read_huggingface
from modules.tfhub_export import export_tfhub
from modules.tokenization import Tokenizer
from modules.weights import load_encoder

TEXTS = ["Good films", "the story was slow . we loved it !", ""]
NAMES = ("input_word_ids", "input_mask", "input_type_ids")

USE = """
import json, sys
import numpy as np, tensorflow as tf, tensorflow_hub as hub, tensorflow_text
folder, texts = sys.argv[1], json.load(sys.stdin)
def plain(value):
    value = value.to_list() if isinstance(value, tf.RaggedTensor) else value
    return {k: plain(v) for k, v in value.items()} if isinstance(value, dict) else (
        [plain(v) for v in value] if isinstance(value, (list, tuple)) else
        value.numpy().tolist() if hasattr(value, "numpy") else value)
preprocessing, encoder, said = hub.load(folder + "/preprocessing"), hub.load(folder + "/encoder"), {}
said["inputs"] = plain(preprocessing(tf.constant(texts)))
pieces = preprocessing.tokenize(tf.constant(texts))
said["pieces"] = plain(pieces)
said["pairs"] = {length: plain(preprocessing.bert_pack_inputs([pieces, pieces[::-1]], seq_length=length))
                 for length in (7, 24)}
words = tf.RaggedTensor.from_row_splits(pieces[:1], [0, 1])
said["grouped"] = plain(preprocessing.bert_pack_inputs([words], seq_length=tf.constant(6)))
said["special"] = plain(preprocessing.tokenize.get_special_tokens_dict())
said["lower"] = [bool(one.do_lower_case) for one in (preprocessing, encoder)]
said["vocabulary"] = [open(one.vocab_file.asset_path.numpy()).read().split() for one in (preprocessing, encoder)]
inputs = preprocessing(tf.constant(texts))
said["outputs"] = plain(encoder(inputs))
said["served"] = plain(encoder.signatures["serving_default"](**inputs))
said["pooling"] = encoder.pooling.numpy().decode()
said["names"] = {v.name: v.shape.as_list() for v in encoder.variables}
said["trainable"] = [v.name for v in encoder.trainable_variables]
said["losses"] = len(encoder.regularization_losses)
dropped = [encoder(inputs, training=True)["sequence_output"].numpy() for _ in range(2)]
said["draws differ"] = bool((dropped[0] != dropped[1]).any())
# As in TF Hub's own tutorial: strings in, one dense layer on top, all of it trained.
import tf_keras
sentences = tf_keras.layers.Input(shape=(), dtype=tf.string)
layer = hub.KerasLayer(encoder, trainable=True)
outputs = layer(hub.KerasLayer(preprocessing)(sentences))
model = tf_keras.Model(sentences, tf_keras.layers.Dense(1)(outputs["pooled_output"]))
model.compile(tf_keras.optimizers.Adam(1e-3), tf_keras.losses.BinaryCrossentropy(from_logits=True))
before = {v.name: v.numpy() for v in encoder.variables}
losses = model.fit(tf.constant(texts * 4), tf.constant([1, 0, 1] * 4), epochs=8, verbose=0).history["loss"]
said["losses fell"] = losses[-1] < losses[0]
said["moved"] = [v.name for v in encoder.variables if (before[v.name] != v.numpy()).any()]
packed = hub.KerasLayer(preprocessing.bert_pack_inputs, arguments=dict(seq_length=9))([pieces, pieces])
said["packed by a layer"] = packed["input_word_ids"].shape.as_list()
assert not {name for name in sys.modules if name.split(".")[0] in ("modules", "components", "tfx")}
json.dump(said, sys.stdout)
"""


def exported(encoder, folder, without_pooler: bool):
    checkpoint = read_huggingface(encoder, Hints())
    if without_pooler:
        for name in ("pooler.dense.weight", "pooler.dense.bias"):
            del checkpoint.tensors[name]
    export_tfhub(checkpoint, folder, max_length=16, truncate="middle")
    done = subprocess.run([sys.executable, "-I", "-W", "ignore", "-c", USE, str(folder)], input=json.dumps(TEXTS),
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return checkpoint, json.loads(done.stdout)


@pytest.fixture(scope="module", params=["cls", "mean"])
def used(request, tiny_encoder, tmp_path_factory):
    """Pooling, the encoder that was exported, and what the process said of it."""
    return request.param, *exported(tiny_encoder, tmp_path_factory.mktemp("hub"), request.param == "mean")


def test_texts_become_what_the_model_was_trained_on(used, tiny_encoder):
    _, checkpoint, said = used
    vocabulary = checkpoint.vocabulary
    ids = vocabulary.to_dense(Tokenizer(vocabulary).encode(tf.constant(TEXTS), max_length=16, truncate="middle"), 16)
    assert said["inputs"] == {"input_word_ids": ids.numpy().tolist(),
                              "input_mask": vocabulary.input_mask(ids).numpy().tolist(),
                              "input_type_ids": vocabulary.segment_ids(ids).numpy().tolist()}
    assert said["pieces"][2] == []
    assert said["pieces"][0] == ids.numpy()[0, 1:4].tolist()[:len(said["pieces"][0])]
    assert said["special"] == {"vocab_size": len(vocabulary.pieces), "padding_id": 0, "start_of_sequence_id": 2,
                               "end_of_segment_id": 3, "mask_id": 4}
    assert said["lower"] == [True, True]
    assert said["vocabulary"] == [list(vocabulary.pieces)] * 2


def test_segments_are_packed_to_any_length(used):
    _, _, said = used
    first, second, _ = said["pieces"]
    short, long = said["pairs"]["7"], said["pairs"]["24"]
    assert [len(row) for row in short["input_word_ids"]] == [7, 7, 7]
    assert long["input_word_ids"][0] == [2, *first, 3, 3] + [0] * (24 - len(first) - 3)   # with ""
    assert long["input_word_ids"][1] == [2, *second, 3, *second, 3][:24] + [0] * max(0, 21 - 2 * len(second))
    assert long["input_type_ids"][0] == [0] * (len(first) + 2) + [1] + [0] * (21 - len(first))
    assert short["input_word_ids"][1] == [2, *second[:2], 3, *second[:2], 3]   # longest first: 4 pieces of both
    assert said["grouped"]["input_word_ids"] == [[2, *first, 3] + [0] * (4 - len(first))]
    assert said["packed by a layer"] == [3, 9]


def test_outputs_are_those_of_the_encoder(used, tiny_encoder):
    pooling, _, said = used
    inputs = {name: tf.constant(said["inputs"][name], tf.int32) for name in NAMES}
    expected = load_encoder(tiny_encoder)(inputs)
    outputs = said["outputs"]
    assert set(outputs) == {"pooled_output", "default", "sequence_output", "encoder_outputs"}
    np.testing.assert_allclose(outputs["sequence_output"], expected["sequence_output"], atol=1e-5)
    np.testing.assert_allclose(outputs["pooled_output"], pool(expected, inputs["input_mask"], pooling), atol=1e-5)
    for ours, theirs in zip(outputs["encoder_outputs"], expected["encoder_outputs"], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert outputs["encoder_outputs"][-1] == outputs["sequence_output"]
    assert outputs["default"] == outputs["pooled_output"]
    assert set(said["served"]) == {"default", "pooled_output", "sequence_output"}
    for name, answer in said["served"].items():
        np.testing.assert_allclose(answer, outputs[name], atol=1e-6)
    assert said["pooling"] == pooling


def test_variables_have_the_hub_s_names_and_all_of_them_train(used):
    pooling, checkpoint, said = used
    shapes = said["names"]
    assert len(shapes) == len(checkpoint.tensors) == (39 if pooling == "cls" else 37)
    assert shapes["word_embeddings/embeddings:0"] == [len(checkpoint.vocabulary.pieces), 32]
    assert shapes["transformer/layer_1/self_attention/query/kernel:0"] == [32, 4, 8]
    assert shapes["transformer/layer_1/self_attention/query/bias:0"] == [4, 8]
    assert shapes["transformer/layer_0/self_attention/attention_output/kernel:0"] == [4, 8, 32]
    assert shapes["transformer/layer_0/intermediate/kernel:0"] == [32, 64]
    assert shapes["transformer/layer_0/output_layer_norm/gamma:0"] == [32]
    assert ("pooler_transform/kernel:0" in shapes) == (pooling == "cls")
    # A bias of the keys changes no probability, so it has no gradient but rounding.
    assert {*said["trainable"]} == {*shapes}
    assert {*shapes} - {*said["moved"]} <= {name for name in shapes if name.endswith("key/bias:0")}
    assert said["losses fell"] and said["draws differ"] and said["losses"] == 0
