"""How pretrained encoders are judged: by foretelling masked words and next sentences of documents they never saw."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow as tf
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto.config_pb2 import MetricConfig

from components.instance_gen import LABEL, TOKEN_IDS
from components.judging import Answer, Judge, Rows, own_metric
from components.pretraining_metrics import OUTPUTS, PretrainingMetrics
from components.verdict import pretraining_metric_names
from modules.json_files import read_object
from modules.manifest import DESCRIPTION
from modules.tokenization import Vocabulary

SHOWN_WORDS = 30   # Of each row that is kept for a person to read.
NO_PAIR = -1       # The label of a row of one text.


class PretrainingJudge(Judge):
    """Rows are InstanceGen's examples, unmasked, whose ids mean what the candidate's vocabulary says.

    Every model masks all ordinary tokens of a row, one in `passes` at a time, see `ServedPretrainer.judge`. Nothing is
    drawn, hence neither batching nor the runner changes a number.
    """

    outputs = OUTPUTS
    sample_kinds = ("masked",)

    def __init__(self, manifests: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]):
        super().__init__(manifests, settings)
        candidate = manifests[tfma.CANDIDATE_KEY]
        self._next_sentence, self._passes = bool(candidate["next_sentence"]), int(candidate["passes"])
        self._kept = int(self.evaluation.get("examples", 0))

    @staticmethod
    def not_comparable(folders: Mapping[str, str], manifests: Mapping[str, Mapping[str, Any]]) -> str:
        """The served model cannot read other ids than its own, nor longer rows; in other passes it is asked less."""
        models = tfma.CANDIDATE_KEY, tfma.BASELINE_KEY
        ours, theirs = (Vocabulary.read(f"{folders[model]}/{DESCRIPTION}") for model in models)
        passes, served_passes = (manifests[model]["passes"] for model in models)
        length = manifests[tfma.CANDIDATE_KEY]["max_length"]
        config = read_object(f"{folders[tfma.BASELINE_KEY]}/{DESCRIPTION}/config.json")
        positions = config["max_position_embeddings"]
        if ours != theirs:
            return "another vocabulary"
        if positions < length:
            return f"{positions} positions, and rows of {length} tokens"
        return f"judged in {served_passes} passes instead of {passes}" if passes != served_passes else ""

    def metric_names(self) -> list[str]:
        return pretraining_metric_names(self._next_sentence)

    def metrics(self) -> list[MetricConfig]:
        return [own_metric(PretrainingMetrics, next_sentence=self._next_sentence)]

    def labels(self, rows: Rows) -> list[np.ndarray]:
        return [np.array(row[LABEL].int64_list.value[0] if LABEL in row else NO_PAIR) for row in rows]

    def lengths(self, features: Answer) -> np.ndarray:
        return features["token_count"]

    def predictions(self, model: str, answer: Answer) -> Sequence[np.ndarray]:
        unknown = np.full_like(answer["masked_count"], np.nan)
        return np.stack([answer.get(output, unknown) for output in OUTPUTS], axis=1)  # [rows, 4]

    def samples(self, rows: Rows, answer: Answer) -> Iterator[dict[str, Any]]:
        """The token ids of every row."""
        if self._kept:
            yield from ({"token_ids": list(row[TOKEN_IDS].int64_list.value)} for row in rows)

    def keep(self, samples: beam.PCollection, candidate: str) -> dict[str, beam.PCollection]:
        """As many rows as a hash of ids and seed draws, with words for some masks in them."""
        if not self._kept:
            return {}
        kept, seed, passes = self._kept, self.seed, self._passes
        drawn = samples | "Draw" >> beam.combiners.Top.Of(kept, key=lambda row: _draw(row["token_ids"], seed))
        return {"masked": drawn | "Ask" >> beam.Map(lambda rows: asked(candidate, rows, seed, passes))}


def _draw(token_ids: Sequence[int], seed: int) -> str:
    return hashlib.sha256(f"{seed} {token_ids}".encode()).hexdigest()


def asked(folder: str, rows: Sequence[Mapping[str, Any]], seed: int, passes: int) -> list[dict[str, Any]]:
    """What a model says to the beginnings of rows, one in `passes` of whose words are masked.

    Args:
        folder: of the SavedModel.
        rows: `token_ids` of each.
        seed: of the choice of words.
        passes: see above; one word at least is masked.

    Returns:
        Of each row `text`, as `serving_default` was asked, and `masks`, in its order, each with `label`, what stood
        there, and `words` and their `probabilities`, likeliest first.
    """
    if not rows:
        return []
    vocabulary = Vocabulary.read(f"{folder}/{DESCRIPTION}")
    texts = [masked_text(vocabulary, row["token_ids"], Random(_draw(row["token_ids"], seed)), passes) for row in rows]
    serve = tf.saved_model.load(folder).signatures["serving_default"]
    answer = {name: value.numpy() for name, value in serve(text=tf.constant([text for text, _ in texts])).items()}
    return [{"text": text, "masks": [
        {"label": label, "words": [word.decode() for word in words],
         "probabilities": [round(float(probability), 6) for probability in probabilities]}
        for label, words, probabilities in zip(labels[:count], *(answer[name][row] for name in (
            "words", "probabilities")), strict=False)]}
        for row, ((text, labels), count) in enumerate(zip(texts, answer["counts"], strict=True))]


def masked_text(vocabulary: Vocabulary, token_ids: Sequence[int], random: Random, passes: int
                ) -> tuple[str, list[str]]:
    """The beginning of a row's first text with [MASK] in place of some words, and those words.

    Only words of letters that are one wordpiece are masked, as a mask stands for one.

    Example: of the ids of `[CLS] the un ##likely film [SEP]`, with `passes` 7, "the unlikely [MASK]" and ["film"], or
    "[MASK] unlikely film" and ["the"].

    Args:
        vocabulary: of the ids.
        token_ids: of a row, special ones included.
        random: chooses the words.
        passes: one in so many is masked, one at least where there is any.
    """
    pieces = [vocabulary.pieces[i] for i in token_ids[1:list(token_ids).index(vocabulary.sep_id)]]
    words: list[str] = []
    whole: list[int] = []   # places of words that are one wordpiece
    for piece in pieces:
        if piece.startswith("##") and words:
            words[-1] += piece[2:]
            whole = [place for place in whole if place < len(words) - 1]
        elif len(words) == SHOWN_WORDS:
            break
        else:
            whole += [len(words)] if piece.isalpha() else []
            words.append(piece.removeprefix("##"))
    chosen = sorted(random.sample(whole, max(len(whole) // passes, min(len(whole), 1))))
    labels = [words[place] for place in chosen]
    for place in chosen:
        words[place] = vocabulary.pieces[vocabulary.mask_id]
    return " ".join(words), labels
