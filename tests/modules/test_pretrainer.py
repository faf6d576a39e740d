"""The pretraining heads against transformers' own, their folders, and what they learn."""

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file, save_file

from modules.checkpoints import Hints, read_huggingface
from modules.errors import TextrailError
from modules.first_weights import deviation
from modules.optimization import AdamW
from modules.presets import PRESETS
from modules.pretrainer import (
    build_pretrainer,
    checkpoint_of,
    chosen,
    in_float32,
    parameter_count,
    pretraining_config,
    sums,
)
from modules.tokenization import Vocabulary
from modules.training import Training, choose_strategy
from modules.transformer import plain_operations
from modules.weights import head_shapes, load_encoder

# [CLS] a b [SEP] c d [SEP] and so on; 4 is [MASK], 0 padding.
IDS = [[2, 9, 4, 11, 3, 4, 30, 3, 0], [2, 4, 3, 6, 7, 3, 0, 0, 0], [2, 5, 6, 7, 8, 9, 4, 10, 3]]
# Of the tokens to be foretold: where they are, what they were, and which of them are there.
POSITIONS, WORDS = [[2, 5, 6], [1, 0, 0], [6, 0, 0]], [[40, 12, 31], [8, 0, 0], [9, 0, 0]]
WEIGHTS = [[1, 1, 1], [1, 0, 0], [1, 0, 0]]
BATCH = {"token_ids": IDS, "masked_positions": POSITIONS, "masked_ids": WORDS, "masked_weights": WEIGHTS,
         "next_sentence_label": [0, 1, 0]}
LABELS = [[-1, -1, 40, -1, -1, 12, 31, -1, -1], [-1, 8, *[-1] * 7], [*[-1] * 6, 9, -1, -1]]   # the same by position


def batch(**changes):
    return {name: tf.constant(value, tf.float32 if name == "masked_weights" else tf.int32)
            for name, value in (BATCH | changes).items()}


def pretrainer(folder, dtype="float32", encoder=True, **model):
    """One whose heads have weights of their own everywhere, so that none can be left out unseen."""
    settings = {"seed": 1, "model": {"dropout": 0.0, "preset": "tiny", **model}}
    made, _ = build_pretrainer(settings, Vocabulary.read(folder), dtype, str(folder) if encoder else "")
    random = np.random.default_rng(3)
    for variable in made.trainable_variables:
        if "/bert/" not in variable.path and "words" not in variable.path:
            variable.assign(random.normal(size=variable.shape) * 0.1 + ("gamma" in variable.path))
    return made


def written(made, folder):
    checkpoint = checkpoint_of(made)
    checkpoint.check(folder)
    checkpoint.write(folder)
    return folder


# Sizes.


@pytest.mark.parametrize("preset, count, published", [
    ("tiny", 4_433_468, "4.4"), ("mini", 11_267_900, "11.3"), ("small", 29_058_876, "29.1"),
    ("base", 110_106_428, "110.1")])
def test_presets_have_the_published_numbers_of_parameters(preset, count, published):
    config = pretraining_config({"preset": preset}, 30522)
    assert parameter_count(config) == count and f"{count / 1e6:.1f}" == published
    assert config.hidden_size == 64 * config.num_attention_heads and config.intermediate_size == 4 * config.hidden_size


def test_parameters_are_counted_as_they_are(tiny_encoder):
    for next_sentence in (True, False):
        made = pretrainer(tiny_encoder, encoder=False, next_sentence=next_sentence)
        assert parameter_count(made.config, next_sentence) == sum(
            variable.numpy().size for variable in made.trainable_variables)


def test_sizes_take_the_place_of_the_presets():
    config = pretraining_config({"preset": "small", "layers": 3, "num_heads": 2, "inner_size": None, "positions": 128},
                                1000, pad_id=0)
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (3, 512, 2)
    assert (config.intermediate_size, config.max_position_embeddings, config.vocab_size) == (2048, 128, 1000)
    with pytest.raises(TextrailError, match=r"one of tiny, mini, small, base; received 'huge'"):
        pretraining_config({"preset": "huge"}, 1000)
    assert list(PRESETS) == ["tiny", "mini", "small", "base"]


