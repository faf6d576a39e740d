"""The classifier: what trains, what it sums up, and what its SavedModel answers in a process of its own."""

import csv
import dataclasses
import gzip
import itertools
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from modules.batching import LengthBatches
from modules.classifier import (
    FEATURES,
    build_classifier,
    export_classifier,
    length_buckets,
    read_classes,
    run_fn,
    sums,
)
from modules.optimization import AdamW
from modules.training import TrainArgs
from tests.components.transforming import COLUMN, LABEL, example, transform

SETTINGS = {
    "seed": 3, "data": {"text": "text", "text_pair": None, "label": "stars"},
    "model": {"max_length": 16, "pooling": "mean", "dropout": 0.1, "fine_tune_layers": "all"},
    "training": {"epochs": 5, "learning_rate": 3e-3, "schedule": "linear", "warmup": 0.1, "weight_decay": 0.01,
                 "clip_norm": 1.0, "batch_tokens": 128, "max_batch": 16, "bucket_step": 8, "shuffle_buffer": 100,
                 "precision": "float32", "xla": False, "early_stopping_metric": "accuracy", "patience": 9,
                 "evaluations_per_epoch": 1, "checkpoint_seconds": 1e9, "strategy": "one_device"},
}


def arguments(folder, encoder, graph: str = "", **changes) -> TrainArgs:
    files = {split: [str(file) for file in (folder / "out" / f"Split-{split}").glob("*")]
             for split in ("train", "validation")}
    settings = SETTINGS | {section: SETTINGS[section] | values for section, values in changes.items()}
    (folder / "run").mkdir(exist_ok=True)
    return TrainArgs(files["train"], files["validation"], graph, str(encoder), str(folder / "model"),
                     str(folder / "run"), str(folder / "checkpoints"), settings)


def batch(rows: list[list[int]], labels: list[int]) -> dict[str, tf.Tensor]:
    return {"token_ids": tf.ragged.constant(rows, dtype=tf.int32).to_tensor(),
            "label_id": tf.constant(labels, tf.int64)}


BATCH = batch([[2, 26, 30, 3], [2, 27, 3], [2, 28, 31, 33, 3]], [1, 0, 1])


@pytest.mark.parametrize("pooling, fine_tuned, moving", [
    ("mean", "all", {"embeddings", "block_0", "block_1", "head"}), ("mean", 1, {"block_1", "head"}),
    ("mean", 0, {"head"}), ("cls", "all", {"embeddings", "block_0", "block_1", "pooler", "head"})])
def test_a_step_moves_exactly_what_is_to_train(tiny_encoder, tmp_path, pooling, fine_tuned, moving):
    args = arguments(tmp_path, tiny_encoder, model={"pooling": pooling, "fine_tune_layers": fine_tuned})
    model = build_classifier(args.encoder, args.settings, 2, "float32")
    bert = model.bert
    layers = {"embeddings": bert.embeddings, "pooler": bert.pooler, "head": model.head} | {
        f"block_{i}": block for i, block in enumerate(bert.blocks)}
    weights = [(part, variable) for part, layer in layers.items() for variable in layer.weights
               if "seed" not in variable.path]
    before = [variable.numpy() for _, variable in weights]
    trained = [variable.value for variable in model.trainable_variables]
    with tf.GradientTape() as tape:
        loss = sums(model, BATCH, True)["loss"]
    AdamW(trained, [variable.path for variable in model.trainable_variables]).apply(
        tape.gradient(loss, trained), tf.constant(0.01))
    changed = {(part, variable.name) for (part, variable), old in zip(weights, before, strict=True)
               if not np.array_equal(old, variable.numpy())}
    # Every weight of what is to train, and not a bit of anything else.
    assert changed == {(part, variable.name) for part, variable in weights if part in moving}


def test_sums_are_those_of_the_rows_alone_and_ignore_padding(tiny_encoder, tmp_path):
    args = arguments(tmp_path, tiny_encoder)
    model = build_classifier(args.encoder, args.settings, 2, "float32")
    together = {name: float(value) for name, value in sums(model, BATCH, False).items()}
    alone = [sums(model, batch([[i for i in row if i]], [label]), False)
             for row, label in zip(BATCH["token_ids"].numpy().tolist(), [1, 0, 1], strict=True)]
    assert together["weight"] == 3
    assert together["loss"] == pytest.approx(sum(float(one["loss"]) for one in alone), abs=1e-5)
    logits = model(BATCH["token_ids"]).numpy()
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert together["loss"] == pytest.approx(-np.log(probabilities[[0, 1, 2], [1, 0, 1]]).sum(), abs=1e-5)
    assert together["accuracy"] == (logits.argmax(-1) == [1, 0, 1]).sum()


