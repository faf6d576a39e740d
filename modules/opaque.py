"""A SavedModel taken as it is: an encoder of any architecture that has BERT's three inputs.

Where its variables have no place in our `Bert`, the whole SavedModel stands in its stead and is trained through the
functions that it was saved with. Its folder has, beside `vocab.txt` and `tokenizer_config.json`, the SavedModel in
`saved_model/` and a `config.json` of the model type "opaque" with the keys of `OpaqueConfig`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple

import keras
import tensorflow as tf

from modules.bert import INPUTS, Pooling
from modules.errors import TextrailError
from modules.tokenization import Vocabulary

SAVED_MODEL, CONFIG, OPAQUE = "saved_model", "config.json", "opaque"
# The inputs' names that are in use → ours.
INPUT_NAMES = {"input_word_ids": "input_word_ids", "input_ids": "input_word_ids",
               "input_mask": "input_mask", "attention_mask": "input_mask",
               "input_type_ids": "input_type_ids", "segment_ids": "input_type_ids", "token_type_ids": "input_type_ids"}
# Our outputs → the names in use, the first that is there counts, and the rank by which one without a name is known.
OUTPUTS = {"pooled_output": (("pooled_output", "pooler_output", "default"), 2),
           "sequence_output": (("sequence_output", "last_hidden_state"), 3)}
TOLERANCE = 1e-3   # of the largest number in an answer; sums in another order differ by far less
# What a function that was saved may raise when it is called with what it does not take.
CALL_ERRORS = (tf.errors.OpError, ValueError, TypeError)


@dataclasses.dataclass(frozen=True)
class OpaqueConfig:
    """What is known of a SavedModel's inside.

    Attributes:
        hidden_size: width of its outputs.
        vocab_size: wordpieces of its vocabulary.
        pad_token_id: id that fills what is too short for it.
        max_position_embeddings: the one length, in tokens, that its functions were traced for; none for any length,
            the longest of which nobody says.
        outputs: which of `pooled_output` and `sequence_output` it has, and with no regard to padding.
        parameters: numbers in its variables that train.
        initializer_range: deviation of new weights on top of it.
    """

    hidden_size: int
    vocab_size: int
    pad_token_id: int
    max_position_embeddings: int | None
    outputs: list[str]
    parameters: int
    initializer_range: float = 0.02

    @classmethod
    def read(cls, folder: str) -> OpaqueConfig:
        """Reads `config.json` of a folder that `write_opaque` wrote."""
        values = _read_config(folder)
        return cls(**{field.name: values[field.name] for field in dataclasses.fields(cls)})


def is_opaque(folder: str) -> bool:
    """Whether an encoder's folder holds a SavedModel taken as it is, and not a BERT in HuggingFace's layout."""
    return _read_config(folder).get("model_type") == OPAQUE


def _read_config(folder: str) -> dict[str, Any]:
    try:
        with tf.io.gfile.GFile(os.path.join(folder, CONFIG), "rb") as file:
            return json.loads(file.read().decode("utf-8"))
    except (tf.errors.OpError, ValueError) as error:
        raise TextrailError(f"a JSON file {CONFIG} in {folder}", str(error), "Import the encoder again.") from error


def write_opaque(saved_model: str, target: str, vocabulary: Vocabulary, max_length: int) -> None:
    """Checks a SavedModel by asking it, and writes an encoder's folder with it.

    Args:
        saved_model: its folder.
        target: the encoder's folder; created where missing.
        vocabulary: its wordpieces, the last of which it is asked, and their case.
        max_length: longest input, in tokens, that it will be asked.

    Raises:
        TextrailError: it is none, has other inputs or outputs than a BERT, does not answer, or its answers depend on
            the padding.
    """
    interface = Interface(load_saved_model(saved_model), saved_model)
    config = OpaqueConfig(0, len(vocabulary.pieces), vocabulary.pad_id, interface.length, [], 0)
    outputs = _sound_outputs(interface, config, max_length)
    config = dataclasses.replace(
        config, hidden_size=int(next(iter(outputs.values())).shape[-1]), outputs=sorted(outputs),
        parameters=sum(variable.shape.num_elements() for variable in interface.trainable_variables))
    for folder, _, names in tf.io.gfile.walk(saved_model):
        beside = os.path.join(target, SAVED_MODEL, os.path.relpath(folder, saved_model))
        tf.io.gfile.makedirs(beside)
        for name in names:
            tf.io.gfile.copy(os.path.join(folder, name), os.path.join(beside, name), overwrite=True)
    with tf.io.gfile.GFile(os.path.join(target, CONFIG), "w") as file:
        file.write(json.dumps({"model_type": OPAQUE, **dataclasses.asdict(config)}, indent=2, sort_keys=True) + "\n")
    vocabulary.write(target)


def load_saved_model(folder: str) -> Any:
    """Loads a SavedModel.

    Raises:
        TextrailError: there is none, or one of TensorFlow 1 with several graphs.
    """
    try:
        return tf.saved_model.load(folder)
    except (OSError, KeyError, *CALL_ERRORS) as error:
        raise TextrailError(f"a TensorFlow 2 SavedModel in {folder}", f"one that does not load ({_gist(error)})",
                            "Take the encoder's version for TensorFlow 2.") from error


class Function(NamedTuple):
    """A function that a SavedModel offers."""

    name: str
    call: Callable[..., Any]
    traces: list[Any]  # concrete functions: one for each kind of arguments that it was saved with

    def inputs(self) -> list[tuple[str, tf.TensorSpec]]:
        """Name and spec of the tensors that it takes, of all traces; a boolean one says whether it trains."""
        return [(name, spec) for trace in self.traces for name, spec in _leaves(trace.structured_input_signature)
                if spec.dtype != tf.bool]


def functions(loaded: Any) -> Iterator[Function]:
    """What may be the encoder, the best first.

    `__call__` of the reusable SavedModel interface, which Keras 2 writes too; `serve` of Keras 3's export; signatures.
    """
    if callable(loaded) and hasattr(loaded.__call__, "concrete_functions"):
        yield Function("__call__", loaded, loaded.__call__.concrete_functions)
    if hasattr(loaded, "serve"):
        yield Function("serve", loaded.serve, loaded.serve.concrete_functions)
    for name, signature in loaded.signatures.items():
        yield Function(name, signature, [signature])


class Interface:
    """How a SavedModel is called: the function that has BERT's inputs, and the arguments it was saved with.

    Where its arguments tell training from serving, training runs the one; otherwise it runs what serves.

    Args:
        loaded: what `tf.saved_model.load` gave.
        folder: it came from, for errors.

    Raises:
        TextrailError: no function has BERT's three inputs.
    """

    def __init__(self, loaded: Any, folder: str):
        found = list(functions(loaded))
        fitting = [one for one in found if {INPUT_NAMES.get(name, name) for name, _ in one.inputs()} == set(INPUTS)]
        if not fitting:
            others = [f"{one.name}({', '.join(sorted({name for name, _ in one.inputs()}))})" for one in found]
            raise TextrailError(f"a function with the inputs {', '.join(INPUTS)} in {folder}",
                                "; ".join(others) or "no function", "Take an encoder with BERT's three inputs.")
        self.folder, self.function = folder, fitting[0]
        lengths = [spec.shape[1] if spec.shape.rank == 2 else None for _, spec in self.function.inputs()]
        self.length: int | None = None if None in lengths else max(filter(None, lengths))
        self.variables = _unique(variable for trace in self.function.traces for variable in trace.variables)
        # Where the SavedModel lists what trains, its author's word counts.
        listed = {id(variable) for variable in getattr(loaded, "trainable_variables", self.variables)}
        self.trainable_variables = [variable for variable in self.variables
                                    if variable.trainable and id(variable) in listed]

    def __call__(self, inputs: dict[str, tf.Tensor], training: bool) -> dict[str, tf.Tensor]:
        """Calls the function under its own names, and gives its outputs under ours.

        Args:
            inputs: `input_word_ids`, `input_mask` and `input_type_ids`, each [batch, length] int32.
            training: whether to drop, where it can.

        Returns:
            `pooled_output` [batch, hidden] and `sequence_output` [batch, length, hidden], or the one of them that it
            has, in its own dtype.

        Raises:
            TextrailError: it has neither.
        """
        def filled(template: Any, key: str = "") -> Any:
            if isinstance(template, dict):
                return {name: filled(value, name) for name, value in template.items()}
            if isinstance(template, (list, tuple)):
                return type(template)(filled(value) for value in template)
            if not isinstance(template, tf.TensorSpec):
                return template
            if template.dtype == tf.bool:
                return tf.constant(training)
            return tf.cast(inputs[INPUT_NAMES[_name(template, key)]], template.dtype)

        args, kwargs = filled(self._arguments(training))
        return self._named(self.function.call(*args, **kwargs))

    def _arguments(self, training: bool) -> tuple[tuple, dict]:
        """The arguments of a trace for training or not; of any, where its arguments do not tell."""
        signatures = [trace.structured_input_signature for trace in self.function.traces]
        return next((one for one in signatures
                     if any(leaf is training for leaf in tf.nest.flatten(one))), signatures[0])

    def _named(self, outputs: Any) -> dict[str, tf.Tensor]:
        given = outputs if isinstance(outputs, dict) else {
            str(index): value for index, value in enumerate(tf.nest.flatten(outputs))}
        named = {}
        for ours, (names, rank) in OUTPUTS.items():
            like = [value for value in given.values() if isinstance(value, tf.Tensor) and value.shape.rank == rank]
            value = next((given[name] for name in names if name in given), like[0] if len(like) == 1 else None)
            if value is not None:
                named[ours] = value
        if not named:
            raise TextrailError(f"the output {' or '.join(OUTPUTS)} of {self.function.name} in {self.folder}",
                                ", ".join(given) or "nothing", "Take an encoder with one of BERT's outputs.")
        return named


def _leaves(signature: Any, key: str = "") -> Iterator[tuple[str, tf.TensorSpec]]:
    """Name and spec of each tensor among a function's arguments."""
    if isinstance(signature, dict):
        for name, value in signature.items():
            yield from _leaves(value, name)
    elif isinstance(signature, (list, tuple)):
        for value in signature:
            yield from _leaves(value)
    elif isinstance(signature, tf.TensorSpec):
        yield _name(signature, key), signature


