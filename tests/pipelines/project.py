"""A user's project for tests: a copy of the code that a test may edit, a settings file beside its data, a workspace."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

CODE = Path(__file__).resolve().parents[2]
COMPONENTS = ["ExampleGen", "StatisticsGen", "SchemaGen", "ExampleValidator", "AnomalyGate", "EncoderImporter",
              "TextTransform", "Trainer", "ServedModel", "Evaluator", "ModelCheck", "Pusher", "RunReport"]
TRANSLATION = ["VocabularyGen" if name == "EncoderImporter" else name for name in COMPONENTS]
PRETRAINING = ["InstanceGen" if name == "TextTransform" else name for name in TRANSLATION]


class Project:
    """Calls the command as a user does, each time in a process of its own.

    Args:
        folder: where everything lies.
        run: name of the run; `RUN.yaml` gets the settings.
        settings: of the run.
    """

    def __init__(self, folder: Path, run: str, settings: dict[str, Any]):
        self.folder, self.name, self.file = folder, run, f"{run}.yaml"
        for package in ("pipelines", "components", "modules"):
            shutil.copytree(CODE / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / self.file).write_text(yaml.safe_dump(settings))
        self.environment = os.environ | {"TEXTRAIL_WORKSPACE": str(folder / "workspace"), "PYTHONPATH": str(folder),
                                         "TF_CPP_MIN_LOG_LEVEL": "2"}

    def start(self, *arguments: str) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-m", "pipelines.cli", *arguments], cwd=self.folder, text=True,
                                env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def call(self, *arguments: str) -> subprocess.CompletedProcess:
        process = self.start(*arguments)
        out, err = process.communicate()
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def run(self, *arguments: str) -> subprocess.CompletedProcess:
        return self.call("run", self.file, *arguments)

    def pushed(self) -> list[str]:
        folder = self.folder / "workspace" / self.name / "pushed"
        return sorted(path.name for path in folder.iterdir() if path.name.isdigit()) if folder.is_dir() else []

    def verdict(self) -> dict:
        done = self.call("metrics", self.name, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def states(done: subprocess.CompletedProcess) -> dict[str, str]:
    """Component → its last state, from the plain lines of a run."""
    found = {}
    for line in done.stdout.splitlines():
        match = re.match(r"^\W*(\w+)\W+(running|cached|done|failed)\b", line)
        if match and match[1] in {*COMPONENTS, *TRANSLATION, *PRETRAINING}:
            found[match[1]] = match[2]
    return found
