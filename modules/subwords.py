"""Text to subword ids and back, inside the TensorFlow graph, for training and serving alike.

    >>> subwords = Subwords((*SPECIALS, "o", "gato", "dor", "##me", f"{JOINER}."))
    >>> subwords.words(tf.constant(["O gato dorme."]))
    <tf.RaggedTensor [["O", "gato", "dorme", "￭."]]>
    >>> subwords.encode(tf.constant(["o gato dorme."]))
    <tf.RaggedTensor [[2, 4, 5, 6, 7, 8, 3]]>       # [START] o gato dor ##me ￭. [END]
    >>> subwords.decode(tf.constant([[2, 4, 5, 6, 7, 8, 3, 0, 0]]))
    <tf.Tensor [b"o gato dorme."]>

BERT's words cannot be undone: nobody knows on which side of a split-off "." there was a space. Here a mark, the joiner,
stands on the side where there was none, so that decoding gives back the text (compare OpenNMT's tokenizer, whose mark
this is). Pieces inside a word start with "##", and the longest one is taken first, as in BERT (Song et al., "Fast
WordPiece Tokenization", 2021, as tf_text implements it).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text

from modules.errors import TextrailError
from modules.json_files import read_object
from modules.tokenization import split_vocabulary

SPECIALS = PAD, UNK, START, END = "[PAD]", "[UNK]", "[START]", "[END]"
JOINER = "￭"   # U+FFED. In a text it is ■, as which Unicode has it compatible, so that none can forge a joint.
NORMALIZATIONS = ("nfkc", "nfc", "none")
FILES = VOCABULARY, CONFIG = "vocab.txt", "subwords.json"

# Regular expressions of RE2. Control characters go, those that are white space become a space.
_CONTROL = r"[\x00-\x08\x0e-\x1b\x7f-\x{84}\x{86}-\x{9f}]+"
_SPACE = r"[\pZ\t-\r\x1c-\x1f\x{85}]+"
# What is a word of its own: punctuation, symbols (so emoji), and characters of scripts that write no spaces.
_ALONE = r"([\pP\pS\p{Han}])"
# What a Turkish or a Lithuanian machine lower-cases otherwise (Unicode's SpecialCasing.txt), beside ASCII.
_LOWER = (("İ", "i\u0307"), ("Ì", "ì"), ("Í", "í"), ("Ĩ", "ĩ"), ("Į", "į"))
_LONGEST_WORD = 1 << 30   # bytes; the longest match is found in linear time, so no word need be [UNK] for its length


@dataclass(frozen=True)
class Subwords:
    """The pieces of a language in the order of their ids, and how its texts are normalised before they are looked up.

    Ids 0 to 3 are [PAD], [UNK], [START] and [END]. Written in a text these are ordinary characters.

    Args:
        pieces: the id of a piece is its position. Pieces inside a word start with "##".
        lower_case: lower-case texts; accents stay.
        normalization: `nfkc` (½ is 1⁄2, ﬁ is fi), `nfc` (é is one character however it is written) or `none`.

    Raises:
        TextrailError: the special tokens are not the first pieces, a piece stands twice or is blank.
    """

    pieces: tuple[str, ...]
    lower_case: bool = False
    normalization: str = "nfkc"
    ids: dict[str, int] = field(init=False, repr=False, compare=False)

    pad_id, unk_id, start_id, end_id = range(4)

    def __post_init__(self):
        object.__setattr__(self, "ids", {piece: i for i, piece in enumerate(self.pieces)})
        if self.normalization not in NORMALIZATIONS:
            raise TextrailError(f"a normalization among {', '.join(NORMALIZATIONS)}", repr(self.normalization),
                                f"Correct it in {CONFIG}.")
        if self.pieces[:4] != SPECIALS:
            raise TextrailError(f"a vocabulary that begins with {', '.join(SPECIALS)}",
                                ", ".join(self.pieces[:4]) or "none of them",
                                f"Put them on the first four lines of {VOCABULARY}.")
        if len(self.ids) < len(self.pieces):
            twice = next(piece for i, piece in enumerate(self.pieces) if self.ids[piece] != i)
            raise TextrailError("a vocabulary with each piece once", f"{twice!r} on two lines",
                                f"Have it learned anew: ids of a model do not follow when lines of {VOCABULARY} go.")
        for i, piece in enumerate(self.pieces):
            if piece in ("", "##") or len(piece.split()) != 1:
                raise TextrailError("pieces of visible characters", f"{piece!r} on line {i + 1}",
                                    f"Have the vocabulary learned anew; no text has such a piece in {VOCABULARY}.")

    @classmethod
    def read(cls, folder: str | Path) -> Subwords:
        """Reads `vocab.txt` and `subwords.json` from a folder or URI.

        Raises:
            TextrailError: a file is missing or damaged.
        """
        folder = str(folder).rstrip("/")
        config = read_object(f"{folder}/{CONFIG}")
        try:
            text = tf.io.gfile.GFile(f"{folder}/{VOCABULARY}", "rb").read().decode("utf-8")
            return cls(tuple(split_vocabulary(text)), config["lower_case"], config["normalization"])
        except (tf.errors.OpError, UnicodeDecodeError, KeyError) as error:
            raise TextrailError(f"the files {', '.join(FILES)} of a vocabulary in {folder}",
                                f"{type(error).__name__}: {error}",
                                "Have the vocabulary learned anew.") from error

    def write(self, folder: str | Path) -> None:
        """Writes `vocab.txt` and `subwords.json` into a folder, which must exist, or a URI."""
        config = {"lower_case": self.lower_case, "normalization": self.normalization}
        contents = {VOCABULARY: "".join(f"{piece}\n" for piece in self.pieces),
                    CONFIG: json.dumps(config, indent=2) + "\n"}
        for name, content in contents.items():
            with tf.io.gfile.GFile(f"{str(folder).rstrip('/')}/{name}", "wb") as file:
                file.write(content.encode("utf-8"))

    def normalize(self, texts: tf.Tensor) -> tf.Tensor:
        """Texts as decoding gives them back: [batch] string, any bytes → [batch] string.

        Bytes that are no UTF-8 become U+FFFD, control characters go, white space is one space and none at the ends.
        """
        texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8")
        texts = tf.strings.regex_replace(texts, _CONTROL, "")
        if self.normalization != "none":
            texts = tf_text.normalize_utf8(texts, self.normalization.upper())
        if self.lower_case:
            texts = _lower(texts)
        texts = tf.strings.regex_replace(texts, JOINER, "■")
        return tf.strings.strip(tf.strings.regex_replace(texts, _SPACE, " "))

    def words(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Words, the units that a vocabulary is learned from: [batch] string → [batch, (words)] string.

            "Olá (mundo), 1,5!" → Olá (￭ mundo ￭) ￭, 1 ￭,￭ 5 ￭!
        """
        return tf.strings.split(self._apart(texts))

    def encode(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Texts to ids, with [START] and [END], unpadded.

        A word that cannot be made from pieces is [UNK].

        Args:
            texts: [batch] string, any bytes.

        Returns:
            [batch, (tokens)] int64.
        """
        # No text has a word like [START], since its brackets are words of their own.
        words = tf.strings.split(tf.strings.join([f"{START} ", self._apart(texts), f" {END}"]))  # [batch, (words)]
        # The constant is made anew so that it belongs to the graph being traced and is saved with it.
        pieces = tf_text.FastWordpieceTokenizer(
            token_out_type=tf.int64, no_pretokenization=True, model_buffer=tf.constant(_wordpiece_model(self.pieces)))
        return pieces.tokenize(words).merge_dims(1, 2)  # [batch, (tokens)]

    def decode(self, ids: tf.Tensor | tf.RaggedTensor) -> tf.Tensor:
        """Ids back to text; special and reserved tokens leave no trace, and stray joiners none either.

        Args:
            ids: [batch, length] integers, padded with 0, or ragged [batch, (tokens)].

        Returns:
            [batch] string, UTF-8.
        """
        parts = tf.gather(tf.constant(_written_pieces(self.pieces)), ids)  # the shape of ids, string
        text = tf.strings.reduce_join(parts, axis=-1)  # [batch], "", or words each with a space before it
        return tf.strings.strip(tf.strings.regex_replace(text, f" ?{JOINER} ?", ""))

    def tokens(self, ids: tf.Tensor | tf.RaggedTensor) -> tf.Tensor | tf.RaggedTensor:
        """The pieces of ids, in the shape of the ids, string."""
        return tf.gather(tf.constant(_as_array(self.pieces)), ids)

    def _apart(self, texts: tf.Tensor) -> tf.Tensor:
        """Words with white space between them: [batch] string → [batch] string.

        First every character that stands alone is parted from whatever is beside it: `a, b` → `a ￭,￭  b`. Two spaces
        beside a joiner mean that there was one already, so it goes; between two joiners they mean that there was none.
        """
        texts = tf.strings.join([" ", self.normalize(texts), " "])
        texts = tf.strings.regex_replace(texts, _ALONE, rf" {JOINER}\1{JOINER} ")
        texts = tf.strings.regex_replace(texts, f"{JOINER}  {JOINER}", f" {JOINER}")
        texts = tf.strings.regex_replace(texts, f"{JOINER}  ", " ")
        return tf.strings.regex_replace(texts, f"  {JOINER}", " ")


def _lower(texts: tf.Tensor) -> tf.Tensor:
    """Lower-cases [batch] string, UTF-8, the same on every machine: TensorFlow's op goes by the locale for some."""
    texts = tf.strings.lower(texts)   # ASCII alone
    for capital, small in _LOWER:
        texts = tf.strings.regex_replace(texts, capital, small)
    return tf.strings.lower(texts, "utf-8")


def is_reserved(piece: str) -> bool:
    """Whether a piece is a special or reserved token, `[NAME]`, which no text has: its brackets would stand alone."""
    return len(piece) > 2 and piece.startswith("[") and piece.endswith("]")


def _written(piece: str) -> str:
    """What a piece adds to a text: "gato" → " gato", "##s" → "s", "[PAD]" → ""."""
    if is_reserved(piece):
        return ""
    return piece[2:] if len(piece) > 2 and piece.startswith("##") else f" {piece}"


def _as_array(strings: Iterable[str]) -> np.ndarray:
    """Strings as TensorFlow makes a constant of them at once; of a tuple it does in seconds."""
    return np.array([string.encode("utf-8") for string in strings], object)


@functools.lru_cache(maxsize=4)
def _written_pieces(pieces: tuple[str, ...]) -> np.ndarray:
    return _as_array(map(_written, pieces))


@functools.lru_cache(maxsize=4)
def _wordpiece_model(pieces: tuple[str, ...]) -> np.ndarray:
    """The vocabulary as tf_text's automaton; a graph is traced many times, and building it takes a second."""
    model = tf_text.build_fast_wordpiece_model(list(pieces), _LONGEST_WORD, "##", UNK, True, False)
    return np.frombuffer(model, np.uint8)
