"""What a user of the exported model does, in a process of its own: load it and ask it plain strings.

Run as a script by `components/model_check.py`: `python -I model_check_script.py SAVED_MODEL REQUEST.json`. It imports
TensorFlow and tensorflow_text only; the project's own packages and TFX's are refused, wherever they are installed,
since whoever serves the model has none of them. The answer is the last line of stdout, in JSON.
"""

import json
import statistics
import sys
import time
import traceback

import numpy as np

REFUSED = {"modules", "components", "pipelines", "kubeflow", "tfx", "tfx_bsl", "tensorflow_transform", "tensorflow_hub",
           "tensorflow_model_analysis", "tensorflow_data_validation", "transformers"}
# Largest difference between a row alone and the same row in a batch, and between a sum of probabilities and 1.
TOLERANCE = 1e-3
# Of two translations that are as good but for rounding, either may come first: it may in one of so many rows.
ROWS_A_TIE = 10

SAMPLES = ["A plain sentence.", "", " \t\n", "word " * 5000,
           "日本語の短い文です。", "Это хороший фильм.", "فيلم رائع جدا",
           "naïve café ½ ™ 🎬", "[CLS] [SEP] [PAD]", "<br />quotes \" and ' and, commas"]


class Refuse:
    """An import hook: a package that whoever serves the model does not have cannot be imported here either."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in REFUSED:
            raise ImportError(f"{name} is not there where the model is served")


class Failure(Exception):
    """What the model does wrong, as one clause."""


def require(holds, reason):
    if not holds:
        raise Failure(reason)


class Shape:
    """What a kind of model promises.

    Attributes:
        texts: names of the text features it reads.
        signatures: names of those it has.
    """

    texts: list[str]
    signatures: tuple[str, ...] = ("serving_default", "examples", "transform_features")

    def shapes(self, rows):
        """Output of `serving_default` → its shape for so many rows."""
        raise NotImplementedError

    def look(self, rows, answer):
        """Requires of an answer what makes sense of it; rows: one list of strings for each text feature."""

    def compare(self, texts, one, other, ways):
        """Requires two answers to the same texts to be the same; `ways` says how each came about."""

    def look_further(self, signatures, texts):
        """Asks signatures that other kinds of model do not have."""


class Classification(Shape):
    """A model that answers with the best class and the scores of all."""

    def __init__(self, manifest):
        self.texts = [manifest[key] for key in ("text", "text_pair") if manifest.get(key)]
        self.classes = manifest["classes"]

    def shapes(self, rows):
        return {"label": (rows,), "score": (rows,), "scores": (rows, len(self.classes)),
                "classes": (rows, len(self.classes))}

    def look(self, rows, answer):
        scores, classes = answer["scores"], self.classes
        require(np.all(np.isfinite(scores)), "scores has values that are not finite numbers")
        require(np.all(np.abs(scores.sum(axis=1) - 1) <= TOLERANCE), f"scores sum to {scores.sum(axis=1)}, not to 1")
        require(np.allclose(answer["score"], scores.max(axis=1), atol=1e-6), "score is not the largest of scores")
        for row, label in zip(scores, answer["label"], strict=True):
            require(label.decode() in classes, f"the label {label.decode()!r} is none of the classes {classes}")
            require(row[classes.index(label.decode())] == row.max(), f"{label.decode()!r} has not the largest score")
        for row in answer["classes"]:
            require([name.decode() for name in row] == classes, f"classes are {row}, in textrail.json {classes}")

    def compare(self, texts, one, other, ways):
        for text, scores, others in zip(texts, one["scores"], other["scores"], strict=True):
            require(np.allclose(scores, others, atol=TOLERANCE),
                    f"{text[:60]!r} scores {scores} {ways[0]} and {others} {ways[1]}")


class Translation(Shape):
    """A model that answers with sentences, the best first, and shows where its decoder looked."""

    signatures = (*Shape.signatures, "attention")

    def __init__(self, manifest):
        self.texts, self.input = [manifest["text"]], manifest["inputs"][0]
        self.n_best, self.longest = manifest["decoding"]["n_best"], manifest["decoding"]["max_source_tokens"]

    def shapes(self, rows):
        return {"translation": (rows,), "score": (rows,), "translations": (rows, self.n_best),
                "scores": (rows, self.n_best), "truncated": (rows,)}

    def look(self, rows, answer):
        scores = answer["scores"]
        require(np.all(np.isfinite(scores)), "scores has values that are not finite numbers")
        require(np.all(scores[:, :-1] >= scores[:, 1:]), f"scores {scores.tolist()} do not descend")
        require(np.array_equal(answer["score"], scores[:, 0]), "score is not the first of scores")
        require(np.array_equal(answer["translation"], answer["translations"][:, 0]),
                "translation is not the first of translations")
        for text, translation, truncated in zip(rows[0], answer["translation"], answer["truncated"], strict=True):
            said, words = translation.decode(), len(text.split())
            require(text.strip() or not said, f"{text!r}, which says nothing, is translated as {said!r}")
            # A word is a token at least, and a character hardly four.
            require(not truncated if 4 * len(text) < self.longest else truncated or words <= self.longest,
                    f"truncated is {bool(truncated)} for {words} words, where {self.longest} tokens are read")

    def compare(self, texts, one, other, ways):
        ties = []
        for text, said, score, other_said, other_score in zip(
                texts, one["translation"], one["score"], other["translation"], other["score"], strict=True):
            told = (f"{text[:60]!r} is translated as {said.decode()!r} ({score:.4f}) {ways[0]} and as "
                    f"{other_said.decode()!r} ({other_score:.4f}) {ways[1]}")
            if said == other_said:
                require(np.isclose(score, other_score, atol=TOLERANCE, rtol=TOLERANCE), told)
            else:
                ties.append(told)
        require(len(ties) * ROWS_A_TIE <= max(len(texts), ROWS_A_TIE), ties[0] if ties else "")

    def look_further(self, signatures, texts):
        for text in filter(str.strip, texts):
            answer = {name: value.numpy() for name, value in signatures["attention"](
                **{self.input: [text]}).items()}
            expected = ["attention", "source_tokens", "target_tokens"]
            require(sorted(answer) == expected, f"attention answers {sorted(answer)} instead of {expected}")
            weights, sides = answer["attention"], (answer["target_tokens"].shape[1], answer["source_tokens"].shape[1])
            require(weights.ndim == 5 and weights.shape[0] == 1 and weights.shape[3:] == sides,
                    f"attention has shape {weights.shape} for {sides[1]} source and {sides[0]} target tokens")
            require(np.all(np.abs(weights.sum(axis=-1) - 1) <= TOLERANCE),
                    f"attention over the source of {text[:60]!r} does not sum to 1")


SHAPES: dict[str, type] = {"classification": Classification, "translation": Translation}


def main(folder, request_path):
    sys.meta_path.insert(0, Refuse)
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  registers the tokenizers' ops

    with open(request_path, encoding="utf-8") as file:
        request = json.load(file)
    with open(f"{folder}/assets.extra/textrail.json", encoding="utf-8") as file:
        manifest = json.load(file)
    require(manifest.get("shape") in SHAPES, f"textrail.json names the shape {manifest.get('shape')!r}")
    shape, texts = SHAPES[manifest["shape"]](manifest), request["texts"]
    require(shape.texts == texts, f"textrail.json names the texts {shape.texts}, the settings {texts}")

    model = tf.saved_model.load(folder)
    for name in shape.signatures:
        require(name in model.signatures, f"there is no signature {name}, only {sorted(model.signatures)}")
    serve = model.signatures["serving_default"]
    inputs, taken = manifest.get("inputs", texts), sorted(serve.structured_input_signature[1])
    require(taken == sorted(inputs), f"serving_default takes {taken} instead of {sorted(inputs)}")

    def ask(rows):
        """rows: one list of strings for each text feature."""
        answer = {name: value.numpy() for name, value in
                  serve(**{name: tf.constant(column) for name, column in zip(inputs, rows, strict=True)}).items()}
        expected = shape.shapes(len(rows[0]))
        require(set(answer) == set(expected), f"serving_default answers {sorted(answer)} instead of {sorted(expected)}")
        for name, size in expected.items():
            require(answer[name].shape == size, f"{name} has shape {answer[name].shape} instead of {size}")
        shape.look(rows, answer)
        return answer

    rows = [SAMPLES + column for column in
            ([tf.train.Example.FromString(bytes.fromhex(record)).features.feature[text].bytes_list.value[0].decode()
              for record in request["examples"]] for text in texts)]
    together, answers, seconds = ask(rows), [], []
    for index in range(len(rows[0])):
        start = time.perf_counter()
        answers.append(ask([[column[index]] for column in rows]))
        seconds.append(time.perf_counter() - start)
    alone = {name: np.concatenate([answer[name] for answer in answers]) for name in together}
    shape.compare(rows[0], alone, together, ("alone", "in a batch"))
    if request["examples"]:
        records = tf.constant([bytes.fromhex(record) for record in request["examples"]])
        parsed = {name: value.numpy() for name, value in model.signatures["examples"](examples=records).items()}
        asked = {name: value[len(SAMPLES):] for name, value in together.items()}
        shape.compare(rows[0][len(SAMPLES):], parsed, asked, ("by the signature examples", "by serving_default"))
    shape.look_further(model.signatures, rows[0])
    return {"seconds_per_row": statistics.median(seconds), "rows": len(rows[0])}


if __name__ == "__main__":
    try:
        result = main(*sys.argv[1:])
    except Failure as failure:
        result = {"failure": str(failure)}
    except Exception as error:
        traceback.print_exc()
        result = {"failure": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
    print("\n" + json.dumps(result))
