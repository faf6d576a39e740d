"""Types and bounds of the settings in words, and what pydantic finds wrong with them as sentences."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from pipelines.sections import Section, choice
from pipelines.shapes import SHAPES


def sentences(error: ValidationError, model: type[Section]) -> dict[str, str]:
    """Key → sentence for everything that pydantic found wrong with settings of a model."""
    found: dict[tuple, str] = {}
    for detail in error.errors(include_url=False):
        path = _path(detail["loc"])
        # The branches of a union each complain about the same key: the first complaint tells the whole type.
        found.setdefault(path, _sentence(path, detail, model))
    # Where one branch of a union fits well enough to complain about a part, the part says more than the whole.
    return {".".join(map(str, path)): sentence for path, sentence in found.items()
            if not any(other[:len(path)] == path and other != path and _is_union(path, model) for other in found)}


def _path(loc: tuple) -> tuple:
    """pydantic's location without the names it gives to a union's branches and to a mapping's keys."""
    return tuple(part for part in loc
                 if isinstance(part, int) or not re.search(r"^(str|bool|int|float|constrained-.*)$|\[", part))


def _sentence(path: tuple, detail: Any, model: type[Section]) -> str:
    kind, value = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        known = [name.rsplit(".", 1)[-1] for name in _siblings(path, model)]
        where = f"a key of {'.'.join(path[:-1])}" if len(path) > 1 else "a key of the settings"
        fix = _nearest_key(path, model) or f"The keys are {', '.join(known)}."
        return f"expected {where}; received an unknown key. {fix}"
    if kind == "value_error":
        expected, _, received = str(detail["ctx"]["error"]).partition(", received ")
        return f"expected {expected}; received {received or shown(value)}."
    annotation, metadata = _type_at(path, model)
    if detail["loc"][-1] == "[key]":
        names = get_args(_dict_of(_type_at(path[:-1], model)[0])[0])
        return f"expected {choice(names)}; received {shown(value)}.{_space(did_you_mean(str(value), names))}"
    received = "nothing" if kind == "missing" else shown(value)
    literals = [text for branch in _branches(annotation) if get_origin(branch) is Literal for text in get_args(branch)]
    guess = did_you_mean(value, literals) if isinstance(value, str) else ""
    wanted = allowed(annotation, metadata)
    if isinstance(value, bool | int | float) and "a text" in wanted.split(" or "):
        guess = "Put quotes around it to make it a text."
    return f"expected {wanted}; received {received}.{_space(guess)}"


def _nearest_key(path: tuple, model: type[Section]) -> str:
    """What an unknown key was meant to be: the one that looks most like it, or the same of another shape.

    A key of another section counts, one of the same section counts more.
    """
    siblings = _siblings(path, model)

    def likeness(key: str) -> float:
        score = difflib.SequenceMatcher(None, str(path[-1]), key.rsplit(".", 1)[-1]).ratio()
        return score + 0.05 * (key in siblings)

    best = max((key for key, _ in keys(model)), key=likeness)
    shapes = [shape for shape, other in SHAPES.items() if ".".join(map(str, path)) in dict(keys(other))]
    found = [f"It is a key of shape {' and of '.join(shapes)}."] if shapes else []
    if likeness(best) >= 0.65 and (best in siblings or not shapes):
        if best in siblings:
            best = ".".join([*map(str, path[:-1]), best.rsplit(".", 1)[-1]])   # names the metric, not METRIC
        found.append(f"Did you mean {best}?")
    return " ".join(found)


def _siblings(path: tuple, model: type[Section]) -> list[str]:
    parts = [str(part) for part in path[:-1]]
    if len(parts) == 3 and parts[1] in NAMES:
        parts[2] = NAMES[parts[1]]
    return [key for key, _ in keys(model) if key.rpartition(".")[0] == ".".join(parts)]


