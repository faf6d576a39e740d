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


MASK = "[MASK]"


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
        samples: what it is asked beside real rows.
        examples_are_rows: whether its signature `examples` takes rows as they were read.
    """

    texts: list[str]
    signatures: tuple[str, ...] = ("serving_default", "examples", "transform_features")
    samples: list[str] = SAMPLES
    examples_are_rows = True

    def __init__(self, manifest, folder):
        """Takes what the SavedModel in a folder says of itself."""
        raise NotImplementedError

    def asked(self, text):
        """What is asked of the text of a real row."""
        return text

    def shapes(self, rows):
        """Output of `serving_default` → its shape for so many rows; None is any size."""
        raise NotImplementedError

    def look(self, rows, answer):
        """Requires of an answer what makes sense of it; rows: one list of strings for each text feature."""

    def compare(self, texts, one, other, ways):
        """Requires two answers to the same texts to be the same; `ways` says how each came about."""

    def look_further(self, signatures, texts):
        """Asks signatures that other kinds of model do not have."""


class Classification(Shape):
    """A model that answers with the best class and the scores of all."""

    def __init__(self, manifest, folder):
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

    def __init__(self, manifest, folder):
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


class Pretraining(Shape):
    """A model that answers with the likeliest words for every [MASK] of a text."""

    samples = [*SAMPLES, "The film was [MASK] and [MASK].", "[MASK]", "[MASK][MASK] [mask] [ MASK ]",
               "word " * 5000 + "[MASK]", "[CLS] [MASK] [SEP] [PAD] [UNK]", "文[MASK]文", "[MASK] " * 5000]
    examples_are_rows = False   # they are token ids

    def __init__(self, manifest, folder):
        self.texts, self.top, self.longest = [manifest["text"]], manifest["top"], manifest["max_length"]
        with open(f"{folder}/assets.extra/encoder/vocab.txt", encoding="utf-8", newline="\n") as file:
            self.ids = {piece: i for i, piece in enumerate(file.read().removesuffix("\n").split("\n"))}

    def asked(self, text):
        """A real text, one of its first words masked."""
        words = text.split()
        return " ".join([*words[:2], MASK, *words[3:]])

    def shapes(self, rows):
        return {"words": (rows, None, self.top), "probabilities": (rows, None, self.top), "counts": (rows,),
                "truncated": (rows,)}

    def look(self, rows, answer):
        words, probabilities = answer["words"], answer["probabilities"]
        require(words.shape == probabilities.shape, f"words has shape {words.shape}, probabilities "
                f"{probabilities.shape}")
        require(words.shape[1] == max(answer["counts"]), f"words has room for {words.shape[1]} masks, where the most "
                f"of a text are {max(answer['counts'])}")
        require(np.all(np.isfinite(probabilities)), "probabilities has values that are not finite numbers")
        require(np.all(probabilities[..., :-1] >= probabilities[..., 1:]), "probabilities do not descend")
        require(np.all(probabilities.sum(axis=-1) <= 1 + TOLERANCE), "probabilities of a mask sum to more than 1")
        for text, said, numbers, count, truncated in zip(
                rows[0], words, probabilities, answer["counts"], answer["truncated"], strict=True):
            masks = text.count(MASK)
            # A mask is a token, and so is nearly every word at least.
            require(count == masks if not truncated else count <= min(masks, self.longest - 2),
                    f"{text[:60]!r} has {masks} masks, of which {count} were seen")
            require(truncated or len(text.split()) < 2 * self.longest,
                    f"truncated is {bool(truncated)} for {len(text.split())} words, where {self.longest} tokens are "
                    "read")
            require(all(word.decode() in self.ids for word in said[:count].flat),
                    f"words for {text[:60]!r} are not all of the vocabulary: {said[:count].tolist()}")
            require(not np.any(numbers[count:]) and not any(said[count:].flat),
                    f"{text[:60]!r} has words behind the last of its {count} masks")

    def compare(self, texts, one, other, ways):
        for text, count, others, probabilities, other_probabilities in zip(
                texts, one["counts"], other["counts"], one["probabilities"], other["probabilities"], strict=True):
            require(count == others and np.allclose(probabilities[:count], other_probabilities[:count], atol=TOLERANCE),
                    f"for {text[:60]!r} the probabilities are {probabilities[:count].tolist()} {ways[0]} and "
                    f"{other_probabilities[:count].tolist()} {ways[1]}")

    def look_further(self, signatures, texts):
        """Judging foretells a word alone as likely as `serving_default` does, and counts what it masks."""
        import tensorflow as tf

        answer = signatures["serving_default"](text=tf.constant([MASK]))
        word, probability = (answer[name].numpy()[0, 0, 0] for name in ("words", "probabilities"))
        word = word.decode()
        alone = [self.ids["[CLS]"], self.ids[word], self.ids["[SEP]"]]
        rows = [alone, [*alone[:-1], self.ids["[UNK]"], *alone[1:], *alone[1:]]]
        examples = tf.constant([tf.train.Example(features=tf.train.Features(feature={
            "token_ids$ragged_values": tf.train.Feature(int64_list=tf.train.Int64List(value=row)),
            "next_sentence_label": tf.train.Feature(int64_list=tf.train.Int64List(value=[0])),
        })).SerializeToString() for row in rows])
        judged = {name: value.numpy() for name, value in signatures["examples"](examples=examples).items()}
        counts = judged["masked_count"].tolist()
        require(counts == [1, 3], f"judging masks {counts} words of rows with 1 and 3")
        require(np.isclose(judged["masked_loss"][0], -np.log(probability), atol=TOLERANCE, rtol=TOLERANCE),
                f"judging foretells {word!r} with a loss of {judged['masked_loss'][0]:.4f}, serving_default with a "
                f"probability of {probability:.4f}")
        require(np.all(np.isfinite(judged["masked_loss"])) and np.all(judged["masked_correct"] <= counts),
                f"judging answers {({name: value.tolist() for name, value in judged.items()})}")
        lengths = signatures["transform_features"](examples=examples)["token_count"].numpy().tolist()
        require(lengths == [len(row) for row in rows], f"token_count is {lengths} for rows of {list(map(len, rows))}")


SHAPES: dict[str, type] = {"classification": Classification, "translation": Translation, "pretraining": Pretraining}


def widened(values, like):
    """An answer of one row, filled up to the sizes of a batch's: a row with fewer masks is narrower."""
    missing = [(0, 0), *((0, max(wide - own, 0)) for own, wide in zip(values.shape[1:], like.shape[1:], strict=True))]
    return np.pad(values, missing, constant_values=b"" if values.dtype == object else 0)


