"""The settings that every shape of run has: each key with its type, default, unit and meaning, and what fits together.

What only one shape has stands in `classification_sections`, `translation_sections` and `pretraining_sections`; `shapes`
names them all.
`docs/settings.md` is written from them (`python -m pipelines.settings_page`), and a test keeps the two equal.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from components.rows import ROLES
from pipelines.beam_sections import Beam
from pipelines.kubeflow_sections import Kubeflow
from pipelines.section import Fraction, Section

FILE_SOURCES = ("csv", "tfrecord", "grammar", "text")   # Those that read `data.path`.


def choice(literals: Sequence[str], word: str = "or") -> str:
    """`a`, `b` or `c`."""
    *most, last = (f"`{literal}`" for literal in literals)
    return f"{', '.join(most)} {word} {last}" if most else last


def known_metric(overall: Sequence[str], by_class: Sequence[str] = (), slices: bool = True) -> AfterValidator:
    """Refuses a threshold on what a model of a shape is not judged by.

    Whether a class or slice is one of the data's shows when there are data.

    Args:
        overall: metrics of all rows.
        by_class: metrics of one class, as in `recall/CLASS`.
        slices: whether metrics of all rows are also those of a slice, as in `accuracy/SLICE`.
    """
    of_a_part = (*(overall if slices else ()), *by_class)
    known = [*overall, *(f"{kind}/CLASS" for kind in by_class), *(f"{kind}/SLICE" for kind in overall if slices)]

    def check(name: str) -> str:
        kind, slash, of = name.partition("/")
        if name not in overall and not (of and kind in of_a_part):
            pattern = next((one for one in known if one.startswith(f"{kind}/")), f"{kind}/CLASS") if slash else kind
            nearest = difflib.get_close_matches(pattern, known, n=1, cutoff=0)[0]
            part = nearest.partition("/")[2]
            raise ValueError(f"a metric ({choice(known)}), received {name!r}; the nearest is "
                             f"{nearest.replace(part, of) if part and of else nearest}")
        return name

    return AfterValidator(check)


def ascending(bands: list[int]) -> list[int]:
    """Refuses upper ends that are no bands."""
    if not bands or bands != sorted(set(bands)):
        raise ValueError(f"at least one number, ascending, received {bands}")
    return bands


class SplitShares(Section):
    train: Fraction = Field(0.8, description="Share of the rows for training.")
    validation: Fraction = Field(0.1, description="Share for early stopping and, without a test split, for judging.")
    test: Fraction = Field(0.1, description="Share for judging; 0 leaves the validation split to judge.")

    @model_validator(mode="after")
    def _sum_to_one(self) -> SplitShares:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"shares that sum to 1, received train + validation + test = {total:g}")
        if self.train == 0 or self.validation == 0:
            raise ValueError("train and validation shares above 0: training and early stopping each need rows")
        return self


class Data(Section):
    """What is read by whichever shape; which sources there are is the shape's own."""

    source: str = Field(..., description="Where rows come from.")
    path: str | dict[Literal["train", "validation", "test"], str] | None = Field(
        None, description="`csv`, `tfrecord`, `text`: one file or pattern, split by a hash of the row (see "
        "`data.split`), or one for each of `train`, `validation`, `test`, kept as given. Compressed files are read as "
        "they are. "
        "`tfrecord` also: a folder that `textrail convert` wrote, with its splits. `grammar`: its YAML file. A "
        "relative path counts from the settings file's folder, in `--set` from the current one.")
    text: str = Field("text", description="Column or feature with the text.")
    columns: list[str] = Field(
        default_factory=list, description="`csv`: names of the columns, in their order, of files whose first line is a "
        "row; empty takes the first line for the names.")
    delimiter: Literal["auto", ",", ";", "tab"] = Field(
        "auto", description="`csv`: what separates columns; `auto` takes tab for `.tsv` and comma otherwise.")
    quoting: Literal["standard", "none"] = Field(
        "standard", description="`csv`: `standard` follows RFC 4180 (quoted commas, quotes and newlines); `none` takes "
        "quotes as ordinary characters, as GLUE's TSV files need.")
    bad_rows: Literal["stop", "skip"] = Field(
        "stop", description="A row that cannot be used (empty text, missing label, wrong number of columns, invalid "
        "UTF-8): `stop` ends the run naming file and line; `skip` counts such rows and lists them in a file.")
    split: SplitShares = Field(
        default_factory=SplitShares, description="Files with one path: shares of the splits.")
    name: str | None = Field(None, description="`tfds`: name of the data set, with its config after a slash.")
    data_dir: str | None = Field(None, description="`tfds`: folder of prepared data sets; TFDS's own default if none.")
    download: bool = Field(False, description="`tfds`: download and prepare the data set where it is missing.")
    splits: dict[Literal["train", "validation", "test"], str] = Field(
        default_factory=dict, description="`tfds`: our split → TFDS split, slices allowed (`train[:90%]`); "
        "empty keeps the official train, validation and test.")
    pairs: str | None = Field(None, description="`grammar`: TSV file of pairs written by hand.")
    count: int = Field(24_000, ge=1, description="`grammar`: different pairs that are made.")
    seed: int = Field(1, description="`grammar`: which pairs are made, and which split each belongs to. The run's own "
                      "`seed` changes neither.")
    schema_file: str | None = Field(
        None, description="Curated schema (TFX `schema.pbtxt`); none infers one from the training split.")

    @model_validator(mode="after")
    def _source_has_what_it_reads(self) -> Data:
        if self.source == "tfds" and not self.name:
            raise ValueError("`data.name` for source tfds, received none; set for example data.name=imdb_reviews")
        if self.source == "grammar" and isinstance(self.path, dict):
            raise ValueError(f"one grammar in `data.path`, received one for each of {', '.join(self.path)}")
        if isinstance(self.path, dict) and not {"train", "validation"} <= set(self.path):
            raise ValueError(f"`data.path` with at least train and validation, received {sorted(self.path)}")
        read = {f"data.{role}": name for role in ROLES if (name := getattr(self, role, None))}
        names = list(read.values())
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"different columns for {choice(list(read), 'and')}, received {twice[0]!r} for "
                             f"{len(twice)} of them")
        if twice := [name for name in self.columns if self.columns.count(name) > 1]:
            raise ValueError(f"different names in `data.columns`, received {twice[0]!r} {len(twice)} times")
        if missing := [name for name in names if self.columns and name not in self.columns]:
            raise ValueError(f"`data.columns` with all that is read ({', '.join(names)}), received none named "
                             f"{missing[0]!r}")
        return self


