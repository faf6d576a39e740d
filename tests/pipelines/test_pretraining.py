"""Pretraining, shrunk: from texts to a pushed encoder that has learned, is gone on from, and what stops it."""

import json
import random
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import tensorflow as tf
import yaml

from modules.manifest import DESCRIPTION
from modules.tokenization import SPECIALS, Tokenizer, Vocabulary
from tests.kubeflow.project import OnKubeflow
from tests.pipelines.project import COMPONENTS, PRETRAINING, Project, states

LIVES = {"cat": ("fish", "house"), "dog": ("bones", "yard"), "hen": ("corn", "barn"), "fox": ("eggs", "wood"),
         "owl": ("mice", "tower"), "bee": ("honey", "garden"), "cow": ("grass", "field"), "ant": ("leaves", "hill")}


def document(draw: random.Random, sentences: int = 24) -> str:
    """Sentences on animals, in which the words beside another tell at least what kind it is of."""
    said = []
    for _ in range(sentences):
        animal = draw.choice(sorted(LIVES))
        food, place = LIVES[animal]
        said.append(draw.choice([f"The {animal} eats {food}.", f"In the {place} lives the {animal}.",
                                 f"We see the {animal} near the {place}."]))
    return " ".join(said)


def animals(folder: Path) -> Project:
    """A run that learns of them, in an empty folder."""
    draw = random.Random(1)
    (folder / "texts.txt").write_text("\n\n".join(document(draw) for _ in range(300)) + "\n")
    return Project(folder, "animals", {
        "shape": "pretraining", "data": {"path": "texts.txt", "documents": "block"}, "vocabulary": {"size": 200},
        "instances": {"max_length": 32}, "filling": {"top": 3},
        "model": {"layers": 2, "hidden_size": 32, "num_heads": 2, "positions": 32, "dropout": 0.0},
        "training": {"epochs": 8, "learning_rate": 5e-3, "batch_tokens": 1024, "bucket_step": 16,
                     "precision": "float32"},
        "evaluation": {"thresholds": {"masked_accuracy": {"min": 0.6, "max_drop": 0.05}}, "length_bands": [16],
                       "examples": 4, "passes": 4}})


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return animals(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def first(project) -> subprocess.CompletedProcess:
    return project.run()


def artifact(project: Project, of: str, name: str) -> Path:
    """The newest output of a step."""
    folder = project.folder / "workspace" / project.name / "pipeline" / of / name
    return max(folder.iterdir(), key=lambda path: int(path.name))


def pushed(project: Project) -> Path:
    return project.folder / "workspace" / project.name / "pushed" / project.pushed()[-1]


def token_ids(project: Project, split: str) -> list[list[int]]:
    """The prepared examples of a split."""
    files = sorted(map(str, artifact(project, "InstanceGen", "transformed_examples").glob(f"Split-{split}/*")))
    return [list(tf.train.Example.FromString(record).features.feature["token_ids$ragged_values"].int64_list.value)
            for record in tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator()]


def test_a_run_learns_and_pushes(project, first):
    assert first.returncode == 0, first.stdout + first.stderr
    assert states(first) == dict.fromkeys(PRETRAINING, "done")
    assert len(project.pushed()) == 1
    vocabulary = Vocabulary.read(artifact(project, "VocabularyGen", "vocabulary"))
    specials = {vocabulary.ids[special] for special in SPECIALS}
    counts = Counter(one for ids in token_ids(project, "test") for one in ids if one not in specials)
    most_frequent = max(counts.values()) / counts.total()
    metrics = project.verdict()["metrics"]
    assert metrics["masked_accuracy"] > 0.6 > 2 * most_frequent > 0.2
    assert 0 < metrics["masked_loss"] < 1.5 and 0.4 < metrics["next_accuracy"] <= 1
    rounds = json.loads((artifact(project, "Trainer", "model_run") / "history.json").read_text())["rounds"]
    assert rounds[-1]["train"]["masked_loss"] < 0.5 * rounds[0]["train"]["masked_loss"]
    assert rounds[-1]["validation"]["masked_accuracy"] > 2 * rounds[0]["validation"]["masked_accuracy"]
    assert {"next_loss", "next_accuracy"} <= set(rounds[0]["validation"]) and rounds[0]["tokens_per_second"] > 0


def test_the_pushed_model_tells_what_kind_of_word_stands_behind_a_mask(project, first):
    done = project.call("predict", "animals", "The hen eats [MASK].", "In the [MASK] lives the owl.", "--json")
    assert done.returncode == 0, done.stderr
    masks = [json.loads(line)["masks"] for line in done.stdout.splitlines()]
    foods, places = (set(kind) for kind in zip(*LIVES.values(), strict=True))
    for (mask,), kind in zip(masks, (foods, places), strict=True):
        assert len(set(mask["words"])) == 3 and set(mask["words"]) <= kind
        assert mask["probabilities"] == sorted(mask["probabilities"], reverse=True)


def test_what_is_served_has_the_tokens_that_were_trained_on(project, first):
    """Every example is two runs of tokens of documents, as the pushed encoder's own tokenizer has them."""
    trained = Vocabulary.read(artifact(project, "VocabularyGen", "vocabulary"))
    served = Vocabulary.read(pushed(project) / DESCRIPTION)
    assert served == trained
    texts = (project.folder / "texts.txt").read_text().strip().split("\n\n")
    whole = [f" {' '.join(map(str, ids))} " for ids in Tokenizer(served).tokenize(tf.constant(texts)).to_list()]
    for ids in token_ids(project, "train")[::50]:
        assert ids[0] == served.cls_id and ids[-1] == served.sep_id and len(ids) <= 32
        for segment in " ".join(map(str, ids[1:-1])).split(f" {served.sep_id} "):
            assert any(f" {segment} " in one for one in whole)
    model = tf.saved_model.load(str(pushed(project)))
    records = next(iter(tf.data.TFRecordDataset(sorted(map(str, artifact(
        project, "InstanceGen", "transformed_examples").glob("Split-test/*"))), "GZIP").batch(8)))
    seen = model.signatures["transform_features"](examples=records)["token_ids"].numpy().tolist()
    assert [ids[:len(own)] for ids, own in zip(seen, token_ids(project, "test")[:8], strict=True)] == \
        token_ids(project, "test")[:8]


def test_on_kubeflow_it_is_the_same_model(project, first, tmp_path):
    kubeflow = OnKubeflow(project, tmp_path)
    kubeflow.run()
    kubeflow.assert_local_model(text=[f"The {animal} eats [MASK]. In the [MASK] lives the {animal}."
                                      for animal in LIVES])


def test_a_second_run_executes_nothing(project, first):
    before = project.pushed()
    done = project.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert states(done) == dict.fromkeys(PRETRAINING, "cached")
    assert project.pushed() == before


def test_a_pushed_encoder_is_gone_on_from(project, first):
    """After one epoch it does what training from new weights took several for: encoder and heads were taken over."""
    settings = yaml.safe_load((project.folder / project.file).read_text())
    del settings["vocabulary"], settings["model"]
    settings["encoder"] = {"source": str(pushed(project))}
    settings["training"] |= {"epochs": 1, "learning_rate": 1e-4}
    (project.folder / "further.yaml").write_text(yaml.safe_dump(settings))
    done = project.call("run", "further.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert states(done) == dict.fromkeys(
        ["InstanceGen" if name == "TextTransform" else name for name in COMPONENTS], "done")
    assert "goes on from the encoder, with predictions and seq_relationship of its heads" in done.stdout
    found = json.loads(project.call("metrics", "further", "--json").stdout)["metrics"]
    assert found["masked_accuracy"] > project.verdict()["metrics"]["masked_accuracy"] - 0.05


@pytest.mark.parametrize("texts, sentence", [
    ({"texts.txt": b""}, "expected text at {path}; received 1 of 0 bytes, the first {folder}/texts.txt"),
    ({"latin.txt": "La fête.\n\n".encode("latin-1"), "long.txt": b"x " * (1 << 20)},
     "invalid UTF-8 at byte 4: 0xea, 'ê' in Latin-1"),
    ({f"{split}.txt": b"\n\n".join([b"One sentence. Another one."] * count)
      for split, count in (("train", 1), ("validation", 2))},
     "at least two documents in the train split, for next-sentence pairs from different ones; received 1."),
], ids=["empty corpus", "wrong encoding and a line of two megabytes", "one document"])
def test_what_nothing_can_be_learned_from_stops_with_a_sentence(project, tmp_path, texts, sentence):
    folder = tmp_path / "texts"
    folder.mkdir()
    for name, content in texts.items():
        (folder / name).write_bytes(content)
    path = f"{folder}/*.txt"
    splits = {name.partition(".")[0]: f"{folder}/{name}" for name in texts}
    done = project.run("--workspace", str(tmp_path / "workspace"), "--set",
                       f"data.path={json.dumps(splits)}" if "train" in splits else f"data.path={path}")
    assert done.returncode == 1, done.stdout
    assert sentence.format(path=path, folder=folder) in done.stderr
    assert "long.txt" not in texts or "a line of more than 1,048,576 bytes, at byte 0" in done.stderr
    assert "Trainer" not in states(done)