def _name(spec: tf.TensorSpec, key: str) -> str:
    """A tensor's name: its key in a mapping, in a list the last part of its own."""
    return key or (spec.name or "").split("/")[-1].split(":")[0]


def _unique(variables: Iterable[tf.Variable]) -> list[tf.Variable]:
    return list({id(variable): variable for variable in variables}.values())


class OpaqueEncoder(tf.Module):
    """A SavedModel that stands where a `Bert` stands. It computes in its own precision and drops at its own rate.

    Args:
        folder: written by `write_opaque`.
        seed: of the layers on top of it; its own draws are not ours to seed.
    """

    def __init__(self, folder: str, seed: int | None = None):
        super().__init__(name="opaque")
        self.config = OpaqueConfig.read(folder)
        self.seeds = keras.random.SeedGenerator(seed)
        self.loaded = load_saved_model(os.path.join(folder, SAVED_MODEL))  # kept, so that it is saved with the model
        self.interface = Interface(self.loaded, folder)
        self.trained: list[tuple[str, tf.Variable]] = []  # name and variable; several may share a name
        self.state: list[tf.Variable] = []  # what else may change while training

    def fine_tune(self, layers: Literal["all"] | int, pooling: Pooling, max_length: int) -> None:
        """Chooses what trains, and asks for an answer and its gradient, as training will.

        Args:
            layers: "all", or 0 for none.
            pooling: which output the head sees.
            max_length: longest input in tokens.

        Raises:
            TextrailError: it has no layers to choose from, lacks the output, is too short, or cannot be trained.
        """
        if layers not in ("all", 0):
            raise TextrailError("model.fine_tune_layers to be all or 0 with encoder.opaque, whose layers nobody knows",
                                f"{layers}", "Set model.fine_tune_layers to one of these.")
        output = {"cls": "pooled_output", "mean": "sequence_output"}[pooling]
        if output not in self.config.outputs:
            raise TextrailError(f"an encoder with a {output} that heeds its mask, for model.pooling={pooling}",
                                f"one with {' and '.join(self.config.outputs)} alone",
                                f"Set model.pooling to {'mean' if pooling == 'cls' else 'cls'}.")
        variables = self.interface.trainable_variables if layers == "all" else []

        def ask() -> list[bool]:
            with tf.GradientTape() as tape:
                answer = _asked(self.interface, self.config, max_length)[output]
            return [gradient is not None for gradient in tape.gradient(answer, variables)]

        # What was loaded under a strategy answers to a replica alone.
        has_gradient = tf.distribute.get_strategy().run(ask)
        if layers == 0:
            return
        self.trained = [(variable.name.split(":")[0], variable)
                        for variable, has_one in zip(variables, has_gradient, strict=True) if has_one]
        if not self.trained:
            raise TextrailError(f"variables that train behind {self.interface.function.name} of the SavedModel",
                                f"{len(self.interface.variables)} variables, none of which does",
                                "Set model.fine_tune_layers=0 to train a head on its answers, or take a SavedModel "
                                "that was saved for fine-tuning.")
        trained = {id(variable) for _, variable in self.trained}
        self.state = [variable for variable in self.interface.variables if id(variable) not in trained]

    def take_weights(self, other: OpaqueEncoder) -> None:
        """Copies the variables of another one from the same folder."""
        for ours, theirs in zip(self.interface.variables, other.interface.variables, strict=True):
            ours.assign(theirs)

    def __call__(self, inputs: dict[str, tf.Tensor], training: bool = False) -> dict[str, tf.Tensor]:
        """Encodes token ids; see `Bert.call`, whose arguments and outputs these are.

        Raises:
            TextrailError: inputs are longer than the one length that it takes.
        """
        outputs = _padded(self.interface, self.config, inputs, training and bool(self.trained))
        return outputs if self.trained else {name: tf.stop_gradient(value) for name, value in outputs.items()}


