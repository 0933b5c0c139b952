"""Handlers that say what type their payload is of, in a whole daemon: async, in threads, subscribed, step by step."""

from typing import Any

import msgspec
import pytest

from replayforge import Context, Event, Handlers
from replayforge.testing import Forge

FITS, MISFIT = {"order": "a", "amount": 3}, {"order": "a", "amount": "three"}


class Payment(msgspec.Struct):
    order: str
    amount: int


class Loose(msgspec.Struct):
    order: str
    amount: int | str


def double(payment: Payment) -> int:
    return payment.amount * 2


async def pay(event: Event[Payment], ctx: Context) -> int:
    return double(event.payload)


def pay_in_thread(event: Event[Payment], ctx: Context) -> int:
    return double(event.payload)


async def pay_by_step(event: Event[Payment], ctx: Context) -> Any:
    return await ctx.step("pay", double, event.payload)


async def pay_within_step(event: Event[Payment], ctx: Context) -> Any:
    async def charge() -> int:
        return double(event.payload)

    return await ctx.step("pay", charge, attempts=3)


def pay_within_step_in_thread(event: Event[Payment], ctx: Context) -> Any:
    return ctx.step("pay", lambda: double(event.payload), attempts=3)


KINDS = [pay, pay_in_thread, pay_by_step, pay_within_step, pay_within_step_in_thread]


async def pay_without_looking(event: Event[Payment], ctx: Context) -> Any:
    return await ctx.step("charge", double, Payment("a", 3))


def pay_in_thread_without_looking(event: Event[Payment], ctx: Context) -> Any:
    return ctx.step("charge", double, Payment("a", 3))


async def audit(event: Event[Loose], ctx: Context) -> Any:
    return event.payload.amount


def handlers_of(function: Any) -> Handlers:
    handlers = Handlers()
    handlers.on("payment")(function)
    return handlers


@pytest.mark.parametrize("function", KINDS, ids=lambda one: one.__name__)
async def test_what_does_not_fit_is_a_dead_letter_at_once_and_runs_when_the_code_is_right(function: Any) -> None:
    """A payload that fits is the typed value; one that does not spends one attempt, and a replay finds the new code."""
    handlers = handlers_of(function)
    async with Forge(handlers) as forge:
        good, bad = await forge.send("payment", FITS), await forge.send("payment", MISFIT)
        await forge.settled()
        assert (good.status, good.result) == ("succeeded", 6)
        assert (bad.status, bad.reason, len(bad.attempts)) == ("dead_lettered", "bad_payload", 1)
        words = "BadPayload: The payload does not fit Payment: at $.amount, expected `int`, got `str`.\n"
        assert (bad.last_error or "").startswith(words)
        handlers.registered.clear()
        handlers.on("payment")(audit)
        await forge.restart()
        await forge.replay(bad)
        await forge.settled()
        assert (bad.status, bad.result, bad.run) == ("succeeded", "three", 2)


@pytest.mark.parametrize("function", [pay_without_looking, pay_in_thread_without_looking], ids=["async", "thread"])
async def test_nothing_of_a_handler_runs_for_a_payload_that_does_not_fit(function: Any) -> None:
    """Neither a step that comes before its first look at the payload, nor one that never looks."""
    async with Forge(handlers_of(function)) as forge:
        good, bad = await forge.send("payment", FITS), await forge.send("payment", MISFIT)
        await forge.settled()
        assert (good.status, len(good.steps)) == ("succeeded", 1)
        assert (bad.status, bad.reason, len(bad.steps)) == ("dead_lettered", "bad_payload", 0)


async def test_each_subscriber_has_a_type_of_its_own() -> None:
    """One event is one type to its handler and another one to a subscriber; a misfit touches only whose it is."""
    handlers = handlers_of(pay)
    handlers.subscribe("payment", name="audit")(audit)
    async with Forge(handlers) as forge:
        event = await forge.send("payment", MISFIT)
        await forge.settled()
        outcomes = {(one.status, one.reason, one.result) for one in await forge.events("payment") if one.id != event.id}
        assert outcomes == {("dead_lettered", "bad_payload", None), ("succeeded", None, "three")}
