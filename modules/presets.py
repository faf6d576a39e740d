"""The sizes in which a BERT is pretrained. Standard library only: settings are checked with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from modules.errors import TextrailError

# Turc et al., "Well-Read Students Learn Better" (arXiv:1908.08962), table 1: blocks and width. A head is 64 wide, the
# feed-forward four times as wide as the model.
PRESETS = {"tiny": (2, 128), "mini": (4, 256), "small": (4, 512), "base": (12, 768)}


class Sizes(NamedTuple):
    """What a new BERT is built of.

    Attributes:
        layers: blocks.
        hidden_size: width of embeddings and blocks.
        num_heads: attention heads in a block.
        inner_size: width of the feed-forward layers.
        positions: longest input in tokens.
    """

    layers: int
    hidden_size: int
    num_heads: int
    inner_size: int
    positions: int

    @classmethod
    def of(cls, model: Mapping[str, Any]) -> Sizes:
        """Those of the section `model` of the settings.

        Args:
            model: `preset` is a key of `PRESETS`; any field of this class, where it is there and not None, takes the
                place of the preset's.

        Raises:
            TextrailError: there is no such preset.
        """
        if (name := model.get("preset", "mini")) not in PRESETS:
            raise TextrailError(f"model.preset to be one of {', '.join(PRESETS)}", repr(name),
                                "Set model.preset=mini, say.")
        own = {key: model[key] for key in cls._fields if model.get(key) is not None}
        layers, width = PRESETS[name]
        hidden = own.get("hidden_size", width)
        return cls(**{"layers": layers, "hidden_size": hidden, "num_heads": max(hidden // 64, 1),
                      "inner_size": 4 * hidden, "positions": 512} | own)
