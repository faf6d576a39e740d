"""BERT's encoder (Devlin et al., 2018), read from the settings of its checkpoint and never assumed."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import tensorflow as tf

from modules.errors import TextrailError
from modules.json_files import read_object
from modules.transformer import ACTIVATIONS, AddNorm, Block, Dropout, Linear, RandomBytes, additive_mask

Pooling = Literal["cls", "mean"]
INPUTS = ("input_word_ids", "input_mask", "input_type_ids")   # each [batch, length] int32


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """The keys of HuggingFace's config.json that decide what a BERT computes; widths and lengths are counts."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    hidden_act: str
    layer_norm_eps: float
    initializer_range: float = 0.02  # deviation of new weights
    pad_token_id: int = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            least = {"float": 0.0, "int": 0 if field.name == "pad_token_id" else 1}.get(str(field.type))
            if least is None:
                continue
            number = isinstance(value, int) or (field.type == "float" and isinstance(value, float))
            if not number or isinstance(value, bool) or not least <= value < math.inf:   # JSON may hold NaN
                raise TextrailError(f"{field.name} in config.json to be {field.type} and at least {least}", repr(value),
                                    "Take the config.json that belongs to the weights.")
        if str(self.hidden_act) not in ACTIVATIONS:
            raise TextrailError(f"hidden_act in config.json to be one of {', '.join(ACTIVATIONS)}",
                                repr(self.hidden_act), "Take an encoder with one of these activations.")
        if self.hidden_size % self.num_attention_heads:
            raise TextrailError("hidden_size in config.json to be a multiple of num_attention_heads",
                                f"{self.hidden_size} and {self.num_attention_heads}",
                                "Take the config.json that belongs to the weights.")

    @classmethod
    def from_file(cls, path: str | Path) -> BertConfig:
        """Reads a config.json.

        Args:
            path: the file.

        Returns:
            The configuration.

        Raises:
            TextrailError: the file is missing or no JSON, a key is missing or wrong, or it describes another model.
        """
        return cls.from_values(read_object(path), path)

    @classmethod
    def from_values(cls, values: dict[str, Any], path: str | Path) -> BertConfig:
        """Picks the keys of a config.json that count.

        Args:
            values: of the file.
            path: the file, for errors.

        Returns:
            The configuration.

        Raises:
            TextrailError: a key is missing or wrong, or it describes another model.
        """
        # What would change the arithmetic below without changing the shape of any weight.
        for key, known in {"model_type": "bert", "position_embedding_type": "absolute", "is_decoder": False}.items():
            if values.get(key, known) != known:
                raise TextrailError(f"{key} {known!r} in {path}", repr(values[key]), "Take a BERT encoder.")
        missing = [field.name for field in dataclasses.fields(cls)
                   if field.default is dataclasses.MISSING and field.name not in values]
        if missing:
            raise TextrailError(f"the keys {', '.join(missing)} in {path}", "a file without them",
                                "Take the config.json that belongs to the weights.")
        return cls(**{field.name: values[field.name] for field in dataclasses.fields(cls) if field.name in values})

    def to_file(self, path: str | Path, labels: Sequence[str] = (), pooling: Pooling | None = None,
                architecture: str = "BertModel") -> None:
        """Writes a config.json that HuggingFace's classes load.

        Args:
            path: the file.
            labels: classes of a head on top.
            pooling: what the head sees. Over the mean it is that of `modules/modeling_textrail.py`, which transformers
                takes from beside the file.
            architecture: HuggingFace's class of what has no labels.
        """
        values: dict[str, Any] = {"architectures": [architecture], "model_type": "bert",
                                  "position_embedding_type": "absolute", **dataclasses.asdict(self)}
        if labels:
            own = pooling == "mean"
            kind = "BertMeanForSequenceClassification" if own else "BertForSequenceClassification"
            values |= {"architectures": [kind], "id2label": {str(i): label for i, label in enumerate(labels)},
                       "label2id": {label: i for i, label in enumerate(labels)},
                       "problem_type": "single_label_classification"}
            if own:
                values["auto_map"] = {"AutoModelForSequenceClassification": f"modeling_textrail.{kind}"}
        with tf.io.gfile.GFile(str(path), "wb") as file:
            file.write((json.dumps(values, indent=2, sort_keys=True) + "\n").encode("utf-8"))


