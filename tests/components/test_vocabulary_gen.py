"""VocabularyGen end to end on a few rows: exact pieces, what the report says, and what is refused."""

import json
import random

import pytest
import tensorflow as tf
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.types import channel, standard_artifacts

from components import vocabulary_gen
from components.artifacts import Vocabulary
from components.beam_runner import run_beam_in_this_process
from components.vocabulary_gen import Executor, VocabularyGen, group_columns, learn_pieces, least_count, sentence
from modules import tokenization
from modules.errors import TextrailError
from modules.progress import LOGGER
from modules.subwords import JOINER, SPECIALS, Subwords
from tests.components.transforming import example

SETTINGS = {"size": 100, "joint": False, "lower_case": False, "normalization": "nfkc", "min_count": 1, "reserved": [],
            "max_characters": 1000}
PAIRS = [("o gato dorme.", "the cat sleeps."), ("o gato come.", "the cat eats."), ("a gata dorme.", "the cat sleeps.")]


def learned(folder, pairs=PAIRS, files: int = 1, kind: str = "subwords", **settings) -> str:
    """Runs the executor on pairs in some files; the folder of the artifact."""
    run_beam_in_this_process()
    train = folder / "in" / "Split-train"
    train.mkdir(parents=True)
    for i in range(files):
        with tf.io.TFRecordWriter(str(train / f"data-{i:05d}-of-{files:05d}.gz"), options="GZIP") as writer:
            for source, target in pairs[i::files]:
                writer.write(example(pt=source, en=target))
    examples, vocabulary = standard_artifacts.Examples(), Vocabulary()
    examples.uri, examples.split_names = str(folder / "in"), '["train"]'
    vocabulary.uri = str(folder / "out")
    (folder / "out").mkdir()
    data = {"text": "pt", "target": "en"} if kind == "subwords" else {"text": "pt", "text_pair": "en"}
    Executor(BaseBeamExecutor.Context(beam_pipeline_args=[], tmp_dir=str(folder / "tmp"), unique_id="1")).Do(
        {"examples": [examples]}, {"vocabulary": [vocabulary]},
        {"settings": json.dumps({"data": data, "kind": kind, "vocabulary": SETTINGS | settings})})
    return str(folder / "out")


@pytest.fixture(scope="module")
def pair_vocabularies(tmp_path_factory):
    return learned(tmp_path_factory.mktemp("pairs"))


def test_exact_pieces_of_each_language(pair_vocabularies):
    source = Subwords.read(f"{pair_vocabularies}/source")
    characters = [".", *"acdegmort", JOINER]
    assert source.pieces[:4] == SPECIALS and list(source.pieces[4:26]) == [*characters, *("##" + c for c in characters)]
    # The most frequent pairs first, the first of Unicode among equals: "##at", "##me", then "gat" from g and ##at.
    assert list(source.pieces[26:]) == ["##at", "##me", "gat", f"{JOINER}.", "##or", "##orme", "dorme", "gato"]
    target = Subwords.read(f"{pair_vocabularies}/target")
    assert {"the", "cat", "sleeps"} <= set(target.pieces) and "gat" not in target.pieces
    texts = tf.constant([text for text, _ in PAIRS])
    assert (source.decode(source.encode(texts)) == texts).numpy().all()


def test_the_report(pair_vocabularies):
    with open(f"{pair_vocabularies}/report.json") as file:
        report = json.load(file)
    assert list(report) == ["source", "target"]
    source = report["source"]
    assert source["words"] == 12 and source["learned_from"] == 7 and source["characters"] == 11
    assert source["wanted"] == 100 and source["size"] == len(Subwords.read(f"{pair_vocabularies}/source").pieces)
    assert source["reason"] == "no other two pieces stand together 2 times"
    assert source["unknown_share"] == 0 and source["characters_covered"] == 1
    assert source["longest"][0] == "dorme" and 1 < source["tokens_per_word"] < 2
    assert sentence("source", source).startswith(
        f"source: {source['size']} pieces of 100 (no other two pieces stand together 2 times), 1.")


def test_nothing_else_is_left_and_the_sizes_are_told(tmp_path, caplog):
    LOGGER.addHandler(caplog.handler)
    try:
        folder = learned(tmp_path, reserved=["[X]"], size=40, joint=True)
    finally:
        LOGGER.removeHandler(caplog.handler)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.json", "source", "target"]
    source, target = (Subwords.read(f"{folder}/{name}") for name in ("source", "target"))
    assert source == target and source.pieces[4] == "[X]" and len(source.pieces) == 40
    assert {"##t", "##h"} <= set(source.pieces)
    assert [record.message.split(",")[0] for record in caplog.records] == ["source: 40 pieces", "target: 40 pieces"]


def test_the_order_of_rows_files_and_batches_changes_nothing(tmp_path, monkeypatch):
    rng = random.Random(2)
    words = ["gato", "gata", "dorme", "come", "casa.", "é", "(sim)", "não!"]
    pairs = [(" ".join(rng.choices(words, k=5)), " ".join(rng.choices(words, k=4))) for _ in range(200)]
    first = learned(tmp_path / "first", pairs)
    rng.shuffle(pairs)
    monkeypatch.setattr(vocabulary_gen, "HELD_WORDS", 3)
    second = learned(tmp_path / "second", pairs, files=3)
    for name in ("source/vocab.txt", "target/vocab.txt", "report.json"):
        with open(f"{first}/{name}") as one, open(f"{second}/{name}") as other:
            assert one.read() == other.read()


