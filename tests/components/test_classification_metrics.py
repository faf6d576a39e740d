import math

import numpy as np
import pytest

from components.classification_metrics import Counts, metrics_from_counts


def count(rows, classes):
    counts = Counts(np.zeros((classes, classes), np.int64))
    for label, scores in rows:
        counts.add(label, np.array(scores, np.float32))
    return counts


def test_two_classes_with_a_tie():
    rows = [(0, [0.9, 0.1]), (0, [0.4, 0.6]), (1, [0.4, 0.6]), (1, [0.2, 0.8])]
    values = metrics_from_counts(count(rows, 2), ["no", "yes"])
    assert values["auc"] == (4 - 0.5) / 4  # one of the four pairs ties
    assert values["loss"] == pytest.approx(-(math.log(0.9) + math.log(0.4) + math.log(0.6) + math.log(0.8)) / 4)
    assert (values["accuracy"], values["precision/yes"], values["recall/no"]) == (3 / 4, 2 / 3, 1 / 2)


def test_a_class_never_predicted_has_precision_0_and_one_never_seen_none():
    values = metrics_from_counts(count([(0, [0.8, 0.1, 0.1]), (1, [0.8, 0.1, 0.1])], 3), ["a", "b", "c"])
    assert (values["precision/b"], values["recall/b"], values["f1/b"]) == (0, 0, 0)
    assert all(math.isnan(values[f"{kind}/c"]) for kind in ("precision", "recall", "f1"))
    assert values["macro_f1"] == pytest.approx((2 / 3 + 0) / 2) and values["mcc"] == 0


def test_certain_mistakes_cost_a_finite_loss_and_broken_scores_everything():
    assert metrics_from_counts(count([(0, [0.0, 1.0])], 2), ["a", "b"])["loss"] == pytest.approx(-math.log(1e-7))
    for broken in (math.nan, math.inf):
        merged = count([(0, [0.9, 0.1])], 2)
        merged.merge(count([(1, [0.5, broken])], 2))
        assert all(math.isnan(value) for value in metrics_from_counts(merged, ["a", "b"]).values())
