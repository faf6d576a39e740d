"""Exact ids with a ten-word vocabulary, and HuggingFace's ids on real texts."""

import gzip
import json

import pytest
import tensorflow as tf

from modules.errors import TextrailError
from modules.tokenization import SPECIALS, Tokenizer, Vocabulary, cut_middle, split_vocabulary, truncate_pair

PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "film", "##s", ",", "bad")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(Vocabulary(PIECES))


@pytest.fixture(scope="module")
def uncased(shared_data) -> Tokenizer:
    text = (shared_data / "data" / "vocab" / "bert_uncased_vocab.txt").read_text(encoding="utf-8")
    return Tokenizer(Vocabulary(tuple(split_vocabulary(text))))


def encode(tokenizer: Tokenizer, *texts: str | bytes, pair: list[str] | None = None, max_length: int = 16) -> list:
    ids = tokenizer.encode(tf.constant(texts), None if pair is None else tf.constant(pair), max_length=max_length)
    assert isinstance(ids, tf.RaggedTensor) and ids.dtype == tf.int64
    return ids.to_list()


def test_single_texts(tokenizer):
    assert encode(tokenizer, "Good films, BÀD", "", "good unseen") == [[2, 5, 6, 7, 8, 9, 3], [2, 3], [2, 5, 1, 3]]


def test_a_long_text_loses_its_end(tokenizer):
    assert encode(tokenizer, "good bad good bad", "good bad", max_length=4) == [[2, 5, 9, 3], [2, 5, 9, 3]]


def test_a_long_text_loses_its_middle_when_asked_to(tokenizer):
    text = tf.constant(["film " * 3 + "good " * 5, "good", ""])
    ids = tokenizer.encode(text, max_length=6, truncate="middle").to_list()
    good, film = tokenizer.encode(tf.constant(["good film"]), max_length=4).to_list()[0][1:3]
    assert ids == [[2, film, good, good, good, 3], [2, good, 3], [2, 3]]


def test_cut_middle_keeps_texts_within_the_budget_whole():
    rows = tf.ragged.constant([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4], [], [7], [1, 2, 3, 4, 5]], dtype=tf.int64)
    assert cut_middle(rows, 4).to_list() == [[1, 4, 5, 6], [1, 2, 3, 4], [], [7], [1, 3, 4, 5]]
    assert cut_middle(rows, 3).to_list() == [[4, 5, 6], [2, 3, 4], [], [7], [3, 4, 5]]


def test_pairs(tokenizer):
    assert encode(tokenizer, "good film", "", pair=["bad", "bad films"]) == [[2, 5, 6, 3, 9, 3], [2, 3, 9, 6, 7, 3]]


def test_long_pairs_lose_the_end_of_the_longer_text(tokenizer):
    assert encode(tokenizer, "good good good good", "good", "good good good good", max_length=8,
                  pair=["bad bad", "bad bad bad bad bad", "bad bad bad bad"]) == [
        [2, 5, 5, 5, 3, 9, 9, 3], [2, 5, 3, 9, 9, 9, 9, 3], [2, 5, 5, 5, 3, 9, 9, 3]]


def test_longest_first_is_removing_one_token_at_a_time():
    """Every pair of lengths up to 9 under every budget up to 12, against the loop that BERT's authors wrote."""
    cases = [(a, b, budget) for a in range(10) for b in range(10) for budget in range(13)]
    for budget in range(13):
        lengths = [(a, b) for a, b, limit in cases if limit == budget]
        first, second = (tf.ragged.range([pair[side] for pair in lengths]) for side in (0, 1))
        got = [cut.to_list() for cut in truncate_pair(first, second, budget)]
        expected = [[], []]
        for a, b in lengths:
            while a + b > budget:
                if a > b:
                    a -= 1
                else:
                    b -= 1
            expected[0].append(list(range(a)))
            expected[1].append(list(range(b)))
        assert got == expected


def test_segments_and_mask_follow_from_the_ids():
    vocabulary = Vocabulary(PIECES)
    ids = vocabulary.to_dense(tf.ragged.constant([[2, 5, 3, 9, 6, 3], [2, 5, 3], [2, 3, 3]], dtype=tf.int64))
    assert ids.numpy().tolist() == [[2, 5, 3, 9, 6, 3], [2, 5, 3, 0, 0, 0], [2, 3, 3, 0, 0, 0]]
    assert vocabulary.segment_ids(ids).numpy().tolist() == [[0, 0, 0, 1, 1, 1], [0] * 6, [0, 0, 1, 0, 0, 0]]
    assert vocabulary.input_mask(ids).numpy().tolist() == [[1] * 6, [1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0]]


def test_to_dense_pads_to_a_bucket():
    vocabulary = Vocabulary(("x", *PIECES))  # [PAD] is 1.
    assert vocabulary.to_dense(tf.ragged.constant([[3, 4], [3]]), 4).numpy().tolist() == [[3, 4, 1, 1], [3, 1, 1, 1]]


