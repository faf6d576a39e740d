"""The local runner on real TFX components: what each node's state is, and why."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modules.errors import TextrailError
from pipelines import classification_sections
from pipelines.beam_sections import Beam
from pipelines.workspace import Workspace, last_evaluation

FOLDER = Path(__file__).parent
WHY = re.compile(r"same inputs, settings and code as execution \d+ of \d{4}-\d\d-\d\d \d\d:\d\d")



class Recorder:
    """A listener that keeps what it hears."""

    def __init__(self):
        self.heard = []

    def begin(self, nodes):
        self.heard.append([node.id for node in nodes])

    def changed(self, node):
        self.heard.append((node.id, node.state))


@pytest.fixture(scope="module")
def tiny():
    sys.path.insert(0, str(FOLDER))
    import tiny_pipeline

    yield tiny_pipeline
    sys.path.remove(str(FOLDER))


@pytest.fixture
def launch(tiny, tmp_path):
    """Runs the tiny pipeline, and returns its nodes and what the listener heard."""
    from pipelines import local_runner
    from pipelines.place import ThisMachine

    paths = Workspace("tiny", tmp_path / "tiny")
    paths.folder.mkdir()

    def run(how="well", **options):
        chosen = classification_sections.Settings.model_validate({
            "description": how, "data": {"source": "csv", "path": "x.csv"},
            "evaluation": {"thresholds": {"accuracy": {"min": 0.5}}}})
        listener = Recorder()
        nodes = local_runner.run(tiny.build(chosen, "tiny", ThisMachine(paths)), listener, Path("run.log"), **options)
        return nodes, listener.heard

    run.paths = paths
    return run


def states(nodes):
    return [node.state for node in nodes]


def test_done_then_cached_then_forced_then_fresh(launch):
    nodes, heard = launch()
    assert heard[:3] == [["Maker", "Trainer", "Evaluator", "Pusher"], ("Maker", "running"), ("Maker", "done")]
    assert states(nodes) == ["done"] * 4
    assert all(0 < node.seconds < 60 and node.peak_mb > 100 for node in nodes)

    nodes, heard = launch()
    assert states(nodes) == ["cached"] * 4
    assert all(WHY.fullmatch(node.note) for node in nodes)
    first = [re.search(r"execution (\d+)", node.note)[1] for node in nodes]
    assert first == ["1", "2", "3", "4"]

    nodes, _ = launch(force=["Trainer"])
    # What reads the new model runs as well: its inputs are others.
    assert states(nodes) == ["cached", "done", "done", "done"]
    assert "execution 1 of" in nodes[0].note, "the execution that made it, not the one that used it last"
    assert states(launch(fresh=True)[0]) == ["done"] * 4

    evaluation = last_evaluation(launch.paths)
    assert evaluation.verdict["examples"] == 4
    assert Path(evaluation.folder).name == "15", "the newest execution's"

    with pytest.raises(TextrailError) as caught:
        launch(force=["trainr"])
    assert str(caught.value) == ("expected --force with one of Maker, Trainer, Evaluator, Pusher; received trainr. "
                                 "Did you mean Trainer?")


@pytest.mark.parametrize("how, note", [
    ("fails", "expected labels in 'sentiment'; received a blank one in rows.csv, line 3. Fill it in."),
    ("beams", "expected labels in 'sentiment'; received a blank one in rows.csv, line 3. Fill it in."),
    ("breaks", "ValueError: last line. The log has the traceback: run.log"),
])
def test_failures_are_one_sentence_and_the_log_has_the_traceback(launch, capfd, how, note):
    nodes, _ = launch(how)
    assert states(nodes) == ["done", "failed", "waiting", "waiting"]
    assert nodes[1].note == note
    assert "Traceback (most recent call last)" in capfd.readouterr().err
    assert last_evaluation(launch.paths) is None
    assert states(launch()[0]) == ["cached", "done", "done", "done"]


def test_a_lost_job_begins_again_without_its_half_output(launch):
    nodes, _ = launch("loses", beam=Beam(retries=1).model_dump())
    assert states(nodes) == ["done"] * 4
    made = launch.paths.pipeline_root / "Trainer" / "model"
    assert [path.name for path in made.glob("*/*")] == ["weights"], "what the first attempt left is gone"


def test_a_row_that_cannot_be_used_is_not_tried_again(launch, capfd):
    assert states(launch("beams", beam=Beam(retries=5).model_dump())[0])[1] == "failed"
    assert "begins again" not in "".join(capfd.readouterr())


def test_where_the_work_is_done_is_not_in_the_cache_key(launch):
    assert states(launch()[0]) == ["done"] * 4
    elsewhere = Beam(parallelism=2, retries=3, options={"max_cache_memory_usage_mb": 1}).model_dump()
    assert states(launch(beam=elsewhere)[0]) == ["cached"] * 4


def test_a_killed_run_is_taken_up_and_an_interrupted_one_says_so(launch, tiny, monkeypatch):
    code = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)   # Where the tests run in a shell's background it is ignored.
sys.path.insert(0, {str(FOLDER)!r})
from pathlib import Path
import tiny_pipeline
from pipelines import classification_sections, local_runner
from pipelines.place import ThisMachine
from pipelines.workspace import Workspace

class Listener:
    def begin(self, nodes): pass
    def changed(self, node): print(node.id, node.state, node.note, flush=True)

chosen = classification_sections.Settings.model_validate({{
    "description": "sleeps", "data": {{"source": "csv", "path": "x.csv"}},
    "evaluation": {{"thresholds": {{"accuracy": {{"min": 0.5}}}}}}}})
paths = Workspace("tiny", Path({str(launch.paths.folder)!r}))
with paths.lock():
    local_runner.run(tiny_pipeline.build(chosen, "tiny", ThisMachine(paths)), Listener(), Path("run.log"))
"""

    def until_it_sleeps():
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                   text=True, env={**os.environ, "PYTHONPATH": str(FOLDER.parents[1])})
        while "Trainer running" not in process.stdout.readline():
            assert process.poll() is None
        time.sleep(2)   # the execution is registered by now
        return process

    process = until_it_sleeps()
    with pytest.raises(TextrailError, match=f"no other run of tiny in .*; received one under way .process "
                                            f"{process.pid}, since .*--workspace DIR"), launch.paths.lock():
        pass
    process.kill()
    process.wait()
    with launch.paths.lock():
        pass
    models = launch.paths.pipeline_root / "Trainer" / "model"
    half, = models.iterdir()
    assert states(launch()[0]) == ["cached", "done", "done", "done"]
    assert not half.exists() and len(list(models.iterdir())) == 1, "nothing half made stays behind"

    process = until_it_sleeps()
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=30)[0]
    assert rest.splitlines() == ["Trainer interrupted stopped by Ctrl-C or a signal; the next run takes up here"]


