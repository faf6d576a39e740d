"""`textrail encoder export`: which model it takes, what it writes, and what a run can start from afterwards."""

import json
import shutil

import numpy as np
import pytest

from components.encoder_sources import encoder_fingerprint, read_encoder
from modules.classifier import build_classifier, export_classifier
from pipelines import cli
from tests.components.transforming import COLUMN, LABEL, transform
from tests.modules.test_classifier import arguments


@pytest.fixture(scope="module")
def run(tiny_encoder, tmp_path_factory):
    """A workspace in which `moods` has pushed a classifier."""
    folder = tmp_path_factory.mktemp("pushed")
    rows = [{"text": "good film", "stars": "good"}, {"text": "bad film", "stars": "bad"}]
    graph, _ = transform(folder, tiny_encoder, {"train": rows, "validation": rows},
                         COLUMN.format("text", "") + COLUMN.format("stars", LABEL), max_length=16)
    args = arguments(folder, tiny_encoder, graph, model={"truncate": "middle"})
    classifier = build_classifier(args.encoder, args.settings, 2, "float32")
    export_classifier(classifier, ["bad", "good"], args)
    workspace = folder / "workspace"
    (workspace / "moods").mkdir(parents=True)
    (workspace / "moods" / "metadata.sqlite").touch()
    shutil.copytree(args.serving_dir, workspace / "moods" / "pushed" / "1700000001")
    return workspace, classifier


def export(run, folder, form: str, *more: str) -> int:
    return cli.main(["encoder", "export", "moods", str(folder), "--format", form, "--workspace", str(run[0]), *more])


def test_a_pushed_classifier_goes_out_in_both_layouts_and_comes_back_in(run, tmp_path, capfd):
    assert export(run, tmp_path / "hf", "hf") == 0
    said = capfd.readouterr().out
    assert "1700000001, 2 classes, pooling mean, in " in said
    assert 'from_pretrained("' in said and "trust_remote_code=True" in said and "lost their middle" in said
    assert sorted(path.name for path in (tmp_path / "hf").iterdir()) == [
        "config.json", "model.safetensors", "modeling_textrail.py", "textrail.json", "tokenizer_config.json",
        "vocab.txt"]
    assert json.loads((tmp_path / "hf" / "textrail.json").read_text())["truncate"] == "middle"
    assert export(run, tmp_path / "hub", "tfhub") == 0
    assert "hub.load(" in capfd.readouterr().out
    assert sorted(path.name for path in (tmp_path / "hub").iterdir()) == ["encoder", "preprocessing", "textrail.json"]

    pushed = run[0] / "moods" / "pushed"
    sources = [str(path) for path in (pushed, pushed / "1700000001", tmp_path / "hf", tmp_path / "hub",
                                      tmp_path / "hub" / "encoder")]
    words = np.array(run[1].bert.embeddings.words)
    for source in sources:
        found = read_encoder(source)
        np.testing.assert_array_equal(found.tensors["embeddings.word_embeddings.weight"], words)
        assert found.labels == (() if "hub" in source.split("/")[-2:] else ("bad", "good"))
        assert found.config == run[1].bert.config
    assert encoder_fingerprint(sources[0]) == encoder_fingerprint(sources[1])
    assert cli.main(["encoder", "show", sources[0]]) == 0
    shown = capfd.readouterr().out
    assert "SavedModel of Textrail" in shown and "bad, good" in shown


def test_what_is_there_is_not_written_over(run, tmp_path, capfd):
    (tmp_path / "mine").write_text("kept")
    assert export(run, tmp_path, "hf") == 2
    assert "a new or an empty folder" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_nothing_pushed_says_what_to_do(run, tmp_path, capfd):
    (tmp_path / "moods").mkdir()
    shutil.copy(run[0] / "moods" / "metadata.sqlite", tmp_path / "moods")
    assert export((tmp_path, None), tmp_path / "out", "hf") == 2
    assert "take the last trained one with --trained" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_pretrained_encoder_goes_out_with_its_heads(tiny_pretrainer, tmp_path, capfd):
    model, folder = tiny_pretrainer
    shutil.copytree(folder, tmp_path / "words" / "pushed" / "1700000001")
    (tmp_path / "words" / "metadata.sqlite").touch()
    size = f"2 layers, 32 wide, {len(model.vocabulary.pieces)} wordpieces, uncased, in "
    for form, load in (("hf", "BertForPreTraining.from_pretrained("), ("tfhub", "/preprocessing")):
        assert cli.main(["encoder", "export", "words", str(tmp_path / form), "--format", form,
                         "--workspace", str(tmp_path)]) == 0
        said = capfd.readouterr().out
        assert size in said and load in said and ("AutoModel.from_pretrained(" in said) == (form == "hf")
        assert json.loads((tmp_path / form / "textrail.json").read_text())["shape"] == "pretraining"
        found = read_encoder(str(tmp_path / form))
        np.testing.assert_array_equal(found.tensors["embeddings.word_embeddings.weight"],
                                      np.asarray(model.bert.embeddings.words))
        assert len(found.pretraining) == (7 if form == "hf" else 0)
    assert cli.main(["encoder", "show", str(tmp_path / "hf"), "--summary"]) == 0
    shown = capfd.readouterr().out
    # 32 · 32 + 32 of the transformation, 2 · 32 of its norm, a bias a wordpiece, 32 · 2 + 2 for next sentences
    assert f"{32 * 32 + 32 + 64 + len(model.vocabulary.pieces) + 66:,}" in shown.split("parameters, heads")[1]
    assert "cls.seq_relationship.weight" in shown
