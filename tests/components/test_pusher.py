import json
import shutil
import threading
import time
from pathlib import Path

import pytest
from tfx import types
from tfx.types import standard_artifacts

from components import pusher
from components.artifacts import DataBlessing
from components.verdict import threshold_rows
from components.versions import read_manifest, served_version
from modules.errors import TextrailError


@pytest.fixture
def saved_model(tmp_path) -> Path:
    """A folder with the files of a SavedModel; pushing looks into none but textrail.json."""
    folder = tmp_path / "model" / "Format-Serving"
    (folder / "assets.extra").mkdir(parents=True)
    (folder / "variables").mkdir()
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "variables.index").write_bytes(b"index")
    (folder / "assets.extra" / "textrail.json").write_text(json.dumps({"text": "text", "classes": ["no", "yes"]}))
    return folder


def artifact(kind, folder: Path, **properties):
    made = kind()
    made.uri = str(folder)
    for name, value in properties.items():
        made.set_int_custom_property(name, value)
    return made


def run(tmp_path, saved_model, accuracy=0.9, blessed=1, checked=1, keep=2, gate=True, baseline=None, attempt="a1"):
    """Executes the component, by default as one that was compared with what is served; gives its pushed_model."""
    baseline = (served_version(str(tmp_path / "served")) or "") if baseline is None else baseline
    rows = threshold_rows({"accuracy": {"min": 0.8, "max_drop": 0.02}}, {"accuracy": accuracy}, {"accuracy": 0.85})
    (tmp_path / "evaluation").mkdir(exist_ok=True)
    (tmp_path / "evaluation" / "verdict.json").write_text(json.dumps({
        "passed": bool(blessed), "split": "test", "examples": 40, "rows": rows, "metrics": {"accuracy": accuracy}}))
    (tmp_path / "gate").mkdir(exist_ok=True)
    (tmp_path / "gate" / "report.json").write_text(json.dumps({"label_counts": {"train": {"no": 3, "yes": 4}}}))
    pushed = artifact(standard_artifacts.PushedModel, tmp_path / "pushed")
    inputs = {
        "model": [artifact(standard_artifacts.Model, saved_model.parent)],
        "model_blessing": [artifact(standard_artifacts.ModelBlessing, tmp_path, blessed=blessed)],
        "infra_blessing": [artifact(standard_artifacts.InfraBlessing, tmp_path, blessed=checked)],
        "evaluation": [artifact(standard_artifacts.ModelEvaluation, tmp_path / "evaluation")]}
    if gate:
        inputs["gate"] = [artifact(DataBlessing, tmp_path / "gate")]
    pusher.Executor().Do(inputs, {"pushed_model": [pushed]}, {
        "destination": str(tmp_path / "served"), "keep": keep, "recipe": "r1", "baseline_version": baseline,
        "attempt": attempt})
    return pushed


def test_push_is_a_new_version_with_its_story(tmp_path, saved_model):
    pushed = run(tmp_path, saved_model)
    version = served_version(str(tmp_path / "served"))
    folder = tmp_path / "served" / version
    assert abs(int(version) - time.time()) < 100
    assert pushed.get_string_custom_property("pushed_version") == version
    assert pushed.get_string_custom_property("pushed_destination") == str(folder)
    assert (folder / "saved_model.pb").read_bytes() == b"graph"
    assert (folder / "variables" / "variables.index").read_bytes() == b"index"
    manifest = read_manifest(str(folder))
    assert manifest.pop("pushed_at").startswith("20")
    assert manifest == {
        "text": "text", "classes": ["no", "yes"], "version": version, "recipe": "r1", "attempt": "a1",
        "model": str(saved_model.parent), "baseline_version": None,
        "label_counts": {"train": {"no": 3, "yes": 4}}, "metrics": {"accuracy": 0.9}}
    assert "version" not in read_manifest(str(saved_model))  # the run's own model stays as it was


def test_versions_grow_and_only_the_newest_stay(tmp_path, saved_model):
    first = run(tmp_path, saved_model, gate=False).get_string_custom_property("pushed_version")
    (tmp_path / "served" / "notes").mkdir()
    (tmp_path / "served" / f"{int(first) + 5000}").mkdir()  # a folder without a model is nobody's version
    models = [shutil.copytree(saved_model.parent, tmp_path / f"model{i}") / "Format-Serving" for i in range(2)]
    later = [run(tmp_path, model, attempt=str(model)).get_string_custom_property("pushed_version") for model in models]
    assert int(first) < int(later[0]) < int(later[1])
    names = {path.name for path in (tmp_path / "served").iterdir()}
    assert names == {*later, "notes", f"{int(first) + 5000}"}


