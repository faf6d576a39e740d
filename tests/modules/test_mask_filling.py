"""What an exported pretrained encoder answers, in a process of its own and beside the model that it was made of."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from modules.checkpoints import Hints
from modules.export_reader import read_export
from modules.manifest import MANIFEST
from modules.mask_filling import CHUNK, ServedPretrainer, _in_chunks, export_pretrainer, tokenize_masked
from modules.pretrainer import build_pretrainer, checkpoint_of
from modules.tfhub_export import export_tfhub
from modules.tokenization import Tokenizer, Vocabulary
from modules.weights import load_encoder

TEXTS = ["the film was [MASK] and [MASK].", "no film", "", "[MASK]", "the story " * 40 + "[MASK]"]

USE = """
import json, sys
import tensorflow as tf, tensorflow_text
model = tf.saved_model.load(sys.argv[1])
answer = model.signatures["serving_default"](text=tf.constant(json.load(sys.stdin)))
said = {name: value.numpy() for name, value in answer.items()}
said["words"] = [[[word.decode() for word in words] for words in row] for row in said["words"]]
assert not {name for name in sys.modules if name.split(".")[0] in ("modules", "components", "tfx")}
json.dump({name: getattr(value, "tolist", lambda: value)() for name, value in said.items()}, sys.stdout)
"""


@pytest.fixture(scope="module")
def made(tiny_pretrainer):
    return tiny_pretrainer[0]


@pytest.fixture(scope="module")
def folder(tiny_pretrainer):
    return tiny_pretrainer[1]


def example(ids, **features):
    values = {"token_ids$ragged_values": ids, **features}
    return tf.train.Example(features=tf.train.Features(feature={
        name: tf.train.Feature(int64_list=tf.train.Int64List(value=value)) for name, value in values.items()
    })).SerializeToString()


# Tokens.


def test_masks_are_tokens_and_other_special_tokens_are_not(made):
    tokenizer, ids = Tokenizer(made.vocabulary), made.vocabulary.ids
    texts = ["the film was [MASK] .", "[MASK]ing[MASK][MASK]", "the [Mask] [SEP]", "", "[MASK]"]
    found = tokenize_masked(tokenizer, tf.constant(texts)).to_list()
    words = [ids[word] for word in ("the", "film", "was", "[MASK]", ".")]
    assert found[0] == words
    alone = tokenizer.tokenize(tf.constant(["ing", texts[2]])).to_list()
    assert found[1] == [4, *alone[0], 4, 4]
    assert found[2] == alone[1] and not {2, 3, 4} & set(found[2])
    assert found[3] == [] and found[4] == [4]


def test_texts_without_masks_have_the_tokenizers_own_pieces(made):
    tokenizer, texts = Tokenizer(made.vocabulary), tf.constant(["Good films, [no] MASK", "a\u00e9 b"])
    assert tokenize_masked(tokenizer, texts).to_list() == tokenizer.tokenize(texts).to_list()


# Answers.


def test_a_server_tells_the_likeliest_words_for_every_mask(made, folder):
    done = subprocess.run([sys.executable, "-I", "-W", "ignore", "-c", USE, str(folder)], input=json.dumps(TEXTS),
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout)
    assert said["counts"] == [2, 0, 0, 1, 0]
    assert said["truncated"] == [False, False, False, False, True]
    assert np.array(said["words"]).shape == np.array(said["probabilities"]).shape == (5, 2, 3)
    vocabulary = made.vocabulary
    pieces = [vocabulary.ids[piece] for piece in ("the", "film", "was", "[MASK]", "and", "[MASK]", ".")]
    ids = [vocabulary.cls_id, *pieces, vocabulary.sep_id]
    expected = tf.nn.softmax(made(tf.constant([ids]))["logits"])[0].numpy()
    for mask, position in enumerate((4, 6)):
        best = [i for i in np.argsort(-expected[position]) if i > 4][:3]
        assert said["words"][0][mask] == [vocabulary.pieces[i] for i in best]
        np.testing.assert_allclose(said["probabilities"][0][mask], expected[position][best], rtol=1e-3)
    assert said["words"][0][0] != said["words"][0][1]
    assert said["words"][3][1] == ["", "", ""] and said["probabilities"][3][1] == [0, 0, 0]
    assert said["words"][1] == [["", "", ""]] * 2


def test_no_mask_at_all(made):
    assert ServedPretrainer(made, 16, top=4).fill(tf.constant(["a film", ""]))["words"].shape == (2, 0, 4)


def test_more_masks_than_fit_at_a_time(made):
    served = ServedPretrainer(made, max_length=64, top=2)
    texts = ["the [MASK] " * 9 + word for word in ("film", "book", "story")] * 12   # 324 masks
    many = served.fill(tf.constant(texts))
    few = [served.fill(tf.constant([text])) for text in texts[:3]]
    assert many["words"].shape == (36, 9, 2) and CHUNK < 36 * 9
    for row in (0, 1, 2, 33, 34, 35):
        np.testing.assert_array_equal(many["words"][row], few[row % 3]["words"][0])
        np.testing.assert_allclose(many["probabilities"][row], few[row % 3]["probabilities"][0], rtol=1e-4)


@pytest.mark.parametrize("rows", [0, 1, CHUNK, CHUNK + 1])
def test_chunks_lose_nothing(rows):
    x, number = tf.range(rows), tf.TensorSpec([None], tf.int32)
    doubled, = _in_chunks(lambda x: (2 * x,), [number], x)
    assert doubled.numpy().tolist() == list(range(0, 2 * rows, 2))


# Judging.


def test_every_word_is_foretold_once_from_the_others(made, folder):
    rows = [[2, 10, 11, 1, 12, 3, 13, 14, 15, 3], [2, 20, 3], [2, 1, 3]]
    model = tf.saved_model.load(str(folder))
    examples = [example(rows[0], next_sentence_label=[0]), example(rows[1], next_sentence_label=[1]), example(rows[2])]
    answer = model.signatures["examples"](examples=tf.constant(examples))
    assert answer["masked_count"].numpy().tolist() == [6, 1, 0]   # [UNK] is no word
    loss, correct = np.zeros(2), np.zeros(2)
    for row, ids in enumerate(rows[:2]):
        ordinary = [position for position, id in enumerate(ids) if id > 4]
        for turn in range(3):
            masked = ordinary[turn::3]
            asked = np.array(ids)
            asked[masked] = 4
            answers = made(tf.constant([asked], tf.int32))
            log = tf.nn.log_softmax(answers["logits"])[0].numpy()
            loss[row] -= sum(log[position, ids[position]] for position in masked)
            correct[row] += sum(log[position].argmax() == ids[position] for position in masked)
            if turn == 0:
                score = tf.nn.softmax(answers["next_logits"])[0, 0]
                assert float(answer["next_score"][row]) == pytest.approx(float(score), rel=1e-3)
    np.testing.assert_allclose(answer["masked_loss"], [*loss, 0], rtol=1e-4)
    np.testing.assert_array_equal(answer["masked_correct"], [*correct, 0])
    features = model.signatures["transform_features"](examples=tf.constant([example(rows[1], next_sentence_label=[1])]))
    assert {name: value.numpy().tolist() for name, value in features.items()} == {
        "token_ids": [rows[1]], "token_count": [3], "next_sentence_label": [1]}


def test_a_row_answers_alike_in_any_company(made):
    served = ServedPretrainer(made, max_length=16, passes=7)
    rows = [[2, 10, 11, 12, 3], [2, *range(20, 30), 3, 31, 3]]
    both = served.judge(tf.ragged.constant(rows, tf.int64))
    for row, ids in enumerate(rows):
        alone = served.judge(tf.ragged.constant([ids], tf.int64))
        for name, value in alone.items():
            assert float(value[0]) == pytest.approx(float(both[name][row]), rel=1e-4)


# Back from there.


def test_what_is_served_can_be_had_back_whole(made, folder, tmp_path):
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest == {"shape": "pretraining", "text": "text", "inputs": ["text"], "max_length": 16, "top": 3,
                        "passes": 3, "next_sentence": True}
    checkpoint, expected = read_export(folder, Hints()), checkpoint_of(made)
    assert checkpoint.config == made.config and checkpoint.vocabulary == made.vocabulary
    for found, wanted in ((checkpoint.tensors, expected.tensors), (checkpoint.pretraining, expected.pretraining)):
        assert found.keys() == wanted.keys()
        assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
    checkpoint.write(tmp_path / "hf")
    ids = tf.constant([[2, 10, 4, 11, 3, 12, 3, 0]])
    inputs = {"input_word_ids": ids, "input_mask": made.vocabulary.input_mask(ids),
              "input_type_ids": made.vocabulary.segment_ids(ids)}
    outputs = made.encoded(ids)
    export_tfhub(checkpoint, tmp_path / "hub", max_length=16)
    for other in (load_encoder(tmp_path / "hf"), tf.saved_model.load(str(tmp_path / "hub/encoder"))):
        for name in ("sequence_output", "pooled_output"):
            np.testing.assert_allclose(other(inputs)[name], outputs[name], atol=1e-5)


def test_a_model_without_next_sentences(tiny_encoder, tmp_path):
    made, _ = build_pretrainer({"seed": 1, "model": {"preset": "tiny", "dropout": 0.1, "next_sentence": False}},
                               Vocabulary.read(tiny_encoder), "mixed_bfloat16")
    export_pretrainer(made, str(tmp_path / "1"), max_length=16)
    model = tf.saved_model.load(str(tmp_path / "1"))
    answer = model.signatures["examples"](examples=tf.constant([example([2, 10, 11, 3])]))
    assert set(answer) == {"masked_loss", "masked_correct", "masked_count"}
    checkpoint = read_export(tmp_path / "1", Hints())
    assert "pooler.dense.weight" not in checkpoint.tensors and len(checkpoint.pretraining) == 5
    checkpoint.check("there")
