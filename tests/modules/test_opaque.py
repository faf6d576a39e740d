"""SavedModels of another architecture: what is read from them, what trains, and what is served."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from components.encoder_sources import import_encoder
from modules.bert import INPUTS
from modules.classifier import run_fn
from modules.errors import TextrailError
from modules.opaque import INPUT_NAMES, OpaqueConfig, OpaqueEncoder, is_opaque, write_opaque
from modules.tokenization import Vocabulary
from modules.training import TrainArgs
from tests.components.transforming import COLUMN, LABEL, transform
from tests.modules.test_classifier import MOODS, arguments, ask

HIDDEN, POSITIONS = 12, 32


class Convolution(tf.Module):
    """Three wordpieces at a time: no BERT, with the reusable SavedModel interface."""

    def __init__(self, vocab_file, pieces: int):
        super().__init__()
        random = tf.random.Generator.from_seed(3)
        self.words = tf.Variable(random.normal([pieces, HIDDEN], stddev=0.3), name="words")
        self.positions = tf.Variable(random.normal([POSITIONS, HIDDEN], stddev=0.1), name="positions")
        self.kernel = tf.Variable(random.normal([3, HIDDEN, HIDDEN], stddev=0.3), name="convolution/kernel")
        self.frozen = tf.Variable(random.normal([HIDDEN]), trainable=False, name="frozen")
        self.steps = tf.Variable(0, trainable=False, name="steps")
        self.of_another_task = tf.Variable(tf.ones([HIDDEN]), name="of_another_task")
        self.vocab_file = tf.saved_model.Asset(str(vocab_file))
        self.do_lower_case = tf.Variable(True, trainable=False)

    @tf.function
    def __call__(self, inputs, training=False):
        ids, mask = inputs["input_word_ids"], inputs["input_mask"]
        x = tf.gather(self.words, ids) + self.positions[None, :tf.shape(ids)[1]]
        x = x * tf.cast(mask, tf.float32)[:, :, None]
        if training:
            x = tf.nn.dropout(x, 0.2)
            self.steps.assign_add(1)
        x = tf.tanh(tf.nn.conv1d(x, self.kernel, 1, "SAME")) + self.frozen
        pooled = tf.reduce_max(x - 9.0 * tf.cast(1 - mask, tf.float32)[:, :, None], axis=1)
        return {"sequence_output": x, "pooled_output": pooled, "default": pooled}


def write(module, folder, length: int | None = None, names=INPUTS, modes=(True, False), **options) -> str:
    spec = {name: tf.TensorSpec([None, length], tf.int32, name) for name in names}
    for training in modes:
        module.__call__.get_concrete_function(spec, training=training)
    tf.saved_model.save(module, str(folder), **options)
    return str(folder)


@pytest.fixture(scope="module")
def convolution(tiny_encoder, tmp_path_factory) -> str:
    """The SavedModel of another architecture, with the tiny encoder's vocabulary."""
    module = Convolution(tiny_encoder / "vocab.txt", len(Vocabulary.read(tiny_encoder).pieces))
    return write(module, tmp_path_factory.mktemp("convolution") / "saved")


@pytest.fixture(scope="module")
def encoder(convolution, tiny_encoder, tmp_path_factory):
    """The Encoder artifact made of it; the vocabulary is the one that it was saved with."""
    folder = tmp_path_factory.mktemp("opaque")
    import_encoder(convolution, str(folder), opaque=True, max_length=16)
    assert Vocabulary.read(folder) == Vocabulary.read(tiny_encoder)
    return folder


def imported(saved_model, tiny_encoder, folder, max_length: int = 16):
    write_opaque(str(saved_model), str(folder), Vocabulary.read(tiny_encoder), max_length)
    return folder


IDS = tf.constant([[2, 26, 30, 3], [2, 27, 3, 0]])
TEXTS = {"input_word_ids": IDS, "input_mask": tf.sign(IDS), "input_type_ids": tf.zeros_like(IDS)}


