"""The settings that only a translation run has: the target text, learned vocabularies, the Transformer and decoding."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from components.verdict import translation_metric_names
from pipelines import sections
from pipelines.sections import Section, Threshold, ascending, known_metric

OVERALL = translation_metric_names()
Metric = Annotated[str, known_metric(OVERALL)]

LARGEST_PEAK = 0.1   # Learning rate; a factor of `inverse_sqrt` is ten times that and more.


class Data(sections.GroupedData):
    text: str = Field("text", description="Column or feature with the text to translate.")
    target: str = Field("target", description="Column or feature with its translation.")


class Vocabulary(sections.Vocabulary):
    joint: bool = Field(False, description="One vocabulary of both languages instead of one for each.")
    lower_case: bool = Field(False, description="Lower-case texts; translations are then lower-cased, too.")
    normalization: Literal["nfkc", "nfc", "none"] = Field(
        "nfkc", description="Unicode normalization of texts: `nfkc` also writes ligatures, full-width forms and the "
        "like as the characters they stand for.")


class Model(Section):
    max_tokens: int = Field(64, ge=4, le=4096, description="Longest text in tokens, [START] and [END] included; pairs "
                            "with a longer text on either side are not trained on, but counted.")
    layers: int = Field(4, ge=1, description="Blocks of the encoder, and of the decoder.")
    decoder_layers: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Blocks of the decoder, if other than `layers`.")
    hidden_size: int = Field(128, ge=2, description="Width of embeddings and blocks, a multiple of `num_heads` and "
                             "even.")
    num_heads: int = Field(8, ge=1, description="Attention heads.")
    inner_size: int = Field(512, ge=1, description="Width of the feed-forward layers inside the blocks.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout rate while training.")
    norm: Literal["post", "pre"] = Field(
        "post", description="Layer norm behind each part of a block as in the paper (`post`), or before it (`pre`), "
        "which trains deep models more calmly.")
    tied: Literal["none", "target", "all"] = Field(
        "none", description="Which embeddings are one: `target` shares the decoder's with its output layer, `all` "
        "also the encoder's, which takes `vocabulary.joint`.")

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Model:
        if self.hidden_size % self.num_heads or self.hidden_size % 2:
            raise ValueError(f"`model.hidden_size` to be even and a multiple of `model.num_heads`, received "
                             f"{self.hidden_size} for {self.num_heads} heads")
        return self


class Training(sections.Training):
    epochs: int = Field(20, ge=1, description="Passes over the training split.")
    batch_tokens: int = Field(4096, ge=64, description="Tokens in a batch, source and target together, padding "
                              "included: long pairs make small batches and short pairs large ones.")
    bucket_step: int = Field(4, ge=1, description="Width of the length buckets in tokens.")
    max_batch: int = Field(256, ge=1, description="Most pairs in a batch, however short they are.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decay, not on biases and layer norms; 0 is Adam.")
    clip_norm: float = Field(0.0, ge=0, description="Largest global gradient norm; 0 does not clip.")
    patience: int = Field(5, ge=1, description="Epochs without improvement before training stops.")
    learning_rate: float = Field(1.0, gt=0, description="With `inverse_sqrt` a factor of the paper's rate, "
                                 "hidden_size^-0.5 · min(step^-0.5, step · warmup_steps^-1.5); else the peak learning "
                                 "rate.")
    schedule: Literal["inverse_sqrt", "linear", "cosine", "constant"] = Field(
        "inverse_sqrt", description="After the warmup: `inverse_sqrt` falls with the root of the step, `linear` and "
        "`cosine` to 0 at the last step, `constant` stays.")
    warmup_steps: int = Field(4000, ge=1, description="Steps of linear warmup.")
    beta_1: float = Field(0.9, ge=0, lt=1, description="Adam's decay of the gradients' mean.")
    beta_2: float = Field(0.98, ge=0, lt=1, description="Adam's decay of the gradients' mean square.")
    epsilon: float = Field(1e-9, gt=0, description="Adam's guard against division by 0.")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="Probability that the training loss spreads over all "
                                   "pieces; validation is without.")
    early_stopping_metric: Literal["loss", "accuracy"] = Field(
        "loss", description="Validation metric, per token, whose best epoch's weights are kept.")
    keep_checkpoints: int = Field(5, ge=1, description="Checkpoints of the last validation rounds that are kept.")
    average_checkpoints: int = Field(0, ge=0, description="Last checkpoints whose mean is the model, if it does better "
                                     "in validation than the best of them; 0 takes the best validated weights.")

    @model_validator(mode="after")
    def _what_is_averaged_was_kept(self) -> Training:
        if self.average_checkpoints > self.keep_checkpoints:
            raise ValueError("`training.average_checkpoints` of at most `training.keep_checkpoints`, received "
                             f"{self.average_checkpoints} of {self.keep_checkpoints}")
        return self

    @model_validator(mode="after")
    def _a_factor_is_no_peak(self) -> Training:
        if self.schedule != "inverse_sqrt" and self.learning_rate > LARGEST_PEAK:
            raise ValueError(f"`training.learning_rate` of at most {LARGEST_PEAK:g} with training.schedule="
                             f"{self.schedule}, where it is the peak and no factor, received {self.learning_rate:g}")
        return self


class Decoding(Section):
    beams: int = Field(4, ge=1, le=64, description="Translations that are followed at a time; 1 decodes greedily.")
    length_penalty: float = Field(0.6, ge=0, description="Exponent alpha of ((5 + tokens) / 6)^alpha, which log "
                                  "probabilities are divided by (Wu et al., 2016); 0 favours short translations.")
    n_best: int = Field(1, ge=1, description="Translations in an answer.")
    max_ratio: float = Field(2.0, gt=0, description="A translation has at most `max_ratio` · source tokens + "
                             "`max_extra` tokens, [START] and [END] of the source not counted, [END] of its own "
                             "counted.")
    max_extra: int = Field(10, ge=0, description="See `max_ratio`.")
    max_source_tokens: int = Field(512, ge=4, description="Tokens of a text that are read, [START] and [END] included; "
                                   "longer ones are cut, and the answer says so.")

    @model_validator(mode="after")
    def _the_best_are_followed(self) -> Decoding:
        if self.n_best > self.beams:
            raise ValueError(f"`decoding.n_best` of at most `decoding.beams`, received {self.n_best} of {self.beams}")
        return self


class Evaluation(sections.Evaluation):
    overall = OVERALL

    thresholds: dict[Metric, Threshold] = Field(
        ..., min_length=1, description="Metric → bounds that must hold before anything is pushed. Metrics, from 0 to "
        "100: `bleu` and `chrf`, and of the rows of one value of `data.slice`, as in `bleu/VALUE`.")
    length_bands: Annotated[list[Annotated[int, Field(ge=1)]], AfterValidator(ascending)] = Field(
        default_factory=lambda: [8, 16, 24, 32],
        description="Upper ends, in tokens of the source and ascending, of the length bands that metrics are sliced "
        "by.")
    lower_case: bool = Field(False, description="Compare without regard to case.")
    examples: int = Field(10, ge=0, description="Translations that are kept of the worst, as many of the best, and as "
                          "many at random.")


class Settings(sections.Settings):
    shape: Literal["translation"] = Field("translation", description="Kind of pipeline.")
    data: Data = Field(..., description="What is read.")
    vocabulary: Vocabulary = Field(default_factory=Vocabulary, description="Which pieces of words the model knows.")
    model: Model = Field(default_factory=Model, description="The Transformer.")
    training: Training = Field(default_factory=Training, description="How the model is trained.")
    decoding: Decoding = Field(default_factory=Decoding, description="How translations are found.")
    evaluation: Evaluation = Field(..., description="What a model must reach to be pushed.")

    @property
    def start(self) -> str:
        return "new weights"

    @model_validator(mode="after")
    def _one_embedding_takes_one_vocabulary(self) -> Settings:
        if self.model.tied == "all" and not self.vocabulary.joint:
            raise ValueError("`vocabulary.joint` to be true with model.tied=all, received false")
        return self
