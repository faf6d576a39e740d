import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from components.report_plots import POINTS, calibration, curves, lengths, thinned
from components.report_rows import Histogram

STEPS = np.arange(1, 1001)
BANDS = [{"examples": 4, "confidence": 0.75, "accuracy": 0.5}, {"examples": 40, "confidence": 0.95, "accuracy": 0.9}]


@pytest.mark.parametrize("svg", [
    curves({"training": (STEPS, 1 / STEPS), "validation": (STEPS[::200], 1 / STEPS[::200])}, "step", 'so <it> "goes"',
           mark=(900, "taken"), dots=("validation",)),
    lengths({"costs $5 and $6": Histogram.of(STEPS % 40), "b": Histogram.of(STEPS % 30)}, "tokens",
            'so <it> "goes"', limit=(40, "max_tokens 40")),
    calibration(BANDS, 'so <it> "goes"')])
def test_plots_are_elements_of_a_page_in_its_colours(svg):
    root = ElementTree.fromstring(svg.replace("xlink:href", "href"))   # What is well-formed has all tags closed.
    assert root.tag == "svg" and root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == 'so <it> "goes"' == root[0].text
    assert "var(--" in svg and "http" not in svg and "<style" not in svg and "metadata" not in svg
    for element in root.iter():   # No colour but the page's, and none at all.
        for part in element.attrib.get("style", "").split(";"):
            name, _, value = part.strip().partition(": ")
            assert name not in ("fill", "stroke") or value.startswith(("var(", "none")), part
    assert len(svg) < 60_000


def test_what_looks_like_a_formula_is_text():
    sides = {"costs $5 and $6": Histogram.of(STEPS), "b": Histogram.of(STEPS)}
    assert "costs $5 and $6" in lengths(sides, "tokens", "")


def test_texts_far_beyond_all_others_share_the_last_bar():
    far = Histogram.of(np.array([*range(1, 1000), 1_000_000]))
    assert "1,000,000" not in lengths({"a": far}, "characters", "")


def test_long_curves_keep_their_means():
    steps, values = thinned(np.arange(4000), np.arange(4000) % 10)
    assert len(steps) == POINTS and values == pytest.approx(np.full(POINTS, 4.5)) and steps[0] == 4.5
    short = thinned(STEPS[:7], STEPS[:7] * 2)
    assert short[0].tolist() == list(range(1, 8)) and short[1].tolist() == list(range(2, 16, 2))