class GroupedData(Data):
    """Rows with more columns than a text."""

    source: Literal["csv", "tfds", "tfrecord", "grammar"] = Field(
        ..., description="Where rows come from: `csv` (CSV and TSV files), `tfds` (TensorFlow Datasets), `tfrecord` "
        "(serialized tf.Examples) or `grammar` (pairs of sentences that a grammar makes, and pairs written by hand).")
    slice: str | None = Field(
        None, description="Column that groups rows, such as a domain or a difficulty: metrics are also told for each "
        "of its values. No model reads it.")


class Vocabulary(Section):
    """What of a vocabulary that is learned does not depend on the kind of its pieces."""

    size: int = Field(8000, ge=16, description="Pieces in a vocabulary, special ones included; fewer where the "
                      "training split gives no more.")
    min_count: int = Field(1, ge=1, description="Words that stand less often in the training split teach nothing.")
    reserved: list[str] = Field(
        default_factory=list, description="Pieces that are in the vocabulary whatever the texts, behind the special "
        "ones; in brackets, `[NAME]`, so that no text has them.")
    max_characters: int = Field(1000, ge=1, description="Different characters that are pieces, the most frequent ones; "
                                "words with others are [UNK].")


class Gate(Section):
    max_empty_text: Fraction = Field(
        0.01, description="Largest share of the rows read whose text is missing or blank, skipped ones included.")
    max_skipped_rows: Fraction = Field(
        0.05, description="Largest share of the rows read that `data.bad_rows: skip` may leave out: of each split that "
        "has its own rows, otherwise of all.")
    accept: list[str] = Field(
        default_factory=list, description="Features whose anomalies are known and accepted; they are still reported.")


