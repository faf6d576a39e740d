"""What metrics are sliced by besides labels and columns: bands of length and, of pairs, of word overlap."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

import numpy as np

LENGTH, OVERLAP, LABEL = "length_band", "word_overlap", "label"
# Pairs that share their words and still differ are the hard ones: the overlap is also crossed with the label.
CROSSED = (OVERLAP, LABEL)
# The slice of rows whose slicing column is empty.
NO_VALUE = "(none)"


def bands(values: Iterable[int], ends: Sequence[int], least: int) -> list[str]:
    """Names the band of each value.

    With the ends 16 and 32 and the least value 1: 16 → "1-16", 17 → "17-32", 33 → ">32".

    Args:
        values: whole numbers.
        ends: upper ends of the bands, ascending; each belongs to its band.
        least: smallest value there is.
    """
    starts = [least, *(end + 1 for end in ends[:-1])]
    names = [f"{start}-{end}" for start, end in zip(starts, ends, strict=True)] + [f">{ends[-1]}"]
    return [names[band] for band in np.searchsorted(ends, list(values), side="left")]


def word_overlap(first: str, second: str) -> int:
    """Share of the words of two texts that stand in both, in percent, rounded up.

    Distinct words without regard to case count (Jaccard 1912): "The cat saw the dog" and "The dog slept" share 2 of
    5 words, 40.
    """
    words, others = (set(re.findall(r"\w+", text.casefold())) for text in (first, second))
    union = words | others
    return math.ceil(100 * len(words & others) / len(union)) if union else 0


def reading_order(name: str) -> tuple[bool, str, list[int], str]:
    """Sorts slices such as `word_overlap=26-50, label=no`: single ones before crossed ones, bands by their numbers."""
    parts = [part.partition("=") for part in name.split(", ")]
    # ">50" begins with 51.
    numbers = [int(digits) + value.startswith(">") for column, _, value in parts if column in (LENGTH, OVERLAP)
               for digits in re.findall(r"\d+", value)]
    return len(parts) > 1, ", ".join(column for column, _, _ in parts), numbers, name
