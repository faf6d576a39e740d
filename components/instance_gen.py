"""InstanceGen: documents to the examples that BERT is pretrained on, as unpadded token ids.

A task is a file of documents, and reads it a bucket at a time: so many documents as have `BUCKET_BYTES` of text are
split into sentences, tokenized, packed into examples, shuffled and written. A segment that is no next one comes out of
another document of the same bucket. For that no worker needs to know the corpus: ExampleGen has put documents into
files, and in order, by a hash of their texts, so that a bucket is a random sample of them, whatever order they came in.
Memory is that of a bucket. All chance comes from the seed and the documents' texts, hence neither the runner nor the
number of workers changes anything.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from random import Random
from typing import Any, ClassVar

import apache_beam as beam
import numpy as np
import tensorflow as tf
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.types import artifact_utils, channel, component_spec, standard_artifacts

from components.artifacts import DataBlessing, Encoder, Vocabulary
from components.encoder_positions import check_positions
from components.tfrecords import read_records
from modules.errors import TextrailError
from modules.instances import IS_RANDOM, Documents, Instance, Packing, make_instances, token_ids_of
from modules.progress import report as tell
from modules.sentences import split_sentences
from modules.tokenization import Tokenizer
from modules.tokenization import Vocabulary as Pieces

BUCKET_BYTES = 16 << 20     # Text of the documents that are in memory at a time.
TOKENIZED_BYTES = 1 << 20   # Text that is tokenized at a time.
COUNTS = "counts"           # Files with what was written of each split.
TOKEN_IDS, LABEL = "token_ids$ragged_values", "next_sentence_label"


class InstanceGenSpec(component_spec.ComponentSpec):
    PARAMETERS: ClassVar = {
        "settings": component_spec.ExecutionParameter(type=str),
    }
    INPUTS: ClassVar = {
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "encoder": component_spec.ChannelParameter(type=Encoder, optional=True),
        "vocabulary": component_spec.ChannelParameter(type=Vocabulary, optional=True),
        "gate": component_spec.ChannelParameter(type=DataBlessing, optional=True),
    }
    OUTPUTS: ClassVar = {
        "transformed_examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
    }


class Executor(base_beam_executor.BaseBeamExecutor):
    """Prepares every file of documents."""

    def Do(self, input_dict: dict[str, list], output_dict: dict[str, list], exec_properties: dict[str, Any]) -> None:
        """Writes the `transformed_examples` artifact.

        Args:
            input_dict: `examples` in gzipped TFRecords, a document each; `encoder` or `vocabulary`, of the wordpieces.
            output_dict: `transformed_examples`: of each split as many gzipped TFRecords as `examples` has, with
                `token_ids$ragged_values` and, of pairs, `next_sentence_label`. Custom properties `COUNT_SPLIT` say how
                many documents, sentences, instances, tokens, swapped pairs and short instances there are.
            exec_properties: see `InstanceGen`.

        Raises:
            TextrailError: a split has no tokens or, where pairs are made, one document only; the vocabulary lacks
                special tokens; or the encoder has too few positions.
        """
        settings = json.loads(exec_properties["settings"])
        source = input_dict.get("vocabulary") or input_dict["encoder"]
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        prepared = artifact_utils.get_single_instance(output_dict["transformed_examples"])
        prepared.split_names = examples.split_names
        temp = os.path.join(prepared.uri, "temp")   # Where every worker reaches it.
        tf.io.gfile.makedirs(os.path.join(temp, COUNTS))
        vocabulary = artifact_utils.get_single_uri(source)
        Pieces.read(vocabulary)   # An error of a worker would come back as text in a traceback.
        if input_dict.get("encoder"):
            check_positions(vocabulary, settings["packing"]["max_length"], "instances.max_length")
        prepare = _PrepareFile(vocabulary, settings, temp)
        try:
            with self._make_beam_pipeline() as pipeline:
                _ = (pipeline
                     | "Files" >> beam.Create(_files(examples, prepared))
                     | "SpreadFiles" >> beam.Reshuffle()
                     | "PrepareFile" >> beam.ParDo(prepare))
            counts = {split: _read_counts(temp, split)
                      for split in artifact_utils.decode_split_names(examples.split_names)}
        finally:
            tf.io.gfile.rmtree(temp)
        for split, count in counts.items():
            check_counts(split, count, settings["packing"]["next_sentence"])
            for name, number in count.items():
                prepared.set_int_custom_property(f"{name}_{split}", number)
            tell(f"{split}: {count['instances']:,} examples of {count['tokens']:,} tokens, of "
                 f"{count['documents']:,} documents", lasting=True, **{split: count["instances"]})


def _files(examples: standard_artifacts.Examples, prepared: standard_artifacts.Examples
           ) -> list[tuple[str, str, str]]:
    """Of every file its split, its path and the path of what becomes of it."""
    found = []
    for split in artifact_utils.decode_split_names(examples.split_names):
        source, target = (artifact_utils.get_split_uri([artifact], split) for artifact in (examples, prepared))
        tf.io.gfile.makedirs(target)
        names = sorted(tf.io.gfile.listdir(source))
        found += [(split, os.path.join(source, name),
                   os.path.join(target, f"instances-{i:05d}-of-{len(names):05d}.gz")) for i, name in enumerate(names)]
    return found


def _read_counts(temp: str, split: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for path in tf.io.gfile.glob(os.path.join(temp, COUNTS, f"{split}-*")):
        with tf.io.gfile.GFile(path) as file:
            total.update(json.load(file))
    return total


def check_counts(split: str, count: Counter[str], next_sentence: bool) -> None:
    """Refuses a split that nothing can be learned from, or not what was asked for.

    Raises:
        TextrailError: no examples, or one document where B must come from another one.
    """
    if next_sentence and count["documents"] == 1:
        raise TextrailError(
            f"at least two documents in the {split} split, for next-sentence pairs from different ones", "1",
            "Give it more documents, see in data.documents what counts as one, or set instances.next_sentence=false.")
    if not count["instances"]:
        raise TextrailError(f"text in the {split} split to make examples of", f"none, in {count['documents']:,} "
                            "documents with tokens", "Give it more documents, or a larger share in data.split.")


class _PrepareFile(beam.DoFn):
    """A file of documents to one of examples, whose path it outputs.

    Args:
        vocabulary: folder with `vocab.txt` and `tokenizer_config.json`.
        settings: see `InstanceGen`.
        temp: folder for unfinished files and counts, on the file system of the finished ones.
    """

    def __init__(self, vocabulary: str, settings: dict[str, Any], temp: str):
        self._vocabulary, self._settings, self._temp = vocabulary, settings, temp

    def setup(self) -> None:
        self._preparation = Preparation(Pieces.read(self._vocabulary), Packing(**self._settings["packing"]),
                                        self._settings["split_on"], self._settings["seed"])

    def process(self, task: tuple[str, str, str]) -> Iterator[str]:
        split, source, target = task
        texts = read_texts(source, self._settings["text"])
        encode, counts = _Encoder(), Counter({"documents": 0, "instances": 0})
        unfinished = os.path.join(self._temp, uuid.uuid4().hex)
        # Level 1: token ids hardly get smaller with more of it.
        with tf.io.TFRecordWriter(unfinished, tf.io.TFRecordOptions("GZIP", compression_level=1)) as writer:
            for token_ids, label in self._preparation.instances(texts, counts):
                writer.write(encode(token_ids, label))
        # Renamed when complete, so that a killed or repeated attempt leaves no half file, and counts once.
        tf.io.gfile.rename(unfinished, target, overwrite=True)
        with tf.io.gfile.GFile(os.path.join(self._temp, COUNTS, f"{split}-{os.path.basename(target)}"), "w") as file:
            json.dump(counts, file)
        tell(f"{os.path.basename(target)}: {counts['instances']:,} examples written")
        yield target


def read_texts(path: str, feature: str) -> Iterator[bytes]:
    """The documents of a TFRecord file in its order, one at a time."""
    for record in read_records(path):
        yield tf.train.Example.FromString(record.data).features.feature[feature].bytes_list.value[0]


class Preparation:
    """From documents to examples.

    Args:
        vocabulary: wordpieces.
        packing: how examples are made.
        split_on: further marks that end a sentence, see `modules.sentences`.
        seed: of all chance.
    """

    def __init__(self, vocabulary: Pieces, packing: Packing, split_on: Sequence[str], seed: int):
        self._packing, self._split_on, self._seed = packing, split_on, seed
        self._special = {"cls_id": vocabulary.cls_id, "sep_id": vocabulary.sep_id}
        self._tokenize = tf.function(Tokenizer(vocabulary).tokenize,
                                     input_signature=[tf.TensorSpec([None], tf.string)])

    def instances(self, texts: Iterable[bytes], counts: Counter[str]) -> Iterator[tuple[list[int], int | None]]:
        """The examples of documents, shuffled within each bucket.

        Args:
            texts: the documents, in an order that has nothing to do with what is in them.
            counts: gets what was seen and made.

        Yields:
            Token ids, special ones included, and `IS_NEXT` or `IS_RANDOM`; no label without next-sentence pairs.
        """
        last: Documents | None = None
        for bucket in _buckets(texts):
            documents, kept = self.documents(bucket)
            if not kept:
                continue
            following = documents.last()
            if last is not None:   # Else a last bucket of one document would have no other one.
                documents = documents.join(last, strangers=1)
            made = [instance for number, text in enumerate(kept)
                    for instance in self.instances_of(documents, number, text)]
            self._random(kept[0] + kept[-1]).shuffle(made)
            for instance in made:
                token_ids = token_ids_of(instance, documents, **self._special)
                counts["tokens"] += len(token_ids)
                yield token_ids, instance.label if self._packing.next_sentence else None
            counts.update(documents=len(kept), sentences=documents.starts[documents.count], instances=len(made),
                          short=sum(instance.is_short for instance in made),
                          swapped=sum(instance.label == IS_RANDOM for instance in made))
            last = following

    def instances_of(self, documents: Documents, number: int, text: bytes) -> Iterator[Instance]:
        """The examples of one of the documents, which has that text."""
        return make_instances(documents, number, self._packing, self._random(text))

    def _random(self, text: bytes) -> Random:
        own = hashlib.blake2b(text, digest_size=16, key=str(self._seed).encode()).digest()
        return Random(int.from_bytes(own, "big"))

    def documents(self, texts: Sequence[bytes]) -> tuple[Documents, list[bytes]]:
        """Tokenizes documents. Returns those that have tokens, and their texts."""
        ids: list[np.ndarray] = []
        lengths: list[np.ndarray] = []
        counts: list[int] = []
        waiting: list[list[str]] = []
        size = 0
        for text in chain(texts, [None]):
            if text is not None:
                waiting.append(split_sentences(text.decode(), self._split_on))
                counts.append(len(waiting[-1]))
                size += len(text)
            if waiting and (text is None or size >= TOKENIZED_BYTES):
                pieces = self._tokenize(tf.constant(list(chain.from_iterable(waiting)), tf.string))
                ids.append(pieces.values.numpy().astype(np.int32))
                lengths.append(pieces.row_lengths().numpy())
                waiting, size = [], 0
        documents = Documents.of(np.concatenate(ids), np.concatenate(lengths), counts, self._packing.room)
        has_tokens = np.add.reduceat(np.concatenate([*lengths, [0]]), np.cumsum([0, *counts[:-1]])) > 0
        return documents, [text for text, has, count in zip(texts, has_tokens, counts, strict=True) if has and count]


def _buckets(texts: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Documents of `BUCKET_BYTES` together, at least two where there are as many."""
    bucket: list[bytes] = []
    size = 0
    for text in texts:
        bucket.append(text)
        size += len(text)
        if size >= BUCKET_BYTES and len(bucket) > 1:
            yield bucket
            bucket, size = [], 0
    if bucket:
        yield bucket


