"""The translator: what its SavedModel answers in a process of its own, and that a small one learns a toy language."""

import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform import impl_helper
from tensorflow_transform.tf_metadata import metadata_io, schema_utils

from modules import translation
from modules.decoding import beam_search, greedy
from modules.subwords import SPECIALS, Subwords
from modules.training import TrainArgs
from modules.translation import TOKENS, Vocabularies, export_translator, preprocessing_fn, run_fn
from modules.translator import Translator, build_translator
from tests.components.transforming import example

MODEL = {"max_tokens": 12, "layers": 2, "decoder_layers": None, "hidden_size": 32, "num_heads": 4, "inner_size": 64,
         "dropout": 0.0, "norm": "post", "tied": "none"}
DATA = {"text": "pt", "target": "en", "slice": None}
DECODING = {"beams": 3, "length_penalty": 0.6, "n_best": 2, "max_ratio": 2.0, "max_extra": 5, "max_source_tokens": 20}
SETTINGS = {"seed": 3, "data": DATA, "model": MODEL, "decoding": DECODING}

# The toy language: words for words, and the last word comes first.
WORDS = {"um": "one", "dois": "two", "três": "three", "quatro": "four", "cinco": "five", "seis": "six", "sete": "seven",
         "oito": "eight", "nove": "nine", "dez": "ten"}
PIECES = {"source": (*SPECIALS, *WORDS, "￭.", "##s"), "target": (*SPECIALS, *WORDS.values(), "￭.", "##s")}


def translated(text: str) -> str:
    words = text.rstrip(".").split()
    return " ".join(WORDS[word] for word in words[-1:] + words[:-1]) + "." * text.endswith(".")


def texts(count: int, longest: int = 8, seed: int = 0) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(list(WORDS), random.integers(1, longest + 1))) + "." * int(random.integers(2))
            for _ in range(count)]


def make_vocabulary(folder: Path) -> str:
    for side, pieces in PIECES.items():
        (folder / side).mkdir(parents=True)
        Subwords(pieces).write(folder / side)
    return str(folder)


def make_graph(folder: Path, vocabulary: str, columns: tuple[str, ...] = ("pt", "en")) -> str:
    """A transform graph, as the Transform step writes it."""
    schema = text_format.Parse("\n".join(
        f'feature {{ name: "{name}" type: BYTES presence {{ min_fraction: 1 }} shape {{ dim {{ size: 1 }} }} }}'
        for name in columns), schema_pb2.Schema())
    metadata_io.write_metadata(tft.DatasetMetadata(schema), str(folder / tft.TFTransformOutput.RAW_METADATA_DIR))
    spec = schema_utils.schema_as_feature_spec(schema).feature_spec
    config = {"data": DATA, "vocabulary": vocabulary, "max_tokens": MODEL["max_tokens"]}
    impl_helper.analyze_in_place(functools.partial(preprocessing_fn, custom_config=config), False, spec,
                                 impl_helper.get_type_specs_from_feature_specs(spec), str(folder))
    return str(folder)


def random_translator(scale: float = 6.0, **changes) -> Translator:
    """A small model with random weights and a peaked output: what it says depends on all it sees."""
    sizes = [len(PIECES[side]) for side in ("source", "target")]
    keras.utils.set_random_seed(1)
    model = build_translator(SETTINGS | {"model": MODEL | changes}, *sizes, "float32")
    random = np.random.default_rng(1)
    kernel = model.projection.kernel
    kernel.assign(random.normal(0, scale / MODEL["hidden_size"] ** 0.5, kernel.shape))
    return model


def forward(model: Translator):
    """(source, hypotheses) → log probabilities of what comes after each, by the full forward pass."""
    logits = tf.function(lambda source, said: model(source, said)[:, -1],
                         input_signature=[tf.TensorSpec([None, None], tf.int32)] * 2)

    def run(source: list[int], said: list[list[int]]) -> np.ndarray:
        found = logits([source] * len(said), said).numpy().astype("float64")
        return found - np.log(np.exp(found).sum(axis=1, keepdims=True))

    return run


def say_plainly(forward, source: list[int], limit: int) -> tuple[list[int], float]:
    """Greedy decoding that computes everything anew for each token."""
    said, total = [TOKENS.start], 0.0
    while said[-1] != TOKENS.end:
        log_probs = forward(source, [said])[0]
        allowed = [TOKENS.end] if len(said) == limit else [i for i in range(len(log_probs)) if i not in TOKENS.never]
        said.append(max(allowed, key=lambda i: log_probs[i]))
        total += log_probs[said[-1]]
    return said[1:], total


