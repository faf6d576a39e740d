"""Tokens masked for BERT to guess, drawn afresh for every batch of every epoch.

Of the tokens that are chosen, most become [MASK], some another piece at random, and some stay as they are, so that the
model cannot know which of the others are to be trusted (Devlin et al., 2019, appendix A.1).

The work is done by `tf_text.mask_language_model`, with an ItemSelector and a MaskValuesChooser of our own. Those that
come with it are fast, but wrong here:

- Both draw from TensorFlow's global generator. With a seed, tf.data begins its drawing anew at every epoch, which then
  masks the very same tokens; without one, no run can be repeated, nor a resumed one go on with what it would have
  drawn. Here all chance follows from a seed that is passed in, whatever runs in parallel.
- `RandomItemSelector` rounds the number of tokens up, in every row, so that short rows are masked more than asked for,
  and takes the rate of whole words for one of tokens.
- `MaskValuesChooser` takes any id for a random one, [PAD] and [CLS] included.

Worked example: 100 tokens at `mask_rate` 0.15 → 15 of them are chosen; with 90 tokens 13.5, which is 13 in half of the
rows and 14 in the other half, so that the rate is the one asked for at every length.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text

from modules.errors import TextrailError
from modules.subwords import is_reserved
from modules.tokenization import SPECIALS, Vocabulary


@dataclass(frozen=True)
class Masking:
    """How tokens are masked.

    Attributes:
        mask_rate: share of the tokens that are chosen, special ones and padding not counted.
        mask_token_rate: share of the chosen ones that become [MASK].
        random_token_rate: share of the chosen ones that become another piece; the rest stays.
        whole_words: whether the pieces of a word are chosen together, or each by itself.
    """

    mask_rate: float = 0.15
    mask_token_rate: float = 0.8
    random_token_rate: float = 0.1
    whole_words: bool = False

    def __post_init__(self):
        if not 0 < self.mask_rate < 1:
            raise TextrailError("a mask_rate above 0 and below 1", str(self.mask_rate), "BERT's is 0.15.")
        if min(self.mask_token_rate, self.random_token_rate) < 0 or self.mask_token_rate + self.random_token_rate > 1:
            raise TextrailError("a mask_token_rate and a random_token_rate of at least 0 that sum to at most 1",
                                f"{self.mask_token_rate} and {self.random_token_rate}", "BERT's are 0.8 and 0.1.")


class Masker:
    """Masks batches of token ids.

    Args:
        vocabulary: wordpieces, which say what is special and what goes on a word.
        masking: how.
    """

    def __init__(self, vocabulary: Vocabulary, masking: Masking):
        self.vocabulary, self.masking = vocabulary, masking
        special = [vocabulary.ids[piece] for piece in SPECIALS]
        self._maskable = np.ones(len(vocabulary.pieces), bool)   # [pieces]
        self._maskable[special] = False
        self._goes_on = np.array([piece.startswith("##") and len(piece) > 2 for piece in vocabulary.pieces])
        reserved = [is_reserved(piece) for piece in vocabulary.pieces]
        self.random_ids = np.flatnonzero(~np.array(reserved)).astype(np.int32)   # Of pieces that texts have.
        self._mask = tf.function(self._masked, autograph=False, input_signature=[   # Traced once, not in every epoch.
            tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([2], tf.int64)])

    def size(self, length: tf.Tensor) -> tf.Tensor:
        """Most tokens that are chosen in a row of `length` tokens, [] int32; static shapes can be made with it."""
        return tf.cast(tf.math.ceil(self.masking.mask_rate * tf.cast(length, tf.float32)), tf.int32)

    def __call__(self, token_ids: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        """Masks a batch.

        Args:
            token_ids: [batch, length] int32, padded at the end with [PAD].
            seed: [2] int64; the same one masks the same.

        Returns:
            `token_ids` [batch, length] int32, masked; of the chosen tokens, in the order of the text,
            `masked_positions` [batch, size] int32, `masked_ids` [batch, size] int32 as they were, and `masked_weights`
            [batch, size] float32, 1 for a chosen token and 0 for padding, whose position and id are 0.
        """
        return self._mask(token_ids, seed)

    def _masked(self, token_ids: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        length = tf.shape(token_ids)[1]
        lengths = tf.reduce_sum(self.vocabulary.input_mask(token_ids), axis=1)  # [batch]
        ragged = tf.RaggedTensor.from_tensor(token_ids, lengths=tf.cast(lengths, tf.int64))  # [batch, (tokens)]
        seeds = tf.random.experimental.stateless_split(seed, 2)  # [2, 2]
        masked, positions, ids = tf_text.mask_language_model(
            ragged, _Selector(self, token_ids, seeds[0]), _Chooser(self, seeds[1]))
        shape = tf.stack([tf.shape(token_ids)[0], self.size(length)])
        weights = positions.with_flat_values(tf.ones_like(positions.flat_values, tf.float32))
        return {"token_ids": masked.to_tensor(self.vocabulary.pad_id, shape=tf.shape(token_ids)),
                "masked_positions": tf.cast(positions.to_tensor(shape=shape), tf.int32),
                "masked_ids": ids.to_tensor(shape=shape), "masked_weights": weights.to_tensor(shape=shape)}

    def choose(self, token_ids: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Which tokens are chosen: padded ids [batch, length] int32, seed [2] int64 → [batch, length] bool.

        Items, which are tokens or whole words, are taken in random order as long as they fit into what is to be chosen
        in their row. A word of more tokens than that is never taken.
        """
        shape, masking = tf.shape(token_ids), self.masking
        seeds = tf.random.experimental.stateless_split(seed, 2)  # [2, 2]
        is_maskable = tf.gather(tf.constant(self._maskable), token_ids)  # [batch, length]
        expected = masking.mask_rate * tf.reduce_sum(tf.cast(is_maskable, tf.float32), axis=1)  # [batch]
        # Rounded up or down by chance; at least one, for a row without any would teach nothing.
        budget = tf.maximum(tf.floor(expected + tf.random.stateless_uniform(shape[:1], seeds[0])), 1)  # [batch]
        begins = is_maskable
        if masking.whole_words:
            goes_on = tf.gather(tf.constant(self._goes_on), token_ids)  # [batch, length]
            # What is left of a word behind a cut is one itself.
            after_other = tf.pad(tf.logical_not(is_maskable)[:, :-1], [[0, 0], [1, 0]], constant_values=True)
            begins = tf.logical_and(is_maskable, tf.logical_or(tf.logical_not(goes_on), after_other))
        item = tf.maximum(tf.cumsum(tf.cast(begins, tf.int32), axis=1) - 1, 0)  # [batch, length], of each token
        item += shape[1] * tf.range(shape[0])[:, tf.newaxis]  # [batch, length], counted through all rows
        count = tf.size(token_ids)
        sizes = tf.math.unsorted_segment_sum(tf.cast(is_maskable, tf.float32), item, count)  # [batch * length]
        sizes = tf.gather(sizes, item)  # [batch, length], tokens of the item that each token is in
        is_drawn = tf.logical_and(begins, sizes <= budget[:, tf.newaxis])
        scores = tf.where(is_drawn, tf.random.stateless_uniform(shape, seeds[1]), -1.0)  # [batch, length]
        # Twice as many as can be chosen, for those that do not fit any more.
        scores, places = tf.math.top_k(scores, tf.minimum(2 * self.size(shape[1]), shape[1]))  # [batch, drawn], both
        is_taken = _fill(tf.gather(sizes, places, batch_dims=1), scores >= 0, budget, 3 if masking.whole_words else 1)
        chosen = tf.boolean_mask(tf.gather(item, places, batch_dims=1), is_taken)  # [items]
        is_chosen = tf.scatter_nd(chosen[:, tf.newaxis], tf.ones_like(chosen), [count])  # [batch * length]
        return tf.logical_and(is_maskable, tf.gather(is_chosen, item) > 0)


