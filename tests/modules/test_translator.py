import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from modules.errors import TextrailError
from modules.transformer import plain_operations
from modules.translator import build_translator, positional_code, shifted, sums

SIZES = {"layers": 2, "decoder_layers": 3, "hidden_size": 16, "num_heads": 4, "inner_size": 32, "dropout": 0.0}
SOURCE = [[2, 5, 6, 3, 0, 0], [2, 9, 8, 7, 11, 3], [2, 3, 0, 0, 0, 0]]
TARGET = [[2, 7, 3, 0, 0], [2, 8, 7, 9, 3], [2, 12, 10, 3, 0]]
SHAPES = [("post", "none"), ("pre", "none"), ("post", "target"), ("pre", "all")]


def translator(norm="post", tied="none", dtype="float32", source_size=20, target_size=20, **changes):
    """A small one whose every weight has a value of its own, so that none can be left out or mixed up unseen."""
    model = build_translator({"seed": 1, "model": SIZES | {"norm": norm, "tied": tied} | changes}, source_size,
                             target_size, dtype)
    random = np.random.default_rng(3)
    for variable in model.trainable_variables:
        variable.assign(random.normal(size=variable.shape) * 0.3 + ("gamma" in variable.path))
    return model


def ids(rows):
    return tf.constant(rows, tf.int32)


# What is computed by hand.


def test_positions_have_the_papers_values():
    code = positional_code(tf.constant([0, 1, 3]), 4)
    np.testing.assert_allclose(code, [[0, 1, 0, 1], [math.sin(1), math.cos(1), math.sin(0.01), math.cos(0.01)],
                                      [math.sin(3), math.cos(3), math.sin(0.03), math.cos(0.03)]], rtol=1e-6)
    assert positional_code(tf.range(5000), 128).shape == (5000, 128)


def test_embeddings_are_scaled_before_positions_are_added():
    model = translator()
    found = model.target_embedding(ids([[5, 6]]), tf.constant(7)).numpy()
    tokens = model.target_embedding.tokens.numpy()[[5, 6]]
    np.testing.assert_allclose(found, tokens * 4 + positional_code(tf.constant([7, 8]), 16), rtol=1e-5)


def test_inputs_and_labels_are_shifted_by_one():
    inputs, labels = shifted(ids([[2, 7, 8, 3], [2, 9, 3, 0]]))
    assert inputs.numpy().tolist() == [[2, 7, 8], [2, 9, 3]]
    assert labels.numpy().tolist() == [[7, 8, 3], [9, 3, 0]]


