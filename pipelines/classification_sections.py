"""The settings that only a classification run has: labels, the pretrained encoder and what is built on it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from components.verdict import metric_names
from pipelines import sections
from pipelines.sections import Fraction, Section, Threshold, ascending, known_metric

OVERALL = [name for name in metric_names(["", ""]) if "/" not in name]
BY_CLASS = [name.partition("/")[0] for name in metric_names([""]) if "/" in name]
Metric = Annotated[str, known_metric(OVERALL, BY_CLASS)]


class Data(sections.GroupedData):
    text_pair: str | None = Field(None, description="Column with the second text of a pair; none for single texts.")
    label: str = Field("label", description="Column or feature with the class name.")
    label_names: dict[str, str] = Field(
        default_factory=dict, description="Label in the data → class name, where labels are numbers or codes: "
        "`{0: negative, 1: positive}`. A class's own name stays, so it may not be the label of another class; any "
        "other label makes a row that cannot be used; empty takes labels as they are.")

    @field_validator("label_names")
    @classmethod
    def _name_no_label_of_another_class(cls, names: dict[str, str]) -> dict[str, str]:
        # Rows that were converted have their classes' names: {0: "1", 1: "2"} would name them a second time.
        if twice := [name for name in names.values() if names.get(name, name) != name]:
            raise ValueError(f"names of classes that are not labels of others, received {twice[0]!r} as both")
        return names


class Gate(sections.Gate):
    max_label_drift: Fraction = Field(
        0.2, description="Largest difference of one label's share between the training split and another split, or "
        "the data of the model served now (L-infinity distance).")


class Encoder(sections.Encoder):
    opaque: bool = Field(
        False, description="Fine-tune a SavedModel as it is, of any architecture that has BERT's three inputs: in its "
        "own precision, whole or not at all, and without the exports that need a BERT.")
    head: Literal["new", "keep"] = Field(
        "new", description="The layer that tells the classes apart: a `new` one, or, where the source is a classifier "
        "of the same classes, `keep` its own. `model.pooling` must be what it was trained on.")


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


class Training(sections.Training):
    learning_rate: float = Field(1e-4, gt=0, description="Peak learning rate.")
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="Decay after the warmup, to 0.")
    warmup: Fraction = Field(0.1, description="Share of all steps with linear warmup.")
    early_stopping_metric: Literal["loss", "accuracy"] = Field(
        "accuracy", description="Validation metric whose best epoch's weights are kept.")


class Evaluation(sections.Evaluation):
    overall = OVERALL

    thresholds: dict[Metric, Threshold] = Field(
        ..., min_length=1, description="Metric → bounds that must hold before anything is pushed. Metrics: `accuracy`, "
        "`loss`, `macro_f1`, `mcc`; with two classes also `auc`; per class `precision/CLASS`, `recall/CLASS`, "
        "`f1/CLASS`; of the rows of one value of `data.slice`, those of all rows, as in `accuracy/VALUE`.")
    length_bands: Annotated[list[Annotated[int, Field(ge=1)]], AfterValidator(ascending)] = Field(
        default_factory=lambda: [16, 32, 64, 128, 256],
        description="Upper ends, in tokens and ascending, of the length bands that metrics are sliced by.")
    overlap_bands: Annotated[list[Annotated[int, Field(ge=0, le=99)]], AfterValidator(ascending)] = Field(
        default_factory=lambda: [25, 50, 75],
        description="Pairs: upper ends, in percent and ascending, of the bands of word overlap that metrics are sliced "
        "by, alone and with the label. The overlap of two texts is the share of their distinct words that stand in "
        "both.")


class Settings(sections.Settings):
    shape: Literal["classification"] = Field("classification", description="Kind of pipeline.")
    data: Data = Field(..., description="What is read.")
    gate: Gate = Field(default_factory=Gate, description="What stops a run before training.")
    encoder: Encoder = Field(default_factory=Encoder, description="The pretrained BERT.")
    model: Model = Field(default_factory=Model, description="What is built on it.")
    training: Training = Field(default_factory=Training, description="How the model is trained.")
    evaluation: Evaluation = Field(..., description="What a model must reach to be pushed.")

    @property
    def start(self) -> str:
        return self.encoder.source

    @property
    def question(self) -> str:
        return '--text-a "…" --text-b "…"' if self.data.text_pair else super().question

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