MOODS = {"good": ["good film", "great story", "we loved it", "nice warm room"],
         "bad": ["bad film", "awful story", "we hated it", "poor cold room"]}


@pytest.fixture(scope="module")
def trained(tiny_encoder, tmp_path_factory):
    """A classifier trained for a few epochs on a few words, with its arguments."""
    folder = tmp_path_factory.mktemp("trained")
    rows = [{"text": f"{text} {filler}", "stars": stars} for stars, texts in MOODS.items() for text in texts
            for filler in ("", "and we will go again", "the staff was there", "very fast phone")]
    graph, _ = transform(folder, tiny_encoder, {"train": rows * 4, "validation": rows},
                         COLUMN.format("text", "") + COLUMN.format("stars", LABEL), max_length=16)
    args = arguments(folder, tiny_encoder, graph)
    run_fn(args)
    return args, rows


def test_training_learns_and_writes_its_history(trained):
    args, _ = trained
    with open(f"{args.run_dir}/history.json") as file:
        rounds = json.load(file)["rounds"]
    assert rounds[-1]["validation"]["accuracy"] > 0.9
    assert rounds[-1]["train"]["loss"] < rounds[0]["train"]["loss"]
    assert read_classes(args.transform_graph) == ["bad", "good"]


TWO_DEVICES = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_visible_devices([cpu])
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from modules.classifier import run_fn
from modules.training import TrainArgs
given, losses = json.load(sys.stdin), []
for strategy in ("one_device", "mirrored"):
    folder = os.path.join(os.getcwd(), strategy)
    os.makedirs(folder + "/run")
    given["settings"]["training"]["strategy"] = strategy
    run_fn(TrainArgs(**given | {"serving_dir": folder + "/model", "run_dir": folder + "/run",
                                "checkpoint_dir": folder + "/checkpoints"}))
    with open(folder + "/run/history.json") as file:
        losses.append([one["train"]["loss"] for one in json.load(file)["rounds"]])
np.testing.assert_allclose(losses[0], losses[1], atol=1e-3)
assert os.path.exists("mirrored/model/saved_model.pb")
"""


def test_two_devices_train_bert_as_one_does(trained, tmp_path):
    # Logical devices must be set before TensorFlow starts, hence in a process of its own; without dropout, whose
    # draws depend on how a batch is shared out, both must see the same losses.
    given = dataclasses.asdict(trained[0])
    given["settings"] = json.loads(json.dumps(given["settings"]))
    given["settings"]["model"]["dropout"] = 0.0
    given["settings"]["training"]["epochs"] = 2
    done = subprocess.run([sys.executable, "-c", TWO_DEVICES, str(Path(__file__).parents[2])], cwd=tmp_path,
                          input=json.dumps(given), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


ASK = """
import json, sys
import tensorflow as tf, tensorflow_text
model = tf.saved_model.load(sys.argv[1])
signatures, request = model.signatures, json.load(sys.stdin)
examples = tf.constant([bytes.fromhex(one) for one in request["examples"]])
served = signatures["serving_default"](text=tf.constant(request["texts"]))
features = signatures["transform_features"](examples=examples)
assert not {name for name in sys.modules if name.split(".")[0] in ("modules", "components", "keras_hub", "tfx")}
json.dump({"served": {k: v.numpy().tolist() if v.dtype != tf.string else
                      [x.decode() for x in v.numpy().ravel()] for k, v in served.items()},
           "scores": signatures["examples"](examples=examples)["scores"].numpy().tolist(),
           "features": {k: v.numpy().tolist() for k, v in features.items()}}, sys.stdout)
