"""The one exception a user is meant to read."""

# What an op says where no exception of ours can be raised, with the label behind it.
UNKNOWN_LABEL = "a label that is no class of the schema: "


class TextrailError(Exception):
    """Bad input or a gate that stopped, told as what was expected, what came and what to do.

    The message stands alone: the terminal prints it without a traceback, as the failed component's sentence.

    Args:
        expected: what the code needed, e.g. "a file with the columns 'review' and 'sentiment'".
        received: what came instead, naming the file, row, feature or key.
        fix: what the user can do about it.
    """

    def __init__(self, expected: str, received: str, fix: str):
        self.expected, self.received, self.fix = expected, received, fix
        # What others said has a full stop of its own; a table ends its last line.
        end = {".": " ", "\n": ""}.get(received[-1:], ". ")
        super().__init__(f"expected {expected}; received {received}{end}{fix}")

    def __reduce__(self):
        # Beam carries exceptions between processes by pickling them, which needs the three parts back.
        return type(self), (self.expected, self.received, self.fix)


def is_interruption(error: BaseException) -> bool:
    """Whether someone ended the process, by Ctrl-C or SIGTERM; Beam makes a RuntimeError of that."""
    return isinstance(error, KeyboardInterrupt) or (
        isinstance(error, RuntimeError) and str(error).startswith("KeyboardInterrupt"))