def test_the_folder_says_what_is_known(encoder, tiny_encoder):
    assert sorted(file.name for file in encoder.iterdir()) == [
        "config.json", "saved_model", "tokenizer_config.json", "vocab.txt"]
    assert is_opaque(str(encoder)) and not is_opaque(str(tiny_encoder))
    pieces = len(Vocabulary.read(tiny_encoder).pieces)
    assert OpaqueConfig.read(str(encoder)) == OpaqueConfig(
        hidden_size=HIDDEN, vocab_size=pieces, pad_token_id=0, max_position_embeddings=None,
        outputs=["pooled_output", "sequence_output"],
        parameters=(pieces + POSITIONS) * HIDDEN + 3 * HIDDEN**2)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_what_the_outputs_are_made_with_trains(encoder, pooling):
    opaque = OpaqueEncoder(str(encoder))
    opaque.fine_tune("all", pooling, 16)
    assert [name for name, _ in opaque.trained] == ["words", "positions", "convolution/kernel"]
    assert {variable.name for variable in opaque.state} == {"frozen:0", "steps:0"}
    first, second = (opaque(TEXTS, training=True)["sequence_output"] for _ in range(2))
    assert np.any(first != second)   # drops
    np.testing.assert_array_equal(opaque(TEXTS)["pooled_output"], opaque(TEXTS)["pooled_output"])


def test_without_fine_tuning_it_serves_while_training(encoder):
    opaque = OpaqueEncoder(str(encoder))
    opaque.fine_tune(0, "mean", 16)
    assert opaque.trained == opaque.state == []
    with tf.GradientTape() as tape:
        answer = opaque(TEXTS, training=True)["sequence_output"]
    np.testing.assert_array_equal(answer, opaque(TEXTS)["sequence_output"])
    assert tape.gradient(answer, opaque.interface.variables[0]) is None


def keras_model(keras, length: int | None = None):
    inputs = [keras.Input([length], dtype="int32", name=name) for name in INPUTS]
    x = sum(keras.layers.Embedding(300, HIDDEN)(one) for one in inputs)
    x = keras.layers.Dense(HIDDEN, name="dense")(keras.layers.Dropout(0.5)(x))
    return keras.Model(inputs, [x[:, 0], x])


def test_keras_2_and_3_write_encoders_too(tiny_encoder, tmp_path):
    import keras
    import tf_keras

    outputs = {}
    for name, library in (("two", tf_keras), ("three", keras)):
        model, folder = keras_model(library), tmp_path / name
        folder.mkdir()
        model.save(folder / "in") if name == "two" else model.export(folder / "in", verbose=False)
        opaque = OpaqueEncoder(str(imported(folder / "in", tiny_encoder, folder)))
        opaque.fine_tune("all", "mean", 16)
        assert len(opaque.trained) == 5
        outputs[name] = opaque
        answer = opaque(TEXTS)
        expected = model([TEXTS[key] for key in INPUTS])
        np.testing.assert_allclose(answer["pooled_output"], expected[0], atol=1e-6)
        np.testing.assert_allclose(answer["sequence_output"], expected[1], atol=1e-6)
    # Keras 2 saves its training as well; Keras 3 exports what serves alone, and that still has gradients.
    drops = {name: bool(np.any(opaque(TEXTS, training=True)["pooled_output"] != opaque(TEXTS)["pooled_output"]))
             for name, opaque in outputs.items()}
    assert drops == {"two": True, "three": False}


def test_an_encoder_of_one_length_gets_that_length(convolution, tiny_encoder, tmp_path):
    module = Convolution(tiny_encoder / "vocab.txt", len(Vocabulary.read(tiny_encoder).pieces))
    folder = imported(write(module, tmp_path / "fixed", length=8), tiny_encoder, tmp_path, max_length=8)
    opaque = OpaqueEncoder(str(folder))
    assert opaque.config.max_position_embeddings == 8
    opaque.fine_tune("all", "mean", 8)
    free = OpaqueEncoder(str(imported(convolution, tiny_encoder, tmp_path)))
    np.testing.assert_allclose(opaque(TEXTS)["sequence_output"], free(TEXTS)["sequence_output"], atol=1e-6)
    with pytest.raises(TextrailError, match="at most 8 tokens, which the SavedModel was saved for; received 9"):
        opaque.fine_tune("all", "mean", 9)


