"""An asyncio event loop in a thread of its own, awaited from trio.

pytoniq speaks asyncio and leaves failed tasks behind when a server goes away. In a loop of its own
these can end neither the agent's tasks nor its loop (trio-asyncio would raise them here).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class LoopThread:
    """A running loop. Made by `open_loop_thread`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    async def run(self, function: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Run `function()` in the loop and return or raise what it does.

        Cancellation cancels it over there too.
        """
        token = trio.lowlevel.current_trio_token()
        done = trio.Event()

        def wake(_: Future[_T]) -> None:
            try:
                token.run_sync_soon(done.set)
            except trio.RunFinishedError:
                _log.debug("a call ended after trio did")

        future = asyncio.run_coroutine_threadsafe(function(), self._loop)
        future.add_done_callback(wake)
        try:
            await done.wait()
        except trio.Cancelled:
            future.cancel()
            raise
        return future.result()


@asynccontextmanager
async def open_loop_thread(name: str) -> AsyncIterator[LoopThread]:
    """Start the thread; on the way out cancel whatever still runs in its loop, and join it."""
    loop = asyncio.SelectorEventLoop()
    loop.set_exception_handler(_ignore)
    thread = threading.Thread(target=_run, args=(loop,), name=name, daemon=True)
    thread.start()
    try:
        yield LoopThread(loop)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(thread.join)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    finally:
        loop.close()


def _ignore(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What a forgotten task raised: the call that suffers from it raises on its own."""
    _log.debug("background task: %s", context.get("exception") or context.get("message"))