class Loading(Section):
    interleave_files: int = Field(16, ge=1, description="Files read at once.")
    interleave_records: int = Field(
        16, ge=1, description="Records taken from a file before the next one's turn.")
    parse_batch: int = Field(512, ge=1, description="Records parsed by one call.")
    parse_calls: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        "auto", description="Parsing calls at a time; `auto` lets tf.data choose.")
    cache: Literal["none", "memory", "disk"] = Field(
        "none", description="Where records stay, uncompressed, after the first pass over the files: nowhere, in "
        "`memory` (2 to 3 bytes a token), or on `disk` beside the checkpoints, until training ends.")
    prefetch: Literal["auto"] | Annotated[int, Field(ge=0)] = Field(
        "auto", description="Batches made ready while the model computes; `auto` lets tf.data choose, 0 makes none.")
    deterministic: bool = Field(
        True, description="Every pass over the files in the same order. `false` takes what comes ready first: a slow "
        "file holds up no other, but a second run differs, and a resumed one repeats and misses some examples.")
    streams: int = Field(
        1, ge=1, description="Into how many streams files are dealt, each of which makes a part of every batch. Any "
        "number of devices that divides it trains on the very same batches, each reading files of its own; "
        "`multi_worker` needs a multiple of its devices.")


class Encoder(Section):
    source: str = Field(
        "minilm", description="`minilm` (packaged all-MiniLM-L6-v2, works offline); a folder with a BERT as "
        "HuggingFace (`model.safetensors`), google-research/bert or TF Model Garden (`bert_model.ckpt.index`) lay it "
        "out, or a SavedModel; a model that a run of this project pushed, or the folder that it pushes to, whose "
        "newest version counts; `hf://owner/name` or `hf://owner/name@revision`; a handle that begins with "
        "`https://tfhub.dev/` or `https://www.kaggle.com/models/`.")
    sha256: str | None = Field(
        None, description="Expected sha256 of the weights, 64 hexadecimal digits; checked when given. The weights are "
        "`model.safetensors`, of checkpoints and SavedModels the file `….data-00000-of-00001`; several files count as "
        "one, in the order of their names.")
    lower_case: bool | None = Field(
        None, description="Lower-case texts; none follows the encoder's own flag, or, in a release without one, "
        "whether the vocabulary has capitals.")
    config: str | None = Field(
        None, description="A `config.json` or `bert_config.json` for a checkpoint or SavedModel that lacks one; comes "
        "before its own.")
    preprocessing: str | None = Field(
        None, description="Where the vocabulary is, if not beside a checkpoint or in a SavedModel: a `vocab.txt`, or a "
        "folder or handle of the preprocessing SavedModel.")
    @field_validator("sha256")
    @classmethod
    def _is_a_sha256(cls, digits: str | None) -> str | None:
        if digits is not None and not re.fullmatch("[0-9a-fA-F]{64}", digits):
            raise ValueError("64 hexadecimal digits")
        return digits


class Training(Section):
    epochs: int = Field(3, ge=1, description="Passes over the training split.")
    batch_tokens: int = Field(2048, ge=64, description="Tokens in a batch, padding included: long texts make small "
                              "batches and short texts large ones.")
    max_batch: int = Field(64, ge=1, description="Most examples in a batch, however short they are.")
    bucket_step: int = Field(16, ge=1, description="Width of the length buckets in tokens.")
    shuffle_buffer: int = Field(20_000, ge=1, description="Examples held for shuffling.")
    loading: Loading = Field(default_factory=Loading, description="How examples get from files into batches, see "
                             "`docs/loading.md`.")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Arithmetic of the layers; `auto` takes bfloat16 where the device is fast at it.")
    xla: bool = Field(False, description="Compile the training step with XLA; of `one_device` alone.")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's decay; not on biases and layer norms.")
    clip_norm: float = Field(1.0, ge=0, description="Largest global gradient norm; 0 does not clip.")
    patience: int = Field(2, ge=1, description="Epochs without improvement before training stops.")
    evaluations_per_epoch: int = Field(1, ge=1, description="Validation rounds in an epoch.")
    checkpoint_seconds: float = Field(120, gt=0, description="Seconds between the checkpoints that a killed training "
                                      "resumes from.")
    strategy: Literal["one_device", "mirrored", "multi_worker", "tpu"] = Field(
        "one_device", description="`one_device`, `mirrored` (all GPUs of this machine), `multi_worker` (processes on "
        "several machines, see `docs/cluster.md`) or `tpu`.")

    @model_validator(mode="after")
    def _one_device_is_compiled(self) -> Training:
        if self.xla and self.strategy != "one_device":
            raise ValueError("`training.xla` to be false with any other training.strategy than one_device, received "
                             f"true for {self.strategy}")
        return self


