"""The history of a run and its page, of the tiny pipeline's real executions."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from components.run_record import read_runs
from modules.errors import TextrailError
from pipelines import classification_sections, history, report
from pipelines.cli import main
from pipelines.console import plain_console
from pipelines.workspace import Workspace

FOLDER = Path(__file__).parent


class Silent:
    def begin(self, nodes):
        pass

    def changed(self, node):
        pass


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> Workspace:
    """The tiny pipeline three times: pushed, cached, and with a Trainer that a data error stops."""
    sys.path.insert(0, str(FOLDER))
    import tiny_pipeline

    from pipelines import local_runner
    from pipelines.place import ThisMachine

    folder = tmp_path_factory.mktemp("states") / "tiny"
    folder.mkdir()
    paths = Workspace("tiny", folder)
    for how in ("well", "well", "fails"):
        chosen = classification_sections.Settings.model_validate({
            "description": how, "seed": 3, "data": {"source": "csv", "path": "x.csv"},
            "evaluation": {"thresholds": {"accuracy": {"min": 0.5}}}})
        paths.record(chosen)
        local_runner.run(tiny_pipeline.build(chosen, "tiny", ThisMachine(paths)), Silent(), Path("run.log"))
    sys.path.remove(str(FOLDER))
    return paths


def test_runs_are_read_as_they_were(paths):
    first, second, third = read_runs(str(paths.metadata))
    assert [run.number for run in (first, second, third)] == [1, 2, 3]
    assert [step.name for step in first.steps] == ["Maker", "Trainer", "Evaluator", "Pusher"]
    assert {step.state for step in first.steps} == {"done"} and {step.state for step in second.steps} == {"cached"}
    assert [step.maker[0] for step in second.steps] == [step.execution for step in first.steps]
    assert all(step.seconds == 0 for step in second.steps) and all(step.seconds > 0 for step in first.steps)
    assert first.artifact("Maker", "examples").uri == second.artifact("Maker", "examples").uri
    assert first.artifact("Maker", "examples").bytes == len("fine,pos\n")
    assert [(step.name, step.state) for step in third.steps] == [("Maker", "cached"), ("Trainer", "failed")]


def test_why_a_run_stopped_is_in_the_metadata(paths):
    third = read_runs(str(paths.metadata))[-1]
    assert third.outcome == "stopped at Trainer"
    assert third.failed.reason.startswith("expected labels in 'sentiment'; received a blank one in rows.csv, line 3.")


def test_the_page_of_a_stopped_run_has_the_reason_on_top(paths, capfd):
    assert main(["report", "tiny", "--workspace", str(paths.folder.parent)]) == 0
    path = Path(capfd.readouterr().out.strip())
    assert path == paths.folder / "report.html" and [*path.parent.glob("*.part")] == []
    whole = path.read_text("utf-8")
    assert whole.index("a blank one in rows.csv, line 3") < whole.index('id="verdict"')
    assert "same inputs, settings and code as execution 1 of" in whole


def test_the_history_tells_what_changed(paths, capsys):
    assert main(["history", "tiny", "--workspace", str(paths.folder.parent)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if re.match(r"\s*[123] ", line)]
    assert [line[3] for line in lines] == ["stopped" if number == 3 else "pushed" if number == 1 else "already"
                                          for number in (1, 2, 3)]
    assert lines[0][4:6] == ["0.7500", "0.5000"] and lines[1][-1] == "nothing"


def test_every_run_of_a_workspace_has_its_table(paths, capsys):
    assert main(["history", "--workspace", str(paths.folder.parent)]) == 0
    assert "tiny" in capsys.readouterr().out


def test_two_runs_side_by_side(paths, capsys):
    assert main(["compare", "tiny", "1", "2", "--workspace", str(paths.folder.parent)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"accuracy\s+0.7500\s+0.7500", out) and re.search(r"Trainer\s+\S+ s\s+cached", out)
    page = (paths.folder / "compare-1-2.html").read_text("utf-8")
    assert str(paths.folder / "compare-1-2.html") in out.replace("\n", "")
    assert "label neg" in page and page.count("<script>") == 1 and "https://" not in page


def test_a_number_that_there_is_not(paths):
    with pytest.raises(TextrailError, match="1 to 3; received 9"):
        history.compare(paths, 1, 9)


def test_logs_need_a_training(paths):
    with pytest.raises(TextrailError, match="a training of tiny"):
        history.logs(paths)


def test_the_command_repeats_the_settings(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("data: {source: csv, path: rows.csv}\nevaluation: {thresholds: {accuracy: {min: 0.5}}}\n")
    from pipelines import settings

    told = settings.load(str(file), ["training.epochs=7", "evaluation.length_bands=[8, 9]", "data.text=my text",
                                     "card.licence=mine"], check_files=False)
    words = shlex.split(report.command("mine", told.model_dump(mode="json"), str(file)))
    assert words[:3] == ["textrail", "run", str(file)] and "card.licence=mine" not in words
    overrides = words[4::2]
    assert overrides == ["data.text=my text", "evaluation.length_bands=[8, 9]", "seed=42", "training.epochs=7"]
    again = settings.load(str(file), overrides, check_files=False)
    assert again.model_dump(exclude={"card"}) == told.model_dump(exclude={"card"})
    assert report.command("mine", json.loads(told.model_dump_json()), str(tmp_path / "gone.yaml")).endswith(
        "gone.yaml --set seed=42")


def test_what_a_line_says_of_changes():
    from components.run_record import Change

    found = [Change("settings", "training.epochs", 3, 5), Change("data", "data", "a", "b"),
             Change("code", "Trainer", "x", "y"), Change("code", "Pusher", "x", "y")]
    assert history.summary(found) == "training.epochs 3 → 5, data, code of Trainer, Pusher"
    many = [Change("settings", f"k{n}", "a" * 60, None) for n in range(6)]
    assert history.summary(many).endswith(" and 2 more") and "…" + "a" * 38 + " → null" in history.summary(many)


def test_tables_are_readable_without_a_terminal(paths, capsys):
    plain_console(sys.stdout).print(history.history_table(paths))
    assert "changed against the one before" in " ".join(capsys.readouterr().out.split())
