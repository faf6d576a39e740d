"""`textrail check` of a pretraining: documents on their way to masked examples, and what is said of them."""

import dataclasses
import math

import numpy as np
import pytest

from modules.errors import TextrailError
from modules.tokenization import Vocabulary
from pipelines import check, check_view, cli, settings

# Words that stand often enough to be wordpieces; sentences of 4 and 5 tokens, 9 of them to a document.
DOCUMENTS = [" ".join(f"The {thing} was {how}. It was {how} again!" if turn % 2 else f"The {thing} was {how}."
                      for turn, how in enumerate(("good", "bad", "old", "new", "good", "bad")))
             for thing in ("film", "book", "story", "film", "song")]


def write_run(folder, documents=DOCUMENTS):
    """Settings of a run on documents, the same file for each split."""
    for name in ("train.txt", "validation.txt"):
        (folder / name).write_text("\n\n".join(documents), "utf-8")
    file = folder / "texts.yaml"
    file.write_text("""\
shape: pretraining
data: {path: {train: train.txt, validation: validation.txt}, documents: block}
vocabulary: {size: 128}
instances: {max_length: 16, short_rate: 0}
model: {layers: 1, hidden_size: 16, num_heads: 2, inner_size: 32, positions: 32}
training: {epochs: 4, warmup: 0.25, batch_tokens: 64, max_batch: 2, accumulate: 2, precision: float32}
evaluation: {thresholds: {masked_accuracy: {min: 0.1}}}
""", "utf-8")
    return str(file)


def examined(folder, *overrides, rows=2, documents=DOCUMENTS):
    return check.examine(settings.load(write_run(folder, documents), overrides), rows)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return examined(tmp_path_factory.mktemp("texts"))


def test_documents_are_split_packed_and_masked(found):
    assert [document.sentences[:3] for document in found.shown] == [
        ["The film was good.", "The film was bad.", "It was bad again!"],
        ["The book was good.", "The book was bad.", "It was bad again!"]]
    assert found.documents.tolist() == [45] * 5 and found.sentences.tolist() == [5] * 45
    for document, thing in zip(found.shown, ("film", "book"), strict=True):
        assert len(document.sentences) == 9 and document.tokens[0] == "[CLS]" and thing in document.tokens
        assert document.tokens.count("[SEP]") == 2 and len(document.tokens) <= 16
        told = [place for place, label in enumerate(document.labels) if label]
        assert 1 <= len(told) <= 3   # of 13 or fewer, 15 %
        for place, (token, seen) in enumerate(zip(document.tokens, document.inputs, strict=True)):
            assert document.labels[place] in ("", token)
            assert seen == token or place in told
    assert found.examples_per_epoch == len(found.lengths) and set(found.lengths) <= set(range(8, 17))
    assert found.lengths.mean() > 12
    assert 0.1 < found.masks.chosen < 0.2 and found.masks.masked > 0.6
    assert 0 < found.swapped < 1 and found.short == 0


def test_losses_are_those_of_new_weights(found):
    assert found.chance == math.log(found.report["size"]) and found.report["unknown_share"] == 0
    assert found.loss.masked == pytest.approx(found.chance, abs=0.3)
    assert found.loss.next == pytest.approx(math.log(2), abs=0.3)
    assert found.kept == [] and not found.problem()
    for masked, following, sentence in [(9, 0.7, "ln\\(.* pieces\\)"), (math.nan, 0.7, "received nan"),
                                        (found.chance, 1.3, "a loss of next sentences")]:
        worse = dataclasses.replace(found, loss=type(found.loss)(masked, following))
        with pytest.raises(AssertionError, match=sentence):
            assert not worse.problem(), worse.problem()
    kept = dataclasses.replace(found, loss=type(found.loss)(found.chance, 0.01), kept=["seq_relationship"])
    assert not kept.problem()


def test_a_step_has_as_many_examples_as_its_parts_together(found):
    # Two parts of two examples each; nothing is longer than the one bucket.
    assert found.steps_per_epoch == math.ceil(len(found.lengths) / 4)
    assert (found.schedule.total_steps, found.schedule.warmup_steps) == (4 * found.steps_per_epoch,
                                                                         found.steps_per_epoch)
    assert dict(check_view.facts(found))["step"] == "up to 128 tokens with padding, at most 4 examples, in 2 parts"


