"""BERT as TF Hub and Kaggle have it: a SavedModel with its vocabulary, and a second one that makes ids of texts.

What the variables do not say, their shapes and the graph do: the activation and the epsilon of the layer norms are
constants and operations in it. The encoder that comes of it is compared with the SavedModel, both run on the same ids.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from modules.bert import INPUTS, Bert, BertConfig
from modules.checkpoints import Checkpoint, Hints, case_of, read_pieces
from modules.errors import TextrailError
from modules.manifest import DESCRIPTION
from modules.tensorflow_files import Variables, check_heads, has_no_capitals, read_config, read_variables
from modules.tokenization import SPECIALS, Vocabulary
from modules.weights import VOCABULARY, assign

GRAPH, VARIABLES = "saved_model.pb", "variables/variables"
TANH_GELU = 0.044715   # the constant in gelu's tanh approximation
# Of the mean difference next to the mean size. Of a BERT of 12 layers, sums in another order make 2e-6, and gelu in
# place of its approximation 7e-4.
TOLERANCE = 1e-4


class Graph(NamedTuple):
    """What counts of a `saved_model.pb`.

    Attributes:
        nodes: of each function, and of the graph around them.
        assets: file names.
        vocab_file: the one that the root calls so.
    """

    nodes: list[list[Any]]
    assets: list[str]
    vocab_file: str | None


def read_saved_model(folder: Path, hints: Hints) -> Checkpoint:
    """Reads an encoder SavedModel whose variables have the names of TF Hub's BERTs.

    Args:
        folder: with `saved_model.pb`, `variables/` and `assets/`.
        hints: a configuration and a vocabulary in it come before what is found.

    Returns:
        The encoder.

    Raises:
        TextrailError: it is no BERT, it lacks what cannot be found elsewhere, or it computes something else than BERT
            with these weights.
    """
    graph, variables = read_graph(folder), read_variables(folder / VARIABLES)
    with _or_opaque():
        config = read_config(folder, hints) or read_config(folder / DESCRIPTION, hints)
        if config is None:
            config = _config(folder, graph, variables)
        check_heads(config, variables, folder)
    vocabulary = _vocabulary(folder, graph, variables, hints)
    checkpoint = Checkpoint("SavedModel", config, variables.tensors, vocabulary, names=variables.names)
    with _or_opaque():
        checkpoint.check(folder)
        _compare(folder, checkpoint)
    return checkpoint


@contextmanager
def _or_opaque() -> Iterator[None]:
    """Lets an error end with the other way to use a SavedModel."""
    try:
        yield
    except TextrailError as error:
        raise TextrailError(error.expected, error.received, f"{error.fix} Or set encoder.opaque=true in a run, which "
                            "fine-tunes the SavedModel as it is.") from error


def read_graph(folder: Path) -> Graph:
    """Reads `saved_model.pb` without loading the model.

    Raises:
        TextrailError: it is missing or damaged.
    """
    try:
        graph = saved_model_pb2.SavedModel.FromString((folder / GRAPH).read_bytes()).meta_graphs[0]
        objects, assets = graph.object_graph_def.nodes, [asset.filename for asset in graph.asset_file_def]
        vocab_file = next((assets[objects[child.node_id].asset.asset_file_def_index]
                           for child in (objects[0].children if objects else ()) if child.local_name == "vocab_file"),
                          None)
    except (OSError, DecodeError, IndexError) as error:
        raise TextrailError(f"a SavedModel in {folder}", str(error), "Fetch it again.") from error
    functions = [list(function.node_def) for function in graph.graph_def.library.function]
    return Graph([list(graph.graph_def.node), *functions], assets, vocab_file)


# --- configuration -------------------------------------------------------------------------------------------------


def _config(folder: Path, graph: Graph, variables: Variables) -> BertConfig:
    """The configuration that the shapes of the variables and the graph say."""
    shapes = {name: tensor.shape for name, tensor in variables.tensors.items()}
    blocks = [int(match[1]) for name in shapes if (match := re.match(r"encoder\.layer\.(\d+)\.", name))]
    tables = [shapes.get(f"embeddings.{table}_embeddings.weight") for table in ("word", "position", "token_type")]
    inner = shapes.get("encoder.layer.0.intermediate.dense.weight")
    if inner is None or any(table is None for table in tables):
        found = ", ".join([variables.names.get(name, name) for name in shapes][:4]) or "none"
        raise TextrailError(f"variables with the names of a BERT of TF Hub in {folder}, such as "
                            "word_embeddings/embeddings", f"{found}, …" if len(shapes) > 4 else found, "Take a BERT.")
    found_in_graph = {"num_attention_heads": variables.heads, "hidden_act": _only(_activations(graph)),
                      "layer_norm_eps": _only(_epsilons(graph))}
    if unknown := [key for key, value in found_in_graph.items() if value is None]:
        raise TextrailError(f"a SavedModel that shows its {' and '.join(unknown)}", f"one that does not: {folder}",
                            "Set encoder.config to a config.json with these keys, or put it into that folder.")
    words, positions, types = (table[0] for table in tables if table is not None)
    return BertConfig.from_values({
        "vocab_size": words, "hidden_size": inner[1], "num_hidden_layers": max(blocks) + 1,
        "intermediate_size": inner[0],
        "max_position_embeddings": positions, "type_vocab_size": types, **found_in_graph}, folder / GRAPH)


def _only(values: Iterable[Any]) -> Any:
    """The one value that there is, none if there are others or none."""
    different = set(values)
    return different.pop() if len(different) == 1 else None


def _activations(graph: Graph) -> Iterator[str]:
    """HuggingFace's names of the activations whose operations occur."""
    for node in (node for nodes in graph.nodes for node in nodes):
        if node.op in ("Erf", "Erfc"):
            yield "gelu"
        elif node.op in ("Relu", "Elu", "Selu", "LeakyRelu", "Relu6", "Softplus"):
            yield node.op.lower()
        elif node.op == "Const" and (value := _scalar(node)) is not None and abs(value - TANH_GELU) < 1e-6:
            yield "gelu_new"


