"""Translation: what runs inside Transform, and below it what runs inside Trainer and inside the exported graph."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from modules import progress
from modules.batching import Buckets, LengthBatches
from modules.decoding import Found, Tokens, beam_search, greedy, in_groups
from modules.manifest import input_names
from modules.optimization import choose_precision, policy_of
from modules.serving import RawFeatures, column, export
from modules.subwords import Subwords
from modules.training import TrainArgs, Training, choose_strategy
from modules.translator import Translator, build_translator, sums

# Most tokens, those of the sources and of all hypotheses with padding, that are translated at a time: 4 KB each in a
# decoder 4 layers deep and 128 wide, 25 KB in one 6 deep and 512 wide. It takes in a batch of 32 usual sentences.
GROUP_TOKENS = 32768

TOKENS = Tokens(start=Subwords.start_id, end=Subwords.end_id,
                never=(Subwords.pad_id, Subwords.unk_id, Subwords.start_id))


# What records hold, see `modules.batching.parsed`.
FEATURES = {"source_ids$ragged_values": tf.int64, "target_ids$ragged_values": tf.int64}


# Transform: raw columns to token ids.


def preprocessing_fn(inputs: dict[str, Any], custom_config: dict[str, Any]) -> dict[str, Any]:
    """Raw columns to features, as ops of the transform graph.

    With the source vocabulary [PAD] [UNK] [START] [END] o gato dorme and a target vocabulary that has the cat sleeps in
    the same places:

        {"pt": ["o gato dorme"], "en": ["the cat sleeps"]} →
        {"source_ids": [[2, 4, 5, 6, 3]], "target_ids": [[2, 4, 5, 6, 3]]}

    Args:
        inputs: raw columns by name, each [batch, 1] string, dense or sparse.
        custom_config: `data` with the names of the columns `text` and `target`; `vocabulary`, a folder with the
            vocabularies `source` and `target`.

    Returns:
        `source_ids` and `target_ids`, each [batch, (tokens)] int64, unpadded, from [START] to [END], however long.
    """
    data, vocabularies = custom_config["data"], Vocabularies.read(custom_config["vocabulary"])
    return {"source_ids": vocabularies.source.encode(column(inputs[data["text"]])),
            "target_ids": vocabularies.target.encode(column(inputs[data["target"]]))}


class Vocabularies(NamedTuple):
    """The subwords of both languages; the same twice where they are joint."""

    source: Subwords
    target: Subwords

    @classmethod
    def read(cls, folder: str) -> Vocabularies:
        """Reads the folder of a Vocabulary artifact.

        Raises:
            TextrailError: a file is missing or damaged.
        """
        return cls(*(Subwords.read(os.path.join(folder, side)) for side in cls._fields))

    def new_translator(self, settings: dict[str, Any], dtype: str) -> Translator:
        """A new translator for these; see `build_translator`."""
        return build_translator(settings, len(self.source.pieces), len(self.target.pieces), dtype)


# Trainer: token ids to the next token.


def run_fn(args: TrainArgs) -> None:
    """Trains a translator on the training split and exports the best model on the validation split.

    Args:
        args: see `TrainArgs`; its settings have `seed`, `data`, `model`, `training` and `decoding`.
    """
    settings, training = args.settings, args.settings["training"]
    keras.utils.set_random_seed(settings["seed"])
    precision, reason = choose_precision(training["precision"])
    progress.report(f"training in {precision}: {reason}", lasting=True, precision=precision)
    vocabularies, strategy = Vocabularies.read(args.vocabulary), choose_strategy(training["strategy"])
    with strategy.scope():
        model = vocabularies.new_translator(settings, policy_of(precision))
    batches = LengthBatches(args, FEATURES, length_buckets(settings, strategy.num_replicas_in_sync), Subwords.pad_id,
                            strategy)
    progress.report(batches.told(), lasting=True)
    Training(forward=lambda batch, is_training: sums(model, batch, is_training, training["label_smoothing"]),
             trained=[(variable.path, variable.value) for variable in model.trainable_variables],
             state=[model.seeds.state.value], batches=batches.of_epoch, steps_per_epoch=batches.steps_per_epoch,
             validation=batches.validation, settings=training, scale_loss=precision == "float16", strategy=strategy,
             run_dir=args.run_dir, checkpoint_dir=args.checkpoint_dir, width=settings["model"]["hidden_size"],
             unit="target_tokens").fit()
    # What is served computes in float32 wherever it runs: a server's CPU may be slow at anything else.
    served = vocabularies.new_translator(settings, "float32")
    served.set_weights(model.get_weights())
    export_translator(served, vocabularies, args)


def length_buckets(settings: dict[str, Any], replicas: int) -> Buckets:
    """How a run groups its pairs by length.

    Args:
        settings: of the run; of its keys `model` and `training`.
        replicas: devices that share a batch.
    """
    return Buckets.of_run(settings["training"], settings["model"]["max_tokens"], replicas, texts=2)


# Serving: plain strings or serialized tf.Examples to translations.


class ServedTranslator(tf.Module):
    """What is exported: the transform graph, the model and the search behind four signatures.

    Args:
        translator: the model, in float32.
        vocabularies: its tokens.
        args: where the transform graph is; column names and the section `decoding` of the settings.
    """

    def __init__(self, translator: Translator, vocabularies: Vocabularies, args: TrainArgs):
        super().__init__()
        self.raw = RawFeatures(args.transform_graph)
        self.translator, self.vocabularies = translator, vocabularies
        self.data, self.decoding = args.settings["data"], args.settings["decoding"]
        self.max_tokens = args.settings["model"]["max_tokens"]
        # Three signatures search; it is traced and stored once.
        self.search = tf.function(self._search, input_signature=[tf.RaggedTensorSpec([None, None], tf.int64, 1)])

    def signatures(self) -> dict[str, Any]:
        """Name → concrete function, for `tf.saved_model.save`."""
        name, = input_names([self.data["text"]])
        text, serialized = (tf.TensorSpec([None], tf.string, one) for one in (name, "examples"))
        return {"serving_default": tf.function(self.serve).get_concrete_function(text),
                "examples": tf.function(self.serve_examples).get_concrete_function(serialized),
                "transform_features": tf.function(self.transform_features).get_concrete_function(serialized),
                "attention": tf.function(self.attention).get_concrete_function(text)}

    def serve(self, texts: tf.Tensor) -> dict[str, tf.Tensor]:
        """Plain strings [batch] to translations.

        A text of which the vocabulary knows nothing (all in another script) is given back as it came but for white
        space at its ends, and a blank one as "", both with score 0.

        Returns:
            `translation` [batch] string and `score` [batch] float32, log probability in nats over length penalty, of
            the best; `translations` and `scores` [batch, n_best] of the n best, "" and the lowest float32 where there
            are fewer; `truncated` [batch] bool, whether the end of the text was left out.
        """
        ids, truncated = self._source_ids(texts, self.decoding["max_source_tokens"])
        found, n_best = self.search(ids), self.decoding["n_best"]
        shape = tf.shape(found.token_ids)
        said = self.vocabularies.target.decode(tf.reshape(found.token_ids, [-1, shape[2]]))  # [batch * n_best]
        said = tf.reshape(said, [-1, n_best])
        back = tf.strings.strip(tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8"))
        back = tf.where(ids.row_lengths() > 2, back, "")  # of blank texts nothing, whichever white space they are of
        back = tf.concat([back[:, None], tf.fill([shape[0], n_best - 1], "")], axis=1)
        translations = tf.where(self._known(ids)[:, None] > 0, said, back)
        scores = tf.maximum(found.scores, tf.float32.min)
        return {"translation": translations[:, 0], "score": scores[:, 0], "translations": translations,
                "scores": scores, "truncated": truncated}

    def serve_examples(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        """Serialized tf.Examples [batch], of which only the source text is read; answers as `serve`."""
        return self.serve(self.raw.strings(examples, self.data["text"]))

    def transform_features(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        """Serialized tf.Examples [batch] to what the model was trained on, and how long each is."""
        names = (self.data["text"], self.data["target"])
        features = self.raw.from_strings({name: self.raw.strings(examples, name) for name in names})
        sides = {side: features[f"{side}_ids"] for side in ("source", "target")}
        return ({f"{side}_ids": ids.to_tensor() for side, ids in sides.items()}
                | {f"{side}_count": ids.row_lengths() for side, ids in sides.items()})

    def attention(self, texts: tf.Tensor) -> dict[str, tf.Tensor]:
        """Plain strings [batch] to what each token of the translation looked at, for pictures.

        Sources are cut to the length that the model was trained on: nobody can read a larger picture, and a server
        should not have to hold it.

        Returns:
            `source_tokens` [batch, source length] and `target_tokens` [batch, target length] string, "" after the
            last one, which is [END]; `attention` [batch, layers, heads, target length, source length] float32, whose
            sums over the source are 1.
        """
        ids, _ = self._source_ids(texts, min(self.max_tokens, self.decoding["max_source_tokens"]))
        source_ids = tf.cast(ids.to_tensor(), tf.int32)  # [batch, source length]
        said = self.search(ids).token_ids[:, 0]
        said = tf.pad(said, [[0, 0], [0, tf.cast(tf.shape(said)[1] == 0, tf.int32)]])  # [batch, target length]
        # Each token was chosen by what came before it.
        before = tf.concat([tf.fill([tf.shape(said)[0], 1], TOKENS.start), said[:, :-1]], axis=1)
        source, target = self.vocabularies
        return {"source_tokens": _tokens(source, source_ids), "target_tokens": _tokens(target, said),
                "attention": self.translator.cross_attention(source_ids, before)}

    def _source_ids(self, texts: tf.Tensor, most: int) -> tuple[tf.RaggedTensor, tf.Tensor]:
        """[batch, (tokens)] int64, cut to at most so many tokens of which the last is [END]; and which were cut."""
        ids = self.raw.from_strings({self.data["text"]: texts})["source_ids"]
        truncated = ids.row_lengths() > most  # [batch]
        end = tf.fill([tf.shape(texts)[0], 1], tf.constant(TOKENS.end, ids.dtype))
        return tf.concat([ids[:, :-1][:, :most - 1], end], axis=1), truncated

    def _known(self, ids: tf.RaggedTensor) -> tf.Tensor:
        """How many tokens of each text the vocabulary knows, [batch] int64, [START] and [END] not counted."""
        return tf.reduce_sum(tf.cast(ids > max(*TOKENS.never, TOKENS.end), tf.int64), axis=1)

    def _search(self, ids: tf.RaggedTensor) -> Found:
        """The n best translations of [batch, (tokens)] ids; none of what is not known at all."""
        settings = self.decoding
        beams, n_best, alpha = settings["beams"], settings["n_best"], settings["length_penalty"]
        lengths = tf.cast(ids.row_lengths(), tf.int32)  # [batch]
        limits = tf.cast(tf.cast(lengths - 2, tf.float32) * settings["max_ratio"], tf.int32) + settings["max_extra"]
        limits = tf.where(self._known(ids) > 0, limits, 0)

        def search(rows: tf.Tensor) -> Found:
            cache = self.translator.start(tf.cast(tf.gather(ids, rows).to_tensor(), tf.int32))
            most = tf.gather(limits, rows)
            if beams == 1:
                return greedy(self.translator.step, cache, most, TOKENS, alpha)
            return beam_search(self.translator.step, cache, most, TOKENS, beams=beams, n_best=n_best, alpha=alpha)

        return in_groups(search, tf.where(limits > 0, lengths + beams * limits, 0), GROUP_TOKENS, n_best)


def _tokens(subwords: Subwords, ids: tf.Tensor) -> tf.Tensor:
    return tf.where(ids == subwords.pad_id, "", subwords.tokens(ids))


def export_translator(translator: Translator, vocabularies: Vocabularies, args: TrainArgs) -> None:
    """Writes the SavedModel with its four signatures and its manifest to `args.serving_dir`."""
    served, settings = ServedTranslator(translator, vocabularies, args), args.settings
    # As they came: what a tf.Module holds is wrapped, and JSON does not take it in every version of Python.
    export(served, served.signatures(), args.serving_dir, {
        "shape": "translation", **settings["data"], "inputs": input_names([settings["data"]["text"]]),
        "decoding": settings["decoding"], "max_tokens": settings["model"]["max_tokens"]})
