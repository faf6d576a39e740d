"""Finds what a person is meant to read in an exception that Beam or TFX has wrapped."""

from __future__ import annotations

import re

from modules.errors import TextrailError

# A TextrailError that Beam turned into text ends where Beam names the step, or where the traceback goes on.
BURIED = re.compile(r"(?:^|[\s.'\"])TextrailError: (.*?)(?= \[while running |\n\n|\n\w*Traceback |\Z)", re.DOTALL)


def told(error: BaseException) -> str | None:
    """The message of the TextrailError in an exception's chain, or as text in a message; none where there is none."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    for link in chain:
        if isinstance(link, TextrailError):
            return str(link)
    for link in chain:
        if buried := BURIED.findall(str(link)):
            return buried[-1].strip()
    return None
