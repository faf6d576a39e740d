import math

import numpy as np
import pytest

from components.confidence import (
    RESAMPLES,
    Resampled,
    auc_interval,
    confusion_intervals,
    f1_interval,
    mean_interval,
    take_intervals,
    wilson,
)


def test_shares_have_wilson_s_interval():
    # Newcombe (1998), table I: 81 of 263 and 15 of 148.
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(1.0, 10)[1] == 1.0 and wilson(0.0, 0) == (0.0, 1.0)


def test_f1_is_made_of_a_share():
    # 8 hits, 10 of the class, 12 given it: 8 of 14, and F1 2 · 8 / 22.
    low, high = wilson(8 / 14, 14)
    assert f1_interval(8, 10, 12) == pytest.approx((2 * low / (1 + low), 2 * high / (1 + high)))
    assert f1_interval(8, 10, 12)[0] < 16 / 22 < f1_interval(8, 10, 12)[1]
    assert f1_interval(0, 0, 0) == (0.0, 1.0)


def test_intervals_of_means_and_areas_hold_what_they_should():
    """Of a thousand draws of known truth, about 95% have the truth in their interval."""
    random, held = np.random.default_rng(1), {"mean": 0, "area": 0}
    truth = 0.7602   # of two normal distributions one apart: Φ(1 / √2)
    for _ in range(400):
        losses = random.exponential(2.0, 200)
        low, high = mean_interval(losses.sum(), (losses ** 2).sum(), 200)
        held["mean"] += low < 2.0 < high
        negatives, positives = random.normal(0, 1, 60), random.normal(1, 1, 40)
        low, high = auc_interval((positives[:, None] > negatives).mean(), 60, 40)
        held["area"] += low < truth < high
    assert held["mean"] / 400 == pytest.approx(0.95, abs=0.03) and held["area"] / 400 == pytest.approx(0.95, abs=0.03)
    assert all(map(math.isnan, mean_interval(1.0, 1.0, 1)))


def test_a_matrix_drawn_again_gives_the_interval_of_a_share():
    confusion = np.array([[81, 0], [182, 0]])
    (low, high), = confusion_intervals(confusion, lambda total, hits, actual, predicted: [hits.sum() / total])
    assert (low, high) == pytest.approx(wilson(81 / 263, 263), abs=0.01)


def test_rows_drawn_again_differ_as_rows_do():
    """Of a mean, resampling gives what the formula gives; halves of the rows add up to the same as the whole."""
    losses = np.random.default_rng(2).exponential(2.0, 2000)
    whole, halves = Resampled(2), [Resampled(2), Resampled(2)]
    for number, loss in enumerate(losses):
        for sums in (whole, halves[number % 2]):
            sums.add(b"%d" % number, [loss, 1])
    halves[0].merge(halves[1])
    assert halves[0].sums == pytest.approx(whole.sums) and whole.sums.shape == (1 + RESAMPLES, 2)
    assert whole.sums[0] == pytest.approx([losses.sum(), 2000])
    found = whole.interval(lambda sums: sums[0] / sums[1])
    expected = mean_interval(losses.sum(), (losses ** 2).sum(), 2000)
    assert found == pytest.approx(expected, abs=0.15 * (expected[1] - expected[0]))


def test_ends_are_taken_out_of_the_metrics():
    values = {"bleu": 30.0, "bleu:low": 28.0, "bleu:high": 32.0, "auc": math.nan, "auc:low": math.nan,
              "auc:high": math.nan, "examples": 2}
    assert take_intervals(values) == {"bleu": [28.0, 32.0]}
    assert list(values) == ["bleu", "auc", "examples"]
