"""The page: a person's texts, and what the model says of them, in the way that suits its shape.

Made with Gradio, which is imported only here. It asks for nothing from outside: no analytics, no fonts, no scripts.
"""

from __future__ import annotations

import html
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

import numpy as np

from modules.manifest import DEFAULT_SIGNATURE
from pipelines.answers import MASK, fill, goes_on
from pipelines.model import Model
from pipelines.plots import printable
from pipelines.serving.errors import RestError
from pipelines.serving.rest import error_response
from pipelines.serving.watching import Served, Watcher

# Before Gradio is imported: it would report its use, and look for a newer version of itself.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
import gradio as gr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

MAX_CHARACTERS = 20_000   # In a text field.
MEAN = "mean of all"
# Those of the system: the theme's own would be looked for outside.
FONTS, MONO = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
STYLE = """
.problem { color: var(--error-text-color, #b91c1c); font-weight: 600; }
.example { font-weight: 400; justify-content: flex-start; text-align: left; }
.attention { overflow-x: auto; }
.attention table { border-collapse: collapse; font-size: 0.85rem; }
.attention table :is(th, td) { border: 1px solid var(--border-color-primary); }
.attention th { font-weight: 400; padding: 0.1rem 0.35rem; text-align: right; white-space: nowrap; }
.attention thead th { vertical-align: bottom; text-align: center; }
.attention thead span { writing-mode: vertical-rl; transform: rotate(180deg); }
.attention td { min-width: 1.6rem; height: 1.6rem; }
.filled { font-size: 1.15rem; line-height: 1.6; white-space: pre-wrap; }
.filled mark { background: rgba(37, 99, 235, 0.2); border-radius: 0.2rem; color: inherit; padding: 0 0.15rem; }
.masks { display: flex; flex-wrap: wrap; gap: 1rem 2rem; }
.masks table { border-collapse: collapse; flex: 1 1 16rem; margin: 0; }
.masks table, .masks table tr { border: none; }
.masks caption { font-size: 0.85rem; font-weight: 600; padding-bottom: 0.2rem; text-align: left; }
.masks table tr :is(th, td) { border: none; font-weight: 400; padding: 0.15rem 0.5rem 0.15rem 0; text-align: left; }
.masks table tr :is(th, td:last-child) { white-space: nowrap; width: 1%; }
.masks table tr td:last-child { font-variant-numeric: tabular-nums; padding-right: 0; text-align: right; }
.masks td div { background: rgba(37, 99, 235, 0.6); border-radius: 0.15rem; height: 0.8rem; min-width: 1px; }
"""


class Field(NamedTuple):
    """A text that a person writes.

    Attributes:
        label: above it.
        name: the input of `serving_default`.
    """

    label: str
    name: str


Event = Callable[..., Any]   # Of Gradio: takes a function, its inputs and its outputs.


class Page(Protocol):
    """What a page shows for a shape.

    Attributes:
        button: its word.
        outputs: components of the answer; made inside the page.
    """

    button: str

    def outputs(self) -> list[Any]:
        """The components of an answer, made where the page wants them."""

    async def show(self, served: Served, answer: Any, texts: Sequence[str]) -> list[Any]:
        """Their values."""

    def more(self, watcher: Watcher, inputs: Sequence[Any], answered: Event) -> None:
        """What else the page has below the answer; `answered` calls a function after each."""


class Classes:
    """One text, or a pair of texts, to classes with bars."""

    def __init__(self, model: Model):
        self.button = "Compare" if len(model.columns) == 2 else "Classify"
        self._classes = len(model.manifest["classes"])

    def outputs(self) -> list[Any]:
        return [gr.Label(label="classes", num_top_classes=min(self._classes, 10))]

    async def show(self, served: Served, answer: Any, texts: Sequence[str]) -> list[Any]:
        return [answer.scores]

    def more(self, watcher: Watcher, inputs: Sequence[Any], answered: Event) -> None:
        pass


