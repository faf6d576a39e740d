"""A trained classifier, taken out of its SavedModel: by this project, and by transformers where it is installed."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from modules.bert import pool
from modules.checkpoints import Hints, read_huggingface
from modules.classifier import build_classifier, export_classifier, keep_head
from modules.errors import TextrailError
from modules.export_reader import read_export
from modules.tokenization import Tokenizer
from modules.weights import load_encoder, read_tensors
from tests.components.transforming import COLUMN, LABEL, transform
from tests.modules.test_classifier import arguments

CLASSES = ["bad", "good"]
TEXTS = ["good film", "awful story , we hated it", ""]


@pytest.fixture(scope="module", params=["cls", "mean"])
def made(request, tiny_encoder, tmp_path_factory):
    """A classifier with a head that is no longer new, and the folder of its SavedModel."""
    folder = tmp_path_factory.mktemp(request.param)
    rows = [{"text": text, "stars": stars} for text, stars in zip(TEXTS, ["good", "bad", "bad"], strict=True)]
    graph, _ = transform(folder, tiny_encoder, {"train": rows, "validation": rows},
                         COLUMN.format("text", "") + COLUMN.format("stars", LABEL), max_length=16)
    args = arguments(folder, tiny_encoder, graph, model={"pooling": request.param})
    classifier = build_classifier(args.encoder, args.settings, 2, "float32")
    random = np.random.default_rng(5)
    for variable in (classifier.head.kernel, classifier.head.bias, classifier.bert.blocks[1].attention.qkv.bias):
        variable.assign(random.normal(0, 1, variable.shape))
    export_classifier(classifier, CLASSES, args)
    return classifier, Path(args.serving_dir), args


@pytest.fixture(scope="module")
def huggingface(made, tmp_path_factory) -> Path:
    """The same classifier in HuggingFace's layout."""
    folder = tmp_path_factory.mktemp("hf") / "classifier"
    read_export(made[1]).write(folder, max_length=16)
    return folder


def logits(made) -> np.ndarray:
    """What the SavedModel answers, up to the constant that softmax takes away: [texts, classes]."""
    served = tf.saved_model.load(str(made[1])).signatures["serving_default"](text=tf.constant(TEXTS))
    return np.log(served["scores"].numpy())


def centred(scores) -> np.ndarray:
    """Logits of which only differences count: [texts, classes]."""
    return np.asarray(scores) - np.mean(scores, axis=-1, keepdims=True)


def test_an_export_says_what_it_is_made_of(made, tiny_encoder):
    classifier, folder, _ = made
    found = read_export(folder)
    assert (found.labels, found.pooling, found.vocabulary) == (("bad", "good"), classifier.pooling,
                                                               classifier.vocabulary)
    assert found.config == classifier.bert.config
    np.testing.assert_array_equal(found.head["classifier.weight"], np.array(classifier.head.kernel).T)
    original = read_huggingface(tiny_encoder, Hints())
    assert found.tensors.keys() == original.tensors.keys()
    changed = {name for name in found.tensors if found.tensors[name].tobytes() != original.tensors[name].tobytes()}
    assert changed == {f"encoder.layer.1.attention.self.{part}.bias" for part in ("query", "key", "value")}
    assert read_export(folder, Hints(lower_case=False)).vocabulary.lower_case is False


def test_huggingface_s_layout_is_read_back_byte_for_byte(made, huggingface):
    ours, theirs = read_export(made[1]), read_huggingface(huggingface, Hints())
    assert (theirs.labels, theirs.pooling, theirs.config, theirs.vocabulary) == (
        ours.labels, ours.pooling, ours.config, ours.vocabulary)
    for before, after in ((ours.tensors, theirs.tensors), (ours.head, theirs.head)):
        assert {name: tensor.tobytes() for name, tensor in before.items()} == {
            name: tensor.tobytes() for name, tensor in after.items()}
    config = json.loads((huggingface / "config.json").read_text())
    assert config["id2label"] == {"0": "bad", "1": "good"}
    assert json.loads((huggingface / "tokenizer_config.json").read_text()) == {
        "do_lower_case": True, "tokenizer_class": "BertTokenizer", "model_max_length": 16}
    mean = made[0].pooling == "mean"
    assert ("mean_classifier.weight" in read_tensors(huggingface)) is mean
    assert (huggingface / "modeling_textrail.py").exists() is mean
    assert ("auto_map" in config) is mean
    # As an encoder alone it is what it was.
    ids = {name: tf.constant([[2, 7, 8, 3]]) if name == "input_word_ids" else tf.constant([[1, 1, 1, 1]])
           for name in ("input_word_ids", "input_mask", "input_type_ids")}
    np.testing.assert_allclose(load_encoder(huggingface)(ids)["sequence_output"],
                               made[0].bert(ids)["sequence_output"], atol=1e-5)


