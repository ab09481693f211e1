"""A status page on a real listener, in a thread of its own, for browsers; what it shows can be changed meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import trio
from prometheus_client import CollectorRegistry

from agent.page.document import page
from agent.page.facts import PageFacts
from agent.web import Probes, WebConfig, serve_web


class PageServer:
    """`facts` is what the next answer shows; `asked` counts the answers."""

    def __init__(self, facts: PageFacts) -> None:
        self.facts = facts
        self.asked = 0
        self.port = 0
        self._thread: threading.Thread | None = None
        self._stop: trio.CancelScope
        self._token: trio.lowlevel.TrioToken

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}/"

    def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        listens = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._serve, listens), daemon=True)
        self._thread.start()
        assert listens.wait(timeout=30)

    def stop(self) -> None:
        """Be gone, as an agent that was killed is."""
        if self._thread is not None:
            self._token.run_sync_soon(self._stop.cancel)
            self._thread.join(timeout=30)
            assert not self._thread.is_alive()
            self._thread = None

    async def _page(self) -> str:
        self.asked += 1
        return page(self.facts)

    async def _serve(self, listens: threading.Event) -> None:
        probes = Probes(healthy=lambda: None, ready=lambda: None, status=dict, page=self._page)
        self._token = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as self._stop:
            async with trio.open_nursery() as nursery:
                _, self.port = await nursery.start(serve_web, WebConfig(port=self.port), CollectorRegistry(), probes)
                listens.set()


@contextmanager
def page_server(facts: PageFacts) -> Iterator[PageServer]:
    server = PageServer(facts)
    server.start()
    try:
        yield server
    finally:
        server.stop()
