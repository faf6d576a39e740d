"""How code deep inside a component tells whoever watches how far it is.

Progress travels through Python's logging, so that a module needs no knowledge of terminals, pipelines or
notebooks: the console attaches a handler to this logger, and without one nothing happens.
"""

import logging
import math

LOGGER = logging.getLogger("textrail.progress")
LOGGER.setLevel(logging.INFO)
LOGGER.propagate = False
LOGGER.addHandler(logging.NullHandler())


def report(message: str, **fields: object) -> None:
    """Tells that work goes on.

    Args:
        message: one line for a person, e.g. "epoch 1/3, step 40/120, loss 0.412, 182 examples/s, 31 s left".
        **fields: the same as data, e.g. `epoch=1, step=40, loss=0.412`; `lasting=True` marks an event worth a
            line of its own on a plain terminal (an epoch's end, the chosen precision) as against a tick.
    """
    LOGGER.info(message, extra={"progress": fields})


def duration(seconds: float) -> str:
    """Seconds as a person says them: "3.2 s", "42 s", "2 min 05 s", "1 h 02 min"; "?" if nobody knows."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
