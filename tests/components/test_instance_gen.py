"""InstanceGen: exact records of few documents, the same whatever runs beside them, and what stops it."""

import json
from collections import Counter
from itertools import pairwise
from random import Random

import apache_beam as beam
import pytest
import tensorflow as tf
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.types import channel, standard_artifacts

from components import instance_gen
from components.artifacts import Encoder, Vocabulary
from components.instance_gen import Executor, InstanceGen, Preparation
from modules.errors import TextrailError
from modules.instances import IS_NEXT, IS_RANDOM, Packing
from modules.tokenization import Vocabulary as Pieces

CLS, SEP = 2, 3


def settings(split_on=(), seed=1, **packing):
    return {"text": "text", "split_on": list(split_on), "seed": seed,
            "packing": {"max_length": 16, "short_rate": 0.1, "swap_rate": 0.5, "next_sentence": True} | packing}


def prepare(folder, encoder, examples_artifact, splits: dict[str, list[str]], arguments=(), **keys):
    """Runs the executor on documents; split → [(token ids, label)], and the artifact."""
    examples = examples_artifact(folder / "in", {split: [{"text": text} for text in texts]
                                                 for split, texts in splits.items()})
    prepared, vocabulary = standard_artifacts.Examples(), Vocabulary()
    prepared.uri, vocabulary.uri = str(folder / "out"), str(encoder)
    context = BaseBeamExecutor.Context(beam_pipeline_args=list(arguments), tmp_dir=str(folder), unique_id="1")
    Executor(context).Do({"examples": [examples], "vocabulary": [vocabulary]}, {"transformed_examples": [prepared]},
                         {"settings": json.dumps(settings(**keys))})
    return {split: list(records(folder / "out" / f"Split-{split}")) for split in splits}, prepared


def records(folder):
    for file in sorted(map(str, folder.iterdir())):
        for record in tf.data.TFRecordDataset(file, "GZIP").as_numpy_iterator():
            features = tf.train.Example.FromString(record).features.feature
            label = features["next_sentence_label"].int64_list.value
            yield list(features["token_ids$ragged_values"].int64_list.value), label[0] if label else None


@pytest.fixture
def run(tmp_path, tiny_encoder, examples_artifact):
    return lambda splits, **keys: prepare(tmp_path, tiny_encoder, examples_artifact, splits, **keys)


@pytest.fixture(scope="module")
def pieces(tiny_encoder):
    return Pieces.read(tiny_encoder)


def documents(count: int, seed: int = 3) -> list[str]:
    """Texts of a word of their own (w12 → w ##1 ##2) and others, in sentences that end with a full stop."""
    random = Random(seed)
    return [" ".join(f"W{d} {' '.join(random.choices(['film', 'the', 'book', 'good'], k=random.randint(1, 9)))}."
                     for _ in range(random.randint(1, 12))) for d in range(count)]


def test_records_of_two_documents(run, pieces):
    texts = {"train": ["The film. A film. The book.", "Good. Bad."], "validation": ["Film. Film.", "The. The."]}
    found, prepared = run(texts, max_length=12, short_rate=0, swap_rate=0)
    the, a, film, book, good, bad, stop = (pieces.ids[piece] for piece in "the a film book good bad .".split())
    assert len(found["train"]) == 2 and all(label == IS_NEXT for _, label in found["train"])
    cut_behind = {tuple(ids) for ids, _ in found["train"]}
    assert (CLS, good, stop, SEP, bad, stop, SEP) in cut_behind
    assert cut_behind & {(CLS, the, film, stop, SEP, a, film, stop, the, book, stop, SEP),
                         (CLS, the, film, stop, a, film, stop, SEP, the, book, stop, SEP)}
    assert sorted(found["validation"]) == [([CLS, the, stop, SEP, the, stop, SEP], IS_NEXT),
                                           ([CLS, film, stop, SEP, film, stop, SEP], IS_NEXT)]
    names = ("documents", "sentences", "instances", "tokens", "swapped", "short")
    assert [prepared.get_int_custom_property(f"{name}_train") for name in names] == [2, 5, 2, 19, 0, 0]


def test_further_marks_and_one_segment(run, pieces):
    texts = {"train": ["the film, a book; the end", "good"], "validation": ["bad"]}
    found, _ = run(texts, split_on=["commas"], max_length=6, short_rate=0, next_sentence=False)
    the, film, comma, good = (pieces.ids[piece] for piece in "the film , good".split())
    assert ([CLS, the, film, comma, SEP], None) in found["train"] and ([CLS, good, SEP], None) in found["train"]
    assert all(label is None and 2 < len(ids) <= 6 for ids, label in found["train"])


def test_every_b_is_from_where_its_label_says(run, pieces):
    found, _ = run({"train": documents(80), "validation": documents(9, seed=4)}, max_length=48)
    words = {number: piece for piece, number in pieces.ids.items()}

    def owners(ids):   # w ##1 ##2 → {"12"}; a cut may leave the beginning or end of it.
        text = "".join(words[i].removeprefix("##") if words[i].startswith("##") else f" {words[i]}" for i in ids)
        return {word for word in text.split() if word[0] == "w" and word[1:].isdigit()}

    labels = Counter()
    for ids, label in found["train"]:
        middle = ids.index(SEP)
        first, second = owners(ids[1:middle - 1]), owners(ids[middle + 1:])
        if first and second and ids[1] == pieces.ids["w"] and ids[middle + 1] == pieces.ids["w"]:
            assert len(first) == 1
            labels[label, min(first) in second or any(min(first).startswith(one) for one in second)] += 1
    assert labels[IS_NEXT, True] > 20 and labels[IS_RANDOM, False] > 20
    assert labels[IS_NEXT, False] == 0