def test_what_cannot_be_taken_out_is_refused(made, tmp_path):
    folder = shutil.copytree(made[1], tmp_path / "older")
    shutil.rmtree(folder / "assets.extra" / "encoder")
    with pytest.raises(TextrailError, match="describes its encoder"):
        read_export(folder)
    folder = shutil.copytree(made[1], tmp_path / "other")
    config = json.loads((folder / "assets.extra" / "encoder" / "config.json").read_text())
    (folder / "assets.extra" / "encoder" / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(TextrailError, match="the variables of a classifier"):
        read_export(folder)


@pytest.mark.parametrize(("name", "keep", "said"), [
    ("variables/variables.index", 9, "the variables of a classifier"),
    ("variables/variables.data-00000-of-00001", 99, "the variables of a classifier"),
    ("assets.extra/textrail.json", 0, "a JSON file at .*textrail.json"),
    ("assets.extra/encoder/tokenizer_config.json", 1, "a JSON file at .*tokenizer_config.json"),
    ("assets.extra/encoder/vocab.txt", 0, "a vocabulary with")])
def test_damage_is_named(made, tmp_path, name, keep, said):
    folder = shutil.copytree(made[1], tmp_path / "damaged")
    (folder / name).write_bytes((folder / name).read_bytes()[:keep])
    with pytest.raises(TextrailError, match=f"expected {said}"):
        read_export(folder)


def test_a_manifest_without_classes_is_refused(made, tmp_path):
    folder = shutil.copytree(made[1], tmp_path / "older")
    (folder / "assets.extra/textrail.json").write_text("{}")
    with pytest.raises(TextrailError, match=r"expected classes and pooling in .*/textrail\.json; received None and"):
        read_export(folder)


def test_a_kept_head_answers_as_it_did_whatever_the_order_of_the_classes(made, huggingface):
    _, _, args = made
    model = build_classifier(str(huggingface), args.settings, 2, "float32")
    keep_head(model, str(huggingface), ["good", "bad"])
    ids = model.vocabulary.to_dense(Tokenizer(model.vocabulary).encode(tf.constant(TEXTS), max_length=16))
    answer = model(tf.cast(ids, tf.int32)).numpy()
    np.testing.assert_allclose(centred(answer[:, ::-1]), centred(logits(made)), atol=1e-5)


def test_a_head_that_does_not_fit_is_refused(made, huggingface, tiny_encoder):
    classifier, _, args = made
    with pytest.raises(TextrailError, match=r"the data apart: bad, fine; received a classifier of bad, good"):
        keep_head(build_classifier(str(huggingface), args.settings, 2, "float32"), str(huggingface), ["bad", "fine"])
    with pytest.raises(TextrailError, match="without the head of one"):
        keep_head(classifier, str(tiny_encoder), CLASSES)
    other = {"cls": "mean", "mean": "cls"}[classifier.pooling]
    settings = args.settings | {"model": args.settings["model"] | {"pooling": other}}
    with pytest.raises(TextrailError, match=f"model.pooling={classifier.pooling}.* received {other}"):
        keep_head(build_classifier(str(huggingface), settings, 2, "float32"), str(huggingface), CLASSES)


@pytest.mark.parametrize("change, kept", [
    ({}, True), ({"architectures": ["BertForTokenClassification"]}, False), ({"id2label": None}, True),
    ({"problem_type": "multi_label_classification"}, False)])
def test_only_a_classifier_of_one_class_of_several_has_a_head(made, huggingface, tmp_path, change, kept):
    folder = shutil.copytree(huggingface, tmp_path / "changed")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    found = read_huggingface(folder, Hints())
    assert found.pooling == (made[0].pooling if kept else None)
    assert found.labels == ((("LABEL_0", "LABEL_1") if "id2label" in change else ("bad", "good")) if kept else ())
    found.check(folder)


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
def test_transformers_reads_it_without_pytorch(made, huggingface):
    transformers = pytest.importorskip("transformers")
    if not hasattr(transformers, "TFAutoModel"):
        pytest.skip("transformers 5 and later have no TensorFlow models")
    classifier = made[0]
    transformers.logging.set_verbosity_error()
    tokenizer = transformers.AutoTokenizer.from_pretrained(huggingface)
    batch = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="tf")
    vocabulary = classifier.vocabulary
    ids = vocabulary.to_dense(Tokenizer(vocabulary).encode(tf.constant(TEXTS), max_length=16))
    assert tokenizer.model_max_length == 16
    np.testing.assert_array_equal(batch["input_ids"], ids)
    outputs = transformers.TFAutoModel.from_pretrained(huggingface)(**batch)
    expected = classifier.bert({"input_word_ids": batch["input_ids"], "input_mask": batch["attention_mask"],
                                "input_type_ids": batch["token_type_ids"]})
    np.testing.assert_allclose(outputs.last_hidden_state, expected["sequence_output"], atol=1e-5)
    np.testing.assert_allclose(outputs.pooler_output, pool(expected, batch["attention_mask"], "cls"), atol=1e-5)
    if classifier.pooling == "cls":   # transformers has code for no other head in TensorFlow
        model = transformers.TFAutoModelForSequenceClassification.from_pretrained(huggingface)
        assert model.config.id2label == {0: "bad", 1: "good"}
        np.testing.assert_allclose(centred(model(**batch).logits), centred(logits(made)), atol=1e-4)


