"""The settings of a run, as models: every key with its type, default, unit and meaning, and what fits together.

`docs/settings.md` is written from them (`python -m pipelines.settings_page`), and a test keeps the two equal.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from components.verdict import metric_names

FILE_SOURCES = ("csv", "tfrecord")   # Those that read `data.path`.

Fraction = Annotated[float, Field(ge=0, le=1)]


def choice(literals: Sequence[str]) -> str:
    """`a`, `b` or `c`."""
    *most, last = (f"`{literal}`" for literal in literals)
    return f"{', '.join(most)} or {last}" if most else last


def _known_metric(name: str) -> str:
    """Refuses what no classifier is judged by; whether a class is one of the data's shows when there are data."""
    known = list(dict.fromkeys(metric_names(["CLASS", "CLASS"])))
    kind, slash, of = name.partition("/")
    if (f"{kind}/CLASS" if of else name) not in known:
        nearest = difflib.get_close_matches(f"{kind}/CLASS" if slash else name, known, n=1, cutoff=0)[0]
        raise ValueError(f"a metric ({choice(known)}), received {name!r}; the nearest is "
                         f"{nearest.replace('CLASS', of or 'CLASS')}")
    return name


Metric = Annotated[str, AfterValidator(_known_metric)]


class Section(BaseModel):
    """A group of keys. Unknown keys are errors, so that a typing mistake is never taken for a default."""

    model_config = ConfigDict(extra="forbid", validate_default=True)


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
    source: Literal["csv", "tfds", "tfrecord"] = Field(
        ..., description="Where rows come from: `csv` (CSV and TSV files), `tfds` (TensorFlow Datasets) or `tfrecord` "
        "(serialized tf.Examples).")
    path: str | dict[Literal["train", "validation", "test"], str] | None = Field(
        None, description="`csv`, `tfrecord`: one file or pattern, split by a hash of the row (see `data.split`), or "
        "one for each of `train`, `validation`, `test`, kept as given. Compressed files are read as they are. "
        "`tfrecord` also: a folder that `textrail convert` wrote, with its splits. A relative path counts from the "
        "settings file's folder, in `--set` from the current one.")
    text: str = Field("text", description="Column or feature with the text.")
    text_pair: str | None = Field(None, description="Column with the second text of a pair; none for single texts.")
    label: str = Field("label", description="Column or feature with the class name.")
    label_names: dict[str, str] = Field(
        default_factory=dict, description="Label in the data → class name, where labels are numbers or codes: "
        "`{0: negative, 1: positive}`. A class's own name stays, so it may not be the label of another class; any "
        "other label makes a row that cannot be used; empty takes labels as they are.")
    delimiter: Literal["auto", ",", ";", "tab"] = Field(
        "auto", description="`csv`: what separates columns; `auto` takes tab for `.tsv` and comma otherwise.")
    quoting: Literal["standard", "none"] = Field(
        "standard", description="`csv`: `standard` follows RFC 4180 (quoted commas, quotes and newlines); `none` takes "
        "quotes as ordinary characters, as GLUE's TSV files need.")
    bad_rows: Literal["stop", "skip"] = Field(
        "stop", description="A row that cannot be used (missing label, empty text, wrong number of columns, invalid "
        "UTF-8): `stop` ends the run naming file and line; `skip` counts such rows and lists them in a file.")
    split: SplitShares = Field(
        default_factory=SplitShares, description="`csv`, `tfrecord` with one path: shares of the splits.")
    name: str | None = Field(None, description="`tfds`: name of the data set, with its config after a slash.")
    data_dir: str | None = Field(None, description="`tfds`: folder of prepared data sets; TFDS's own default if none.")
    download: bool = Field(False, description="`tfds`: download and prepare the data set where it is missing.")
    splits: dict[Literal["train", "validation", "test"], str] = Field(
        default_factory=dict, description="`tfds`: our split → TFDS split, slices allowed (`train[:90%]`); "
        "empty keeps the official train, validation and test.")
    schema_file: str | None = Field(
        None, description="Curated schema (TFX `schema.pbtxt`); none infers one from the training split.")

    @field_validator("label_names")
    @classmethod
    def _name_no_label_of_another_class(cls, names: dict[str, str]) -> dict[str, str]:
        # Rows that were converted have their classes' names: {0: "1", 1: "2"} would name them a second time.
        if twice := [name for name in names.values() if names.get(name, name) != name]:
            raise ValueError(f"names of classes that are not labels of others, received {twice[0]!r} as both")
        return names

    @model_validator(mode="after")
    def _source_has_what_it_reads(self) -> Data:
        if self.source in FILE_SOURCES and not self.path:
            raise ValueError(f"`data.path` for source {self.source}, received none; set a file, a pattern or one for "
                             "each split")
        if self.source == "tfds" and not self.name:
            raise ValueError("`data.name` for source tfds, received none; set for example data.name=imdb_reviews")
        if isinstance(self.path, dict) and not {"train", "validation"} <= set(self.path):
            raise ValueError(f"`data.path` with at least train and validation, received {sorted(self.path)}")
        columns = [name for name in (self.text, self.text_pair, self.label) if name is not None]
        if twice := [name for name in columns if columns.count(name) > 1]:
            raise ValueError(f"different columns for `data.text`, `data.text_pair` and `data.label`, "
                             f"received {twice[0]!r} for {len(twice)} of them")
        return self