def _epsilons(graph: Graph) -> Iterator[float]:
    """What is added before each reciprocal square root."""
    for nodes in graph.nodes:
        by_name = {node.name: node for node in nodes}

        def source(name: str, by_name: dict[str, Any] = by_name) -> Any:
            return by_name.get(name.split(":")[0])   # "scope/add:z:0" and "scope/add" name the node "scope/add"

        for node in nodes:
            if node.op.startswith("FusedBatchNorm") and "epsilon" in node.attr:
                yield _rounded(node.attr["epsilon"].f)
            added = source(node.input[0]) if node.op == "Rsqrt" else None
            if added is not None and added.op in ("Add", "AddV2"):
                constants = (source(name) for name in added.input)
                yield from (_rounded(value) for constant in constants if constant is not None
                            and constant.op == "Const" and (value := _scalar(constant)) is not None)


def _scalar(node: Any) -> float | None:
    """The value of a constant of one float, none of others."""
    tensor = node.attr["value"].tensor
    if tensor.dtype not in (tf.float32.as_datatype_enum, tf.float64.as_datatype_enum):
        return None
    value = tf.make_ndarray(tensor)
    return float(value.reshape(-1)[0]) if value.size == 1 else None


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")   # 1e-12 is 9.99999996e-13 as a float32


# --- vocabulary ----------------------------------------------------------------------------------------------------


def vocabulary_of(folder: Path, hints: Hints) -> Vocabulary:
    """The vocabulary of a SavedModel of any architecture.

    Raises:
        TextrailError: there is none in it, beside it, or where the user says.
    """
    return _vocabulary(folder, read_graph(folder), read_variables(folder / VARIABLES), hints)


