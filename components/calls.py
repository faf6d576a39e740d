"""Which rows share a call of a model: rows of like length, and no more of them than memory is meant for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def bounded_calls(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Groups rows by length, so that little of a call is padding and none is larger than the budget.

    With the lengths [2, 9, 3, 2] and the budget 6: [0, 3] of 2 each, then [2] and [1], which is longer than the budget
    and therefore alone.

    Args:
        lengths: one a row, in whatever unit the budget has.
        budget: most that a call holds, padding included: its rows times its longest.

    Yields:
        Row numbers of one call, ascending in length; every row is in one call.
    """
    call: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: int(lengths[row])):
        if call and (len(call) + 1) * int(lengths[row]) > budget:
            yield call
            call = []
        call.append(row)
    if call:
        yield call