class Translation:
    """A text to its translation, with a map of what each of its tokens looked at."""

    button = "Translate"

    def __init__(self, model: Model):
        self._layers, self._heads = model.shapes("attention")["attention"][1:3]

    def outputs(self) -> list[Any]:
        return [gr.Textbox(label="translation", lines=3, interactive=False, buttons=["copy"],
                           elem_id="translation")]

    async def show(self, served: Served, answer: Any, texts: Sequence[str]) -> list[Any]:
        return ["\n".join(one["translation"] for one in answer.n_best)]

    def more(self, watcher: Watcher, inputs: Sequence[Any], answered: Event) -> None:
        text, = inputs
        with gr.Accordion("What each token looked at", open=True):
            with gr.Row():
                layer = gr.Dropdown([str(number) for number in range(1, self._layers + 1)], value=str(self._layers),
                                    label="layer")
                head = gr.Dropdown([MEAN, *(str(number) for number in range(1, self._heads + 1))], value=MEAN,
                                   label="head")
            shown = gr.HTML()

        async def draw(text: str, layer: str, head: str) -> str:
            if not text.strip() or len(text) > MAX_CHARACTERS:
                return ""
            with watcher.use() as served:
                name, = served.model.inputs("attention")
                found = await served.ask("attention", {name: [text.encode("utf-8", "replace")]})
            weights = found["attention"][0]  # [layers, heads, target, source]
            # A version that came since may have fewer of them than there are to choose from.
            weights = weights[min(int(layer), len(weights)) - 1]  # [heads, target, source]
            weights = weights.mean(axis=0) if head == MEAN else weights[min(int(head), len(weights)) - 1]
            return attention_map(weights, *(found[f"{side}_tokens"][0] for side in ("source", "target")))

        for event in (answered, layer.change, head.change):
            event(draw, [text, layer, head], shown, concurrency_limit=None, show_progress="hidden",
                  api_visibility="private")


class Words:
    """A text with masks to the text with words in their places, and how likely each of them is."""

    button = "Fill in"

    def __init__(self, model: Model):
        pass

    def outputs(self) -> list[Any]:
        gr.HTML(f"<p>Write {MASK} in the place of each word that the model shall tell.</p>")
        return [gr.HTML(elem_id="filled")]

    async def show(self, served: Served, answer: Any, texts: Sequence[str]) -> list[Any]:
        return [filled_text(texts[0], answer.masks) if answer.masks else ""]

    def more(self, watcher: Watcher, inputs: Sequence[Any], answered: Event) -> None:
        pass


PAGES: dict[str, Callable[[Model], Page]] = {
    "classification": Classes, "translation": Translation, "pretraining": Words}


def filled_text(text: str, masks: Sequence[Mapping[str, Sequence[Any]]]) -> str:
    """The text with the likeliest words marked in it, and a table for each mask with a bar for each of its words.

    Args:
        text: as a person wrote it.
        masks: of those that the model read, `words` and their `probabilities`, the likeliest first.
    """
    best = [mask["words"][0] for mask in masks]
    marked = fill(html.escape(text), [f"##<mark>{html.escape(word[2:])}</mark>" if goes_on(word) else
                                      f"<mark>{html.escape(word)}</mark>" for word in best])
    tables = []
    for number, mask in enumerate(masks, start=1):
        rows = "".join(
            f'<tr><th scope="row"><bdi>{html.escape(word)}</bdi></th><td><div style="width: {value:.1%}"></div></td>'
            f"<td>{value:.1%}</td></tr>" for word, value in zip(mask["words"], mask["probabilities"], strict=True))
        name = MASK if len(masks) == 1 else f"{MASK} {number}"
        tables.append(f"<table><caption>{name}</caption><tbody>{rows}</tbody></table>")
    return f'<p class="filled">{marked}</p><div class="masks">{"".join(tables)}</div>'


def attention_map(weights: np.ndarray, source: Sequence[bytes], target: Sequence[bytes]) -> str:
    """A table with a line for each token of the translation, the darker the more it looked at a token of the text.

    Args:
        weights: [target, source] shares; those of a line sum to 1.
        source: tokens, "" after the last.
        target: tokens, "" after the last.
    """
    columns, lines = ([printable(token.decode("utf-8", "replace")) for token in tokens if token]
                      for tokens in (source, target))
    head = "".join(f'<th scope="col"><span><bdi>{html.escape(token)}</bdi></span></th>' for token in columns)
    body = "".join(
        f'<tr><th scope="row"><bdi>{html.escape(said)}</bdi></th>' + "".join(
            f'<td style="background: rgba(37, 99, 235, {weight:.3f})" title="{html.escape(said)} looked at '
            f'{html.escape(token)}: {weight:.0%}"></td>' for token, weight in zip(columns, row, strict=False))
        + "</tr>" for said, row in zip(lines, weights, strict=False))
    return f'<div class="attention"><table><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def problem_with(fields: Sequence[Field], texts: Sequence[str]) -> str:
    """What is wrong with what a person wrote, as a sentence; empty if nothing is."""
    for field, text in zip(fields, texts, strict=True):
        if not text.strip():
            return f"Expected a text in {field.label}; received nothing. Write one."
        if len(text) > MAX_CHARACTERS:
            return (f"Expected at most {MAX_CHARACTERS:,} characters in {field.label}; received {len(text):,}. "
                    "Shorten the text.")
    return ""


