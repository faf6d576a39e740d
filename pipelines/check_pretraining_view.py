"""What a check of a pretraining shows: documents, their sentences and masked examples, and its figures."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from components.vocabulary_gen import sentence
from pipelines.check_pretraining import PretrainingCheck, ShownDocument
from pipelines.check_view import MARGIN, NAMES, aligned, elided, shorten
from pipelines.plots import lengths_png

SHOWN_SENTENCES = 4   # Of a document.


def row_lines(check: PretrainingCheck, width: int) -> list[tuple[str, list[str]]]:
    """The title and the lines of each document that is shown, in so many characters."""
    pairs = check.settings.instances.next_sentence
    return [(_told(document, pairs), _document_lines(document, width)) for document in check.shown]


def facts(check: PretrainingCheck) -> list[tuple[str, str]]:
    """What is known of vocabulary, examples, masks and the untrained model, as pairs of a name and a sentence."""
    instances, training = check.settings.instances, check.settings.training
    about = "" if check.sample.whole else "about "
    mean, (half, most) = check.lengths.mean(), np.percentile(check.lengths, [50, 95])
    tokens = round(mean * check.examples_per_epoch)
    pairs = f"; the second segment is of another document in {check.swapped:.1%}" if instances.next_sentence else ""
    masks, parts = check.masks, training.accumulate
    return [
        ("vocabulary", sentence(check.settings.encoder.source if check.settings.encoder else check.settings.data.text,
                                check.report)),
        ("sentences", f"{len(check.sentences):,} of {check.sentences.mean():.0f} tokens on average, in "
                      f"{len(check.documents):,} documents" + ("" if check.sample.whole else " that were read")),
        ("examples", f"{about}{check.examples_per_epoch:,} an epoch with {about}{tokens:,} tokens, "
                     f"{about}{tokens * training.epochs:,} in all{pairs}; {check.short:.1%} were made short"),
        ("lengths", f"half of the examples have at most {half:.0f} tokens, 95% {most:.0f}; instances.max_length "
                    f"{instances.max_length}"),
        ("masks", f"{masks.chosen:.1%} of the tokens are to be told, {about}{tokens * masks.chosen:,.0f} an epoch; "
                  f"{masks.masked:.1%} of those are seen as [MASK], {masks.random:.1%} as another piece, "
                  f"{1 - masks.masked - masks.random:.1%} as they are"),
        ("model", _model(check)),
        ("loss", _loss(check)),
        ("step", f"up to {parts * training.batch_tokens:,} tokens with padding, at most "
                 f"{parts * training.max_batch:,} examples" + (f", in {parts} parts" if parts > 1 else "")),
    ]


def write_plots(check: PretrainingCheck, folder: Path, destination: str) -> list[Path]:
    """Writes the plots that only this shape has, and returns their paths; asks no pushed model."""
    path = folder / "lengths.png"
    lengths_png({"documents": check.documents}, check.settings.instances.max_length, "instances.max_length",
                "are longer", path)
    return [path]


def _told(document: ShownDocument, pairs: bool) -> str:
    told = f"{_counted(len(document.sentences), 'sentence')}, {_counted(document.examples, 'example')}"
    if not pairs:
        return told
    return f"{told}; {'the first' if document.examples > 1 else 'it'} has as its second segment " + (
        "one of another document" if document.is_swapped else "what follows")


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def _document_lines(document: ShownDocument, width: int) -> list[str]:
    shown = document.sentences[:SHOWN_SENTENCES]
    names = [f"{number:<2}" for number in range(1, len(shown) + 1)]
    lines = [f"{'sentence' if number == 0 else '':<{NAMES}}{name}{shorten(text, width - MARGIN - len(name))}"
             for number, (name, text) in enumerate(zip(names, shown, strict=True))]
    if len(shown) < len(document.sentences):
        lines.append(f"{'':<{NAMES}}… and {len(document.sentences) - len(shown):,} more")
    columns = list(zip(document.tokens, map(str, document.token_ids), document.inputs, document.labels, strict=True))
    first = document.tokens.index("[SEP]") + 1
    segments = [segment for segment in (columns[:first], columns[first:]) if segment]
    return [*lines, *aligned(("tokens", "ids", "inputs", "labels"), elided(*segments), width)]


def _model(check: PretrainingCheck) -> str:
    config = check.config
    sizes = (f"{_counted(config.num_hidden_layers, 'layer')}, {config.hidden_size} wide, {config.num_attention_heads} "
             f"heads, feed-forward {config.intermediate_size:,}, {config.max_position_embeddings:,} positions")
    if not check.settings.encoder:
        return f"{sizes}; new weights, all of them are trained"
    heads = {"predictions": "words", "seq_relationship": "next sentences"}
    kept = " and ".join(name for head, name in heads.items() if head in check.kept)
    return (f"{sizes}; goes on from {check.settings.encoder.source}, "
            f"{f'with its head for {kept}' if kept else 'with new heads'}; all weights are trained")


def _loss(check: PretrainingCheck) -> str:
    verdict = "as it should be" if not check.problem() else "NOT as it should be"
    pieces = check.config.vocab_size
    told = (f"{check.loss.masked:.3f} a masked token before training; equal scores for {pieces:,} pieces would have "
            f"ln({pieces:,}) = {check.chance:.3f}")
    if check.loss.next is not None:
        told += f"; {check.loss.next:.3f} a next sentence, ln(2) = {math.log(2):.3f}"
    least, largest = check.bounds
    return f"{told}: {verdict} (a token from {least:.1f} to {largest:.1f})"
