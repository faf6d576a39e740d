"""Text to BERT's token ids, inside the TensorFlow graph, for training and serving alike.

    >>> tokenizer = Tokenizer(Vocabulary(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "film", "##s")))
    >>> tokenizer.encode(tf.constant(["Good films"]), max_length=8)
    <tf.RaggedTensor [[2, 5, 6, 7, 3]]>          # [CLS] good film ##s [SEP]

Ids stay unpadded. Segments and mask are never stored: they follow from the ids (`Vocabulary.segment_ids`,
`Vocabulary.input_mask`).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text

from modules.errors import TextrailError

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LONGEST_WORD = 100  # bytes; a longer word is [UNK], as in BERT
# What BERT makes a word of its own, for RE2: punctuation, and the characters that it counts as Chinese.
_ALONE = (r"([!-/:-@\[-`{-~\pP\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2B73F}"
          r"\x{2B740}-\x{2B81F}\x{2B820}-\x{2CEAF}\x{F900}-\x{FAFF}\x{2F800}-\x{2FA1F}])")


@dataclass(frozen=True)
class Vocabulary:
    """The wordpieces of an encoder in the order of their ids, and whether texts are lower-cased first.

    Args:
        pieces: wordpieces; the id of a piece is its position. Pieces inside a word start with "##".
        lower_case: lower-case texts and strip accents before looking pieces up, as uncased BERT does.

    Raises:
        TextrailError: a special token is missing or a piece stands twice.
    """

    pieces: tuple[str, ...]
    lower_case: bool = True
    ids: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        object.__setattr__(self, "ids", {piece: i for i, piece in enumerate(self.pieces)})
        missing = [special for special in SPECIALS if special not in self.ids]
        if missing:
            raise TextrailError(f"a vocabulary with {', '.join(SPECIALS)}", f"one without {', '.join(missing)}",
                                "Add the missing tokens to vocab.txt, each on the line whose number is its id.")
        if len(self.ids) < len(self.pieces):
            twice = next(piece for i, piece in enumerate(self.pieces) if self.ids[piece] != i)
            raise TextrailError("a vocabulary with each piece once", f"{twice!r} on two lines",
                                "Remove the second line from vocab.txt if the encoder was trained without it.")

    @classmethod
    def read(cls, encoder: str | Path) -> Vocabulary:
        """Reads `vocab.txt` and the case flag of `tokenizer_config.json` from an encoder's folder or URI."""
        folder = str(encoder).rstrip("/")
        text = tf.io.gfile.GFile(f"{folder}/vocab.txt", "rb").read().decode("utf-8")
        config = json.loads(tf.io.gfile.GFile(f"{folder}/tokenizer_config.json").read())
        return cls(tuple(split_vocabulary(text)), config["do_lower_case"])

    def write(self, folder: str | Path, max_length: int | None = None) -> None:
        """Writes `vocab.txt` and `tokenizer_config.json` as HuggingFace's BertTokenizer takes them.

        Args:
            folder: where to; must exist.
            max_length: most tokens of a text; none leaves that to the reader.
        """
        config: dict[str, Any] = {"do_lower_case": self.lower_case, "tokenizer_class": "BertTokenizer"}
        if max_length is not None:
            config["model_max_length"] = max_length
        contents = {"vocab.txt": "".join(f"{piece}\n" for piece in self.pieces),
                    "tokenizer_config.json": json.dumps(config, indent=2) + "\n"}
        for name, content in contents.items():
            with tf.io.gfile.GFile(f"{folder}/{name}", "wb") as file:
                file.write(content.encode("utf-8"))

    @property
    def pad_id(self) -> int:
        return self.ids["[PAD]"]

    @property
    def cls_id(self) -> int:
        return self.ids["[CLS]"]

    @property
    def sep_id(self) -> int:
        return self.ids["[SEP]"]

    @property
    def mask_id(self) -> int:
        return self.ids["[MASK]"]

    def to_dense(self, token_ids: tf.RaggedTensor, length: int | None = None) -> tf.Tensor:
        """Pads ids to one length.

        Args:
            token_ids: [batch, (tokens)] integers.
            length: tokens to pad, or cut, to; the longest of the batch if none.

        Returns:
            [batch, length] integers of the same dtype, padded with the pad id.
        """
        shape = None if length is None else (None, length)
        return token_ids.to_tensor(default_value=tf.cast(self.pad_id, token_ids.dtype), shape=shape)

    def input_mask(self, token_ids: tf.Tensor) -> tf.Tensor:
        """1 where there is a token, 0 in the padding: [batch, length] → [batch, length] int32.

        `[CLS] good [SEP] [PAD]` → `1 1 1 0`
        """
        return tf.cast(tf.not_equal(token_ids, tf.cast(self.pad_id, token_ids.dtype)), tf.int32)

    def segment_ids(self, token_ids: tf.Tensor) -> tf.Tensor:
        """0 up to and including the first [SEP], 1 after it, 0 in the padding: [batch, length] → the same, int32.

        `[CLS] a [SEP] b [SEP] [PAD]` → `0 0 0 1 1 0`
        """
        is_end = tf.cast(tf.equal(token_ids, tf.cast(self.sep_id, token_ids.dtype)), tf.int32)
        after_first = tf.minimum(tf.cumsum(is_end, axis=1, exclusive=True), 1)
        return after_first * self.input_mask(token_ids)


