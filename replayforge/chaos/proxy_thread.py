"""TCP proxies on a thread of their own, for whoever has no event loop."""

import asyncio
import threading
from typing import Self

from replayforge.chaos.tcp_proxy import TcpProxy


class ProxyThread(threading.Thread):
    """Runs the proxies to which it is asked to open ways; use as `with ProxyThread() as network`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.loop = asyncio.new_event_loop()
        self.proxies: list[TcpProxy] = []

    def run(self) -> None:
        """Serve until told to stop."""
        self.loop.run_forever()
        self.loop.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        for proxy in self.proxies:
            asyncio.run_coroutine_threadsafe(proxy.__aexit__(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.join()

    def open(self, port: int) -> TcpProxy:
        """Open a proxy before a port on this machine."""
        proxy = asyncio.run_coroutine_threadsafe(TcpProxy(port).__aenter__(), self.loop).result(10)
        self.proxies.append(proxy)
        return proxy

    def do(self, proxy: TcpProxy, verb: str) -> None:
        """Have a proxy do one of its verbs, such as "blackhole" or "heal"."""
        self.loop.call_soon_threadsafe(getattr(proxy, verb))