def search_plainly(forward, source: list[int], limit: int, beams: int, alpha: float
                   ) -> list[tuple[float, list[int]]]:
    """Beam search that computes everything anew for each token, one sentence at a time."""
    live, ended = [(0.0, [TOKENS.start])], []
    for n in range(1, limit + 1):
        log_probs = forward(source, [said for _, said in live])
        words = [TOKENS.end] if n == limit else [i for i in range(log_probs.shape[1]) if i not in TOKENS.never]
        candidates = sorted(((total + log_probs[at, word], [*said, word]) for at, (total, said) in enumerate(live)
                             for word in words), reverse=True)
        ended += [(total / ((5 + n) / 6) ** alpha, said[1:]) for total, said in candidates[:beams]
                  if said[-1] == TOKENS.end]
        live = [one for one in candidates if one[1][-1] != TOKENS.end][:beams]
        if not live or len(ended) >= beams or (
                ended and max(ended)[0] >= live[0][0] / ((5 + limit) / 6) ** alpha):
            break
    return sorted(ended, reverse=True)


def sources(count: int, longest: int, seed: int = 0) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [[TOKENS.start, *random.integers(4, 16, random.integers(1, longest + 1)).tolist(), TOKENS.end]
            for _ in range(count)]


def test_ids_of_the_documented_example(tmp_path):
    for side, words in (("source", "o gato dorme"), ("target", "the cat sleeps")):
        (tmp_path / side).mkdir()
        Subwords((*SPECIALS, *words.split())).write(tmp_path / side)
    features = preprocessing_fn({"pt": tf.constant([["o gato dorme"]]), "en": tf.constant([["the cat sleeps"]])},
                                {"data": DATA, "vocabulary": str(tmp_path), "max_tokens": 12})
    assert {name: ids.to_list() for name, ids in features.items()} == {
        "source_ids": [[2, 4, 5, 6, 3]], "target_ids": [[2, 4, 5, 6, 3]]}


@pytest.mark.parametrize("norm, tied", [("post", "none"), ("pre", "target")])
def test_cached_greedy_decoding_says_what_the_whole_forward_pass_says(norm, tied):
    model, rows = random_translator(norm=norm, tied=tied), sources(200, 12)
    limits = [len(row) + 2 for row in rows]

    @tf.function
    def say(ids):
        return greedy(model.step, model.start(ids), tf.constant(limits), TOKENS)

    found = say(tf.ragged.constant(rows, dtype=tf.int32).to_tensor())
    lengths, plain = set(), forward(model)
    for row, limit, ids, score in zip(rows, limits, found.token_ids[:, 0].numpy(), found.scores[:, 0], strict=True):
        said, total = say_plainly(plain, row, limit)
        assert [token for token in ids if token] == said
        assert float(score) == pytest.approx(total, abs=1e-3)
        lengths.add(len(said))
    assert len(lengths) > 5  # sentences of many lengths, of which some end before their limit


def test_cached_beam_search_says_what_the_whole_forward_pass_says():
    model, rows = random_translator(), sources(200, 10, seed=1)
    limits = [len(row) for row in rows]

    @tf.function
    def search(ids):
        return beam_search(model.step, model.start(ids), tf.constant(limits), TOKENS, beams=4, alpha=0.6)

    found = search(tf.ragged.constant(rows, dtype=tf.int32).to_tensor())
    plain = forward(model)
    for row, limit, ids, score in zip(rows, limits, found.token_ids[:, 0].numpy(), found.scores[:, 0], strict=True):
        best = search_plainly(plain, row, limit, 4, 0.6)[0]
        assert [token for token in ids if token] == best[1]
        assert float(score) == pytest.approx(best[0], abs=1e-3)


def arguments(folder: Path, **changes) -> TrainArgs:
    settings = SETTINGS | {section: SETTINGS[section] | values for section, values in changes.items()}
    vocabulary = make_vocabulary(folder / "vocabulary")
    (folder / "run").mkdir()
    files = {split: [str(folder / f"{split}.gz")] for split in ("train", "validation")}
    return TrainArgs(files["train"], files["validation"], make_graph(folder / "graph", vocabulary), "",
                     str(folder / "model"), str(folder / "run"), str(folder / "checkpoints"), settings, vocabulary)


