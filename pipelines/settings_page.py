"""The page `docs/settings.md`: `python -m pipelines.settings_page > docs/settings.md`."""

from __future__ import annotations

import yaml
from pydantic.fields import FieldInfo

from pipelines.sections import Section, Settings
from pipelines.settings_words import allowed, is_section, keys

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
    for key, field in keys(Settings):
        section = is_section(field.annotation) and "." not in key
        if key == "shape" or section:
            lines += ["" if key == "shape" else f"\n## {key}\n\n{field.description}\n",
                      "| key | value | default | meaning |", "|---|---|---|---|"]
        if not section:
            cells = (f"`{key}`", allowed(field.annotation, field.metadata), _default(field), field.description or "")
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