def test_neither_files_of_others_nor_runners_change_a_file(tmp_path, tiny_encoder, examples_artifact):
    texts = {"train": documents(30), "validation": documents(6, seed=4)}
    found = []
    for name, arguments in (("a", ()), ("b", ("--direct_running_mode=multi_threading", "--direct_num_workers=2"))):
        found.append(prepare(tmp_path / name, tiny_encoder, examples_artifact, texts, arguments)[0])
    assert found[0] == found[1]
    other = prepare(tmp_path / "c", tiny_encoder, examples_artifact, texts | {"validation": documents(7, seed=9)})[0]
    assert other["train"] == found[0]["train"] and other["validation"] != found[0]["validation"]
    assert prepare(tmp_path / "d", tiny_encoder, examples_artifact, texts, seed=2)[0]["train"] != found[0]["train"]


def test_buckets(monkeypatch):
    monkeypatch.setattr(instance_gen, "BUCKET_BYTES", 4)
    assert list(instance_gen._buckets([b"aaa", b"bb", b"cccccc", b"d", b"e"])) == [
        [b"aaa", b"bb"], [b"cccccc", b"d"], [b"e"]]
    assert list(instance_gen._buckets([b"aaaaaa"])) == [[b"aaaaaa"]] and list(instance_gen._buckets([])) == []


@pytest.mark.parametrize("bucket, tokenized", [(1, 1), (1, 1 << 20), (400, 50), (1 << 20, 7)])
def test_small_buckets_lose_nothing_and_have_others_too(monkeypatch, pieces, bucket, tokenized):
    monkeypatch.setattr(instance_gen, "BUCKET_BYTES", bucket)
    monkeypatch.setattr(instance_gen, "TOKENIZED_BYTES", tokenized)
    texts, counts = [text.encode() for text in documents(41)] + [b" \n", b"the film."], Counter()
    found = list(Preparation(pieces, Packing(16, 0, 1), (), 1).instances(texts, counts))
    assert counts["documents"] == 42 and counts["instances"] == counts["swapped"] == len(found)
    assert {label for _, label in found} == {IS_RANDOM}
    assert counts["sentences"] >= sum(text.count(b".") for text in texts)
    assert [CLS, pieces.ids["the"], pieces.ids["film"], pieces.ids["."], SEP] in [ids[:5] for ids, _ in found]


def test_instances_of_a_bucket_are_shuffled(pieces):
    texts = [f"W{i} film. W{i} book. The end.".encode() for i in range(200)]
    found = list(Preparation(pieces, Packing(32, 0, 0), (), 1).instances(texts, Counter()))
    first = [ids[1:5] for ids, _ in found]
    in_order = sorted(range(200), key=first.__getitem__)
    assert len(found) == 200 and sum(abs(a - b) == 1 for a, b in pairwise(in_order)) < 20


def test_one_document_and_next_sentence(run):
    with pytest.raises(TextrailError, match=r"at least two documents in the validation split.*; received 1\. Give it"):
        run({"train": documents(3), "validation": ["One. Two."]})


def test_one_document_is_enough_without_pairs(run):
    found, _ = run({"train": ["the film. " * 9], "validation": ["the film."]}, next_sentence=False)
    assert [len(ids) for ids, _ in found["train"]].count(14) == 2 and len(found["train"]) == 3


def test_no_tokens(run):
    with pytest.raises(TextrailError, match="text in the train split to make examples of; received none, in 0 doc"):
        run({"train": ["\n \u200b", "\x0c"], "validation": documents(3)})


def test_a_vocabulary_without_specials(tmp_path, tiny_encoder, examples_artifact):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\n")
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    with pytest.raises(TextrailError, match=r"a vocabulary with .*; received one without \[MASK\]"):
        prepare(tmp_path, tmp_path, examples_artifact, {"train": documents(3)})


def test_an_encoder_with_fewer_positions_than_an_example_has_tokens(tmp_path, tiny_encoder, examples_artifact):
    examples, encoder = examples_artifact(tmp_path / "in", {"train": [{"text": "Film."}]}), Encoder()
    encoder.uri, prepared = str(tiny_encoder), standard_artifacts.Examples()
    prepared.uri = str(tmp_path / "out")
    context = BaseBeamExecutor.Context(beam_pipeline_args=[], tmp_dir=str(tmp_path), unique_id="1")
    with pytest.raises(TextrailError, match=r"instances\.max_length of at most 64, as many .* received 65\."):
        Executor(context).Do({"examples": [examples], "encoder": [encoder]}, {"transformed_examples": [prepared]},
                             {"settings": json.dumps(settings(max_length=65))})


def test_component_declares_what_tfx_needs():
    examples, vocabulary = channel.Channel(type=standard_artifacts.Examples), channel.Channel(type=Vocabulary)
    component = InstanceGen(examples, settings(), vocabulary=vocabulary)
    assert component.outputs["transformed_examples"].type is standard_artifacts.Examples
    assert json.loads(component.exec_properties["settings"]) == settings()
    assert issubclass(instance_gen._PrepareFile, beam.DoFn)