def test_new_weights_are_berts_for_that_width(tiny_encoder):
    settings = {"seed": 1, "model": {"dropout": 0.1, "preset": "mini"}}
    made, kept = build_pretrainer(settings, Vocabulary.read(tiny_encoder), "float32")
    assert kept == []
    range_, others = deviation(256), (made.bert.embeddings.positions, made.bert.blocks[0].attention.qkv.kernel)
    for variable in made.trainable_variables:
        value = variable.numpy()
        if variable.path.endswith(("beta", "bias")):
            assert not value.any()
        elif variable.path.endswith("gamma"):
            assert (value == 1).all()
        elif not any(variable is other for other in others):   # of which test_first_weights.py tells
            # TruncatedNormal cuts at two deviations, which leaves 0.88 of one.
            assert np.abs(value).max() <= 2 * range_ and value.std() == pytest.approx(range_ * 0.88, rel=0.1)


# transformers.


@pytest.fixture(scope="module")
def transformers():
    transformers = pytest.importorskip("transformers")
    if not hasattr(transformers, "TFBertForPreTraining"):
        pytest.skip("transformers 5 and later have no TensorFlow models")
    transformers.logging.set_verbosity_error()
    return transformers


def inputs(made):
    ids = tf.constant(IDS, tf.int32)
    return {"input_ids": ids, "attention_mask": made.vocabulary.input_mask(ids),
            "token_type_ids": made.vocabulary.segment_ids(ids)}


def test_transformers_computes_the_same_from_what_is_written(tiny_encoder, tmp_path, transformers):
    made = pretrainer(tiny_encoder)
    folder = written(made, tmp_path / "new")
    model, report = transformers.TFBertForPreTraining.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert model.config.architectures == ["BertForPreTraining"]
    theirs, ours = model(**inputs(made)), made(tf.constant(IDS, tf.int32))
    np.testing.assert_allclose(ours["logits"], theirs.prediction_logits, atol=1e-5)
    np.testing.assert_allclose(ours["next_logits"], theirs.seq_relationship_logits, atol=1e-5)
    labels = np.where(np.array(LABELS) < 0, -100, LABELS)
    theirs = model(**inputs(made), labels=tf.constant(labels), next_sentence_label=tf.constant([0, 1, 0]))
    found = sums(made, batch(), False)
    mean = found["masked_loss"] / found["masked_weight"] + found["next_loss"] / found["next_weight"]
    assert float(mean) == pytest.approx(float(tf.reduce_mean(theirs.loss)), rel=1e-5)


def test_transformers_reads_a_model_without_next_sentences(tiny_encoder, tmp_path, transformers):
    made = pretrainer(tiny_encoder, encoder=False, next_sentence=False, hidden_size=32, num_heads=4)
    folder = written(made, tmp_path / "new")
    model, report = transformers.TFBertForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    np.testing.assert_allclose(made(tf.constant(IDS, tf.int32))["logits"], model(**inputs(made)).logits, atol=1e-5)
    assert set(sums(made, batch(), True)) == {"masked_loss", "masked_accuracy", "masked_weight", "weight"}


# Folders.


