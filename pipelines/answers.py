"""What models answer, by their shape: as Python has it, as columns of a file, and as a line for a person."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol


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


class Answers(Protocol):
    """How the answers of one model are read and shown.

    Attributes:
        what: they are, in the plural.
        columns: names of those that a file gets.
    """

    what: str
    columns: list[str]

    def read(self, outputs: Mapping[str, Any]) -> Iterator[Any]:
        """The answers in outputs of `serving_default`, one a row."""

    def fields(self, answer: Any) -> list[str]:
        """The values of `columns`."""

    def line(self, answer: Any, texts: Sequence[str]) -> str:
        """What a person is told of the answer to some texts."""

    def cut(self, answer: Any) -> str:
        """What the model has not read, as the end of a sentence about the text; empty if it read all."""


class Predictions:
    """Of a classifier."""

    what = "labels"

    def __init__(self, manifest: Mapping[str, Any]):
        self._classes = list(manifest["classes"])
        self._width = max(map(len, self._classes))
        self.columns = ["label", "score", *self._classes]

    def read(self, outputs: Mapping[str, Any]) -> Iterator[Prediction]:
        for label, score, scores, classes in zip(
                outputs["label"], outputs["score"], outputs["scores"], outputs["classes"], strict=True):
            by_class = {name.decode(): float(value) for name, value in zip(classes, scores, strict=True)}
            yield Prediction(label.decode(), float(score), by_class)

    def fields(self, answer: Prediction) -> list[str]:
        scores = (answer.score, *(answer.scores[name] for name in self._classes))
        return [answer.label, *(f"{score:.6f}" for score in scores)]

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

    def read(self, outputs: Mapping[str, Any]) -> Iterator[Translated]:
        for translations, scores, truncated in zip(
                outputs["translations"], outputs["scores"], outputs["truncated"], strict=True):
            # Where the search found fewer, the rest has no text and a score below all others.
            pairs = enumerate(zip(translations, scores, strict=True))
            n_best = [{"translation": said.decode(), "score": float(score)} for place, (said, score) in pairs
                      if said or place == 0]
            yield Translated(**n_best[0], n_best=n_best, truncated=bool(truncated))

    def fields(self, answer: Translated) -> list[str]:
        found = [field for one in answer.n_best for field in (one["translation"], f"{one['score']:.6f}")]
        return found + [""] * (len(self.columns) - len(found))

    def line(self, answer: Translated, texts: Sequence[str]) -> str:
        """The translation and nothing else; of several each with its score, a line for each."""
        if len(answer.n_best) == 1:
            return answer.translation
        return "\n".join(f"{one['score']:8.4f}  {one['translation']}" for one in answer.n_best)

    def cut(self, answer: Translated) -> str:
        return f"longer than the {self._longest} tokens that the model reads: its end is not translated" \
            if answer.truncated else ""


ANSWERS: dict[str, Callable[[Mapping[str, Any]], Answers]] = {
    "classification": Predictions, "translation": Translations}


def _shortened(text: str, width: int = 80) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[:width - 1] + "…"