def build(run: str, watcher: Watcher, examples: Sequence[Sequence[str]]) -> gr.Blocks:
    """The page of a run.

    Args:
        run: its name.
        watcher: the model.
        examples: texts for the fields, to choose from.
    """
    with watcher.use() as served:
        model = served.model
    page = PAGES[model.manifest["shape"]](model)
    fields = [Field(*names) for names in zip(model.columns, model.names, strict=True)]

    def head() -> str:
        with watcher.use() as served:
            return f"<h1>{html.escape(run)}</h1><p>{html.escape(_described(served.model))}</p>"

    async def ask(*texts: str) -> list[Any]:
        if problem := problem_with(fields, texts):
            return [*(None for _ in outputs), _told(problem, "problem")]
        began = time.perf_counter()
        try:
            with watcher.use() as served:
                columns = {field.name: [text.encode("utf-8", "replace")]
                           for field, text in zip(fields, texts, strict=True)}
                found = await served.ask(DEFAULT_SIGNATURE, columns)
                answer, = served.model.answers.read(found, [texts])
                shown = await page.show(served, answer, texts)
        except RestError as error:
            return [*(None for _ in outputs), _told(error.message, "problem")]
        milliseconds = 1000 * (time.perf_counter() - began)
        lines = [_told(f"version {served.model.number} answered in {milliseconds:.0f} ms", "answered")]
        if cut := served.model.answers.cut(answer):
            lines.insert(0, _told(f"The text is {cut}.", "problem"))
        return [*shown, "".join(lines)]

    with gr.Blocks(title=f"{run} · Textrail", analytics_enabled=False) as blocks:
        gr.HTML(head)   # called whenever the page is opened: the version may be another one by then
        with gr.Row():
            with gr.Column():
                inputs = [gr.Textbox(label=field.label, lines=3, max_lines=12, elem_id=f"text-{place}")
                          for place, field in enumerate(fields)]
                button = gr.Button(page.button, variant="primary")
            with gr.Column():
                outputs = page.outputs()
                status = gr.HTML(elem_id="status")
        # Below the answer, which a narrow window would otherwise have far from its button. Buttons of our own: that of
        # gr.Examples in 6.17 has been seen to throw in the browser.
        for row in examples:
            gr.Button(" | ".join(row), size="sm", elem_classes="example").click(
                partial(_taken, row), None, inputs, queue=False, api_visibility="private")
        asked = gr.on([button.click, *(field.submit for field in inputs)], ask, inputs, [*outputs, status],
                      concurrency_limit=None, api_name="ask")
        page.more(watcher, inputs, asked.then)
    return blocks


def mount(app: Starlette, blocks: gr.Blocks, most_bytes: int) -> Callable[[], None]:
    """Puts the page at the root of a server.

    Args:
        app: the server.
        blocks: the page.
        most_bytes: of a request.

    Returns:
        A function that ends the connections which open pages keep, to be called when the server is to stop.
    """
    app.router.routes.append(Route("/gradio_api/upload", _no_files, methods=["POST"]))
    gr.mount_gradio_app(app, blocks, path="/", css=STYLE, footer_links=[], ssr_mode=False, show_error=True,   # type: ignore[arg-type]
                        max_file_size=most_bytes, allowed_paths=[], theme=gr.themes.Default(font=FONTS, font_mono=MONO))
    return app.routes[-1].app.stop_event.set   # type: ignore[attr-defined]


async def _no_files(_: Request) -> Response:
    # Gradio would keep on disk whatever anybody sends, though the page has nothing to send.
    return error_response(HTTPStatus.NOT_FOUND, "The page takes no files.")


def _taken(row: Sequence[str]) -> Any:
    """Values for as many fields; Gradio wants a single one without its list."""
    return row[0] if len(row) == 1 else list(row)


def _told(sentence: str, kind: str) -> str:
    role = ' role="alert"' if kind == "problem" else ""
    return f'<p class="{kind}"{role}>{html.escape(sentence)}</p>'


def _described(model: Model) -> str:
    metrics = model.manifest.get("metrics", {})
    main = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items() if "/" not in name)
    pushed = model.manifest.get("pushed_at", "")[:10]
    return f"{model.manifest['shape']}{f', pushed {pushed}' if pushed else ''}{f', {main} when judged' if main else ''}"
