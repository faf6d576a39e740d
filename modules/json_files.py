"""JSON files that others wrote."""

import json
from pathlib import Path
from typing import Any

import tensorflow as tf

from modules.errors import TextrailError


def read_object(path: str | Path) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        path: the file; may be a URI.

    Returns:
        Its keys and values.

    Raises:
        TextrailError: there is no such file, or it has no JSON or no object in it.
    """
    try:
        with tf.io.gfile.GFile(str(path), "rb") as file:
            value = json.loads(file.read().decode("utf-8"))
    except (tf.errors.OpError, ValueError, RecursionError) as error:
        raise TextrailError(f"a JSON file at {path}", str(error), "Take the file that belongs to the weights.") \
            from error
    if not isinstance(value, dict):
        raise TextrailError(f"a JSON object in {path}", f"the {type(value).__name__} {str(value)[:40]!r}",
                            "Take the file that belongs to the weights.")
    return value
