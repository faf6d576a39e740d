"""TF1 and TF2 checkpoints, written with the peers' own API, give the outputs of the models that wrote them."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
import yaml

from modules.checkpoints import Hints
from modules.errors import TextrailError
from modules.tensorflow_checkpoints import read_checkpoint
from modules.tokenization import Tokenizer, Vocabulary
from modules.weights import load_encoder
from tests.modules import garden
from tests.modules.garden import CASED, INPUTS, WORDS


@pytest.fixture(scope="module")
def model():
    return garden.functional(WORDS)


def read(folder, hints=Hints()):  # noqa: B008  # frozen
    checkpoint = read_checkpoint(folder, hints)
    checkpoint.check(folder)
    return checkpoint


def assert_equal(checkpoint, expected, folder) -> None:
    """Our encoder, after a round trip through its folder, answers what the peer's does."""
    checkpoint.write(folder)
    ours = load_encoder(folder)({name: tf.constant(value) for name, value in INPUTS.items()})
    tokens = INPUTS["input_mask"] > 0
    np.testing.assert_allclose(ours["sequence_output"].numpy()[tokens], expected["sequence_output"][tokens], atol=1e-5)
    np.testing.assert_allclose(ours["pooled_output"].numpy(), expected["pooled_output"], atol=1e-5)


def test_the_tf1_release(model, tmp_path):
    slots = {"bert/pooler/dense/kernel/adam_m": np.zeros((10, 10), "float32"), "global_step": np.int64(7),
             "cls/predictions/transform/LayerNorm/gamma": np.ones(10, "float32"),
             "cls/seq_relationship/output_weights": np.zeros((2, 10), "float32")}
    garden.write_tf1(model, tmp_path / "release", WORDS, **slots)
    checkpoint = read(tmp_path / "release")
    assert checkpoint.layout == "TF1 checkpoint"
    assert (checkpoint.config.hidden_act, checkpoint.config.layer_norm_eps) == ("gelu_new", 1e-12)
    assert checkpoint.vocabulary == Vocabulary(tuple(WORDS), lower_case=True)
    assert_equal(checkpoint, garden.outputs(model), tmp_path / "ours")


def test_the_first_generation_of_model_garden(model, tmp_path):
    garden.write_beside(tmp_path / "tf2", WORDS)
    tf.train.Checkpoint(encoder=model).save(str(tmp_path / "tf2/bert_model.ckpt"))
    keys = [name for name, _ in tf.train.list_variables(str(tmp_path / "tf2/bert_model.ckpt-1"))]
    assert "encoder/layer_with_weights-4/_attention_layer/_query_dense/kernel/.ATTRIBUTES/VARIABLE_VALUE" in keys
    checkpoint = read(tmp_path / "tf2")
    assert checkpoint.layout == "TF2 checkpoint"
    assert_equal(checkpoint, garden.outputs(model), tmp_path / "ours")


def test_the_second_generation_of_model_garden_with_its_params(tmp_path):
    encoder = garden.encoder_v2(WORDS)
    garden.write_beside(tmp_path / "tf2", WORDS)
    values = json.loads((tmp_path / "tf2/bert_config.json").read_text())
    renamed = {"num_hidden_layers": "num_layers", "hidden_act": "hidden_activation"}
    params = {renamed.get(key, key): value for key, value in values.items()} | {"norm_first": False}
    experiment = {"task": {"model": {"encoder": {"type": "bert", "bert": params}}}}
    (tmp_path / "tf2/bert_config.json").unlink()
    (tmp_path / "tf2/params.yaml").write_text(yaml.safe_dump(experiment))
    tf.train.Checkpoint(model=encoder).save(str(tmp_path / "tf2/bert_model.ckpt"))
    keys = [name for name, _ in tf.train.list_variables(str(tmp_path / "tf2/bert_model.ckpt-1"))]
    assert "model/_transformer_layers/0/_attention_layer/_query_dense/kernel/.ATTRIBUTES/VARIABLE_VALUE" in keys
    assert_equal(read(tmp_path / "tf2"), garden.outputs(encoder), tmp_path / "ours")
    params["norm_first"] = True
    (tmp_path / "tf2/params.yaml").write_text(yaml.safe_dump(experiment))
    with pytest.raises(TextrailError, match=r"norm_first False in .*params\.yaml; received True"):
        read(tmp_path / "tf2")


@pytest.mark.parametrize("optimizer", [tf_keras.optimizers.Adam, tf_keras.optimizers.legacy.Adam])
def test_optimizer_slots_and_heads_are_left_out(model, tmp_path, optimizer):
    garden.write_beside(tmp_path / "tf2", WORDS)
    adam = optimizer()
    adam.apply_gradients([(tf.zeros_like(variable), variable) for variable in model.trainable_variables])
    head = tf.Module()
    head.dense = tf.Variable(np.zeros((10, 10), "float32"), name="cls/predictions/transform/dense/kernel")
    tf.train.Checkpoint(encoder=model, masked_lm=head, optimizer=adam).save(str(tmp_path / "tf2/bert_model.ckpt"))
    assert_equal(read(tmp_path / "tf2"), garden.outputs(model), tmp_path / "ours")


