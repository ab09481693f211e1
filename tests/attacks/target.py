"""Whom to attack, from which addresses, and how to go on when the victim cuts one off."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
from raw_peer import RawPeer, open_raw_peer


@dataclass
class Target:
    """Whom to attack, and what was sent until now."""

    port: int
    node_key: bytes
    sent: Counter[str] = field(default_factory=Counter)
    keys: int = 0

    @asynccontextmanager
    async def peer(self, source: str, *, seed: bytes | None = None, **habits: bool) -> AsyncIterator[RawPeer]:
        """A raw peer with a fresh key, unless `seed` names one."""
        self.keys += 1
        fresh = hashlib.sha256(f"{source} {self.keys} {os.getpid()}".encode()).digest()
        async with open_raw_peer(self.port, seed or fresh, self.node_key, source=source, **habits) as peer:
            self.sent["connections"] += 1
            yield peer


Attack = Callable[[Target], Awaitable[None]]


async def again_and_again(once: Callable[[], Awaitable[None]]) -> None:
    """For ever; whatever the victim does to a connection, the next one follows."""
    while True:
        try:
            await once()
        except (OSError, trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        except Exception:  # noqa: BLE001 the libraries have a kind of exception for every way of being cut off
            pass
        await trio.sleep(0.02)


async def in_parallel(*attacks: Callable[[], Awaitable[None]]) -> None:
    async with trio.open_nursery() as nursery:
        for attack in attacks:
            nursery.start_soon(again_and_again, attack)


def source_of(group: int, number: int) -> str:
    return f"127.{group}.{number // 250}.{number % 250 + 1}"
