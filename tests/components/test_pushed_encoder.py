"""What is pushed of a pretraining: to model servers a version as any other, to other tools and runs an encoder."""

import json
import shutil
import subprocess
import sys
import uuid

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_hub as hub
from safetensors.numpy import load_file
from tfx.dsl.io import fileio

from components import object_store
from components.encoder_importer import import_encoder
from components.encoder_sources import encoder_fingerprint, read_encoder
from components.pusher import push
from components.versions import read_manifest, served_version
from modules.errors import TextrailError
from modules.manifest import DESCRIPTION, TFHUB
from modules.tokenization import Vocabulary
from modules.weights import load_encoder

IDS = [[2, 10, 4, 11, 3, 12, 3, 0], [2, 20, 21, 22, 23, 24, 4, 3]]


@pytest.fixture(scope="module")
def version(pushed_pretrainer):
    return pushed_pretrainer / served_version(str(pushed_pretrainer))


def inputs(model):
    ids = tf.constant(IDS, tf.int32)
    return {"input_word_ids": ids, "input_mask": model.vocabulary.input_mask(ids),
            "input_type_ids": model.vocabulary.segment_ids(ids)}


def test_a_version_has_the_encoder_where_model_servers_do_not_look(pushed_pretrainer, version, tiny_pretrainer):
    assert [path.name for path in pushed_pretrainer.iterdir()] == [version.name]
    assert sorted(path.name for path in (version / DESCRIPTION).iterdir()) == [
        "config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt"]
    assert sorted(path.name for path in (version / TFHUB).iterdir()) == ["encoder", "preprocessing"]
    assert {path.name for path in version.iterdir()} == {path.name for path in tiny_pretrainer[1].iterdir()}
    assert read_manifest(str(version))["recipe"] == "r1"
    assert not list(tiny_pretrainer[1].rglob("*.safetensors"))   # the run's own model stays as it was


def test_a_version_in_a_store_has_the_encoder_too(version, tiny_pretrainer):
    object_store.register("memory://", "memory")
    models = f"memory://{uuid.uuid4().hex}/models"
    pushed = f"{models}/{push(str(tiny_pretrainer[1]), models, {'recipe': 'r1'})}"
    for part in (DESCRIPTION, f"{TFHUB}/encoder", f"{TFHUB}/preprocessing"):
        assert fileio.listdir(f"{pushed}/{part}") == sorted(path.name for path in (version / part).iterdir()
                                                            if path.is_file() or any(path.iterdir()))
    with fileio.open(f"{pushed}/{DESCRIPTION}/model.safetensors", "rb") as file:
        assert file.read() == (version / DESCRIPTION / "model.safetensors").read_bytes()


