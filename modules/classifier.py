"""Text classification: what runs inside Transform, and below it what runs inside Trainer."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
import tensorflow_transform as tft

from modules import progress
from modules.batching import Buckets, LengthBatches
from modules.bert import Bert, Pooling, pool
from modules.checkpoints import Hints, read_huggingface
from modules.errors import UNKNOWN_LABEL, TextrailError
from modules.manifest import input_names
from modules.opaque import OpaqueEncoder, is_opaque
from modules.optimization import choose_precision, policy_of
from modules.serving import RawFeatures, column, export
from modules.tokenization import Tokenizer, Vocabulary
from modules.training import TrainArgs, Training, choose_strategy
from modules.transformer import Dropout, Linear
from modules.weights import load_encoder, write_description

# What records hold, see `modules.batching.parsed`.
FEATURES = {"token_ids$ragged_values": tf.int64, "label_id": tf.int64}

# Transform: raw columns to token ids and label ids.


def preprocessing_fn(inputs: dict[str, Any], custom_config: dict[str, Any]) -> dict[str, Any]:
    """Raw columns to features, as ops of the transform graph.

    With the classes negative and positive, and a ten-word vocabulary in which good = 5 and film = 6:

        {"text": ["good film"], "label": ["positive"]} → {"token_ids": [[2, 5, 6, 3]], "label_id": [1]}

    Args:
        inputs: raw columns by name, each [batch, 1] string, dense or sparse.
        custom_config: `data` with the names of the columns `text`, `text_pair` (or none) and `label`;
            `max_length` in tokens; `truncate`, what a longer single text loses; `encoder`, a folder with the
            vocabulary; `classes`, a text file with one class name a line, which becomes an asset of the graph.

    Returns:
        `token_ids` [batch, (tokens)] int64, unpadded, special tokens included; `label_id` [batch] int64. A label
        that is no class fails with `UNKNOWN_LABEL` and the label. An empty one is -1, because tf.Transform feeds it
        where a server feeds none; the gate lets no such row near here.
    """
    data = custom_config["data"]
    tokenizer = Tokenizer(Vocabulary.read(custom_config["encoder"]))
    pair = column(inputs[data["text_pair"]]) if data["text_pair"] else None
    return {
        "token_ids": tokenizer.encode(column(inputs[data["text"]]), pair, max_length=custom_config["max_length"],
                                      truncate=custom_config.get("truncate", "end")),
        "label_id": label_ids(column(inputs[data["label"]]), custom_config["classes"]),
    }


def label_ids(labels: tf.Tensor, classes: str) -> tf.Tensor:
    """Class names to their line numbers in the file `classes`, "" to -1: [batch] string → [batch] int64."""
    with tf.init_scope():  # Once a graph, and not once a batch.
        lines = tf.lookup.TextFileInitializer(classes, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE,
                                              tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER)
        table = tf.lookup.StaticHashTable(lines, default_value=-1)
    ids = table.lookup(labels)
    is_good = tf.logical_or(ids >= 0, tf.equal(labels, ""))
    # An op that fails on what is no number, and not an assertion: no side effect to keep in a server's graph.
    numbers = tf.where(is_good, tf.strings.as_string(ids), tf.strings.join([UNKNOWN_LABEL, labels]))
    return tf.strings.to_number(numbers, tf.int64)


# Trainer: token ids to class probabilities.


class Classifier(keras.Model):
    """BERT with one logit a class on its pooled output.

    Args:
        bert: the encoder, a BERT or a SavedModel that stands in its place.
        num_classes: classes.
        pooling: what the head sees; see `sections.Model`.
        dropout: rate before the head.
        vocabulary: tells padding and segments from the ids.
        seed: of dropout and of the new head.
    """

    def __init__(self, bert: Bert | OpaqueEncoder, num_classes: int, pooling: Pooling, dropout: float,
                 vocabulary: Vocabulary, seed: int, **options: Any):
        super().__init__(**options)
        self.bert, self.pooling, self.vocabulary = bert, pooling, vocabulary
        self.dropout = Dropout(dropout, bert.seeds, name="dropout", dtype="float32")
        self.head = Linear(bert.config.hidden_size, num_classes,
                           keras.initializers.TruncatedNormal(stddev=bert.config.initializer_range, seed=seed),
                           name="head", dtype="float32")
        self.built = True

    def call(self, token_ids: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns logits [batch, classes] float32 from padded token_ids [batch, length] int32."""
        mask = self.vocabulary.input_mask(token_ids)  # [batch, length]
        outputs = self.bert({"input_word_ids": token_ids, "input_mask": mask,
                             "input_type_ids": self.vocabulary.segment_ids(token_ids)}, training=training)
        pooled = pool(outputs, mask, self.pooling)  # [batch, hidden]
        return self.head(self.dropout(pooled, training=training))  # [batch, classes]

    # Keras does not count a SavedModel's variables among a layer's, hence these three.

    @property
    def trained(self) -> list[tuple[str, tf.Variable]]:
        """Name and variable of all that trains, for `Training`."""
        own = [(variable.path, variable.value) for variable in self.trainable_variables]
        return [*self.bert.trained, *own] if isinstance(self.bert, OpaqueEncoder) else own

    @property
    def state(self) -> list[tf.Variable]:
        """What else changes while training: the seeds of dropout, and the averages that a SavedModel may keep."""
        seeds = [self.bert.seeds.state.value]
        return [*seeds, *self.bert.state] if isinstance(self.bert, OpaqueEncoder) else seeds

    def take_weights(self, other: Classifier) -> None:
        """Copies all weights of another one of the same make."""
        self.set_weights(other.get_weights())
        if isinstance(self.bert, OpaqueEncoder):
            self.bert.take_weights(other.bert)