def _padded(interface: Interface, config: OpaqueConfig, inputs: dict[str, tf.Tensor], training: bool
            ) -> dict[str, tf.Tensor]:
    """Calls it with inputs brought to the one length that it takes, if it does."""
    limit = config.max_position_embeddings
    if limit is None:
        return interface(inputs, training)
    length = inputs["input_word_ids"].shape[1]
    if length is not None and length > limit:
        raise TextrailError(f"inputs of at most {limit} tokens, which the SavedModel was saved for", f"{length}",
                            f"Set model.max_length to {limit} or less.")
    tokens = tf.shape(inputs["input_word_ids"])[1]
    fill = {"input_word_ids": config.pad_token_id}
    padded = {name: tf.ensure_shape(tf.pad(value, [[0, 0], [0, limit - tokens]], constant_values=fill.get(name, 0)),
                                    [None, limit]) for name, value in inputs.items()}  # [batch, limit]
    outputs = interface(padded, training)
    if "sequence_output" in outputs:
        outputs["sequence_output"] = outputs["sequence_output"][:, :tokens]  # [batch, length, hidden]
    return outputs


def _sound_outputs(interface: Interface, config: OpaqueConfig, length: int) -> dict[str, tf.Tensor]:
    """Its outputs that are the same whatever a text is padded to: batches pad, and a text asked alone is not padded.

    Raises:
        TextrailError: none is, or see `_asked`.
    """
    tokens = length // 2
    alone, padded = _asked(interface, config, tokens), _asked(interface, config, tokens, padding=length - tokens)
    sound = {}
    for name, value in padded.items():
        value = value[:, :tokens] if name == "sequence_output" else value
        difference = tf.reduce_max(tf.abs(value - alone[name]))
        if difference <= TOLERANCE * tf.reduce_max(tf.abs(value)):
            sound[name] = padded[name]
    if not sound:
        raise TextrailError(f"answers of {interface.folder} that padding with input_mask 0 does not change",
                            f"{' and '.join(padded)} that it does change", "Take an encoder that heeds its mask.")
    return sound


