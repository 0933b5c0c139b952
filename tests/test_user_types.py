"""What a type checker says of the code of users: it knows every public name, and finds what is wrong."""

import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.style  # mypy reads the package anew for it

RIGHT = """
import asyncio
from functools import partial

import msgspec

from replayforge import AsyncClient, Client, Context, Event, Handlers, Permanent, Retry, StepFailed, WaitTimedOut
from replayforge.testing import Forge

handlers = Handlers()
handlers.signal("order.confirmed")


class Payment(msgspec.Struct):
    order: str
    amount: int


class Receipt(msgspec.Struct):
    id: str


async def charge(amount: int, currency: str = "EUR") -> Receipt:
    return Receipt(f"{amount} {currency}")


def book(receipt: Receipt, *, ledger: str) -> str:
    return f"{ledger}/{receipt.id}"


@handlers.on("payment.*", max_attempts=6, timeout_seconds=30)
async def pay(event: Event[Payment], ctx: Context) -> dict[str, str]:
    if event.payload.amount < 0:
        raise Permanent("negative")
    receipt: Receipt = await ctx.step("charge", charge, event.payload.amount, attempts=3, type=Receipt)
    await ctx.step("charge more", charge, 3, "USD")
    await ctx.step("charge less", charge, 3, currency="USD")
    await ctx.step("charge again", partial(charge, 3, currency="USD"), attempts=2)
    await ctx.step("one", lambda: 1)
    await ctx.step("two", lambda: 1, once=True)
    booked: str = await ctx.step("book", book, receipt, ledger="sales")
    ctx.log.info("booked", ledger=booked)
    try:
        await ctx.wait_for("order.confirmed", timeout_seconds=60)
    except WaitTimedOut:
        raise Retry("not yet", after=60) from None
    except StepFailed as error:
        raise Permanent(str(error)) from error
    await ctx.sleep("a while", 5)
    mailed = await ctx.call("mail.sent", {"to": event.payload.order})
    return {"booked": booked, "mailed": str(mailed)}


@handlers.on("order.*")
def plain(event: Event, ctx: Context) -> str:
    return str(ctx.step("charge", charge, 1)) + str(event.payload["total"])


def send_some() -> str:
    with Client() as client:
        sent = client.send("payment.made", {"order": "a", "amount": 3}, workflow_id="order-17")
        for one in client.events(status="dead_lettered"):
            client.replay(one["id"], reason="again")
        client.result(sent.id, timeout_seconds=5)
        return sent.id


async def send_more() -> list[str]:
    async with AsyncClient("http://127.0.0.1:8787", "rf_x") as client:
        sent = await client.send("payment.made", {"order": "a", "amount": 3})
        return [sent.id, *[one["id"] async for one in client.events()]]


async def test_pay() -> None:
    async with Forge(handlers) as forge:
        event = await forge.send("payment.made", {"order": "a", "amount": 3}, workflow_id="order-17")
        await forge.advance(days=1)
        assert event.status == "succeeded"
        assert event.attempts[0].outcome == "succeeded"


if __name__ == "__main__":
    send_some()
    asyncio.run(send_more())
"""

# Each line with a mark is wrong, and no other is.
WRONG = """
from functools import partial

import msgspec

from replayforge import AsyncClient, Client, Context, Event, Handlers
from replayforge.testing import Forge

handlers = Handlers()


class Payment(msgspec.Struct):
    order: str
    amount: int


async def charge(amount: int, currency: str = "EUR") -> int:
    return amount


@handlers.on("payment.*", max_attempts="six")  # WRONG
async def pay(event: Event[Payment], ctx: Context) -> None:
    await ctx.step("text for a number", charge, event.payload.order)  # WRONG
    await ctx.step("the same with options", charge, "twelve", attempts=3)  # WRONG
    await ctx.step("one too many", charge, 1, "EUR", 2)  # WRONG
    await ctx.step("a number for text", charge, 1, currency=2)  # WRONG
    await ctx.step("by name beside options", charge, 1, currency=2, attempts=3)  # WRONG
    await ctx.step("the same in one", partial(charge, 1, currency=2), attempts=3)  # WRONG
    await ctx.step("no name of it", charge, 1, currenzy="EUR")  # WRONG
    print(event.payload.amuont)  # WRONG
    print(event.attemt)  # WRONG
    await ctx.sleep("a while", "5")  # WRONG
    ctx.nap()  # WRONG


async def use() -> None:
    Client().result(17)  # WRONG
    async with AsyncClient() as client, Forge(handlers) as forge:
        client.send("payment.made").id  # WRONG
        await forge.advance(day=1)  # WRONG
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What mypy says of both, far from the tree: the package is known to it as an installed one is."""
    place = tmp_path_factory.mktemp("user")
    (place / "right.py").write_text(RIGHT)
    (place / "wrong.py").write_text(WRONG)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context"]
    done = subprocess.run([*command, "right.py", "wrong.py"], cwd=place, check=False, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    return done.stdout


def test_a_typical_file_of_handlers_is_clean(said: str) -> None:
    """Typed payloads, steps, both clients and a Forge need no cast and no ignored line under mypy --strict."""
    assert [line for line in said.splitlines() if line.startswith("right.py")] == []


def test_what_is_used_wrongly_is_found(said: str) -> None:
    """Arguments of a step, attributes of a payload and of what we give, and arguments of ours are all known."""
    marked = {at for at, line in enumerate(WRONG.splitlines(), 1) if line.endswith("# WRONG")}
    assert {int(at) for at in re.findall(r"^wrong\.py:(\d+): error", said, re.MULTILINE)} == marked, said
