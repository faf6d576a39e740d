"""The settings of a run, read: a YAML file, overrides from the command line, and errors that name the key."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import ValidationError, create_model

from components import files
from components.tfrecord_folder import manifest_of
from modules.errors import TextrailError
from pipelines.beam_sections import Beam
from pipelines.section import Section
from pipelines.sections import FILE_SOURCES, DataSettings, Settings, choice
from pipelines.settings_words import did_you_mean, sentences, shown
from pipelines.shapes import DEFAULT, SHAPES

RUNS = Path(__file__).parent / "runs"
PROJECT = Path(__file__).parent.parent

AnySettings = TypeVar("AnySettings", bound=Section)


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
                        f"{name_or_path!r}", did_you_mean(name_or_path, known) or "`textrail list` shows them.")


def load(name_or_path: str, overrides: Sequence[str] = (), check_files: bool = True) -> Settings:
    """The settings of a run, with absolute paths: those of its shape, see `shapes.SHAPES`.

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
    raw = _read_absolute(file)
    overridden = [_override(raw, override) for override in overrides]
    return _validated(SHAPES[_shape(raw, str(file), overridden)], raw, str(file), overridden, check_files)


def load_data(name_or_path: str, overrides: Sequence[str] = ()) -> DataSettings:
    """What a run reads, or what data files hold that no run names yet, with absolute paths.

    Example: `load_data("mine.csv", ["data.text=review", "data.label=sentiment"])`.

    Args:
        name_or_path: name of a ready-made run, path to a settings file, or path or pattern of data files. Names with
            `.csv`, `.tsv` or `tfrecord` say what such files are; of others `data.source` must be among the overrides.
        overrides: `key=value` as `load` takes them, of `data`, `beam`, `seed` and `shape`.

    Raises:
        SettingsError: wrong keys, values or paths.
        TextrailError: no such run or file, or an override of something else.
    """
    for override in overrides:
        if not re.match(r"\s*(data\.|beam\.|seed\b|shape\b)", override):
            raise TextrailError("--set data.KEY=VALUE, beam.KEY=VALUE, seed=VALUE or shape=VALUE", f"--set {override}",
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
    overridden = [_override(raw, override) for override in overrides]
    fields = SHAPES[_shape(raw, where, overridden)].model_fields
    own: dict[str, Any] = {key: (fields[key].annotation, fields[key]) for key in DataSettings.model_fields}
    model = create_model("DataSettings", __base__=DataSettings, **own)
    return _validated(model, raw, where, overridden)


def load_beam(recorded: dict[str, Any], overrides: Sequence[str] = ()) -> Beam:
    """Where Beam's work is done: as a run had it, with other values from the command line.

    Args:
        recorded: the section `beam` of the run's settings.
        overrides: `beam.KEY=VALUE`, as `load` takes them.

    Raises:
        SettingsError: wrong keys or values.
        TextrailError: an override of something else.
    """
    for override in overrides:
        if not re.match(r"\s*beam\.", override):
            raise TextrailError("--set beam.KEY=VALUE", f"--set {override}",
                                "Nothing else of the settings matters to a model that is trained.")
    raw = {"beam": dict(recorded)}
    overridden = [_override(raw, override) for override in overrides]
    return _validated(_BeamSettings, raw, "the command line", overridden, check_files=False).beam


class _BeamSettings(Section):
    beam: Beam


def _shape(raw: dict[str, Any], where: str, overridden: Sequence[str]) -> str:
    """The shape that settings name, which decides what other keys there are.

    Raises:
        SettingsError: there is none of that name.
    """
    shape = raw.get("shape", DEFAULT)
    if shape in list(SHAPES):
        return shape
    guess = did_you_mean(str(shape), list(SHAPES))
    raise SettingsError(where, [f"shape{_origin('shape', overridden)}: expected {choice(list(SHAPES))}; received "
                                f"{shown(shape)}.{guess and f' {guess}'}"])


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


def _validated(model: type[AnySettings], raw: dict[str, Any], where: str, overridden: Sequence[str],
               check_files: bool = True) -> AnySettings:
    """Settings from what is written.

    Args:
        model: of the settings.
        raw: what is written, overrides included.
        where: what errors call the settings.
        overridden: keys that were given on the command line.
        check_files: whether the local files and folders that are read must exist.

    Raises:
        SettingsError: everything that is wrong.
    """
    try:
        settings = model.model_validate(raw, strict=True)
        problems = _missing_files(settings) if check_files and isinstance(settings, DataSettings) else {}
    except ValidationError as error:
        problems = sentences(error, model)
    if problems:
        raise SettingsError(where, [f"{path or 'the file'}{_origin(path, overridden)}: {problem}"
                                    for path, problem in problems.items()])
    return settings


def _origin(path: str, overridden: Sequence[str]) -> str:
    return " (--set)" if any(path == key or path.startswith(key + ".") for key in overridden) else ""


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
        raise TextrailError("a mapping of settings such as `data:` and `evaluation:`", f"{shown(raw)} in {file}",
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

    for section, key in (("data", "path"), ("data", "pairs"), ("data", "schema_file"), ("data", "data_dir"),
                         ("encoder", "source"), ("encoder", "config"), ("encoder", "preprocessing"),
                         ("push", "destination")):
        keys = raw.get(section)
        if isinstance(keys, dict) and key in keys and (section, keys[key]) != ("encoder", "minilm"):
            keys[key] = absolute(keys[key])


def _missing_files(settings: DataSettings) -> dict[str, str]:
    """Key → sentence for each local path that is read and is not there."""
    data, encoder = settings.data, getattr(settings, "encoder", None)
    wanted: dict[str, str | None] = {"data.schema_file": data.schema_file, "data.pairs": data.pairs}
    if encoder:
        wanted["encoder.config"] = encoder.config
    if data.source in FILE_SOURCES:
        wanted |= ({f"data.path.{split}": path for split, path in data.path.items()}
                   if isinstance(data.path, dict) else {"data.path": data.path})
    problems = {
        key: "expected a file, a pattern, or one of either for each split; received nothing. Set for example "
             f"{key}={'texts/*.txt' if data.source == 'text' else 'mine.csv'}."
        for key, path in wanted.items() if key == "data.path" and not path}
    problems |= {
        key: f"expected a file at {path}; received {files.describe_missing(path)}. Correct the path."
        for key, path in wanted.items() if path and not files.is_uri(path) and not files.find(path)
        and not (key == "data.path" and data.source == "tfrecord" and manifest_of(path))}
    if data.source == "tfds" and not data.download:
        problems |= _missing_folder("data.data_dir", data.data_dir, "Correct it, or set data.download=true.")
    if encoder and encoder.source != "minilm":
        guess = did_you_mean(Path(encoder.source).name, ["minilm"]) or "Correct the path."
        problems |= _missing_folder("encoder.source", encoder.source, guess)
    if encoder and encoder.preprocessing and not Path(encoder.preprocessing).is_file():
        problems |= _missing_folder("encoder.preprocessing", encoder.preprocessing, "Correct the path.")
    return problems


def _missing_folder(key: str, path: str | None, fix: str) -> dict[str, str]:
    if not path or files.is_uri(path) or Path(path).is_dir():
        return {}
    return {key: f"expected a folder at {path}; received {files.describe_missing(path)}. {fix}"}