class Gate(Section):
    max_label_drift: Fraction = Field(
        0.2, description="Largest difference of one label's share between the training split and another split, or "
        "the data of the model served now (L-infinity distance).")
    max_empty_text: Fraction = Field(
        0.01, description="Largest share of the rows read whose text is missing or blank, skipped ones included.")
    max_skipped_rows: Fraction = Field(
        0.05, description="Largest share of the rows read that `data.bad_rows: skip` may leave out: of each split that "
        "has its own rows, otherwise of all.")
    accept: list[str] = Field(
        default_factory=list, description="Features whose anomalies are known and accepted; they are still reported.")


class Encoder(Section):
    source: str = Field(
        "minilm", description="`minilm` (packaged all-MiniLM-L6-v2, works offline); a folder with a BERT as "
        "HuggingFace (`model.safetensors`), google-research/bert or TF Model Garden (`bert_model.ckpt.index`) lay it "
        "out, or a SavedModel; `hf://owner/name` or `hf://owner/name@revision`; a handle that begins with "
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
    opaque: bool = Field(
        False, description="Fine-tune a SavedModel as it is, of any architecture that has BERT's three inputs: in its "
        "own precision, whole or not at all, and without the exports that need a BERT.")
    head: Literal["new", "keep"] = Field(
        "new", description="The layer that tells the classes apart: a `new` one, or, where the source is a classifier "
        "of the same classes, `keep` its own. `model.pooling` must be what it was trained on.")

    @field_validator("sha256")
    @classmethod
    def _is_a_sha256(cls, digits: str | None) -> str | None:
        if digits is not None and not re.fullmatch("[0-9a-fA-F]{64}", digits):
            raise ValueError("64 hexadecimal digits")
        return digits


class Model(Section):
    max_length: int = Field(128, ge=8, le=4096, description="Longest input in tokens, [CLS] and [SEP] included.")
    truncate: Literal["end", "middle"] = Field(
        "end", description="What a longer text loses: its `end`, or its `middle`, which keeps the first quarter and "
        "the last three quarters of the tokens (verdicts often stand at the end). Of pairs the longer text loses its "
        "end.")
    pooling: Literal["cls", "mean"] = Field(
        "mean", description="What the head sees: `cls` is BERT's pooler over [CLS], `mean` the masked mean of the "
        "last layer, which sentence encoders such as MiniLM were trained for.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout rate of encoder and head while training.")
    fine_tune_layers: Literal["all"] | Annotated[int, Field(ge=0)] = Field(
        "all", description="`all` trains the whole encoder, a number only its last blocks, 0 only the head.")


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


class Training(Section):
    epochs: int = Field(3, ge=1, description="Passes over the training split.")
    learning_rate: float = Field(1e-4, gt=0, description="Peak learning rate.")
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="Decay after the warmup, to 0.")
    warmup: Fraction = Field(0.1, description="Share of all steps with linear warmup.")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's decay; not on biases and layer norms.")
    clip_norm: float = Field(1.0, ge=0, description="Largest global gradient norm; 0 does not clip.")
    batch_tokens: int = Field(2048, ge=64, description="Tokens in a batch, padding included: long texts make small "
                              "batches and short texts large ones.")
    max_batch: int = Field(64, ge=1, description="Most examples in a batch, however short they are.")
    bucket_step: int = Field(16, ge=1, description="Width of the length buckets in tokens.")
    shuffle_buffer: int = Field(20_000, ge=1, description="Examples held for shuffling.")
    loading: Loading = Field(default_factory=Loading, description="How examples get from files into batches, see "
                             "`docs/loading.md`.")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Arithmetic of the layers; `auto` takes bfloat16 where the device is fast at it.")
    xla: bool = Field(False, description="Compile the training step with XLA.")
    early_stopping_metric: Literal["loss", "accuracy"] = Field(
        "accuracy", description="Validation metric whose best epoch's weights are kept.")
    patience: int = Field(2, ge=1, description="Epochs without improvement before training stops.")
    evaluations_per_epoch: int = Field(1, ge=1, description="Validation rounds in an epoch.")
    checkpoint_seconds: float = Field(120, gt=0, description="Seconds between the checkpoints that a killed training "
                                      "resumes from.")
    strategy: Literal["one_device", "mirrored", "tpu"] = Field(
        "one_device", description="`one_device`, `mirrored` (all GPUs of this machine) or `tpu`.")


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
    thresholds: dict[Metric, Threshold] = Field(
        ..., min_length=1, description="Metric → bounds that must hold before anything is pushed. Metrics: `accuracy`, "
        "`loss`, `macro_f1`, `mcc`; with two classes also `auc`; per class `precision/CLASS`, `recall/CLASS`, "
        "`f1/CLASS`.")
    length_bands: list[Annotated[int, Field(ge=1)]] = Field(
        default_factory=lambda: [16, 32, 64, 128, 256],
        description="Upper ends, in tokens and ascending, of the length bands that metrics are sliced by.")

    overlap_bands: list[Annotated[int, Field(ge=0, le=99)]] = Field(
        default_factory=lambda: [25, 50, 75],
        description="Pairs: upper ends, in percent and ascending, of the bands of word overlap that metrics are sliced "
        "by, alone and with the label. The overlap of two texts is the share of their distinct words that stand in "
        "both.")

    @field_validator("length_bands", "overlap_bands")
    @classmethod
    def _ascend(cls, bands: list[int]) -> list[int]:
        if not bands or bands != sorted(set(bands)):
            raise ValueError(f"at least one number, ascending, received {bands}")
        return bands


