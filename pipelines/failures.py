"""Finds what a person is meant to read in an exception that Beam or TFX has wrapped."""

from __future__ import annotations

import re

from modules.errors import TextrailError

# A TextrailError that Beam turned into text ends where Beam names the step, or where the traceback goes on.
BURIED = re.compile(r"(?:^|[\s.'\"])TextrailError: (.*?)(?= \[while running |\n\n|\n\w*Traceback |\Z)", re.DOTALL)

# A line of a Java stack trace: `at org.apache.spark.SparkContext.<init>(SparkContext.scala:1)`, or without `at`.
JAVA_FRAME = re.compile(r"\((\w+\.(java|scala):\d+|Native Method|Unknown Source)\)$")


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


def gist(error: BaseException) -> str:
    """An exception's type and the line that says most: where Python failed the last, where Java alone did the first.

        >>> gist(RuntimeError("Pipeline 3 failed in state FAILED: java.lang.IllegalStateException: no executors\n"
        ...                   "\tat org.apache.spark.SparkContext.stop(SparkContext.scala:2)"))
        'RuntimeError: Pipeline 3 failed in state FAILED: java.lang.IllegalStateException: no executors'
        >>> gist(RuntimeError("Traceback (most recent call last):\n …\nKeyError: 'a'"))
        "KeyError: 'a'"
    """
    name = type(error).__name__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [name]
    spoken = [line for line in lines if not JAVA_FRAME.search(line)] or lines
    java_alone = len(spoken) < len(lines) and "Traceback (" not in str(error)
    line = spoken[0 if java_alone else -1]
    return line if line == name or re.match(r"[\w.]*(Error|Exception)\b", line) else f"{name}: {line}"
