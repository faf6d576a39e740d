"""What a run finds in its push destination, and what that means for comparing and pushing."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from components.versions import read_manifest, served_version
from modules.errors import TextrailError


@dataclass(frozen=True)
class Served:
    """What is served when a run is built.

    Attributes:
        recipe: names all that a model of the run is made from.
        baseline: version that the run's model is compared with; "" if nothing is served.
        attempt: names the run's push, so that the cache answers for it only while its version is served.
    """

    recipe: str
    baseline: str
    attempt: str

    @classmethod
    def find(cls, destination: str, recipe: str, reads: Mapping[str, str | None],
             is_cached: Callable[[str], bool]) -> Served:
        """Looks at the newest version.

        It is the baseline, unless it is the very model that this run would take from its cache: that one is compared
        with what it was compared with when it was pushed, so that a run in which nothing changed executes nothing.

        Args:
            destination: folder or URI of the versions.
            recipe: names all that a model of this run is made from.
            reads: `shape` and, by what they hold, the columns of a model of this run, as its textrail.json has them.
            is_cached: whether the run would take the model, of which it is told the URI, from its cache; asked of a
                model of the same recipe.

        Raises:
            TextrailError: the served model is of another shape or has other columns, so the two cannot be judged on the
                same rows.
        """
        version = served_version(destination)
        if version is None:
            return cls(recipe, "", uuid.uuid4().hex)
        manifest = read_manifest(os.path.join(destination, version))
        found = {key: manifest.get(key) for key in reads}
        if found != dict(reads):
            raise TextrailError(f"a served model in {destination} for {_described(reads)}",
                                f"version {version}, for {_described(found)}",
                                "Choose another push.destination, or another workspace with --workspace.")
        pushed = manifest.get("model")
        if pushed and manifest["recipe"] == recipe and is_cached(pushed):
            return cls(recipe, manifest["baseline_version"] or "", manifest["attempt"])
        return cls(recipe, version, uuid.uuid4().hex)


def _described(reads: Mapping[str, str | None]) -> str:
    """For example "translation of 'pt' and 'en'"."""
    columns = " and ".join(repr(column) for key, column in reads.items() if key != "shape" and column)
    return f"{reads['shape']} of {columns}"