class Push(Section):
    destination: str | None = Field(
        None, description="Folder that a model server watches; none is `pushed/` in the run's workspace.")
    keep: int = Field(5, ge=1, description="Versions kept in the destination; older ones are deleted after a push.")


class Settings(Section):
    shape: Literal["classification"] = Field("classification", description="Kind of pipeline.")
    description: str = Field("", description="One line for `textrail list`.")
    seed: int = Field(42, description="Seed of shuffling, dropout and new weights.")
    data: Data = Field(..., description="What is read.")
    gate: Gate = Field(default_factory=Gate, description="What stops a run before training.")
    encoder: Encoder = Field(default_factory=Encoder, description="The pretrained BERT.")
    model: Model = Field(default_factory=Model, description="What is built on it.")
    training: Training = Field(default_factory=Training, description="How it is trained.")
    evaluation: Evaluation = Field(..., description="What a model must reach to be pushed.")
    push: Push = Field(default_factory=Push, description="Where it goes.")

    @model_validator(mode="after")
    def _an_opaque_encoder_stays_as_it_is(self) -> Settings:
        allowed: dict[str, tuple[Any, list]] = {
            "encoder.head": (self.encoder.head, ["new"]),
            "model.fine_tune_layers": (self.model.fine_tune_layers, ["all", 0]),
            "training.precision": (self.training.precision, ["auto", "float32"])}
        for key, (value, values) in allowed.items():
            if self.encoder.opaque and value not in values:
                raise ValueError(f"{key} to be {' or '.join(map(str, values))} with encoder.opaque=true, whose inside "
                                 f"nobody knows, received {value}")
        return self


class DataSettings(Section):
    """The keys of `Settings` that decide which rows are read, and in which order they are written."""

    seed: int = Settings.model_fields["seed"].default
    data: Data
