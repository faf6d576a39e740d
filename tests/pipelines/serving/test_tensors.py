"""JSON as TensorFlow Serving has it."""

import json
from http import HTTPStatus

import numpy as np
import pytest

from pipelines.serving.errors import RestError
from pipelines.serving.tensors import Request, read_columns, read_request, write_response


def read(body, names):
    return read_columns(read_request(json.dumps(body).encode()), names)


def refused(body, names=("pt",)):
    with pytest.raises(RestError) as caught:
        read_columns(read_request(body if isinstance(body, bytes) else json.dumps(body).encode()), list(names))
    assert caught.value.status == HTTPStatus.BAD_REQUEST
    return caught.value.message


def test_rows_and_columns_of_one_input():
    for body in ({"instances": ["é", {"b64": "/wA="}]}, {"instances": [{"pt": "é"}, {"pt": {"b64": "/wA="}}]},
                 {"inputs": ["é", {"b64": "/wA="}]}, {"inputs": {"pt": ["é", {"b64": "/wA="}]}}):
        assert read(body, ["pt"]) == {"pt": ["é".encode(), b"\xff\x00"]}


def test_rows_and_columns_of_two_inputs():
    for body in ({"instances": [{"a": "x", "b": "y"}, {"b": "z", "a": ""}]},
                 {"inputs": {"a": ["x", ""], "b": ["y", "z"]}}):
        assert read(body, ["b", "a"]) == {"a": [b"x", b""], "b": [b"y", b"z"]}


def test_signature_and_form_are_read():
    assert read_request(b'{"instances": [1]}') == Request("serving_default", True, [1])
    assert read_request(b'{"signature_name": "attention", "inputs": 1}') == Request("attention", False, 1)


@pytest.mark.parametrize(("body", "names", "message"), [
    (b"", "a", "JSON Parse error: Expecting value at offset: 0"),
    (b'{"instances": ["\xff"]}', "a", "JSON Parse error: Invalid encoding in string. at offset: 16"),
    (b"[" * 100_000, "a", "JSON Parse error: Nested too deeply"),
    ([1], "a", "JSON Value: [1] Is not object"),
    ({}, "a", "Missing 'inputs' or 'instances' key"),
    ({"instances": []}, "a", "JSON Value: [] No values in 'instances' array"),
    ({"inputs": []}, "a", "JSON Value: [] No values in 'inputs'"),
    ({"inputs": "x"}, "a", 'JSON Value: "x" for the input a, which is a list of strings, one a row'),
    ({"inputs": {"b": ["x"]}}, "a", "Missing named input: a in 'inputs' object."),
    ({"inputs": ["x"]}, "ab", "inputs is a plain value/list, but expecting an object as multiple input tensors "
                              "required as per tensorinfo_map"),
    ({"instances": ["x"]}, "ab", "instances is a plain list, but expecting list of objects as multiple input tensors "
                                 "required as per tensorinfo_map"),
    ({"inputs": {"a": ["x"], "b": []}}, "ab", "Batching Run() input tensors must have equal 0th-dimension size"),
    ({"instances": ["x", 3]}, "a", "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: JSON "
                                   "Value: 3 Type: Number is not of expected type: string"),
    ({"instances": ["x", {"a": "x"}]}, "a", "Expecting value/list but got object at item 1 of input list"),
    ({"instances": [{"a": "x"}, "x"]}, "a", "Expecting object but got list at item 1 of input list"),
    ({"instances": [{"a": "x", "c": "x"}]}, "a", "Failed to process element: 0 key: c of 'instances' list. Error: "
                                                 "INVALID_ARGUMENT: JSON object: does not have named input: c"),
    ({"instances": [{"a": "x"}]}, "ab", "Failed to process element: 0 of 'instances' list. JSON object: {\"a\": \"x\"} "
                                        "keys must be equal to: a,b"),
    ({"instances": [{"b64": "?"}]}, "a", "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: "
                                         "Unable to base64 decode"),
    ({"instances": [["x"]]}, "a", "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: "
                                  "Encountered list at unexpected level: 1 expected < 1"),
])
def test_what_is_wrong_is_named(body, names, message):
    assert refused(body, names) == message


def test_both_forms_or_a_signature_that_is_no_name_are_refused():
    assert "expecting only one of 'inputs' or 'instances' keys" in refused({"inputs": ["x"], "instances": ["x"]})
    assert "'signature_name' key must be a string value" in refused({"inputs": ["x"], "signature_name": 3})
    assert refused(b'{"inputs": ["\\ud800"]}').endswith("The surrogate pair in string is invalid.")


def test_outputs_by_row_and_by_column():
    outputs = {"score": np.float32([0.1, -3.4028235e38]), "said": np.array([b"\xc3\xa9", b"\xff"], object),
               "best": np.array([[b"x"], [b"y"]], object), "cut": np.array([True, False]), "raw_bytes": np.array(
                   [b"\xff", b""], object), "ids": np.int64([[1, 2], [3, 0]])}
    first, second = json.loads(write_response(outputs, by_row=True))["predictions"]
    assert first == {"score": 0.1, "said": "é", "best": ["x"], "cut": True, "raw_bytes": {"b64": "/w=="}, "ids": [1, 2]}
    assert second == {"score": -3.4028235e38, "said": "�", "best": ["y"], "cut": False, "raw_bytes": {"b64": ""},
                      "ids": [3, 0]}
    columns = json.loads(write_response(outputs, by_row=False))["outputs"]
    assert list(columns) == list(outputs)
    assert columns["score"] == [0.1, -3.4028235e38]
    assert columns["best"] == [["x"], ["y"]]


def test_a_single_output_has_no_name():
    outputs = {"score": np.float32([0.25, 1])}
    assert write_response(outputs, by_row=True) == b'{"predictions": [0.25, 1.0]}'
    assert write_response(outputs, by_row=False) == b'{"outputs": [0.25, 1.0]}'
