"""TF Hub's BERTs: a SavedModel becomes an encoder of ours, or says why not."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text as tf_text
import tf_keras
from tensorflow.core.protobuf import saved_model_pb2

from modules.checkpoints import Hints
from modules.errors import TextrailError
from modules.saved_models import read_saved_model, vocabulary_at
from modules.tokenization import Vocabulary
from modules.weights import load_encoder
from tests.modules import garden
from tests.modules.garden import CASED, INPUTS


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """As TF Hub's: a Keras model with the vocabulary and the case flag on it; and what it answers."""
    folder, model = tmp_path_factory.mktemp("hub"), garden.functional(CASED)
    garden.write_beside(folder / "beside", CASED)
    model.vocab_file = tf.saved_model.Asset(str(folder / "beside/vocab.txt"))
    model.do_lower_case = tf.Variable(False, trainable=False)
    model.save(folder / "encoder", include_optimizer=False, save_format="tf")
    return folder / "encoder", garden.outputs(model)


@pytest.fixture
def bare(tmp_path):
    """One without vocabulary, in a folder of its own; its activation is gelu itself, its epsilon another."""
    model = tf_keras.Sequential([tf_keras.layers.Dense(3, activation="relu", input_shape=(2,))])
    model.save(tmp_path / "other", save_format="tf")
    return tmp_path / "other"


def test_all_that_counts_is_read_from_the_saved_model(hub, tmp_path):
    folder, expected = hub
    checkpoint = read_saved_model(folder, Hints())
    assert checkpoint.vocabulary == Vocabulary(tuple(CASED), lower_case=False)
    config = checkpoint.config
    assert (config.num_attention_heads, config.hidden_act, config.layer_norm_eps) == (2, "gelu_new", 1e-12)
    assert (config.num_hidden_layers, config.hidden_size, config.intermediate_size) == (2, 10, 14)
    assert (config.vocab_size, config.max_position_embeddings, config.type_vocab_size) == (len(CASED), 12, 2)
    checkpoint.write(tmp_path)
    ours = load_encoder(tmp_path)({name: tf.constant(value) for name, value in INPUTS.items()})
    tokens = INPUTS["input_mask"] > 0
    np.testing.assert_allclose(ours["sequence_output"].numpy()[tokens], expected["sequence_output"][tokens], atol=1e-5)
    np.testing.assert_allclose(ours["pooled_output"].numpy(), expected["pooled_output"], atol=1e-5)


def test_a_configuration_that_computes_something_else_is_refused(hub, tmp_path):
    values = garden.config(CASED, model_type="bert", hidden_act="relu", layer_norm_eps=1e-12)
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(TextrailError, match="outputs that differ by"):
        read_saved_model(hub[0], Hints(config=tmp_path / "config.json"))


@pytest.mark.parametrize("activation, epsilon, name", [
    ("gelu", 1e-5, "gelu"), ("relu", 1e-12, "relu"),
    (lambda x: tf.nn.gelu(x, approximate=True), 1e-3, "gelu_new")])
def test_activation_and_epsilon_stand_in_the_graph(tmp_path, monkeypatch, activation, epsilon, name):
    words = CASED
    monkeypatch.setattr(garden, "norm", lambda name: tf_keras.layers.LayerNormalization(
        axis=-1, epsilon=epsilon, name=name))
    original = tf_keras.layers.Activation
    monkeypatch.setattr(tf_keras.layers, "Activation", lambda _: original(activation))
    model = garden.functional(words)
    garden.write_saved_model(model, tmp_path / "encoder")
    garden.write_beside(tmp_path / "encoder", words)
    (tmp_path / "encoder/bert_config.json").unlink()
    config = read_saved_model(tmp_path / "encoder", Hints()).config
    assert (config.hidden_act, config.layer_norm_eps) == (name, epsilon)


def preprocessing(folder, lower_case: bool, flag: bool) -> None:
    """A preprocessing SavedModel; TF Hub's have no flag but a tokenizer that folds case."""
    garden.write_beside(folder.parent / "words", CASED)
    tokenizer = tf_text.BertTokenizer(str(folder.parent / "words/vocab.txt"), lower_case=lower_case)
    module = tf.Module()
    module.tokenizer = tokenizer
    module.tokenize = tf.function(lambda text: tokenizer.tokenize(text).merge_dims(-2, -1).to_tensor(),
                                  input_signature=[tf.TensorSpec([None], tf.string)])
    if flag:
        module.do_lower_case = tf.Variable(lower_case, trainable=False)
    tf.saved_model.save(module, str(folder))


@pytest.mark.parametrize("lower_case, flag", [(True, False), (False, False), (True, True)])
def test_the_preprocessing_says_the_case(tmp_path, lower_case, flag):
    preprocessing(tmp_path / "bert_preprocess", lower_case, flag)
    assert vocabulary_at(tmp_path / "bert_preprocess", None) == Vocabulary(tuple(CASED), lower_case)


def test_the_vocabulary_is_found_beside_or_where_the_user_says(hub, tmp_path):
    folder = tmp_path / "encoder"
    garden.write_saved_model(garden.functional(CASED), folder)
    with pytest.raises(TextrailError, match=r"received none\. Set encoder\.preprocessing to a vocab\.txt, or to"):
        read_saved_model(folder, Hints())
    preprocessing(tmp_path / "elsewhere", lower_case=True, flag=True)
    assert read_saved_model(folder, Hints(preprocessing=tmp_path / "elsewhere")).vocabulary.lower_case
    shutil.copytree(tmp_path / "elsewhere", tmp_path / "bert_en_preprocess")
    assert read_saved_model(folder, Hints()).vocabulary == Vocabulary(tuple(CASED), lower_case=True)
    assert not read_saved_model(folder, Hints(lower_case=False)).vocabulary.lower_case
    shutil.copy(tmp_path / "words/vocab.txt", folder / "vocab.txt")
    assert not read_saved_model(folder, Hints()).vocabulary.lower_case   # a cased vocabulary beside comes first


def test_another_architecture_is_no_bert(bare):
    with pytest.raises(TextrailError) as caught:
        read_saved_model(bare, Hints())
    assert caught.value.received == "dense/bias, dense/kernel"


def test_a_damaged_one_is_named(hub, tmp_path):
    shutil.copytree(hub[0], tmp_path / "encoder")
    path = tmp_path / "encoder/saved_model.pb"
    torn = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for child in torn.meta_graphs[0].object_graph_def.nodes[0].children:
        child.node_id = 10**6
    for content in (b"\xff\xff\xff", b"", torn.SerializeToString()):
        path.write_bytes(content)
        with pytest.raises(TextrailError, match=r"expected a SavedModel in .*/encoder; received .* Fetch it again\."):
            read_saved_model(tmp_path / "encoder", Hints())
