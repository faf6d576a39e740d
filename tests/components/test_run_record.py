import datetime
import json

from components.run_record import Artifact, Change, Run, Step, changes, flat, total_bytes

NOON = datetime.datetime(2026, 1, 2, 12)


def step(name, state="done", seconds=1.0, outputs=None, **parameters):
    return Step(name, 1, state, NOON, seconds, parameters, outputs or {})


def run_of(*steps):
    return Run(1, NOON, steps)


def test_settings_are_put_together_from_what_the_steps_were_told():
    run = run_of(
        step("ExampleGen", data=json.dumps({"source": "csv", "split": {"train": 0.8}}), fingerprint="f1"),
        step("AnomalyGate", gate=json.dumps({"max_empty_text": 0.01}), columns="{}"),
        step("TextTransform", settings=json.dumps({"max_length": 8, "data": {"text": "t"}}), code="c1"),
        step("Trainer", code="c2", executor_code="c3",
             settings=json.dumps({"seed": 1, "data": {"text": "t"}, "training": {"epochs": 3}, "head": "new"})))
    assert run.settings == {"data.source": "csv", "data.split.train": 0.8, "gate.max_empty_text": 0.01, "seed": 1,
                            "training.epochs": 3}
    assert run.read == {"data": "f1"} and run.code == {"TextTransform": "c1", "Trainer": "c2 c3"}


def test_changes_are_of_what_both_runs_were_told():
    before = run_of(step("ExampleGen", data='{"source": "csv"}', fingerprint="a"),
                    step("Trainer", settings='{"training": {"epochs": 3, "patience": 1}}', code="x"),
                    step("Pusher", keep=5))
    after = run_of(step("ExampleGen", data='{"source": "csv"}', fingerprint="b"),
                   step("Trainer", settings='{"training": {"epochs": 5, "patience": 1}}', code="y"))
    assert changes(before, after) == [Change("settings", "training.epochs", 3, 5), Change("data", "data", "a", "b"),
                                      Change("code", "Trainer", "x", "y")]
    assert changes(after, after) == []


def test_outcomes():
    served = {"pushed_model": Artifact("pushed_model", "PushedModel", "x", {"pushed_destination": "d/7"})}
    assert run_of(step("Pusher", outputs=served)).outcome == "pushed"
    assert run_of(step("Pusher", outputs=served)).pushed == "d/7"
    assert run_of(step("Pusher", "cached", 0.0, served)).outcome == "already pushed"
    stopped = run_of(step("ExampleGen"), step("AnomalyGate", "failed"))
    assert stopped.outcome == "stopped at AnomalyGate" and stopped.pushed is None
    assert run_of(step("Trainer", "running")).outcome == "not finished"
    assert run_of(step("Trainer", seconds=90.0)).seconds == 90.0


def test_sizes_are_those_of_all_files(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "one").write_bytes(b"12")
    (tmp_path / "a" / "b" / "two").write_bytes(b"345")
    here = Artifact("model", "Model", str(tmp_path / "a"), {})
    gone, away = (Artifact("model", "Model", uri, {}) for uri in (str(tmp_path / "c"), "gs://bucket/model"))
    assert (here.bytes, gone.bytes, away.bytes) == (5, None, None) and total_bytes([here, gone, away]) == 5


def test_leaves_of_settings():
    assert dict(flat({"a": {"b": 1, "c": [2]}, "d": {}, "e": None})) == {"a.b": 1, "a.c": [2], "d": {}, "e": None}
