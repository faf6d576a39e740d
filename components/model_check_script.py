"""What a user of the exported model does, in a process of its own: load it and ask it plain strings.

Run as a script by `components/model_check.py`: `python -I model_check_script.py SAVED_MODEL REQUEST.json`. It imports
TensorFlow and tensorflow_text only; the project's own packages and TFX's are refused, wherever they are installed,
since whoever serves the model has none of them. The answer is the last line of stdout, in JSON.
"""

import json
import sys
import time
import traceback

REFUSED = {"modules", "components", "pipelines", "kubeflow", "tfx", "tfx_bsl", "tensorflow_transform", "tensorflow_hub",
           "tensorflow_model_analysis", "tensorflow_data_validation", "transformers"}
# Largest difference between a row alone and the same row in a batch, and between a sum of probabilities and 1.
TOLERANCE = 1e-3

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


def main(folder, request_path):
    sys.meta_path.insert(0, Refuse)
    import numpy as np
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  registers the tokenizers' ops

    with open(request_path, encoding="utf-8") as file:
        request = json.load(file)
    with open(f"{folder}/assets.extra/textrail.json", encoding="utf-8") as file:
        manifest = json.load(file)
    texts, classes = request["texts"], manifest["classes"]
    described = [manifest[key] for key in ("text", "text_pair") if manifest.get(key)]
    require(described == texts, f"textrail.json names the texts {described}, the settings {texts}")

    model = tf.saved_model.load(folder)
    for name in ("serving_default", "examples", "transform_features"):
        require(name in model.signatures, f"there is no signature {name}, only {sorted(model.signatures)}")
    serve = model.signatures["serving_default"]
    inputs, taken = manifest.get("inputs", texts), sorted(serve.structured_input_signature[1])
    require(taken == sorted(inputs), f"serving_default takes {taken} instead of {sorted(inputs)}")

    def ask(rows):
        """rows: one list of strings for each text feature."""
        answer = {name: value.numpy() for name, value in
                  serve(**{name: tf.constant(column) for name, column in zip(inputs, rows, strict=True)}).items()}
        expected = {"label": (len(rows[0]),), "score": (len(rows[0]),), "scores": (len(rows[0]), len(classes)),
                    "classes": (len(rows[0]), len(classes))}
        require(set(answer) == set(expected), f"serving_default answers {sorted(answer)} instead of {sorted(expected)}")
        for name, shape in expected.items():
            require(answer[name].shape == shape, f"{name} has shape {answer[name].shape} instead of {shape}")
        scores = answer["scores"]
        require(np.all(np.isfinite(scores)), "scores has values that are not finite numbers")
        require(np.all(np.abs(scores.sum(axis=1) - 1) <= TOLERANCE), f"scores sum to {scores.sum(axis=1)}, not to 1")
        require(np.allclose(answer["score"], scores.max(axis=1), atol=1e-6), "score is not the largest of scores")
        for row, label in zip(scores, answer["label"], strict=True):
            require(label.decode() in classes, f"the label {label.decode()!r} is none of the classes {classes}")
            require(row[classes.index(label.decode())] == row.max(), f"{label.decode()!r} has not the largest score")
        for row in answer["classes"]:
            require([name.decode() for name in row] == classes, f"classes are {row}, in textrail.json {classes}")
        return scores

    rows = [SAMPLES + column for column in
            ([tf.train.Example.FromString(bytes.fromhex(record)).features.feature[text].bytes_list.value[0].decode()
              for record in request["examples"]] for text in texts)]
    together = ask(rows)
    start = time.perf_counter()
    for index in range(len(rows[0])):
        alone = ask([[column[index]] for column in rows])
        require(np.allclose(alone[0], together[index], atol=TOLERANCE),
                f"{rows[0][index][:60]!r} scores {alone[0]} alone and {together[index]} in a batch")
    seconds = (time.perf_counter() - start) / len(rows[0])
    if request["examples"]:
        records = tf.constant([bytes.fromhex(record) for record in request["examples"]])
        parsed = model.signatures["examples"](examples=records)["scores"].numpy()
        require(np.allclose(parsed, together[len(SAMPLES):], atol=TOLERANCE),
                "the signature examples gives other scores than serving_default for the same rows")
    return {"seconds_per_row": seconds, "rows": len(rows[0])}


if __name__ == "__main__":
    try:
        result = main(*sys.argv[1:])
    except Failure as failure:
        result = {"failure": str(failure)}
    except Exception as error:
        traceback.print_exc()
        result = {"failure": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
    print("\n" + json.dumps(result))
