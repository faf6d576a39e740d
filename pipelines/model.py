"""A pushed version in memory, with what its signatures take and give.

It is loaded as TensorFlow Serving loads it, the graph in a session: what `tf.saved_model.load` makes of a model keeps
its memory after the last reference to it is gone, 160 MB of each version of MiniLM, and a server sees many of them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401  # registers the tokenizer's ops
from google import protobuf
from google.protobuf import json_format

from components.calls import bounded_calls
from modules.errors import TextrailError
from modules.manifest import DEFAULT_SIGNATURE
from pipelines.described import Described

# Bytes of the texts in one call, the shorter ones filled up to the longest: bounds the memory.
CALL_BYTES = 16_384
# What a row costs however short its text is, in the same unit.
ROW_BYTES = 16
# One option, renamed between the versions of the two lines of the stack.
PRINT_DEFAULTS = ("including_default_value_fields" if int(protobuf.__version__.split(".")[0]) < 5
                  else "always_print_fields_with_no_presence")


class Model(Described):
    """A version, loaded and asked once, so that nobody waits for the first call's preparations.

    Args:
        folder: of the version, local or a URI; its name is the number.

    Attributes:
        number: of the version.
        signature_def: signature → what TensorFlow Serving tells of it.

    Raises:
        TextrailError: it is no model of this project, does not load, or does not answer.
    """

    def __init__(self, folder: str):
        super().__init__(folder)
        self.number = int(os.path.basename(folder.rstrip("/")))
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph)
        try:
            with graph.as_default():
                loaded = tf.compat.v1.saved_model.loader.load(self._session, ["serve"], folder)
        except Exception as error:
            raise TextrailError(f"a SavedModel that loads in {folder}", f"{type(error).__name__}: {error}",
                                "Push another version, or delete this one.") from error
        self._signatures = {name: found for name, found in sorted(loaded.signature_def.items()) if found.inputs}
        self.signature_def = {name: as_json(found) for name, found in sorted(loaded.signature_def.items())}
        try:
            self.ask(DEFAULT_SIGNATURE, {name: [b"a"] for name in self.names})
        except tf.errors.OpError as error:
            raise TextrailError(f"a model that answers in {folder}", in_short(error),
                                "Push another version, or delete this one.") from error

    @property
    def signatures(self) -> list[str]:
        """Those that can be asked: `signature_def` also tells of one that prepares the graph."""
        return list(self._signatures)

    def inputs(self, signature: str) -> list[str]:
        """Names of the inputs of a signature."""
        return sorted(self._signatures[signature].inputs)

    def shapes(self, signature: str) -> dict[str, tf.TensorShape]:
        """Output of a signature → its shape, None where a size depends on the rows."""
        return {name: tf.TensorShape(output.tensor_shape)
                for name, output in sorted(self._signatures[signature].outputs.items())}

    def is_shareable(self, signature: str) -> bool:
        """Whether an answer is the same whoever shares the call.

        It is where an output has as many values for each row, or a list for each row, which is as long as the longest
        and filled up with 0 or "".
        """
        return all(shape.rank and shape[0] is None and shape[2:].is_fully_defined()
                   for shape in self.shapes(signature).values())

    def ask(self, signature: str, columns: Mapping[str, Sequence[bytes]]) -> dict[str, np.ndarray]:
        """Calls the model, as often as memory asks for.

        Args:
            signature: one of its own.
            columns: input → one string a row.

        Returns:
            Output → array, rows first, in their order. Strings are bytes.

        Raises:
            TextrailError: the rows are too many for one call of a signature whose answers do not fit together.
            tf.errors.OpError: the model refuses the rows.
        """
        rows = range(len(next(iter(columns.values()))))
        lengths = [ROW_BYTES + sum(len(column[row]) for column in columns.values()) for row in rows]
        calls = list(bounded_calls(lengths, CALL_BYTES))
        if len(calls) > 1 and not self.is_shareable(signature):
            raise TextrailError(f"at most {CALL_BYTES} bytes of text for the signature {signature}, {ROW_BYTES} added "
                                "for each row and the shorter ones filled up to the longest",
                                f"{len(rows)} rows with {max(lengths)} bytes in the longest", "Ask for fewer.")
        answers = [self._call(signature, {name: [column[row] for row in call] for name, column in columns.items()})
                   for call in calls]
        order = np.argsort(np.concatenate(calls))
        return {name: _joined([answer[name] for answer in answers])[order] for name in answers[0]}

    def trimmed(self, signature: str, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs of some rows of a call without what only the call's other rows were filled up for."""
        shapes = self.shapes(signature)
        lists = [name for name, shape in shapes.items() if shape.rank and shape.rank > 1 and shape[1] is None]
        return {name: _trimmed(values) if name in lists else values for name, values in outputs.items()}

    def close(self) -> None:
        """Gives the memory back; nothing can be asked any more."""
        self._session.close()

    def _call(self, signature: str, columns: Mapping[str, Sequence[bytes]]) -> dict[str, np.ndarray]:
        found = self._signatures[signature]
        return self._session.run({name: found.outputs[name].name for name in sorted(found.outputs)},
                                 {found.inputs[name].name: column for name, column in columns.items()})


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The rows of several calls, lists filled up to the longest of all: [rows, longest, …]."""
    if len(parts) == 1 or parts[0].ndim == 1:
        return np.concatenate(parts)
    longest = max(part.shape[1] for part in parts)
    return np.concatenate([np.pad(part, [(0, 0), (0, longest - part.shape[1]), *[(0, 0)] * (part.ndim - 2)],
                                  constant_values=_blank(part)) for part in parts])


def _trimmed(values: np.ndarray) -> np.ndarray:
    """Lists [rows, length, …] that end where the longest does."""
    said = (values != _blank(values)).any(axis=tuple(axis for axis in range(values.ndim) if axis != 1))  # [length]
    return values[:, :int(said.nonzero()[0].max(initial=-1)) + 1]


def _blank(values: np.ndarray) -> Any:
    return b"" if values.dtype.kind in "OS" else 0


def in_short(error: tf.errors.OpError) -> str:
    """What a model said instead of answering, without the graph's nodes."""
    return error.message.removeprefix("Graph execution error:").strip().partition("\n")[0]


def as_json(message: Any) -> dict[str, Any]:
    """A protobuf message as TensorFlow Serving prints one: fields by their own names, those at their default too."""
    return json_format.MessageToDict(message, preserving_proto_field_name=True, **{PRINT_DEFAULTS: True})