def test_the_model_that_is_served_is_not_pushed_twice(tmp_path, saved_model):
    first, second = (run(tmp_path, saved_model).get_string_custom_property("pushed_version") for _ in range(2))
    assert first == second
    assert [path.name for path in (tmp_path / "served").iterdir()] == [first]


def test_a_model_does_not_replace_what_it_was_never_compared_with(tmp_path, saved_model):
    served = run(tmp_path, saved_model).get_string_custom_property("pushed_version")
    other = shutil.copytree(saved_model.parent, tmp_path / "other") / "Format-Serving"
    with pytest.raises(TextrailError, match=f"to serve nothing, which .* compared with; received version {served}"):
        run(tmp_path, other, baseline="", attempt="a2")
    assert [path.name for path in (tmp_path / "served").iterdir()] == [served]


def test_a_model_made_anew_since_its_cache_was_lost_is_not_pushed_again(tmp_path, saved_model):
    """Its attempt is that of the version served, and it was compared with what that one was compared with."""
    served = run(tmp_path, saved_model).get_string_custom_property("pushed_version")
    anew = shutil.copytree(saved_model.parent, tmp_path / "anew") / "Format-Serving"
    assert run(tmp_path, anew, baseline="").get_string_custom_property("pushed_version") == served
    assert [path.name for path in (tmp_path / "served").iterdir()] == [served]


def test_a_model_below_its_bound_stops_with_the_sentence_and_nothing_is_pushed(tmp_path, saved_model):
    with pytest.raises(TextrailError, match=r"accuracy: 0.7 is below the bound 0.8; 0.7 is 0.15 worse") as error:
        run(tmp_path, saved_model, accuracy=0.7, blessed=0)
    assert "Nothing was pushed" in str(error.value) and "40 examples of the test split" in str(error.value)
    assert not (tmp_path / "served").exists()


def test_a_model_that_was_not_checked_is_not_pushed(tmp_path, saved_model):
    with pytest.raises(TextrailError, match="ModelCheck did not bless"):
        run(tmp_path, saved_model, checked=0)
    assert not (tmp_path / "served").exists()


def test_a_crash_before_the_rename_leaves_nothing_visible(tmp_path, saved_model, monkeypatch):
    seen = []

    def crash(source, target, overwrite=False):
        seen.extend(path.name for path in (tmp_path / "served").iterdir())
        raise KeyboardInterrupt

    monkeypatch.setattr(pusher.fileio, "rename", crash)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, saved_model)
    assert len(seen) == 1 and seen[0].startswith(".")  # while it grew, only the hidden copy was there
    assert list((tmp_path / "served").iterdir()) == []


def test_leftovers_of_a_killed_push_go_after_a_day(tmp_path, saved_model):
    served = tmp_path / "served"
    old, young = (served / f".textrail-{int(time.time()) - age}-ab" for age in (90_000, 60))
    for folder in (old, young):
        folder.mkdir(parents=True)
    run(tmp_path, saved_model)
    assert not old.exists() and young.exists() and served_version(str(served)) is not None


def test_two_pushes_at_once_give_two_versions(tmp_path, saved_model):
    found, barrier = [], threading.Barrier(2)

    def push():
        barrier.wait()
        found.append(pusher.push(str(saved_model), str(tmp_path / "served"), {}))

    threads = [threading.Thread(target=push) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 2
    assert {path.name for path in (tmp_path / "served").iterdir()} == set(found)
    for version in found:
        assert read_manifest(str(tmp_path / "served" / version))["version"] == version


def test_component_takes_the_channels_of_its_neighbours(tmp_path):
    channels = {name: types.Channel(type=kind) for name, kind in (
        ("model", standard_artifacts.Model), ("model_blessing", standard_artifacts.ModelBlessing),
        ("infra_blessing", standard_artifacts.InfraBlessing), ("evaluation", standard_artifacts.ModelEvaluation),
        ("gate", DataBlessing))}
    component = pusher.Pusher(**channels, destination=str(tmp_path), keep=5, recipe="r1", baseline_version="")
    assert component.outputs["pushed_model"].type is standard_artifacts.PushedModel
