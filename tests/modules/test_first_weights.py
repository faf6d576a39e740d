import dataclasses

import keras
import numpy as np
import pytest

from modules.bert import Bert
from modules.first_weights import company, deviation, know_company, look_at_neighbours, positive_information
from modules.pretrainer import pretraining_config
from modules.tokenization import SPECIALS, Vocabulary


def test_weights_of_a_model_as_wide_as_bert_deviate_as_in_bert():
    assert deviation(768) == pytest.approx(0.0228, abs=1e-4)
    assert deviation(128) == pytest.approx(0.0559, abs=1e-4)
    assert pretraining_config({"preset": "mini"}, 100).initializer_range == deviation(256)


@pytest.mark.parametrize("preset, steps", [("tiny", [1, -1]), ("mini", [1, -1, 2, -2])])
def test_each_head_of_the_first_block_looks_at_a_neighbour(preset, steps):
    keras.utils.set_random_seed(1)
    bert = Bert(pretraining_config({"preset": preset, "positions": 40}, 100), with_pooler=False)
    look_at_neighbours(bert)
    table = np.asarray(bert.embeddings.positions)  # [positions, width]
    assert table.std() == pytest.approx(deviation(table.shape[1]), rel=0.1)
    x = table / table.std(axis=1, keepdims=True)
    queries, keys, _ = np.split(x @ np.asarray(bert.blocks[0].attention.qkv.kernel), 3, axis=1)
    for query, key, step in zip(*(np.split(one, len(steps), axis=1) for one in (queries, keys)), steps, strict=True):
        inner = np.arange(2, 38)
        assert ((query @ key.T).argmax(axis=1)[inner] == inner + step).mean() > 0.9   # The rest is noise's.


def test_widths_and_heads_that_leave_a_rest_are_taken():
    config = dataclasses.replace(pretraining_config({"preset": "tiny", "positions": 8}, 10), hidden_size=15,
                                 num_attention_heads=5, intermediate_size=16)
    bert = Bert(config, with_pooler=False)
    look_at_neighbours(bert)
    assert np.isfinite(np.asarray(bert.blocks[0].attention.qkv.kernel)).all()


def test_as_many_heads_as_wanted_look_at_neighbours():
    kernels = []
    for heads in (0, 1, None):
        keras.utils.set_random_seed(1)
        bert = Bert(pretraining_config({"preset": "mini", "positions": 8}, 10), with_pooler=False)
        look_at_neighbours(bert, heads)
        kernels.append(np.asarray(bert.blocks[0].attention.qkv.kernel).reshape(256, 3, 4, 64))
    none, one, every = kernels
    np.testing.assert_array_equal(one[:, :, 0], every[:, :, 0])
    np.testing.assert_array_equal(one[:, :, 1:], none[:, :, 1:])
    assert (none[:, :2] != every[:, :2]).any(axis=(0, 1, 3)).all()


def test_information_of_counts():
    # Of 8 counts: log(3 / (4 * 5^.75 / (5^.75 + 3^.75))) < 0 for all but the first and the last.
    smooth = np.array([5.0, 3.0]) ** 0.75
    share = smooth / smooth.sum()
    found = positive_information(np.array([[4, 0], [1, 3]]))
    np.testing.assert_allclose(found, [[np.log(4 / (4 * share[0])), 0], [0, np.log(3 / (4 * share[1]))]], rtol=1e-6)


SEA, FIELD = ["ship", "sail", "wave", "harbour"], ["cow", "plough", "barn", "meadow"]


def texts_of_two_worlds() -> tuple[Vocabulary, np.ndarray]:
    """Texts of three words, either of the sea or of the field, each with `and`; no text has `unused`."""
    vocabulary = Vocabulary((*SPECIALS, *SEA, *FIELD, "and", "unused"))
    draw = np.random.default_rng(0)
    texts = [["[CLS]", *draw.permutation(draw.choice(words, 3, replace=False)), "and", "[SEP]"]
             for words in (SEA, FIELD) for _ in range(50)]
    return vocabulary, np.array([vocabulary.ids[piece] for text in texts for piece in text])


def test_words_that_stand_together_begin_alike():
    vocabulary, token_ids = texts_of_two_worlds()
    vectors = company(token_ids, vocabulary, 2)
    assert vectors.shape == (len(vocabulary.pieces), 2) and vectors.dtype == np.float32
    sea, field = (vectors[[vocabulary.ids[word] for word in words]] for words in (SEA, FIELD))
    unit = [some / np.linalg.norm(some, axis=1, keepdims=True) for some in (sea, field)]
    assert (unit[0] @ unit[0].T > 0.99).all() and (unit[1] @ unit[1].T > 0.99).all()
    assert (np.abs(unit[0] @ unit[1].T) < 0.5).all()
    assert not vectors[[vocabulary.ids[piece] for piece in (*SPECIALS, "unused")]].any()
    np.testing.assert_array_equal(company(token_ids, vocabulary, 2), vectors)


def test_a_separator_ends_a_text():
    vocabulary, token_ids = texts_of_two_worlds()
    joined = token_ids[token_ids != vocabulary.sep_id]   # One long text: everything stands beside everything.
    vectors = company(joined, vocabulary, 2)
    ship, sail, cow = (vectors[vocabulary.ids[word]] for word in ("ship", "sail", "cow"))
    assert np.linalg.norm(ship - cow) < 2 * np.linalg.norm(ship - sail) + 1e-3


def test_a_new_encoder_knows_the_company_of_words():
    vocabulary, token_ids = texts_of_two_worlds()
    keras.utils.set_random_seed(1)
    bert = Bert(pretraining_config({"preset": "tiny", "positions": 8}, len(vocabulary.pieces)), with_pooler=False)
    before = np.asarray(bert.embeddings.words).copy()
    know_company(bert, vocabulary, token_ids)
    after = np.asarray(bert.embeddings.words)
    unknown = [vocabulary.ids[piece] for piece in (*SPECIALS, "unused")]
    np.testing.assert_array_equal(after[unknown], before[unknown])
    known = (after != before).any(axis=1)
    assert known[[vocabulary.ids[word] for word in (*SEA, *FIELD)]].all()
    np.testing.assert_allclose(after[known, :2].std(axis=0), deviation(128), rtol=1e-3)
    np.testing.assert_array_equal(after[:, 8:], before[:, 8:])   # Nine pieces have at most eight dimensions.


def test_texts_without_words_leave_a_new_encoder_as_it_was():
    vocabulary, _ = texts_of_two_worlds()
    bert = Bert(pretraining_config({"preset": "tiny", "positions": 8}, len(vocabulary.pieces)), with_pooler=False)
    before = np.asarray(bert.embeddings.words).copy()
    know_company(bert, vocabulary, np.array([vocabulary.cls_id, vocabulary.sep_id]))
    np.testing.assert_array_equal(np.asarray(bert.embeddings.words), before)
