"""What a run shows: exact lines without a terminal, a table of all components on one."""

import io
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from modules import progress
from pipelines import console

ROOT = Path(__file__).parents[2]
VERDICT = {
    "passed": False, "split": "test", "examples": 10,
    "rows": [{"metric": "accuracy", "value": 0.875, "min": 0.9, "max": None, "max_drop": 0.01, "baseline": 0.88,
              "change": -0.005, "verdict": "failed", "why": "0.875 is below the bound 0.9"},
             {"metric": "loss", "value": 0.3, "min": None, "max": 1.0, "max_drop": None, "baseline": None,
              "change": None, "verdict": "passed", "why": ""}],
    "slices": [{"slice": "label pos", "examples": 6, "metrics": {"accuracy": 1.0, "loss": 0.25, "mcc": 0.1}}],
}


def node(name, state="waiting", note="", seconds=0.0, peak_mb=0):
    return SimpleNamespace(id=name, state=state, note=note, seconds=seconds, peak_mb=peak_mb, started=0.0)


def test_without_a_terminal_there_is_one_plain_line_an_event():
    stream = io.StringIO()
    reader, trainer, pusher = node("ExampleGen"), node("Trainer"), node("Pusher")
    with console.open_view(stream, "reviews", Path("/w/reviews"), Path("/w/reviews/logs/1.log")) as view:
        view.starting("starting")
        view.begin([reader, trainer, pusher])
        reader.state, reader.note = "cached", "same inputs, settings and code as execution 1 of 2026-11-22 12:31"
        view.changed(reader)
        trainer.state = "running"
        view.changed(trainer)
        progress.report("epoch 1/3, step 40/120, loss 0.412", step=40)
        progress.report("epoch 1/3: accuracy [0.91]", lasting=True)
        trainer.state, trainer.seconds, trainer.peak_mb = "done", 125.2, 1830
        view.changed(trainer)
        pusher.state, pusher.note = "failed", "expected a model that meets every threshold; received none. " + "x" * 99
        view.changed(pusher)
    progress.report("nobody listens any more", lasting=True)
    assert stream.getvalue().splitlines() == [
        "reviews: workspace /w/reviews, log /w/reviews/logs/1.log",
        "starting",
        "ExampleGen: cached, same inputs, settings and code as execution 1 of 2026-11-22 12:31",
        "Trainer: running",
        "Trainer: epoch 1/3: accuracy [0.91]",
        "Trainer: done in 2 min 05 s, peak 1830 MB",
        "Pusher: failed, expected a model that meets every threshold; received none. " + "x" * 99,
    ]


def test_the_tables_at_the_end_name_bounds_baseline_and_verdict():
    stream = io.StringIO()
    console.show_verdict(console.plain_console(stream), VERDICT, all_slices=False)
    assert [line.strip() for line in stream.getvalue().splitlines() if line.strip(" ─")] == [
        "10 examples of the test split",
        "metric      value   bound                baseline    change   verdict",
        "accuracy   0.8750   ≥ 0.9, drop ≤ 0.01     0.8800   -0.0050   failed",
        "loss       0.3000   ≤ 1                         -         -   passed",
        "slice       examples   accuracy     loss",
        "label pos          6     1.0000   0.2500",
    ]


def test_translations_are_told_with_two_decimals_signature_and_examples():
    row = {"min": 60.0, "max": None, "max_drop": None, "baseline": 58.2, "why": ""}
    verdict = {"split": "test", "examples": 900, "rows": [
        {"metric": "bleu/unseen", "value": 61.346, "change": 3.146, "verdict": "passed"} | row], "slices": [
        {"slice": "length_band=1-8", "examples": 400, "metrics": {"bleu": 70.0, "chrf": 81.256}}],
        "signatures": {"bleu": "nrefs:1|case:mixed"}}
    kept = {"worst": [{"source": "o gato", "reference": "the cat", "translation": "", "score": -1.5, "chrf": 0.0}]}
    stream = io.StringIO()
    console.show_verdict(console.plain_console(stream), verdict, all_slices=False)
    console.show_samples(console.plain_console(stream), kept)
    assert [" ".join(line.split()) for line in stream.getvalue().splitlines() if line.strip(" ─")] == [
        "900 examples of the test split", "metric value bound baseline change verdict",
        "bleu/unseen 61.35 ≥ 60 58.20 +3.15 passed",
        "slice examples bleu chrf", "length_band=1-8 400 70.00 81.26", "bleu: nrefs:1|case:mixed",
        "worst translations", "chrf score", "0.00 -1.5000 source o gato", "reference the cat", "translation"]


