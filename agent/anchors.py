"""Anchors: is a block that evidence names one of the masterchain? Only the chain can say; its word is remembered.

1. The first block of the anchor's second is looked up by time, which every liteserver can do for recent times;
   the anchor is that block, or one of the few after it in the same second. A number that lies elsewhere needs no
   lookup: it may be one that servers have forgotten long ago.
2. Nothing is decided about a time that the head has not passed: another block of that second may still come.
3. Only a block that was found decides, for and against. While the chain does not answer, nothing is known.

How old an anchor may be that anybody asks for is the policy's (`work.anchor_age_max_s`), not decided here.

Source: ATTESTATION, "Binding"; docs/adr/0007.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

import trio

from contracts.chain import Block, Chain
from contracts.errors import ChainUnavailableError, ContractsError
from gossip.epoch_events import Anchor

ANCHORS_MAX = 262_144
SAME_SECOND_MAX = 64
"""More blocks than that in one second the masterchain does not make."""
LOOKUPS_AT_ONCE = 8

log = logging.getLogger(__name__)


class Anchors:
    """What the chain said of anchors, at most `ANCHORS_MAX` of them; the oldest are forgotten first."""

    def __init__(self) -> None:
        self._known: dict[Anchor, bool] = {}

    def word_on(self, anchor: Anchor) -> bool | None:
        """Whether it is a block of the masterchain; None if nobody asked yet."""
        return self._known.get(anchor)

    def trust(self, anchor: Anchor) -> None:
        """Take this anchor as a block of the masterchain: it was read from there just now."""
        self._keep(anchor, is_block=True)

    async def confirm(self, chain: Chain, anchor: Anchor) -> bool:
        """Ask the chain, unless its word is known.

        Raises:
            ContractsError: the chain cannot say now.
        """
        known = self._known.get(anchor)
        return await self._look_up(chain, anchor) if known is None else known

    async def confirm_all(self, chain: Chain, anchors: Collection[Anchor]) -> None:
        """Ask the chain for all of them, several at a time; those that it cannot say now stay unknown."""
        limit = trio.CapacityLimiter(LOOKUPS_AT_ONCE)

        async def confirm(anchor: Anchor) -> None:
            async with limit:
                try:
                    await self.confirm(chain, anchor)
                except ContractsError as error:
                    log.debug("anchor %d cannot be looked up now: %s", anchor.seqno, error)

        async with trio.open_nursery() as nursery:
            for anchor in anchors:
                nursery.start_soon(confirm, anchor)

    async def _look_up(self, chain: Chain, anchor: Anchor) -> bool:
        head = await chain.head()
        if anchor.time_s >= head.time_s and anchor.seqno > head.seqno:
            raise ChainUnavailableError(f"block {anchor.seqno} is ahead of the head")
        block = await chain.block_at(anchor.time_s)
        if block.time_s == anchor.time_s and 0 < anchor.seqno - block.seqno < SAME_SECOND_MAX:
            block = await chain.block_by_seqno(anchor.seqno)
        return self._keep(anchor, is_block=anchor == _anchor(block))

    def _keep(self, anchor: Anchor, *, is_block: bool) -> bool:
        while len(self._known) >= ANCHORS_MAX:
            del self._known[next(iter(self._known))]
        self._known[anchor] = is_block
        return is_block


def _anchor(block: Block) -> Anchor:
    return Anchor(seqno=block.seqno, root_hash=block.root_hash, time_s=block.time_s)