class Tokenizer:
    """BERT's tokenizer as TensorFlow ops: normalise, split at spaces and punctuation, longest wordpiece first.

    Follows Song et al., "Fast WordPiece Tokenization" (2021), as tf_text implements it. It differs from
    HuggingFace's only where that applies no compatibility normalisation (½, …, ﬁ, ™), on control characters, and on
    special tokens written out in the text: those are ordinary characters here, so no text can forge a [SEP].
    """

    def __init__(self, vocabulary: Vocabulary):
        self.vocabulary = vocabulary

    def encode(self, texts: tf.Tensor, texts_pair: tf.Tensor | None = None, *, max_length: int,
               truncate: str = "end") -> tf.RaggedTensor:
        """Texts, or pairs of texts, to token ids with their special tokens, unpadded.

        With the ids [CLS] = 2, [SEP] = 3, good = 5, film = 6, ##s = 7:

            encode(["Good films", ""], max_length=4)            → [[2, 5, 6, 3], [2, 3]]
            encode(["good good good"], ["films"], max_length=6) → [[2, 5, 3, 6, 7, 3]]

        Args:
            texts: [batch] string, UTF-8; a byte that is none counts as an unknown character.
            texts_pair: [batch] string, the second text of each pair.
            max_length: most tokens of a row, special tokens included. A longer single text loses what `truncate`
                says; of a pair, see `truncate_pair`.
            truncate: `end`, or `middle`, see `cut_middle`.

        Returns:
            [batch, (tokens)] int64: `[CLS] text [SEP]`, with pairs `[CLS] text [SEP] text_pair [SEP]`.
        """
        parts = [texts] if texts_pair is None else [texts, texts_pair]
        return self.pack([self.tokenize(part) for part in parts], max_length, truncate)

    def pack(self, parts: Sequence[tf.RaggedTensor], max_length: int | tf.Tensor, truncate: str = "end"
             ) -> tf.RaggedTensor:
        """Cuts wordpieces to a length and puts special tokens around them; `encode` after `tokenize`.

        Args:
            parts: one or two texts a row, each [batch, (pieces)] int64.
            max_length: see `encode`; may be [] int64.
            truncate: see `encode`.

        Returns:
            [batch, (tokens)] int64.
        """
        budget = max_length - len(parts) - 1
        if len(parts) == 2:
            return self._join(truncate_pair(parts[0], parts[1], budget))
        if truncate == "middle":
            return self._join([cut_middle(parts[0], budget)])
        return self._join([_keep(parts[0], tf.minimum(parts[0].row_lengths(), budget))])

    def _join(self, parts: Sequence[tf.RaggedTensor]) -> tf.RaggedTensor:
        """[CLS] before and [SEP] after each part: ragged [batch, (pieces)] int64 → [batch, (tokens)].

        A row begins as nothing but [SEP], then the rest is written over it. Next to tf.concat that is a third of the
        ops, in a graph that is traced again and again, and no assertion that a server's graph would have to keep.
        """
        sizes = [part.row_lengths() + 1 for part in parts]  # [batch] each
        splits = tf.concat([[0], tf.cumsum(tf.add_n(sizes) + 1)], axis=0)  # [batch + 1]
        at = splits[:-1]  # [batch], where the next part of each row goes
        ids = tf.fill([splits[-1]], tf.constant(self.vocabulary.sep_id, tf.int64))  # [tokens of all rows]
        cls = tf.fill(tf.shape(at), tf.constant(self.vocabulary.cls_id, tf.int64))  # [batch]
        ids = tf.tensor_scatter_nd_update(ids, at[:, tf.newaxis], cls)
        at += 1
        for part, size in zip(parts, sizes, strict=True):
            positions = tf.ragged.range(at, at + size - 1).values  # [pieces of all rows]
            ids = tf.tensor_scatter_nd_update(ids, positions[:, tf.newaxis], part.values)
            at += size
        return tf.RaggedTensor.from_row_splits(ids, splits, validate=False)

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Ids of the wordpieces, without special tokens: [batch] string → [batch, (pieces)] int64."""
        # The constants are made anew so that they belong to the graph being traced and are saved with it.
        pieces = tf_text.FastBertTokenizer(
            token_out_type=tf.int64,
            fast_wordpiece_model_buffer=tf.constant(_wordpiece_model(self.vocabulary.pieces)),
            fast_bert_normalizer_model_buffer=tf.constant(_normalizer_model(self.vocabulary.lower_case)))
        return pieces.tokenize(texts)

    def words(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Words, the units that wordpieces are learned from: [batch] string → [batch, (words)] string.

            ["Don't"] → [["don", "'", "t"]]
        """
        normalizer = tf_text.FastBertNormalizer(
            model_buffer=tf.constant(_normalizer_model(self.vocabulary.lower_case)),
            lower_case_nfd_strip_accents=self.vocabulary.lower_case)
        return tf.strings.split(tf.strings.regex_replace(normalizer.normalize(texts), _ALONE, r" \1 "))


