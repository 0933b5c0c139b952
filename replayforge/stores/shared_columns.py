"""Finds the columns that hold one value in every row of a batch, so that a driver passes it once."""

from collections.abc import Sequence
from typing import Any


def shared_columns(columns: Sequence[Sequence[Any]]) -> tuple[bool, ...]:
    """Say of each column whether it holds one value; one column is left for the rows, even if they are all the same."""
    shared = tuple(map(is_one_value, columns))
    return (False, *shared[1:]) if all(shared) else shared


def is_one_value(column: Sequence[Any]) -> bool:
    """Tell whether all rows have the same in a column."""
    return bool(column[0] == column[-1]) and column.count(column[0]) == len(column)
