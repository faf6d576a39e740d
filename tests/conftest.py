"""What several tests share: a tiny encoder in the real layout and the larger texts beside the project."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks import SHARED

TESTS = Path(__file__).parent

WORDS = """the a an and of to in is was it this that i you he she we they not no very good bad great awful film movie
book story food place service staff room phone love loved hate hated like liked enjoy enjoyed bored boring fun funny
dull bright slow fast long short best worst nice poor rich warm cold hot again never always will would watch read eat
went go come came back with without for from by on at as but so too more less than then when how what who which all
some any one two three well badly really quite only just even still yet my your his her our their ##s ##ed ##ing ##ly
##er ##est un ##able . , ! ? ' - : ; " ( )""".split()

LETTERS = list("abcdefghijklmnopqrstuvwxyz0123456789")

FOLDERS = ("cluster", "kubeflow", "pipelines", "components", "modules")   # The slowest files first.
takes_minutes = pytest.mark.skipif("TEXTRAIL_WHOLE" not in os.environ,
                                   reason="whole runs that take minutes; TEXTRAIL_WHOLE=1 has them, too")
WORKER_GB = 6   # Of memory: what the tests of one process take, with the programs that they start.


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Processes of `-n auto`: two where there are cores and memory for them, else 0, which is this one."""
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return 2 if (os.cpu_count() or 1) > 1 and memory_gb >= 2 * WORKER_GB else 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts slow files first: they go to processes in this order, and the last ones should end together."""
    places = {name: place for place, name in enumerate(FOLDERS)}
    items.sort(key=lambda item: places.get(item.path.relative_to(TESTS).parts[0], len(places)))


@pytest.fixture(scope="session", autouse=True)
def beam_in_this_process() -> None:
    """Components that a test runs without the local runner use what it would."""
    from components.beam_runner import run_beam_in_this_process

    run_beam_in_this_process()


@pytest.fixture(scope="session", autouse=True)
def tensorflow_without_warnings() -> None:
    """It warns of functions traced often, which come of many tests in one process and of no user's command."""
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory) -> Path:
    """A BERT of 2 layers, 32 wide, with seeded random weights in HuggingFace's layout."""
    import numpy as np
    from safetensors.numpy import save_file

    folder = tmp_path_factory.mktemp("encoder") / "tiny"
    folder.mkdir()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = list(dict.fromkeys(specials + WORDS + LETTERS + ["##" + c for c in LETTERS]))
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    hidden, layers, inner, positions = 32, 2, 64, 64
    config = {
        "architectures": ["BertModel"], "model_type": "bert", "vocab_size": len(vocabulary), "hidden_size": hidden,
        "num_hidden_layers": layers, "num_attention_heads": 4, "intermediate_size": inner, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "max_position_embeddings": positions,
        "type_vocab_size": 2, "initializer_range": 0.02, "layer_norm_eps": 1e-12, "pad_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    tokenizer = {"do_lower_case": True, "tokenizer_class": "BertTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    random = np.random.default_rng(7)

    def tensor(*shape: int) -> np.ndarray:
        return random.normal(0, 0.05, shape).astype("float32")

    def norm(name: str) -> dict[str, np.ndarray]:
        return {f"{name}.weight": 1 + tensor(hidden), f"{name}.bias": tensor(hidden)}

    def linear(name: str, rows: int, columns: int) -> dict[str, np.ndarray]:
        return {f"{name}.weight": tensor(rows, columns), f"{name}.bias": tensor(rows)}

    weights = {
        "embeddings.word_embeddings.weight": tensor(len(vocabulary), hidden),
        "embeddings.position_embeddings.weight": tensor(positions, hidden),
        "embeddings.token_type_embeddings.weight": tensor(2, hidden),
        **norm("embeddings.LayerNorm"), **linear("pooler.dense", hidden, hidden),
    }
    for i in range(layers):
        layer = f"encoder.layer.{i}"
        for part in ("query", "key", "value"):
            weights |= linear(f"{layer}.attention.self.{part}", hidden, hidden)
        weights |= linear(f"{layer}.attention.output.dense", hidden, hidden)
        weights |= norm(f"{layer}.attention.output.LayerNorm")
        weights |= linear(f"{layer}.intermediate.dense", inner, hidden)
        weights |= linear(f"{layer}.output.dense", hidden, inner)
        weights |= norm(f"{layer}.output.LayerNorm")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def tiny_pretrainer(tiny_encoder, tmp_path_factory) -> tuple[Any, Path]:
    """The tiny encoder with heads of random weights large enough to tell words apart, and the folder of its export.

    Texts have at most 16 tokens, masks 3 words, and judging 3 passes.
    """
    import numpy as np

    from modules.mask_filling import export_pretrainer
    from modules.pretrainer import build_pretrainer
    from modules.tokenization import Vocabulary

    model, _ = build_pretrainer({"seed": 1, "model": {"dropout": 0.1}}, Vocabulary.read(tiny_encoder), "float32",
                                str(tiny_encoder))
    random = np.random.default_rng(5)
    for layer in (model.transform, model.next_head):
        layer.kernel.assign(random.normal(size=layer.kernel.shape))
    model.norm.gamma.assign(20 + random.normal(size=model.norm.gamma.shape))
    model.projection.bias.assign(random.normal(size=model.projection.bias.shape))
    folder = tmp_path_factory.mktemp("pretrainer") / "1"
    export_pretrainer(model, str(folder), max_length=16, top=3, passes=3)
    return model, folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real texts and golden numbers, or a skip that says what is missing."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"no real texts and golden numbers in {SHARED}, the folder that TEXTRAIL_SHARED names")
    return SHARED
