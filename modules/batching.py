"""From transformed records to batches: short texts with short texts, padded no further than their bucket.

The records hold token ids without padding. A batch holds examples of one length bucket, as many as fit the token
budget, so that arithmetic is spent on tokens and not on padding. One function a stage, in this order:

    read → cached → shuffled → parsed → bucketed → (a task's own) → prefetched     all but the first two: `make_batches`

Examples travel as serialized records until they are shuffled, then many to a tensor: tf.data's cost is one of calls,
and a stage that is called once an example costs more than all the work in it (docs/loading.md has the figures).

Worked example: with buckets of 4 tokens up to 12 and a budget of 24 tokens, texts of 3, 4, 10, 2 and 11 tokens
become one batch [2, 12] of the texts with 10 and 11 tokens and one batch [3, 4] of those with 3, 4 and 2.

Of several texts in an example, as in a pair to be translated, the longest decides, and all are padded alike. A bucket
for each pair of lengths would be more shapes to compile for no less padding: of 45,339 pairs of Portuguese and English
sentences of at most 64 tokens, estimated from their words' lengths, 9.9% were padding in buckets 4 wide, and 13.1% in
as many shapes of two lengths, each 8 wide.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import tensorflow as tf

from modules.errors import TextrailError
from modules.streams import Streams, are_dealt, dealt, everybodys, has_several_processes, own_streams
from modules.training import TrainArgs

Stage = Callable[[tf.data.Dataset, int], tf.data.Dataset]   # Batches and the epoch's seed → what a task trains on.


@dataclass(frozen=True)
class Loading:
    """How examples get from files into batches; `training.loading` in the settings.

    Attributes:
        interleave_files: files read at once.
        interleave_records: records taken from a file before the next one's turn.
        parse_batch: records parsed by one call.
        parse_calls: such calls at a time.
        cache: `memory` or `disk` keeps the records, uncompressed, after the first pass over the files.
        prefetch: batches made ready while the model computes.
        deterministic: whether every pass has the same order, whatever comes ready first.
        streams: into how many the files are dealt, see `modules.streams`.
    """

    interleave_files: int = 16
    interleave_records: int = 16
    parse_batch: int = 512
    parse_calls: int | Literal["auto"] = "auto"
    cache: Literal["none", "memory", "disk"] = "none"
    prefetch: int | Literal["auto"] = "auto"
    deterministic: bool = True
    streams: int = 1


@dataclass(frozen=True)
class Buckets:
    """How examples are grouped.

    Attributes:
        lengths: upper ends of the buckets in tokens, ascending; the last is the longest example allowed.
        sizes: examples in a batch of each bucket.
        texts: texts in an example, each padded to its bucket.
    """

    lengths: tuple[int, ...]
    sizes: tuple[int, ...]
    texts: int = 1

    @classmethod
    def of(cls, max_length: int, step: int, batch_tokens: int, max_batch: int, multiple_of: int = 1, texts: int = 1
           ) -> Buckets:
        """Buckets every `step` tokens up to `max_length`, each with as many examples as `batch_tokens` allows.

        Args:
            max_length: longest example in tokens.
            step: width of a bucket in tokens.
            batch_tokens: tokens in a batch, of all texts, padding included.
            max_batch: most examples in a batch.
            multiple_of: batch sizes are multiples of this (the number of replicas).
            texts: in an example.
        """
        lengths = (*range(step, max_length, step), max_length)
        sizes = (min(max_batch, batch_tokens // (texts * length)) // multiple_of * multiple_of for length in lengths)
        return cls(lengths, tuple(max(size, multiple_of) for size in sizes), texts)

    @classmethod
    def of_run(cls, training: dict[str, Any], max_length: int, replicas: int, texts: int = 1) -> Buckets:
        """Those of a run; of one with several streams those of a stream's part of a batch. See `of`.

        Args:
            training: the section of the settings; of its keys `bucket_step`, `batch_tokens`, `max_batch` and, where
                they are there, `loading.streams` and `accumulate`: a batch is so many times as large, for it is
                computed in as many parts.
            max_length: longest example in tokens.
            replicas: devices that share a batch.
            texts: in an example.
        """
        streams, parts = training.get("loading", {}).get("streams", 1), training.get("accumulate", 1)
        return cls.of(max_length, training["bucket_step"], parts * training["batch_tokens"] // streams,
                      max(parts * training["max_batch"] // streams, 1), multiple_of=1 if streams > 1 else replicas,
                      texts=texts)

    def index(self, length: tf.Tensor) -> tf.Tensor:
        """[n] int64 bucket of each length [n]."""
        return tf.searchsorted(tf.constant(self.lengths, tf.int64), tf.cast(length, tf.int64), side="left",
                               out_type=tf.int64)

    def batches(self, counts: Sequence[int]) -> int:
        """Batches of an epoch, given the examples in each bucket; the last of a bucket may be smaller."""
        return sum(-(-count // size) for count, size in zip(counts, self.sizes, strict=True))

    def padded(self, counts: Sequence[int]) -> int:
        """Tokens of an epoch with padding, given the examples in each bucket."""
        return self.texts * sum(count * length for count, length in zip(counts, self.lengths, strict=True))


def read(files: Sequence[str], loading: Loading) -> tf.data.Dataset:
    """Reads transformed records: some from each file in turn, the files in the order of their names.

    With two files of the records a1 a2 a3 and b1 b2, and `interleave_records` 2: a1 a2 b1 b2 a3.

    Args:
        files: gzip TFRecord files of tf.Examples.
        loading: `interleave_files`, `interleave_records`, `deterministic`.

    Returns:
        A dataset of serialized tf.Examples, [] string.

    Raises:
        TextrailError: no files.
    """
    if not files:
        raise TextrailError("transformed records", "an empty list of files",
                            "Look at the Transform step: the split it should have written has no rows.")
    options = tf.data.Options()
    options.deterministic = loading.deterministic
    return tf.data.Dataset.from_tensor_slices(sorted(files)).interleave(
        lambda file: tf.data.TFRecordDataset(file, compression_type="GZIP"), cycle_length=loading.interleave_files,
        block_length=loading.interleave_records, num_parallel_calls=tf.data.AUTOTUNE).with_options(options)


def cached(records: tf.data.Dataset, loading: Loading, folder: str) -> tf.data.Dataset:
    """Keeps records where `loading.cache` says, from the first pass that reads all of them.

    Args:
        records: what `read` gives. Parsing them again is cheaper than shuffling parsed ones, see docs/loading.md.
        loading: `cache`.
        folder: where `disk` writes; no other training may. What a killed one has half written there is deleted.

    Returns:
        The same records in the same order.
    """
    if loading.cache == "none":
        return records
    if loading.cache == "memory":
        return records.cache()
    path = os.path.join(folder, "records")
    # tf.data writes the index last; without it there is at most a beginning, and a lock that would stop the next run.
    if not tf.io.gfile.exists(f"{path}.index") and tf.io.gfile.exists(folder):
        tf.io.gfile.rmtree(folder)
    tf.io.gfile.makedirs(folder)
    return records.cache(path)


def shuffled(records: tf.data.Dataset, buffer: int, seed: int) -> tf.data.Dataset:
    """Draws each record at random from the next `buffer` ones; the same seed draws the same."""
    return records.shuffle(buffer, seed=seed, reshuffle_each_iteration=False)


def parsed(records: tf.data.Dataset, features: dict[str, tf.DType], loading: Loading) -> tf.data.Dataset:
    """Parses `parse_batch` records at a time, which costs far less than one call a record.

    Args:
        records: serialized tf.Examples.
        features: name → dtype; a name ending in `$ragged_values` gives token ids under the name before the `$`,
            any other a scalar.
        loading: `parse_batch`, `parse_calls`.

    Returns:
        A dataset of dicts: token ids [n, (tokens)] int32 ragged, others [n], where n is `parse_batch` or, at the end,
        what is left.
    """
    spec: dict[str, tf.io.RaggedFeature | tf.io.FixedLenFeature] = {
        name.split("$")[0]: tf.io.RaggedFeature(dtype, value_key=name, row_splits_dtype=tf.int64) if "$" in name
        else tf.io.FixedLenFeature([], dtype) for name, dtype in features.items()}

    def parse(serialized: tf.Tensor) -> dict[str, tf.Tensor | tf.RaggedTensor]:
        examples = tf.io.parse_example(serialized, spec)
        return {name: tf.cast(value, tf.int32) if isinstance(value, tf.RaggedTensor) else value
                for name, value in examples.items()}

    return records.batch(loading.parse_batch).map(parse, num_parallel_calls=_or_auto(loading.parse_calls))


def longest(some: dict[str, tf.Tensor | tf.RaggedTensor]) -> tf.Tensor:
    """[n] int64 tokens of the longest text of each of some examples, as `parsed` gives them."""
    lengths = [one.row_lengths() for one in some.values() if isinstance(one, tf.RaggedTensor)]
    return functools.reduce(tf.maximum, lengths)


def count_by_bucket(examples: tf.data.Dataset, buckets: Buckets) -> tuple[list[int], int]:
    """Counts examples of each bucket and all tokens in one pass.

    Args:
        examples: what `parsed` gives.
        buckets: the grouping.

    Returns:
        Examples in each bucket, and tokens without padding.

    Raises:
        TextrailError: an example longer than the last bucket.
    """
    bins = len(buckets.lengths) + 1

    def add(state: tuple[tf.Tensor, tf.Tensor], some: dict[str, tf.RaggedTensor]) -> tuple[tf.Tensor, tf.Tensor]:
        found = tf.math.bincount(tf.cast(buckets.index(longest(some)), tf.int32), minlength=bins, maxlength=bins,
                                 dtype=tf.int64)  # [bins]
        tokens = [tf.size(one.values, tf.int64) for one in some.values() if isinstance(one, tf.RaggedTensor)]
        return state[0] + found, state[1] + tf.add_n(tokens)

    found, tokens = examples.reduce((tf.zeros([bins], tf.int64), tf.constant(0, tf.int64)), add)
    counts = found.numpy().tolist()
    if counts.pop():
        raise TextrailError(f"examples of at most {buckets.lengths[-1]} tokens", "longer ones in the records",
                            "Set model.max_length, of a translation model.max_tokens, of a pretraining "
                            "instances.max_length, to what they were made with.")
    return counts, int(tokens)


def bucketed(examples: tf.data.Dataset, buckets: Buckets, pad_id: int) -> tf.data.Dataset:
    """Groups examples by the length of their longest text and pads all texts of a batch to its bucket.

    Batches and their order are those of `tf.data.Dataset.bucket_by_sequence_length`: a batch leaves when its last
    example arrives, and at the end what is left over leaves, shortest bucket first. How many examples come in one
    element makes no difference.

    Args:
        examples: what `parsed` gives, none longer than the last bucket.
        buckets: the grouping.
        pad_id: what texts are padded with.

    Returns:
        A dataset of dicts: texts [batch, bucket length], others [batch].
    """
    spec, ends = examples.element_spec, tf.constant(buckets.lengths, tf.int64)
    nothing = {name: tf.RaggedTensor.from_row_splits(tf.zeros([0], one.dtype), tf.zeros([1], tf.int64))
               if isinstance(one, tf.RaggedTensorSpec) else tf.zeros([0], one.dtype) for name, one in spec.items()}

    def group(waiting, arrived):
        some, is_end = arrived
        waiting = tf.nest.pack_sequence_as(spec, waiting, expand_composites=True)
        some = {name: tf.concat([waiting[name], some[name]], axis=0) for name in spec}
        bucket = buckets.index(longest(some))
        leaving, starts, stops, staying = _full_batches(bucket, tf.constant(buckets.sizes, tf.int64), is_end)
        lengths = tf.gather(ends, tf.gather(bucket, tf.gather(leaving, starts)))  # [batches]
        return _flat({name: tf.gather(some[name], staying) for name in spec}), (some, leaving, starts, stops, lengths)

    def cut(some, leaving, starts, stops, lengths):
        def pad(start, stop, length):
            batch = {name: tf.gather(some[name], leaving[start:stop]) for name in spec}
            return {name: one.to_tensor(pad_id, shape=tf.stack([-1, length]))
                    if isinstance(one, tf.RaggedTensor) else one for name, one in batch.items()}

        return tf.data.Dataset.from_tensor_slices((starts, stops, lengths)).map(pad)

    end = tf.data.Dataset.from_tensors((nothing, True))
    # tf.data's scan keeps plain tensors only, so what waits is kept flat.
    return examples.map(lambda some: (some, False)).concatenate(end).scan(_flat(nothing), group).flat_map(cut)


# Traced once: tf.data would trace it anew for every epoch, and there twice.
@tf.function(autograph=False, input_signature=[tf.TensorSpec([None], tf.int64), tf.TensorSpec([None], tf.int64),
                                               tf.TensorSpec([], tf.bool)])
def _full_batches(bucket: tf.Tensor, sizes: tf.Tensor, is_end: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Which examples make a batch; all do at the end.

    With the sizes 2 and 3, of the buckets 0 1 0 1 0 the positions 0 2 leave, from 0 to 2, and 4 1 3 stay.

    Args:
        bucket: [n] int64, of each example in the order in which they came.
        sizes: [buckets] int64, examples in a batch.
        is_end: [] bool.

    Returns:
        Positions [leaving] int32, bucket after bucket; where in them each batch starts and stops, [batches] int64, the
        batch that was full first first; positions [staying] int32 of the others.
    """
    order = tf.argsort(bucket, stable=True)  # [n]
    bucket = tf.gather(bucket, order)
    counts = tf.math.bincount(tf.cast(bucket, tf.int32), minlength=tf.size(sizes), dtype=tf.int64)  # [buckets]
    rank = tf.range(tf.size(bucket, out_type=tf.int64)) - tf.gather(tf.cumsum(counts, exclusive=True), bucket)  # [n]
    leaves = tf.where(is_end, counts, counts // sizes * sizes)  # [buckets]
    size, leaves = tf.gather(sizes, bucket), tf.gather(leaves, bucket)  # [n]
    is_last = tf.logical_or(tf.equal(rank % size, size - 1), tf.equal(rank, leaves - 1))
    is_leaving = tf.cast(rank < leaves, tf.int32)
    staying, leaving = tf.dynamic_partition(order, is_leaving, 2)
    stops = tf.where(tf.dynamic_partition(is_last, is_leaving, 2)[1])[:, 0] + 1  # [batches]
    starts = tf.concat([[0], stops], axis=0)[:-1]
    turn = tf.argsort(tf.gather(leaving, stops - 1))
    return leaving, tf.gather(starts, turn), tf.gather(stops, turn), staying


def _flat(examples: dict[str, tf.Tensor | tf.RaggedTensor]) -> tuple[tf.Tensor, ...]:
    return tuple(tf.nest.flatten(examples, expand_composites=True))


def prefetched(batches: tf.data.Dataset, loading: Loading) -> tf.data.Dataset:
    """Makes `prefetch` batches ready while the model computes on another; 0 makes none."""
    return batches.prefetch(_or_auto(loading.prefetch)) if loading.prefetch else batches


def make_batches(records: tf.data.Dataset, features: dict[str, tf.DType], buckets: Buckets, pad_id: int,
                 loading: Loading, *, shuffle_buffer: int = 0, seed: int = 0, stage: Stage | None = None
                 ) -> tf.data.Dataset:
    """The stages from records to batches ready for the model.

    Args:
        records: what `read` or `cached` gives.
        features: see `parsed`.
        buckets: the grouping.
        pad_id: what texts are padded with.
        loading: how.
        shuffle_buffer: examples held for shuffling, 0 keeps the order.
        seed: of all chance; another for every epoch.
        stage: what a task does to its batches, given the seed; nothing if none.

    Returns:
        What `bucketed` or the stage gives; with `loading.deterministic` the same batches for the same seed, wherever it
        runs.
    """
    if shuffle_buffer:
        records = shuffled(records, shuffle_buffer, seed)
    batches = bucketed(parsed(records, features, loading), buckets, pad_id)
    return prefetched(stage(batches, seed) if stage else batches, loading)


class LengthBatches:
    """Training and validation batches by length bucket under the token budget of the settings.

    Args:
        args: files, settings.
        features: see `parsed`.
        buckets: the grouping, see `Buckets.of_run`.
        pad_id: what texts are padded with.
        strategy: where the training runs, if not on one device; a process reads its own streams' files only.
        stage: see `make_batches`. Its seed is another one for every epoch and stream, and always the same for
            validation.
    """

    def __init__(self, args: TrainArgs, features: dict[str, tf.DType], buckets: Buckets, pad_id: int,
                 strategy: tf.distribute.Strategy | None = None, stage: Stage | None = None):
        strategy = strategy or tf.distribute.get_strategy()
        streams = args.settings["training"].get("loading", {}).get("streams", 1)
        self._is_one_stream = streams == 1 and not has_several_processes(strategy)
        self.args, self.features, self.buckets, self.pad_id, self.stage = args, features, buckets, pad_id, stage
        self.settings, self.seed = args.settings["training"], args.settings["seed"]
        self.loading = Loading(**self.settings.get("loading", {}))
        self._own = own_streams(strategy, self.loading.streams)
        self.train, counts, self.tokens = self._read("train", args.train_files, strategy)
        self.counts = [sum(column) for column in zip(*counts, strict=True)]
        self.steps_per_epoch = max(map(self.buckets.batches, counts))
        validation, counts, _ = self._read("validation", args.validation_files, strategy)
        self.validation = self._streams(validation, max(map(self.buckets.batches, counts)))

    def of_epoch(self, epoch: int) -> tf.data.Dataset | Streams:
        """The batches of an epoch, with a seed of its own."""
        return self._streams(self.train, self.steps_per_epoch, seed=self.seed + epoch,
                             shuffle_buffer=max(self.settings["shuffle_buffer"] // self.loading.streams, 1))

    def _read(self, split: str, files: list[str], strategy: tf.distribute.Strategy
              ) -> tuple[dict[int, tf.data.Dataset], list[list[int]], int]:
        """Records of each stream that is read here; of every stream the examples in each bucket; tokens of all.

        Counting is the first pass, so it fills the cache.
        """
        records, found = {}, {}
        for stream in self._own:
            folder = os.path.join(self.args.checkpoint_dir, split if self._is_one_stream else f"{split}-{stream}")
            records[stream] = cached(self._of_stream(files, stream), self.loading, folder)
            counts, tokens = count_by_bucket(parsed(records[stream], self.features, self.loading), self.buckets)
            found[stream] = [*counts, tokens]
        every = everybodys(strategy, found, self.loading.streams)
        return records, [counts for *counts, _ in every], sum(tokens for *_, tokens in every)

    def _of_stream(self, files: list[str], stream: int) -> tf.data.Dataset:
        streams = self.loading.streams
        if are_dealt(files, streams):   # With one stream they always are.
            return read(dealt(files, stream, streams), self.loading)
        # Only of records that come in the same order to all has every stream others.
        in_order = dataclasses.replace(self.loading, deterministic=True)
        return read(files, in_order).shard(streams, stream)

    def _streams(self, records: dict[int, tf.data.Dataset], steps: int, seed: int = 0, shuffle_buffer: int = 0
                 ) -> tf.data.Dataset | Streams:
        streams = self.loading.streams

        def of_stream(stream: int) -> tf.data.Dataset:
            return make_batches(records[stream], self.features, self.buckets, self.pad_id, self.loading,
                                shuffle_buffer=shuffle_buffer, seed=seed * streams + stream, stage=self.stage)

        if self._is_one_stream:
            return of_stream(0)
        return Streams(of_stream, streams, steps, {
            name.split("$")[0]: self.pad_id for name in self.features if "$" in name})

    def told(self) -> str:
        """One line about the training split: examples, batches, and the share of padding."""
        whole = self.buckets.texts * sum(self.counts) * self.buckets.lengths[-1]
        return (f"{sum(self.counts)} examples, {self.steps_per_epoch} batches an epoch, "
                f"{1 - self.tokens / max(self.buckets.padded(self.counts), 1):.0%} of the tokens are padding "
                f"(padded to {self.buckets.lengths[-1]}: {1 - self.tokens / max(whole, 1):.0%})")


def _or_auto(number: int | Literal["auto"]) -> int:
    return tf.data.AUTOTUNE if number == "auto" else number
