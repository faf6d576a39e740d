"""The settings of a run: a YAML file, overrides from the command line, and errors that name the key.

A run is data. Every key stands in one of the models below with its type, default, unit and meaning;
`docs/settings.md` is written from them (`python -m pipelines.settings`), and a test keeps the two equal.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo

from components import files
from components.tfrecord_folder import manifest_of
from components.verdict import metric_names
from modules.errors import TextrailError

RUNS = Path(__file__).parent / "runs"
PROJECT = Path(__file__).parent.parent

FILE_SOURCES = ("csv", "tfrecord")   # Those that read `data.path`.

Fraction = Annotated[float, Field(ge=0, le=1)]


def _known_metric(name: str) -> str:
    """Refuses what no classifier is judged by; whether a class is one of the data's shows when there are data."""
    known = list(dict.fromkeys(metric_names(["CLASS", "CLASS"])))
    kind, slash, of = name.partition("/")
    if (f"{kind}/CLASS" if of else name) not in known:
        nearest = difflib.get_close_matches(f"{kind}/CLASS" if slash else name, known, n=1, cutoff=0)[0]
        raise ValueError(f"a metric ({_choice(known)}), received {name!r}; the nearest is "
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


AnySettings = TypeVar("AnySettings", Settings, DataSettings)


class SettingsError(TextrailError):
    """Everything that is wrong with the settings of a run, reported at once.

    Args:
        source: the settings file.
        problems: one sentence each, beginning with the key.
    """

    def __init__(self, source: str, problems: list[str]):
        self.source, self.problems = source, problems
        super().__init__("settings as docs/settings.md describes them", f"{source} with {len(problems)} problems", "")
        lines = problems if len(problems) == 1 else ["", *(f"  {problem}" for problem in problems)]
        self.args = (f"{source}: " + "\n".join(lines),)

    def __reduce__(self):
        return type(self), (self.source, self.problems)


def ready_made() -> list[str]:
    """Names of the runs that come with the project, sorted."""
    return sorted(path.stem for path in RUNS.glob("*.yaml"))


def settings_file(name_or_path: str) -> Path:
    """The file behind a ready-made run's name or a path to a YAML file.

    Raises:
        TextrailError: neither a ready-made run nor a file.
    """
    if name_or_path in ready_made():
        return RUNS / f"{name_or_path}.yaml"
    path = Path(name_or_path).expanduser().absolute()
    if path.is_file():
        return path
    known = [*ready_made(), *sorted(str(path) for path in Path(name_or_path).parent.glob("*.y*ml"))]
    raise TextrailError(f"a settings file, or the name of a ready-made run ({', '.join(ready_made())})",
                        f"{name_or_path!r}", _did_you_mean(name_or_path, known) or "`textrail list` shows them.")


def load(name_or_path: str, overrides: Sequence[str] = (), check_files: bool = True) -> Settings:
    """The settings of a run, with absolute paths.

    Relative paths count from the project's root in a ready-made run, from the file's folder in one's own, and from
    the current folder in an override. URIs stay as they are.

    Example: `load("reviews", ["training.epochs=1", "data.path={train: a.csv, validation: b.csv}"])`.

    Args:
        name_or_path: name of a ready-made run, or a path to a YAML file.
        overrides: `key=value`, the key with dots, the value as YAML; later ones win.
        check_files: whether the local files and folders that are read must exist.

    Raises:
        SettingsError: wrong keys, values or paths, all of the file's together.
        TextrailError: no such run or file, an override that is not `key=value`, or text that is not YAML.
    """
    file = settings_file(name_or_path)
    missing = _missing_files if check_files else None
    return _validated(Settings, _read_absolute(file), overrides, str(file), missing)


def load_data(name_or_path: str, overrides: Sequence[str] = ()) -> DataSettings:
    """What a run reads, or what data files hold that no run names yet, with absolute paths.

    Example: `load_data("mine.csv", ["data.text=review", "data.label=sentiment"])`.

    Args:
        name_or_path: name of a ready-made run, path to a settings file, or path or pattern of data files. Names with
            `.csv`, `.tsv` or `tfrecord` say what such files are; of others `data.source` must be among the overrides.
        overrides: `key=value` as `load` takes them, of `data` and `seed`.

    Raises:
        SettingsError: wrong keys, values or paths.
        TextrailError: no such run or file, or an override of something else.
    """
    for override in overrides:
        if not re.match(r"\s*(data\.|seed\b)", override):
            raise TextrailError("--set data.KEY=VALUE or --set seed=VALUE", f"--set {override}",
                                "Nothing else matters to the rows.")
    source = _data_source(name_or_path)
    is_run = name_or_path in ready_made() or name_or_path.endswith((".yaml", ".yml"))
    if is_run or not (source or files.find(name_or_path)):
        file = settings_file(name_or_path)
        raw, where = _read_absolute(file), str(file)
        raw = {key: raw[key] for key in DataSettings.model_fields if key in raw}
    else:
        raw, where = {"data": {"path": name_or_path} | ({"source": source} if source else {})}, name_or_path
        _make_absolute(raw, Path.cwd())
    return _validated(DataSettings, raw, overrides, where, _missing_files)


def _data_source(path: str) -> str | None:
    """The `data.source` that reads a file of this name; none if the name tells nothing."""
    if re.search(r"\.[ct]sv(\.gz)?$", path):
        return "csv"
    return "tfrecord" if "tfrecord" in Path(path).name or manifest_of(path) else None


def _read_absolute(file: Path) -> dict[str, Any]:
    """A settings file as it is written, relative paths resolved."""
    raw = _read(file)
    _make_absolute(raw, PROJECT if file.parent == RUNS else file.parent)
    return raw


def _validated(model: type[AnySettings], raw: dict[str, Any], overrides: Sequence[str], where: str,
               missing: Callable[[AnySettings], dict[str, str]] | None) -> AnySettings:
    """Settings from what is written and overridden.

    Args:
        model: of the settings.
        raw: what is written; gets the overrides.
        overrides: `key=value`.
        where: what errors call the settings.
        missing: finds keys whose files are missing; none checks no files.

    Raises:
        SettingsError: everything that is wrong.
    """
    overridden = [_override(raw, override) for override in overrides]
    try:
        settings = model.model_validate(raw, strict=True)
        problems = missing(settings) if missing else {}
    except ValidationError as error:
        problems = _problems(error)
    if problems:
        raise SettingsError(where, [
            f"{path or 'the file'}{' (--set)' if _among(path, overridden) else ''}: {problem}"
            for path, problem in problems.items()])
    return settings


class _Loader(yaml.SafeLoader):
    """YAML with the scalars of YAML 1.2's core schema, in which `no` is a text and `1e-4` a number; keys are texts."""

    yaml_implicit_resolvers: ClassVar[dict] = {}  # type: ignore[misc]  # the stubs take it for an instance's

    def construct_mapping(self, node, deep=False):
        mapping: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a list or mapping as a key", problem_mark=key.start_mark)
            if key.value in mapping:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} a second time", problem_mark=key.start_mark)
            mapping[key.value] = self.construct_object(value, deep=deep)
        return mapping


