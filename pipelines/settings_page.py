"""The page `docs/settings.md`: `python -m pipelines.settings_page > docs/settings.md`."""

from __future__ import annotations

from collections.abc import Iterator

import yaml
from pydantic.fields import FieldInfo

from pipelines.sections import Section, choice
from pipelines.settings_words import allowed, is_section, keys
from pipelines.shapes import DEFAULT, SHAPES

TABLE = ("| key | value | default | meaning |", "|---|---|---|---|")
ORDER = ("data", "gate", "encoder", "vocabulary", "instances", "masking", "model", "training", "decoding",
         "filling", "evaluation", "push", "card", "beam", "kubeflow")
SHAPE = "Kind of pipeline, which decides what other keys there are: see below."

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

Another `shape` has other keys; a translation is learned from two columns:

```yaml
shape: translation
data:
  source: csv
  path: pairs.tsv             # without a header, so the columns are named here
  columns: [pt, en]
  text: pt
  target: en
evaluation:
  thresholds:
    bleu: {min: 20, max_drop: 1}
```

A pretraining needs no more than text:

```yaml
shape: pretraining
data:
  path: texts/*.txt           # a document a file; documents: block or line for others
evaluation:
  thresholds:
    masked_accuracy: {min: 0.2, max_drop: 0.01}
```
"""


def documentation() -> str:
    """The page `docs/settings.md`, written from the models: what all shapes share once, then what each has of its own.

    A key is shared if every shape has it with the same values, default and meaning.
    """
    # Those of a component on Kubeflow are the keys of `kubeflow.pods` once more.
    of_shapes = {shape: {key: field for key, field in keys(model) if ".COMPONENT." not in key}
                 for shape, model in SHAPES.items()}
    first, *others = of_shapes.values()
    shared = {key: field for key, field in first.items() if all(_same(field, other.get(key)) for other in others)}
    lines = [INTRODUCTION, "## Every shape\n", *TABLE, _row("shape", choice(list(SHAPES)), f"`{DEFAULT}`", SHAPE),
             *_tables(shared, of_shapes[DEFAULT])]
    for shape, found in of_shapes.items():
        own = {key: field for key, field in found.items() if key not in shared and key != "shape"}
        lines += [f"\n## {shape}", *_tables(own, found)]
    return "\n".join(lines) + "\n"


def _same(field: FieldInfo, other: FieldInfo | None) -> bool:
    """Whether two shapes have the same key; of two sections, whether they are there for the same."""
    if other is None or field.description != other.description:
        return False
    if is_section(field.annotation) and is_section(other.annotation):
        return True
    return (allowed(field.annotation, field.metadata) == allowed(other.annotation, other.metadata)
            and _default(field) == _default(other))


def _tables(chosen: dict[str, FieldInfo], known: dict[str, FieldInfo]) -> Iterator[str]:
    """Rows of the keys without a section, then a table for each section that has any of the chosen keys.

    Args:
        chosen: what is told.
        known: all keys of the shape, sections included, whose meaning heads the tables.
    """
    sections: dict[str, list[str]] = {}
    for key, field in chosen.items():
        section, dot, _ = key.partition(".")
        if dot or not is_section(field.annotation):
            sections.setdefault(section if dot else "", []).append(
                _row(key, allowed(field.annotation, field.metadata), _default(field), field.description or ""))
    yield from sections.pop("", [])
    for section in sorted(sections, key=lambda name: ORDER.index(name) if name in ORDER else -1):
        yield from (f"\n### {section}\n\n{known[section].description}\n", *TABLE, *sections[section])


def _row(key: str, *cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in (f"`{key}`", *cells)) + " |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Section):
        return "as below"
    return f"`{yaml.safe_dump(value, default_flow_style=True, allow_unicode=True).splitlines()[0]}`"


if __name__ == "__main__":
    print(documentation(), end="")
