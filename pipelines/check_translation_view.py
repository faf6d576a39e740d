"""What a check of a translation shows: both sides of pairs as the model sees them, and the figures of this shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from components.vocabulary_gen import sentence
from pipelines.check_translation import ShownRow, TranslationCheck, pictured, pushed_attention
from pipelines.check_view import MARGIN, NAMES, aligned, elided, shorten
from pipelines.plots import attention_png, lengths_png, positions_png


def row_lines(check: TranslationCheck, width: int) -> list[tuple[str, list[str]]]:
    """The title and the lines of each row that is shown, in so many characters."""
    return [(row.slice, _row_lines(row, width)) for row in check.shown]


def facts(check: TranslationCheck) -> list[tuple[str, str]]:
    """What is known of vocabularies, pairs and the untrained model, as pairs of a name and a sentence."""
    data, model = check.settings.data, check.settings.model
    half, most = np.percentile(check.lengths, [50, 95], axis=0)
    verdict = "as it should be" if not check.problem() else "NOT as it should be"
    tied = ", for tied embeddings answer what came in" if model.tied != "none" else ""
    told = [sentence(f"{name} ({side})", check.reports[side])
            for side, name in (("source", data.text), ("target", data.target))]
    return [
        ("vocabulary", "; ".join(told) + ("; one for both" if check.settings.vocabulary.joint else "")),
        ("lengths", f"half of the pairs have at most {half[0]:.0f} and {half[1]:.0f} tokens, 95% {most[0]:.0f} and "
                    f"{most[1]:.0f}, the longest {check.lengths.max():,}; model.max_tokens {model.max_tokens} drops "
                    f"{check.is_dropped.mean():.1%}"),
        ("loss", f"{check.loss:.3f} a token before training, without label smoothing; equal scores for "
                 f"{check.pieces:,} pieces would have ln({check.pieces:,}) = {check.chance:.3f}: {verdict} (from "
                 f"{check.bounds[0]:.1f} to {check.bounds[1]:.1f}{tied})"),
    ]


def write_plots(check: TranslationCheck, folder: Path, destination: str) -> list[Path]:
    """Writes the plots that only this shape has, and returns their paths."""
    paths = [folder / f"{name}.png" for name in ("lengths", "positions", "attention")]
    source, target = check.lengths.T
    lengths_png({check.settings.data.text: source, check.settings.data.target: target},
                check.settings.model.max_tokens, "model.max_tokens", "of the pairs are dropped", paths[0])
    positions_png(check.code, paths[1])
    attention = pushed_attention(destination, pictured(check.shown).texts[0]) or check.attention
    attention_png(attention.weights, attention.source, attention.target,
                  f"Attention in the last decoder layer: {attention.model}", paths[2])
    return paths


def _row_lines(row: ShownRow, width: int) -> list[str]:
    lines = [f"{name:<{NAMES}}{shorten(text, width - MARGIN)}"
             for name, text in zip(("source", "target"), row.texts, strict=True)]
    source = list(zip(row.source[0], map(str, row.source[1]), strict=True))
    target = list(zip(row.inputs[0], map(str, row.inputs[1]), row.labels[0], map(str, row.labels[1]), strict=True))
    return [*lines, *aligned(("tokens", "ids"), elided(source), width),
            *aligned(("inputs", "ids", "labels", "ids"), elided(target), width)]
