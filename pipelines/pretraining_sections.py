"""The settings that only a pretraining run has: documents, how examples are made and masked, and the sizes of BERT."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from components.verdict import pretraining_metric_names
from modules.presets import Sizes
from pipelines import sections
from pipelines.sections import Fraction, Section, Threshold, ascending, known_metric

METRICS = pretraining_metric_names(next_sentence=True)
Metric = Annotated[str, known_metric(METRICS, slices=False)]


class SplitShares(sections.SplitShares):
    train: Fraction = Field(0.9, description="Share of the documents for training.")
    validation: Fraction = Field(0.05, description="Share for early stopping and, without a test split, for judging.")
    test: Fraction = Field(0.05, description="Share for judging; 0 leaves the validation split to judge.")


class Data(sections.Data):
    source: Literal["text", "csv", "tfds", "tfrecord"] = Field(
        "text", description="Where documents come from: `text` (plain text files, `.gz` too), or one column of `csv` "
        "(CSV and TSV files), `tfds` (TensorFlow Datasets) or `tfrecord` (serialized tf.Examples).")
    documents: Literal["file", "block", "line"] = Field(
        "file", description="`text`: what a document is: a `file`, a `block` of lines between blank lines, or a "
        "`line`.")
    split: SplitShares = Field(default_factory=SplitShares, description="Files with one path: shares of the splits.")
    shard_megabytes: int = Field(
        16, ge=1, description="Text aimed at in a file of prepared documents, of which there are at most 2,048. Such a "
        "file is what one worker prepares at a time.")


class Vocabulary(sections.Vocabulary):
    lower_case: bool = Field(True, description="Lower-case texts and take accents away.")


class Instances(Section):
    max_length: int = Field(128, ge=8, le=4096, description="Longest example in tokens, [CLS] and [SEP] included.")
    short_rate: Fraction = Field(0.1, description="Share of the examples that are filled only to a length drawn at "
                                 "random, so that short texts are known, too.")
    next_sentence: bool = Field(True, description="Whether an example is two segments, and the model learns whether "
                                "the second follows the first; otherwise whole sentences fill one segment.")
    swap_rate: Fraction = Field(0.5, description="Share of the pairs whose second segment is of another document.")
    split_on: list[Literal["commas", "semicolons", "dashes"]] = Field(
        default_factory=list, description="Marks at which sentences end, too.")


class Masking(Section):
    mask_rate: float = Field(0.15, gt=0, lt=1, description="Share of the tokens that the model has to tell, drawn "
                             "afresh in every epoch; special tokens do not count.")
    mask_token_rate: Fraction = Field(0.8, description="Share of those that it sees as [MASK].")
    random_token_rate: Fraction = Field(0.1, description="Share of those that it sees as another wordpiece; the rest "
                                        "it sees as they are.")
    whole_words: bool = Field(False, description="Choose all pieces of a word together.")

    @model_validator(mode="after")
    def _shares_of_one_whole(self) -> Masking:
        if (total := self.mask_token_rate + self.random_token_rate) > 1 + 1e-9:
            raise ValueError("`masking.mask_token_rate` and `masking.random_token_rate` that sum to at most 1, "
                             f"received {total:g}")
        return self


class Model(Section):
    preset: Literal["tiny", "mini", "small", "base"] = Field(
        "mini", description="Blocks and width: `tiny` 2 of 128, `mini` 4 of 256, `small` 4 of 512, `base` 12 of 768 "
        "(Turc et al., 2019), with heads 64 wide and feed-forward layers four times as wide as the model.")
    layers: Annotated[int, Field(ge=1)] | None = Field(None, description="Blocks, if other than the preset's.")
    hidden_size: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Width of embeddings and blocks, if other than the preset's; a multiple of `num_heads`.")
    num_heads: Annotated[int, Field(ge=1)] | None = Field(None, description="Attention heads, if not 64 wide.")
    inner_size: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Width of the feed-forward layers, if not four times `hidden_size`.")
    positions: Annotated[int, Field(ge=8)] | None = Field(
        None, description="Longest input in tokens that the encoder will ever have, if not 512.")
    first_words: Literal["random", "cooccurrence"] = Field(
        "random", description="What word embeddings of a new model begin with: `random` numbers, or `cooccurrence`: "
        "which words stand in the same texts. That suits classifiers of whole texts, and wants megabytes to count in.")
    neighbour_heads: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Heads of a new model's first block that begin by looking at the tokens beside them, if not "
        "all. They teach grammar sooner; with 0 a model keeps to what a whole text is about.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout rate while training.")


class Training(sections.Training):
    epochs: int = Field(10, ge=1, description="Passes over the training split.")
    batch_tokens: int = Field(4096, ge=64, description="Tokens that are computed at a time, padding included.")
    max_batch: int = Field(256, ge=1, description="Most examples that are computed at a time, however short they are.")
    bucket_step: int = Field(32, ge=1, description="Width of the length buckets in tokens.")
    accumulate: int = Field(1, ge=1, description="Such batches that are computed one after the other and make one "
                            "step: that of a batch so many times as large, in the memory of one of them.")
    learning_rate: float = Field(5e-4, gt=0, description="Peak learning rate; wide models want less, `base` 1e-4.")
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="Decay after the warmup, to 0.")
    warmup: Fraction = Field(0.1, description="Share of all steps with linear warmup.")
    early_stopping_metric: Literal["loss", "masked_accuracy", "next_accuracy"] = Field(
        "masked_accuracy", description="Validation metric whose best epoch's weights are kept. `loss` is that of both "
        "heads, of which the one for next sentences soon knows a small corpus by heart.")

    @model_validator(mode="after")
    def _parts_are_not_compiled(self) -> Training:
        if self.xla and self.accumulate > 1:
            raise ValueError("`training.xla` to be false with training.accumulate above 1, received true for "
                             f"{self.accumulate} parts")
        return self


class Filling(Section):
    top: int = Field(5, ge=1, le=100, description="Words that the model tells for each [MASK]. It is part of "
                     "the model: another number trains anew.")


class Evaluation(sections.Evaluation):
    overall = METRICS

    thresholds: dict[Metric, Threshold] = Field(
        ..., min_length=1, description="Metric → bounds that must hold before anything is pushed. Metrics, of held-out "
        "documents: `masked_accuracy`, `masked_loss` (nats a token), `pseudo_perplexity` and, with "
        "`instances.next_sentence`, `next_accuracy`.")
    passes: int = Field(7, ge=1, le=64, description="Times that an example is read to judge all of its tokens, each "
                        "time with another one of so many tokens masked. It is part of the model: another number "
                        "trains anew.")
    length_bands: Annotated[list[Annotated[int, Field(ge=1)]], AfterValidator(ascending)] = Field(
        default_factory=lambda: [32, 64, 96],
        description="Upper ends, in tokens and ascending, of the length bands that metrics are sliced by.")
    examples: int = Field(10, ge=0, description="Held-out texts that are kept with masks, and what the model tells "
                          "for them.")


class Settings(sections.Settings):
    shape: Literal["pretraining"] = Field("pretraining", description="Kind of pipeline.")
    data: Data = Field(..., description="What is read.")
    encoder: sections.Encoder | None = Field(
        None, description="The BERT to go on from, for texts of another kind than it has seen; none starts from new "
        "weights. Its wordpieces and sizes take the place of `vocabulary` and `model`.")
    vocabulary: Vocabulary = Field(default_factory=Vocabulary, description="Which pieces of words the model knows.")
    instances: Instances = Field(default_factory=Instances, description="How documents become examples.")
    masking: Masking = Field(default_factory=Masking, description="Which tokens the model has to tell.")
    model: Model = Field(default_factory=Model, description="The BERT.")
    training: Training = Field(default_factory=Training, description="How the model is trained.")
    filling: Filling = Field(default_factory=Filling, description="What the pushed model answers.")
    evaluation: Evaluation = Field(..., description="What a model must reach to be pushed.")

    @property
    def start(self) -> str:
        return self.encoder.source if self.encoder else "new weights"

    @property
    def question(self) -> str:
        return '"… [MASK] …"'

    @model_validator(mode="after")
    def _sizes_go_together(self) -> Settings:
        sizes, longest = Sizes.of(self.model.model_dump()), self.instances.max_length
        if sizes.hidden_size % sizes.num_heads:
            raise ValueError(f"`model.hidden_size` to be a multiple of `model.num_heads`, received {sizes.hidden_size} "
                             f"for {sizes.num_heads} heads")
        if not self.encoder and longest > sizes.positions:
            raise ValueError(f"`instances.max_length` of at most `model.positions`, received {longest} for "
                             f"{sizes.positions} positions")
        return self

    @model_validator(mode="after")
    def _an_encoder_brings_words_and_sizes(self) -> Settings:
        own = {"vocabulary": self.vocabulary, "model": self.model} if self.encoder else {}
        for name, section in own.items():
            new = type(section)()
            for key in type(section).model_fields:
                if (name, key) != ("model", "dropout") and getattr(section, key) != getattr(new, key):
                    raise ValueError(f"`{name}.{key}` to be left out with `encoder`, which brings its own, received "
                                     f"{getattr(section, key)}")
        return self

    @model_validator(mode="after")
    def _next_sentences_are_judged_only_where_they_are_learned(self) -> Settings:
        named = [*(f"evaluation.thresholds.{name}" for name in self.evaluation.thresholds if name == "next_accuracy"),
                 *(["training.early_stopping_metric=next_accuracy"]
                   if self.training.early_stopping_metric == "next_accuracy" else [])]
        if named and not self.instances.next_sentence:
            raise ValueError(f"`instances.next_sentence` to be true for {named[0]}, received false")
        return self
