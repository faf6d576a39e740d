"""Asking a pushed model: a real SavedModel with the signature that every exported model has."""

import csv
import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from modules.errors import TextrailError
from pipelines import answers, cli, predict, settings, workspace
from tests.mask_filler import make_mask_filler
from tests.word_classifier import save_classifier
from tests.word_translator import make_word_translator

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    """A push destination with a model of single texts, and an older version that is no model at all."""
    destination = tmp_path_factory.mktemp("pushed")
    (destination / "9").mkdir()
    (destination / "9/saved_model.pb").write_text("broken")
    save_classifier(destination / "10", ["review"])
    return destination


@pytest.fixture(scope="module")
def predictor(pushed):
    return predict.Predictor(predict.newest_version(str(pushed), "Push one."))


def test_the_newest_version_answers_in_order_across_batches(predictor):
    assert predictor.folder.endswith("/10")
    texts = [("good",), ("dull",), ("so good\nreally",)] * predict.BATCH
    answers = list(predictor(texts))
    assert [answer.label for answer in answers] == ["pos", "neg", "pos"] * predict.BATCH
    assert answers[1] == ("neg", 0.75, {"neg": 0.75, "pos": 0.25})


def test_an_empty_destination_says_what_to_do(tmp_path):
    with pytest.raises(TextrailError) as caught:
        predict.newest_version(str(tmp_path), "Push one.")
    assert str(caught.value) == f"expected a pushed model in {tmp_path}; received none. Push one."