def test_mistakes_of_a_classifier_are_shown_and_its_calibration_is_not():
    kept = {"mistakes": [{"text": ["one [b]", "two"], "label": "same", "predicted": "other", "score": 0.98765}],
            "calibration": [{"examples": 1, "confidence": 0.9, "accuracy": 0.0}]}
    stream = io.StringIO()
    console.show_samples(console.plain_console(stream), kept)
    assert [" ".join(line.split()) for line in stream.getvalue().splitlines() if line.strip(" ─")] == [
        "most confident mistakes", "score predicted label text", "0.9877 other same one [b]", "two"]


def test_masked_words_are_shown_and_why_nothing_was_compared():
    verdict = {"split": "test", "examples": 900, "not_comparable": "another vocabulary", "slices": [], "rows": [
        {"metric": "pseudo_perplexity", "value": 31.257, "min": None, "max": 40.0, "max_drop": 1.0, "baseline": None,
         "change": None, "verdict": "passed", "why": ""}]}
    kept = {"masked": [{"text": "the [MASK] was [MASK]", "masks": [
        {"label": "film", "words": ["book", "film"], "probabilities": [0.5, 0.254]},
        {"label": "good", "words": ["bad", "##s"], "probabilities": [1.0, 0.0]}]}, {"text": "9", "masks": []}]}
    stream = io.StringIO()
    console.show_verdict(console.plain_console(stream), verdict, all_slices=False)
    console.show_samples(console.plain_console(stream), kept)
    assert [" ".join(line.split()) for line in stream.getvalue().splitlines() if line.strip(" ─")] == [
        "900 examples of the test split", "metric value bound baseline change verdict",
        "pseudo_perplexity 31.26 ≤ 40, drop ≤ 1 - - passed", "baseline: not comparable: another vocabulary",
        "masked words", "text label words", "the [MASK] was [MASK] film 0.50 book 0.25 film",
        "good 1.00 bad 0.00 ##s", "9"]


def test_many_slices_are_for_the_metrics_command():
    many = {**VERDICT, "slices": VERDICT["slices"] * (console.FEW_SLICES + 1)}
    texts = []
    for all_slices in (False, True):
        stream = io.StringIO()
        console.show_verdict(console.plain_console(stream), many, all_slices)
        texts.append(stream.getvalue())
    assert [text.count("label pos") for text in texts] == [0, console.FEW_SLICES + 1]


