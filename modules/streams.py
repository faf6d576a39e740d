"""Batches for several devices, out of files that no two of them share.

Files, or where they are few their records, are dealt to streams, and of every batch each stream makes a part, in
batches of its own. How many streams there are is a setting of the training and not the number of devices: one device
joins the parts of all streams, two devices take half of the streams each. So a batch holds the same examples on any
number of devices, a training that was cut off goes on with another number, and of many files no process reads one that
is another one's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from modules.errors import TextrailError

Batch = dict[str, tf.Tensor]


class Streams:
    """The batches of an epoch.

    Args:
        make: number of a stream → its parts in their order, each a dict of tensors [rows, length] or [rows].
        count: of streams.
        steps: batches in the epoch; a stream with fewer parts has parts without rows at the end.
        pads: name → what the shorter parts of a batch are padded with where one device joins several, if not 0.
    """

    def __init__(self, make: Callable[[int], tf.data.Dataset], count: int, steps: int, pads: Mapping[str, int]):
        self._make, self._count, self._steps, self._pads = make, count, steps, pads

    def distributed(self, strategy: tf.distribute.Strategy, skip: int = 0) -> tf.data.Dataset:
        """The batches from the one numbered `skip` on, for a loop over a strategy's steps.

        Raises:
            TextrailError: the streams cannot be shared equally by the strategy's devices.
        """
        check_shared(self._count, strategy.num_replicas_in_sync)

        def of_host(context: tf.distribute.InputContext) -> tf.data.Dataset:
            devices = context.num_replicas_in_sync // context.num_input_pipelines
            first = context.input_pipeline_id * devices
            parts = [self._of_device(device, context.num_replicas_in_sync).skip(skip)
                     for device in range(first, first + devices)]
            if devices == 1:
                return parts[0]
            # A host gives its devices their parts in turn.
            turns = tf.data.Dataset.range(devices).repeat(max(self._steps - skip, 0))
            return tf.data.Dataset.choose_from_datasets(parts, turns)

        return strategy.distribute_datasets_from_function(of_host)

    def _of_device(self, device: int, devices: int) -> tf.data.Dataset:
        each = self._count // devices
        parts = [self._filled_up(self._make(stream)) for stream in range(device * each, (device + 1) * each)]
        return parts[0] if each == 1 else tf.data.Dataset.zip(tuple(parts)).map(self._joined)

    def _filled_up(self, parts: tf.data.Dataset) -> tf.data.Dataset:
        nothing = {name: tf.zeros([1 if size is None else size for size in spec.shape], spec.dtype)[:0]
                   for name, spec in parts.element_spec.items()}
        return parts.concatenate(tf.data.Dataset.from_tensors(nothing).repeat()).take(self._steps)

    def _joined(self, *parts: Batch) -> Batch:
        """Parts of a batch, one below the other, padded to the longest.

            {"ids": [[5, 6]]}, {"ids": [[7, 8, 9]]} → {"ids": [[5, 6, 0], [7, 8, 9]]}
        """
        joined = {}
        for name, one in parts[0].items():
            tensors = [part[name] for part in parts]
            if one.shape.rank == 2:
                longest = tf.reduce_max([tf.shape(tensor)[1] for tensor in tensors])
                pad = tf.cast(self._pads.get(name, 0), one.dtype)
                tensors = [tf.pad(tensor, [[0, 0], [0, longest - tf.shape(tensor)[1]]], constant_values=pad)
                           for tensor in tensors]
            joined[name] = tf.concat(tensors, axis=0)
        return joined


def check_shared(streams: int, devices: int) -> None:
    """Refuses streams that devices cannot share equally.

    Raises:
        TextrailError: they cannot.
    """
    if streams % devices:
        raise TextrailError(f"training.loading.streams that {devices} devices can share equally", str(streams),
                            f"Set it to a multiple of {devices}, from the beginning of a training: it decides what a "
                            "batch holds.")


def are_dealt(files: Sequence[str], streams: int) -> bool:
    """Whether there are files enough for streams of about the same length: as many for each, or at least eight.

    Of fewer files, which hold little, every stream reads all and takes every so many-th record.
    """
    return len(files) % streams == 0 or len(files) >= 8 * streams


def dealt(files: Sequence[str], stream: int, streams: int) -> list[str]:
    """The files of a stream: every so many-th of the sorted ones."""
    return sorted(files)[stream::streams]


def own_streams(strategy: tf.distribute.Strategy, streams: int) -> range:
    """The streams that this process reads."""
    count, worker = workers(strategy), worker_number(strategy)
    check_shared(streams, count)
    each = streams // count
    return range(worker * each, (worker + 1) * each)


def has_several_processes(strategy: tf.distribute.Strategy) -> bool:
    """Whether each of a training's processes has a part of its devices; a TPU's one process has all."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def workers(strategy: tf.distribute.Strategy) -> int:
    """A training's processes."""
    return strategy.num_replicas_in_sync // strategy.extended._num_devices_per_worker if has_several_processes(
        strategy) else 1


def worker_number(strategy: tf.distribute.Strategy) -> int:
    """Which of a training's processes this is; the first is the chief, where there is one."""
    if not has_several_processes(strategy):
        return 0
    resolver = strategy.cluster_resolver
    chiefs = len(resolver.cluster_spec().as_dict().get("chief", ()))
    return resolver.task_id if resolver.task_type == "chief" else chiefs + resolver.task_id


def everybodys(strategy: tf.distribute.Strategy, own: dict[int, list[int]], count: int) -> list[list[int]]:
    """Numbers of every stream, or of every process, of which each process knows those of its own.

    Args:
        strategy: of the training.
        own: stream or process → its numbers, as many for each.
        count: how many streams or processes there are.
    """
    width = len(next(iter(own.values())))
    if not has_several_processes(strategy):
        return [own[one] for one in range(count)]
    rows = np.array([own.get(one, [0] * width) for one in range(count)], np.float64)
    return _total(strategy, rows).round().astype(int).tolist()   # Floats of this size are exact.


def the_firsts(strategy: tf.distribute.Strategy, own: np.ndarray) -> np.ndarray:
    """An array as the first process has it: two machines may come to other last digits of what both compute.

    Args:
        strategy: of the training.
        own: floats, in every process of the same shape and dtype.
    """
    if not has_several_processes(strategy):
        return own
    return _total(strategy, own if worker_number(strategy) == 0 else np.zeros_like(own)).astype(own.dtype)


def _total(strategy: tf.distribute.Strategy, own: np.ndarray) -> np.ndarray:
    """The sum of every process's floats, of the same shape and dtype in all."""
    @tf.function
    def total() -> tf.Tensor:
        return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(lambda: tf.constant(own)), axis=None)

    return total().numpy() / strategy.extended._num_devices_per_worker   # Every device of a process brings the same.
