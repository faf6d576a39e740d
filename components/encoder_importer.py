"""EncoderImporter: a pretrained BERT, checked and copied to an artifact in HuggingFace's layout."""

import hashlib
import json
import os
from pathlib import Path

from tfx.dsl.component.experimental.annotations import OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component

from components import files
from components.artifacts import Encoder
from modules.errors import TextrailError

MINILM = "minilm"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
WEIGHTS = "model.safetensors"
NEEDED = ("config.json", "vocab.txt", WEIGHTS)


@component
def EncoderImporter(encoder: OutputArtifact[Encoder], source: Parameter[str], sha256: Parameter[str] = "",
                    lower_case: Parameter[str] = "", fingerprint: Parameter[str] = ""):
    """Copies an encoder into the pipeline.

    Args:
        encoder: what is written.
        source: "minilm" or a local folder in HuggingFace's BERT layout.
        sha256: expected of `model.safetensors`; "" checks that of minilm only.
        lower_case: "true" or "false"; "" follows the encoder's own `tokenizer_config.json`.
        fingerprint: of the source, for the cache: `encoder_fingerprint(source)`.

    Raises:
        TextrailError: see `import_encoder`.
    """
    import_encoder(source, encoder.uri, sha256, json.loads(lower_case) if lower_case else None)


def import_encoder(source: str, target: str, sha256: str = "", lower_case: bool | None = None) -> None:
    """Checks an encoder and writes it to a folder.

    Args:
        source: "minilm" or a local folder.
        target: folder or URI to write `config.json`, `vocab.txt`, `tokenizer_config.json` (`do_lower_case`) and
            `model.safetensors` to.
        sha256: expected of `model.safetensors`.
        lower_case: overrides the encoder's own flag.

    Raises:
        TextrailError: a file is missing, the weights have another hash, or they, the configuration and the vocabulary
            are not those of one BERT.
    """
    import tensorflow as tf

    from modules.tokenization import Vocabulary, split_vocabulary
    from modules.weights import load_encoder

    folder = source_folder(source)
    _check_files(folder)
    _check_hash(folder / WEIGHTS, sha256 or (MINILM_SHA256 if source == MINILM else ""))
    load_encoder(folder)  # Refuses here, and not after Transform, what training could not read.
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if lower_case is None:
        lower_case = _own_lower_case(folder / "tokenizer_config.json")
    vocabulary = Vocabulary(tuple(split_vocabulary((folder / "vocab.txt").read_bytes().decode("utf-8"))), lower_case)
    tf.io.gfile.makedirs(target)
    contents = {
        "config.json": json.dumps(config, indent=1, sort_keys=True),
        "vocab.txt": "".join(f"{piece}\n" for piece in vocabulary.pieces),
        "tokenizer_config.json": json.dumps({"do_lower_case": lower_case, "tokenizer_class": "BertTokenizer"},
                                            indent=1),
    }
    for name, content in contents.items():
        with tf.io.gfile.GFile(f"{target}/{name}", "wb") as file:
            file.write(content.encode("utf-8"))
    tf.io.gfile.copy(str(folder / WEIGHTS), f"{target}/{WEIGHTS}", overwrite=True)


def encoder_fingerprint(source: str) -> str:
    """Changes when the source does.

    Small files count by their content. The weights are too large to read for every run: they count by size and time,
    those of minilm by the one sha256 that is accepted, so that installing it again changes nothing.

    Raises:
        TextrailError: the source is no folder.
    """
    folder = source_folder(source)
    facts = []
    for name in (*NEEDED, "tokenizer_config.json"):
        for file in files.find(str(folder / name)):
            weights = MINILM_SHA256 if source == MINILM else f"{file.size} {file.modified}"
            facts.append((name, weights if name == WEIGHTS else files.content_hash(file)))
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def source_folder(source: str) -> Path:
    """The folder that `encoder.source` names.

    Raises:
        TextrailError: there is none.
    """
    if source == MINILM:
        from modules.weights import packaged_minilm

        return packaged_minilm()
    folder = Path(source)
    if not folder.is_dir():
        raise TextrailError(f"encoder.source to be {MINILM!r} or a folder in HuggingFace's BERT layout", repr(source),
                            "Give the path of a folder with " + ", ".join(NEEDED) + ".")
    return folder


def _check_files(folder: Path) -> None:
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if not missing:
        return
    found = ", ".join(sorted(os.listdir(folder))) or "nothing"
    pickled = missing == [WEIGHTS] and (folder / "pytorch_model.bin").is_file()
    fix = ("Loading pytorch_model.bin would run code that is inside it; save the model as safetensors with "
           "save_pretrained(folder, safe_serialization=True)." if pickled else
           "Export the encoder with save_pretrained of transformers, model and tokenizer into one folder.")
    raise TextrailError(f"{', '.join(NEEDED)} in {folder}", f"{found}, without {', '.join(missing)}", fix)


def _check_hash(weights: Path, expected: str) -> None:
    from modules.weights import sha256

    if expected and (found := sha256(weights)) != expected.lower():
        raise TextrailError(f"{weights} with sha256 {expected}", found,
                            "The file is damaged or another one; fetch it again, or correct encoder.sha256.")


def _own_lower_case(path: Path) -> bool:
    if not path.is_file():
        return True  # HuggingFace's default for BERT.
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("do_lower_case", True)
    except ValueError as error:
        raise TextrailError(f"JSON in {path}", f"something else ({error})", "Export the encoder again.") from error
