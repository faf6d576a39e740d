import re
from html.parser import HTMLParser

import pytest

from components.report_page import Cell, Html, card, number, page, pairs, shown, table, texts

VOID = {"meta", "link", "br", "hr"}


class Balanced(HTMLParser):
    """Fails where an element is closed that is not the one last opened; keeps all texts."""

    def __init__(self, content):
        super().__init__()
        self.open, self.texts, self.tags = [], [], []
        self.feed(content)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.mark.parametrize("hostile", [
    "<script>alert(1)</script>", "</style><img src=x onerror=alert(1)>", '" onmouseover="alert(1)', "<!-- ", "&lt;b>"])
def test_hostile_texts_show_as_they_are(hostile):
    found = Balanced(page(hostile, Html(f"<h1>{shown(hostile)}</h1>"), [
        ("a", hostile, card(table((hostile, "n"), [[texts(hostile), Cell(hostile)]], hostile),
                            pairs([(hostile, shown(hostile))]), title=hostile))]))
    assert "img" not in [tag for tag, _ in found.tags]
    assert [tag for tag, _ in found.tags].count("script") == 1   # the page's own
    assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]
    # Of the window; the heading; link, title and card of the section; caption, head and two cells; a name and its text.
    assert found.texts.count(hostile) == 11


def test_marks_that_turn_the_direction_are_written_out():
    said = shown("a\u202egnp.exe\u2066\x00")
    assert "\u202e" not in said and "\u2066" not in said and "\x00" not in said
    assert re.findall(r"U\+\w+", said) == ["U+202E", "U+2066", "U+0000"] and said.startswith("<bdi>a<")


def test_a_long_text_says_how_long_it_is():
    said = shown("ab" * 500_000, longest=10)
    assert said == '<bdi>ababababab</bdi> <span class="muted">… (1,000,000 characters)</span>'


def test_numbers_sort_as_numbers():
    assert str(number(1234.5, ",.1f")) == '<td class="n" data-v="1234.5">1,234.5</td>'
    assert str(number(None)) == '<td class="n" data-v="-1e+308">–</td>'
    assert table(("a",), []) == "" and card() == "" and pairs([("a", "")]) == ""


def test_the_page_loads_nothing():
    whole = page("title", Html("<h1>x</h1>"), [("data", "Data", Html("<p>y</p>")), ("none", "Nothing", Html(""))])
    assert "Content-Security-Policy" in whole and "default-src 'none'" in whole
    assert not re.search(r"(https?:)?//[a-z]", whole) and "@import" not in whole and "url(" not in whole
    assert 'href="#data"' in whole and "Nothing" not in whole
