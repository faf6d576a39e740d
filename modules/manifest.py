"""Where a SavedModel of this project says what it is, beside its signatures."""

MANIFEST = "assets.extra/textrail.json"