def test_other_names_of_the_inputs(tiny_encoder, tmp_path):
    class Renamed(Convolution):
        @tf.function
        def __call__(self, inputs, training=False):
            return super().__call__({INPUT_NAMES[name]: value for name, value in inputs.items()}, training)

    module = Renamed(tiny_encoder / "vocab.txt", len(Vocabulary.read(tiny_encoder).pieces))
    saved = write(module, tmp_path / "saved", names=("input_ids", "input_mask", "segment_ids"))
    opaque = OpaqueEncoder(str(imported(saved, tiny_encoder, tmp_path)))
    np.testing.assert_allclose(opaque(TEXTS)["pooled_output"], module({
        "input_ids": IDS, "input_mask": TEXTS["input_mask"], "segment_ids": TEXTS["input_type_ids"]})["pooled_output"])


def refusal(function, *arguments) -> TextrailError:
    with pytest.raises(TextrailError) as caught:
        function(*arguments)
    return caught.value


def test_other_inputs_are_named(tiny_encoder, tmp_path):
    module = tf.Module()
    module.__call__ = tf.function(lambda text: {"default": tf.strings.length(text)})
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=module.__call__.get_concrete_function(
        tf.TensorSpec([None], tf.string, "text")))
    error = refusal(imported, tmp_path / "saved", tiny_encoder, tmp_path)
    assert error.expected.startswith("a function with the inputs input_word_ids, input_mask, input_type_ids in")
    assert "serving_default(text)" in error.received
    assert not (tmp_path / "config.json").exists()


def test_a_vocabulary_or_length_beyond_its_own_is_refused_when_imported(convolution, tiny_encoder, tmp_path):
    vocabulary = Vocabulary.read(tiny_encoder)
    pieces = len(vocabulary.pieces)
    error = refusal(write_opaque, convolution, str(tmp_path), Vocabulary((*vocabulary.pieces, "moreover")), 16)
    assert f"{pieces + 1} wordpieces" in error.expected and f"= {pieces} is not in [0, {pieces})" in error.received
    assert "to 33 tokens" in refusal(write_opaque, convolution, str(tmp_path), vocabulary, POSITIONS + 1).expected
    assert not list(tmp_path.iterdir())


def test_it_is_opaque_only_where_the_user_says_so(convolution, tiny_encoder, tmp_path):
    error = refusal(import_encoder, convolution, str(tmp_path))
    assert error.received.startswith("words") or "convolution/kernel" in error.received
    assert error.fix.endswith("Or set encoder.opaque=true in a run, which fine-tunes the SavedModel as it is.")
    with pytest.raises(TextrailError, match="to be a SavedModel, for encoder"):
        import_encoder(str(tiny_encoder), str(tmp_path), opaque=True)
    assert not list(tmp_path.iterdir())


def test_an_output_that_padding_changes_is_none(tiny_encoder, tmp_path):
    class Blind(Convolution):
        @tf.function
        def __call__(self, inputs, training=False):
            outputs = super().__call__(inputs, training)
            return {"sequence_output": outputs["sequence_output"],
                    "pooled_output": tf.reduce_mean(outputs["sequence_output"], axis=1)}

    vocabulary = Vocabulary.read(tiny_encoder)
    saved = write(Blind(tiny_encoder / "vocab.txt", len(vocabulary.pieces)), tmp_path / "saved")
    opaque = OpaqueEncoder(str(imported(saved, tiny_encoder, tmp_path / "encoder")))
    assert opaque.config.outputs == ["sequence_output"]
    assert "pooled_output that heeds its mask" in refusal(opaque.fine_tune, "all", "cls", 16).expected


