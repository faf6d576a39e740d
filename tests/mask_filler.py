"""A real, small SavedModel of a pretrained encoder, whose answers are known."""

import math
from pathlib import Path

SHARES = {"good": 0.5, "great": 0.25, "bad": 0.125}   # What it says behind every mask.
MAX_LENGTH = 16


def make_mask_filler(folder: Path, encoder: Path, text: str = "text") -> Path:
    """Writes the model into `folder`: it says the words of `SHARES`, whatever stands around a mask.

    Args:
        folder: a new one.
        encoder: of the fixture `tiny_encoder`.
        text: column of the data.
    """
    import numpy as np

    from modules.mask_filling import export_pretrainer
    from modules.pretrainer import build_pretrainer
    from modules.tokenization import Vocabulary

    vocabulary = Vocabulary.read(encoder)
    model, _ = build_pretrainer({"seed": 1, "model": {"dropout": 0.0}}, vocabulary, "float32", str(encoder))
    model.norm.gamma.assign(np.zeros(model.norm.gamma.shape))   # Nothing but the bias is left of the scores.
    model.norm.beta.assign(np.zeros(model.norm.beta.shape))
    rest = (1 - sum(SHARES.values())) / (len(vocabulary.pieces) - len(SHARES))
    model.projection.bias.assign([math.log(SHARES.get(piece, rest)) for piece in vocabulary.pieces])
    export_pretrainer(model, str(folder), MAX_LENGTH, top=len(SHARES), text=text)
    return folder