def cut_middle(pieces: tf.RaggedTensor, budget: int) -> tf.RaggedTensor:
    """Cuts longer texts to their first quarter and their last three quarters of the budget.

    The verdict of a long review stands more often at its end than at its beginning (Sun et al., "How to Fine-Tune
    BERT for Text Classification?", 2019, whose proportions these are).

        cut_middle([[1, 2, 3, 4, 5, 6]], budget=4) → [[1, 4, 5, 6]]

    Args:
        pieces: [batch, (pieces)] integers.
        budget: most pieces of a text.

    Returns:
        [batch, (at most budget pieces)].
    """
    head = budget // 4
    lengths = pieces.row_lengths()  # [batch]
    positions = tf.ragged.range(lengths)  # [batch, (pieces)]
    tail_starts = tf.gather(lengths - (budget - head), positions.value_rowids())  # [pieces of all rows]
    kept = tf.logical_or(positions.values < head, positions.values >= tail_starts)
    return tf.ragged.boolean_mask(pieces, pieces.with_values(kept))


def truncate_pair(first: tf.RaggedTensor, second: tf.RaggedTensor, budget: int
                  ) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
    """Cuts both texts of each pair from the end until together they fit, the longer one first.

    The rule of BERT's `_truncate_seq_pair` (google-research/bert, run_classifier.py) and of `longest_first` in
    transformers' Python tokenizers: take one token from the longer text until the pair fits, from the second when
    both are equally long. Its closed form: the second text keeps what the first leaves, but no less than half.

        lengths 6 and 2, budget 5 → 3 and 2;  6 and 6, budget 5 → 3 and 2;  1 and 9, budget 5 → 1 and 4

    Args:
        first: [batch, (tokens)].
        second: [batch, (tokens)].
        budget: most tokens of both together.

    Returns:
        Both, cut: [batch, (tokens)] each.
    """
    length_first, length_second = first.row_lengths(), second.row_lengths()
    keep_second = tf.minimum(length_second, tf.maximum(budget - length_first, budget // 2))
    keep_first = tf.minimum(length_first, budget - keep_second)
    return _keep(first, keep_first), _keep(second, keep_second)


def _keep(ragged: tf.RaggedTensor, lengths: tf.Tensor) -> tf.RaggedTensor:
    """The first `lengths[i]` values of row i."""
    positions = tf.ragged.range(ragged.row_starts(), ragged.row_starts() + lengths)
    return positions.with_values(tf.gather(ragged.values, positions.values))


def split_vocabulary(text: str) -> list[str]:
    """The lines of a `vocab.txt`; only a line feed ends a line, since pieces may be other Unicode separators."""
    return text.removesuffix("\n").replace("\r\n", "\n").split("\n")


@functools.lru_cache(maxsize=2)
def _wordpiece_model(pieces: tuple[str, ...]) -> np.ndarray:
    """The vocabulary as tf_text's automaton; a graph is traced many times, and building it takes a second."""
    model = tf_text.build_fast_wordpiece_model(list(pieces), LONGEST_WORD, "##", "[UNK]", False, False)
    return np.frombuffer(model, np.uint8)


@functools.lru_cache
def _normalizer_model(lower_case: bool) -> np.ndarray:
    return np.frombuffer(tf_text.build_fast_bert_normalizer_model(lower_case), np.uint8)
