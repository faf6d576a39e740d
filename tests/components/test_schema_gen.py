"""Schemas from real TFDV statistics of small tables."""

import pandas as pd
import pytest
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import schema_pb2

from components.rows import wanted
from components.schema_gen import class_names, infer_schema, label_counts, read_curated, schema_fingerprint
from modules.errors import TextrailError

ROWS = {"text": ["good", "bad", "fine", "poor"], "stars": ["pos", "neg", "pos", "neg"]}

CURATED = """
feature { name: "text" type: BYTES }
feature { name: "stars" type: BYTES domain: "stars" }
string_domain { name: "stars" value: "neg" value: "pos" }
"""


def statistics(**columns: list):
    return tfdv.generate_statistics_from_dataframe(pd.DataFrame(columns))


def test_text_is_free_and_the_label_has_a_sorted_domain():
    schema = infer_schema(statistics(**ROWS), wanted({"text": "text", "label": "stars"}))
    text, label = (tfdv.get_feature(schema, name) for name in ("text", "stars"))
    assert text.WhichOneof("domain_info") is None
    assert [d.size for d in text.shape.dim] == [d.size for d in label.shape.dim] == [1]
    assert text.presence.min_fraction == label.presence.min_fraction == 1
    assert class_names(schema, "stars") == ["neg", "pos"]
    assert not tfdv.validate_statistics(statistics(**ROWS), schema).anomaly_info


def test_without_a_label_every_column_is_free():
    columns = wanted({"text": "pt", "target": "en", "slice": "kind"})
    schema = infer_schema(statistics(pt=["a", "b"] * 9, en=["c", "d"] * 9, kind=["seen", "seen"] * 9), columns)
    assert [tfdv.get_feature(schema, name).WhichOneof("domain_info") for name in columns.names] == [None] * 3
    assert not tfdv.validate_statistics(statistics(pt=["x"], en=["y"], kind=["unseen"]), schema).anomaly_info
    assert set(tfdv.validate_statistics(statistics(pt=["x"], kind=["seen"]), schema).anomaly_info) == {"en"}


def test_other_rows_are_held_against_it():
    schema = infer_schema(statistics(**ROWS), wanted({"text": "text", "label": "stars"}))
    found = tfdv.validate_statistics(statistics(text=["new", "words"], stars=["pos", "mixed"]), schema).anomaly_info
    assert set(found) == {"stars"} and "mixed" in found["stars"].description
    assert set(tfdv.validate_statistics(statistics(stars=["pos", "neg"]), schema).anomaly_info) == {"text"}


def test_label_counts():
    assert label_counts(statistics(text=["a", "b", "c"], stars=["pos", "neg", "pos"]), "stars") == {"neg": 1, "pos": 2}


def test_one_class_is_not_enough():
    with pytest.raises(TextrailError, match=r"at least two classes in the training split; received 1 \(pos\)"):
        infer_schema(statistics(text=["a", "b"], stars=["pos", "pos"]), wanted({"text": "text", "label": "stars"}))


def test_a_missing_feature_is_named_with_the_nearest():
    with pytest.raises(TextrailError, match="nearest is 'stars'"):
        infer_schema(statistics(**ROWS), wanted({"text": "text", "label": "star"}))


def test_numbers_are_no_labels():
    with pytest.raises(TextrailError, match="the type INT"):
        infer_schema(statistics(text=["a", "b"], stars=[0, 1]), wanted({"text": "text", "label": "stars"}))


def test_free_text_is_no_label():
    many = [f"sentence {i}" for i in range(1100)]
    with pytest.raises(TextrailError, match="received 1100 different values"):
        infer_schema(statistics(text=many, stars=many), wanted({"text": "text", "label": "stars"}))


def test_long_texts_that_repeat_are_no_labels():
    texts = ["dull", "a long story " * 100]
    with pytest.raises(TextrailError, match="names of at most 1,024 bytes in 'stars'; received 3 rows with longer"):
        infer_schema(statistics(text=list("abcd"), stars=[texts[0], *[texts[1]] * 3]),
                     wanted({"text": "text", "label": "stars"}))


def test_a_curated_schema_is_taken_as_it_is(tmp_path):
    path = tmp_path / "schema.pbtxt"
    path.write_text(CURATED)
    schema = read_curated(str(path), wanted({"text": "text", "label": "stars"}))
    assert isinstance(schema, schema_pb2.Schema) and class_names(schema, "stars") == ["neg", "pos"]


@pytest.mark.parametrize("old, new, reason", [
    ('name: "text"', 'name: "texts"', "a feature 'text' in .*nearest is 'texts'"),
    ("BYTES domain", "INT domain", "the type INT"),
    (' domain: "stars"', "", "at least two classes .* received \\[\\]"),
    ("feature {", "feature [", "protobuf's text format"),
])
def test_a_curated_schema_is_checked(tmp_path, old, new, reason):
    path = tmp_path / "schema.pbtxt"
    path.write_text(CURATED.replace(old, new))
    with pytest.raises(TextrailError, match=reason):
        read_curated(str(path), wanted({"text": "text", "label": "stars"}))


def test_the_fingerprint_follows_the_content(tmp_path):
    path = tmp_path / "schema.pbtxt"
    path.write_text(CURATED)
    before = schema_fingerprint(str(path))
    path.write_text(CURATED + "\n")
    assert schema_fingerprint(None) == "" and before and schema_fingerprint(str(path)) != before
    with pytest.raises(TextrailError, match=r"data\.schema_file"):
        schema_fingerprint(str(tmp_path / "schema.pb"))