def _fill(sizes: tf.Tensor, is_there: tf.Tensor, budget: tf.Tensor, rounds: int) -> tf.Tensor:
    """Takes items in their order as long as they fit; then, in further rounds, of those behind what fits the rest.

        sizes 2 1 3 1, budget 4 → the first two, and in the next round the last

    Args:
        sizes: [batch, items] float32.
        is_there: [batch, items] bool, which of them there are.
        budget: [batch] float32.
        rounds: how often; BERT's loop over items one by one has no such limit.

    Returns:
        [batch, items] bool.
    """
    taken = tf.zeros_like(is_there)
    for _ in range(rounds):
        left = (budget - tf.reduce_sum(tf.where(taken, sizes, 0), axis=1))[:, tf.newaxis]  # [batch, 1]
        fits = tf.logical_and(tf.logical_and(is_there, tf.logical_not(taken)), sizes <= left)
        taken = tf.logical_or(taken, tf.logical_and(fits, tf.cumsum(tf.where(fits, sizes, 0), axis=1) <= left))
    return taken


class _Selector(tf_text.RandomItemSelector):
    """Hands `Masker.choose` to tf_text, whose base class of selectors is not public."""

    def __init__(self, masker: Masker, token_ids: tf.Tensor, seed: tf.Tensor):
        super().__init__(0, masker.masking.mask_rate)
        self._masker, self._token_ids, self._seed = masker, token_ids, seed

    def get_selection_mask(self, input_ids: tf.RaggedTensor, axis: int = 1) -> tf.RaggedTensor:
        """[batch, (tokens)] bool for the [batch, (tokens)] that `token_ids` holds padded."""
        chosen = self._masker.choose(self._token_ids, self._seed)  # [batch, length]
        return tf.RaggedTensor.from_tensor(chosen, lengths=input_ids.row_lengths())


