"""What models answer, by their shape: as Python has it, as columns of a file, and as a line for a person."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

# As `modules.mask_filling` has it, which could not be imported without TensorFlow.
MASK = "[MASK]"

Values = Sequence[str | float]   # Of one column for one row: one, none where there is nothing, or one for each mask.


class Prediction(NamedTuple):
    """A classifier's answer to one text.

    Attributes:
        label: the most probable class.
        score: its probability.
        scores: class → probability.
    """

    label: str
    score: float
    scores: dict[str, float]


class Translated(NamedTuple):
    """A translator's answer to one text.

    Attributes:
        translation: the best one.
        score: its log probability in nats, divided by the length penalty.
        n_best: up to as many as `decoding.n_best` of the run says, the best first, each with `translation` and `score`.
        truncated: whether the model read only the beginning of the text.
    """

    translation: str
    score: float
    n_best: list[dict[str, Any]]
    truncated: bool


class Filled(NamedTuple):
    """A pretrained encoder's answer to one text.

    Attributes:
        filled: the text with the likeliest word in the place of each [MASK] that the model read.
        masks: of each of those, in the order of the text, `words`, the likeliest first, and their `probabilities`.
            What begins with "##" goes on the word before it.
        truncated: whether the model read only the beginning of the text.
    """

    filled: str
    masks: list[dict[str, Any]]
    truncated: bool


class Answers(Protocol):
    """How the answers of one model are read and shown.

    Attributes:
        what: they are, in the plural.
        columns: names of those that a file gets.
    """

    what: str
    columns: list[str]

    def read(self, outputs: Mapping[str, Any], rows: Sequence[Sequence[str]]) -> Iterator[Any]:
        """The answers in outputs of `serving_default`, one for each of the rows of texts that it was asked."""

    def values(self, answer: Any) -> list[Values]:
        """The values of each of `columns`."""

    def line(self, answer: Any, texts: Sequence[str]) -> str:
        """What a person is told of the answer to some texts."""

    def cut(self, answer: Any) -> str:
        """Why the answer is not to the whole text, as the end of a sentence about it; empty if it is."""


class Predictions:
    """Of a classifier."""

    what = "labels"

    def __init__(self, manifest: Mapping[str, Any]):
        self._classes = list(manifest["classes"])
        self._width = max(map(len, self._classes))
        self.columns = ["label", "score", *self._classes]

    def read(self, outputs: Mapping[str, Any], rows: Sequence[Sequence[str]]) -> Iterator[Prediction]:
        for label, score, scores, classes in zip(
                outputs["label"], outputs["score"], outputs["scores"], outputs["classes"], strict=True):
            by_class = {name.decode(): float(value) for name, value in zip(classes, scores, strict=True)}
            yield Prediction(label.decode(), float(score), by_class)

    def values(self, answer: Prediction) -> list[Values]:
        return [[answer.label], [answer.score], *([answer.scores[name]] for name in self._classes)]

    def line(self, answer: Prediction, texts: Sequence[str]) -> str:
        return f"{answer.label:<{self._width}}  {answer.score:>6.1%}  {_shortened(' | '.join(texts))}"

    def cut(self, answer: Prediction) -> str:
        return ""


class Translations:
    """Of a translator."""

    what = "translations"

    def __init__(self, manifest: Mapping[str, Any]):
        self._longest, n_best = manifest["decoding"]["max_source_tokens"], manifest["decoding"]["n_best"]
        numbers = ["", *(f"_{place}" for place in range(2, n_best + 1))]
        self.columns = [f"{name}{number}" for number in numbers for name in ("translation", "score")]

    def read(self, outputs: Mapping[str, Any], rows: Sequence[Sequence[str]]) -> Iterator[Translated]:
        for translations, scores, truncated in zip(
                outputs["translations"], outputs["scores"], outputs["truncated"], strict=True):
            # Where the search found fewer, the rest has no text and a score below all others.
            pairs = enumerate(zip(translations, scores, strict=True))
            n_best = [{"translation": said.decode(), "score": float(score)} for place, (said, score) in pairs
                      if said or place == 0]
            yield Translated(**n_best[0], n_best=n_best, truncated=bool(truncated))

    def values(self, answer: Translated) -> list[Values]:
        found: list[Values] = [[value] for one in answer.n_best for value in (one["translation"], one["score"])]
        return found + [[]] * (len(self.columns) - len(found))

    def line(self, answer: Translated, texts: Sequence[str]) -> str:
        """The translation and nothing else; of several each with its score, a line for each."""
        if len(answer.n_best) == 1:
            return answer.translation
        return "\n".join(f"{one['score']:8.4f}  {one['translation']}" for one in answer.n_best)

    def cut(self, answer: Translated) -> str:
        return f"longer than the {self._longest} tokens that the model reads: its end is not translated" \
            if answer.truncated else ""


class Fillings:
    """Of a pretrained encoder."""

    what = "words for their masks"

    def __init__(self, manifest: Mapping[str, Any]):
        self._longest = manifest["max_length"] - 2   # [CLS] and [SEP]
        numbers = ["", *(f"_{place}" for place in range(2, manifest["top"] + 1))]
        self.columns = ["filled", *(f"{name}{number}" for number in numbers for name in ("words", "probabilities"))]

    def read(self, outputs: Mapping[str, Any], rows: Sequence[Sequence[str]]) -> Iterator[Filled]:
        for words, probabilities, count, truncated, (text,) in zip(
                outputs["words"], outputs["probabilities"], outputs["counts"], outputs["truncated"], rows, strict=True):
            masks = [{"words": [word.decode() for word in some], "probabilities": [float(value) for value in values]}
                     for some, values in zip(words[:count], probabilities[:count], strict=True)]
            yield Filled(fill(text, [mask["words"][0] for mask in masks]), masks, bool(truncated))

    def values(self, answer: Filled) -> list[Values]:
        """The text; then the likeliest words of all masks and their probabilities, and so on for each place."""
        found: list[Values] = [[answer.filled]]
        for place in range(len(self.columns) // 2):
            found += [[mask[key][place] for mask in answer.masks] for key in ("words", "probabilities")]
        return found

    def line(self, answer: Filled, texts: Sequence[str]) -> str:
        """The text with its best words, then a line for each mask with all that are told."""
        numbers = [""] if len(answer.masks) == 1 else [f" {number}" for number in range(1, len(answer.masks) + 1)]
        rows = [[MASK + number, *(f"{word} {value:.1%}" for word, value in zip(*mask.values(), strict=True))]
                for number, mask in zip(numbers, answer.masks, strict=True)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        return "\n  ".join([" ".join(answer.filled.split()), *lines])

    def cut(self, answer: Filled) -> str:
        if not answer.masks and MASK not in answer.filled:
            return f"without {MASK}: write it in the place of each word that the model shall tell"
        lost = f" and keeps its {MASK}s" if MASK in answer.filled else ""
        return f"longer than the {self._longest} tokens that the model reads: its end is not read{lost}" \
            if answer.truncated else ""


def as_fields(values: Sequence[Values]) -> list[str]:
    """The values of columns as text.

    Example:
        >>> as_fields([["pos"], [0.75], [], ["good", "bad"]])
        ['pos', '0.750000', '', 'good bad']
    """
    return [" ".join(value if isinstance(value, str) else f"{value:.6f}" for value in several) for several in values]


def fill(text: str, words: Sequence[str]) -> str:
    """A text with words in the place of its first masks.

    Example:
        >>> fill("the film [MASK] [MASK] on and [MASK]", ["walk", "##ed"])
        'the film walked on and [MASK]'

    Args:
        text: with at least as many masks as there are words.
        words: wordpieces; "##" begins what goes on the word before it.
    """
    found, *rest = text.split(MASK)
    for place, after in enumerate(rest):
        word = words[place] if place < len(words) else MASK
        found = (found.rstrip() + word[2:] if goes_on(word) else found + word) + after
    return found


def goes_on(piece: str) -> bool:
    """Whether a wordpiece is the rest of a word."""
    return piece.startswith("##") and len(piece) > 2


ANSWERS: dict[str, Callable[[Mapping[str, Any]], Answers]] = {
    "classification": Predictions, "translation": Translations, "pretraining": Fillings}


def _shortened(text: str, width: int = 80) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[:width - 1] + "…"
