"""The sources that the settings name, opened.

What answers at a source's address is untrusted: it sets no cookie, for the next source on this host would be sent it.

Source: METERING; each plug-in says what it reads (`agent.meter.engine`, `agent.meter.cocoon`, `agent.meter.nvml`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import trio

from agent.config import Config
from agent.http_read import no_cookies
from agent.meter.cocoon import PORT, PORT_STEP, CocoonSource
from agent.meter.engine import EngineSource
from agent.meter.nvml import NvmlSource
from agent.meter.sources import MeterSource


@asynccontextmanager
async def open_sources(config: Config) -> AsyncIterator[list[MeterSource]]:
    """Open the sources, engines first; they close with the block."""
    async with httpx.AsyncClient(trust_env=False, follow_redirects=False, cookies=no_cookies()) as client:
        sources: list[MeterSource] = []
        if config.engine is not None:
            sources += [EngineSource(client, url=url, instance=i) for i, url in enumerate(config.engine.urls)]
        if (cocoon := config.cocoon) is not None:
            urls = cocoon.urls or [f"http://{cocoon.host}:{PORT + PORT_STEP * number}" for number in cocoon.workers]
            sources += [
                CocoonSource(client, number, url=url, access_hash=cocoon.access_hash)
                for number, url in zip(cocoon.workers, urls, strict=True)
            ]
        if not config.gpus.nvml:
            yield sources
            return
        gpus = NvmlSource()
        try:
            yield [*sources, gpus]
        finally:
            with trio.CancelScope(shield=True):
                await gpus.aclose()