def reference(model, source, target, norm_first):
    """The same model of the same weights in numpy, one sentence without padding: the paper's formulas as they stand."""
    width, heads = model.width, model.num_heads

    def norm(layer, x):
        deviation = np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return (x - x.mean(-1, keepdims=True)) / deviation * layer.gamma.numpy() + layer.beta.numpy()

    def linear(layer, x, part=slice(None)):
        return x @ layer.kernel.numpy()[:, part] + layer.bias.numpy()[part]

    def attention(output, query, key, value, is_causal):
        found = []
        for head in range(heads):
            columns = slice(head * width // heads, (head + 1) * width // heads)
            scores = query[:, columns] @ key[:, columns].T / np.sqrt(width / heads)
            if is_causal:
                scores[np.triu_indices(len(scores), 1)] = -np.inf
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            found.append(weights / weights.sum(-1, keepdims=True) @ value[:, columns])
        return linear(output, np.concatenate(found, -1))

    def sublayer(layer_norm, x, function):
        return x + function(norm(layer_norm, x)) if norm_first else norm(layer_norm, x + function(x))

    def to_itself(layer, is_causal):
        thirds = [slice(i * width, (i + 1) * width) for i in range(3)]
        return lambda x: attention(layer.output_dense, *(linear(layer.qkv, x, third) for third in thirds), is_causal)

    def to_memory(layer, memory):
        key, value = linear(layer.key_value, memory, slice(width)), linear(layer.key_value, memory, slice(width, None))
        return lambda x: attention(layer.output_dense, linear(layer.query, x), key, value, False)

    def embedded(layer, tokens):
        angles = np.arange(len(tokens))[:, None] / 10000 ** (np.arange(0, width, 2) / width)
        code = np.stack([np.sin(angles), np.cos(angles)], -1).reshape(len(tokens), width)
        return layer.tokens.numpy()[tokens] * np.sqrt(width) + code

    def fed(block, x):
        return sublayer(block.outer_norm, x, lambda x: linear(block.outer, np.maximum(linear(block.inner, x), 0)))

    memory, x = embedded(model.source_embedding, source), embedded(model.target_embedding, target)
    for block in model.encoder:
        memory = fed(block, sublayer(block.attention_norm, memory, to_itself(block.attention, False)))
    memory = norm(model.encoder_norm, memory) if norm_first else memory
    for block in model.decoder:
        x = sublayer(block.attention_norm, x, to_itself(block.attention, True))
        x = fed(block, sublayer(block.cross_norm, x, to_memory(block.cross, memory)))
    x = norm(model.decoder_norm, x) if norm_first else x
    kernel = model.projection.kernel.numpy()
    return x @ (kernel.T if model.projection.is_shared else kernel) + model.projection.bias.numpy()


@pytest.mark.parametrize("norm, tied", SHAPES)
def test_the_logits_are_those_of_the_papers_formulas(norm, tied):
    model = translator(norm, tied)
    logits = model(ids(SOURCE), ids(TARGET)).numpy()
    for found, source, target in zip(logits, SOURCE, TARGET, strict=True):
        source, target = [id for id in source if id], [id for id in target if id]
        expected = reference(model, source, target, norm == "pre")
        np.testing.assert_allclose(found[:len(target)], expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("tied, matrices", [("none", 3), ("target", 2), ("all", 1)])
def test_tied_embeddings_are_one_matrix(tied, matrices):
    model = translator(tied=tied)
    assert sum(20 in variable.shape and len(variable.shape) == 2 for variable in model.trainable_variables) == matrices
    assert len({id(variable) for variable in model.variables}) == len(model.variables)


# What must make no difference.


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_a_later_token_of_the_target_changes_no_earlier_logit(norm):
    model = translator(norm)
    changed = np.array(TARGET)
    changed[:, 3:] = [[4, 4], [0, 0], [13, 14]]
    before, after = model(ids(SOURCE), ids(TARGET)).numpy(), model(ids(SOURCE), ids(changed)).numpy()
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert not np.allclose(before[1, 3:], after[1, 3:])


@pytest.mark.parametrize("training", [False, True])
def test_padding_on_either_side_changes_nothing(training):
    model = translator()
    wide = [np.pad(np.array(rows), [[0, 0], [0, 3]]) for rows in (SOURCE, TARGET)]
    narrow = model(ids(SOURCE), ids(TARGET), training=training).numpy()
    np.testing.assert_allclose(model(ids(wide[0]), ids(wide[1]), training=training)[:, :5], narrow, rtol=1e-5,
                               atol=1e-5)
    for row, target in enumerate(TARGET):   # alone, without a token of padding
        length = sum(id > 0 for id in target)
        alone = model(ids([[id for id in SOURCE[row] if id]]), ids([target[:length]]), training=training).numpy()[0]
        np.testing.assert_allclose(alone, narrow[row, :length], rtol=1e-4, atol=1e-5)
    few = sums(model, {"source_ids": ids(SOURCE), "target_ids": ids(TARGET)}, training, 0.1)
    many = sums(model, {"source_ids": ids(wide[0]), "target_ids": ids(wide[1])}, training, 0.1)
    assert {name: float(value) for name, value in many.items()} == pytest.approx(
        {name: float(value) for name, value in few.items()}, rel=1e-5)


def test_an_empty_source_gives_numbers():
    model = translator()
    assert np.isfinite(model(ids([[0, 0]]), ids([[2, 5]]))).all()


# Step by step.


@pytest.mark.parametrize("norm, tied", SHAPES)
def test_a_step_gives_what_the_whole_gives_at_its_position(norm, tied):
    model = translator(norm, tied)
    whole, cache = model(ids(SOURCE), ids(TARGET)).numpy(), model.start(ids(SOURCE))
    assert all(one.shape[0] == 3 for one in tf.nest.flatten(cache))
    for position in range(5):
        tokens = ids(TARGET)[:, position:position + 1]
        logits, cache = model.step(tokens, tf.zeros([3, 1, position + 1], tf.int32), cache)
        for row in range(3):
            if TARGET[row][position]:
                np.testing.assert_allclose(logits[row, 0], whole[row, position], rtol=1e-5, atol=1e-5)


def test_attention_to_the_source_for_pictures():
    model = translator()
    weights = model.cross_attention(ids(SOURCE), ids(TARGET)).numpy()
    assert weights.shape == (3, 3, 4, 5, 6) and weights.dtype == np.float32
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    assert weights[0, ..., 4:].max() == 0 < weights[0, ..., :4].min()


# Learning.


def loss_and_gradients(model, source=SOURCE, target=TARGET, compiler=lambda step: step):
    variables = [variable.value for variable in model.trainable_variables]

    @compiler
    def run(source, target):
        with tf.GradientTape() as tape:
            loss = sums(model, {"source_ids": source, "target_ids": target}, True, 0.1)["loss"]
        return loss, [tf.convert_to_tensor(one) for one in tape.gradient(loss, variables)]

    loss, gradients = run(tf.constant(source, tf.int32), tf.constant(target, tf.int32))
    return float(loss), [one.numpy() for one in gradients]


@pytest.mark.parametrize("norm, tied", SHAPES)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_are_tensorflows_own(norm, tied, dropout):
    model = translator(norm, tied, dropout=dropout)
    seed = model.seeds.state.numpy()
    loss, gradients = loss_and_gradients(model)
    model.seeds.state.assign(seed)   # the same bytes drop the same elements
    with plain_operations():
        plain_loss, plain_gradients = loss_and_gradients(model)
    assert loss == pytest.approx(plain_loss, rel=1e-5)
    for variable, ours, plain in zip(model.trainable_variables, gradients, plain_gradients, strict=True):
        assert np.abs(plain).max() > 0, variable.path
        np.testing.assert_allclose(ours, plain, rtol=1e-3, atol=2e-5, err_msg=variable.path)


def test_a_step_compiled_whole_has_the_same_gradients():
    model = translator("pre", "target", layers=1, decoder_layers=1)
    loss, gradients = loss_and_gradients(model)
    compiled_loss, compiled = loss_and_gradients(model, compiler=tf.function(
        jit_compile=True, input_signature=[tf.TensorSpec([None, None], tf.int32)] * 2))
    assert compiled_loss == pytest.approx(loss, rel=1e-5)
    for variable, ours, theirs in zip(model.trainable_variables, gradients, compiled, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=2e-5, err_msg=variable.path)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_gradients_in_half_precision_point_where_float32_s_do(dtype):
    flat = [np.concatenate([one.ravel() for one in loss_and_gradients(translator("post", "target", of))[1]])
            for of in ("float32", dtype)]
    assert np.isfinite(flat[1]).all()
    assert flat[0] @ flat[1] / np.linalg.norm(flat[0]) ** 2 == pytest.approx(1, abs=0.02)
    assert np.linalg.norm(flat[1]) == pytest.approx(np.linalg.norm(flat[0]), rel=0.02)


def test_a_device_without_rows_adds_nothing():
    """Of a batch smaller than the devices that share it, the last ones get no row."""
    model = translator("pre", "all", dropout=0.3)
    loss, gradients = loss_and_gradients(model, np.zeros([0, 6]), np.zeros([0, 5]))
    assert loss == 0 and not any(one.any() for one in gradients)


def test_the_loss_is_the_mean_over_tokens_and_smoothed_only_in_training():
    model = translator()
    inputs, labels = np.array(TARGET)[:, :-1], np.array(TARGET)[:, 1:]
    log = tf.nn.log_softmax(model(ids(SOURCE), ids(inputs))).numpy()
    batch = {"source_ids": ids(SOURCE), "target_ids": ids(TARGET)}
    is_token, of_label = labels > 0, np.take_along_axis(log, labels[..., None], -1)[..., 0]
    found = {name: float(value) for name, value in sums(model, batch, False, 0.1).items()}
    assert found == pytest.approx({"loss": -of_label[is_token].sum(), "weight": 9.0,
                                   "accuracy": (log.argmax(-1) == labels)[is_token].sum()}, rel=1e-5)
    smoothed = -(0.9 * of_label + 0.1 * log.mean(-1))[is_token].sum()
    assert float(sums(model, batch, True, 0.1)["loss"]) == pytest.approx(smoothed, rel=1e-5)


@pytest.mark.parametrize("norm, tied, dtype", [("post", "none", "float32"), ("pre", "all", "mixed_bfloat16")])
def test_it_learns_to_copy_backwards(norm, tied, dtype):
    keras.utils.set_random_seed(1)
    model = build_translator({"seed": 1, "model": SIZES | {"hidden_size": 32, "dropout": 0.05, "norm": norm,
                                                           "tied": tied}}, 12, 12, dtype)
    optimizer = keras.optimizers.Adam(3e-3, 0.9, 0.98)
    variables = model.trainable_variables
    optimizer.build(variables)

    @tf.function
    def step(batch):
        with tf.GradientTape() as tape:
            found = sums(model, batch, True, 0.1)
            loss = found["loss"] / found["weight"]
        optimizer.apply(tape.gradient(loss, [one.value for one in variables]), variables)

    random = np.random.default_rng(0)

    def batch():
        words = random.integers(4, 12, (64, 5))
        return {"source_ids": ids(np.pad(words, [[0, 0], [0, 1]], constant_values=3)),
                "target_ids": ids(np.pad(words[:, ::-1], [[0, 0], [1, 1]], constant_values=((2, 2), (2, 3))))}

    for _ in range(250):
        step(batch())
    found = sums(model, batch(), False)
    assert float(found["accuracy"] / found["weight"]) > 0.9


def test_layers_compute_in_the_policy_and_logits_are_float32():
    model = translator(dtype="mixed_bfloat16")
    assert model(ids(SOURCE), ids(TARGET)).dtype == tf.float32
    assert tf.nest.flatten(model.start(ids(SOURCE)))[0].dtype == tf.bfloat16
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}


# What is refused.


@pytest.mark.parametrize("changes, expected", [
    ({"hidden_size": 18}, "a multiple of model.num_heads; received 18 and 4"),
    ({"tied": "all", "target_size": 21}, "one vocabulary for both languages, for model.tied=all; received two of 20 "),
    ({"dropout": 1.0}, "at least 0 and below 1")])
def test_what_does_not_go_together_is_refused(changes, expected):
    with pytest.raises(TextrailError, match=expected):
        translator(**changes)