def test_heads_are_kept_when_training_goes_on(tiny_encoder, tmp_path):
    made = pretrainer(tiny_encoder)
    folder = written(made, tmp_path / "new")
    again, kept = build_pretrainer({"seed": 2, "model": {"dropout": 0.0}}, Vocabulary.read(folder), "float32",
                                   str(folder))
    assert kept == ["predictions", "seq_relationship"]
    for ours, theirs in zip(again.get_weights(), made.get_weights(), strict=True):
        if ours.shape != (2,) or ours.dtype != np.uint32:   # not the seed of dropout
            np.testing.assert_array_equal(ours, theirs)
    # An import in between keeps them too, and so does one of the head over the vocabulary alone.
    read_huggingface(folder, Hints()).write(tmp_path / "imported")
    assert (tmp_path / "imported/model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    tensors = load_file(folder / "model.safetensors")
    save_file({name: value for name, value in tensors.items() if "seq_relationship" not in name},
              folder / "model.safetensors")
    again, kept = build_pretrainer({"seed": 2, "model": {"dropout": 0.0}}, Vocabulary.read(folder), "float32",
                                   str(folder))
    assert kept == ["predictions"]
    np.testing.assert_array_equal(again.projection.bias, made.projection.bias)


def test_what_is_written_is_an_encoder_to_all_others(tiny_encoder, tmp_path):
    made = pretrainer(tiny_encoder)
    encoder = load_encoder(written(made, tmp_path / "new"))
    tensors = load_file(tmp_path / "new/model.safetensors")
    assert {name: value.shape for name, value in tensors.items() if name.startswith("cls.")} == head_shapes(made.config)
    parts = inputs(made)
    found = encoder(dict(zip(("input_word_ids", "input_mask", "input_type_ids"), parts.values(), strict=True)))
    np.testing.assert_array_equal(found["sequence_output"], made.encoded(parts["input_ids"])["sequence_output"])


def test_heads_of_another_make_are_left_behind(tiny_encoder, tmp_path):
    folder = shutil.copytree(written(pretrainer(tiny_encoder), tmp_path / "new"), tmp_path / "untied")
    tensors = load_file(folder / "model.safetensors")
    words = tensors["bert.embeddings.word_embeddings.weight"]
    for decoder, count in ((words, 7), (words + 1, 0)):
        save_file({**tensors, "cls.predictions.decoder.weight": decoder}, folder / "model.safetensors")
        assert len(read_huggingface(folder, Hints()).pretraining) == count
    assert len(read_huggingface(tiny_encoder, Hints()).pretraining) == 0
    del tensors["cls.predictions.bias"]
    save_file(tensors, folder / "model.safetensors")
    assert len(read_huggingface(folder, Hints()).pretraining) == 0


# Sums.


def test_sums_are_those_of_the_formulas(tiny_encoder):
    made = pretrainer(tiny_encoder)
    answers, labels = made(tf.constant(IDS, tf.int32)), np.array(LABELS)
    log = tf.nn.log_softmax(answers["logits"]).numpy()[labels >= 0]
    log_next, wrong = tf.nn.log_softmax(answers["next_logits"]).numpy(), np.array([0, 1, 0])
    expected = {
        "masked_loss": -log[np.arange(5), labels[labels >= 0]].sum(), "masked_weight": 5.0,
        "masked_accuracy": (log.argmax(1) == labels[labels >= 0]).sum(),
        "next_loss": -log_next[np.arange(3), wrong].sum(), "next_weight": 3.0,
        "next_accuracy": (log_next.argmax(1) == wrong).sum(), "weight": 23.0}
    for training in (False, True):
        assert {name: float(value) for name, value in sums(made, batch(), training).items()} == pytest.approx(
            expected, rel=1e-5)


def test_a_batch_without_a_mask_has_no_loss(tiny_encoder):
    found = sums(pretrainer(tiny_encoder), batch(masked_weights=np.zeros((3, 3))), True)
    assert float(found["masked_loss"]) == float(found["masked_weight"]) == 0


def test_masked_positions_are_taken_in_their_order_and_padding_has_no_label():
    x = tf.reshape(tf.range(12.0), [2, 3, 2])
    rows, labels = chosen(x, {"masked_positions": tf.constant([[1, 0], [0, 2]]),
                              "masked_ids": tf.constant([[7, 0], [5, 0]]),
                              "masked_weights": tf.constant([[1.0, 0.0], [1.0, 1.0]])})
    assert rows.numpy()[[0, 2, 3]].tolist() == [[2, 3], [6, 7], [10, 11]]
    assert labels.numpy()[:5].tolist() == [7, -1, 5, 0, -1] and labels.numpy()[4:].max() == -1
    assert len(rows) == len(labels) == 256


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_are_tensorflows_own(tiny_encoder, dropout):
    made = pretrainer(tiny_encoder, dropout=dropout)
    variables, seed = [variable.value for variable in made.trainable_variables], made.bert.seeds.state.numpy()

    def gradients():
        made.bert.seeds.state.assign(seed)   # the same bytes drop the same elements
        with tf.GradientTape() as tape:
            found = sums(made, batch(), True)
            loss = found["masked_loss"] + found["next_loss"]
        return [tf.convert_to_tensor(one).numpy() for one in tape.gradient(loss, variables)]

    ours = gradients()
    with plain_operations():
        plain = gradients()
    for variable, one, other in zip(made.trainable_variables, ours, plain, strict=True):
        assert np.abs(other).max() > 0, variable.path
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=2e-5, err_msg=variable.path)