class _Chooser(tf_text.MaskValuesChooser):
    """What the chosen tokens become."""

    def __init__(self, masker: Masker, seed: tf.Tensor):
        masking, vocabulary = masker.masking, masker.vocabulary
        super().__init__(len(vocabulary.pieces), vocabulary.mask_id, masking.mask_token_rate, masking.random_token_rate)
        self._masking, self._ids, self._seed = masking, masker.random_ids, seed

    def get_mask_values(self, masked_lm_ids: tf.RaggedTensor) -> tf.RaggedTensor:
        """[MASK], a random id or the id itself, for each of [batch, (chosen)]."""
        ids = masked_lm_ids.flat_values  # [chosen]
        seeds = tf.random.experimental.stateless_split(self._seed, 2)  # [2, 2]
        draw = tf.random.stateless_uniform(tf.shape(ids), seeds[0])  # [chosen]
        other = tf.random.stateless_uniform(tf.shape(ids), seeds[1], 0, len(self._ids), tf.int32)  # [chosen]
        masked, shown = self._masking.mask_token_rate, self._masking.mask_token_rate + self._masking.random_token_rate
        values = tf.where(draw < shown, tf.cast(tf.gather(tf.constant(self._ids), other), ids.dtype), ids)
        return masked_lm_ids.with_flat_values(tf.where(draw < masked, tf.cast(self.mask_token, ids.dtype), values))


def masked(batches: tf.data.Dataset, masker: Masker, seed: int) -> tf.data.Dataset:
    """Masks every batch; a stage behind `modules.batching.bucketed`.

    Args:
        batches: dicts with `token_ids` [batch, length] int32.
        masker: what does it.
        seed: another for every epoch; always the same one for validation.

    Returns:
        The same batches, with what `Masker` gives instead of `token_ids`.
    """
    def mask(number: tf.Tensor, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return batch | masker(batch["token_ids"], tf.stack([tf.constant(seed, tf.int64), number]))

    return batches.enumerate().map(mask, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