def _asked(interface: Interface, config: OpaqueConfig, tokens: int, padding: int = 0) -> dict[str, tf.Tensor]:
    """Its answer to two texts of the vocabulary's last wordpiece.

    Raises:
        TextrailError: it does not answer, or with other shapes than a BERT's.
    """
    length = tokens + padding
    mask = tf.repeat([[1, 0]], [tokens, padding], axis=1) * [[1], [1]]  # [2, length]
    ids = mask * (config.vocab_size - 1) + (1 - mask) * config.pad_token_id
    inputs = {"input_word_ids": ids, "input_mask": mask, "input_type_ids": mask}
    try:
        outputs = _padded(interface, config, inputs, training=False)
    except CALL_ERRORS as error:
        raise TextrailError(
            f"an answer of {interface.folder} to {length} tokens with the ids of {config.vocab_size} wordpieces",
            _gist(error), "Set model.max_length to what the encoder was made for, and take its own vocabulary.",
        ) from error
    for name, value in outputs.items():
        shape = [2, "hidden"] if name == "pooled_output" else [2, length, "hidden"]
        if value.shape.rank != len(shape) or value.shape[:-1] != shape[:-1]:
            raise TextrailError(f"{name} of the shape {shape} from {interface.folder}", f"{list(value.shape)}",
                                "Take an encoder with BERT's outputs.")
    return outputs


def _gist(error: Exception) -> str:
    """The one line of an error of TensorFlow's that says what is wrong: an operation's last, a call's first."""
    lines = [line for line in str(error).splitlines() if line.strip() and "[[{{" not in line]
    line = (lines or [type(error).__name__])[-1 if isinstance(error, tf.errors.OpError) else 0]
    return re.sub(r"\{\{.*?\}\}", "", line).strip()