def training_of(made, folder, **settings):
    """A training of one batch an epoch, which is also what it validates on."""
    (folder / "run").mkdir(parents=True)
    one = tf.data.Dataset.from_tensors(batch())
    return Training(
        forward=lambda some, is_training: sums(made, some, is_training), trained=made.trained, state=made.state,
        batches=lambda epoch: one, steps_per_epoch=1, validation=one, scale_loss=False, unit="tokens",
        settings={"epochs": 3, "learning_rate": 0.01, "schedule": "constant", "warmup": 0, "weight_decay": 0.01,
                  "clip_norm": 1.0, "xla": False, "early_stopping_metric": "masked_accuracy", "patience": 3,
                  "evaluations_per_epoch": 1, "checkpoint_seconds": 60, **settings},
        strategy=choose_strategy("one_device"), run_dir=str(folder / "run"), checkpoint_dir=str(folder / "kept"))


def test_small_batches_make_the_step_of_one_that_many_times_larger(tiny_encoder, tmp_path):
    # The rows have 3, 1 and 1 masks: a mean of the rows' means would be another gradient.
    gradients, rounds = [], []
    for parts in (1, 3):
        training = training_of(pretrainer(tiny_encoder), tmp_path / str(parts), accumulate=parts)
        found = training._gradients(batch()) if parts == 1 else training._accumulated(batch(), parts)
        gradients.append(found[1])
        rounds.append(training.fit().rounds)
    for one, other in zip(*gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)
    for one, other in zip(*rounds, strict=True):
        assert one["train"] == pytest.approx(other["train"], rel=1e-3)
        assert one["validation"] == pytest.approx(other["validation"], rel=1e-3)
    assert set(rounds[0][0]["train"]) == {"loss", "masked_loss", "masked_accuracy", "next_loss", "next_accuracy",
                                          "gradient_norm"}
    assert rounds[0][2]["train"]["loss"] < rounds[0][0]["train"]["loss"]


def test_xla_takes_the_same_step(tiny_encoder, tmp_path):
    plain, compiled = ({name: float(value) for name, value in training_of(
        pretrainer(tiny_encoder), tmp_path / str(xla), xla=xla).train_step(batch()).items()} for xla in (False, True))
    assert compiled == pytest.approx(plain, rel=1e-4)


def test_it_learns_words_and_order_in_bfloat16(tiny_encoder):
    """Texts repeat a word; a second text follows if its word is one of a certain half dozen."""
    keras.utils.set_random_seed(1)
    settings = {"seed": 1, "model": {"preset": "tiny", "dropout": 0.05, "hidden_size": 64, "num_heads": 4}}
    made, _ = build_pretrainer(settings, Vocabulary.read(tiny_encoder), "mixed_bfloat16")
    names, variables = zip(*made.trained, strict=True)
    optimizer, random = AdamW(variables, names), np.random.default_rng(2)

    def pairs(rows):
        is_next, ids = random.integers(0, 2, rows), np.full((rows, 9), 3)
        ids[:, 0] = 2
        ids[:, 1:4] = random.integers(10, 22, (rows, 1))
        ids[:, 5:8] = random.integers(10, 16, (rows, 1)) + 6 * is_next[:, None]
        where = random.choice([1, 2, 3, 5, 6, 7], rows)[:, None]
        words = np.take_along_axis(ids, where, 1)
        np.put_along_axis(ids, where, 4, 1)
        return batch(token_ids=ids, masked_positions=where, masked_ids=words, masked_weights=np.ones_like(words),
                     next_sentence_label=1 - is_next)

    @tf.function
    def step(one):
        with tf.GradientTape() as tape:
            found = sums(made, one, True)
            loss = found["masked_loss"] / found["masked_weight"] + found["next_loss"] / found["next_weight"]
        optimizer.apply(tape.gradient(loss, variables), tf.constant(2e-3))

    for _ in range(120):
        step(pairs(64))
    found = sums(made, pairs(256), False)
    assert float(found["masked_accuracy"] / found["masked_weight"]) > 0.95
    assert float(found["next_accuracy"] / found["next_weight"]) > 0.9
    served = sums(in_float32(made), pairs(256), False)
    assert float(served["masked_accuracy"] / served["masked_weight"]) > 0.95
