"""The status page of a real agent that is all alone: no chain answers, and yet the page says what is wrong."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
import trio
from agent_on_disk import agent_on_disk

from agent.client import url_of
from agent.daemon import Agent

pytestmark = pytest.mark.slow


async def page_with(client: httpx.AsyncClient, text: str) -> str:
    """The page, once this text is on it."""
    with trio.fail_after(60):
        while True:
            try:
                html = (await client.get("/")).text
            except httpx.TransportError:
                html = ""  # it does not listen yet
            if text in html:
                return html
            await trio.sleep(0.2)


async def test_a_lonely_agent_says_what_is_wrong(tmp_path: Path) -> None:
    config = agent_on_disk(tmp_path)
    agent = Agent(config)
    assert agent.attesting.on_begun == agent.measuring.part, "the meter hears of evidence"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(agent.run)
        async with httpx.AsyncClient(trust_env=False, base_url=url_of(config), headers={"Host": "localhost"}) as client:
            first = await page_with(client, "gpupool")
            assert agent.key.public.hex()[:8] in first
            found = await page_with(client, "You do not earn")
            status = (await client.get("/-/status")).json()
        nursery.cancel_scope.cancel()
    agent.ledger.close()
    agent.journal.close()
    assert "What to do:" in found
    assert "The doctor looked" in found
    assert "No other node is known yet." in found
    assert "The chain was not reached yet." in found or "liteserver" in found
    assert status["peers"] == []
    assert status["evidence"]["peers"] == {}
