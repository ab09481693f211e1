"""The pool in which the checks run, and what earlier checks left for later ones.

Five operators of equal weight: three nodes of this project, one js-libp2p peer, and (for the last check) a second
one that takes part in no mesh. So neither side is a quorum: the epoch settles only with the observation and the
vote of the other implementation.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from tests.interop.foreign import Foreign
from tests.interop.pool import EpochEnd, Member

OURS, N = 3, 5
"""Nodes of this project, and participants in all."""
PATIENCE_S = 20.0


@dataclass
class Scene:
    """The pool, and what earlier checks left for later ones."""

    members: list[Member]
    js: Foreign
    address: str
    epoch: EpochEnd = field(init=False)

    def __post_init__(self) -> None:
        self.epoch = EpochEnd(self.members, N)

    @property
    def peer(self) -> str:
        """Node key of our first node, as the other side names it."""
        return self.members[0].node.key.public.hex()

    def js_heads(self) -> list[int]:
        """How far each of our nodes holds the log of the other side."""
        return [member.node.logs[self.js.node_key].head.seq for member in self.members]


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    with trio.fail_after(PATIENCE_S):
        while not await holds():  # noqa: ASYNC110 what it looks at has no event
            await trio.sleep(0.05)
