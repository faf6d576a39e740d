"""What a pretraining reads in each epoch."""

import numpy as np
import pytest
import tensorflow as tf

from modules.pretraining import first_token_ids, masked_batches
from modules.tokenization import Vocabulary
from modules.training import TrainArgs, choose_strategy


@pytest.fixture
def batches(tiny_encoder, tmp_path):
    """A function of `accumulate` that gives the batches of 40 examples of 12 tokens."""
    path, random = str(tmp_path / "instances.gz"), np.random.default_rng(1)
    with tf.io.TFRecordWriter(path, "GZIP") as writer:
        for _ in range(40):
            ids = [2, *random.integers(5, 100, 10).tolist(), 3]
            writer.write(tf.train.Example(features=tf.train.Features(feature={
                name: tf.train.Feature(int64_list=tf.train.Int64List(value=values))
                for name, values in (("token_ids$ragged_values", ids), ("next_sentence_label", [0]))
            })).SerializeToString())
    strategy = choose_strategy("one_device")

    def of(accumulate: int = 1, next_sentence: bool = True, streams: int = 1):
        settings = {"seed": 4, "masking": {"mask_rate": 0.3},
                    "instances": {"max_length": 16, "next_sentence": next_sentence},
                    "training": {"batch_tokens": 128, "max_batch": 64, "bucket_step": 16, "shuffle_buffer": 1,
                                 "accumulate": accumulate, "loading": {"streams": streams}}}
        files = [path] * streams
        return masked_batches(TrainArgs(files, files, "", "", "", "", str(tmp_path), settings),
                              Vocabulary.read(tiny_encoder), strategy)

    return of


def seen(some) -> list:
    """What the model sees of each batch, and has to tell."""
    return [(one["token_ids"].numpy().tolist(), one["masked_ids"].numpy().tolist()) for one in some]


def test_every_epoch_has_masks_of_its_own_and_a_resumed_one_the_same_again(batches):
    made = batches()
    first, second = seen(made.of_epoch(0)), seen(made.of_epoch(1))
    assert first != second and np.array(first[0][0]).shape == (8, 16) and len(first) == made.steps_per_epoch == 5
    assert seen(batches().of_epoch(1).skip(2)) == second[2:]


def test_masks_of_validation_never_change(batches):
    made = batches()
    assert seen(made.validation) == seen(made.validation) == seen(batches().validation)


def test_a_batch_of_several_parts_is_as_many_times_as_large(batches):
    assert [len(ids) for ids, _ in seen(batches(accumulate=3).of_epoch(0))] == [24, 16]


def test_without_next_sentences_no_label_is_read(batches):
    assert "next_sentence_label" not in batches(next_sentence=False).validation.element_spec


def test_every_stream_has_masks_of_its_own(batches):
    made, strategy = batches(streams=2), choose_strategy("one_device")
    first, again, other = (seen(made.of_epoch(epoch).distributed(strategy)) for epoch in (0, 0, 1))
    assert first == again != other and len(first) == made.steps_per_epoch == 10
    # Both streams read the same file here: what they bring differs by masks alone.
    assert all(ids[:4] != ids[4:] and len(ids) == 8 for ids, _ in first)
    assert seen(made.validation.distributed(strategy)) == seen(made.validation.distributed(strategy))


def test_words_are_counted_in_whole_examples(tmp_path):
    files = [str(tmp_path / f"{name}.gz") for name in "ab"]
    for file, rows in zip(files, ([[2, 7, 3], [2, 8, 9, 3]], [[2, 3]]), strict=True):
        with tf.io.TFRecordWriter(file, "GZIP") as writer:
            for ids in rows:
                writer.write(tf.train.Example(features=tf.train.Features(feature={
                    "token_ids$ragged_values": tf.train.Feature(int64_list=tf.train.Int64List(value=ids))
                })).SerializeToString())
    assert first_token_ids(files[::-1]).tolist() == [2, 7, 3, 2, 8, 9, 3, 2, 3]
