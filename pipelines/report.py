"""The page of a run that is over, however it ended: what RunReport writes, made from outside the pipeline."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from components.run_record import Run, flat, read_runs
from modules.errors import TextrailError
from pipelines import settings
from pipelines.sections import Settings
from pipelines.workspace import Workspace

FILE = "report.html"


def command(run: str, told: Mapping[str, Any], file: str) -> str:
    """One line that repeats a run: its name and all settings that are not those of its file, the seed always.

    What the model's card says and where the data work was done change nothing in it and are left out.

    Args:
        run: name of the run.
        told: settings in force.
        file: of the settings; its path stands for the name of a run that is not ready-made.
    """
    name = run if run in settings.ready_made() else file
    now = {key: value for key, value in flat(told) if key != "shape" and not key.startswith(("card.", "beam."))}
    try:
        before = dict(flat(settings.load(name, check_files=False).model_dump(mode="json")))
    except (TextrailError, OSError):   # The file is gone, or is none any more; the page has all settings.
        before = now
    changed = {key: value for key, value in now.items() if key == "seed" or before.get(key) != value}
    words = [f"{key}={_word(value)}" for key, value in sorted(changed.items())]
    return shlex.join(["textrail", "run", name, *(word for one in words for word in ("--set", one))])


def _word(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6).strip()
    return text.removesuffix("...").strip()


def newest(workspace: Workspace) -> tuple[Run, Run | None]:
    """The run that was started last, and the one before it.

    Raises:
        TextrailError: none came as far as its first step.
    """
    runs = read_runs(str(workspace.metadata))
    if not runs:
        raise TextrailError(f"a run of {workspace.run} that began a step, in {workspace.folder}", "none",
                            f"Start it: textrail run {workspace.run}.")
    return runs[-1], runs[-2] if len(runs) > 1 else None


def write(workspace: Workspace) -> Path:
    """Writes the page of the newest run.

    Args:
        workspace: of the run.

    Returns:
        Its path, `report.html` in the workspace.

    Raises:
        TextrailError: there is no run to tell of.
    """
    from components.report_facts import gather
    from components.report_sections import report

    told = json.loads(workspace.settings.read_text("utf-8"))
    run, before = newest(workspace)
    facts = gather(workspace.run, run, told, command(workspace.run, told, workspace.owner()), before=before)
    path = workspace.folder / FILE
    beside = path.with_suffix(".part")
    beside.write_text(report(facts), "utf-8", "xmlcharrefreplace")
    beside.replace(path)
    return path


def command_of(loaded: Settings, paths: Workspace) -> str:
    """See `command`; for a run that is about to start."""
    return command(paths.run, loaded.model_dump(mode="json"), paths.owner())