def test_text_cannot_forge_special_tokens(tokenizer):
    assert encode(tokenizer, "[SEP] [CLS]") == [[2, 1, 1, 1, 1, 1, 1, 3]]


@pytest.mark.parametrize("text, ids", [
    (b"a" * 10_000, [1]), (b"good " * 2_500, [5] * 14), (b"\xff\xfe good \xc3", [1, 5, 1]), (b"good\x00film", [5, 6]),
    ("фильм 映画", [1, 1, 1]), ("ภาพยนตร์", [1]), ("😀", [1]), (b" \t\n", []),
])
def test_odd_texts(tokenizer, text, ids):
    assert encode(tokenizer, text) == [[2, *ids, 3]]


def test_case_is_kept_on_demand():
    cased = Tokenizer(Vocabulary((*PIECES, "Good"), lower_case=False))
    assert encode(cased, "Good good GOOD") == [[2, 10, 5, 1, 3]]


def test_missing_specials_are_named():
    with pytest.raises(TextrailError, match=r"without \[SEP\], \[MASK\]"):
        Vocabulary(("[PAD]", "[UNK]", "[CLS]", "good"))
    with pytest.raises(TextrailError, match="'good' on two lines"):
        Vocabulary((*PIECES, "good"))


def test_read(tiny_encoder):
    vocabulary = Vocabulary.read(tiny_encoder)
    assert vocabulary.lower_case and vocabulary.pad_id == 0 and vocabulary.pieces[5:7] == ("the", "a")


def test_saved_with_the_graph(tokenizer, tmp_path):
    module = tf.Module()
    module.encode = tf.function(lambda texts: tokenizer.encode(texts, max_length=8).to_tensor(),
                                input_signature=[tf.TensorSpec([None], tf.string)])
    tf.saved_model.save(module, tmp_path)
    assert tf.saved_model.load(tmp_path).encode(tf.constant(["good film"])).numpy().tolist() == [[2, 5, 6, 3]]


def test_ids_are_those_of_huggingface_but_for_seven_texts(uncased, shared_data):
    with gzip.open(shared_data / "golden" / "bert_uncased_tokens.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    got = encode(uncased, *(row["text"] for row in rows), max_length=10_000)
    differing = [row["text"] for row, ids in zip(rows, got, strict=True) if ids != [101, *row["token_ids"], 102]]
    assert len(rows) == 325
    # Literal special tokens, compatibility normalisation (ﬁ ½ ² ™ …) and a control character: see `Tokenizer`.
    assert differing[:4] == ["[CLS] hi [SEP]", "ﬁ ligature ½ ² ™", "control\x07char",
                             "“smart quotes” \u2018single\u2019 … ellipsis"]
    assert [text[:12] for text in differing[4:]] == ['"Virus" is a', "Det. Frank T", "RUMOR has it"]
    assert all(set(text) & {"½", "\x97"} for text in differing[4:])


def test_ids_and_segments_of_the_golden_inputs(uncased, shared_data):
    cases = json.loads((shared_data / "golden" / "minilm_outputs.json").read_text())["cases"]
    assert len(cases) == 6
    for case in cases:
        pair = None if case["text_b"] is None else tf.constant([case["text_b"]])
        ids = uncased.encode(tf.constant([case["text_a"]]), pair, max_length=128).to_tensor()
        assert ids.numpy().tolist() == [case["input_word_ids"]]
        assert uncased.vocabulary.segment_ids(ids).numpy().tolist() == [case["input_type_ids"]]
        assert uncased.vocabulary.input_mask(ids).numpy().tolist() == [case["input_mask"]]


def test_words_are_those_that_wordpieces_are_looked_up_in(shared_data):
    words = Tokenizer(Vocabulary(SPECIALS)).words(tf.constant(["Don't — Ação 猫2 [CLS] a$b", "", " "])).to_list()
    assert [b" ".join(row).decode() for row in words] == ["don ' t — acao 猫 2 [ cls ] a $ b", "", ""]
    with gzip.open(shared_data / "golden/bert_uncased_tokens.jsonl.gz", "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    words = Tokenizer(Vocabulary(SPECIALS)).words(tf.constant(texts))
    vocabulary = Vocabulary((*SPECIALS, *sorted({word.decode() for word in words.values.numpy()} - {*SPECIALS})))
    tokenizer = Tokenizer(vocabulary)
    # With all words as pieces a text has as many tokens as words, but for those that are longer than BERT takes.
    tokens = tf.gather(tf.constant(vocabulary.pieces), tokenizer.tokenize(tf.constant(texts)))
    short = tf.ragged.map_flat_values(lambda word: tf.where(tf.strings.length(word) > 100, "[UNK]", word), words)
    assert tokens.to_list() == short.to_list()