# What stands for the names of a mapping, by the mapping's key.
NAMES = {"thresholds": "METRIC", "components": "COMPONENT"}


def keys(model: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key with its dots, sections before what they hold."""
    for name, field in model.model_fields.items():
        yield prefix + name, field
        for branch in _branches(field.annotation):
            if is_section(branch):
                yield from keys(branch, f"{prefix}{name}.")
            elif get_origin(branch) is dict and is_section(get_args(branch)[1]):
                yield from keys(get_args(branch)[1], f"{prefix}{name}.{NAMES[name]}.")


def _type_at(path: tuple, model: type[Section]) -> tuple[Any, list]:
    """Annotation and bounds of the key, list item or mapping value at a path."""
    annotation: Any = model
    metadata: list = []
    for part in path:
        section = next((branch for branch in _branches(annotation) if is_section(branch)), None)
        if section is not None:
            field = section.model_fields[part]
            annotation, metadata = field.annotation, field.metadata
        elif isinstance(part, int):
            annotation, metadata = get_args(annotation)[0], []
        else:
            annotation, metadata = _dict_of(annotation)[1], []
    return annotation, metadata


def _is_union(path: tuple, model: type[Section]) -> bool:
    return len(_branches(_type_at(path, model)[0])) > 1


def _dict_of(annotation: Any) -> tuple[Any, Any]:
    """Key and value type of the mapping among a union's branches."""
    return next(get_args(branch) for branch in _branches(annotation) if get_origin(branch) is dict)


def _branches(annotation: Any) -> tuple:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def is_section(annotation: Any) -> bool:
    """Whether a type is a group of keys."""
    return isinstance(annotation, type) and issubclass(annotation, Section)


def allowed(annotation: Any, metadata: Sequence = ()) -> str:
    """A type in words, e.g. "a number from 0 to 1"."""
    branches = _branches(annotation)
    if len(branches) > 1:
        return " or ".join(allowed(branch) for branch in branches)
    if get_origin(annotation) is Annotated:
        inner, *details = get_args(annotation)
        return allowed(inner, [item for detail in details
                                for item in (detail.metadata if isinstance(detail, FieldInfo) else [detail])])
    if get_origin(annotation) is Literal:
        return choice(get_args(annotation))
    if get_origin(annotation) is list:
        return f"a list, each item {allowed(get_args(annotation)[0])}"
    if get_origin(annotation) is dict:
        key, value = get_args(annotation)
        names = choice(get_args(key)) if get_origin(key) is Literal else "names"
        return f"a mapping of {names} to {allowed(value)}"
    if is_section(annotation):
        return f"a mapping with keys such as `{next(iter(annotation.model_fields))}`"
    words = {str: "a text", int: "a whole number", float: "a number", bool: "`true` or `false`", NoneType: "`null`"}
    return words[annotation] + _bounds(metadata)


def _bounds(metadata: Sequence) -> str:
    bounds = {name: f"{getattr(item, name):g}" for item in metadata for name in ("ge", "gt", "le", "lt")
              if hasattr(item, name)}
    if "ge" in bounds and ("le" in bounds or "lt" in bounds):
        return f" from {bounds['ge']} to {bounds['le'] if 'le' in bounds else 'below ' + bounds['lt']}"
    if "gt" in bounds:
        return f" above {bounds['gt']}" + (f" and below {bounds['lt']}" if "lt" in bounds else "")
    return f" of at least {bounds['ge']}" if "ge" in bounds else ""


def shown(value: Any) -> str:
    """A value as an error names it; mappings and lists by their kind, long texts by their beginning."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list):
        return "a list"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


def did_you_mean(value: str, known: Sequence[str]) -> str:
    """"Did you mean …?" with the known name that looks most like a value; empty where none does."""
    close = difflib.get_close_matches(value, known, n=1)
    return f"Did you mean {close[0]}?" if close else ""


def _space(sentence: str) -> str:
    return f" {sentence}" if sentence else ""
