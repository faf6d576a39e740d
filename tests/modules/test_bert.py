import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from modules.bert import Bert, BertConfig, pool
from modules.errors import TextrailError
from modules.transformer import plain_operations
from modules.weights import load_encoder, packaged_minilm

SMALL = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24,
                   max_position_embeddings=20, type_vocab_size=2, hidden_act="gelu", layer_norm_eps=1e-12)


@pytest.fixture(params=["float32", "mixed_bfloat16", "mixed_float16"])
def policy(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


@pytest.fixture(scope="module")
def golden(shared_data):
    return json.loads((shared_data / "golden" / "minilm_outputs.json").read_text())["cases"]


def inputs(ids, length=None, types=None):
    """Rows of ids padded to one length."""
    length = length or max(map(len, ids))

    def padded(rows):
        return tf.constant([list(row) + [0] * (length - len(row)) for row in rows], tf.int32)

    return {"input_word_ids": padded(ids), "input_mask": padded([[1] * len(row) for row in ids]),
            "input_type_ids": padded(types or [[0] * len(row) for row in ids])}


def numbers(tensor):
    return tf.cast(tensor, tf.float32).numpy()


# bfloat16 has 8 significant bits, float16 has 11; the outputs are near 1.
TOLERANCE = {"float32": 1e-4, "mixed_bfloat16": 0.12, "mixed_float16": 0.02}


def test_outputs_are_those_of_the_reference(golden, policy):
    bert, tolerance = load_encoder(packaged_minilm()), TOLERANCE[policy]
    for case in golden:
        outputs = bert({name: tf.constant([case[name]]) for name in ("input_word_ids", "input_mask", "input_type_ids")})
        sequence, pooled = numbers(outputs["sequence_output"])[0], numbers(outputs["pooled_output"])[0]
        np.testing.assert_allclose(sequence[0, :8], case["cls_first8"], rtol=0, atol=tolerance)
        np.testing.assert_allclose(sequence[-1, :8], case["last_token_first8"], rtol=0, atol=tolerance)
        np.testing.assert_allclose(pooled[:8], case["pooled_first8"], rtol=0, atol=tolerance)
        if policy == "float32":
            assert sequence.astype("float64").sum() == pytest.approx(case["sequence_output_sum"], abs=1e-3)


def test_what_other_programs_are_to_train_computes_the_same(tiny_encoder):
    batch = inputs([[2, 7, 8, 9, 3], [2, 11, 3]])

    def drawn():
        bert = load_encoder(tiny_encoder, dropout=0.3, seed=4)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(bert(batch, training=True)["pooled_output"] * tf.cos(tf.range(32.0)))
        return loss, tape.gradient(loss, [variable.value for variable in bert.trainable_variables])

    loss, gradients = drawn()
    with plain_operations():
        plain_loss, plain_gradients = drawn()
    np.testing.assert_allclose(plain_loss, loss, rtol=1e-5)
    for ours, theirs in zip(gradients, plain_gradients, strict=True):
        np.testing.assert_allclose(tf.convert_to_tensor(ours), tf.convert_to_tensor(theirs), rtol=0, atol=1e-5)


def test_training_without_dropout_computes_the_same(tiny_encoder, policy):
    # Training runs compiled loops with gradients of their own, serving plain operations: one arithmetic.
    bert = load_encoder(tiny_encoder, dropout=0.0)
    batch = inputs([[2, 7, 8, 9, 3], [2, 11, 3]])

    def loss_and_gradients(training):
        with tf.GradientTape() as tape:
            pooled = numbers_of(bert(batch, training=training))
            loss = tf.reduce_sum(pooled * tf.cos(tf.range(32.0)))
        return loss, tape.gradient(loss, [variable.value for variable in bert.trainable_variables])

    def numbers_of(outputs):
        return pool(outputs, batch["input_mask"], "mean") + pool(outputs, batch["input_mask"], "cls")

    (plain, plain_gradients), (ours, our_gradients) = loss_and_gradients(False), loss_and_gradients(True)
    relative = {"float32": 1e-4, "mixed_bfloat16": 0.1, "mixed_float16": 0.01}[policy]
    np.testing.assert_allclose(ours, plain, rtol=relative)
    for variable, expected, received in zip(bert.trainable_variables, plain_gradients, our_gradients, strict=True):
        expected, received = (tf.convert_to_tensor(gradient).numpy() for gradient in (expected, received))
        scale = max(np.abs(expected).max(), 1e-2)  # the bias of keys has no gradient but rounding
        np.testing.assert_allclose(received / scale, expected / scale, rtol=0, atol=relative, err_msg=variable.path)


def test_padding_changes_nothing(tiny_encoder, policy):
    bert, short, long = load_encoder(tiny_encoder), [2, 7, 8, 3], [2, 9, 9, 12, 14, 15, 17, 20, 3]
    alone, together = bert(inputs([short])), bert(inputs([short, long], length=16))
    tolerance = TOLERANCE[policy] / 10
    np.testing.assert_allclose(numbers(together["sequence_output"])[0, :4], numbers(alone["sequence_output"])[0],
                               rtol=0, atol=tolerance)
    for pooling in ("cls", "mean"):
        one = pool(alone, inputs([short])["input_mask"], pooling)
        two = pool(together, inputs([short, long], length=16)["input_mask"], pooling)
        assert one.dtype == two.dtype == tf.float32
        np.testing.assert_allclose(two[0], one[0], rtol=0, atol=tolerance)


def test_masked_tokens_are_never_seen_and_a_row_of_padding_stays_finite(tiny_encoder, policy):
    bert, batch = load_encoder(tiny_encoder), inputs([[2, 7, 3], [2, 7, 8, 9, 3], []])
    masked = batch["input_mask"] == 0
    other = dict(batch, input_word_ids=tf.where(masked, 42, batch["input_word_ids"]))
    before, after = numbers(bert(batch)["sequence_output"]), numbers(bert(other)["sequence_output"])
    np.testing.assert_array_equal(after[0, :3], before[0, :3])
    assert np.isfinite(before).all()
    assert np.abs(after[0, 3:] - before[0, 3:]).max() > 0.01


def test_segments_and_positions_count(tiny_encoder):
    bert, ids = load_encoder(tiny_encoder), [[2, 7, 7, 3]]
    first, second = (numbers(bert(inputs(ids, types=[types]))["sequence_output"]) for types in ([0] * 4, [0, 0, 1, 1]))
    assert np.abs(first - second).max() > 0.01
    assert np.abs(first[0, 1] - first[0, 2]).max() > 0.01


def test_masked_mean_by_hand():
    outputs = {"sequence_output": tf.constant([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]], [[5.0, 5.0]] * 3])}
    mask = tf.constant([[1, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(pool(outputs, mask, "mean"), [[2, 3], [0, 0]])
    with pytest.raises(TextrailError, match=r"without the weights pooler\.dense"):
        pool(outputs, mask, "cls")


@pytest.mark.parametrize(("layers", "pooling"), [("all", "cls"), (3, "mean"), (1, "cls"), (2, "mean"), (0, "cls")])
def test_frozen_weights_keep_every_bit_and_have_no_backward_pass(layers, pooling):
    keras.utils.set_random_seed(3)
    bert = Bert(SMALL, dropout=0.1, seed=1)
    bert.fine_tune(layers, pooling)
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.5)
    batch = inputs([[2, 7, 8, 9, 3], [2, 11, 3]])
    parts = {part.name: part for part in (bert.embeddings, *bert.blocks, bert.pooler)}
    before = {name: part.get_weights() for name, part in parts.items()}
    variables = bert.trainable_variables

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(pool(bert(batch, training=True), batch["input_mask"], pooling)[:, 0] ** 2)
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        assert all(gradient is not None for gradient in gradients)
        optimizer.apply(gradients, variables)

    if variables:
        step()
    # Every norm, bias and kernel of what trains moves, and nothing of the rest.
    equal = {name: [np.array_equal(*pair) for pair in zip(before[name], part.get_weights(), strict=True)]
             for name, part in parts.items()}
    moved = {name for name, same in equal.items() if not any(same[:14])}
    assert all(all(same) for name, same in equal.items() if name not in moved)
    count = 3 if layers == "all" else layers
    expected = {f"block_{index}" for index in range(3 - count, 3)}
    expected |= {"embeddings"} if count == 3 else set()
    expected |= {"pooler"} if pooling == "cls" else set()
    assert moved == expected
    with tf.GradientTape() as tape:
        output = bert(batch, training=True)["sequence_output"]
    if count < 3:  # the gradient stops even for one who asks for it
        assert tape.gradient(output, bert.embeddings.words.value) is None
    if count == 0:
        np.testing.assert_array_equal(output, bert(batch)["sequence_output"])


def test_more_layers_than_there_are_is_an_error():
    with pytest.raises(TextrailError, match="a number from 0 to 3, the encoder's blocks; received 4"):
        Bert(SMALL).fine_tune(4, "mean")


def test_a_seed_repeats_and_every_step_drops_anew():
    batch = inputs([[2, 7, 8, 9, 3]])

    def two_steps(seed):
        keras.utils.set_random_seed(3)
        bert = Bert(SMALL, dropout=0.3, seed=seed)
        return [numbers(bert(batch, training=True)["sequence_output"]) for _ in range(2)]

    first, again, other = two_steps(1), two_steps(1), two_steps(2)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], other[0])


