"""Three subscribers that note what they get; one fails at first, and one for good where its event says so."""

from pathlib import Path

from replayforge import Context, Event, Handlers, Permanent

handlers = Handlers()
NOTES = Path("notes.txt")


def note(event: Event) -> None:
    with NOTES.open("a") as notes:
        notes.write(f"{event.subscriber}\t{event.payload['n']}\n")


@handlers.subscribe("fan.*", name="crm")
async def crm(event: Event, ctx: Context) -> None:
    note(event)


@handlers.subscribe("fan.*", name="mail")
async def mail(event: Event, ctx: Context) -> None:
    note(event)
    if event.attempt == 1 and event.payload["n"] % 10 == 0:
        raise RuntimeError("it fails at first")


@handlers.subscribe("fan.out", name="search")
async def search(event: Event, ctx: Context) -> None:
    note(event)
    if event.payload["n"] % 10 == 5:
        raise Permanent("it fails for good")
