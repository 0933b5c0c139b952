"""What runs in the test command and what only among the slow proofs, `pytest -m slow`, which CI runs as well."""

from collections.abc import Iterable
from typing import Any

import pytest


def the_rest_slow(values: Iterable[Any], now: int = 1) -> list[Any]:
    """Return parameters of which the first `now` run in the test command: the rest say it again of another kind."""
    return [value if at < now else pytest.param(value, marks=pytest.mark.slow) for at, value in enumerate(values)]