def sums(classifier: Classifier, batch: dict[str, tf.Tensor], training: bool) -> dict[str, tf.Tensor]:
    """What a batch adds to loss and accuracy, for `Training`.

    Args:
        classifier: the model.
        batch: `token_ids` [batch, length] int32 and `label_id` [batch] int64.
        training: whether to drop.

    Returns:
        Sums over the batch, each [] float32: cross entropy in nats, correct answers, and the number of examples.
    """
    labels = batch["label_id"]
    logits = classifier(batch["token_ids"], training=training)  # [batch, classes]
    correct = tf.cast(tf.equal(tf.argmax(logits, axis=-1), labels), tf.float32)
    return {"loss": tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)),
            "accuracy": tf.reduce_sum(correct), "weight": tf.cast(tf.size(labels), tf.float32)}


def run_fn(args: TrainArgs) -> None:
    """Fine-tunes the encoder on the training split and exports the best model on the validation split.

    Args:
        args: see `TrainArgs`; its settings have `seed`, `data`, `model` and `training`.
    """
    settings, training = args.settings, args.settings["training"]
    keras.utils.set_random_seed(settings["seed"])
    precision, reason = layer_precision(args.encoder, training["precision"])
    progress.report(f"training in {precision}: {reason}", lasting=True, precision=precision)
    classes = read_classes(args.transform_graph)
    strategy = choose_strategy(training["strategy"])
    with strategy.scope():
        model = starting_model(args.encoder, settings, classes, precision)
    batches = LengthBatches(args, FEATURES, length_buckets(settings, strategy.num_replicas_in_sync),
                            model.vocabulary.pad_id, strategy)
    progress.report(batches.told(), lasting=True)
    Training(forward=lambda batch, is_training: sums(model, batch, is_training), trained=model.trained,
             state=model.state, batches=batches.of_epoch, steps_per_epoch=batches.steps_per_epoch,
             validation=batches.validation, settings=training, scale_loss=precision == "float16", strategy=strategy,
             run_dir=args.run_dir, checkpoint_dir=args.checkpoint_dir).fit()
    # What is served computes in float32 wherever it runs: a server's CPU may be slow at anything else.
    served = build_classifier(args.encoder, settings, len(classes), "float32")
    served.take_weights(model)
    export_classifier(served, classes, args)