def test_case_normalization_and_rare_words(tmp_path):
    folder = learned(tmp_path, [("Ôi ôi ½", "a"), ("raro", "a")], lower_case=True, normalization="nfc", min_count=2)
    source = Subwords.read(f"{folder}/source")
    assert source.lower_case and source.normalization == "nfc" and "ôi" in source.pieces and "r" not in source.pieces
    with open(f"{folder}/report.json") as file:
        report = json.load(file)["source"]
    assert report["words"] == 4 and report["unknown_share"] == 0.5 and report["learned_from"] == 1


@pytest.mark.parametrize(("min_count", "most", "least"), [(1, 100, 1), (1, 74, 2), (1, 24, 5), (1, 0, 9), (3, 100, 5),
                                                         (10, 100, 10)])
def test_how_often_a_word_must_stand_in_the_texts(min_count, most, least):
    assert least_count({1: 50, 2: 20, 5: 4, 9: 1}, min_count, most) == least
    assert least_count({}, 1, most) == 1


def test_of_very_many_words_the_most_frequent_ones_teach(tmp_path, monkeypatch):
    # On either side: three words twice, the mark of a sentence's end three times, two words once.
    monkeypatch.setattr(vocabulary_gen, "MOST_WORDS", 4)
    monkeypatch.setattr(vocabulary_gen, "READ_BYTES", 5)
    pairs = [("uno dos tres.", "one two three."), ("uno dos cinco.", "one two five."), ("tres.", "three.")]
    with open(f"{learned(tmp_path, pairs)}/report.json") as file:
        report = json.load(file)
    for side in ("source", "target"):
        assert (report[side]["learned_from"], report[side]["least_count"], report[side]["words"]) == (4, 2, 10)
        assert report[side]["unknown_share"] == 0.1, "what is not learned from is measured: cinco, five"
    counts = {"uno": 2, "dos": 2, "tres": 2, f"{JOINER}.": 3, "cinco": 1}
    kind = vocabulary_gen.KINDS["subwords"]
    pieces, told = learn_pieces(counts, ["pt"], list(SPECIALS), kind, SETTINGS)
    assert told == report["source"] and tuple(pieces) == Subwords.read(f"{tmp_path}/out/source").pieces


def test_long_words_are_counted_in_parts(tmp_path):
    folder = learned(tmp_path, [("é" * 250, "a" * 1000)])
    with open(f"{folder}/report.json") as file:
        report = json.load(file)
    assert report["source"]["words"] == 3 and report["target"]["words"] == 10


def test_a_vocabulary_of_bert(tmp_path):
    texts = [("Não (mesmo)!", "Don't 猫 it"), ("É o gato; a gata.", "the cat's")]
    folder = learned(tmp_path, texts, kind="bert", size=120, lower_case=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "report.json", "tokenizer_config.json", "vocab.txt"]
    vocabulary = tokenization.Vocabulary.read(folder)
    assert vocabulary.pieces[:5] == tokenization.SPECIALS and vocabulary.lower_case
    ids = tokenization.Tokenizer(vocabulary).encode(
        tf.constant([text for pair in texts for text in pair]), max_length=99)
    assert not tf.reduce_any(ids.values == vocabulary.ids["[UNK]"])
    with open(f"{folder}/report.json") as file:
        assert json.load(file)["text"]["unknown_share"] == 0


@pytest.mark.parametrize(("settings", "sentences"), [
    ({"size": 20}, "vocabulary.size that holds the characters of 'pt'; received 20, but there are 4 reserved pieces "
                   "and 11 characters, each at the start of a word and inside, which are 26 pieces. Raise"),
    ({"reserved": ["[X]", "[X]"]}, r"received '\[X\]' twice"),
    ({"reserved": ["[PAD]"]}, r"received '\[PAD\]' twice"),
    ({"reserved": ["sim"]}, r"pieces like \[NAME\] in vocabulary.reserved.*received 'sim'"),
    ({"min_count": 9}, "words in the column 'pt' of the training split; received none that stands 9 times or more"),
])
def test_what_cannot_be_is_told_in_a_sentence_and_leaves_nothing(tmp_path, settings, sentences):
    with pytest.raises(TextrailError, match=sentences):
        learned(tmp_path, **settings)
    assert list((tmp_path / "out").iterdir()) == []


def test_an_empty_column(tmp_path):
    with pytest.raises(TextrailError, match="words in the column 'en' of the training split"):
        learned(tmp_path, [("o gato", " "), ("a", "")])


def test_groups():
    folders = {"source": ["pt"], "target": ["en"]}
    assert group_columns(folders, False) == {"pt": "source", "en": "target"}
    assert group_columns(folders, True) == {"pt": "source", "en": "source"}
    assert group_columns({"": ["a", "b"]}, False) == {"a": "", "b": ""}


def test_the_component():
    component = VocabularyGen(examples=channel.Channel(type=standard_artifacts.Examples),
                              settings={"data": {"text": "pt", "target": "en"}, "vocabulary": SETTINGS})
    assert component.id == "VocabularyGen" and list(component.outputs) == ["vocabulary"]
    assert json.loads(component.exec_properties["settings"])["vocabulary"]["size"] == 100
