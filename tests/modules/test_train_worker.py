"""What a process of a training leaves on its machine."""

import tempfile

from modules.train_worker import SCRATCH, _scratch


def test_folders_of_killed_processes_go_and_those_in_use_stay(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / f"{SCRATCH}killed" / "model").mkdir(parents=True)
    with _scratch() as one:
        assert list(map(str, tmp_path.iterdir())) == [one]
        with _scratch() as other:
            assert sorted(map(str, tmp_path.iterdir())) == sorted([one, other])
    assert not list(tmp_path.iterdir())