def test_a_file_keeps_its_columns_order_and_newlines(predictor, tmp_path):
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes('\ufeffid,review,label\r\n1,"good, ""very""\r\ngood",pos\r\n\r\n2,dull,neg\r\n'.encode())
    assert predict.predict_file(predictor, str(source), str(target)) == (2, "")
    with open(target, newline="", encoding="utf-8") as stream:
        assert list(csv.reader(stream)) == [
            ["id", "review", "label", "predicted_label", "score", "neg", "pos"],
            ["1", 'good, "very"\r\ngood', "pos", "pos", "0.750000", "0.250000", "0.750000"],
            ["2", "dull", "neg", "neg", "0.750000", "0.750000", "0.250000"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]


def test_gzip_tabs_and_the_file_itself_as_target(predictor, tmp_path):
    file = tmp_path / "rows.tsv.gz"
    with gzip.open(file, "wt") as stream:
        stream.write("review\tid\n" + "good, fine\t1\n" * (2 * predict.BATCH + 1))
    assert predict.predict_file(predictor, str(file), str(file)) == (2 * predict.BATCH + 1, "")
    with gzip.open(file, "rt") as stream:
        lines = stream.read().splitlines()
    assert lines[0] == "review\tid\tlabel\tscore\tneg\tpos"
    assert lines[1:] == ["good, fine\t1\tpos\t0.750000\t0.250000\t0.750000"] * (2 * predict.BATCH + 1)


@pytest.mark.parametrize("content, sentence", [
    (b"revue,id\ngood,1\n", "expected the column 'review', which the model reads, in {file}; received the columns "
                            "'revue', 'id', nearest is 'revue'. Rename a column."),
    (b'review,id\n"a\nb",1\ngood\n', "expected CSV in UTF-8; received 1 columns where the header has 2 in {file}, "
                                     "line 4. Correct that row."),
    (b"review,id\ngood,1\n\xff,2\n", "expected CSV in UTF-8; received bytes that are not UTF-8 in {file}, line 3. "
                                     "Correct that row."),
    (b'review\n"open\n', "expected CSV in UTF-8; received a quote that is never closed in {file}, line 2. "
                         "Correct that row."),
    (b"review,id\ngo\0d,1\n", "expected CSV in UTF-8; received a NUL byte in {file}, line 2. Correct that row."),
    (b"review;id\ngood;1\n", "expected the column 'review', which the model reads, in {file}; received the columns "
                              "'review;id', nearest is 'review;id'. Separate the columns as the run's data.delimiter "
                              "says, or rename that one."),
    (b"", "expected the column 'review', which the model reads, in {file}; received the columns (none). "
          "Rename a column."),
])
def test_a_bad_file_is_told_with_its_line_and_leaves_nothing(predictor, tmp_path, content, sentence):
    file = tmp_path / "in.csv"
    file.write_bytes(content)
    with pytest.raises(TextrailError) as caught:
        predict.predict_file(predictor, str(file), str(tmp_path / "out.csv"))
    assert str(caught.value) == sentence.format(file=file)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_a_corrupt_gzip_file_is_told(predictor, tmp_path):
    file = tmp_path / "in.csv.gz"
    packed = bytearray(gzip.compress(b"review,id\n" + b"".join(b"good,%d\n" % number for number in range(1000))))
    packed[40:60] = b"\xff" * 20
    file.write_bytes(packed)
    with pytest.raises(TextrailError, match=f"expected a complete gzip file at {file}; received one that breaks off"):
        predict.predict_file(predictor, str(file), str(tmp_path / "out.csv"))


def test_files_are_read_and_written_as_the_run_s_own(predictor, tmp_path):
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text('id;review\n1;"good; fine"\n')
    predict.predict_file(predictor, str(source), str(target), predict.Dialect(";"))
    assert target.read_text() == ('id;review;label;score;neg;pos\n1;"good; fine";pos;0.750000;0.250000;0.750000\n')

    source, unquoted = tmp_path / "in.tsv", predict.Dialect("auto", "none")
    source.write_text('id\treview\n1\t"good" he said, and "\r\n')
    predict.predict_file(predictor, str(source), str(source), unquoted)
    assert source.read_text() == ('id\treview\tlabel\tscore\tneg\tpos\n'
                                  '1\t"good" he said, and "\tpos\t0.750000\t0.250000\t0.750000\n')
    with pytest.raises(TextrailError, match=r"values without ',', which data\.quoting=none cannot write"):
        predict.predict_file(predictor, str(source), str(target), unquoted)


def test_a_missing_file_names_its_neighbour(predictor, tmp_path):
    (tmp_path / "reviews.csv").touch()
    with pytest.raises(TextrailError) as caught:
        predict.predict_file(predictor, f"{tmp_path}/review.csv", "out.csv")
    assert str(caught.value) == (f"expected a file at {tmp_path}/review.csv; received no 'review.csv' in {tmp_path}, "
                                 "nearest is 'reviews.csv'. Correct the path.")


def started(folder: Path, run: str, destination: Path, *overrides: str) -> None:
    """What a run leaves behind that predict looks for; the model and these settings may be of different runs."""
    paths = workspace.Workspace(run, folder / run)
    paths.folder.mkdir(parents=True)
    paths.metadata.touch()
    paths.record(settings.load("reviews", [f"push.destination={destination}", *overrides]))


def test_the_command_answers_people_and_programs(pushed, tmp_path):
    started(tmp_path, "films", pushed)

    def ask(*arguments):
        return subprocess.run([sys.executable, "-m", "pipelines.cli", "predict", "films", "--workspace", tmp_path,
                               *arguments], capture_output=True, text=True, cwd=ROOT)

    told = ask("a good film", "a dull\nfilm " + "x" * 90)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout == f"pos   75.0%  a good film\nneg   75.0%  a dull film {'x' * 67}…\n"

    told = ask("--json", "ein guter Film, très bien")
    assert [json.loads(line) for line in told.stdout.splitlines()] == [
        {"text": "ein guter Film, très bien", "label": "neg", "score": 0.75, "scores": {"neg": 0.75, "pos": 0.25}}]

    told = ask("--text-a", "one", "--text-b", "two")
    assert (told.returncode, told.stderr) == (
        2, "textrail: expected single texts: the model reads review; received a pair. Ask it so.\n")


def test_a_model_of_pairs_and_a_file(tmp_path, monkeypatch, capfd):
    save_classifier(tmp_path / "pushed/1", ["question", "answer"])
    started(tmp_path, "pairs", tmp_path / "pushed", "data.delimiter=;", "data.quoting=none")
    monkeypatch.setenv("TEXTRAIL_WORKSPACE", str(tmp_path))
    assert cli.main(["predict", "pairs", "--json", "--text-a", "how?", "--text-b", "good"]) == 0
    assert json.loads(capfd.readouterr().out) == {
        "text": ["how?", "good"], "label": "pos", "score": 0.75, "scores": {"neg": 0.25, "pos": 0.75}}
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text('answer;question\n"fine;how?\n')
    assert cli.main(["predict", "pairs", "--file", str(source), "--out", str(target)]) == 0
    assert capfd.readouterr().out == f"1 rows with labels in {target}\n"
    assert target.read_text() == ('answer;question;label;score;neg;pos\n'
                                  '"fine;how?;neg;0.750000;0.750000;0.250000\n')


def test_glue_files_as_they_are(tmp_path):
    save_classifier(tmp_path / "pushed/1", ["#1 String", "#2 String"])
    source, target = tmp_path / "test.tsv", tmp_path / "out.tsv"
    source.write_text('\ufeffindex\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t7\t8\t"A good one\tHe said " so " .\n')
    asked = predict.Predictor(predict.newest_version(str(tmp_path / "pushed"), "Push one."))
    assert predict.predict_file(asked, str(source), str(target), predict.Dialect(quoting="none")) == (1, "")
    assert target.read_text() == (
        "index\t#1 ID\t#2 ID\t#1 String\t#2 String\tlabel\tscore\tneg\tpos\n"
        '0\t7\t8\t"A good one\tHe said " so " .\tpos\t0.750000\t0.250000\t0.750000\n')


def test_nothing_pushed_names_the_next_command(tmp_path, monkeypatch, capfd):
    started(tmp_path, "films", tmp_path / "nowhere")
    monkeypatch.setenv("TEXTRAIL_WORKSPACE", str(tmp_path))
    assert cli.main(["predict", "films", "good"]) == 2
    assert capfd.readouterr().err == (
        f"textrail: expected a pushed model in {tmp_path}/nowhere; received none. Push one with `textrail run films`; "
        "`textrail metrics films` tells why one was refused.\n")


@pytest.fixture(scope="module")
def translators(tmp_path_factory):
    """Push destinations of two translators: one tells its best translation, one its two best."""
    folder = tmp_path_factory.mktemp("translators")
    for n_best in (1, 2):
        make_word_translator(folder / str(n_best) / "1", n_best=n_best)
    return folder


LONG = "o gato " * 8   # 18 tokens, of which the model reads 12


def test_the_command_translates(translators, tmp_path, monkeypatch, capfd):
    started(tmp_path, "one", translators / "1")
    started(tmp_path, "two", translators / "2")
    monkeypatch.setenv("TEXTRAIL_WORKSPACE", str(tmp_path))
    assert cli.main(["predict", "one", "o gato preto dorme.", "", "a casa é grande"]) == 0
    assert capfd.readouterr() == ("the cat black sleeps.\n\nthe house is big\n", "")
    assert cli.main(["predict", "two", "o gato"]) == 0
    assert capfd.readouterr().out == " -0.0200  the cat\n -0.1200  THE CAT\n"

    assert cli.main(["predict", "two", "--json", "é o gato", LONG]) == 0
    told, warned = capfd.readouterr()
    first, second = map(json.loads, told.splitlines())
    assert first == {"text": "é o gato", "translation": "is the cat", "score": pytest.approx(-0.03), "n_best": [
        {"translation": "is the cat", "score": pytest.approx(-0.03)},
        {"translation": "IS THE CAT", "score": pytest.approx(-0.13)}], "truncated": False}
    assert second["truncated"] and second["translation"] == " ".join(["the cat"] * 5)
    assert warned == ("textrail: warning: text 2: the text is longer than the 12 tokens that the model reads: its end "
                      "is not translated\n")


def test_a_file_without_header_is_translated_in_the_order_of_its_rows(translators, tmp_path, monkeypatch, capfd):
    started(tmp_path, "one", translators / "1", "data.quoting=none", "data.columns=[pt, en]", "data.text=pt",
            "data.label=en")
    monkeypatch.setenv("TEXTRAIL_WORKSPACE", str(tmp_path))
    source, target = tmp_path / "in.tsv", tmp_path / "out.tsv"
    source.write_text(f"{LONG}\tthe cat\n\tblank\no \"gato\"\tthe cat\na casa {LONG}\t?\n")
    assert cli.main(["predict", "one", "--file", str(source), "--out", str(target)]) == 0
    assert target.read_text() == (
        f"{LONG}\tthe cat\t{' '.join(['the cat'] * 5)}\t-0.100000\n\tblank\t\t0.000000\n"
        f"o \"gato\"\tthe cat\tthe \"gato\"\t-0.020000\na casa {LONG}\t?\tthe house {' '.join(['the cat'] * 4)}"
        "\t-0.100000\n")
    assert capfd.readouterr() == (
        f"4 rows with translations in {target}\n",
        f"textrail: warning: {source}, row 1 (and 1 more: 4): the text is longer than the 12 tokens that the model "
        "reads: its end is not translated\n")

    source.write_text("o gato\na casa\n")   # the last columns may be missing, here the other language
    assert cli.main(["predict", "one", "--file", str(source), "--out", str(target)]) == 0
    assert target.read_text() == "o gato\tthe cat\t-0.020000\na casa\tthe house\t-0.020000\n"
    capfd.readouterr()
    source.write_text("o\tthe\t3\n")
    assert cli.main(["predict", "one", "--file", str(source), "--out", str(target)]) == 2
    assert "received 3 columns where data.columns names 2 in" in capfd.readouterr().err


def test_a_text_that_is_not_utf8_is_told_by_its_number(capfd):
    assert cli.main(["predict", "one", "o gato", b"o p\xe3o".decode("utf-8", "surrogateescape")]) == 2
    assert capfd.readouterr().err == (
        "textrail: expected UTF-8 in text 2; received '\\udce3' at character 4. Write it on a terminal in UTF-8, or in "
        "a file for --file.\n")


def test_n_best_translations_are_columns(translators, tmp_path):
    source = tmp_path / "in.csv"
    source.write_text("id,pt,score\n1,o gato,x\n2,,\n")
    asked = predict.Predictor(predict.newest_version(str(translators / "2"), ""))
    assert predict.predict_file(asked, str(source), str(source)).rows == 2
    assert source.read_text() == ("id,pt,score,translation,predicted_score,translation_2,score_2\n"
                                  "1,o gato,x,the cat,-0.020000,THE CAT,-0.120000\n2,,,,0.000000,,\n")


# Words for masks.


@pytest.fixture(scope="module")
def filler(tmp_path_factory, tiny_encoder):
    """A push destination with a pretrained encoder that says "good", "great" or "bad"."""
    folder = tmp_path_factory.mktemp("filler")
    make_mask_filler(folder / "1", tiny_encoder, text="review")
    return folder


@pytest.mark.parametrize("text, words, filled", [
    ("no mask", [], "no mask"),
    ("[MASK], the [MASK].", ["so", "end"], "so, the end."),
    ("the film [MASK] [MASK] on", ["walk", "##ed"], "the film walked on"),
    ("[MASK][MASK] and [MASK]", ["##a", "##"], "a## and [MASK]"),
])
def test_words_take_the_place_of_the_first_masks(text, words, filled):
    assert answers.fill(text, words) == filled


def test_the_command_tells_words_for_masks(filler, tmp_path, monkeypatch, capfd):
    from modules import mask_filling

    assert answers.MASK == mask_filling.MASK
    started(tmp_path, "words", filler)
    monkeypatch.setenv("TEXTRAIL_WORKSPACE", str(tmp_path))
    assert cli.main(["predict", "words", "The film was [MASK]\nand moving", "so [MASK], [MASK]!"]) == 0
    assert capfd.readouterr() == ("""\
The film was good and moving
  [MASK]  good 50.0%  great 25.0%  bad 12.5%
so good, good!
  [MASK] 1  good 50.0%  great 25.0%  bad 12.5%
  [MASK] 2  good 50.0%  great 25.0%  bad 12.5%
""", "")

    far = "the [MASK] film " + "the film " * 6
    rows = ["a film", "a [MASK]", far, far + "was [MASK]", "the film " * 8 + "[MASK]", ""]
    assert cli.main(["predict", "words", "--json", *rows]) == 0
    told, warned = capfd.readouterr()
    said = [json.loads(line) for line in told.splitlines()]
    best = {"words": ["good", "great", "bad"], "probabilities": pytest.approx([0.5, 0.25, 0.125], rel=1e-5)}
    assert said[1] == {"text": "a [MASK]", "filled": "a good", "masks": [best], "truncated": False}
    assert [len(answer["masks"]) for answer in said] == [0, 1, 1, 1, 0, 0]
    assert said[3]["filled"] == far.replace("[MASK]", "good") + "was [MASK]"
    assert [answer["truncated"] for answer in said] == [False, False, True, True, True, False]
    reads = "the text is longer than the 14 tokens that the model reads: its end is not read"
    assert warned == ("textrail: warning: text 1 (and 1 more: 6): the text is without [MASK]: write it in the place of "
                      f"each word that the model shall tell; text 3: {reads}; text 4 (and 1 more: 5): {reads} and "
                      "keeps its [MASK]s\n")


def test_a_file_of_masked_texts(filler, tmp_path):
    source = tmp_path / "in.csv"
    source.write_text("id,review,filled\n1,[MASK] and [MASK],x\n2,a [MASK] film,\n")
    asked = predict.Predictor(predict.newest_version(str(filler), ""))
    assert predict.predict_file(asked, str(source), str(source)) == (2, "")
    assert list(csv.reader(source.read_text().splitlines())) == [
        ["id", "review", "filled", "predicted_filled", "words", "probabilities", "words_2", "probabilities_2",
         "words_3", "probabilities_3"],
        ["1", "[MASK] and [MASK]", "x", "good and good", "good good", "0.500000 0.500000", "great great",
         "0.250000 0.250000", "bad bad", "0.125000 0.125000"],
        ["2", "a [MASK] film", "", "a good film", "good", "0.500000", "great", "0.250000", "bad", "0.125000"]]
