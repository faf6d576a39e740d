"""What files of google-research/bert (TF1) and of TF Model Garden (TF2) hold of a BERT: variables and configuration.

Variables are mapped by name, through one table for each project. Neither project stores the epsilon of its layer
norms: it is 1e-12 in the code of both. What both call "gelu" is its tanh approximation, HuggingFace's "gelu_new".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import yaml
from tensorflow.core.protobuf import trackable_object_graph_pb2

from modules.bert import BertConfig
from modules.checkpoints import Hints
from modules.errors import TextrailError
from modules.json_files import read_object
from modules.weights import CONFIG

BERT_CONFIG, PARAMS = "bert_config.json", "params.yaml"
EPSILON = 1e-12
ACTIVATIONS = {"gelu": "gelu_new", "relu": "relu"}   # theirs → HuggingFace's

# --- names ---------------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """One kind of variable.

    Attributes:
        pattern: its name behind any scope.
        name: HuggingFace's.
        change: of its value to HuggingFace's shape.
    """

    pattern: str
    name: str
    change: Callable[[np.ndarray], np.ndarray]


def _as_it_is(value: np.ndarray) -> np.ndarray:
    return value


def _flat(value: np.ndarray) -> np.ndarray:
    return value.reshape(-1)  # [heads, head_width] or [width] → [width]


def _to_heads(value: np.ndarray) -> np.ndarray:
    return value.reshape(value.shape[0], -1).T  # [in, heads, head_width] or [in, out] → [out, in]


def _from_heads(value: np.ndarray) -> np.ndarray:
    return value.reshape(-1, value.shape[-1]).T  # [heads, head_width, out] or [in, out] → [out, in]


def _norm(pattern: str, name: str) -> tuple[Row, Row]:
    return Row(f"{pattern}/gamma", f"{name}.weight", _as_it_is), Row(f"{pattern}/beta", f"{name}.bias", _as_it_is)


def _dense(pattern: str, name: str, change: Callable[[np.ndarray], np.ndarray] = _to_heads) -> tuple[Row, Row]:
    return Row(f"{pattern}/kernel", f"{name}.weight", change), Row(f"{pattern}/bias", f"{name}.bias", _flat)


# google-research/bert, modeling.py.
TF1_TABLE = (
    Row("embeddings/word_embeddings", "embeddings.word_embeddings.weight", _as_it_is),
    Row("embeddings/position_embeddings", "embeddings.position_embeddings.weight", _as_it_is),
    Row("embeddings/token_type_embeddings", "embeddings.token_type_embeddings.weight", _as_it_is),
    *_norm("embeddings/LayerNorm", "embeddings.LayerNorm"),
    *_dense(r"layer_(\d+)/attention/self/(query|key|value)", r"encoder.layer.\1.attention.self.\2"),
    *_dense(r"layer_(\d+)/attention/output/dense", r"encoder.layer.\1.attention.output.dense"),
    *_norm(r"layer_(\d+)/attention/output/LayerNorm", r"encoder.layer.\1.attention.output.LayerNorm"),
    *_dense(r"layer_(\d+)/intermediate/dense", r"encoder.layer.\1.intermediate.dense"),
    *_dense(r"layer_(\d+)/output/dense", r"encoder.layer.\1.output.dense"),
    *_norm(r"layer_(\d+)/output/LayerNorm", r"encoder.layer.\1.output.LayerNorm"),
    *_dense("pooler/dense", "pooler.dense"),
)

# TF Model Garden, official/nlp/modeling/networks/bert_encoder.py, and what it exports for TF Hub; the alternatives are
# the names of its first generation. The paths in the object graph of its checkpoints differ between generations
# (`layer_with_weights-4`, `_transformer_layers/0`) and with what else is saved (a table that a head shares may lie
# under the head). The names of the variables, which the graph carries as well, stay.
TF2_TABLE = (
    Row("word_embeddings/embeddings", "embeddings.word_embeddings.weight", _as_it_is),
    Row("(?:position_embedding/embeddings|embedding_postprocessor/position_embeddings)",
        "embeddings.position_embeddings.weight", _as_it_is),
    Row("(?:type_embeddings/embeddings|embedding_postprocessor/type_embeddings)",
        "embeddings.token_type_embeddings.weight", _as_it_is),
    *_norm("(?:embeddings|embedding_postprocessor)/layer_norm", "embeddings.LayerNorm"),
    *_dense(r"layer_(\d+)/self_attention/(query|key|value)", r"encoder.layer.\1.attention.self.\2"),
    *_dense(r"layer_(\d+)/(?:self_attention/attention_output|self_attention_output)",
            r"encoder.layer.\1.attention.output.dense", _from_heads),
    *_norm(r"layer_(\d+)/self_attention_layer_norm", r"encoder.layer.\1.attention.output.LayerNorm"),
    *_dense(r"layer_(\d+)/intermediate", r"encoder.layer.\1.intermediate.dense"),
    *_dense(r"layer_(\d+)/output", r"encoder.layer.\1.output.dense"),
    *_norm(r"layer_(\d+)/output_layer_norm", r"encoder.layer.\1.output.LayerNorm"),
    *_dense("pooler_transform", "pooler.dense"),
)

OBJECT_GRAPH, VALUE = "_CHECKPOINTABLE_OBJECT_GRAPH", "/.ATTRIBUTES/VARIABLE_VALUE"
# Optimizers' variables may end in the names of the weights that they belong to; these are told by their keys.
SLOTS = re.compile(r"\.OPTIMIZER_SLOT|(?:^|/)_?optimizer/")
# What else lies beside an encoder: steps, slots of TF1, heads of pretraining and fine-tuning, the case flag.
EXTRAS = re.compile(
    r"(?:.*/)?(?:global_step|save_counter|iter|beta[12]_power|do_lower_case|pooling|adam_[mv]|Adam(?:_1)?|LAMB(?:_1)?)"
    r"|(?:.*/)?(?:cls|predictions|masked_lm|classification_heads?|next_sentence[^/]*|loss)/.*"
    rf"|output_weights|output_bias|{OBJECT_GRAPH}")


class Variables(NamedTuple):
    """What a TensorFlow checkpoint holds of an encoder.

    Attributes:
        tensors: float32 under HuggingFace's names and in its shapes; what the table does not know under its own name.
        names: HuggingFace's name → the variable's.
        heads: attention heads, where the shape of a kernel says it.
        has_graph: whether an object graph is there: written by TF2, not by TF1's `Saver`.
        lower_case: what a variable `do_lower_case` says.
    """

    tensors: dict[str, np.ndarray]
    names: dict[str, str]
    heads: int | None
    has_graph: bool
    lower_case: bool | None


def read_variables(prefix: str | Path) -> Variables:
    """Reads an encoder's variables from a checkpoint of TF1 or TF2, or from that of a SavedModel.

    Args:
        prefix: path of its files without `.index`.

    Returns:
        The variables; those of heads and optimizers are left out.

    Raises:
        TextrailError: it cannot be read, or two variables stand for one tensor.
    """
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        keys = reader.get_variable_to_shape_map().keys()
        named = _names_in_graph(reader.get_tensor(OBJECT_GRAPH)) if OBJECT_GRAPH in keys else {key: key for key in keys}
        table = TF2_TABLE if OBJECT_GRAPH in keys else TF1_TABLE
        flag = f"do_lower_case{VALUE}"
        found = Variables({}, {}, None, OBJECT_GRAPH in keys, bool(reader.get_tensor(flag)) if flag in keys else None)
        for key in sorted(keys):
            name = named.get(key, key)
            row = None if SLOTS.search(key) else _match(table, name)
            if row is None and (SLOTS.search(key) or EXTRAS.fullmatch(name)
                                or EXTRAS.fullmatch(key.removesuffix(VALUE))):
                continue
            value = reader.get_tensor(key)
            ours, change = row or (name, _as_it_is)
            if ours in found.tensors:
                raise TextrailError(f"one variable for {ours} in {prefix}", f"{found.names.get(ours, ours)} and {name}",
                                    "Save the encoder alone.")
            if ours.endswith("query.weight") and value.ndim == 3:
                found = found._replace(heads=value.shape[1])
            if row:
                found.names[ours] = name
            found.tensors[ours] = change(value).astype("float32") if row else value
    except (tf.errors.OpError, LookupError, ValueError, RuntimeError) as error:
        raise TextrailError(f"a whole TensorFlow checkpoint at {prefix}", str(error).splitlines()[0],
                            "Fetch it again, with all of its files.") from error
    return found


def _names_in_graph(graph: bytes) -> dict[str, str]:
    """Key in a checkpoint → name of the variable, where it has one."""
    nodes = trackable_object_graph_pb2.TrackableObjectGraph.FromString(graph).nodes
    return {value.checkpoint_key: value.full_name for node in nodes for value in node.attributes if value.full_name}


def _match(table: Iterable[Row], name: str) -> tuple[str, Callable[[np.ndarray], np.ndarray]] | None:
    """HuggingFace's name for a variable and how its value changes; none for what no row knows."""
    for row in table:
        if match := re.fullmatch(f"(?:.*/)?{row.pattern}", name):
            return match.expand(row.name), row.change
    return None