def layer_precision(encoder: str, wanted: str) -> tuple[str, str]:
    """The arithmetic of the layers and the reason for it: as `choose_precision`, with a look at the encoder."""
    if is_opaque(encoder):
        return "float32", "the SavedModel computes in its own precision"
    return choose_precision(wanted)


def starting_model(encoder: str, settings: dict[str, Any], classes: Sequence[str], precision: str) -> Classifier:
    """What a training begins with: see `build_classifier`, and `keep_head` where the settings' `head` says so."""
    model = build_classifier(encoder, settings, len(classes), policy_of(precision))
    if settings.get("head") == "keep":
        keep_head(model, encoder, classes)
    return model


def build_classifier(encoder: str, settings: dict[str, Any], num_classes: int, dtype: str) -> Classifier:
    """The encoder with a new head.

    Args:
        encoder: its folder.
        settings: the settings of the run; of its keys `seed` and `model`.
        num_classes: classes.
        dtype: a Keras dtype policy such as `mixed_bfloat16`.
    """
    model, seed = settings["model"], settings["seed"]
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        bert = load_opaque(encoder, model, seed) if is_opaque(encoder) else load_bert(encoder, model, seed)
        return Classifier(bert, num_classes, model["pooling"], model["dropout"], Vocabulary.read(encoder), seed)
    finally:
        keras.config.set_dtype_policy(before)


def load_bert(folder: str, model: dict[str, Any], seed: int) -> Bert:
    """The BERT of an encoder's folder, ready to train what the section `model` of the settings says."""
    bert = load_encoder(folder, model["dropout"], seed, new_pooler=model["pooling"] == "cls")
    bert.fine_tune(model["fine_tune_layers"], model["pooling"])
    return bert


def load_opaque(folder: str, model: dict[str, Any], seed: int) -> OpaqueEncoder:
    """The SavedModel of an encoder's folder, ready likewise."""
    encoder = OpaqueEncoder(folder, seed)
    encoder.fine_tune(model["fine_tune_layers"], model["pooling"], model["max_length"])
    return encoder


def keep_head(classifier: Classifier, encoder: str, classes: Sequence[str]) -> None:
    """Gives a classifier the head that its encoder came with, for a run that goes on from a fine-tuned one.

    Args:
        classifier: whose head is replaced.
        encoder: folder of its encoder.
        classes: names in the order of their ids; the head's may be in another.

    Raises:
        TextrailError: the encoder came without a classifier's head, or with one of other classes or another pooling.
    """
    found = read_huggingface(encoder, Hints()) if isinstance(classifier.bert, Bert) else None
    if found is None or found.pooling is None:
        raise TextrailError("encoder.source to be a fine-tuned classifier, for encoder.head=keep",
                            "an encoder without the head of one", "Set encoder.head=new.")
    if sorted(found.labels) != sorted(classes):
        raise TextrailError(f"encoder.source to tell the classes of the data apart: {', '.join(classes)}",
                            f"a classifier of {', '.join(found.labels)}",
                            "Set encoder.head=new, or give the classes in the data the names in its id2label.")
    if found.pooling != classifier.pooling:
        raise TextrailError(f"model.pooling={found.pooling}, which the head of encoder.source was trained on",
                            f"{classifier.pooling}", f"Set model.pooling={found.pooling}, or encoder.head=new.")
    rows = [found.labels.index(name) for name in classes]
    classifier.head.kernel.assign(found.head["classifier.weight"][rows].T)
    classifier.head.bias.assign(found.head["classifier.bias"][rows])


def length_buckets(settings: dict[str, Any], replicas: int) -> Buckets:
    """How a run groups its examples by length.

    Args:
        settings: of the run; of its keys `model` and `training`.
        replicas: devices that share a batch.
    """
    return Buckets.of_run(settings["training"], settings["model"]["max_length"], replicas)


