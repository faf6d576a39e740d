"""The report's section on data: rows, labels, lengths, and what was wrong with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from components import report_plots as plots
from components.report_facts import DataFacts
from components.report_page import Cell, Html, attribute, card, figure, grid, join, number, shown, table, texts
from components.report_rows import Histogram

BALANCED = 30   # Labels that have a part of a bar.

def data(facts: DataFacts) -> Html:
    """Rows, labels, lengths, and what was wrong with them."""
    return join([
        grid(card(_rows(facts), title="Rows"), card(_balance(facts.labels), title="Labels"),
             card(_instances(facts), title="Examples made of the documents")),
        grid(_lengths(facts.characters, "characters", "Length of texts, in characters"),
             _lengths(facts.tokens, "tokens, special ones included",
                      f"Length of {'examples' if facts.instances else 'texts'}, in tokens",
                      (facts.limit, f"{facts.limit_name} {facts.limit}") if facts.limit else None, _cut(facts))),
        grid(card(_leaks(facts), title="Rows that stand in two splits"),
             card(_vocabulary(facts), title="What the vocabulary covers")),
        card(_anomalies(facts), title="Anomalies"), card(_skipped(facts), title="Rows left out")])


def _rows(facts: DataFacts) -> Html:
    total = sum(facts.rows.values()) or 1
    told = [("rows", {split: number(count) for split, count in facts.rows.items()}),
            ("share", {split: number(count / total, ".1%") for split, count in facts.rows.items()}),
            ("repeated", {split: number(count) for split, count in facts.repeated.items()}),
            ("too long, left out", {split: number(count) for split, count in facts.dropped.items()}),
            ("blank texts", {split: number(max(shares.values(), default=0.0), ".2%")
                             for split, shares in facts.empty.items()})]
    there = [(name, cells) for name, cells in told if cells]
    return join([table(("split", *(name for name, _ in there)), [
        [Cell(split), *(cells.get(split, number(None)) for _, cells in there)] for split in facts.rows],
        sortable=False), f'<p class="muted">Repeated: rows whose text stands in an earlier row of the split'
        f'{_estimate(facts)}.</p>' if facts.repeated else ""])


def _estimate(facts: DataFacts) -> str:
    return ", estimated from a sample of the texts" if facts.estimated else ""


def _instances(facts: DataFacts) -> Html:
    names = next(iter(facts.instances.values()), {})
    said = {"short": "short on purpose", "swapped": "second segment from elsewhere"}
    splits = list(facts.instances)
    return table(("", *splits), [
        [Cell(said.get(name, name)), *(number(facts.instances[split][name]) for split in splits)] for name in names],
        sortable=False)


def _balance(labels: Mapping[str, Mapping[str, int]]) -> Html:
    names = sorted({name for counts in labels.values() for name in counts})
    if not names:
        return Html("")
    if len(names) > BALANCED:   # The most frequent ones, by which an imbalance shows.
        totals = Counter[str]()
        for counts in labels.values():
            totals.update(counts)
        names = [name for name, _ in totals.most_common()]
    barred = names[:BALANCED]
    alphas = {name: 0.85 - 0.65 * place / max(1, len(barred) - 1) for place, name in enumerate(barred)}
    bars = []
    for split, counts in labels.items():
        total = sum(counts.values()) or 1
        said = ", ".join(f"{name[:40]} {counts.get(name, 0) / total:.1%}" for name in barred[:20])
        parts = "".join(f'<i style="width:{100 * counts.get(name, 0) / total:.2f}%;--a:{alphas[name]:.2f}" '
                        f'title="{attribute(name[:80])}: {counts.get(name, 0):,}"></i>' for name in barred)
        bars.append(f'<div class="time"><span>{attribute(split)}</span><span class="bar" style="flex:1" role="img" '
                    f'aria-label="{attribute(f"labels of {split}: {said}")}">{parts}</span></div>')
    splits = list(labels)
    return join([*bars, table(("label", *splits), [
        [texts(name, 80), *(number(labels[split].get(name, 0)) for split in splits)] for name in names])])


def _lengths(sides: Mapping[str, Histogram], unit: str, title: str, limit: tuple[int, str] | None = None,
             said: str = "") -> Html:
    sides = {name: side for name, side in sides.items() if side.rows}
    if not sides:
        return Html("")
    told = " ".join(f"{name}: half have at most {side.quantile(0.5):,}, 95% at most {side.quantile(0.95):,}, the "
                    f"longest {side.longest:,}." for name, side in sides.items())
    svg = plots.lengths(sides, unit, f"Histogram of lengths in {unit}. {told} {said}".strip(), limit)
    return card(figure(svg, f"{told} {said}".strip()), title=title)


def _cut(facts: DataFacts) -> str:
    """What the limit on lengths costs."""
    sides, limit = facts.tokens.values(), facts.limit
    rows = max((side.rows for side in sides), default=0)
    if not limit or not rows:
        return ""
    if facts.how == "leave out":
        left_out = facts.dropped.get("train", 0)
        return (f"Longer pairs than {limit} are left out of training: {left_out:,} of {facts.rows['train']:,} "
                f"({left_out / max(1, facts.rows['train']):.2%}).")
    if facts.how == "pack":
        whole = sum(int(side.counts[side.values == limit].sum()) for side in sides)
        return f"Sentences are packed up to {limit}: {whole / rows:.1%} of the examples are full."
    longer, tokens = sum(side.above(limit) for side in sides), sum(side.total for side in sides)
    if not longer:
        return f"Longer texts than {limit} are cut; none is."
    lost = 1 - sum(side.cut(limit).total for side in sides) / tokens
    return (f"Longer texts than {limit} are cut: {longer:,} of {rows:,} ({longer / rows:.1%}), which lose "
            f"{lost:.1%} of all tokens.")


def _leaks(facts: DataFacts) -> Html:
    return table(("rows of", "that also stand in", "rows", "share"), [
        [Cell(one), Cell(other), Cell(html=f'<b class="bad">{count:,}</b>' if count else "0", value=count, kind="n"),
         number(count / max(1, facts.rows.get(one, 1)), ".2%")]
        for (one, other), count in facts.duplicates.items()],
        "The same text for the model to read, whatever the answer: it is judged too well on rows that it was trained "
        f"on{_estimate(facts)}", sortable=False)


def _vocabulary(facts: DataFacts) -> Html:
    names = list(dict.fromkeys([*facts.coverage, *facts.pieces]))
    told = [("pieces in it", ",.0f", {name: one["size"] for name, one in facts.coverage.items()} |
             {name: len(one.counts) for name, one in facts.pieces.items()}),
            ("pieces used", ".1%", {name: one.used / max(1, len(one.counts)) for name, one in facts.pieces.items()}),
            ("tokens a word", ".2f", {name: one["tokens_per_word"] for name, one in facts.coverage.items()} |
             {name: one.tokens / max(1, one.words) for name, one in facts.pieces.items()}),
            ("unknown tokens", ".3%", {name: one.unknown / max(1, one.tokens) for name, one in facts.pieces.items()}),
            ("unknown words", ".3%", {name: one["unknown_share"] for name, one in facts.coverage.items()}),
            ("characters known", ".2%", {name: one["characters_covered"] for name, one in facts.coverage.items()})]
    return table(("", *names), [[Cell(what), *(number(found.get(name), form) for name in names)]
                                for what, form, found in told if found], "Of the training split", sortable=False)


def _anomalies(facts: DataFacts) -> Html:
    if not facts.anomalies:
        return Html("<p>None: every split fits the schema.</p>")
    return table(("split", "feature", "reason", ""), [
        [Cell(split), texts(feature, 80), texts(why), Cell("accepted" if accepted else "not accepted")]
        for split, feature, why, accepted in facts.anomalies])


def _skipped(facts: DataFacts) -> Html:
    """Rows that are in no split, or that training leaves out, with why and some of them."""
    long_ones = table(("tokens", "text"), [
        [number(tokens), Cell(html="<hr>".join(map(shown, parts)), kind="text")] for tokens, parts in facts.longest],
        "The longest of those that training leaves out, by its limit on tokens", sortable=False)
    if not facts.skipped:
        return join(["<p>When reading: none, every row is in a split.</p>", long_ones])
    return join([
        table(("reason", "rows"), [[texts(why, 200), number(count)] for why, count in facts.skipped.items()],
              "When reading"),
        table(("file", "line", "reason", "row"), [
            [texts(row["file"].rpartition("/")[2], 60), number(row["line"], "d"), texts(row["reason"], 200),
             texts(row["row"], 300)] for row in facts.skipped_rows], "Some of them"), long_ones])