class _Encoder:
    """Serializes examples; fills one message again and again."""

    def __init__(self) -> None:
        self._example = tf.train.Example()
        self._ids = self._example.features.feature[TOKEN_IDS].int64_list.value

    def __call__(self, token_ids: list[int], label: int | None) -> bytes:
        self._ids[:] = token_ids
        if label is not None:
            self._example.features.feature[LABEL].int64_list.value[:] = [label]
        return self._example.SerializeToString(deterministic=True)


class InstanceGen(base_beam_component.BaseBeamComponent):
    """Writes examples to pretrain BERT on.

    Args:
        examples: documents.
        settings: `{"text": feature with the document, "split_on": [marks], "seed": int, "packing": {fields of
            modules.instances.Packing}}`.
        encoder: whose wordpieces are used, to train it further.
        vocabulary: whose wordpieces are used; one of both must be there.
        gate: that the data passed.
    """

    SPEC_CLASS = InstanceGenSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(self, examples: channel.BaseChannel, settings: dict[str, Any],
                 encoder: channel.BaseChannel | None = None, vocabulary: channel.BaseChannel | None = None,
                 gate: channel.BaseChannel | None = None):
        super().__init__(InstanceGenSpec(
            examples=examples, encoder=encoder, vocabulary=vocabulary, gate=gate,
            settings=json.dumps(settings, sort_keys=True),
            transformed_examples=channel.Channel(type=standard_artifacts.Examples)))
