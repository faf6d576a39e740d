"""Examples/s of a training epoch on MRPC's pairs: length buckets beside padding every pair to 128 tokens.

    python benchmarks/mrpc_epoch.py [--rows 25000] [--slices 12]

The measurement is that of `buckets.py`: same precision, same run, the two sides in turns. MRPC in GLUE's layout is
looked for in `data/mrpc` of the folder that TEXTRAIL_SHARED names.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.buckets import main

if __name__ == "__main__":
    main("mrpc", __doc__)