ASK_PYTORCH = """
import json, sys, torch, transformers
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer
folder, texts = sys.argv[1], json.load(sys.stdin)
transformers.logging.set_verbosity_error()
batch = AutoTokenizer.from_pretrained(folder)(texts, padding=True, truncation=True, return_tensors="pt")
plain, told = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True).eval()
with torch.no_grad():
    answer = {"logits": model(**batch).logits.tolist(), "ids": batch["input_ids"].tolist(),
              "sequence": AutoModel.from_pretrained(folder).eval()(**batch).last_hidden_state.tolist()}
loss = model(**batch, labels=torch.zeros(len(texts), dtype=torch.long)).loss
loss.backward()
json.dump(answer | {"missing without trust": sorted(told["missing_keys"]), "labels": model.config.id2label,
                    "loss": loss.item()}, sys.stdout)
"""


@pytest.mark.skipif(not all(map(importlib.util.find_spec, ("torch", "transformers"))),
                    reason="PyTorch and transformers are not both installed")
def test_transformers_answers_as_the_savedmodel_does(made, huggingface, tmp_path):
    # In a process of its own: PyTorch and TensorFlow in one do not always agree on their libraries.
    done = subprocess.run([sys.executable, "-c", ASK_PYTORCH, str(huggingface)], input=json.dumps(TEXTS), text=True,
                          capture_output=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    answer, classifier = json.loads(done.stdout), made[0]
    np.testing.assert_allclose(centred(answer["logits"]), centred(logits(made)), atol=1e-4)
    mask = classifier.vocabulary.input_mask(tf.constant(answer["ids"], tf.int32))
    expected = classifier.bert({"input_word_ids": tf.constant(answer["ids"]), "input_mask": mask,
                                "input_type_ids": tf.zeros_like(mask)})
    np.testing.assert_allclose(answer["sequence"], expected["sequence_output"], atol=1e-4)
    assert answer["labels"] == {"0": "bad", "1": "good"}
    # Without the code beside it, a head over the mean is told to be missing and never taken for one over the pooler.
    assert answer["missing without trust"] == (
        [] if classifier.pooling == "cls" else ["classifier.bias", "classifier.weight"])
    assert answer["loss"] == pytest.approx(-logits(made)[:, 0].mean(), abs=1e-4)