@pytest.mark.parametrize("variable", ["CI", "NO_COLOR", "TERM"])
def test_a_terminal_may_ask_for_plain_text(monkeypatch, variable):
    for name in ("CI", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    terminal = SimpleNamespace(isatty=lambda: True)
    assert console.is_live(terminal)
    monkeypatch.setenv(variable, "dumb")
    assert not console.is_live(terminal)


CAPTURED = """
import os, subprocess, sys
from pipelines import console
with console.captured(sys.argv[1]) as screen:
    print("from Python")
    os.write(2, b"from C++\\n")
    subprocess.run(["echo", "from a process"])
    print("for the user", file=screen)
print("afterwards")
"""


def test_what_components_print_goes_to_the_log(tmp_path):
    log = tmp_path / "logs" / "1.log"
    run = subprocess.run([sys.executable, "-c", CAPTURED, log], capture_output=True, text=True, cwd=ROOT)
    assert (run.stdout, run.stderr) == ("for the user\nafterwards\n", "")
    assert sorted(log.read_text().splitlines()) == ["from C++", "from Python", "from a process"]


LIVE = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from modules import progress
from pipelines import console

def node(name, **of): return SimpleNamespace(**dict(id=name, state="waiting", note="", seconds=0.0, peak_mb=0,
                                                    started=time.monotonic(), **{}) | of)
nodes = [node("ExampleGen", state="waiting"), node("Trainer"), node("Pusher")]
with console.open_view(sys.stdout, "reviews", Path("/w/reviews"), Path("/w/1.log")) as view:
    view.starting("importing")
    time.sleep(0.5)
    view.begin(nodes)
    nodes[0].state, nodes[0].note = "cached", "same inputs as execution 1"
    view.changed(nodes[0])
    nodes[1].state = "running"
    view.changed(nodes[1])
    progress.report("epoch 1/3, step 40/120, loss 0.412")
    time.sleep(0.7)
    nodes[1].state, nodes[1].seconds, nodes[1].peak_mb = "done", 3.2, 812
    view.changed(nodes[1])
    nodes[2].state, nodes[2].note = "failed", "expected a better model"
    view.changed(nodes[2])
"""


def on_a_terminal(command, **environment):
    """Runs a command in a pseudo-terminal of 24 lines of 100 columns; returns what it wrote and its status."""
    try:
        main, side = pty.openpty()
    except OSError:
        pytest.skip("no pseudo-terminals here: /dev/pts is not mounted, as in a chroot")
    plain = {name: value for name, value in os.environ.items() if name not in ("CI", "NO_COLOR")}
    process = subprocess.Popen(command, stdin=side, stdout=side, stderr=side, cwd=ROOT, close_fds=True,
                               env={**plain, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "24", **environment})
    os.close(side)
    written, deadline = b"", time.monotonic() + 120
    while time.monotonic() < deadline and select.select([main], [], [], 120)[0]:
        try:
            piece = os.read(main, 65536)
        except OSError:   # the other side was closed
            break
        written += piece
    os.close(main)
    return written.decode(), process.wait(timeout=30)


def frames(written):
    """The texts that were drawn, one after the other, without colours."""
    plain = re.sub(r"\x1b\[[0-9;?]*[lhm]", "", written).replace("\r", "")
    return [re.sub(r"\x1b\[[0-9;]*[A-Z]", "", frame) for frame in re.split(r"(?:\x1b\[2K\x1b\[1A)+\x1b\[2K", plain)]


NOISE = """
import sys
from pathlib import Path
from pipelines import console
log = Path(sys.argv[1])
with console.captured(log) as screen, console.open_view(screen, "reviews", log.parent, log):
    print("a thousand lines of TFX")
    print("more of them", file=sys.stderr)
"""


def test_on_a_terminal_too_what_others_print_goes_to_the_log_alone(tmp_path):
    written, status = on_a_terminal([sys.executable, "-c", NOISE, str(tmp_path / "1.log")])
    assert status == 0
    assert "reviews" in written
    assert "TFX" not in written and "more of them" not in written
    assert sorted((tmp_path / "1.log").read_text().splitlines()) == ["a thousand lines of TFX", "more of them"]


TICKS = """
import sys, time
from modules import progress
from pipelines import console

with console.ticking(sys.stdout):
    progress.report("part 1: 12 rows read")
    time.sleep(0.3)
print("done")
"""


def test_a_terminal_shows_the_newest_progress_in_a_line_and_a_file_does_not():
    written, status = on_a_terminal([sys.executable, "-c", TICKS])
    assert status == 0 and "part 1: 12 rows read" in written
    assert subprocess.run([sys.executable, "-c", TICKS], capture_output=True, text=True).stdout.split() == ["done"]


def test_a_terminal_shows_all_components_live():
    written, status = on_a_terminal([sys.executable, "-c", LIVE])
    assert status == 0
    drawn = [[" ".join(line.split()) for line in frame.splitlines()] for frame in frames(written)]
    assert any(line.endswith("importing") for line in drawn[0])
    running = next(frame for frame in drawn if any("loss 0.412" in line for line in frame))
    assert running[:3] == ["reviews", "workspace /w/reviews", "log /w/1.log"]
    assert "≡ ExampleGen cached same inputs as execution 1" in running
    assert any(re.fullmatch(r"\S Trainer \d+\.\d s epoch 1/3, step 40/120, loss 0\.412", line) for line in running)
    assert "· Pusher" in running
    last = drawn[-1]
    assert "✓ Trainer 3.2 s peak 812 MB" in last
    assert "✗ Pusher 0.0 s stopped the run, see below" in last
