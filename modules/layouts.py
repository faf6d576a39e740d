"""The layouts in which encoders come, each with its reader."""

from collections.abc import Callable
from pathlib import Path

from modules.checkpoints import Checkpoint, Hints, read_huggingface
from modules.export_reader import read_export
from modules.saved_models import read_saved_model
from modules.tensorflow_checkpoints import read_checkpoint

# Layout, as `components.encoder_sources` detects it → its reader.
READERS: dict[str, Callable[[Path, Hints], Checkpoint]] = {
    "huggingface": read_huggingface,
    "checkpoint": read_checkpoint,
    "saved_model": read_saved_model,
    "textrail": read_export,
}
