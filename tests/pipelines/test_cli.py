"""The `textrail` command as a user meets it: exit statuses, sentences on standard error, no tracebacks."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines import cli, shapes

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
TINY = ("import sys; sys.path.insert(0, sys.argv.pop(1)); from pipelines import cli, shapes; "
        "shapes.BUILDERS['classification'] = 'tiny_pipeline'; sys.exit(cli.main())")
RUN = "data: {source: csv, path: rows.csv}\nevaluation: {thresholds: {accuracy: {min: 0.5}}}\ndescription: well\n"
CACHED = r"same inputs, settings and code as execution \d+ of \d{4}-\d\d-\d\d \d\d:\d\d"


def on_a_terminal(*command, **environment):
    spec = importlib.util.spec_from_file_location("console_tests", FOLDER / "test_console.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.on_a_terminal(*command, **environment)


@pytest.fixture
def run_file(tmp_path, monkeypatch):
    (tmp_path / "rows.csv").write_text("text,label\nfine,pos\n")
    file = tmp_path / "mine.yaml"
    file.write_text(RUN)
    monkeypatch.setenv("TEXTRAIL_WORKSPACE", str(tmp_path / "states"))
    return file


def command(*arguments):
    return [sys.executable, "-c", TINY, str(FOLDER), *map(str, arguments)]


def run(*arguments):
    return subprocess.run(command(*arguments), capture_output=True, text=True, cwd=ROOT, timeout=180)


def pattern(text):
    """A regular expression from a text with <s> for seconds and <mb> for megabytes."""
    return re.escape(text).replace("<s>", r"\d+\.\d s").replace("<mb>", r"\d+ MB").replace("<cached>", CACHED)


def test_a_run_is_pushed_then_cached_then_judged_then_stopped(run_file, tmp_path, capsys):
    state = tmp_path / "states" / "mine"
    first = run("run", run_file)
    assert (first.returncode, first.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in first.stdout.splitlines() if line.strip(" ─")]
    log, = (state / "logs").iterdir()
    assert lines[0] == f"mine: workspace {state}, log {log}"
    assert re.fullmatch(pattern("""\