def test_a_signature_alone_has_nothing_to_train(convolution, tiny_encoder, tmp_path):
    loaded = tf.saved_model.load(convolution)
    frozen = tf.Module()
    frozen.inner = loaded
    constants = {name: value.numpy() for name, value in (("words", loaded.words), ("kernel", loaded.kernel))}

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32, name) for name in INPUTS])
    def serve(input_word_ids, input_mask, input_type_ids):
        x = tf.gather(constants["words"], input_word_ids) * tf.cast(input_mask, tf.float32)[:, :, None]
        return {"sequence_output": tf.nn.conv1d(x, constants["kernel"], 1, "SAME")}

    tf.saved_model.save(tf.Module(), str(tmp_path / "saved"), signatures=serve)
    opaque = OpaqueEncoder(str(imported(tmp_path / "saved", tiny_encoder, tmp_path)))
    opaque.fine_tune(0, "mean", 16)
    assert opaque(TEXTS)["sequence_output"].shape == (2, 4, HIDDEN)
    error = refusal(opaque.fine_tune, "all", "mean", 16)
    assert error.expected.startswith("variables that train behind serving_default")
    assert "fine_tune_layers=0" in error.fix
    assert "pooled_output" in refusal(opaque.fine_tune, 0, "cls", 16).expected
    assert "all or 0" in refusal(opaque.fine_tune, 2, "mean", 16).expected


@pytest.fixture(scope="module")
def trained(encoder, tmp_path_factory):
    """A classifier on the convolution, trained for a few epochs on a few words, with its arguments and rows."""
    folder = tmp_path_factory.mktemp("trained")
    rows = [{"text": f"{text} {filler}", "stars": stars} for stars, texts in MOODS.items() for text in texts
            for filler in ("", "and we will go again", "the staff was there", "very fast phone")]
    graph, _ = transform(folder, encoder, {"train": rows * 4, "validation": rows},
                         COLUMN.format("text", "") + COLUMN.format("stars", LABEL), max_length=16)
    args = arguments(folder, encoder, graph, training={"learning_rate": 3e-2})
    run_fn(args)
    return args, rows


def rounds(args: TrainArgs) -> list[dict]:
    with open(f"{args.run_dir}/history.json") as file:
        return json.load(file)["rounds"]


def test_it_learns_and_its_weights_change(trained, encoder):
    args, _ = trained
    history = rounds(args)
    assert history[-1]["validation"]["accuracy"] > 0.9
    assert history[-1]["train"]["loss"] < history[0]["train"]["loss"]
    before, after = (tf.saved_model.load(path) for path in (f"{encoder}/saved_model", args.serving_dir))
    inner = after.classifier.bert.loaded
    for name in ("words", "positions", "kernel"):
        assert np.abs(getattr(before, name) - getattr(inner, name)).max() > 1e-3, name
    np.testing.assert_array_equal(before.frozen, inner.frozen)
    np.testing.assert_array_equal(before.of_another_task, inner.of_another_task)
    assert inner.steps == history[-1]["step"]   # what it counts while training, and then alone, is served as well


def test_the_moved_model_answers_in_a_fresh_process(trained, tmp_path):
    args, rows = trained
    served = ask(args.serving_dir, rows, tmp_path)["served"]
    assert np.mean(np.array(served["label"]) == [row["stars"] for row in rows]) > 0.9
    here = tf.saved_model.load(args.serving_dir).signatures["serving_default"](
        text=tf.constant([row["text"] for row in rows]))
    np.testing.assert_allclose(served["scores"], here["scores"], atol=1e-6)


def test_a_training_goes_on_from_its_checkpoint(trained, tmp_path):
    args, _ = trained
    # The folder of checkpoints is that of a training whose every step is taken: what is exported comes out of it.
    again = dataclasses.replace(args, serving_dir=str(tmp_path / "model"), run_dir=str(tmp_path))
    run_fn(again)
    assert rounds(again) == rounds(args)
    one, two = (tf.saved_model.load(each.serving_dir).classifier.bert.loaded for each in (args, again))
    for name in ("words", "positions", "kernel", "frozen", "steps"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
