"""A pushed version in memory, with what its signatures take and give."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401  # registers the tokenizer's ops
from google import protobuf
from google.protobuf import json_format
from tensorflow.core.protobuf import saved_model_pb2

from components.calls import bounded_calls
from components.versions import read_manifest
from modules.errors import TextrailError
from pipelines.serving.errors import RestError, invalid
from pipelines.serving.tensors import DEFAULT_SIGNATURE

# Bytes of the texts in one call, the shorter ones filled up to the longest: bounds the memory.
CALL_BYTES = 16_384
# What a row costs however short its text is, in the same unit.
ROW_BYTES = 16
GRAPH = "saved_model.pb"
# One option, renamed between the versions of the two lines of the stack.
PRINT_DEFAULTS = ("including_default_value_fields" if int(protobuf.__version__.split(".")[0]) < 5
                  else "always_print_fields_with_no_presence")


class Model:
    """A version, loaded and asked once, so that nobody waits for the first call's preparations.

    Args:
        folder: of the version, local or a URI; its name is the number.

    Raises:
        TextrailError: it is no model of this project, or does not load.
    """

    def __init__(self, folder: str):
        self.number = int(os.path.basename(folder.rstrip("/")))
        self.manifest = read_manifest(folder)
        try:
            with tf.io.gfile.GFile(os.path.join(folder, GRAPH), "rb") as file:
                graph = saved_model_pb2.SavedModel.FromString(file.read()).meta_graphs[0]
            self._loaded = tf.saved_model.load(folder)   # its signatures live no longer than it does
        except Exception as error:
            raise TextrailError(f"a SavedModel that loads in {folder}", f"{type(error).__name__}: {error}",
                                "Push another version, or delete this one.") from error
        self.signature_def = {name: as_json(found) for name, found in sorted(graph.signature_def.items())}
        self._inputs = {name: [key for key, value in function.structured_input_signature[1].items()
                               if value.dtype == tf.string and value.shape.rank == 1]
                        for name, function in self._loaded.signatures.items()}
        self._shareable = {name: _is_shareable(function.structured_outputs)
                           for name, function in self._loaded.signatures.items()}
        self.ask(DEFAULT_SIGNATURE, {name: [b"a"] for name in self.inputs(DEFAULT_SIGNATURE)})

    @property
    def columns(self) -> list[str]:
        """Of the data, in the order in which `serving_default` reads them."""
        return [self.manifest[key] for key in ("text", "text_pair") if self.manifest.get(key)]

    def inputs(self, signature: str) -> list[str]:
        """Names of the inputs of a signature.

        Raises:
            RestError: there is no such signature.
        """
        if signature not in self._inputs:
            raise invalid(f'Serving signature name: "{signature}" not found in signature def')
        return self._inputs[signature]

    def is_shareable(self, signature: str) -> bool:
        """Whether an answer is the same whoever shares the call: its size depends on no other row's."""
        return self._shareable[signature]

    def size(self, signature: str, output: str, axis: int) -> int:
        """Of an axis of an output that depends on no row."""
        return self._loaded.signatures[signature].structured_outputs[output].shape[axis]

    def ask(self, signature: str, columns: Mapping[str, Sequence[bytes]]) -> dict[str, np.ndarray]:
        """Calls the model, as often as memory asks for.

        Args:
            signature: one of its own.
            columns: input → one string a row.

        Returns:
            Output → array, rows first, in their order. Strings are bytes.

        Raises:
            RestError: the model refuses the rows, or they are too many for one call of this signature.
        """
        rows = range(len(next(iter(columns.values()))))
        lengths = [ROW_BYTES + sum(len(column[row]) for column in columns.values()) for row in rows]
        calls = list(bounded_calls(lengths, CALL_BYTES))
        if len(calls) > 1 and not self.is_shareable(signature):
            raise RestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The signature {signature} answers at most "
                            f"{CALL_BYTES} bytes of text a request, {ROW_BYTES} added for each row and the shorter "
                            "ones filled up to the longest. Ask for fewer rows at a time.")
        answers = [self._call(signature, {name: [column[row] for row in call] for name, column in columns.items()})
                   for call in calls]
        order = np.argsort(np.concatenate(calls))
        return {name: np.concatenate([answer[name] for answer in answers])[order] for name in answers[0]}

    def _call(self, signature: str, columns: Mapping[str, Sequence[bytes]]) -> dict[str, np.ndarray]:
        try:
            outputs = self._loaded.signatures[signature](
                **{name: tf.constant(column, tf.string) for name, column in columns.items()})
        except tf.errors.ResourceExhaustedError as error:
            raise RestError(HTTPStatus.TOO_MANY_REQUESTS, error.message) from error
        except tf.errors.OpError as error:
            raise invalid(error.message) from error
        return {name: tensor.numpy() for name, tensor in outputs.items()}


def _is_shareable(outputs: Mapping[str, Any]) -> bool:
    return all(output.shape.rank and output.shape[1:].is_fully_defined() for output in outputs.values())


def as_json(message: Any) -> dict[str, Any]:
    """A protobuf message as TensorFlow Serving prints one: fields by their own names, those at their default too."""
    return json_format.MessageToDict(message, preserving_proto_field_name=True, **{PRINT_DEFAULTS: True})
