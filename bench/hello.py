"""A bare aiohttp server: decodes a POSTed JSON body, answers JSON, does nothing else."""

import asyncio
import signal
import sys

import msgspec
from aiohttp import web

from replayforge.daemon import listen
from replayforge.event_loop import loop_factory


async def greet(request: web.Request) -> web.Response:
    """Answer with a little of what was sent."""
    document = msgspec.json.decode(await request.read())
    return web.Response(body=msgspec.json.encode({"hello": document["workflow_id"]}), content_type="application/json")


async def serve() -> None:
    """Serve until told to stop."""
    application = web.Application()
    application.router.add_post("/api/events", greet)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    listening = listen("127.0.0.1", 0)
    await web.SockSite(runner, listening).start()
    sys.stdout.write(f"hello listens on http://127.0.0.1:{listening.getsockname()[1]}\n")
    sys.stdout.flush()
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    await told.wait()
    await runner.cleanup()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve())