def test_inputs_longer_than_the_positions_are_an_error():
    with pytest.raises(TextrailError, match=r"at most 20 tokens.*received 21"):
        Bert(SMALL)(inputs([[2] * 21]))


@pytest.mark.parametrize(("key", "value", "message"), [
    ("hidden_act", "swish", "hidden_act in config.json to be one of gelu, gelu_new, .*received 'swish'"),
    ("hidden_size", 15, "a multiple of num_attention_heads; received 15 and 2"),
    ("num_hidden_layers", 0, "num_hidden_layers in config.json to be int and at least 1; received 0"),
    ("hidden_act", ["gelu"], r"hidden_act in config.json to be one of .*received \['gelu'\]"),
    ("layer_norm_eps", float("nan"), "layer_norm_eps in config.json to be float and at least 0.0; received nan"),
    ("layer_norm_eps", "small", "layer_norm_eps in config.json to be float and at least 0.0; received 'small'"),
    ("position_embedding_type", "relative_key", "position_embedding_type 'absolute'.*received 'relative_key'"),
    ("model_type", "roberta", "model_type 'bert'.*received 'roberta'"),
    ("vocab_size", None, "the keys vocab_size in"),
])
def test_configurations_that_cannot_be_computed_are_refused(tmp_path, key, value, message):
    SMALL.to_file(tmp_path / "config.json")
    assert BertConfig.from_file(tmp_path / "config.json") == SMALL
    values = json.loads((tmp_path / "config.json").read_text()) | {key: value}
    if value is None:
        del values[key]
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(TextrailError, match=message):
        BertConfig.from_file(tmp_path / "config.json")


def test_a_model_owned_by_a_module_is_saved_and_loads_without_our_code(tiny_encoder, tmp_path):
    class Served(tf.Module):
        def __init__(self):
            super().__init__()
            self.bert = load_encoder(tiny_encoder)

        @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32)])
        def encode(self, ids):
            batch = {"input_word_ids": ids, "input_mask": tf.ones_like(ids), "input_type_ids": tf.zeros_like(ids)}
            return self.bert(batch)["pooled_output"]

    served, ids = Served(), tf.constant([[2, 7, 8, 3]])
    served.bert({**inputs([[2, 3]])}, training=True)  # a trained model, with its compiled loops, is what gets saved
    tf.saved_model.save(served, tmp_path, signatures=served.encode)
    loaded = tf.saved_model.load(tmp_path).signatures["serving_default"](ids=ids)
    np.testing.assert_allclose(next(iter(loaded.values())), served.encode(ids), rtol=0, atol=1e-6)
    assert b"_XlaMustCompile" not in (tmp_path / "saved_model.pb").read_bytes()