EDIT_AND_RUN = """
import json, sys
from pathlib import Path
from tfx.orchestration import metadata, pipeline
from components.encoder_importer import EncoderImporter
from components.example_gen import ExampleGen
from components.served_model import ServedModel
from pipelines import classification_sections, local_runner

class Listener:
    def begin(self, nodes): pass
    def changed(self, node): pass

here, encoder = Path.cwd(), sys.argv[1]
Path("rows.csv").write_text("text,label\\n" + "".join(f"film {i},good\\n" for i in range(99)))
data = json.dumps(classification_sections.Data(
    source="csv", path=str(here / "rows.csv")).model_dump(exclude={"schema_file"}))

def run():
    # One component of each kind: with a Beam executor, a function and an executor class.
    components = [ExampleGen(data=data, fingerprint="1"), EncoderImporter(source=encoder, fingerprint="1"),
                  ServedModel(destination=str(here / "pushed"), version="")]
    nodes = local_runner.run(pipeline.Pipeline(
        pipeline_name="edited", pipeline_root=str(here / "root"), enable_cache=True, components=components,
        metadata_connection_config=metadata.sqlite_metadata_connection_config(str(here / "metadata.db"))),
        Listener(), here / "run.log")
    print(*(f"{node.id}={node.state}" for node in sorted(nodes, key=lambda node: node.id)))

run()
run()
for name in ("source_csv", "encoder_sources", "served_model"):
    code = Path("components", f"{name}.py")
    text = code.read_text()
    code.write_text(text.replace("-> None:", "-> 'None':"))
    run()
"""


def test_an_edit_of_a_component_runs_it_again_and_no_other(tmp_path, tiny_encoder):
    for package in ("components", "modules", "pipelines"):
        shutil.copytree(FOLDER.parents[1] / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run([sys.executable, "-c", EDIT_AND_RUN, str(tiny_encoder)], cwd=tmp_path, capture_output=True,
                          text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == [
        f"EncoderImporter={importer} ExampleGen={reader} ServedModel={served}" for importer, reader, served in (
            ("done", "done", "done"), ("cached", "cached", "cached"), ("cached", "done", "cached"),
            ("done", "cached", "cached"), ("cached", "cached", "done"))]
