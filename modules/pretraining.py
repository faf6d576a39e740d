"""Pretraining: what runs inside Trainer, from prepared examples to the exported model.

The model and its losses are `modules.pretrainer`, the masks `modules.masking`, what is exported `modules.mask_filling`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from modules import progress
from modules.batching import Buckets, LengthBatches, Loading, parsed, read
from modules.first_weights import know_company
from modules.mask_filling import export_pretrainer
from modules.masking import Masker, Masking, masked
from modules.optimization import choose_precision, policy_of
from modules.pretrainer import Pretrainer, build_pretrainer, sums
from modules.streams import the_firsts
from modules.tokenization import Vocabulary
from modules.training import TrainArgs, Training, choose_strategy

COUNTED = 100_000   # Examples whose words are counted before training begins; more change the vectors little.


def features(next_sentence: bool) -> dict[str, tf.DType]:
    """What records hold, with or without pairs; see `modules.batching.parsed`."""
    token_ids = {"token_ids$ragged_values": tf.int64}
    return {**token_ids, "next_sentence_label": tf.int64} if next_sentence else token_ids


def masked_batches(args: TrainArgs, vocabulary: Vocabulary, strategy: tf.distribute.Strategy) -> LengthBatches:
    """The batches of a run. Every epoch has masks of its own, and the same again when it is resumed; those of the
    validation split never change.

    Args:
        args: files and settings, see `run_fn`.
        vocabulary: wordpieces.
        strategy: where the training runs.
    """
    settings, instances = args.settings, args.settings["instances"]
    masker = Masker(vocabulary, Masking(**settings["masking"]))
    buckets = Buckets.of_run(settings["training"], instances["max_length"], strategy.num_replicas_in_sync)
    return LengthBatches(args, features(instances["next_sentence"]), buckets, vocabulary.pad_id, strategy,
                         stage=lambda batches, seed: masked(batches, masker, seed))


def run_fn(args: TrainArgs) -> None:
    """Trains a BERT on the training split and exports the best one on the validation split.

    Args:
        args: see `TrainArgs`; its settings have `seed`, `data`, `instances`, `masking`, `model`, `training`, `filling`
            and `evaluation`. With an encoder training goes on from it, otherwise it starts from new weights.
    """
    settings, training, instances = args.settings, args.settings["training"], args.settings["instances"]
    keras.utils.set_random_seed(settings["seed"])
    precision, reason = choose_precision(training["precision"])
    progress.report(f"training in {precision}: {reason}", lasting=True, precision=precision)
    vocabulary, strategy = Vocabulary.read(args.encoder or args.vocabulary), choose_strategy(training["strategy"])
    with strategy.scope():
        pretrainer, kept = starting_model(settings, vocabulary, precision, args.encoder)
        if settings["model"].get("first_words") == "cooccurrence":
            progress.report("counting which words stand in the same texts")
            know_company(pretrainer.bert, vocabulary, first_token_ids(args.train_files))
            words = pretrainer.bert.embeddings.words
            words.assign(the_firsts(strategy, np.asarray(words)))
    if args.encoder:
        progress.report(f"goes on from the encoder, with {' and '.join(kept) or 'neither'} of its heads", lasting=True)
    batches = masked_batches(args, vocabulary, strategy)
    progress.report(batches.told(), lasting=True)
    Training(forward=lambda batch, is_training: sums(pretrainer, batch, is_training), trained=pretrainer.trained,
             state=pretrainer.state, batches=batches.of_epoch, steps_per_epoch=batches.steps_per_epoch,
             validation=batches.validation, settings=training, scale_loss=precision == "float16", strategy=strategy,
             run_dir=args.run_dir, checkpoint_dir=args.checkpoint_dir, unit="tokens").fit()
    export_pretrainer(pretrainer, args.serving_dir, instances["max_length"], settings["filling"]["top"],
                      settings["evaluation"]["passes"], settings["data"]["text"])


def first_token_ids(files: Sequence[str]) -> np.ndarray:
    """The token ids [tokens] int32 of the first `COUNTED` examples of files, one example after the other."""
    records = read(files, Loading()).take(COUNTED)
    return np.concatenate([some["token_ids"].values.numpy() for some in parsed(records, features(False), Loading())])


def starting_model(settings: dict[str, Any], vocabulary: Vocabulary, precision: str, encoder: str = ""
                   ) -> tuple[Pretrainer, list[str]]:
    """What a training begins with, and which heads are the encoder's: see `build_pretrainer`."""
    model = settings["model"] | {"next_sentence": settings["instances"]["next_sentence"]}
    return build_pretrainer({"seed": settings["seed"], "model": model}, vocabulary, policy_of(precision), encoder)
