"""Subwords: exact ids with a ten-word vocabulary, and that decoding undoes encoding on real and hostile texts."""

import gzip
import json
import os
import random
import subprocess
import sys

import pytest
import tensorflow as tf

from modules.errors import TextrailError
from modules.subwords import JOINER, SPECIALS, Subwords, is_reserved

TEN = Subwords((*SPECIALS, "o", "gato", "dor", "##me", f"{JOINER}.", "."))


def every_character(texts: list[bytes], **settings) -> Subwords:
    """A vocabulary of all characters of the texts, which leaves no word unknown."""
    plain = Subwords(SPECIALS, **settings).normalize(tf.constant(texts)).numpy()
    characters = sorted({character for text in plain for character in text.decode()} - {" "} | {JOINER})
    return Subwords((*SPECIALS, *characters, *(f"##{character}" for character in characters)), **settings)


def hostile_texts(count: int) -> list[bytes]:
    """Random bytes, random code points, and mixtures of all that means something to the tokenizer."""
    rng = random.Random(5)
    kinds = [
        lambda: bytes([rng.randrange(256)]),
        lambda: chr(rng.choice((rng.randrange(0xd800), rng.randrange(0xe000, 0x110000)))).encode(),
        lambda: rng.choice("ab .,!?#[]￭■ \t\n\v\x00\x01\x85\xa0\u2028\u200d\u0301猫が😀🏽").encode(),
        lambda: rng.choice(["[PAD]", "[START]", "[UNK]", "##", JOINER, " ", "a", "##a", "[", "]"]).encode(),
        lambda: rng.choice("مرحبا بالعالم ½ﬁ™Ϊ\u0301İßéÉ").encode(),
    ]
    return [b"".join(kind() for _ in range(rng.randrange(30))) for kind in kinds for _ in range(count // len(kinds))]


def test_exact_ids_with_a_ten_word_vocabulary():
    texts = tf.constant(["o gato dorme.", "dorme . o", "gato...", "o cão", "", " \t ", "gatome"])
    ids = TEN.encode(texts)
    assert ids.dtype == tf.int64 and ids.to_list() == [
        [2, 4, 5, 6, 7, 8, 3], [2, 6, 7, 9, 4, 3], [2, 5, 8, 8, 8, 3], [2, 4, 1, 3], [2, 3], [2, 3], [2, 5, 7, 3]]
    expected = [b"o gato dorme.", b"dorme . o", b"gato...", b"o", b"", b"", b"gatome"]
    assert TEN.decode(ids).numpy().tolist() == expected
    assert TEN.decode(tf.cast(ids.to_tensor(shape=[None, 12]), tf.int32)).numpy().tolist() == expected
    assert TEN.tokens(ids).to_list()[0] == [b"[START]", b"o", b"gato", b"dor", b"##me", f"{JOINER}.".encode(), b"[END]"]
    assert TEN.tokens(tf.constant([[5, 0]])).numpy().tolist() == [[b"gato", b"[PAD]"]]
    assert (TEN.pad_id, TEN.unk_id, TEN.start_id, TEN.end_id) == (0, 1, 2, 3)


@pytest.mark.parametrize(("text", "words"), [
    ("Olá (mundo), 1,5!", "Olá (￭ mundo ￭) ￭, 1 ￭,￭ 5 ￭!"),
    ("?! ? !", "? ￭! ? !"),
    ("don't", "don ￭'￭ t"),
    ("猫が好き", "猫￭ が ￭好￭ き"),
    ("👍🏽ok", "👍 ￭🏽￭ ok"),
    ("[START] a", "[￭ START ￭] a"),
    ("a￭ ##b", "a ￭■ # ￭#￭ b"),
    ("½ de ﬁm", "1 ￭⁄￭ 2 de fim"),
    ("a\u00a0b\u2028c\x85d\x1ce\x00f", "a b c d ef"),
])
def test_words(text, words):
    assert b" ".join(TEN.words(tf.constant([text])).to_list()[0]).decode() == words


def test_normalization_and_case_are_settings():
    text = tf.constant(["ÉCLAIR ½ e\u0301"])
    assert TEN.normalize(text).numpy()[0].decode() == "ÉCLAIR 1⁄2 é"
    assert Subwords(SPECIALS, True, "nfc").normalize(text).numpy()[0].decode() == "éclair ½ é"
    capitals = "".join(map(chr, range(0x20, 0x1f00)))
    lower = Subwords(SPECIALS, True, "none")
    assert lower.normalize(tf.constant([capitals])) == lower.normalize(tf.constant([capitals.lower()]))
    assert Subwords(SPECIALS, False, "none").normalize(text).numpy()[0].decode() == "ÉCLAIR ½ e\u0301"


@pytest.mark.parametrize("settings", [{}, {"lower_case": True, "normalization": "nfc"}, {"normalization": "none"}])
def test_decoding_undoes_encoding_of_hostile_texts(settings):
    texts = hostile_texts(5000)
    subwords = every_character(texts, **settings)
    ids = subwords.encode(tf.constant(texts))
    assert not tf.reduce_any(ids.values == subwords.unk_id)
    # No text forges a special token: there are but the two that every row has.
    assert int(tf.reduce_sum(tf.cast(ids.values < 4, tf.int32))) == 2 * len(texts)
    assert subwords.decode(ids).numpy().tolist() == subwords.normalize(tf.constant(texts)).numpy().tolist()


def test_decoding_undoes_encoding_of_real_texts(shared_data):
    with gzip.open(shared_data / "data/pt_en/pydocs.tsv.gz", "rt", encoding="utf-8") as file:
        texts = [text.strip() for line in list(file)[:8000:2] for text in line.split("\t")]
    subwords = every_character([text.encode() for text in texts], normalization="none")
    decoded = subwords.decode(subwords.encode(tf.constant(texts))).numpy()
    assert [text.decode() for text in decoded] == [" ".join(text.split()) for text in texts]


def test_long_words_are_taken_apart_and_nothing_is_quadratic():
    subwords = Subwords((*SPECIALS, "a", "##a", JOINER, f"##{JOINER}", ".", "##."))
    ids = subwords.encode(tf.constant(["a" * 200_000, "." * 100_000, "a." * 50_000, "b" * 200_000]))
    assert ids.row_lengths().numpy().tolist()[0] == 200_002 and ids[3].numpy().tolist() == [2, 1, 3]
    assert subwords.decode(ids).numpy().tolist() == [b"a" * 200_000, b"." * 100_000, b"a." * 50_000, b""]


def test_whatever_a_model_writes_becomes_a_text():
    subwords = Subwords((*SPECIALS, "[X]", "a", "##b", JOINER, f"##{JOINER}", f"{JOINER}.", f"({JOINER}"))
    ids = {piece: i for i, piece in enumerate(subwords.pieces)}

    def text(*pieces: str) -> str:
        return subwords.decode(tf.constant([[ids[piece] for piece in pieces]])).numpy()[0].decode()

    assert text("##b", "a", "[UNK]", "[X]", "a") == "b a a"
    assert text(JOINER, "a", JOINER, JOINER, "a", f"##{JOINER}") == "aa"
    assert text(f"{JOINER}.", f"({JOINER}", "[START]", "a") == ". (a"
    assert text("[PAD]") == ""


FRESH = """
import sys, tensorflow as tf
from modules.subwords import Subwords
texts = [line.rstrip(b"\\n") for line in open(sys.argv[2], "rb")]
print(Subwords.read(sys.argv[1]).encode(tf.constant(texts)).to_list())
"""


def test_a_fresh_process_and_a_saved_graph_give_the_same_ids(tmp_path):
    texts = [text.replace(b"\n", b" ") for text in hostile_texts(500)] + ["TITLE İ Ì Í Ĩ Į̃".encode()]
    subwords = every_character(texts, lower_case=True)
    subwords.write(tmp_path)
    (tmp_path / "texts").write_bytes(b"".join(text + b"\n" for text in texts))
    expected = subwords.encode(tf.constant(texts)).to_list()
    # In whose locale ICU lower-cases I to ı.
    script = subprocess.run([sys.executable, "-c", FRESH, str(tmp_path), str(tmp_path / "texts")],
                            capture_output=True, text=True, check=True, env=os.environ | {"LC_ALL": "tr_TR.UTF-8"})
    assert json.loads(script.stdout) == expected

    module = tf.Module()
    module.there = tf.function(subwords.encode, input_signature=[tf.TensorSpec([None], tf.string)])
    module.back = tf.function(subwords.decode, input_signature=[tf.TensorSpec([None, None], tf.int32)])
    tf.saved_model.save(module, str(tmp_path / "model"))
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    ids = loaded.there(tf.constant(texts))
    assert ids.to_list() == expected
    assert (loaded.back(tf.cast(ids.to_tensor(), tf.int32)) == subwords.normalize(tf.constant(texts))).numpy().all()


def test_reading_and_writing(tmp_path):
    subwords = Subwords((*SPECIALS, "[X]", "é", "##é"), True, "nfc")
    subwords.write(tmp_path)
    assert (tmp_path / "vocab.txt").read_text() == "[PAD]\n[UNK]\n[START]\n[END]\n[X]\né\n##é\n"
    assert json.loads((tmp_path / "subwords.json").read_text()) == {"lower_case": True, "normalization": "nfc"}
    assert Subwords.read(tmp_path) == subwords
    (tmp_path / "vocab.txt").unlink()
    with pytest.raises(TextrailError, match=r"vocab.txt, subwords.json of a vocabulary in .*; received NotFoundError"):
        Subwords.read(tmp_path)


@pytest.mark.parametrize(("pieces", "sentence"), [
    (("[UNK]", "[PAD]", "[START]", "[END]"), r"begins with \[PAD\], \[UNK\], \[START\], \[END\]; received \[UNK\]"),
    ((), "none of them"),
    ((*SPECIALS, "a", "a"), "'a' on two lines"),
    ((*SPECIALS, "a b"), "'a b' on line 5"),
    ((*SPECIALS, "##"), "'##' on line 5"),
])
def test_pieces_that_cannot_be_are_refused(pieces, sentence):
    with pytest.raises(TextrailError, match=sentence):
        Subwords(pieces)


def test_what_is_reserved():
    assert [piece for piece in ("[X]", "[", "]", f"[{JOINER}", "[]", "x]", "[PAD]") if is_reserved(piece)] == \
        ["[X]", "[PAD]"]
