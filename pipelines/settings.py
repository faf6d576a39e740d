"""The settings of a run: a YAML file, overrides from the command line, and errors that name the key.

A run is data. Every key stands in one of the models below with its type, default, unit and meaning;
`docs/settings.md` is written from them (`python -m pipelines.settings`), and a test keeps the two equal.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from modules.errors import TextrailError

RUNS = Path(__file__).parent / "runs"
PROJECT = Path(__file__).parent.parent

Fraction = Annotated[float, Field(ge=0, le=1)]


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
    source: Literal["csv", "tfds"] = Field(
        ..., description="Where rows come from: `csv` (CSV and TSV files) or `tfds` (TensorFlow Datasets).")
    path: str | dict[Literal["train", "validation", "test"], str] | None = Field(
        None, description="`csv`: one file or pattern, split by a hash of the row (see `data.split`), or one for each "
        "of `train`, `validation`, `test`, kept as given. `.gz` is read as it is. A relative path counts from the "
        "settings file's folder, in `--set` from the current one.")
    text: str = Field("text", description="Column or feature with the text.")
    text_pair: str | None = Field(None, description="Column with the second text of a pair; none for single texts.")
    label: str = Field("label", description="Column or feature with the class name.")
    delimiter: Literal["auto", ",", ";", "tab"] = Field(
        "auto", description="`csv`: what separates columns; `auto` takes tab for `.tsv` and comma otherwise.")
    quoting: Literal["standard", "none"] = Field(
        "standard", description="`csv`: `standard` follows RFC 4180 (quoted commas, quotes and newlines); `none` takes "
        "quotes as ordinary characters, as GLUE's TSV files need.")
    bad_rows: Literal["stop", "skip"] = Field(
        "stop", description="A row that cannot be used (missing label, empty text, wrong number of columns, invalid "
        "UTF-8): `stop` ends the run naming file and line; `skip` counts such rows and lists them in a file.")
    split: SplitShares = Field(default_factory=SplitShares, description="`csv` with one path: shares of the splits.")
    name: str | None = Field(None, description="`tfds`: name of the data set, with its config after a slash.")
    data_dir: str | None = Field(None, description="`tfds`: folder of prepared data sets; TFDS's own default if none.")
    download: bool = Field(False, description="`tfds`: download and prepare the data set where it is missing.")
    splits: dict[Literal["train", "validation", "test"], str] = Field(
        default_factory=dict, description="`tfds`: our split → TFDS split, slices allowed (`train[:90%]`); "
        "empty keeps the official train, validation and test.")
    schema_file: str | None = Field(
        None, description="Curated schema (TFX `schema.pbtxt`); none infers one from the training split.")

    @model_validator(mode="after")
    def _source_has_what_it_reads(self) -> Data:
        if self.source == "csv" and not self.path:
            raise ValueError("`data.path` for source csv, received none; set a file, a pattern or one for each split")
        if self.source == "tfds" and not self.name:
            raise ValueError("`data.name` for source tfds, received none; set for example data.name=imdb_reviews")
        if isinstance(self.path, dict) and not {"train", "validation"} <= set(self.path):
            raise ValueError(f"`data.path` with at least train and validation, received {sorted(self.path)}")
        return self


class Gate(Section):
    max_label_drift: Fraction = Field(
        0.2, description="Largest difference of one label's share between the training split and another split, or "
        "the data of the model served now (L-infinity distance).")
    max_empty_text: Fraction = Field(0.01, description="Largest share of rows whose text is missing or blank.")
    accept: list[str] = Field(
        default_factory=list, description="Features whose anomalies are known and accepted; they are still reported.")


class Encoder(Section):
    source: str = Field("minilm", description="`minilm` (packaged all-MiniLM-L6-v2, works offline) or a folder in "
                        "HuggingFace's BERT layout: `config.json`, `vocab.txt`, `model.safetensors`.")
    sha256: str | None = Field(None, description="Expected sha256 of `model.safetensors`; checked when given.")
    lower_case: bool | None = Field(None, description="Lower-case texts; none follows the encoder's own flag.")


class Model(Section):
    max_length: int = Field(128, ge=8, le=4096, description="Longest input in tokens, [CLS] and [SEP] included.")
    pooling: Literal["cls", "mean"] = Field(
        "mean", description="What the head sees: `cls` is BERT's pooler over [CLS], `mean` the masked mean of the "
        "last layer, which sentence encoders such as MiniLM were trained for.")
    dropout: Fraction = Field(0.1, description="Dropout rate of encoder and head while training.")
    fine_tune_layers: Literal["all"] | Annotated[int, Field(ge=0)] = Field(
        "all", description="`all` trains the whole encoder, a number only its last blocks, 0 only the head.")


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
        None, ge=0, description="Largest acceptable worsening against the model served now; none compares nothing.")

    @model_validator(mode="after")
    def _bounds_something(self) -> Threshold:
        if self.min is None and self.max is None and self.max_drop is None:
            raise ValueError("at least one of min, max, max_drop: a threshold without a bound lets everything pass")
        return self


class Evaluation(Section):
    thresholds: dict[str, Threshold] = Field(
        ..., min_length=1, description="Metric → bounds that must hold before anything is pushed. Metrics: `accuracy`, "
        "`loss`, `macro_f1`, `mcc`; with two classes also `auc`; per class `precision/CLASS`, `recall/CLASS`, "
        "`f1/CLASS`.")
    length_bands: list[int] = Field(
        default_factory=lambda: [16, 32, 64, 128, 256],
        description="Upper ends, in tokens, of the length bands that metrics are sliced by.")


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