"""


def ask(folder, rows: list[dict], elsewhere) -> dict:
    """Moves a SavedModel and asks it in a fresh process that knows TensorFlow and tensorflow_text alone."""
    shutil.copytree(folder, elsewhere / "moved")
    request = {"texts": [row["text"] for row in rows], "examples": [example(**row).hex() for row in rows]}
    done = subprocess.run([sys.executable, "-I", "-c", ASK, str(elsewhere / "moved")], input=json.dumps(request),
                          cwd=elsewhere, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_the_moved_model_answers_in_a_fresh_process(trained, tmp_path):
    args, rows = trained
    answer = ask(args.serving_dir, [*rows[:8], {"text": "", "stars": "bad"}], tmp_path)
    served = answer["served"]
    assert served["label"][:8] == ["good"] * 8
    assert served["classes"][:2] == ["bad", "good"]
    np.testing.assert_allclose(np.sum(served["scores"], axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(served["scores"], answer["scores"], atol=1e-6)
    np.testing.assert_allclose(np.max(served["scores"], axis=1), served["score"], atol=1e-7)
    assert answer["features"]["label_id"] == [1] * 8 + [0]
    assert answer["features"]["token_count"][-1] == 2
    # How lengths are banded is for judging to say: other bands need no other model.
    assert set(answer["features"]) == {"token_ids", "label_id", "token_count"}
    with open(f"{args.serving_dir}/assets.extra/textrail.json") as file:
        assert json.load(file) == {"shape": "classification", "text": "text", "text_pair": None, "label": "stars",
                                   "inputs": ["text"],
                                   "classes": ["bad", "good"], "max_length": 16, "truncate": "end", "pooling": "mean"}


def test_batches_say_what_bucketing_saves(trained):
    args, rows = trained
    batches = LengthBatches(args, FEATURES, length_buckets(args.settings, 1), 0)
    assert batches.told().startswith(f"{4 * len(rows)} examples, {batches.steps_per_epoch} batches an epoch, ")
    assert sum(int(one["label_id"].shape[0]) for one in batches.of_epoch(0)) == 4 * len(rows)


def test_batches_from_a_cache_on_disk_are_the_same_and_it_lies_beside_the_checkpoints(trained, tmp_path):
    args, _ = trained
    args = dataclasses.replace(args, checkpoint_dir=str(tmp_path / "checkpoints"))
    kept = dataclasses.replace(args, settings=args.settings | {
        "training": args.settings["training"] | {"loading": {"cache": "disk"}}})

    def labels(of: TrainArgs) -> list[list[int]]:
        batches = LengthBatches(of, FEATURES, length_buckets(of.settings, 1), 0)
        return [one["label_id"].numpy().tolist() for part in (batches.of_epoch(1).skip(3), batches.validation)
                for one in part]

    expected = labels(args)
    assert not (tmp_path / "checkpoints").exists()
    assert labels(kept) == expected
    assert sorted(path.parent.name for path in tmp_path.rglob("*.index")) == ["train", "validation"]


def test_ids_at_serving_are_those_of_transform_on_real_texts(tiny_encoder, shared_data, tmp_path):
    vocabulary = (shared_data / "data" / "vocab" / "bert_uncased_vocab.txt").read_text("utf-8")
    encoder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder, encoder)
    (encoder / "vocab.txt").write_text(vocabulary, encoding="utf-8")
    config = json.loads((encoder / "config.json").read_text())
    from safetensors.numpy import load_file, save_file
    weights = load_file(encoder / "model.safetensors")
    words = np.random.default_rng(0).normal(0, 0.05, (len(vocabulary.splitlines()), 32)).astype("float32")
    save_file(weights | {"embeddings.word_embeddings.weight": words}, encoder / "model.safetensors",
              metadata={"format": "pt"})
    (encoder / "config.json").write_text(json.dumps(config | {"vocab_size": len(words)}))
    with gzip.open(shared_data / "data" / "imdb" / "train.csv.gz", "rt", encoding="utf-8", newline="") as file:
        rows = [{"text": row["review"], "stars": {"positive": "good"}.get(row["sentiment"], "bad")}
                for row in itertools.islice(csv.DictReader(file), 3000)]
    graph, written = transform(tmp_path, encoder, {"train": rows, "validation": rows[:1]},
                               COLUMN.format("text", "") + COLUMN.format("stars", LABEL), max_length=64)
    args = arguments(tmp_path, encoder, graph, model={"max_length": 64})
    export_classifier(build_classifier(args.encoder, args.settings, 2, "float32"), ["bad", "good"], args)
    features = ask(args.serving_dir, rows, tmp_path)["features"]
    served = Counter((tuple(ids[:count]), label) for ids, count, label in
                     zip(features["token_ids"], features["token_count"], features["label_id"], strict=True))
    assert served == Counter((tuple(ids), label[0]) for ids, label in written["train"])
    assert sum(served.values()) == 3000
