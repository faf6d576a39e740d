"""VocabularyGen: the pieces of words that a model reads and writes, learned from the training split.

Words are counted where the texts lie, by the very function that the model's graph splits texts with; only counts come
together. Learning, the one thing that is not spread over workers, needs the counts of the frequent words and no more:
how many it holds is bounded, whatever the size of the corpus. How well all words are covered is measured by workers.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import apache_beam as beam
import tensorflow as tf
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.types import artifact_utils, channel, component_spec, standard_artifacts

from components.artifacts import DataBlessing, Vocabulary
from components.wordpieces import INSIDE, Coverage, add_up, learn, measure
from modules import subwords, tokenization
from modules.errors import TextrailError
from modules.progress import report as tell

REPORT = "report.json"
BATCH = 512                # Rows that are in memory at a time, with their words.
HELD_WORDS = 500_000       # Different words that a worker counts before it hands them on.
MOST_WORDS = 1_000_000     # Different words that pieces are learned from, the most frequent ones: about 1 GB.
LONGEST_WORD = 100         # Characters; of a longer one (an address, a language without spaces) each such part counts.
LONGEST_SHOWN = 10         # Pieces in the report.
READ_BYTES = 1 << 22       # Of a file of counts, at a time.
ALL, FREQUENT, COVERAGE = "all", "frequent", "coverage"   # Folders of counts, and of what is measured with them.


class Codec(Protocol):
    """What `modules.subwords.Subwords` and BERT's tokenizer have in common."""

    def words(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Texts [batch] string to words [batch, (words)] string."""


class Kind(NamedTuple):
    """A kind of vocabulary.

    Attributes:
        specials: the first pieces.
        always: characters that are in, whatever the words.
        codec: settings of `vocabulary` → what splits texts into words.
        write: pieces, settings of `vocabulary` and folder → the checked files in it.
        folders: folders of the artifact → keys of `data` whose columns each is learned from.
    """

    specials: tuple[str, ...]
    always: tuple[str, ...]
    codec: Callable[[Mapping[str, Any]], Codec]
    write: Callable[[Sequence[str], Mapping[str, Any], str], None]
    folders: Mapping[str, tuple[str, ...]]


def _subwords(pieces: Sequence[str], settings: Mapping[str, Any]) -> subwords.Subwords:
    return subwords.Subwords(tuple(pieces), settings["lower_case"], settings["normalization"])


def _bert(pieces: Sequence[str], settings: Mapping[str, Any]) -> tokenization.Vocabulary:
    return tokenization.Vocabulary(tuple(pieces), settings["lower_case"])


KINDS = {
    "subwords": Kind(
        subwords.SPECIALS, (subwords.JOINER,), lambda settings: _subwords(subwords.SPECIALS, settings),
        lambda pieces, settings, folder: _subwords(pieces, settings).write(folder),
        {"source": ("text",), "target": ("target",)}),
    "bert": Kind(
        tokenization.SPECIALS, (), lambda settings: tokenization.Tokenizer(_bert(tokenization.SPECIALS, settings)),
        lambda pieces, settings, folder: _bert(pieces, settings).write(folder),
        {"": ("text", "text_pair")}),
}


class Executor(base_beam_executor.BaseBeamExecutor):
    """Counts words with Beam, learns pieces from the counts and writes what was checked."""

    def Do(self, input_dict: dict[str, list], output_dict: dict[str, list], exec_properties: dict[str, Any]) -> None:
        """Writes the `vocabulary` artifact.

        Args:
            input_dict: `examples` in gzipped TFRecords.
            output_dict: `vocabulary`.
            exec_properties: `settings`, JSON; see `VocabularyGen`.

        Raises:
            TextrailError: a column has no words, the size does not even do for the characters, or a reserved piece
                stands twice or could be written in a text.
        """
        settings = json.loads(exec_properties["settings"])
        kind, vocabulary = KINDS[settings.get("kind", "subwords")], settings["vocabulary"]
        folders = {folder: [settings["data"][key] for key in keys if settings["data"].get(key)]
                   for folder, keys in kind.folders.items()}
        reserved = check_reserved([*kind.specials, *vocabulary["reserved"]])
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        output = artifact_utils.get_single_uri(output_dict["vocabulary"])
        temp = os.path.join(output, "temp")   # Where every worker reaches it.
        tf.io.gfile.makedirs(temp)
        try:
            files = sorted(tf.io.gfile.glob(os.path.join(artifact_utils.get_split_uri([examples], "train"), "*")))
            groups = group_columns(folders, vocabulary["joint"] if len(folders) > 1 else False)
            with self._make_beam_pipeline() as pipeline:
                count_words(pipeline, files, groups, settings, temp)
            learned, reports = {}, {}
            for group in dict.fromkeys(groups.values()):
                columns = [column for column, other in groups.items() if other == group]
                frequent = dict(count for path in _files_of(temp, FREQUENT, group) for count in read_counts(path))
                learned[group], reports[group] = learn_from(frequent, columns, reserved, kind, vocabulary)
            with self._make_beam_pipeline() as pipeline:
                measure_words(pipeline, learned, temp)
            for group, pieces in learned.items():
                reports[group] = describe(_read_coverage(temp, group), pieces, len(reserved)) | reports[group]
            unfinished = os.path.join(temp, "vocabulary")
            for folder, columns in folders.items():
                tf.io.gfile.makedirs(os.path.join(unfinished, folder))
                kind.write(learned[groups[columns[0]]], vocabulary, os.path.join(unfinished, folder))
            told = {folder or "text": reports[groups[columns[0]]] for folder, columns in folders.items()}
            with tf.io.gfile.GFile(os.path.join(unfinished, REPORT), "w") as file:
                file.write(json.dumps(told, indent=1, ensure_ascii=False) + "\n")
            # The report comes last, so that a folder that has one is complete.
            for name in [*(folder for folder in folders if folder), *_file_names(unfinished)]:
                tf.io.gfile.rename(os.path.join(unfinished, name), os.path.join(output, name), overwrite=True)
        finally:
            tf.io.gfile.rmtree(temp)
        for name, report in told.items():
            tell(sentence(name, report), lasting=True, **{name: report["size"]})


def _file_names(folder: str) -> list[str]:
    names = [name for name in tf.io.gfile.listdir(folder) if not tf.io.gfile.isdir(os.path.join(folder, name))]
    return sorted(names, key=lambda name: (name == REPORT, name))


def group_columns(folders: Mapping[str, Sequence[str]], joint: bool) -> dict[str, str]:
    """Column → the group of columns whose words are counted together: {"pt": "source", "en": "target"}.

    Columns of one folder share a group, and all do if the vocabulary is a joint one.
    """
    first = next(iter(folders))
    return {column: first if joint else folder for folder, columns in folders.items() for column in columns}


def check_reserved(reserved: Sequence[str]) -> list[str]:
    """Special pieces and those of the settings, if they can stand in one vocabulary.

    Raises:
        TextrailError: one stands twice, or is none that no text can have.
    """
    for i, piece in enumerate(reserved):
        if piece in reserved[:i]:
            raise TextrailError("each piece of vocabulary.reserved once, and none of the special ones "
                                "(they are in any vocabulary)", f"{piece!r} twice", "Remove it from the list.")
        if not subwords.is_reserved(piece) or len(piece.split()) != 1:
            raise TextrailError("pieces like [NAME] in vocabulary.reserved, in brackets and without spaces, so that no "
                                "text can have them", repr(piece), "Put brackets around it, or leave it to be learned "
                                "from the texts.")
    return list(reserved)


def count_words(pipeline: beam.Pipeline, files: Sequence[str], groups: Mapping[str, str], settings: Mapping[str, Any],
                folder: str) -> None:
    """Counts the words of files into `folder/all/GROUP-*`, a line `COUNT WORD` for each.

    Those that pieces are learned from stand in `folder/frequent/GROUP-*` once more: of `vocabulary.min_count` at least,
    and the most frequent `MOST_WORDS` where there are more.

    Args:
        pipeline: what is counted with.
        files: gzipped TFRecords of tf.Examples.
        groups: see `group_columns`.
        settings: of `VocabularyGen`.
        folder: on a file system that every worker reaches.
    """
    counts = (pipeline
              | "Files" >> beam.Create(files)
              | "SpreadFiles" >> beam.Reshuffle()
              | "CountFile" >> beam.ParDo(_CountFile(dict(groups), dict(settings)))
              | "AddUp" >> beam.CombinePerKey(sum))
    for group in dict.fromkeys(groups.values()):
        of_group = counts | f"Of{group}" >> beam.Filter(lambda item, group=group: item[0][0] == group)
        least = (of_group
                 | f"Counts{group}" >> beam.Values()
                 | f"WordsOfACount{group}" >> beam.combiners.Count.PerElement()
                 | f"AllCounts{group}" >> beam.combiners.ToDict()
                 | f"Least{group}" >> beam.Map(least_count, settings["vocabulary"]["min_count"], MOST_WORDS))
        frequent = of_group | f"Frequent{group}" >> beam.Filter(
            lambda item, least: item[1] >= least, beam.pvalue.AsSingleton(least))
        for name, some in ((ALL, of_group), (FREQUENT, frequent)):
            _ = (some
                 | f"Lines{name}{group}" >> beam.Map(lambda item: b"%d %s" % (item[1], item[0][1]))
                 | f"Write{name}{group}" >> beam.io.WriteToText(os.path.join(folder, name, group or "text"),
                                                                coder=beam.coders.BytesCoder()))


def least_count(words: Mapping[int, int], min_count: int, most: int) -> int:
    """How often a word must stand in the texts for pieces to be learned from it.

    Words that stand there equally often go together, so that no chance decides; the most frequent ones always stay.

        >>> least_count({1: 50, 2: 20, 5: 4, 9: 1}, min_count=1, most=30)
        2

    Args:
        words: count → how many different words have it.
        min_count: least count that is wanted.
        most: different words wanted.
    """
    least, total = max(min_count, max(words, default=0)), 0
    for count in sorted(words, reverse=True):
        total += words[count]
        if total > most or count < min_count:
            break
        least = count
    return least


def measure_words(pipeline: beam.Pipeline, learned: Mapping[str, Sequence[str]], folder: str) -> None:
    """Measures how well pieces cover all counted words, the rare ones too, into `folder/coverage/GROUP-*`.

    Args:
        pipeline: what is measured with.
        learned: group → pieces.
        folder: of `count_words`.
    """
    for group, pieces in learned.items():
        _ = (pipeline
             | f"Files{group}" >> beam.Create(_files_of(folder, ALL, group))
             | f"SpreadFiles{group}" >> beam.Reshuffle()
             | f"Measure{group}" >> beam.Map(lambda path, pieces=pieces: tuple(measure(read_counts(path), pieces)))
             | f"AddUp{group}" >> beam.CombineGlobally(lambda parts: tuple(add_up(parts)))
             | f"AsText{group}" >> beam.Map(json.dumps)
             | f"Write{group}" >> beam.io.WriteToText(os.path.join(folder, COVERAGE, group or "text")))


def _files_of(folder: str, name: str, group: str) -> list[str]:
    return sorted(tf.io.gfile.glob(os.path.join(folder, name, f"{group or 'text'}-*")))


def _read_coverage(folder: str, group: str) -> Coverage:
    parts = []
    for path in _files_of(folder, COVERAGE, group):
        with tf.io.gfile.GFile(path) as file:
            parts += [Coverage(*json.loads(line)) for line in file]
    return add_up(parts)


class _CountFile(beam.DoFn):
    """A file of examples to ((group, word), count); a word comes more than once if the file has very many."""

    def __init__(self, groups: dict[str, str], settings: dict[str, Any]):
        self._groups, self._settings = groups, settings

    def setup(self) -> None:
        codec = KINDS[self._settings.get("kind", "subwords")].codec(self._settings["vocabulary"])
        features = {column: tf.io.RaggedFeature(tf.string) for column in self._groups}

        def words(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
            parsed = tf.io.parse_example(serialized, features)
            return {column: codec.words(texts.values).values for column, texts in parsed.items()}  # [words] string

        self._words = words

    def process(self, file: str) -> Iterator[tuple[tuple[str, bytes], int]]:
        held: Counter[tuple[str, bytes]] = Counter()
        batches = tf.data.TFRecordDataset(file, "GZIP").batch(BATCH).map(self._words).prefetch(1)
        for batch in batches.as_numpy_iterator():
            for column, words in batch.items():
                group = self._groups[column]
                for word, count in Counter(words.tolist()).items():
                    for part in word_parts(word):
                        held[group, part] += count
            if len(held) > HELD_WORDS:
                yield from held.items()
                held.clear()
        yield from held.items()


def word_parts(word: bytes) -> list[bytes]:
    """A word, or what it is cut into: parts of LONGEST_WORD characters."""
    if len(word) <= LONGEST_WORD:
        return [word]
    text = word.decode("utf-8")
    return [text[i:i + LONGEST_WORD].encode("utf-8") for i in range(0, len(text), LONGEST_WORD)]


def read_counts(path: str) -> Iterator[tuple[str, int]]:
    """The words of a file of `count_words` with their counts, in no order."""
    with tf.io.gfile.GFile(path, "rb") as file:
        rest = b""
        while read := file.read(READ_BYTES):
            *lines, rest = (rest + read).split(b"\n")   # A word may be what else ends a line.
            for line in lines:
                count, word = line.split(b" ", 1)
                yield word.decode("utf-8"), int(count)


def learn_from(counts: Mapping[str, int], columns: Sequence[str], reserved: Sequence[str], kind: Kind,
               settings: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """The pieces of frequent words, and what the report says of learning them.

    Args:
        counts: word → how often it stands in the texts.
        columns: where the words are from, for errors.
        reserved: pieces that come first.
        kind: of the vocabulary.
        settings: of the section `vocabulary`.

    Raises:
        TextrailError: there are no words, or `vocabulary.size` does not even do for the characters.
    """
    names = " and ".join(repr(column) for column in columns)
    if not counts:
        raise TextrailError(f"words in the column {names} of the training split",
                            f"none that stands {settings['min_count']} times or more",
                            "Check the rows of the column, or lower vocabulary.min_count.")
    try:
        learned = learn(counts, settings["size"], reserved, settings["max_characters"], kind.always)
    except ValueError as error:
        raise TextrailError(f"a vocabulary.size that holds the characters of {names}",
                            f"{settings['size']}, but there are {error}",
                            "Raise vocabulary.size, or lower vocabulary.max_characters.") from error
    return learned.pieces, {
        "wanted": settings["size"], "reason": learned.reason, "characters": len(learned.characters),
        "learned_from": len(counts), "least_count": min(counts.values())}


def learn_pieces(counts: Mapping[str, int], columns: Sequence[str], reserved: Sequence[str], kind: Kind,
                 settings: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """The pieces of counted words and the whole report on them, of no more words than one process holds.

    As `VocabularyGen` comes to them; arguments and errors are those of `learn_from`, with all words in `counts`.
    """
    least = least_count(Counter(counts.values()), settings["min_count"], MOST_WORDS)
    frequent = {word: count for word, count in counts.items() if count >= least}
    pieces, report = learn_from(frequent, columns, reserved, kind, settings)
    return pieces, describe(measure(counts.items(), pieces), pieces, len(reserved)) | report


def describe(coverage: Coverage, pieces: Sequence[str], reserved: int) -> dict[str, Any]:
    """What the report says of a vocabulary; every word of the training split counts, the rare ones too.

    Returns:
        `size`, `words`, `tokens_per_word`, `unknown_share` (of words that are [UNK]), `characters_covered` (share of
        the characters in all words), `longest` (pieces).
    """
    longest = sorted(pieces[reserved:], key=lambda piece: (-len(piece.removeprefix(INSIDE)), piece))
    return {"size": len(pieces), "words": coverage.words, "tokens_per_word": coverage.tokens / coverage.words,
            "unknown_share": coverage.unknown / coverage.words,
            "characters_covered": coverage.covered / coverage.characters, "longest": longest[:LONGEST_SHOWN]}


def sentence(name: str, report: Mapping[str, Any]) -> str:
    """What the terminal shows of a report: "source: 8,000 pieces, 1.16 tokens a word, 0.00% of words [UNK]"."""
    fewer = f" of {report['wanted']:,} ({report['reason']})" if report["reason"] else ""
    return (f"{name}: {report['size']:,} pieces{fewer}, {report['tokens_per_word']:.2f} tokens a word, "
            f"{report['unknown_share']:.2%} of words [UNK]")


class VocabularyGenSpec(component_spec.ComponentSpec):
    PARAMETERS: ClassVar = {"settings": component_spec.ExecutionParameter(type=str)}
    INPUTS: ClassVar = {
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "gate": component_spec.ChannelParameter(type=DataBlessing, optional=True),
    }
    OUTPUTS: ClassVar = {"vocabulary": component_spec.ChannelParameter(type=Vocabulary)}


class VocabularyGen(base_beam_component.BaseBeamComponent):
    """Learns the vocabularies of a run.

    Args:
        examples: whose split train is read.
        gate: that the data passed, so that nothing is learned before.
        settings: `{"data": {"text": column, "target": column}, "vocabulary": settings of that section}`; with
            `"kind": "bert"`, and columns `text` and maybe `text_pair`, one vocabulary of a BERT.
    """

    SPEC_CLASS = VocabularyGenSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(self, examples: channel.BaseChannel, settings: dict[str, Any],
                 gate: channel.BaseChannel | None = None):
        super().__init__(VocabularyGenSpec(examples=examples, gate=gate, settings=json.dumps(settings, sort_keys=True),
                                           vocabulary=channel.Channel(type=Vocabulary)))
