"""Whether a model may be pushed: bounds, change against the served model, and the sentences about both.

Standard library only: the terminal reads verdicts with this module, and must not wait for TensorFlow.
"""

from __future__ import annotations

import difflib
import glob
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from components import files
from modules.errors import TextrailError

VERDICT_FILE = "verdict.json"
# Beside it, a folder of rows for a person to read: a file KIND.jsonl for each kind.
SAMPLES = "samples"
# One of these kinds: not rows but bands of a classifier's confidence, see `judging_classification.calibration_bands`.
CALIBRATION = "calibration"
# Metrics that get worse as they grow.
LOWER_IS_BETTER = ("loss", "masked_loss", "pseudo_perplexity")
# Differences below this are rounding of the arithmetic: 0.90 - 0.88 is 0.020000000000000018.
ROUNDING = 1e-9


def metric_names(classes: Sequence[str]) -> list[str]:
    """The metrics of a classifier that thresholds may name for these classes."""
    names = ["accuracy", "loss", "macro_f1", "mcc"] + (["auc"] if len(classes) == 2 else [])
    return names + [f"{kind}/{name}" for kind in ("precision", "recall", "f1") for name in classes]


def translation_metric_names(values: Sequence[str] = ()) -> list[str]:
    """The metrics of a translator that thresholds may name: of all rows, and of these values of `data.slice`."""
    names = ["bleu", "chrf"]
    return names + [f"{name}/{value}" for name in names for value in values]


def pretraining_metric_names(next_sentence: bool) -> list[str]:
    """The metrics of a pretrained encoder that thresholds may name, with or without a head for next sentences."""
    return ["masked_accuracy", "masked_loss", "pseudo_perplexity"] + (["next_accuracy"] if next_sentence else [])


def check_thresholds(names: Iterable[str], known: Sequence[str], slices: bool = False) -> None:
    """Refuses thresholds on metrics that this model does not have.

    Args:
        names: the metrics that thresholds name.
        known: the metrics that there are.
        slices: whether `METRIC/VALUE` may stand for a metric of a slice whose values nobody knows yet.

    Raises:
        TextrailError: there is no threshold, or one names an unknown metric, class or slice.
    """
    names = list(names)
    if not names:
        raise TextrailError("at least one threshold under evaluation.thresholds", "none",
                            f"Set for example evaluation.thresholds.{known[0]}.min.")
    for name in names:
        kind, slash, _ = name.partition("/")
        if name not in known and not (slices and slash and kind in known):
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
            raise TextrailError(f"evaluation.thresholds to name one of {', '.join(known)}", repr(name),
                                f"The nearest is {nearest!r}.")


def threshold_rows(thresholds: Mapping[str, Mapping[str, float | None]], metrics: Mapping[str, float],
                   baseline: Mapping[str, float] | None) -> list[dict[str, Any]]:
    """Holds each threshold against the values; a value that is not a number fails.

    Example: `threshold_rows({"loss": {"max_drop": 0.1}}, {"loss": 0.5}, {"loss": 0.3})` gives one failed row with
    change 0.2 and why "0.5 is 0.2 worse than the served model's 0.3, allowed are 0.1".

    Args:
        thresholds: metric → bounds `min`, `max`, `max_drop`, each a number or none.
        metrics: metric → the candidate's value.
        baseline: the same of the model served now; None if none is served.

    Returns:
        One row a threshold: metric, value, min, max, max_drop, baseline, change, verdict ("passed" or
        "failed") and why (empty if passed). Change is candidate minus baseline. Values that are not numbers
        are None, as JSON has no NaN.
    """
    return [_row(name, bounds, metrics[name], (baseline or {}).get(name, math.nan))
            for name, bounds in thresholds.items()]


def _row(name: str, bounds: Mapping[str, float | None], value: float, baseline: float) -> dict[str, Any]:
    low, high, drop = (bounds.get(key) for key in ("min", "max", "max_drop"))
    change = value - baseline
    worsening = change if name.partition("/")[0] in LOWER_IS_BETTER else -change
    reasons = []
    if math.isnan(value):
        reasons.append("not a number: the scores are broken, or the split has no such example")
    if low is not None and value < low - ROUNDING:
        reasons.append(f"{value:.4g} is below the bound {low:g}")
    if high is not None and value > high + ROUNDING:
        reasons.append(f"{value:.4g} is above the bound {high:g}")
    # Without a served value, worsening is NaN and the comparison false: there is nothing to fall behind.
    if drop is not None and worsening > drop + ROUNDING:
        reasons.append(f"{value:.4g} is {worsening:.4g} worse than the served model's {baseline:.4g}, "
                       f"allowed are {drop:g}")
    return {"metric": name, "value": number(value), "min": low, "max": high, "max_drop": drop,
            "baseline": number(baseline), "change": number(change),
            "verdict": "failed" if reasons else "passed", "why": "; ".join(reasons)}


def number(value: float) -> float | None:
    """The value as JSON can hold it: None stands for what is not a number."""
    return value if math.isfinite(value) else None


def load_verdict(folder: str | Path) -> dict[str, Any]:
    """The verdict in an `evaluation` artifact's folder."""
    return json.loads(_text(f"{folder}/{VERDICT_FILE}"))


def load_samples(folder: str | Path) -> dict[str, list[dict[str, Any]]]:
    """The rows for a person to read in an `evaluation` artifact's folder: kind → rows; empty if none were kept.

    Of translations the kinds are `worst`, `best` and `random`, and a row has source, reference, translation, score and
    chrf.
    Of pretrained encoders there is `masked`: a row has text, with [MASK]s in it, and masks, each with label, words and
    probabilities.
    Of classifications they are `mistakes`, a row having text, label, predicted and score, and `calibration`, whose rows
    are bands of confidence with examples, confidence and accuracy.
    """
    where = str(folder) if files.is_uri(str(folder)) else glob.escape(str(folder))
    return {Path(file.path).stem: [json.loads(line) for line in _text(file.path).split("\n") if line]
            for file in reversed(files.find(f"{where}/{SAMPLES}/*.jsonl"))}


def _text(path: str) -> str:
    with files.open_file(path) as file:
        return file.read().decode("utf-8")


def verdict_sentence(verdict: Mapping[str, Any]) -> str:
    """One sentence for a person: that the model passed, or why it did not."""
    if not verdict["passed"]:
        return str(refusal(verdict))
    reason = verdict.get("not_comparable")
    bounds = f"all {count} thresholds" if (count := len(verdict["rows"])) > 1 else "its threshold"
    return (f"The model meets {bounds} on {verdict['examples']} examples of the {verdict['split']} split."
            + (f" The served model is not comparable: {reason}." if reason else ""))


def refusal(verdict: Mapping[str, Any]) -> TextrailError:
    """The error that keeps a model which failed from being pushed."""
    reasons = [f"{row['metric']}: {row['why']}" for row in verdict["rows"] if row["verdict"] == "failed"]
    return TextrailError(
        "a model that meets every threshold",
        f"{', and '.join(reasons)} ({verdict['examples']} examples of the {verdict['split']} split)",
        "Nothing was pushed. Train a better model, or change evaluation.thresholds to what it must reach.")