ASK = """
import json, sys
import tensorflow as tf, tensorflow_text
signatures, request = tf.saved_model.load(sys.argv[1]).signatures, json.load(sys.stdin)
texts, examples = tf.constant(request["texts"]), tf.constant([bytes.fromhex(one) for one in request["examples"]])
assert all(value.shape[0] == 0 for name in ("serving_default", "attention")
           for value in signatures[name](pt=texts[:0]).values())
answers = {"serving_default": signatures["serving_default"](pt=texts), "examples": signatures["examples"](examples),
           "transform_features": signatures["transform_features"](examples),
           "attention": signatures["attention"](pt=texts)}
assert not {name for name in sys.modules if name.split(".")[0] in ("modules", "components", "tfx")}
plain = lambda x: [plain(one) for one in x] if isinstance(x, list) else x.decode() if isinstance(x, bytes) else x
json.dump({name: {key: plain(value.numpy().tolist()) for key, value in answer.items()}
           for name, answer in answers.items()}, sys.stdout)
"""


def ask(folder: str, rows: list[str], elsewhere: Path) -> dict:
    """Moves a SavedModel and asks it in a fresh process that knows TensorFlow and tensorflow_text alone."""
    shutil.move(folder, elsewhere / "moved")
    request = {"texts": rows, "examples": [example(pt=row, en="one two").hex() for row in rows]}
    done = subprocess.run([sys.executable, "-I", "-c", ASK, str(elsewhere / "moved")], input=json.dumps(request),
                          cwd=elsewhere, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


BLANK = ["", "  \t\n ", "\u00a0\u3000", "\x01"]
HOSTILE = [*BLANK, "你好 мир", "um 你好.", "dez " * 60, "x" * 10_000, "um " * 3300, "[PAD] [END] um ￭ ##s", "um\0dois"]


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> tuple[TrainArgs, Translator, list[str], dict]:
    """What the SavedModel of a random translator answers in another process, of usual texts and others."""
    folder = tmp_path_factory.mktemp("served")
    args, model, rows = arguments(folder), random_translator(), [*texts(12), *HOSTILE]
    export_translator(model, Vocabularies.read(args.vocabulary), args)
    with open(f"{args.serving_dir}/assets.extra/textrail.json") as file:
        assert json.load(file) == {"shape": "translation", **DATA, "inputs": ["pt"], "decoding": DECODING,
                                   "max_tokens": 12}
    return args, model, rows, ask(args.serving_dir, rows, folder)


def test_the_moved_model_says_in_a_fresh_process_what_a_plain_search_says(answers):
    args, model, rows, answer = answers
    served, plain, vocabularies = answer["serving_default"], forward(model), Vocabularies.read(args.vocabulary)
    for text, said, scores, truncated in zip(
            rows[:12], served["translations"], served["scores"], served["truncated"], strict=False):
        ids = vocabularies.source.encode(tf.constant([text])).to_list()[0]
        expected = search_plainly(plain, ids, 2 * (len(ids) - 2) + 5, 3, 0.6)[:2]
        assert said == [vocabularies.target.decode(tf.constant([ids])).numpy()[0].decode() for _, ids in expected]
        np.testing.assert_allclose(scores, [score for score, _ in expected], atol=1e-3)
        assert not truncated
    assert served["translation"] == [said[0] for said in served["translations"]]
    assert served["score"] == [scores[0] for scores in served["scores"]]
    for key, values in answer["examples"].items():
        np.testing.assert_array_equal(values, served[key])


def test_hostile_texts_get_an_answer_each(answers):
    _, _, rows, answer = answers
    served = {text: {key: values[at] for key, values in answer["serving_default"].items()}
              for at, text in enumerate(rows)}
    assert np.isfinite(answer["serving_default"]["scores"]).all()
    for text, back in (*((blank, "") for blank in BLANK), ("你好 мир", "你好 мир"), ("x" * 10_000, "x" * 10_000)):
        # Nothing in it that the vocabulary knows: given back as it came.
        assert served[text] == {"translation": back, "score": 0, "translations": [back, ""], "scores": [0, 0],
                                "truncated": False}
    assert [text for text in rows if served[text]["truncated"]] == ["dez " * 60, "um " * 3300]
    # A limit of 2 × 18 + 5 tokens, of which the last is [END].
    assert all(0 < len(served[text]["translation"].split()) <= 40 for text in ("dez " * 60, "um " * 3300, "um 你好."))
    assert "[" not in "".join(answer["serving_default"]["translation"])  # special tokens are not said


def test_attention_is_of_each_token_that_was_said(answers):
    _, _, rows, answer = answers
    found = {key: np.array(values) for key, values in answer["attention"].items()}
    assert found["source_tokens"][rows.index("um 你好.")].tolist() == [
        "[START]", "um", "[UNK]", "[UNK]", "￭.", "[END]", *[""] * 6]
    said = found["target_tokens"][0].tolist()
    assert said[said.index("[END]") + 1:] == [""] * (len(said) - said.index("[END]") - 1)
    assert found["attention"].shape == (len(rows), 2, 4, len(said), 12)
    np.testing.assert_allclose(found["attention"].sum(axis=-1), 1, atol=1e-5)
    padded = found["source_tokens"] == ""
    assert not np.moveaxis(found["attention"], -1, 1)[padded].any()


def test_transformed_features_are_padded_and_counted(answers):
    _, _, rows, answer = answers
    features = {key: np.array(values) for key, values in answer["transform_features"].items()}
    assert features["target_ids"].tolist() == [[2, 4, 5, 3]] * len(rows)
    np.testing.assert_array_equal(np.count_nonzero(features["source_ids"], axis=1), features["source_count"])
    assert features["source_count"][rows.index("um " * 3300)] == 3302  # uncut: what training would have seen


def test_in_groups_a_request_gets_the_same_answers(monkeypatch):
    model, ids = random_translator(), tf.ragged.constant(sources(40, 12), dtype=tf.int64)
    args, seen = TrainArgs([], [], "", "", "", "", "", SETTINGS), tf.Variable([0], shape=[None])
    start = model.start

    def watched(source_ids: tf.Tensor) -> dict:
        seen.assign(tf.concat([seen, [tf.size(source_ids)]], axis=0))
        return start(source_ids)

    monkeypatch.setattr(model, "start", watched)
    monkeypatch.setattr(translation, "RawFeatures", lambda graph: tf.Module())
    whole = translation.ServedTranslator(model, None, args).search(ids)
    assert seen.numpy().tolist() == [0, 40 * 14]
    monkeypatch.setattr(translation, "GROUP_TOKENS", 300)
    grouped = translation.ServedTranslator(model, None, args).search(ids)
    np.testing.assert_array_equal(grouped.token_ids, whole.token_ids)
    np.testing.assert_allclose(grouped.scores, whole.scores, atol=1e-5)
    # A row of 14 tokens may become 3 × 29 more: 2 of these at a time, and more of shorter ones.
    groups = seen.numpy().tolist()[2:]
    assert groups[0] == 2 * 14 and len(groups) < 20


TRAINING = {"epochs": 12, "learning_rate": 1.0, "schedule": "inverse_sqrt", "warmup_steps": 200, "weight_decay": 0.0,
            "clip_norm": 1.0, "beta_1": 0.9, "beta_2": 0.98, "epsilon": 1e-9, "label_smoothing": 0.1,
            "batch_tokens": 512, "max_batch": 32, "bucket_step": 4, "shuffle_buffer": 1000, "precision": "float32",
            "xla": False, "early_stopping_metric": "loss", "patience": 99, "evaluations_per_epoch": 1,
            "checkpoint_seconds": 1e9, "keep_checkpoints": 2, "average_checkpoints": 2, "strategy": "one_device"}


def write_pairs(file: str, vocabularies: Vocabularies, rows: list[str]) -> None:
    """Transformed records of texts and their translations."""
    sides = {"source": vocabularies.source.encode(tf.constant(rows)).to_list(),
             "target": vocabularies.target.encode(tf.constant([translated(row) for row in rows])).to_list()}
    with tf.io.TFRecordWriter(file, "GZIP") as writer:
        for i in range(len(rows)):
            writer.write(tf.train.Example(features=tf.train.Features(feature={
                f"{side}_ids$ragged_values": tf.train.Feature(int64_list=tf.train.Int64List(value=ids[i]))
                for side, ids in sides.items()})).SerializeToString())


def test_a_small_run_learns_to_translate_unseen_sentences(tmp_path):
    args = arguments(tmp_path, model={"layers": 1}, decoding={"beams": 2, "n_best": 1})
    args.settings["training"] = TRAINING
    vocabularies, rows = Vocabularies.read(args.vocabulary), list(dict.fromkeys(texts(3000, 6)))
    unseen, seen = rows[:100], rows[100:]
    write_pairs(args.train_files[0], vocabularies, seen)
    write_pairs(args.validation_files[0], vocabularies, unseen)
    run_fn(args)
    with open(f"{args.run_dir}/history.json") as file:
        rounds = json.load(file)["rounds"]
    assert rounds[-1]["validation"]["loss"] < rounds[0]["validation"]["loss"] / 3
    served = ask(args.serving_dir, unseen, tmp_path)["serving_default"]["translation"]
    right = sum(said == translated(text) for said, text in zip(served, unseen, strict=True))
    print(f"{right} of {len(unseen)} unseen sentences translated without a mistake, {rounds[-1]['validation']}")
    assert right > 80