def test_transformers_and_tf_hub_compute_the_same(version, tiny_pretrainer):
    model, parts = tiny_pretrainer[0], inputs(tiny_pretrainer[0])
    outputs = model.encoded(parts["input_word_ids"])
    encoder, preprocessing = (hub.load(str(version / TFHUB / name)) for name in ("encoder", "preprocessing"))
    for name in ("sequence_output", "pooled_output"):
        np.testing.assert_allclose(encoder(parts)[name], outputs[name], atol=1e-5)
    texts = tf.constant(["Good films, bad story"])
    ids = preprocessing(texts)["input_word_ids"].numpy()[0]
    words = [model.vocabulary.ids[piece] for piece in ("[CLS]", "good", "film", "##s", ",", "bad", "story", "[SEP]")]
    assert ids.tolist() == words + [0] * 8   # 16 tokens, as the run's

    transformers = pytest.importorskip("transformers")
    if not hasattr(transformers, "TFBertForPreTraining"):
        pytest.skip("transformers 5 and later have no TensorFlow models")
    transformers.logging.set_verbosity_error()
    theirs, report = transformers.TFBertForPreTraining.from_pretrained(version / DESCRIPTION, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    said = theirs(input_ids=parts["input_word_ids"], attention_mask=parts["input_mask"],
                  token_type_ids=parts["input_type_ids"])
    ours = model(parts["input_word_ids"])
    np.testing.assert_allclose(said.prediction_logits, ours["logits"], atol=2e-4)
    np.testing.assert_allclose(said.seq_relationship_logits, ours["next_logits"], atol=2e-4)
    tokenizer = transformers.AutoTokenizer.from_pretrained(version / DESCRIPTION)
    assert tokenizer.model_max_length == 16 and tokenizer("Good films, bad story")["input_ids"] == words


def test_pytorch_reads_it_whole(version, tiny_pretrainer):
    pytest.importorskip("torch")
    code = ("import sys, json, torch, transformers; transformers.logging.set_verbosity_error(); "
            "ids, mask, types = map(torch.tensor, json.load(sys.stdin)); "
            "model = transformers.BertForPreTraining.from_pretrained(sys.argv[1]).eval(); "
            "said = model(input_ids=ids, attention_mask=mask, token_type_ids=types); "
            "print(json.dumps([said.prediction_logits.tolist(), said.seq_relationship_logits.tolist()]))")
    parts = inputs(tiny_pretrainer[0])
    asked = json.dumps([value.numpy().tolist() for value in parts.values()])
    done = subprocess.run([sys.executable, "-c", code, str(version / DESCRIPTION)], input=asked, capture_output=True,
                          text=True, check=True)
    ours = tiny_pretrainer[0](parts["input_word_ids"])
    for name, theirs in zip(("logits", "next_logits"), json.loads(done.stdout.splitlines()[-1]), strict=True):
        np.testing.assert_allclose(theirs, ours[name], atol=2e-4)


def test_a_run_starts_from_a_version_or_from_where_versions_are_pushed(pushed_pretrainer, version, tiny_pretrainer,
                                                                     tmp_path):
    model = tiny_pretrainer[0]
    outputs = model.encoded(tf.constant(IDS, tf.int32))
    for number, source in enumerate((pushed_pretrainer, version, version / DESCRIPTION)):
        target = tmp_path / str(number)
        import_encoder(str(source), str(target))
        found = load_encoder(target)(inputs(model))
        for name in ("sequence_output", "pooled_output"):
            np.testing.assert_allclose(found[name], outputs[name], atol=1e-6)
        heads = {name for name in load_file(target / "model.safetensors") if name.startswith("cls.")}
        assert len(heads) == 7 and Vocabulary.read(target) == model.vocabulary   # a pretraining goes on with them
    assert read_encoder(str(version)).pretraining.keys() == heads


def test_a_new_version_is_another_source(pushed_pretrainer, version, tiny_pretrainer, tmp_path):
    destination = shutil.copytree(pushed_pretrainer, tmp_path / "pushed")
    before = encoder_fingerprint(str(destination))
    assert before == encoder_fingerprint(str(destination / version.name)) == encoder_fingerprint(str(destination))
    newer = push(str(tiny_pretrainer[1]), str(destination), {})
    assert encoder_fingerprint(str(destination)) == encoder_fingerprint(str(destination / newer)) != before
    assert encoder_fingerprint(str(destination / version.name)) == before
    shutil.rmtree(destination / newer)
    assert encoder_fingerprint(str(destination)) == before


def test_what_has_no_encoder_is_refused_with_a_sentence(pushed_pretrainer, version, tmp_path):
    with pytest.raises(TextrailError, match=r"weights of a BERT in .*/empty: .* received nothing"):
        (tmp_path / "empty").mkdir()
        read_encoder(str(tmp_path / "empty"))   # nothing was pushed yet
    other = shutil.copytree(version, tmp_path / "translator")
    manifest = json.loads((other / "assets.extra/textrail.json").read_text()) | {"shape": "translation"}
    (other / "assets.extra/textrail.json").write_text(json.dumps(manifest))
    with pytest.raises(TextrailError, match="a classifier or a pretrained encoder; received a model of shape transl"):
        read_encoder(str(other))
    damaged = shutil.copytree(version, tmp_path / "damaged")
    (damaged / "variables/variables.index").write_bytes(b"")
    with pytest.raises(TextrailError, match="variables of a pretrained encoder in"):
        read_encoder(str(damaged))
