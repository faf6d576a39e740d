"""What a run makes of the version it finds served: real version folders and a real metadata store."""

import json
from pathlib import Path

import pytest
from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as proto

from modules.errors import TextrailError
from pipelines.place import ThisMachine, recipe
from pipelines.served import Served
from pipelines.workspace import Workspace

READS = {"shape": "classification", "text": "review", "text_pair": None, "target": None}
TRAINING = {"settings": "s", "code": "c"}
RECIPE = recipe("code", {})


@pytest.fixture
def paths(tmp_path) -> Workspace:
    return Workspace("moods", tmp_path)


def serve(paths: Workspace, version: str, **facts) -> None:
    folder = paths.pushed / version
    (folder / "assets.extra").mkdir(parents=True)
    (folder / "saved_model.pb").touch()
    manifest = {**READS, "recipe": RECIPE, "model": "/model/1", "attempt": "a", "baseline_version": None} | facts
    (folder / "assets.extra" / "textrail.json").write_text(json.dumps(manifest))


def train(paths: Workspace, uri: str, settings: str = "s") -> None:
    """Writes down an execution that made a model, as TFX does."""
    config = proto.ConnectionConfig()
    config.sqlite.filename_uri = str(paths.metadata)
    config.sqlite.connection_mode = proto.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    store = metadata_store.MetadataStore(config)
    model_type = store.put_artifact_type(proto.ArtifactType(name="Model"))
    trainer_type = store.put_execution_type(proto.ExecutionType(name="components.trainer.Trainer"))
    execution = proto.Execution(type_id=trainer_type, last_known_state=proto.Execution.COMPLETE)
    for name, value in {"settings": settings, "code": "c"}.items():
        execution.custom_properties[name].string_value = value
    event = proto.Event(type=proto.Event.OUTPUT)
    event.path.steps.add(key="model")
    store.put_execution(execution, [(proto.Artifact(type_id=model_type, uri=uri), event)], [])


def find(paths: Workspace, forced: bool = False, reads=READS) -> Served:
    return ThisMachine(paths, forced).served(str(paths.pushed), "code", {}, reads, TRAINING)


def test_nothing_served_is_compared_with_nothing_and_each_push_is_another(paths):
    assert find(paths).baseline == ""
    assert find(paths).attempt != find(paths).attempt


def test_the_runs_own_model_is_compared_with_what_it_was_compared_with(paths):
    serve(paths, "7", baseline_version="6")
    train(paths, "/model/1")
    assert find(paths) == Served(RECIPE, "6", "a")


def test_a_retrained_model_is_compared_with_what_is_served(paths):
    serve(paths, "7")
    train(paths, "/model/1")
    train(paths, "/model/2")  # the newest, which the cache would give: forced, then refused
    assert find(paths).baseline == "7"


def test_a_model_of_other_settings_does_not_count(paths):
    serve(paths, "7", baseline_version="6")
    train(paths, "/model/1")
    train(paths, "/model/2", settings="other")
    assert find(paths).baseline == "6"


def test_a_forced_run_or_another_recipe_or_lost_metadata_compare_with_what_is_served(paths):
    serve(paths, "7")
    assert find(paths).baseline == "7"
    train(paths, "/model/1")
    assert find(paths, forced=True).baseline == "7"
    serve(paths, "8", recipe="other")
    assert find(paths).baseline == "8"


@pytest.mark.parametrize("changes, sentence", [
    ({"text": "text"}, "for classification of 'text'; received version 7, for classification of 'review'"),
    ({"shape": "translation", "target": "en"},
     "for translation of 'review' and 'en'; received version 7, for classification of 'review'"),
])
def test_a_served_model_of_another_kind_or_columns_stops_the_run_before_it_begins(paths, changes, sentence):
    serve(paths, "7")
    with pytest.raises(TextrailError, match=sentence):
        find(paths, reads=READS | changes)


def test_a_model_that_somebody_else_put_there_is_told_apart(paths):
    Path(paths.pushed, "7").mkdir(parents=True)
    Path(paths.pushed, "7", "saved_model.pb").touch()
    with pytest.raises(TextrailError, match="a SavedModel without it"):
        find(paths)
