"""Settings: every mistake is told with its full key, what was expected, what came, and the nearest."""

import subprocess
import sys
from pathlib import Path

import pytest

from modules.errors import TextrailError
from pipelines import settings, settings_page

GOOD = """\
data: {source: csv, path: rows.csv, text: review}
evaluation: {thresholds: {accuracy: {min: 0.9}}}
"""


@pytest.fixture
def run_file(tmp_path) -> Path:
    (tmp_path / "rows.csv").write_text("review,label\nfine,pos\n")
    file = tmp_path / "mine.yaml"
    file.write_text(GOOD)
    return file


def problems(file: Path, text: str, *overrides: str) -> list[str]:
    file.write_text(text)
    with pytest.raises(settings.SettingsError) as caught:
        settings.load(str(file), overrides)
    return caught.value.problems


def test_a_file_gives_absolute_paths_and_defaults(run_file):
    loaded = settings.load(str(run_file))
    assert loaded.data.path == str(run_file.parent / "rows.csv")
    assert (loaded.data.text, loaded.data.label, loaded.encoder.source) == ("review", "label", "minilm")


def test_overrides_are_yaml_and_make_the_mappings_on_their_way(run_file, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    (here / "a.csv").touch()
    monkeypatch.chdir(here)
    loaded = settings.load(str(run_file), [
        "training.learning_rate=1e-4", "evaluation.length_bands=[8, 16]", "data.text_pair=null", "data.label=no",
        "data.path={train: a.csv, validation: gs://bucket/b.csv}", "push.destination=out",
        "evaluation.thresholds.recall/neg.min=0.5"])
    assert loaded.training.learning_rate == 1e-4
    assert loaded.evaluation.length_bands == [8, 16]
    assert loaded.data.label == "no"
    assert loaded.data.path == {"train": str(here / "a.csv"), "validation": "gs://bucket/b.csv"}
    assert loaded.push.destination == str(here / "out")
    assert loaded.evaluation.thresholds["accuracy"].min == 0.9
    assert loaded.evaluation.thresholds["recall/neg"].min == 0.5


def test_a_label_is_not_named_twice(run_file):
    """`textrail convert` writes names of classes, which the same settings read again."""
    names = "data.label_names={0: '1', 1: '2'}"
    assert problems(run_file, GOOD, names) == [
        "data.label_names (--set): expected names of classes that are not labels of others; received '1' as both."]
    run_file.write_text(GOOD)
    assert settings.load(str(run_file), ["data.label_names={0: neg, 1: pos, pos: pos, '2': pos}"]).data.label_names == {
        "0": "neg", "1": "pos", "pos": "pos", "2": "pos"}


def test_all_problems_of_a_file_come_together(run_file):
    assert problems(run_file, """\
epochs: 3
data: {source: csvv, path: {trian: a.tsv, train: 3}, text: 12, split: {train: 2}}
model: {max_len: 3, max_length: x, fine_tune_layers: -1}
training: [1]
encoder:
evaluation: {thresholds: {accuracy: {mim: 1}, loss: {}}, length_bands: [1, b]}
push: {keep: true, wibble: 1}
""") == [
        "data.source: expected `csv`, `tfds`, `tfrecord` or `grammar`; received 'csvv'. Did you mean csv?",
        "data.path.trian: expected `train`, `validation` or `test`; received 'trian'. Did you mean train?",
        "data.path.train: expected a text; received 3. Put quotes around it to make it a text.",
        "data.text: expected a text; received 12. Put quotes around it to make it a text.",
        "data.split.train: expected a number from 0 to 1; received 2.",
        "training: expected a mapping with keys such as `epochs`; received a list.",
        "evaluation.thresholds.accuracy.mim: expected a key of evaluation.thresholds.accuracy; received an unknown key."
        " Did you mean evaluation.thresholds.accuracy.min?",
        "evaluation.thresholds.loss: expected at least one of min, max: without a bound the first model passes "
        "whatever its quality; received an empty mapping.",
        "evaluation.length_bands.1: expected a whole number of at least 1; received 'b'.",
        "push.keep: expected a whole number of at least 1; received true.",
        "push.wibble: expected a key of push; received an unknown key. The keys are destination, keep.",
        "encoder: expected a mapping with keys such as `source`; received nothing.",
        "model.max_length: expected a whole number from 8 to 4096; received 'x'.",
        "model.fine_tune_layers: expected `all` or a whole number of at least 0; received -1.",
        "model.max_len: expected a key of model; received an unknown key. Did you mean model.max_length?",
        "epochs: expected a key of the settings; received an unknown key. Did you mean training.epochs?",
    ]


def test_what_is_missing_is_named(run_file):
    assert problems(run_file, "description: nothing else\n") == [
        "data: expected a mapping with keys such as `source`; received nothing.",
        "evaluation: expected a mapping with keys such as `thresholds`; received nothing.",
    ]
    assert problems(run_file, GOOD, "data.source=tfds") == [
        "data: expected `data.name` for source tfds; received none; set for example data.name=imdb_reviews."]
    assert problems(run_file, GOOD, "data.split.train=0.5") == [
        "data.split: expected shares that sum to 1; received train + validation + test = 0.7."]


METRICS = ("`accuracy`, `loss`, `macro_f1`, `mcc`, `auc`, `precision/CLASS`, `recall/CLASS`, `f1/CLASS`, "
           "`accuracy/SLICE`, `loss/SLICE`, `macro_f1/SLICE`, `mcc/SLICE` or `auc/SLICE`")


@pytest.mark.parametrize("override, problem", [
    ("evaluation.thresholds.acuracy.min=0.9", f"evaluation.thresholds.acuracy: expected a metric ({METRICS}); "
                                              "received 'acuracy'; the nearest is accuracy."),
    ("evaluation.thresholds.recal/neg.min=0.9", "evaluation.thresholds.recal/neg: expected a metric "
                                                f"({METRICS}); received 'recal/neg'; the nearest is recall/neg."),
    ("evaluation.thresholds.f1/.min=0.9", f"evaluation.thresholds.f1/: expected a metric ({METRICS}); "
                                          "received 'f1/'; the nearest is f1/CLASS."),
    ("evaluation.thresholds={accuracy: {max_drop: 0.1}}",
     "evaluation.thresholds.accuracy (--set): expected at least one of min, max: without a bound the first model "
     "passes whatever its quality; received a mapping."),
    ("evaluation.length_bands=[]", "evaluation.length_bands (--set): expected at least one number, ascending; "
                                   "received []."),
    ("evaluation.length_bands=[16, 16]", "evaluation.length_bands (--set): expected at least one number, ascending; "
                                         "received [16, 16]."),
    ("evaluation.length_bands=[0, 16]", "evaluation.length_bands.0 (--set): expected a whole number of at least 1; "
                                        "received 0."),
    ("model.dropout=1", "model.dropout (--set): expected a number from 0 to below 1; received 1."),
    ("data.label=review", "data: expected different columns for `data.text` and `data.label`; "
                          "received 'review' for 2 of them."),
    ("encoder.sha256=53aa", "encoder.sha256 (--set): expected 64 hexadecimal digits; received '53aa'."),
    ("encoder={opaque: true, head: keep}", "the file: expected encoder.head to be new with encoder.opaque=true, whose "
                                           "inside nobody knows; received keep."),
])
def test_what_would_fail_after_training_is_refused_before(run_file, override, problem):
    assert problems(run_file, GOOD, override) == [problem]


PAIRS = """\
shape: translation
data: {source: csv, path: rows.csv, columns: [pt, en, kind], text: pt, target: en, slice: kind}
evaluation: {thresholds: {bleu: {min: 20}, chrf/very new: {min: 20}}}
"""


def test_a_shape_has_its_own_keys(run_file):
    run_file.write_text(PAIRS)
    loaded = settings.load(str(run_file))
    assert (loaded.shape, loaded.data.target, loaded.vocabulary.size, loaded.decoding.beams) == (
        "translation", "en", 8000, 4)
    assert settings.load(str(run_file), ["shape=classification", "data={source: csv, path: gs://b/r.csv}",
                                         "evaluation={thresholds: {auc: {min: 1}}}"]).data.label == "label"
    assert problems(run_file, PAIRS, "data.label=kind", "model.max_token=9", "encoder.source=minilm") == [
        "data.label (--set): expected a key of data; received an unknown key. It is a key of shape classification.",
        "model.max_token (--set): expected a key of model; received an unknown key. Did you mean model.max_tokens?",
        "encoder: expected a key of the settings; received an unknown key. It is a key of shape classification and of "
        "pretraining."]
    assert problems(run_file, PAIRS, "shape=translatoin") == [
        "shape (--set): expected `classification`, `translation` or `pretraining`; received 'translatoin'. Did you "
        "mean translation?"]
    assert problems(run_file, PAIRS, "shape=[]") == [
        "shape (--set): expected `classification`, `translation` or `pretraining`; received a list."]


@pytest.mark.parametrize("override, problem", [
    ("model.num_heads=6", "model: expected `model.hidden_size` to be even and a multiple of `model.num_heads`; "
                          "received 128 for 6 heads."),
    ("model.tied=all", "the file: expected `vocabulary.joint` to be true with model.tied=all; received false."),
    ("training.average_checkpoints=6", "training: expected `training.average_checkpoints` of at most "
                                       "`training.keep_checkpoints`; received 6 of 5."),
    ("training.schedule=cosine", "training: expected `training.learning_rate` of at most 0.1 with "
                                 "training.schedule=cosine, where it is the peak and no factor; received 1."),
    ("decoding.n_best=5", "decoding: expected `decoding.n_best` of at most `decoding.beams`; received 5 of 4."),
    ("evaluation.thresholds.blue/x.min=1",
     "evaluation.thresholds.blue/x: expected a metric (`bleu`, `chrf`, `bleu/SLICE` or `chrf/SLICE`); received "
     "'blue/x'; the nearest is bleu/x."),
    ("data.slice=null", "the file: expected `data.slice` to name the column that evaluation.thresholds.chrf/very new "
                        "is about; received none."),
    ("data.target=pt", "data: expected different columns for `data.text`, `data.target` and `data.slice`; received "
                       "'pt' for 2 of them."),
    ("data.target=es", "data: expected `data.columns` with all that is read (pt, es, kind); received none named 'es'."),
    ("data.columns=[pt, en, kind, en]", "data: expected different names in `data.columns`; received 'en' 2 times."),
])
def test_what_does_not_fit_together_in_a_translation_is_refused(run_file, override, problem):
    assert problems(run_file, PAIRS, override) == [problem]


TEXTS = """\
shape: pretraining
data: {path: rows.csv}
evaluation: {thresholds: {masked_accuracy: {min: 0.2}}}
"""


def test_a_pretraining_needs_no_more_than_text(run_file):
    run_file.write_text(TEXTS)
    loaded = settings.load(str(run_file))
    assert (loaded.data.source, loaded.data.documents, loaded.data.split.train) == ("text", "file", 0.9)
    assert (loaded.start, loaded.instances.max_length, loaded.masking.mask_rate) == ("new weights", 128, 0.15)
    assert problems(run_file, TEXTS.replace("path: rows.csv", "split: {train: 0.8, test: 0.15}")) == [
        "data.path: expected a file, a pattern, or one of either for each split; received nothing. Set for example "
        "data.path=texts/*.txt."]
    run_file.write_text(TEXTS)
    assert settings.load(str(run_file), ["encoder={}", "model.preset=mini", "model.dropout=0.2"]).start == "minilm"


@pytest.mark.parametrize("override, problem", [
    ("data.slice=kind", "data.slice (--set): expected a key of data; received an unknown key. It is a key of shape "
                        "classification and of translation."),
    ("data.source=grammar", "data.source (--set): expected `text`, `csv`, `tfds` or `tfrecord`; received 'grammar'."),
    ("data.documents=page", "data.documents (--set): expected `file`, `block` or `line`; received 'page'."),
    ("masking.mask_rate=0", "masking.mask_rate (--set): expected a number above 0 and below 1; received 0."),
    ("masking.mask_token_rate=0.95", "masking: expected `masking.mask_token_rate` and `masking.random_token_rate` that "
                                     "sum to at most 1; received 1.05."),
    ("model={preset: tiny, num_heads: 3}", "the file: expected `model.hidden_size` to be a multiple of "
                                           "`model.num_heads`; received 128 for 3 heads."),
    ("instances.max_length=513", "the file: expected `instances.max_length` of at most `model.positions`; received 513 "
                                 "for 512 positions."),
    ("training={xla: true, strategy: mirrored}", "training (--set): expected `training.xla` to be false with "
                                                 "any other training.strategy than one_device; received true for "
                                                 "mirrored."),
    ("training={xla: true, accumulate: 4}", "training (--set): expected `training.xla` to be false with "
                                            "training.accumulate above 1; received true for 4 parts."),
    ("evaluation.thresholds.masked_acuracy.min=1",
     "evaluation.thresholds.masked_acuracy: expected a metric (`masked_accuracy`, `masked_loss`, `pseudo_perplexity` "
     "or `next_accuracy`); received 'masked_acuracy'; the nearest is masked_accuracy."),
    ("evaluation.thresholds.masked_loss/x.min=1",
     "evaluation.thresholds.masked_loss/x: expected a metric (`masked_accuracy`, `masked_loss`, `pseudo_perplexity` "
     "or `next_accuracy`); received 'masked_loss/x'; the nearest is masked_loss."),
])
def test_what_does_not_fit_together_in_a_pretraining_is_refused(run_file, override, problem):
    assert problems(run_file, TEXTS, override) == [problem]


def test_what_an_encoder_or_a_missing_head_rules_out(run_file):
    for overrides, problem in (
            (["encoder={}", "vocabulary.size=9000"], "the file: expected `vocabulary.size` to be left out with "
                                                     "`encoder`, which brings its own; received 9000."),
            (["encoder={}", "model.preset=tiny"], "the file: expected `model.preset` to be left out with `encoder`, "
                                                  "which brings its own; received tiny."),
            (["instances.next_sentence=false", "evaluation.thresholds.next_accuracy.min=0.6"],
             "the file: expected `instances.next_sentence` to be true for evaluation.thresholds.next_accuracy; "
             "received false."),
            (["instances.next_sentence=false", "training.early_stopping_metric=next_accuracy"],
             "the file: expected `instances.next_sentence` to be true for training.early_stopping_metric="
             "next_accuracy; received false.")):
        assert problems(run_file, TEXTS, *overrides) == [problem]


def test_every_metric_can_have_a_threshold(run_file):
    names = ["accuracy", "loss", "macro_f1", "mcc", "auc", "precision/a/b", "recall/CLASS", "f1/very good"]
    loaded = settings.load(str(run_file), [f"evaluation.thresholds.{name}.min=0.1" for name in names])
    assert list(loaded.evaluation.thresholds) == names


def test_paths_must_be_there_unless_they_are_uris(run_file):
    folder = run_file.parent
    assert problems(run_file, GOOD.replace("rows", "row"), "encoder.source=minlm", "data.schema_file=/no/s.pbtxt") == [
        "data.schema_file (--set): expected a file at /no/s.pbtxt; received no 'no' in /. Correct the path.",
        f"data.path: expected a file at {folder}/row.csv; received no 'row.csv' in {folder}, nearest is 'rows.csv'. "
        "Correct the path.",
        f"encoder.source (--set): expected a folder at {Path.cwd()}/minlm; received no 'minlm' in {Path.cwd()}. "
        "Did you mean minilm?",
    ]
    assert settings.load(str(run_file), check_files=False).data.path == f"{folder}/row.csv"
    assert settings.load(str(run_file), ["data.path=gs://b/row.csv"]).data.path == "gs://b/row.csv"


@pytest.mark.parametrize("text, sentence", [
    ("a: 1\nb: 2\na: 3\n", "expected valid YAML; received {file}, line 3, column 1: the key 'a' a second time. "
                           "Correct that line."),
    ("a: [1\nb: 2\n", "expected valid YAML; received {file}, line 2, column 2: expected ',' or ']', but got ':'. "
                      "Correct that line."),
    ("data:\n  {? [a] : b}\n", "expected valid YAML; received {file}, line 2, column 6: a list or mapping as a key. "
                               "Correct that line."),
    ("- 1\n", "expected a mapping of settings such as `data:` and `evaluation:`; received a list in {file}. "
              "docs/settings.md begins with an example."),
])
def test_text_that_is_not_yaml_gives_line_and_column(run_file, text, sentence):
    run_file.write_text(text)
    with pytest.raises(TextrailError) as caught:
        settings.load(str(run_file))
    assert str(caught.value) == sentence.format(file=run_file)


def test_an_unknown_run_names_the_nearest(monkeypatch, tmp_path):
    (tmp_path / "reviews.yaml").write_text("data: {source: csv, path: a.csv}\n" + GOOD.splitlines()[1])
    monkeypatch.setattr(settings, "RUNS", tmp_path)
    with pytest.raises(TextrailError) as caught:
        settings.load("revews")
    assert str(caught.value) == ("expected a settings file, or the name of a ready-made run (reviews); "
                                 "received 'revews'. Did you mean reviews?")
    assert settings.load("reviews", check_files=False).data.path == str(settings.PROJECT / "a.csv")


@pytest.mark.parametrize("override, sentence", [
    ("training.epochs", "expected --set key=value such as --set training.epochs=2; received --set training.epochs. "
                        "Write it so."),
    ("data.path={? [a] : b}", "expected a YAML value after --set data.path=; received '{? [a] : b}': a list or "
                              "mapping as a key. Quote texts that have brackets, braces or colons."),
    ("data.text={", "expected a YAML value after --set data.text=; received '{': expected the node content, but found "
                    "'<stream end>'. Quote texts that have brackets, braces or colons."),
])
def test_an_override_that_cannot_be_read(run_file, override, sentence):
    with pytest.raises(TextrailError) as caught:
        settings.load(str(run_file), [override])
    assert str(caught.value) == sentence


def test_one_problem_is_one_line(run_file):
    with pytest.raises(settings.SettingsError) as caught:
        settings.load(str(run_file), ["training.epochs=0"])
    assert str(caught.value) == (
        f"{run_file}: training.epochs (--set): expected a whole number of at least 1; received 0.")


def test_a_column_with_a_hash_is_no_comment(run_file):
    loaded = settings.load(str(run_file), ["data.text=#1 String", "data.text_pair=#2 String", "data.label=Quality"])
    assert (loaded.data.text, loaded.data.text_pair) == ("#1 String", "#2 String")


@pytest.mark.parametrize("name", ["mine.yaml", "rows.csv"])
def test_data_of_a_run_or_of_files(run_file, monkeypatch, name):
    monkeypatch.chdir(run_file.parent)
    loaded = settings.load_data(name, ["data.text=review", "data.split={train: 0.5, validation: 0.5, test: 0}"])
    assert (loaded.data.source, loaded.data.path) == ("csv", str(run_file.parent / "rows.csv"))
    assert (loaded.data.text, loaded.data.label, loaded.data.split.test, loaded.seed) == ("review", "label", 0, 42)


def test_data_files_say_what_they_are_or_are_told(tmp_path):
    odd = tmp_path / "rows.txt"
    odd.write_text("text,label\n")
    assert settings.load_data(str(odd), ["data.source=csv", "seed=7"]).seed == 7
    (tmp_path / "a.tfrecord-00000-of-00001").touch()
    assert settings.load_data(str(tmp_path / "a.tfrecord-*")).data.source == "tfrecord"
    for source, overrides, sentence in (
            (str(odd), [], r"data\.source: expected `csv`, `tfds`, `tfrecord` or `grammar`; received nothing"),
            (str(tmp_path / "no.csv"), [], r"data\.path: expected a file at .*received no 'no\.csv' in"),
            ("reveiws", [], "Did you mean reviews"),
            ("reviews", ["training.epochs=2"], r"seed=VALUE or shape=VALUE; received --set training"),
            ("reviews", ["data.pth=x"], r"Did you mean data\.path")):
        with pytest.raises(TextrailError, match=sentence):
            settings.load_data(source, overrides)


def test_the_page_of_all_keys_is_complete():
    page = (settings.PROJECT / "docs/settings.md").read_text("utf-8")
    assert page == settings_page.documentation(), "run `python -m pipelines.settings_page > docs/settings.md`"


def test_settings_import_nothing_heavy():
    code = ("import sys, pipelines.settings; "
            "print([name for name in ('tensorflow', 'tfx', 'apache_beam') if name in sys.modules])")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