def asked_by_graph(folder, columns):
    """Answers of `serving_default` as TensorFlow Serving has them: its loader knows the graph and no Python objects.

    Args:
        folder: of the SavedModel.
        columns: input → strings.
    """
    import tensorflow as tf

    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        try:
            loaded = tf.compat.v1.saved_model.loader.load(session, ["serve"], folder)
            signature = loaded.signature_def["serving_default"]
            return session.run({name: tensor.name for name, tensor in signature.outputs.items()},
                               {signature.inputs[name].name: column for name, column in columns.items()})
        except tf.errors.OpError as error:
            said = error.message.removeprefix("Graph execution error:").strip().partition("\n")[0]
            raise Failure(f"TensorFlow Serving cannot ask it: {said}") from error


def main(folder, request_path):
    sys.meta_path.insert(0, Refuse)
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  registers the tokenizers' ops

    with open(request_path, encoding="utf-8") as file:
        request = json.load(file)
    with open(f"{folder}/assets.extra/textrail.json", encoding="utf-8") as file:
        manifest = json.load(file)
    require(manifest.get("shape") in SHAPES, f"textrail.json names the shape {manifest.get('shape')!r}")
    shape, texts = SHAPES[manifest["shape"]](manifest, folder), request["texts"]
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
            found = answer[name].shape
            require(len(found) == len(size) and all(want in (None, has) for has, want in zip(found, size, strict=True)),
                    f"{name} has shape {found} instead of {size}")
        shape.look(rows, answer)
        return answer

    rows = [shape.samples + [shape.asked(value) for value in column] for column in
            ([tf.train.Example.FromString(bytes.fromhex(record)).features.feature[text].bytes_list.value[0].decode()
              for record in request["examples"]] for text in texts)]
    together, answers, seconds = ask(rows), [], []
    for index in range(len(rows[0])):
        start = time.perf_counter()
        answers.append(ask([[column[index]] for column in rows]))
        seconds.append(time.perf_counter() - start)
    by_graph = asked_by_graph(folder, dict(zip(inputs, rows, strict=True)))
    shape.compare(rows[0], by_graph, together, ("in TensorFlow Serving", "in Python"))
    alone = {name: np.concatenate([widened(answer[name], together[name]) for answer in answers]) for name in together}
    shape.compare(rows[0], alone, together, ("alone", "in a batch"))
    if request["examples"] and shape.examples_are_rows:
        records = tf.constant([bytes.fromhex(record) for record in request["examples"]])
        parsed = {name: value.numpy() for name, value in model.signatures["examples"](examples=records).items()}
        asked = {name: value[len(shape.samples):] for name, value in together.items()}
        shape.compare(rows[0][len(shape.samples):], parsed, asked, ("by the signature examples", "by serving_default"))
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
