"""JSON of TensorFlow Serving's predict API, read into columns of strings and written from the model's outputs.

Format: https://www.tensorflow.org/tfx/serving/api_rest. Every input of our models is a string for each row, so that is
what is read; outputs may be anything.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from modules.manifest import DEFAULT_SIGNATURE
from pipelines.serving.errors import invalid

SHOWN = 200   # Characters of a wrong value that an error repeats.


class Request(NamedTuple):
    """The body of a predict request.

    Attributes:
        signature: its name.
        by_row: whether it came as `instances`, which are answered by `predictions`; otherwise as `inputs`.
        values: of `instances` or `inputs`, as they came.
    """

    signature: str
    by_row: bool
    values: Any


def read_request(body: bytes) -> Request:
    """Takes a body apart.

    Raises:
        RestError: it is no JSON object, or has not one of `instances` and `inputs`.
    """
    try:
        document = json.loads(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise invalid(f"JSON Parse error: Invalid encoding in string. at offset: {error.start}") from error
    except json.JSONDecodeError as error:
        raise invalid(f"JSON Parse error: {error.msg} at offset: {error.pos}") from error
    except RecursionError as error:
        raise invalid("JSON Parse error: Nested too deeply") from error
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {_shown(document)} Is not object")
    signature = document.get("signature_name", "")
    if not isinstance(signature, str):
        raise invalid(f"JSON Value: {_shown(document)} not formatted correctly. 'signature_name' key must be a string "
                      "value.")
    named = [key for key in ("instances", "inputs") if key in document]
    if not named:
        raise invalid("Missing 'inputs' or 'instances' key")
    if len(named) == 2:
        raise invalid(f"JSON Value: {_shown(document)} Not formatted correctly expecting only one of 'inputs' or "
                      "'instances' keys to exist ")
    return Request(signature or DEFAULT_SIGNATURE, named == ["instances"], document[named[0]])


def read_columns(request: Request, names: Sequence[str]) -> dict[str, list[bytes]]:
    """The rows of a request by column.

    Example:
        >>> read_columns(Request("serving_default", True, ["o gato", {"b64": "YQ=="}]), ["pt"])
        {'pt': [b'o gato', b'a']}
        >>> read_columns(Request("serving_default", False, {"a": ["x"], "b": ["y"]}), ["a", "b"])
        {'a': [b'x'], 'b': [b'y']}

    Args:
        request: of `read_request`.
        names: inputs of its signature.

    Returns:
        Input → one string for each row, UTF-8 or whatever came as base64; of all inputs as many.

    Raises:
        RestError: the values are not of this form; the row or the input is named.
    """
    return (_of_rows if request.by_row else _of_columns)(request.values, sorted(names))


def _of_rows(rows: Any, names: Sequence[str]) -> dict[str, list[bytes]]:
    if not isinstance(rows, list):
        raise invalid(f"JSON Value: {_shown(rows)} Excepting 'instances' to be an list/array")
    if not rows:
        raise invalid("JSON Value: [] No values in 'instances' array")
    by_name = isinstance(rows[0], dict) and not _is_base64(rows[0])
    if not by_name and len(names) > 1:
        raise invalid("instances is a plain list, but expecting list of objects as multiple input tensors required as "
                      "per tensorinfo_map")
    columns: dict[str, list[bytes]] = {name: [] for name in names}
    for number, row in enumerate(rows):
        if by_name != (isinstance(row, dict) and not _is_base64(row)):
            raise invalid(f"Expecting {'object' if by_name else 'value/list'} but got "
                          f"{'list' if by_name else 'object'} at item {number} of input list")
        values = row if by_name else {names[0]: row}
        for name in values:
            if name not in columns:
                raise invalid(f"Failed to process element: {number} key: {name} of 'instances' list. Error: "
                              f"INVALID_ARGUMENT: JSON object: does not have named input: {name}")
        if len(values) < len(names):
            raise invalid(f"Failed to process element: {number} of 'instances' list. JSON object: {_shown(row)} keys "
                          f"must be equal to: {','.join(names)}")
        for name, value in values.items():
            key = f" key: {name}" if by_name else ""
            columns[name].append(_string(value, f"Failed to process element: {number}{key} of 'instances' list. "
                                                "Error: INVALID_ARGUMENT: "))
    return columns


def _of_columns(values: Any, names: Sequence[str]) -> dict[str, list[bytes]]:
    if not isinstance(values, dict) or _is_base64(values):
        if len(names) > 1:
            raise invalid("inputs is a plain value/list, but expecting an object as multiple input tensors required as "
                          "per tensorinfo_map")
        values = {names[0]: values}
    columns = {}
    for name in names:
        if name not in values:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
        if not isinstance(values[name], list):
            raise invalid(f"JSON Value: {_shown(values[name])} for the input {name}, which is a list of strings, one "
                          "a row")
        columns[name] = [_string(value, "") for value in values[name]]
    if len({len(column) for column in columns.values()}) > 1:
        raise invalid("Batching Run() input tensors must have equal 0th-dimension size")
    if not columns[names[0]]:
        raise invalid("JSON Value: [] No values in 'inputs'")
    return columns


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and list(value) == ["b64"] and isinstance(value["b64"], str)


def _string(value: Any, where: str) -> bytes:
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError as error:   # half of a pair, which JSON can write and UTF-8 cannot
            raise invalid(f"{where}JSON Parse error: The surrogate pair in string is invalid.") from error
    if _is_base64(value):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (binascii.Error, ValueError) as error:
            raise invalid(f"{where}Unable to base64 decode") from error
    if isinstance(value, dict):
        raise invalid(f"{where}JSON Value: {_shown(value)} not formatted correctly for base64 data")
    if isinstance(value, list):
        raise invalid(f"{where}Encountered list at unexpected level: 1 expected < 1")
    kinds = {bool: "True" if value else "False", int: "Number", float: "Number", type(None): "Null"}
    raise invalid(f"{where}JSON Value: {_shown(value)} Type: {kinds[type(value)]} is not of expected type: string")


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def write_response(outputs: Mapping[str, np.ndarray], by_row: bool) -> bytes:
    """The body that answers a request.

    Example:
        >>> write_response({"score": np.float32([0.9]), "label": np.array([b"pos"])}, by_row=True)
        b'{"predictions": [{"score": 0.9, "label": "pos"}]}'
        >>> write_response({"score": np.float32([0.9])}, by_row=False)
        b'{"outputs": [0.9]}'

    Args:
        outputs: name → values, rows first.
        by_row: whether the request had `instances`.

    Returns:
        JSON. A single output stands without its name. Strings of an output whose name ends with `_bytes` are
        `{"b64": …}`.
    """
    columns = {name: _plain(name, values) for name, values in outputs.items()}
    single = next(iter(columns.values())) if len(columns) == 1 else None
    if not by_row:
        return _json({"outputs": columns if single is None else single})
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    return _json({"predictions": list(rows) if single is None else single})


def _plain(name: str, values: np.ndarray) -> Any:
    """An array as JSON has it, nested lists of what Python knows."""
    if values.dtype.kind in "OS":
        return _strings(values.tolist(), name.endswith("_bytes"))
    if values.dtype == np.float32:
        # The shortest decimal that is this number, not the many digits that it has as a double.
        return values.astype("U").astype(np.float64).tolist()
    return values.tolist()


def _strings(values: Any, as_bytes: bool) -> Any:
    if isinstance(values, list):
        return [_strings(value, as_bytes) for value in values]
    return {"b64": base64.b64encode(values).decode()} if as_bytes else values.decode("utf-8", "replace")


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
