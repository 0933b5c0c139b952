"""Which steps code may name: by texts in it and in what it refers to, and by nothing that stands beside it."""

from pathlib import Path
from typing import Any

import pytest

from replayforge.shadow.code_names import CodeNames
from tests.unit.shadow import named_elsewhere

SETTLE = "settle"
NAMES = {"first": ("pack", "label")}


def helper(ctx: Any) -> None:
    ctx.step(SETTLE, print)


def handler(event: Any, ctx: Any) -> None:
    helper(ctx)
    for name in NAMES["first"]:
        ctx.step(name, print)
    ctx.step(f"charge-{event.id}", print)
    raise ValueError(f"{event.id} is not known, {named_elsewhere.NAME}")


def another(event: Any, ctx: Any) -> None:
    ctx.step("beside", print)


@pytest.mark.parametrize(
    ("step", "held"),
    [
        ("settle", True), ("pack", True), ("label[a]#2", True), ("charge-7", True), ("elsewhere", True),
        ("beside", False), ("charge", False), ("settled", False),
    ],
)  # fmt: skip
def test_a_step_is_named_where_its_name_can_come_from(step: str, held: bool) -> None:
    """Constants, tables, other functions and modules count, texts with values in them as far as they fit."""
    names = CodeNames(handler, (str(Path(__file__).parent),), ())
    assert names.hold("step", step) is held
    assert names.hold("first", step)


def test_of_code_that_is_not_the_users_nothing_is_read() -> None:
    """Whatever is below other directories is left alone."""
    assert CodeNames(handler, ("/nowhere",), ()).texts == set()
