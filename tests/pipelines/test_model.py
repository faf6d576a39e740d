"""A pushed version in memory: rows of several calls and of several requests."""

import numpy as np
import pytest
import tensorflow as tf

from modules.errors import TextrailError
from modules.manifest import DEFAULT_SIGNATURE
from pipelines import model
from tests.word_translator import make_word_translator


def test_lists_of_different_calls_are_as_long_as_the_longest(monkeypatch, tiny_pretrainer):
    """Of a pretrained encoder: words for as many masks as a text has."""
    served = model.Model(str(tiny_pretrainer[1]))
    texts = [b"the [MASK] film", b"no mask", b"[MASK] and [MASK] and [MASK]", b"a [MASK]"] * 3
    whole = served.ask(DEFAULT_SIGNATURE, {"text": texts})
    assert whole["words"].shape == (12, 3, 3)
    monkeypatch.setattr(model, "CALL_BYTES", 100)   # two or three rows a call
    parts = served.ask(DEFAULT_SIGNATURE, {"text": texts})
    for name in ("words", "counts", "truncated"):
        assert parts[name].tolist() == whole[name].tolist()
    np.testing.assert_allclose(parts["probabilities"], whole["probabilities"], rtol=1e-4)


def test_a_row_is_answered_as_if_it_were_alone(tiny_pretrainer):
    served = model.Model(str(tiny_pretrainer[1]))
    assert served.is_shareable(DEFAULT_SIGNATURE)
    texts = [b"the [MASK] film", b"no mask", b"[MASK] and [MASK]"]
    together = served.ask(DEFAULT_SIGNATURE, {"text": texts})
    for row, masks in enumerate((1, 0, 2)):
        alone = served.ask(DEFAULT_SIGNATURE, {"text": texts[row:row + 1]})
        assert alone["words"].shape == (1, masks, 3)
        shared = served.trimmed(DEFAULT_SIGNATURE, {name: values[row:row + 1] for name, values in together.items()})
        assert {name: values.shape for name, values in shared.items()} == {
            name: values.shape for name, values in alone.items()}
        assert shared["words"].tolist() == alone["words"].tolist()


def test_answers_that_do_not_fit_together_come_from_one_call(monkeypatch, tmp_path):
    served = model.Model(str(make_word_translator(tmp_path / "1")))
    assert served.is_shareable(DEFAULT_SIGNATURE)
    assert not served.is_shareable("attention")   # tokens by tokens
    monkeypatch.setattr(model, "CALL_BYTES", 60)
    assert served.ask(DEFAULT_SIGNATURE, {"pt": [b"o gato", b"o", b"a casa"]})["translation"].tolist() == [
        b"the cat", b"the", b"the house"]
    with pytest.raises(TextrailError, match="3 rows with 22 bytes in the longest"):
        served.ask("attention", {"pt": [b"o gato", b"o", b"a casa"]})


def test_a_model_that_its_graph_alone_cannot_restore_is_told(monkeypatch, tmp_path, tiny_pretrainer):
    from modules import serving
    from modules.mask_filling import export_pretrainer

    def plain_save(module, folder, signatures):
        tf.saved_model.save(module, folder, signatures=dict(signatures))

    monkeypatch.setattr(serving, "save", plain_save)
    folder = tmp_path / "1"
    export_pretrainer(tiny_pretrainer[0], str(folder), max_length=16)
    with pytest.raises(TextrailError, match=f"expected a model that answers in {folder}; received Could not find"):
        model.Model(str(folder))
