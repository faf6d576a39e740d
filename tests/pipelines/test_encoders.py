"""`textrail encoder import` and `show`."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pipelines import cli


@pytest.fixture
def source(tiny_encoder, tmp_path):
    return shutil.copytree(tiny_encoder, tmp_path / "source")


def test_import_writes_a_new_folder_or_nothing(source, tmp_path, capfd):
    target = tmp_path / "new" / "folder"
    assert cli.main(["encoder", "import", str(source), str(target)]) == 0
    assert capfd.readouterr().out.startswith("HuggingFace: 2 layers, 32 wide, ")
    assert sorted(path.name for path in target.iterdir()) == [
        "config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt"]
    assert (target / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    assert cli.main(["encoder", "import", str(source), str(target)]) == 2
    assert f"expected a new or an empty folder at {target}; received one with files" in capfd.readouterr().err
    assert cli.main(["encoder", "import", str(source), str(tmp_path / "other"), "--sha256", "0" * 64]) == 2
    assert "with sha256 0000" in capfd.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "source"]
    assert cli.main(["encoder", "import", str(source), str(tmp_path / "cased"), "--no-lower-case"]) == 0
    assert json.loads((tmp_path / "cased/tokenizer_config.json").read_text())["do_lower_case"] is False


def test_what_a_link_names_is_written(source, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    assert cli.main(["encoder", "import", str(source), str(tmp_path / "link")]) == 0
    assert (tmp_path / "link").is_symlink() and (tmp_path / "disk" / "model.safetensors").is_file()


def test_show(source, capfd):
    assert cli.main(["encoder", "show", str(source)]) == 0
    said = dict(line.split("  ", 1) for line in capfd.readouterr().out.splitlines() if "  " in line)
    said = {key.strip(): value.strip() for key, value in said.items()}
    tensors = load_file(source / "model.safetensors")
    pieces = len((source / "vocab.txt").read_text().splitlines())
    assert said["architecture"] == "BERT, 2 layers, 32 wide, 4 heads, 64 between"
    assert (said["activation"], said["layer norm epsilon"], said["positions"]) == ("gelu", "1e-12", "64 tokens")
    assert said["parameters"] == f"{sum(tensor.size for tensor in tensors.values()):,}"
    assert said["parameters, pooler"] == "1,056" and said["parameters, blocks"] == "17,088"
    assert said["vocabulary"] == f"{pieces} wordpieces" and said["case"] == "uncased"
    assert said["special tokens"] == "[PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, [MASK] 4"
    assert len(said["sha256 of weights"]) == 64


def test_the_summary_lists_every_tensor_in_the_order_of_the_blocks(source, capfd):
    tensors = load_file(source / "model.safetensors")
    tensors |= {"classifier.weight": np.zeros((3, 32), "float32"), "classifier.bias": np.zeros(3, "float32")}
    save_file(tensors, source / "model.safetensors")
    config = json.loads((source / "config.json").read_text())
    config |= {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "bad", "1": "fair", "2": "good"}}
    (source / "config.json").write_text(json.dumps(config))
    assert cli.main(["encoder", "show", str(source), "--summary"]) == 0
    out = capfd.readouterr().out
    assert "bad, fair, good" in out
    names = [line.split()[0] for line in out.splitlines() if " " in line.strip() and line.split()[0] in tensors]
    assert sorted(names) == sorted(tensors)
    assert names[0].startswith("embeddings.") and names[-2:] == ["classifier.bias", "classifier.weight"]
    row = next(line for line in out.splitlines() if "intermediate.dense.weight" in line)
    assert row.split()[1:] == ["64", "×", "32", "2,048"]
    assert out.rstrip().splitlines()[-1].split() == ["total", f"{sum(tensor.size for tensor in tensors.values()):,}"]


def test_a_source_that_is_none(capfd):
    assert cli.main(["encoder", "show", "minlm"]) == 2
    assert "expected an encoder: 'minilm', a folder, hf://owner/name, or a handle" in capfd.readouterr().err