# Serving: plain strings or serialized tf.Examples to labels.


class ServedClassifier(tf.Module):
    """What is exported: the transform graph and the classifier behind three signatures.

    Args:
        classifier: the model, in float32.
        classes: names in the order of their ids.
        args: where the transform graph is; column names.
    """

    def __init__(self, classifier: Classifier, classes: list[str], args: TrainArgs):
        super().__init__()
        self.raw = RawFeatures(args.transform_graph)
        self.classifier, self.data = classifier, args.settings["data"]
        self.classes = tf.constant(classes)  # [classes]
        self.texts = [self.data[key] for key in ("text", "text_pair") if self.data[key]]

    def scores(self, token_ids: tf.RaggedTensor) -> tf.Tensor:
        """[batch, (tokens)] ids to probabilities [batch, classes] float32."""
        ids = tf.cast(self.classifier.vocabulary.to_dense(token_ids), tf.int32)  # [batch, longest]
        return tf.nn.softmax(self.classifier(ids, training=False))

    def signatures(self) -> dict[str, Any]:
        """Name → concrete function, for `tf.saved_model.save`."""
        strings = [tf.TensorSpec([None], tf.string, name) for name in input_names(self.texts)]
        serialized = tf.TensorSpec([None], tf.string, "examples")
        return {"serving_default": tf.function(self.serve).get_concrete_function(*strings),
                "examples": tf.function(self.serve_examples).get_concrete_function(serialized),
                "transform_features": tf.function(self.transform_features).get_concrete_function(serialized)}

    def serve(self, *texts: tf.Tensor) -> dict[str, tf.Tensor]:
        """Plain strings, one [batch] a text feature, to the best class and all scores."""
        features = self.raw.from_strings(dict(zip(self.texts, texts, strict=True)))
        scores = self.scores(features["token_ids"])  # [batch, classes]
        best = tf.argmax(scores, axis=-1)  # [batch]
        return {"label": tf.gather(self.classes, best), "score": tf.reduce_max(scores, axis=-1), "scores": scores,
                "classes": tf.tile(self.classes[None, :], [tf.shape(scores)[0], 1])}

    def serve_examples(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        """Serialized tf.Examples [batch], with or without label, to scores [batch, classes]."""
        features = self.raw.from_examples(examples, without=self.data["label"])
        return {"scores": self.scores(features["token_ids"])}

    def transform_features(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        """Serialized tf.Examples [batch] to what the model was trained on, and how long each is."""
        features = self.raw.from_examples(examples)
        return {"token_ids": self.classifier.vocabulary.to_dense(features["token_ids"]),
                "label_id": tf.reshape(features["label_id"], [-1]),
                "token_count": features["token_ids"].row_lengths()}


def export_classifier(classifier: Classifier, classes: list[str], args: TrainArgs) -> None:
    """Writes the SavedModel with its three signatures and its manifest to `args.serving_dir`."""
    served, bert, model = ServedClassifier(classifier, classes, args), classifier.bert, args.settings["model"]
    describe = (functools.partial(write_description, config=bert.config, vocabulary=classifier.vocabulary)
                if isinstance(bert, Bert) else None)
    export(served, served.signatures(), args.serving_dir, {
        "shape": "classification", **args.settings["data"], "inputs": input_names(served.texts), "classes": classes,
        "max_length": model["max_length"], "truncate": model.get("truncate", "end"),
        "pooling": classifier.pooling}, describe)


def read_classes(transform_graph: str) -> list[str]:
    """Class names in the order of their ids, from the asset that the transform graph keeps."""
    path = os.path.join(tft.TFTransformOutput(transform_graph).transform_savedmodel_dir, "assets", "classes.txt")
    with tf.io.gfile.GFile(path, "rb") as file:
        return file.read().decode("utf-8").splitlines()
