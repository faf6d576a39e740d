"""What is told of errors that others have wrapped."""

import pytest

from pipelines.failures import gist

SPARK = """Pipeline 7 failed in state FAILED: java.lang.IllegalStateException: Cannot call methods
on a stopped SparkContext. It was created at:

org.apache.spark.api.java.JavaSparkContext.<init>(JavaSparkContext.scala:58)
java.base/java.lang.Thread.run(Thread.java:840)

"""
FLINK = """Pipeline 9 failed in state FAILED: java.lang.RuntimeException: Error: Traceback (most recent call last):
  File "components/x.py", line 3, in process
ValueError: no such column

\tat org.apache.beam.runners.Executable.close(Executable.java:193)
\tat java.base/java.lang.Thread.run(Thread.java:840)
"""


@pytest.mark.parametrize("text, expected", [
    (SPARK, "RuntimeError: Pipeline 7 failed in state FAILED: java.lang.IllegalStateException: Cannot call methods"),
    (FLINK, "ValueError: no such column"),
    ("Traceback (most recent call last):\n  File \"a.py\", line 1\nKeyError: 'a'\n", "KeyError: 'a'"),
    ("\tat java.lang.Thread.run(Thread.java:840)", "RuntimeError: at java.lang.Thread.run(Thread.java:840)"),
    ("plain", "RuntimeError: plain"), ("", "RuntimeError")])
def test_the_line_that_says_most(text, expected):
    assert gist(RuntimeError(text)) == expected