def _vocabulary(folder: Path, graph: Graph, variables: Variables, hints: Hints) -> Vocabulary:
    """The vocabulary and the case, from the first place that has them.

    Places: what the user names; the SavedModel's own `vocab_file`; a `vocab.txt` in the folder; a preprocessing
    SavedModel beside it.
    """
    if hints.preprocessing is not None:
        return vocabulary_at(hints.preprocessing, hints.lower_case)
    case = variables.lower_case if hints.lower_case is None else hints.lower_case
    if path := _asset(folder, graph):
        return _of_file(path, case)
    if (folder / VOCABULARY).is_file():
        return vocabulary_at(folder, case)
    partners = [path.parent for path in folder.parent.glob(f"*preprocess*/{GRAPH}") if path.parent != folder]
    if len(partners) == 1:
        return vocabulary_at(partners[0], case)
    raise TextrailError(f"the vocabulary of {folder}: vocab_file in the SavedModel, {VOCABULARY} in the folder, or one "
                        "preprocessing SavedModel beside it", f"{len(partners)} beside it" if partners else "none",
                        "Set encoder.preprocessing to a vocab.txt, or to the folder or handle of the preprocessing.")


def vocabulary_at(path: Path, lower_case: bool | None) -> Vocabulary:
    """Reads a vocabulary that lies beside weights, or in a preprocessing SavedModel.

    Args:
        path: a `vocab.txt`, a folder with one, or the folder of the SavedModel.
        lower_case: the case; none follows what is said there, or else the vocabulary itself.

    Returns:
        The vocabulary.

    Raises:
        TextrailError: there is none, or a wrong one.
    """
    if path.is_file():
        return _of_file(path, lower_case)
    if (path / VOCABULARY).is_file() or not (path / GRAPH).is_file():
        return _of_file(path / VOCABULARY, case_of(path, lower_case))
    graph = read_graph(path)
    asset = _asset(path, graph)
    if asset is None:
        raise TextrailError(f"a vocabulary of wordpieces among the assets of {path}", ", ".join(graph.assets) or "none",
                            "Take the preprocessing of a BERT.")
    if lower_case is None:
        lower_case = read_variables(path / VARIABLES).lower_case
    operations = {node.op for nodes in graph.nodes for node in nodes}
    if lower_case is None and any(name.startswith("WordpieceTokenize") for name in operations):
        lower_case = "CaseFoldUTF8" in operations   # how tf_text's BertTokenizer lower-cases
    return _of_file(asset, lower_case)


def _of_file(path: Path, lower_case: bool | None) -> Vocabulary:
    pieces = read_pieces(path)
    return Vocabulary(pieces, has_no_capitals(pieces) if lower_case is None else lower_case)


def _asset(folder: Path, graph: Graph) -> Path | None:
    """The file that the SavedModel calls `vocab_file`, or the one asset that has BERT's special tokens."""
    if graph.vocab_file:
        return folder / "assets" / graph.vocab_file
    paths = [folder / "assets" / name for name in graph.assets]
    found = [path for path in paths if path.is_file() and set(SPECIALS) <= set(read_pieces(path))]
    return found[0] if len(found) == 1 else None


# --- comparison ----------------------------------------------------------------------------------------------------


def _compare(folder: Path, checkpoint: Checkpoint) -> None:
    """Runs the SavedModel and what was read from it on the same ids.

    Raises:
        TextrailError: they differ: norms before the layers instead of after them, for example, change no variable.
    """
    config = checkpoint.config
    ids = np.random.default_rng(0).integers(0, config.vocab_size, (2, min(16, config.max_position_embeddings)))
    inputs = dict(zip(INPUTS, tf.constant([ids, np.ones_like(ids), np.zeros_like(ids)], tf.int32), strict=True))
    try:
        outputs = tf.saved_model.load(str(folder))(inputs)
        theirs = outputs["sequence_output"].numpy()
    except (tf.errors.OpError, ValueError, TypeError, KeyError):
        return   # Older ones take a list or have signatures alone; their variables are what they are.
    has_pooler = any(name.startswith("pooler.") for name in checkpoint.tensors)
    bert = Bert(config, with_pooler=has_pooler, dtype="float32")
    assign(bert, checkpoint.tensors)
    difference = float(np.abs(bert(inputs)["sequence_output"].numpy() - theirs).mean() / np.abs(theirs).mean())
    if not difference <= TOLERANCE:
        raise TextrailError(f"a SavedModel in {folder} that computes what a BERT with its weights does ({config})",
                            f"outputs that differ by {difference:.2g} of their size",
                            "It is another architecture with BERT's names, or encoder.config is that of another model.")
