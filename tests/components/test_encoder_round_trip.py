"""MiniLM by way of every layout that goes out: the same bytes come back, and the same outputs on the way."""

import json

import numpy as np
import pytest
import tensorflow as tf

from components.encoder_sources import import_encoder, read_encoder
from modules.tfhub_export import export_tfhub
from modules.weights import load_encoder, packaged_minilm, read_tensors

NAMES = ("input_word_ids", "input_mask", "input_type_ids")


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """TF Hub's SavedModels of the imported MiniLM, and what was imported from those and written once more."""
    folder = tmp_path_factory.mktemp("chain")
    import_encoder("minilm", str(folder / "ours"))
    (folder / "hub").mkdir()
    export_tfhub(read_encoder(str(folder / "ours")), folder / "hub", max_length=64)
    import_encoder(str(folder / "hub"), str(folder / "again"))
    read_encoder(str(folder / "again")).write(folder / "hf")
    return folder


def test_the_same_bytes_come_back(chain):
    before, after = read_tensors(packaged_minilm()), read_tensors(chain / "hf")
    assert len(before) == 103
    assert {name: (tensor.shape, tensor.tobytes()) for name, tensor in before.items()} == {
        name: (tensor.shape, tensor.tobytes()) for name, tensor in after.items()}
    assert read_encoder(str(chain / "hf")).vocabulary == read_encoder("minilm").vocabulary
    assert read_encoder(str(chain / "hf")).config == read_encoder("minilm").config


def test_the_same_outputs_come_out_on_the_way(chain, shared_data):
    golden = json.loads((shared_data / "golden" / "minilm_outputs.json").read_text())["cases"]
    hub, ours = tf.saved_model.load(str(chain / "hub" / "encoder")), load_encoder(chain / "hf")
    for case in golden:
        inputs = {name: tf.constant([case[name]]) for name in NAMES}
        outputs, expected = hub(inputs), ours(inputs)
        for name in ("sequence_output", "pooled_output"):
            np.testing.assert_allclose(outputs[name], expected[name], rtol=0, atol=1e-5)
        np.testing.assert_allclose(outputs["sequence_output"][0, 0, :8], case["cls_first8"], rtol=0, atol=1e-4)
        np.testing.assert_allclose(outputs["sequence_output"][0, -1, :8], case["last_token_first8"], rtol=0, atol=1e-4)
        np.testing.assert_allclose(outputs["pooled_output"][0, :8], case["pooled_first8"], rtol=0, atol=1e-4)
