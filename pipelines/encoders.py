"""The `textrail encoder` commands: bring an encoder in, look at one, take one out."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from rich import box
from rich.table import Table

from components.encoder_layouts import layout_of, weights_files, weights_sha256
from components.encoder_sources import local_folder, read_encoder
from components.versions import read_manifest, served_version
from modules.checkpoints import Checkpoint
from modules.errors import TextrailError
from modules.export_reader import read_export
from modules.tfhub_export import export_tfhub
from modules.tokenization import SPECIALS
from pipelines.console import plain_console
from pipelines.workspace import Workspace, newest_output

MANIFEST_COPY = "textrail.json"
# What trains models that have an encoder.
RUN_FNS = ("modules.classifier.run_fn", "modules.pretraining.run_fn")


def bring_in(source: dict[str, Any], folder: str, stream: TextIO) -> None:
    """Checks an encoder and writes it in HuggingFace's layout.

    Args:
        source: what `read_encoder` takes.
        folder: a new or empty folder.
        stream: where to say what was written.

    Raises:
        TextrailError: the folder has files, or see `read_encoder`.
    """
    with new_folder(folder) as beside:
        checkpoint = read_encoder(**source)
        checkpoint.write(beside)
    plain_console(stream).print(f"{checkpoint.layout}: {_sizes(checkpoint)}, in {folder}", soft_wrap=True)


def _sizes(checkpoint: Checkpoint) -> str:
    """For example "6 layers, 384 wide, 30522 wordpieces, uncased"."""
    config, case = checkpoint.config, "uncased" if checkpoint.vocabulary.lower_case else "cased"
    return f"{config.num_hidden_layers} layers, {config.hidden_size} wide, {config.vocab_size} wordpieces, {case}"


def take_out(paths: Workspace, folder: str, form: str, trained: bool, stream: TextIO) -> None:
    """Writes a run's model so that other tools load it, with its manifest in `textrail.json`.

    Args:
        paths: of the run.
        folder: a new or empty folder.
        form: "hf" for HuggingFace's layout, with all heads; "tfhub" for `encoder/` and `preprocessing/`.
        trained: the model that was trained last, pushed or not, and not the version served.
        stream: where to say what was written and how it is loaded.

    Raises:
        TextrailError: the folder has files, or the run has no such model, or one that cannot be taken apart.
    """
    model = _trained(paths) if trained else _pushed(paths)
    manifest = read_manifest(model)
    truncate = manifest.get("truncate", "end")
    with new_folder(folder) as beside:
        checkpoint = read_export(model)
        if form == "hf":
            checkpoint.write(beside, manifest["max_length"])
        else:
            export_tfhub(checkpoint, beside, manifest["max_length"], truncate)
        (beside / MANIFEST_COPY).write_text(json.dumps(manifest, ensure_ascii=False, indent=1), "utf-8")
    what = (f"{len(checkpoint.labels)} classes, pooling {checkpoint.pooling}" if checkpoint.pooling
            else _sizes(checkpoint))
    lines = [f"{model}, {what}, in {folder}"]
    if form == "tfhub":
        lines.append(f'load it with hub.load("{folder}/encoder") and hub.load("{folder}/preprocessing")')
    elif checkpoint.pooling:
        trust = ", trust_remote_code=True" if checkpoint.pooling == "mean" else ""
        lines.append(f'load it with AutoModelForSequenceClassification.from_pretrained("{folder}"{trust})')
    else:
        lines.append(f'load it with {checkpoint.architecture}.from_pretrained("{folder}"), or without its heads with '
                     f'AutoModel.from_pretrained("{folder}")')
    if form == "hf" and truncate == "middle":
        lines.append(f"texts above {manifest['max_length']} tokens lost their middle in training, which HuggingFace's "
                     "tokenizers do not do: they lose their end there")
    plain_console(stream).print("\n".join(lines), soft_wrap=True)


def _pushed(paths: Workspace) -> str:
    destination = paths.destination()
    version = served_version(destination)
    if version is None:
        raise TextrailError(f"a pushed model of {paths.run} in {destination}", "none",
                            "Push one with `textrail run`, or take the last trained one with --trained.")
    return os.path.join(destination, version)


def _trained(paths: Workspace) -> str:
    from tfx.utils import path_utils

    made = (newest_output(paths, "Model", {"run_fn": run_fn}) for run_fn in RUN_FNS)
    found = next(filter(None, made), None)
    if found is None:
        raise TextrailError(f"a trained model of {paths.run} in {paths.folder}", "none", "Train one: `textrail run`.")
    return path_utils.serving_model_dir(found)


@contextmanager
def new_folder(folder: str) -> Iterator[Path]:
    """A folder to write in that gets its name when all is written.

    Args:
        folder: the name; must be missing or empty.

    Yields:
        A folder beside it, removed if anything fails.

    Raises:
        TextrailError: the folder has files.
    """
    target = Path(folder).expanduser().resolve()   # what a link names is replaced, not the link
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise TextrailError(f"a new or an empty folder at {folder}", "one with files" if target.is_dir() else "a file",
                            "Name another one, or remove it.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as beside:
        inner = Path(beside) / target.name
        inner.mkdir()
        yield inner
        if target.exists():
            target.rmdir()
        os.replace(inner, target)


def show(source: dict[str, Any], summary: bool, stream: TextIO) -> None:
    """Prints what an encoder is.

    Args:
        source: what `read_encoder` takes.
        summary: whether to list each tensor, too.
        stream: where to.

    Raises:
        TextrailError: see `read_encoder`.
    """
    checkpoint = read_encoder(**source)
    folder = local_folder(source["source"])
    layout = layout_of(folder)
    config, vocabulary = checkpoint.config, checkpoint.vocabulary
    parts: dict[str, int] = {"embeddings": 0, "blocks": 0, "pooler": 0, "heads": 0}
    for name, tensor in checkpoint.all_tensors.items():
        part = {"encoder": "blocks", "classifier": "heads", "cls": "heads"}.get(name.split(".")[0], name.split(".")[0])
        parts[part] += tensor.size
    rows = {
        "source": source["source"], "folder": folder, "layout": checkpoint.layout,
        "architecture": f"BERT, {config.num_hidden_layers} layers, {config.hidden_size} wide, "
                        f"{config.num_attention_heads} heads, {config.intermediate_size} between",
        "activation": config.hidden_act, "layer norm epsilon": f"{config.layer_norm_eps:g}",
        "positions": f"{config.max_position_embeddings} tokens", "segments": config.type_vocab_size,
        **{f"parameters, {part}": f"{count:,}" for part, count in parts.items() if count},
        "parameters": f"{sum(parts.values()):,}",
        "size on disk": f"{sum(path.stat().st_size for path in weights_files(folder, layout)) / 1e6:,.1f} MB",
        "vocabulary": f"{len(vocabulary.pieces):,} wordpieces",
        "case": "uncased" if vocabulary.lower_case else "cased",
        "special tokens": ", ".join(f"{token} {vocabulary.ids[token]}" for token in SPECIALS),
        **({"classes": ", ".join(checkpoint.labels)} if checkpoint.labels else {}),
        "sha256 of weights": weights_sha256(folder, layout),
    }
    console = plain_console(stream)
    table = Table(box=None, show_header=False, pad_edge=False)
    for key, value in rows.items():
        table.add_row(key, str(value))
    console.print(table)
    if summary:
        console.print(_summary(checkpoint))


def _summary(checkpoint: Checkpoint) -> Table:
    """Each tensor, in the order in which a text passes them, and the total."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_footer=True)
    tensors = checkpoint.all_tensors
    total = sum(tensor.size for tensor in tensors.values())
    table.add_column("tensor", footer="total", no_wrap=True)
    table.add_column("shape", justify="right")
    table.add_column("parameters", footer=f"{total:,}", justify="right")
    for name in sorted(tensors, key=_place):
        table.add_row(name, " × ".join(map(str, tensors[name].shape)), f"{tensors[name].size:,}")
    return table


def _place(name: str) -> tuple[int, int, str]:
    """Sorts embeddings, blocks by number, pooler, heads."""
    part, *rest = name.split(".")
    return (("embeddings", "encoder", "pooler", "classifier", "cls").index(part),
            int(rest[1]) if part == "encoder" else 0, name)
