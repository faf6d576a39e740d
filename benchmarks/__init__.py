"""Where the larger texts and golden numbers are, for the benchmarks and the tests; both do without where they are not.

The environment variable `TEXTRAIL_SHARED` names their folder; without it, it is `shared/` beside the checkout.
"""

import os
from pathlib import Path

SHARED = Path(os.environ.get("TEXTRAIL_SHARED") or Path(__file__).resolve().parents[2] / "shared")
IMDB = SHARED / "data/imdb/train.csv.gz"   # 25,000 reviews, columns `review` and `sentiment`
IMDB_TEXTS = SHARED / "data/imdb/unlabelled.txt.gz"   # 50,000 reviews, one a line
MRPC = SHARED / "data/mrpc"                # train.tsv and validation.tsv in GLUE's layout
PT_EN = SHARED / "data/pt_en"              # tatoeba.tsv.gz, pydocs.tsv.gz, ted_validation.tsv: pt<TAB>en, no header


def mrpc_settings() -> list[str]:
    """The overrides with which `textrail run mrpc` reads GLUE's TSV files."""
    paths = ", ".join(f"{split}: {MRPC / split}.tsv" for split in ("train", "validation"))
    return ["data.source=csv", "data.quoting=none", f"data.path={{{paths}}}"]
