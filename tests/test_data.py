"""The texts that the project ships are what their pages say: counted, balanced, and no text in two splits."""

import csv
import re
from collections import Counter
from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[1] / "data"
SPLITS = ("train", "validation", "test")


@pytest.mark.parametrize("name, texts, label", [
    ("reviews", ["review"], "sentiment"), ("paraphrases", ["first", "second"], "meaning")])
def test_shipped_texts(name, texts, label):
    page = (DATA / name / "README.md").read_text("utf-8")
    said = {split: int(number.replace(",", "")) for split, number in re.findall(r"`(\w+)\.csv` \| ([\d,]+)", page)}
    rows = {}
    for split in SPLITS:
        with (DATA / name / f"{split}.csv").open(encoding="utf-8", newline="") as file:
            rows[split] = list(csv.DictReader(file))
    assert {split: len(found) for split, found in rows.items()} == said
    assert f"{sum(said.values()):,}" in page
    for found in rows.values():
        counts = Counter(row[label] for row in found)
        assert len(counts) == 2 and len(set(counts.values())) == 1, counts
    seen = [{row[text] for row in rows[split] for text in texts} for split in SPLITS]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    if "kind" in rows["train"][0]:
        kinds = Counter(row["kind"] for found in rows.values() for row in found)
        del kinds["paraphrase"]
        assert kinds == {kind: int(number) for kind, number in re.findall(r"^\| `(\w+)` \|.*\| (\d+) \|$", page, re.M)}
