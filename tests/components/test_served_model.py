import subprocess
import sys

import pytest
from tfx.types import standard_artifacts

from components.served_model import Executor, ServedModel
from components.versions import served_version, versions
from modules.errors import TextrailError


def model(tmp_path):
    made = standard_artifacts.Model()
    made.uri = str(tmp_path / "out")
    return made


def write_version(destination, version):
    folder = destination / version
    (folder / "assets.extra").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(version.encode())
    (folder / "assets.extra" / "textrail.json").write_text("{}")


def test_newest_complete_version_is_served(tmp_path):
    assert served_version(str(tmp_path / "nothing")) is None
    for version in ("9", "10", ".11", "12x"):
        write_version(tmp_path, version)
    (tmp_path / "13").mkdir()  # no model in it
    assert versions(str(tmp_path)) == [9, 10] and served_version(str(tmp_path)) == "10"


def test_a_copy_of_the_served_model_is_the_baseline(tmp_path):
    write_version(tmp_path / "served", "10")
    out = model(tmp_path)
    Executor().Do({}, {"model": [out]}, {"destination": str(tmp_path / "served"), "version": "10"})
    assert (tmp_path / "out" / "Format-Serving" / "saved_model.pb").read_bytes() == b"10"
    assert (tmp_path / "out" / "Format-Serving" / "assets.extra" / "textrail.json").is_file()
    assert out.get_string_custom_property("served_version") == "10"
    assert not out.get_int_custom_property("none")


def test_it_may_be_served_from_a_store():
    """In a process that imports no other component, as on Kubeflow."""
    code = ("import components.served_model; from tfx.dsl.io import filesystem_registry as known; "
            "print(known.DEFAULT_FILESYSTEM_REGISTRY.get_filesystem_for_path('minio://models/reviews').__name__)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "ObjectStore"


def test_nothing_served_is_an_empty_folder_marked_none(tmp_path):
    out = model(tmp_path)
    Executor().Do({}, {"model": [out]}, {"destination": str(tmp_path / "served"), "version": ""})
    assert out.get_int_custom_property("none") == 1 and list((tmp_path / "out").iterdir()) == []


def test_a_version_deleted_meanwhile_is_told(tmp_path):
    with pytest.raises(TextrailError, match="start the run again"):
        Executor().Do({}, {"model": [model(tmp_path)]}, {"destination": str(tmp_path), "version": "7"})


def test_component_fixes_the_version(tmp_path):
    component = ServedModel(destination=str(tmp_path), version="10")
    assert component.exec_properties == {"destination": str(tmp_path), "version": "10"}