_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"(?:true|True|false|False)$"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?(?:0|[1-9][0-9_]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$"), list("-+.0123456789"))


def _read(file: Path) -> dict[str, Any]:
    try:
        raw = yaml.load(file.read_text("utf-8-sig"), _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{file}, line {mark.line + 1}, column {mark.column + 1}" if mark else str(file)
        raise TextrailError("valid YAML", f"{where}: {error.problem}", "Correct that line.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TextrailError("a YAML file in UTF-8", f"{file}: {error}", "Save it as UTF-8 text.") from None
    if not isinstance(raw, dict):
        raise TextrailError("a mapping of settings such as `data:` and `evaluation:`", f"{_shown(raw)} in {file}",
                            "docs/settings.md begins with an example.")
    return raw


def _override(raw: dict[str, Any], override: str) -> str:
    """Puts one `key=value` into the settings, making the mappings on its way, and returns the key."""
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise TextrailError("--set key=value such as --set training.epochs=2", f"--set {override}", "Write it so.")
    try:
        # GLUE calls its columns "#1 String"; nobody writes a comment on a command line.
        value: Any = text if text.startswith("#") else yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise TextrailError(f"a YAML value after --set {key}=", f"{text!r}: {getattr(error, 'problem', error)}",
                            "Quote texts that have brackets, braces or colons.") from None
    layer = value
    for part in reversed(parts):
        layer = {part: layer}
    _make_absolute(layer, Path.cwd())
    for part in parts[:-1]:
        if not isinstance(raw.get(part), dict):
            raw[part] = {}
        raw, layer = raw[part], layer[part]
    raw[parts[-1]] = layer[parts[-1]]
    return ".".join(parts)


def _make_absolute(raw: dict[str, Any], base: Path) -> None:
    """Replaces relative paths in settings as they are written, which may still be of any type."""
    def absolute(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: absolute(item) for key, item in value.items()}
        if not isinstance(value, str) or not value or files.is_uri(value):
            return value
        return str(base / Path(value).expanduser())

    for section, key in (("data", "path"), ("data", "schema_file"), ("data", "data_dir"), ("encoder", "source"),
                         ("encoder", "config"), ("encoder", "preprocessing"), ("push", "destination")):
        keys = raw.get(section)
        if isinstance(keys, dict) and key in keys and (section, keys[key]) != ("encoder", "minilm"):
            keys[key] = absolute(keys[key])


def _missing_files(settings: Settings | DataSettings) -> dict[str, str]:
    """Key → sentence for each local path that is read and is not there."""
    data, encoder = settings.data, settings.encoder if isinstance(settings, Settings) else Encoder()
    wanted: dict[str, str | None] = {"data.schema_file": data.schema_file, "encoder.config": encoder.config}
    if data.source in FILE_SOURCES:
        wanted |= ({f"data.path.{split}": path for split, path in data.path.items()}
                   if isinstance(data.path, dict) else {"data.path": data.path})
    problems = {
        key: f"expected a file at {path}; received {files.describe_missing(path)}. Correct the path."
        for key, path in wanted.items() if path and not files.is_uri(path) and not files.find(path)
        and not (key == "data.path" and data.source == "tfrecord" and manifest_of(path))}
    if data.source == "tfds" and not data.download:
        problems |= _missing_folder("data.data_dir", data.data_dir, "Correct it, or set data.download=true.")
    if encoder.source != "minilm":
        guess = _did_you_mean(Path(encoder.source).name, ["minilm"]) or "Correct the path."
        problems |= _missing_folder("encoder.source", encoder.source, guess)
    if encoder.preprocessing and not Path(encoder.preprocessing).is_file():
        problems |= _missing_folder("encoder.preprocessing", encoder.preprocessing, "Correct the path.")
    return problems


def _missing_folder(key: str, path: str | None, fix: str) -> dict[str, str]:
    if not path or files.is_uri(path) or Path(path).is_dir():
        return {}
    return {key: f"expected a folder at {path}; received {files.describe_missing(path)}. {fix}"}


def _problems(error: ValidationError) -> dict[str, str]:
    """Key → sentence for everything that pydantic found."""
    found: dict[tuple, str] = {}
    for detail in error.errors(include_url=False):
        path = _path(detail["loc"])
        # The branches of a union each complain about the same key: the first complaint tells the whole type.
        found.setdefault(path, _sentence(path, detail))
    # Where one branch of a union fits well enough to complain about a part, the part says more than the whole.
    return {".".join(map(str, path)): sentence for path, sentence in found.items()
            if not any(other[:len(path)] == path and other != path and _is_union(path) for other in found)}


def _path(loc: tuple) -> tuple:
    """pydantic's location without the names it gives to a union's branches and to a mapping's keys."""
    return tuple(part for part in loc
                 if isinstance(part, int) or not re.search(r"^(str|bool|int|float|constrained-.*)$|\[", part))


def _sentence(path: tuple, detail: Any) -> str:
    kind, value = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        keys = [name.rsplit(".", 1)[-1] for name in _siblings(path)]
        where = f"a key of {'.'.join(path[:-1])}" if len(path) > 1 else "a key of the settings"
        fix = _nearest_key(path) or f"The keys are {', '.join(keys)}."
        return f"expected {where}; received an unknown key. {fix}"
    if kind == "value_error":
        expected, _, received = str(detail["ctx"]["error"]).partition(", received ")
        return f"expected {expected}; received {received or _shown(value)}."
    annotation, metadata = _type_at(path)
    if detail["loc"][-1] == "[key]":
        names = get_args(_dict_of(_type_at(path[:-1])[0])[0])
        return f"expected {_choice(names)}; received {_shown(value)}.{_space(_did_you_mean(str(value), names))}"
    received = "nothing" if kind == "missing" else _shown(value)
    literals = [text for branch in _branches(annotation) if get_origin(branch) is Literal for text in get_args(branch)]
    guess = _did_you_mean(value, literals) if isinstance(value, str) else ""
    if isinstance(value, bool | int | float) and str in _branches(annotation):
        guess = "Put quotes around it to make it a text."
    return f"expected {_allowed(annotation, metadata)}; received {received}.{_space(guess)}"


def _nearest_key(path: tuple) -> str:
    """"Did you mean …?" for an unknown key; a key of another section counts, one of the same section counts more."""
    siblings = _siblings(path)

    def likeness(key: str) -> float:
        score = difflib.SequenceMatcher(None, str(path[-1]), key.rsplit(".", 1)[-1]).ratio()
        return score + 0.05 * (key in siblings)

    best = max((key for key, _ in _keys(Settings)), key=likeness)
    if likeness(best) < 0.65:
        return ""
    if best in siblings:
        best = ".".join([*map(str, path[:-1]), best.rsplit(".", 1)[-1]])   # names the metric, not METRIC
    return f"Did you mean {best}?"


def _siblings(path: tuple) -> list[str]:
    parent = ".".join(map(str, path[:-1]))
    if len(path) == 4 and path[:2] == ("evaluation", "thresholds"):
        parent = "evaluation.thresholds.METRIC"
    return [key for key, _ in _keys(Settings) if key.rpartition(".")[0] == parent]


def _keys(model: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key with its dots, sections before what they hold."""
    for name, field in model.model_fields.items():
        yield prefix + name, field
        for branch in _branches(field.annotation):
            if _is_section(branch):
                yield from _keys(branch, f"{prefix}{name}.")
            elif get_origin(branch) is dict and _is_section(get_args(branch)[1]):
                yield from _keys(get_args(branch)[1], f"{prefix}{name}.METRIC.")


def _type_at(path: tuple) -> tuple[Any, list]:
    """Annotation and bounds of the key, list item or mapping value at a path."""
    annotation: Any = Settings
    metadata: list = []
    for part in path:
        section = next((branch for branch in _branches(annotation) if _is_section(branch)), None)
        if section is not None:
            field = section.model_fields[part]
            annotation, metadata = field.annotation, field.metadata
        elif isinstance(part, int):
            annotation, metadata = get_args(annotation)[0], []
        else:
            annotation, metadata = _dict_of(annotation)[1], []
    return annotation, metadata


def _is_union(path: tuple) -> bool:
    return len(_branches(_type_at(path)[0])) > 1


def _dict_of(annotation: Any) -> tuple[Any, Any]:
    """Key and value type of the mapping among a union's branches."""
    return next(get_args(branch) for branch in _branches(annotation) if get_origin(branch) is dict)


def _branches(annotation: Any) -> tuple:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _allowed(annotation: Any, metadata: Sequence = ()) -> str:
    """A type in words, e.g. "a number from 0 to 1"."""
    branches = _branches(annotation)
    if len(branches) > 1:
        return " or ".join(_allowed(branch) for branch in branches)
    if get_origin(annotation) is Annotated:
        inner, *details = get_args(annotation)
        return _allowed(inner, [item for detail in details
                                for item in (detail.metadata if isinstance(detail, FieldInfo) else [detail])])
    if get_origin(annotation) is Literal:
        return _choice(get_args(annotation))
    if get_origin(annotation) is list:
        return f"a list, each item {_allowed(get_args(annotation)[0])}"
    if get_origin(annotation) is dict:
        key, value = get_args(annotation)
        names = _choice(get_args(key)) if get_origin(key) is Literal else "names"
        return f"a mapping of {names} to {_allowed(value)}"
    if _is_section(annotation):
        return f"a mapping with keys such as `{next(iter(annotation.model_fields))}`"
    words = {str: "a text", int: "a whole number", float: "a number", bool: "`true` or `false`", NoneType: "`null`"}
    return words[annotation] + _bounds(metadata)


def _bounds(metadata: Sequence) -> str:
    bounds = {name: f"{getattr(item, name):g}" for item in metadata for name in ("ge", "gt", "le", "lt")
              if hasattr(item, name)}
    if "ge" in bounds and ("le" in bounds or "lt" in bounds):
        return f" from {bounds['ge']} to {bounds['le'] if 'le' in bounds else 'below ' + bounds['lt']}"
    return f" of at least {bounds['ge']}" if "ge" in bounds else f" above {bounds['gt']}" if "gt" in bounds else ""


def _choice(literals: Sequence[str]) -> str:
    *most, last = (f"`{literal}`" for literal in literals)
    return f"{', '.join(most)} or {last}" if most else last


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list):
        return "a list"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _did_you_mean(value: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(value, known, n=1)
    return f"Did you mean {close[0]}?" if close else ""


def _space(sentence: str) -> str:
    return f" {sentence}" if sentence else ""


def _among(path: str, overridden: Sequence[str]) -> bool:
    return any(path == key or path.startswith(key + ".") for key in overridden)


INTRODUCTION = """\
# Settings

A run is one YAML file: a ready-made one of `pipelines/runs`, or your own. Every key below can also be given on the
command line, which wins over the file: `textrail run reviews --set training.epochs=1 --set data.path=mine.csv`.
Values are YAML, so `0.1`, `null`, `[16, 64]` and `{train: a.csv, validation: b.csv}` work there too.

Relative paths count from the settings file's folder, in `--set` from the current folder, and in ready-made runs from
the project's root. Paths with a scheme, such as `gs://bucket/reviews.csv`, stay as they are.

A file needs no more than where the rows are and what a model must reach:

```yaml
description: Is a message spam?
data:
  source: csv
  path: messages.csv          # columns `message` and `kind`; split 80/10/10 by a hash of the row
  text: message
  label: kind
training:
  epochs: 2
evaluation:
  thresholds:
    accuracy: {min: 0.95, max_drop: 0.01}
    recall/spam: {min: 0.9}
```
"""


def documentation() -> str:
    """The page `docs/settings.md`, written from the models."""
    lines = [INTRODUCTION]
    for key, field in _keys(Settings):
        section = _is_section(field.annotation) and "." not in key
        if key == "shape" or section:
            lines += ["" if key == "shape" else f"\n## {key}\n\n{field.description}\n",
                      "| key | value | default | meaning |", "|---|---|---|---|"]
        if not section:
            cells = (f"`{key}`", _allowed(field.annotation, field.metadata), _default(field), field.description or "")
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Section):
        return "as below"
    return f"`{yaml.safe_dump(value, default_flow_style=True, allow_unicode=True).splitlines()[0]}`"


if __name__ == "__main__":
    print(documentation(), end="")
