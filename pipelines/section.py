"""What every group of keys in the settings is."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A group of keys. Unknown keys are errors, so that a typing mistake is never taken for a default."""

    model_config = ConfigDict(extra="forbid", validate_default=True)
