"""The pages that people read first."""

import re
from pathlib import Path


def test_the_readme_is_filled_in():
    page = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    assert not re.findall(r"@[A-Z_]+@", page)
