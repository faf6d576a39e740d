"""The commands of docs/kubeflow.md are such as there are, and its settings are read."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from pipelines import cli, settings
from pipelines.kubeflow_sections import Kubeflow

PAGE = (Path(__file__).parents[2] / "docs" / "kubeflow.md").read_text("utf-8")
COMMANDS = [line for line in PAGE.replace("\\\n", " ").splitlines() if line.startswith("textrail ")]
SETTINGS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def test_there_are_commands_and_settings():
    assert [shlex.split(command)[2] for command in COMMANDS] == ["compile", "submit"] and len(SETTINGS) == 3


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_one(command):
    options = cli._parser().parse_args(shlex.split(command)[1:])
    told = settings.load(options.run, options.overrides)
    assert told.kubeflow.volumes[0].path == "/mnt/models" and told.push.destination == "/mnt/models/reviews"


@pytest.mark.parametrize("block", SETTINGS)
def test_settings_are_read(block):
    assert Kubeflow.model_validate(yaml.safe_load(block)["kubeflow"], strict=True).model_fields_set
