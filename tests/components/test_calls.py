import numpy as np

from components.calls import bounded_calls


def test_rows_of_like_length_share_a_call_within_the_budget():
    assert list(bounded_calls([2, 9, 3, 2], 6)) == [[0, 3], [2], [1]]
    assert list(bounded_calls([5, 5, 5], 10)) == [[0, 1], [2]]
    assert list(bounded_calls([0, 0, 0], 1)) == [[0, 1, 2]]
    assert list(bounded_calls([], 6)) == []


def test_every_row_is_in_one_call_and_no_call_is_larger():
    lengths = np.random.default_rng(1).integers(1, 300, size=1000)
    calls = list(bounded_calls(lengths, 512))
    assert sorted(row for call in calls for row in call) == list(range(1000))
    assert all(len(call) * max(lengths[call]) <= 512 for call in calls)
