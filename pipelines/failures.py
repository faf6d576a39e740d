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
    """The line of an exception that says most: where Python failed the last, where Java alone did the first.

        >>> gist(RuntimeError("Pipeline 3 failed in state FAILED: java.lang.IllegalStateException: no executors\n"
        ...                   "\tat org.apache.spark.SparkContext.stop(SparkContext.scala:2)"))
        'Pipeline 3 failed in state FAILED: java.lang.IllegalStateException: no executors'
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    spoken = [line.strip() for line in lines if line.strip() and not JAVA_FRAME.search(line.strip())]
    java_alone = len(spoken) < len([line for line in lines if line.strip()]) and "Traceback (" not in str(error)
    return (spoken or lines)[0 if java_alone else -1]
