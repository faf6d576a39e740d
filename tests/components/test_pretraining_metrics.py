import functools
import math

import numpy as np
import pytest
import tensorflow_model_analysis as tfma

from components.confidence import take_intervals
from components.pretraining_metrics import PretrainingMetrics, metrics_from_sums, row_sums
from modules.instances import IS_NEXT, IS_RANDOM

# label, [masked_loss, masked_correct, masked_count, next_score]
ROWS = [(IS_NEXT, [2.0, 1, 2, 0.9]), (IS_RANDOM, [9.0, 3, 6, 0.5]), (IS_RANDOM, [1.5, 0, 2, 0.2]),
        (IS_NEXT, [0.0, 0, 0, 0.4])]


def judged(rows, next_sentence=True, model_name=""):
    """What TFMA gets, summed in two halves as workers of Beam sum them: metrics and their intervals."""
    computation, = PretrainingMetrics(next_sentence=next_sentence).computations(
        eval_config=None, model_names=[model_name] if model_name else None)
    inputs = [tfma.metrics.StandardMetricInputs(label=np.array(label), prediction={
        model_name: np.array(row, np.float32), "other": np.zeros(4, np.float32)} if model_name
        else np.array(row, np.float32)) for label, row in rows]
    combiner = computation.combiner
    halves = [functools.reduce(combiner.add_input, inputs[half::2], combiner.create_accumulator()) for half in range(2)]
    found = combiner.extract_output(combiner.merge_accumulators(halves))
    assert {key.model_name for key in found} == {model_name} and set(found) == set(computation.keys)
    values = {key.name: value for key, value in found.items()}
    intervals = take_intervals(values)
    return values, intervals


def metrics(*args, **options):
    return judged(*args, **options)[0]


@pytest.mark.parametrize("model_name", ["", "baseline"])
def test_numbers_are_of_all_tokens_and_of_all_pairs(model_name):
    # Not the mean of the rows: 12.5 nats and 4 hits in 10 tokens, and 2 of 4 pairs, 0.5 being a next one.
    assert metrics(ROWS, model_name=model_name) == pytest.approx({
        "masked_accuracy": 0.4, "masked_loss": 1.25, "pseudo_perplexity": math.exp(1.25), "next_accuracy": 0.5})


def test_rows_that_are_no_pairs_have_no_next_sentence():
    rows = [(-1, [*row[:3], math.nan]) for _, row in ROWS]
    assert metrics(rows, next_sentence=False) == pytest.approx({
        "masked_accuracy": 0.4, "masked_loss": 1.25, "pseudo_perplexity": math.exp(1.25)})
    assert math.isnan(metrics_from_sums(sum(row_sums(label, np.array(row)) for label, row in rows))["next_accuracy"])


def test_a_served_model_without_that_head_has_no_accuracy_of_pairs():
    found = metrics([(label, [*row[:3], math.nan]) for label, row in ROWS])
    assert math.isnan(found["next_accuracy"]) and found["masked_accuracy"] == pytest.approx(0.4)


def test_nothing_masked_and_broken_losses_are_no_numbers():
    assert all(map(math.isnan, list(metrics(ROWS[3:]).values())[:3]))
    for broken in (math.nan, math.inf):
        assert all(map(math.isnan, metrics([*ROWS, (IS_NEXT, [broken, 1, 1, 0.9])]).values()))


def test_a_loss_beyond_all_measure_is_infinite_perplexity():
    assert metrics([(IS_NEXT, [1000.0, 0, 1, 0.9])])["pseudo_perplexity"] == math.inf


def test_intervals_tell_rows_that_differ_from_rows_that_do_not():
    random = np.random.default_rng(1)
    alike = [(IS_NEXT, [2.0 * count, count, 2 * count, 0.9]) for count in random.integers(1, 40, 50)]
    values, intervals = judged(alike)
    assert intervals == {name: [pytest.approx(value)] * 2 for name, value in values.items()}
    widths = []
    for rows in (30, 3000):
        scores = zip(random.gamma(3, 10, rows), random.integers(0, 11, rows), random.random(rows), strict=True)
        values, intervals = judged([(IS_RANDOM, [loss, hits, 10, score]) for loss, hits, score in scores])
        assert all(low < values[name] < high for name, (low, high) in intervals.items()) and len(intervals) == 4
        widths.append(np.diff(intervals["masked_accuracy"]).item())
    # As far as the normal distribution has it: shares of 10 tokens a row that are spread evenly from 0 to 1.
    assert widths == pytest.approx([2 * 1.96 * math.sqrt(0.1 / rows) for rows in (30, 3000)], rel=0.3)
