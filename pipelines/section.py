"""What every group of keys in the settings is."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A group of keys. Unknown keys are errors, so that a typing mistake is never taken for a default."""

    model_config = ConfigDict(extra="forbid", validate_default=True)
