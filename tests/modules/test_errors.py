"""The sentence that users read."""

import pytest

from modules.errors import TextrailError


@pytest.mark.parametrize(("received", "sentence"), [
    ("two", "expected one; received two. Take one."),
    ("No such file.", "expected one; received No such file. Take one."),
    ("a table:\n  row\n", "expected one; received a table:\n  row\nTake one."),
    ("", "expected one; received . Take one.")])
def test_a_sentence_ends_once(received, sentence):
    assert str(TextrailError("one", received, "Take one.")) == sentence