class Embeddings(keras.layers.Layer):
    """The sum of word, position and segment embeddings, normed.

    Args:
        config: sizes.
        dropout: rate of dropping the result.
        seeds: the model's seed generator.
        **options: Keras's `name` and `dtype`.
    """

    def __init__(self, config: BertConfig, dropout: float, seeds: keras.random.SeedGenerator, **options: Any):
        super().__init__(**options)
        self.config = config

        def table(rows: int, name: str) -> Any:
            # Not cast as a whole in each step: only the rows looked up are.
            return self.add_weight(shape=(rows, config.hidden_size), name=name, autocast=False,
                                   initializer=keras.initializers.TruncatedNormal(stddev=config.initializer_range))

        self.words = table(config.vocab_size, "words")
        self.positions = table(config.max_position_embeddings, "positions")
        self.types = table(config.type_vocab_size, "types")
        self.norm = AddNorm(config.hidden_size, config.layer_norm_eps, name="norm", dtype=self.dtype_policy)
        self.dropout = Dropout(dropout, seeds, name="dropout", dtype=self.dtype_policy)
        self.built = True

    def call(self, word_ids: tf.Tensor, type_ids: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns [batch * length, hidden] from word_ids and type_ids, [batch, length] int32."""
        words = tf.gather(tf.convert_to_tensor(self.words), word_ids)  # [batch, length, hidden]
        positions = tf.convert_to_tensor(self.positions)[:tf.shape(word_ids)[1]]  # [length, hidden]
        # One-hot: a product with a table of two rows is cheaper to differentiate than a lookup in it.
        types = tf.one_hot(type_ids, self.config.type_vocab_size) @ tf.convert_to_tensor(self.types)
        total = tf.reshape(words + positions + types, [-1, self.config.hidden_size])  # [batch * length, hidden]
        return self.dropout(self.norm(tf.cast(total, self.compute_dtype), training=training), training=training)


class Bert(keras.Model):
    """BERT's encoder with its pooler.

    Args:
        config: sizes, activation and epsilon.
        dropout: rate in all places where BERT drops, attention probabilities included.
        seed: of dropout; none draws one from Keras's global seed.
        with_pooler: whether to have BERT's dense tanh layer over [CLS].
        **options: Keras's `name` and `dtype`.

    Raises:
        TextrailError: dropout is outside [0, 1).
    """

    def __init__(self, config: BertConfig, dropout: float = 0.1, seed: int | None = None, with_pooler: bool = True,
                 **options: Any):
        super().__init__(**options)
        self.config = config
        self.seeds = keras.random.SeedGenerator(seed)
        self.first_trained = 0  # the lowest block that trains; 0 trains the embeddings as well
        random, policy = RandomBytes(dropout, self.seeds), self.dtype_policy
        initializer = keras.initializers.TruncatedNormal(stddev=config.initializer_range)
        self.embeddings = Embeddings(config, dropout, self.seeds, name="embeddings", dtype=policy)
        self.blocks = [
            Block(config.hidden_size, config.num_attention_heads, config.intermediate_size, config.hidden_act,
                  config.layer_norm_eps, random, initializer.clone(), name=f"block_{index}", dtype=policy)
            for index in range(config.num_hidden_layers)]
        self.pooler = (Linear(config.hidden_size, config.hidden_size, initializer.clone(), name="pooler", dtype=policy)
                       if with_pooler else None)
        self.built = True

    def fine_tune(self, layers: Literal["all"] | int, pooling: Pooling) -> None:
        """Chooses what trains; call it before the training step is traced.

        What does not train keeps every bit, has no backward pass, and drops nothing: its output is the same in
        training as in serving.

        Args:
            layers: "all", or how many of the last blocks; fewer than all leaves the embeddings frozen too.
            pooling: "cls" trains the pooler; "mean" does not use it.

        Raises:
            TextrailError: there are not as many blocks.
        """
        blocks = len(self.blocks)
        count = blocks if layers == "all" else layers
        if not 0 <= count <= blocks:
            raise TextrailError(f"fine_tune_layers to be all or a number from 0 to {blocks}, the encoder's blocks",
                                f"{layers}", "Set model.fine_tune_layers to one of these.")
        self.first_trained = blocks - count
        self.embeddings.trainable = self.first_trained == 0
        for index, block in enumerate(self.blocks):
            block.trainable = index >= self.first_trained
        if self.pooler is not None:
            self.pooler.trainable = pooling == "cls"

    def __call__(self, inputs: dict[str, tf.Tensor], **options: Any) -> dict[str, tf.Tensor]:
        """See `call`; an error raised further in would come out as Keras's own."""
        length, limit = inputs["input_word_ids"].shape[1], self.config.max_position_embeddings
        if length is not None and length > limit:
            raise TextrailError(f"inputs of at most {limit} tokens, as many positions as the encoder has",
                                f"{length}", f"Set model.max_length to {limit} or less.")
        return super().__call__(inputs, **options)

    def call(self, inputs: dict[str, tf.Tensor], training: bool = False) -> dict[str, Any]:
        """Encodes token ids.

        Args:
            inputs: `input_word_ids`, `input_mask` (1 for tokens, 0 for padding) and `input_type_ids` (0 and 1 for
                the first and second text), each [batch, length] int32.
            training: whether to drop.

        Returns:
            `sequence_output` [batch, length, hidden] in the compute dtype, `encoder_outputs`, a list of the same of
            each block, and, with a pooler, `pooled_output` [batch, hidden].

        Raises:
            TextrailError: inputs are longer than the encoder has positions.
        """
        shape = tf.shape(inputs["input_word_ids"])
        mask = additive_mask(inputs["input_mask"], self.compute_dtype)  # [batch, 1, 1, length]
        x = self.embeddings(inputs["input_word_ids"], inputs["input_type_ids"],
                            training=training and self.first_trained == 0)  # [batch * length, hidden]
        outputs = []
        for index, block in enumerate(self.blocks):
            if index == self.first_trained > 0:
                x = tf.stop_gradient(x)
            x = block(x, mask, training=training and index >= self.first_trained)
            outputs.append(tf.reshape(x, [shape[0], shape[1], self.config.hidden_size]))  # [batch, length, hidden]
        sequence = outputs[-1]
        if self.first_trained == len(self.blocks):
            sequence = tf.stop_gradient(sequence)
        found: dict[str, Any] = {"sequence_output": sequence, "encoder_outputs": outputs}
        if self.pooler is not None:
            found["pooled_output"] = tf.tanh(self.pooler(sequence[:, 0]))
        return found


def pool(outputs: dict[str, tf.Tensor], input_mask: tf.Tensor, pooling: Pooling) -> tf.Tensor:
    """One vector for each text.

    The masked mean of the rows (1, 2), (3, 4), (9, 9) with the mask 1, 1, 0 is (2, 3).

    Args:
        outputs: of `Bert`.
        input_mask: [batch, length] int32.
        pooling: "cls" takes BERT's pooler, "mean" the mean of `sequence_output` over the tokens.

    Returns:
        [batch, hidden] float32.

    Raises:
        TextrailError: "cls" of an encoder without a pooler.
    """
    if pooling == "cls":
        if "pooled_output" not in outputs:
            raise TextrailError("an encoder with BERT's pooler", "one without the weights pooler.dense.*",
                                "Set model.pooling to mean.")
        return tf.cast(outputs["pooled_output"], tf.float32)
    mask = tf.cast(input_mask, tf.float32)[:, :, None]  # [batch, length, 1]
    total = tf.reduce_sum(tf.cast(outputs["sequence_output"], tf.float32) * mask, axis=1)  # [batch, hidden]
    return total / tf.maximum(tf.reduce_sum(mask, axis=1), 1)  # a row of padding has no tokens