class Threshold(Section):
    min: float | None = Field(None, description="Smallest acceptable value.")
    max: float | None = Field(None, description="Largest acceptable value.")
    max_drop: float | None = Field(
        None, ge=0, description="Largest acceptable worsening against the model served now; none compares nothing. "
        "Stands beside `min` or `max`, for the first model is compared with nothing.")

    @model_validator(mode="after")
    def _bounds_something(self) -> Threshold:
        if self.min is None and self.max is None:
            raise ValueError("at least one of min, max: without a bound the first model passes whatever its quality")
        return self


class Evaluation(Section):
    overall: ClassVar[Sequence[str]] = ()   # Metrics of all rows and of slices.

    thresholds: dict[str, Threshold] = Field(..., min_length=1, description="Metric → bounds.")


class Push(Section):
    destination: str | None = Field(
        None, description="Folder that a model server watches; none is `pushed/` in the run's workspace.")
    keep: int = Field(5, ge=1, description="Versions kept in the destination; older ones are deleted after a push.")


class Card(Section):
    intended_use: str = Field("", description="What the model is for, and what it is not for.")
    limits: str = Field("", description="Where it is known to fail.")
    licence: str = Field("", description="Under which the model may be used.")
    data_licence: str = Field("", description="Of the data that it was trained on.")
    contact: str = Field("", description="Whom to ask.")


class DataSettings(Section):
    """The keys of `Settings` that decide which rows are read, in which order they are written, and where that is done.
    """

    shape: str = Field(..., description="Kind of pipeline.")
    seed: int = Field(42, description="Seed of shuffling, dropout and new weights.")
    data: Data = Field(..., description="What is read.")
    beam: Beam = Field(default_factory=Beam, description="Where the data work is done, see `docs/cluster.md`; changes "
                       "neither what comes out nor what is taken from the cache.")



class Settings(DataSettings):
    """What code that knows no shape goes by; the models of the shapes say more of each section."""

    description: str = Field("", description="One line for `textrail list`.")
    gate: Gate = Field(default_factory=Gate, description="What stops a run before training.")
    training: Training = Field(default_factory=Training, description="How the model is trained.")
    evaluation: Evaluation = Field(..., description="What a model must reach to be pushed.")
    push: Push = Field(default_factory=Push, description="Where it goes.")
    kubeflow: Kubeflow = Field(default_factory=Kubeflow, description="What its pods get on a cluster, see "
                               "`docs/kubeflow.md`; trains nothing anew.")
    card: Card = Field(default_factory=Card, description="What the model card of the report says; trains nothing anew.")

    @model_validator(mode="after")
    def _slices_have_a_column(self) -> Settings:
        sliced = [name for name in self.evaluation.thresholds if name.partition("/")[0] in self.evaluation.overall
                  and "/" in name]
        if sliced and not getattr(self.data, "slice", None):
            raise ValueError(f"`data.slice` to name the column that evaluation.thresholds.{sliced[0]} is about, "
                             "received none")
        return self

    @property
    def start(self) -> str:
        """What training starts from, in a word or two."""
        raise NotImplementedError

    @property
    def question(self) -> str:
        """What a person writes behind `textrail predict RUN`."""
        return '"…"'
