"""Translation end to end by the command, on a toy language whose adjectives follow their nouns."""

import json
import random
from pathlib import Path

import pytest
import sacrebleu

from tests.kubeflow.project import OnKubeflow
from tests.pipelines.project import TRANSLATION, Project, states

NOUNS = dict(gato="cat", cão="dog", livro="book", carro="car", barco="boat", peixe="fish")
ADJECTIVES = dict(preto="black", novo="new", velho="old", lindo="nice", rápido="fast")
VERBS = dict(vê="sees", quer="wants", tem="has", come="eats")


def noun_phrase(draw: random.Random) -> tuple[str, str, bool]:
    noun, adjective = draw.choice(list(NOUNS)), draw.choice([*ADJECTIVES, "", ""])
    return (f"o {noun} {adjective}".strip(), " ".join(f"the {ADJECTIVES.get(adjective, '')} {NOUNS[noun]}".split()),
            bool(adjective))


def write_pairs(path: Path, rows: int, seed: int) -> None:
    """Sentences as "O gato preto vê o livro." with a translation and whether there is an adjective."""
    draw = random.Random(seed)
    lines = []
    for _ in range(rows):
        (subject, theirs, one), (thing, its, other) = noun_phrase(draw), noun_phrase(draw)
        verb = draw.choice(list(VERBS))
        lines.append(f"{subject.capitalize()} {verb} {thing}.\t{theirs.capitalize()} {VERBS[verb]} {its}.\t"
                     + ("adjective" if one or other else "plain"))
    path.write_text("\n".join(lines) + "\n", "utf-8")


def toy(folder: Path) -> Project:
    """A run that translates the language, in an empty folder."""
    for seed, (split, rows) in enumerate({"train": 900, "validation": 60, "test": 120}.items()):
        write_pairs(folder / f"{split}.tsv", rows, seed)
    return Project(folder, "toy", {
        "shape": "translation",
        "data": {"source": "csv", "columns": ["pt", "en", "kind"], "text": "pt", "target": "en", "slice": "kind",
                 "path": {split: f"{split}.tsv" for split in ("train", "validation", "test")}},
        "vocabulary": {"size": 120},
        "model": {"max_tokens": 20, "layers": 1, "hidden_size": 32, "num_heads": 4, "inner_size": 64, "dropout": 0.0,
                  "norm": "pre"},
        "training": {"epochs": 10, "schedule": "linear", "learning_rate": 5e-3, "warmup_steps": 50,
                     "batch_tokens": 768, "max_batch": 32, "bucket_step": 4, "precision": "float32",
                     "label_smoothing": 0.0},
        "decoding": {"beams": 2, "n_best": 2},
        "evaluation": {"thresholds": {"bleu": {"min": 80, "max_drop": 1}, "bleu/adjective": {"min": 70}},
                       "length_bands": [7]}})


@pytest.fixture(scope="module")
def pushed(tmp_path_factory) -> Project:
    project = toy(tmp_path_factory.mktemp("toy"))
    done = project.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert states(done) == dict.fromkeys(TRANSLATION, "done")
    assert 'next: textrail predict toy.yaml "…"' in done.stdout
    return project


def test_it_learns_to_translate(pushed):
    lines = [line.split("\t") for line in (pushed.folder / "test.tsv").read_text("utf-8").splitlines()]
    expected = [line[1] for line in lines]
    # What a model scores that knows English and no Portuguese, and says the same of everything.
    assert sacrebleu.corpus_bleu([expected[0]] * len(expected), [expected]).score < 40
    verdict = pushed.verdict()
    assert verdict["split"] == "test" and verdict["examples"] == 120 and verdict["metrics"]["bleu"] >= 80
    slices = {item["slice"]: item["examples"] for item in verdict["slices"]}
    assert slices["kind=adjective"] + slices["kind=plain"] == 120
    assert slices["kind=plain"] == sum(line[2] == "plain" for line in lines)


def test_the_pushed_model_answers(pushed):
    done = pushed.call("predict", "toy", "O gato preto vê o livro.", "O cão come o peixe novo.", "--json")
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["translation"] for answer in answers] == ["The black cat sees the book.",
                                                            "The dog eats the new fish."]


def test_on_kubeflow_it_is_the_same_model(pushed, tmp_path):
    kubeflow = OnKubeflow(pushed, tmp_path)
    kubeflow.run()
    kubeflow.assert_local_model(pt=[f"O {noun} {adjective} {verb} o {noun}." for noun in NOUNS
                                    for adjective in ADJECTIVES for verb in VERBS][::7])


def test_nothing_runs_twice_and_a_gate_keeps_a_model_from_being_pushed(pushed):
    again = pushed.run()
    assert again.returncode == 0 and set(states(again).values()) == {"cached"}, again.stdout + again.stderr
    before = pushed.pushed()
    stopped = pushed.run("--set", "evaluation.thresholds.bleu.min=101")
    assert stopped.returncode == 1 and pushed.pushed() == before
    assert "below the bound 101" in stopped.stderr
    assert states(stopped)["Trainer"] == "cached" and states(stopped)["Pusher"] == "failed"
