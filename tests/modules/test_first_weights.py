import dataclasses

import keras
import numpy as np
import pytest

from modules.bert import Bert
from modules.first_weights import deviation, look_at_neighbours
from modules.pretrainer import pretraining_config


def test_weights_of_a_model_as_wide_as_bert_deviate_as_in_bert():
    assert deviation(768) == pytest.approx(0.0228, abs=1e-4)
    assert deviation(128) == pytest.approx(0.0559, abs=1e-4)
    assert pretraining_config({"preset": "mini"}, 100).initializer_range == deviation(256)


@pytest.mark.parametrize("preset, steps", [("tiny", [1, -1]), ("mini", [1, -1, 2, -2])])
def test_each_head_of_the_first_block_looks_at_a_neighbour(preset, steps):
    keras.utils.set_random_seed(1)
    bert = Bert(pretraining_config({"preset": preset, "positions": 40}, 100), with_pooler=False)
    look_at_neighbours(bert)
    table = np.asarray(bert.embeddings.positions)  # [positions, width]
    assert table.std() == pytest.approx(deviation(table.shape[1]), rel=0.1)
    x = table / table.std(axis=1, keepdims=True)
    queries, keys, _ = np.split(x @ np.asarray(bert.blocks[0].attention.qkv.kernel), 3, axis=1)
    for query, key, step in zip(*(np.split(one, len(steps), axis=1) for one in (queries, keys)), steps, strict=True):
        inner = np.arange(2, 38)
        assert ((query @ key.T).argmax(axis=1)[inner] == inner + step).mean() > 0.9   # The rest is noise's.


def test_widths_and_heads_that_leave_a_rest_are_taken():
    config = dataclasses.replace(pretraining_config({"preset": "tiny", "positions": 8}, 10), hidden_size=15,
                                 num_attention_heads=5, intermediate_size=16)
    bert = Bert(config, with_pooler=False)
    look_at_neighbours(bert)
    assert np.isfinite(np.asarray(bert.blocks[0].attention.qkv.kernel)).all()