# --- configuration -----------------------------------------------------------------------------------------------


def read_config(folder: Path, hints: Hints) -> BertConfig | None:
    """The configuration that lies with weights, or that the user names.

    A file with `model_type` was written by transformers and says what it says there; one without is read as the code
    of Google's projects reads it.

    Args:
        folder: where to look for `bert_config.json`, `config.json` and `params.yaml`.
        hints: a `config` in it comes first.

    Returns:
        The configuration, none where there is no file.

    Raises:
        TextrailError: the file is wrong, or describes another model.
    """
    beside = (folder / name for name in (BERT_CONFIG, CONFIG, PARAMS))
    path = hints.config or next((path for path in beside if path.is_file()), None)
    if path is None:
        return None
    try:
        is_yaml = path.suffix in (".yaml", ".yml")
        values = _model_garden(yaml.safe_load(path.read_text(encoding="utf-8"))) if is_yaml else read_object(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise TextrailError(f"the configuration of a BERT in {path}", f"{type(error).__name__}: {error}",
                            "Take the file that belongs to the weights.") from error
    if "model_type" in values:
        return BertConfig.from_values(values, path)
    width = values.get("embedding_size") or values.get("hidden_size")
    for key, value, wanted in (("embedding_size", width, values.get("hidden_size")),
                               ("norm_first", values.get("norm_first", False), False)):
        if value != wanted:
            raise TextrailError(f"{key} {wanted!r} in {path}", repr(value), "Take a BERT encoder.")
    activation = values.get("hidden_act")
    return BertConfig.from_values({"layer_norm_eps": EPSILON, **values,
                                   "hidden_act": ACTIVATIONS.get(str(activation), activation)}, path)


def _model_garden(params: Mapping[str, Any]) -> dict[str, Any]:
    """The encoder of an experiment's params.yaml under the names of bert_config.json."""
    encoder = params["task"]["model"]["encoder"]
    if encoder.get("type", "bert") != "bert":
        raise ValueError(f"an encoder of type {encoder['type']}")
    renamed = {"num_layers": "num_hidden_layers", "hidden_activation": "hidden_act"}
    return {renamed.get(key, key): value for key, value in encoder["bert"].items()}


def check_heads(config: BertConfig, variables: Variables, where: Path) -> None:
    """The number of heads changes no size of a kernel but shows in its shape: [hidden, heads, head_width].

    Raises:
        TextrailError: the configuration has another number.
    """
    if variables.heads not in (None, config.num_attention_heads):
        raise TextrailError(f"num_attention_heads {variables.heads}, as in the kernels in {where}",
                            f"{config.num_attention_heads}", "Take configuration and weights of the same encoder.")


def has_no_capitals(pieces: Sequence[str]) -> bool:
    """Whether a vocabulary was learned from lower-cased texts.

    The releases say it nowhere but in the folder's name; what they were trained on shows in the wordpieces. Special
    tokens stand in brackets, and do not count.
    """
    return not any(re.search("[A-Z]", piece) for piece in pieces if not re.fullmatch(r"\[.*\]", piece))