def test_warnings(found):
    few = ("the training split has only 5 documents to take segments of others from: the model may learn to tell "
           "those apart. See data.documents, or set instances.next_sentence=false.")
    assert found.warnings() == [few]
    worse = dataclasses.replace(found, alone=0.3, swapped=0.8, documents=np.ones(20), report=found.report | {
        "unknown_share": 0.02, "tokens_per_word": 2.6})
    assert worse.warnings() == [
        "2.0% of the words are [UNK]: raise vocabulary.max_characters.",
        "words take 2.6 tokens: raise vocabulary.size.",
        "30% of the documents have one sentence and no next one, so that 80% of all second segments are of another "
        "document. See data.documents, or set instances.next_sentence=false."]


def test_a_run_that_goes_on_from_an_encoder(tiny_encoder, tmp_path):
    sizes = ["vocabulary={}", "model={dropout: 0}", f"encoder.source={tiny_encoder}"]
    found = examined(tmp_path, *sizes, "instances.next_sentence=false", rows=1)
    vocabulary = Vocabulary.read(tiny_encoder)
    assert found.config.vocab_size == found.report["size"] == len(vocabulary.pieces)
    document, = found.shown
    assert [vocabulary.ids[token] for token in document.tokens] == document.token_ids
    assert document.tokens[:5] == ["[CLS]", "the", "film", "was", "good"] and document.tokens.count("[SEP]") == 1
    assert found.loss.next is None and found.bounds[0] == 0 and not found.problem() and found.swapped == 0
    assert "goes on from" in (told := dict(check_view.facts(found))["model"])
    assert told.endswith("with new heads; all weights are trained")
    with pytest.raises(TextrailError, match=r"instances\.max_length of at most 64, as many positions as the encoder"):
        examined(tmp_path, *sizes, "instances.max_length=65")


def test_what_the_terminal_and_the_plots_show(tmp_path, capfd):
    file = write_run(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert cli.main(["check", file, "--rows", "1", "--plots", str(tmp_path / "plots"),
                     "--workspace", str(tmp_path / "none")]) == 0
    told = capfd.readouterr()
    assert told.err == ""
    lines = told.out.splitlines()
    at = next(place for place, line in enumerate(lines) if line.startswith("1  9 sentences, "))
    assert lines[at].split("; ")[1].split(" ")[:2] == ["the", "first"]
    assert lines[at + 1:at + 6] == [
        "   sentence 1 The film was good.", "            2 The film was bad.", "            3 It was bad again!",
        "            4 The film was old.", "            … and 5 more"]
    assert [line.split()[0] for line in lines[at + 6:at + 10]] == ["tokens", "ids", "inputs", "labels"]
    said = " ".join(told.out.split())
    assert "rows train 5, validation 5, test 0" in said or "rows train 5, validation 5; all rows were read" in said
    assert "sentences 45 of 5 tokens on average, in 5 documents" in said
    assert "1 layer, 16 wide, 2 heads, feed-forward 32, 32 positions; new weights, all of them are trained" in said
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == ["learning_rate.png", "lengths.png"]
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "plots"])   # Nothing else was written.


@pytest.mark.parametrize("documents, sentence", [
    (DOCUMENTS[:1], r"at least two documents in the (train|validation) split, for next-sentence pairs from different "
     r"ones; received 1\. .* or set instances\.next_sentence=false"),
    (["%PDF-1.7 …"], r"plain text \(UTF-8\) in .*train\.txt; received a PDF"),
    ([], r"text at .*; received 1 of 0 bytes|text at .*; received 2 of 0 bytes"),
    (["caf\udce9 au lait", "the film"], r"invalid UTF-8"),
])
def test_what_stops_a_run_stops_a_check(tmp_path, documents, sentence):
    file = write_run(tmp_path, [])
    for name in ("train.txt", "validation.txt"):
        (tmp_path / name).write_bytes("\n\n".join(documents).encode("utf-8", "surrogateescape"))
    with pytest.raises(TextrailError, match=sentence):
        check.examine(settings.load(file), 1)
