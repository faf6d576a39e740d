import math

import pytest

from modules.progress import duration


@pytest.mark.parametrize("seconds, said", [
    (0.04, "0.0 s"), (3.24, "3.2 s"), (9.96, "10 s"), (42.4, "42 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"),
    (3599, "59 min 59 s"), (4800, "1 h 20 min"), (math.nan, "?")])
def test_durations_as_people_say_them(seconds, said):
    assert duration(seconds) == said
