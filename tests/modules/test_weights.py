import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from modules.bert import BertConfig
from modules.errors import TextrailError
from modules.weights import expected_shapes, load_config, load_encoder, packaged_minilm, save_encoder, sha256


def changed(tiny_encoder, folder, change):
    """A copy of the tiny encoder whose tensors went through `change`."""
    shutil.copytree(tiny_encoder, folder)
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")
    return folder


def weights_of(bert):
    return [np.array(weight) for weight in bert.weights]


def test_the_packaged_encoder_is_the_official_one():
    folder = packaged_minilm()
    assert sha256(folder / "model.safetensors") == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    config = load_config(folder)
    assert config == BertConfig(30522, 384, 6, 12, 1536, 512, 2, "gelu", 1e-12, 0.02, 0)


def test_a_round_trip_keeps_names_and_bytes(tiny_encoder, tmp_path):
    config = load_config(tiny_encoder)
    save_encoder(tmp_path / "new", load_encoder(tiny_encoder), config, tiny_encoder / "vocab.txt", lower_case=True)
    before, after = load_file(tiny_encoder / "model.safetensors"), load_file(tmp_path / "new" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(before[name].tobytes() == after[name].tobytes() and before[name].shape == after[name].shape
               for name in before)
    assert load_config(tmp_path / "new") == config
    assert (tmp_path / "new" / "vocab.txt").read_bytes() == (tiny_encoder / "vocab.txt").read_bytes()
    assert json.loads((tmp_path / "new" / "tokenizer_config.json").read_text())["do_lower_case"] is True


def test_a_configuration_says_the_shape_of_every_tensor(tiny_encoder):
    tensors = load_file(tiny_encoder / "model.safetensors")
    assert expected_shapes(load_config(tiny_encoder), True) == {name: value.shape for name, value in tensors.items()}


def test_kernels_are_transposed_and_query_key_value_lie_side_by_side(tiny_encoder):
    tensors, block = load_file(tiny_encoder / "model.safetensors"), load_encoder(tiny_encoder).blocks[1]
    name = "encoder.layer.1.attention.self"
    np.testing.assert_array_equal(np.array(block.attention.qkv.kernel)[:, 32:64], tensors[f"{name}.key.weight"].T)
    np.testing.assert_array_equal(np.array(block.attention.qkv.bias)[64:], tensors[f"{name}.value.bias"])
    np.testing.assert_array_equal(np.array(block.inner.kernel), tensors["encoder.layer.1.intermediate.dense.weight"].T)


def test_prefix_heads_position_ids_and_old_norm_names_are_understood(tiny_encoder, tmp_path):
    def as_in_a_pretraining_checkpoint(tensors):
        def old(name):
            return "bert." + name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta")

        others = {"bert.embeddings.position_ids": np.arange(64)[None], "cls.predictions.bias": np.zeros(7, "float32")}
        return {old(name): tensor for name, tensor in tensors.items()} | others

    folder = changed(tiny_encoder, tmp_path / "prefixed", as_in_a_pretraining_checkpoint)
    encoders = (load_encoder(folder, seed=1), load_encoder(tiny_encoder, seed=1))
    for ours, theirs in zip(*map(weights_of, encoders), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_tensor_that_is_there_twice_is_refused(tiny_encoder, tmp_path):
    name = "pooler.dense.bias"
    folder = changed(tiny_encoder, tmp_path / "twice", lambda tensors: tensors | {f"bert.{name}": tensors[name] + 1})
    with pytest.raises(TextrailError, match=rf"expected one tensor for {name} in .*; received two"):
        load_encoder(folder)


def test_half_precision_weights_become_float32(tiny_encoder, tmp_path):
    folder = changed(tiny_encoder, tmp_path / "half", lambda tensors: {
        name: tensor.astype("float16") for name, tensor in tensors.items()})
    words = np.array(load_encoder(folder).embeddings.words)
    expected = load_file(tiny_encoder / "model.safetensors")["embeddings.word_embeddings.weight"]
    assert words.dtype == np.float32
    np.testing.assert_array_equal(words, expected.astype("float16").astype("float32"))


def test_missing_extra_and_misshapen_tensors_are_listed(tiny_encoder, tmp_path):
    def spoil(tensors):
        del tensors["encoder.layer.0.output.dense.bias"]
        tensors["encoder.layer.2.output.dense.bias"] = np.zeros(32, "float32")
        tensors["embeddings.token_type_embeddings.weight"] = np.zeros((1, 32), "float32")
        return tensors

    with pytest.raises(TextrailError) as error:
        load_encoder(changed(tiny_encoder, tmp_path / "spoilt", spoil))
    assert error.value.received.splitlines() == [
        "3 that differ:",
        "  embeddings.token_type_embeddings.weight: expected [2, 32], received [1, 32]",
        "  encoder.layer.0.output.dense.bias: expected [32], received none",
        "  encoder.layer.2.output.dense.bias: expected none, received [32]",
    ]


def test_weights_that_are_no_numbers_are_refused(tiny_encoder, tmp_path):
    def diverge(tensors):
        tensors["pooler.dense.bias"][3] = np.nan
        tensors["embeddings.LayerNorm.bias"][0] = np.inf
        return tensors

    with pytest.raises(TextrailError, match=r"infinite ones in embeddings\.LayerNorm\.bias, pooler\.dense\.bias"):
        load_encoder(changed(tiny_encoder, tmp_path / "diverged", diverge))


def test_an_encoder_without_pooler_gets_one_only_when_asked(tiny_encoder, tmp_path):
    folder = changed(tiny_encoder, tmp_path / "bare", lambda tensors: {
        name: tensor for name, tensor in tensors.items() if not name.startswith("pooler.")})
    assert load_encoder(folder).pooler is None
    assert load_encoder(folder, new_pooler=True).pooler.kernel.shape == (32, 32)


def test_a_pickle_is_refused_with_the_reason(tiny_encoder, tmp_path):
    folder = shutil.copytree(tiny_encoder, tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(TextrailError, match="reading one runs whatever code is in it"):
        load_encoder(folder)


def test_damaged_and_missing_files_are_named(tiny_encoder, tmp_path):
    folder = shutil.copytree(tiny_encoder, tmp_path / "damaged")
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:len(content) // 2])
    with pytest.raises(TextrailError, match=r"a whole safetensors file at .*model\.safetensors"):
        load_encoder(folder)
    (folder / "vocab.txt").unlink()
    with pytest.raises(TextrailError, match=r"the file vocab\.txt in"):
        load_config(folder)


def test_a_vocabulary_of_another_size_is_refused(tiny_encoder, tmp_path):
    folder = shutil.copytree(tiny_encoder, tmp_path / "short")
    pieces = (folder / "vocab.txt").read_text().splitlines()
    (folder / "vocab.txt").write_text("\n".join(pieces[:-1]) + "\n")
    with pytest.raises(TextrailError, match=f"expected {len(pieces)} wordpieces .*; received {len(pieces) - 1}"):
        load_config(folder)