starting: importing TFX and TensorFlow takes 10 to 20 s
looking at data, encoder and code
Maker: running
Maker: done in <s>, peak <mb>
Trainer: running
Trainer: epoch 1/1: accuracy 0.75
Trainer: done in <s>, peak <mb>
Evaluator: running
Evaluator: done in <s>, peak <mb>
Pusher: running
Pusher: pushed version 7
Pusher: done in <s>, peak <mb>"""), "\n".join(lines[1:13]))
    assert lines[13:-1] == [
        "4 examples of the test split",
        "metric value bound baseline change verdict",
        "accuracy 0.7500 ≥ 0.5, drop ≤ 0.1 0.5000 +0.2500 passed",
        "loss 0.5000 ≤ 1 - - passed",
        "slice examples accuracy loss",
        "label neg 1 1.0000 0.2500",
        "label pos 3 0.6667 -",
        f"pushed: {state}/pushed/7",
        f'next: textrail predict {run_file} "…"',
    ]
    assert re.fullmatch(r"\d+ s in all", lines[-1])
    assert "noise on standard output" in log.read_text()

    written, status = on_a_terminal(command("run", run_file))
    assert status == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written).replace("\r", "")
    end = " ".join(text[text.rindex("workspace"):].split())
    for name in ("Maker", "Trainer", "Evaluator", "Pusher"):
        assert re.search(f"≡ {name} cached {CACHED}", end), end
    assert f"already pushed: {state}/pushed/7" in end

    assert cli.main(["metrics", str(run_file), "--json"]) == 0
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["rows"][0]["value"] == 0.75 and verdict["samples"]["worst"][0]["reference"] == "the cat"
    assert cli.main(["metrics", "mine"]) == 0
    told = capsys.readouterr().out
    assert "the cat" not in told
    assert cli.main(["metrics", "mine", "--examples"]) == 0
    assert "51.25   -0.5000   source        o gato" in capsys.readouterr().out
    assert "label pos          3     0.6667" in told
    assert "The model meets all 2 thresholds on 4 examples of the test split." in told

    failed = run("run", run_file, "--set", "description=fails")
    assert failed.returncode == 1
    assert failed.stderr == ("textrail: mine stopped at Trainer: expected labels in 'sentiment'; received a blank one "
                             "in rows.csv, line 3. Fill it in.\n")
    assert "not pushed: Trainer failed" in failed.stdout
    newest = max((state / "logs").iterdir())
    assert "Traceback (most recent call last)" in newest.read_text()

    unknown = run("run", run_file, "--force", "trainer", "--set", "push.destination=out")
    assert (unknown.returncode, unknown.stderr) == (2, (
        "textrail: expected --force with one of Maker, Trainer, Evaluator, Pusher; received trainer. "
        "Did you mean Trainer?\n"))


def test_ctrl_c_ends_a_run_with_130(run_file):
    # Where the tests run in a shell's background, interrupts are ignored, and so they are by what is started there.
    process = subprocess.Popen(command("run", run_file, "--set", "description=sleeps"), cwd=ROOT, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    while "Trainer: epoch" not in process.stdout.readline():
        assert process.poll() is None, process.stderr.read()
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Trainer: interrupted, stopped by Ctrl-C or a signal; the next run takes up here" in out
    assert f"next: textrail run {run_file} --set description=sleeps takes up where it stopped" in out
    assert err == "textrail: mine interrupted at Trainer\n"


@pytest.mark.parametrize("arguments, sentence", [
    (["run", "{file}", "--set", "training.epoch=1"],
     "{file}: training.epoch (--set): expected a key of training; received an unknown key. "
     "Did you mean training.epochs?"),
    (["metrics", "{file}"], "expected a run that was started in {states}; received {file}, which was not. "
                            "Start it with `textrail run {file}`."),
    (["predict", "mnie", "fine"], "expected a run that was started in {states}; received mnie, which was not. "
                                  "`textrail list` shows the ready-made runs."),
    (["predict", "mine"],
     "expected texts, or --text-a with --text-b, or --file with --out, or --input with --output, the last two without "
     '--json; received another combination. For example: textrail predict mine "a fine film".'),
])
def test_wrong_usage_is_a_sentence_and_status_2(run_file, tmp_path, capsys, arguments, sentence):
    names = {"file": run_file, "states": tmp_path / "states"}
    assert cli.main([argument.format(**names) for argument in arguments]) == 2
    assert capsys.readouterr().err == f"textrail: {sentence.format(**names)}\n"


def test_list_shows_the_ready_made_runs(tmp_path, monkeypatch, capsys):
    from pipelines import settings

    (tmp_path / "spam.yaml").write_text(RUN.replace("well", "Is it spam?"))
    monkeypatch.setattr(settings, "RUNS", tmp_path)
    assert cli.main(["list"]) == 0
    assert capsys.readouterr().out.split("\n")[3].split() == [
        "spam", "classification", "csv", "minilm", "Is", "it", "spam?"]


def test_the_project_s_own_runs_are_valid():
    from pipelines import settings

    for name in settings.ready_made():
        loaded = settings.load(name, check_files=False)
        assert loaded.shape in shapes.BUILDERS and loaded.description


def test_an_unexpected_error_leaves_its_traceback_in_a_file(run_file, capsys, monkeypatch):
    monkeypatch.setenv("TEXTRAIL_WORKSPACE", str(run_file / "not-a-folder"))   # below a file
    assert cli.main(["run", str(run_file)]) == 1
    sentence = capsys.readouterr().err
    assert sentence.startswith("textrail: NotADirectoryError: [Errno 20] Not a directory")
    log = Path(re.search(r"The traceback is in (\S+)\n", sentence)[1])
    assert "Traceback" in log.read_text()
    log.unlink()


def test_help_imports_nothing_heavy():
    code = ("import sys, pipelines.cli\n"
            "try: pipelines.cli.main(['--help'])\n"
            "except SystemExit: print(sorted({name.split('.')[0] for name in sys.modules}))")
    began = time.monotonic()
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    print(f"textrail --help takes {time.monotonic() - began:.2f} s")
    loaded = out.splitlines()[-1]
    for heavy in ("tensorflow", "tfx", "apache_beam", "keras", "rich", "pydantic"):
        assert f"'{heavy}'" not in loaded
    assert os.linesep.join(["positional arguments:", "  COMMAND"]) in out
