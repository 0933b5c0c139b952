"""An order that fails at first, then takes a step in which its code begins a span of its own, and sends an event on."""

from opentelemetry import trace

from replayforge import Context, Event, Handlers

handlers = Handlers()


@handlers.on("order.placed")
async def place(event: Event, ctx: Context) -> dict[str, str]:
    if event.attempt == 1:
        raise ConnectionError("the bank is closed")
    await ctx.step("charge", charge)
    await ctx.send("order.shipped")
    return ctx.trace_headers


def charge() -> str:
    with trace.get_tracer("shop").start_as_current_span("bank"):
        return "paid"
