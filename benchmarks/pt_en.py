"""Minutes and BLEU of a translator of real Portuguese, from reading to push.

    python benchmarks/pt_en.py --workspace DIR
    python benchmarks/pt_en.py --workspace DIR --set training.epochs=2

51,181 pairs of sentences (Tatoeba's and those of the Python documentation, `pt<TAB>en`) are split by a hash of the
Portuguese side: 96 % to train on, 2 % to watch meanwhile and 2 % held out for the pipeline's own BLEU. The pushed model
is then asked the 1,193 sentences of TED's validation split, another kind of text: talks, lower-cased, its punctuation
set off by spaces. There both sides are compared without case, and without the spaces that TED's tokenizer made.
Skips with a sentence where the pairs are not there.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from sacrebleu.metrics import BLEU, CHRF

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from benchmarks import PT_EN

TRAINED_ON = ("tatoeba.tsv.gz", "pydocs.tsv.gz")
SETTINGS: dict[str, dict] = {
    "data": {"source": "csv", "quoting": "none", "text": "pt", "target": "en",
             "split": {"train": 0.96, "validation": 0.02, "test": 0.02}},
    "vocabulary": {"size": 8000},
    "model": {"max_tokens": 64, "layers": 3, "hidden_size": 256, "inner_size": 1024, "norm": "pre", "tied": "target"},
    "training": {"epochs": 8, "schedule": "linear", "learning_rate": 1e-3, "warmup_steps": 1000, "batch_tokens": 8192,
                 "max_batch": 256, "average_checkpoints": 3},
    "evaluation": {"thresholds": {"bleu": {"min": 20}}},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", metavar="DIR", help="kept, so that a killed run is taken up again")
    parser.add_argument("--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[])
    options = parser.parse_args()
    if not PT_EN.is_dir():
        print(f"Skipped: no pairs at {PT_EN}; TEXTRAIL_SHARED names the folder with data/pt_en/tatoeba.tsv.gz.")
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.workspace or temporary).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        settings = folder / "pt_en.yaml"
        settings.write_text(yaml.safe_dump(
            {"shape": "translation", **SETTINGS, "data": SETTINGS["data"] | {"path": str(pairs(folder))}}))
        overrides = [word for override in options.overrides for word in ("--set", override)]
        began = time.perf_counter()
        status = textrail("run", str(settings), "--workspace", str(folder), *overrides)
        minutes = (time.perf_counter() - began) / 60
        if status:
            sys.exit(status)
        judged = subprocess.run([sys.executable, "-m", "pipelines.cli", "metrics", "pt_en", "--json", "--workspace",
                                 str(folder)], cwd=PROJECT, capture_output=True, text=True, check=True)
        verdict = json.loads(judged.stdout)
        print(f"\n{minutes:.1f} minutes from reading to push")
        print(f"held out, {verdict['examples']} pairs: BLEU {verdict['metrics']['bleu']:.1f}, "
              f"chrF {verdict['metrics']['chrf']:.1f}")
        print(f"TED, {ted(folder)}")


def pairs(folder: Path) -> Path:
    """All pairs in one file whose first line names the columns."""
    path = folder / "pairs.tsv"
    with path.open("w", encoding="utf-8") as out:
        out.write("pt\ten\n")
        for name in TRAINED_ON:
            with gzip.open(PT_EN / name, "rt", encoding="utf-8") as file:
                out.writelines(file)
    return path


def ted(folder: Path) -> str:
    """What the pushed model makes of TED's sentences."""
    rows = [line.split("\t") for line in (PT_EN / "ted_validation.tsv").read_text("utf-8").splitlines()]
    asked, answered = folder / "ted.tsv", folder / "ted_out.tsv"
    asked.write_text("".join(f"{line}\n" for line in ("pt", *(joined(pt) for pt, _ in rows))), "utf-8")
    if status := textrail("predict", "pt_en", "--workspace", str(folder), "--file", str(asked), "--out", str(answered)):
        sys.exit(status)
    with answered.open(encoding="utf-8", newline="") as file:
        translations = [row["translation"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    references = [[joined(en) for _, en in rows]]
    bleu, chrf = BLEU(lowercase=True), CHRF(lowercase=True)
    scores = [metric.corpus_score(translations, references).score for metric in (bleu, chrf)]
    return (f"{len(rows)} pairs: BLEU {scores[0]:.1f} ({bleu.get_signature()}), chrF {scores[1]:.1f}")


def joined(text: str) -> str:
    """A tokenized sentence as one writes it: `it 's , you know .` → `it's, you know.`"""
    text = re.sub(r" ?(``|'')", '"', text)
    text = re.sub(r" (n't|'(?:s|t|m|d|re|ve|ll))\b", r"\1", text)
    text = re.sub(r" ([.,;:!?%)\]])", r"\1", text)
    return re.sub(r"([(\[]) ", r"\1", text)


def textrail(*arguments: str) -> int:
    return subprocess.run([sys.executable, "-m", "pipelines.cli", *arguments], cwd=PROJECT).returncode


if __name__ == "__main__":
    main()