def test_of_several_checkpoints_the_latest_counts(model, tmp_path):
    garden.write_beside(tmp_path, WORDS)
    pooler = next(variable for variable in model.variables if variable.name == "pooler_transform/bias:0")
    before, checkpoint = pooler.numpy(), tf.train.Checkpoint(model=model)
    checkpoint.save(str(tmp_path / "bert_model.ckpt"))
    pooler.assign(before + 1)
    checkpoint.save(str(tmp_path / "bert_model.ckpt"))
    pooler.assign(before)
    np.testing.assert_array_equal(read(tmp_path).tensors["pooler.dense.bias"], before + 1)
    (tmp_path / "checkpoint").unlink()
    with pytest.raises(TextrailError, match=r"received bert_model\.ckpt-1, bert_model\.ckpt-2"):
        read(tmp_path)


def test_missing_extra_and_misshapen_variables_stand_in_one_table(model, tmp_path):
    garden.write_tf1(model, tmp_path, WORDS, **{"bert/adapter/kernel": np.zeros((3, 4), "float32")})
    garden.write_beside(tmp_path, WORDS, num_hidden_layers=3, intermediate_size=15)
    with pytest.raises(TextrailError) as caught:
        read(tmp_path)
    lines = caught.value.received.splitlines()
    assert lines[0] == "23 that differ:"
    assert "  bert/adapter/kernel: expected none, received [3, 4]" in lines
    assert "  encoder.layer.2.output.dense.bias: expected [10], received none" in lines
    assert ("  encoder.layer.0.output.dense.weight (bert/encoder/layer_0/output/dense/kernel): expected [10, 15], "
            "received [10, 14]") in lines


def test_other_heads_than_the_kernels_have(model, tmp_path):
    garden.write_beside(tmp_path, WORDS, num_attention_heads=5)
    tf.train.Checkpoint(encoder=model).save(str(tmp_path / "bert_model.ckpt"))
    with pytest.raises(TextrailError, match=r"expected num_attention_heads 2, .* received 5"):
        read(tmp_path)


def test_a_configuration_of_transformers_means_what_it_means_there(model, tmp_path):
    garden.write_tf1(model, tmp_path, WORDS)
    values = garden.config(WORDS, model_type="bert", layer_norm_eps=1e-6)
    (tmp_path / "config.json").write_text(json.dumps(values))
    config = read(tmp_path, Hints(config=tmp_path / "config.json")).config
    assert (config.hidden_act, config.layer_norm_eps) == ("gelu", 1e-6)
    (tmp_path / "config.json").write_text(json.dumps(values | {"model_type": "roberta"}))
    with pytest.raises(TextrailError, match=r"expected model_type 'bert' in .*; received 'roberta'"):
        read(tmp_path, Hints(config=tmp_path / "config.json"))


def test_missing_files_are_named(model, tmp_path):
    garden.write_tf1(model, tmp_path, WORDS)
    (tmp_path / "vocab.txt").rename(tmp_path / "words.txt")
    with pytest.raises(TextrailError, match=r"vocab\.txt"):
        read(tmp_path)
    assert read(tmp_path, Hints(preprocessing=tmp_path / "words.txt")).vocabulary.pieces == tuple(WORDS)
    (tmp_path / "bert_config.json").unlink()
    with pytest.raises(TextrailError, match=r"expected bert_config\.json or params\.yaml in .* Set encoder\.config"):
        read(tmp_path)
    data = tmp_path / "bert_model.ckpt.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:100])
    garden.write_beside(tmp_path, WORDS)
    with pytest.raises(TextrailError, match=r"a whole TensorFlow checkpoint at .*bert_model\.ckpt"):
        read(tmp_path)


@pytest.mark.parametrize(("name", "text"), [("bert_config.json", "[]"), ("tokenizer_config.json", "[]"),
                                            ("params.yaml", "task: {model: {encoder: bert}}")])
def test_files_of_another_form_are_named(model, tmp_path, name, text):
    garden.write_tf1(model, tmp_path, WORDS)
    if name == "params.yaml":
        (tmp_path / "bert_config.json").unlink()
    (tmp_path / name).write_text(text)
    with pytest.raises(TextrailError, match=rf"expected .*{name}; received"):
        read(tmp_path)


def test_a_cased_release_keeps_case_from_its_vocabulary_to_token_ids(tmp_path):
    model = garden.functional(CASED)
    garden.write_tf1(model, tmp_path / "cased", CASED)
    read(tmp_path / "cased").write(tmp_path / "ours")
    vocabulary = Vocabulary.read(tmp_path / "ours")
    assert not vocabulary.lower_case
    ids = Tokenizer(vocabulary).encode(tf.constant(["The film", "the Film"]), max_length=8)
    assert ids.to_list() == [[2, CASED.index("The"), 7, 3], [2, 5, CASED.index("Film"), 3]]
    read(tmp_path / "cased", Hints(lower_case=True)).write(tmp_path / "lowered")
    lowered = Tokenizer(Vocabulary.read(tmp_path / "lowered")).encode(tf.constant(["The Film"]), max_length=8)
    assert lowered.to_list() == [[2, 5, 7, 3]]
