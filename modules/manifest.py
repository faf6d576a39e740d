"""Where a SavedModel of this project says what it is, beside its signatures."""

import re
from collections.abc import Sequence

MANIFEST = "assets.extra/textrail.json"
# Beside it, a folder that says what its encoder is: config.json, vocab.txt, tokenizer_config.json. Of a pretrained
# encoder that was pushed, model.safetensors makes it one that transformers loads.
DESCRIPTION = "assets.extra/encoder"
# Of the same, SavedModels of encoder and preprocessing as TF Hub has them.
TFHUB = "assets.extra/tfhub"
# The signature that takes plain strings, and that model servers ask where a request names none.
DEFAULT_SIGNATURE = "serving_default"


def input_names(columns: Sequence[str]) -> list[str]:
    """What the inputs of `serving_default` are called: as the text columns are, unless TensorFlow would rename one.

    Example:
        >>> input_names(["question", "answer"])
        ['question', 'answer']
        >>> input_names(["#1 String", "#2 String"])
        ['text', 'text_pair']
    """
    plain = all(re.fullmatch("[A-Za-z][A-Za-z0-9_]*", column) and column != "self" for column in columns)
    if plain and len({column.lower() for column in columns}) == len(columns):
        return list(columns)
    return ["text", "text_pair"][:len(columns)]
