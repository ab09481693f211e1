"""Brings faults about and heals them: one context manager for each, by the fault's name.

Inside the block the fault is there; after it all is as before, or on the way there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from tests.faults.patient import Patient

Hand = Callable[[Patient], AbstractAsyncContextManager[None]]
HANDS: dict[str, Hand] = {}


def hand(name: str) -> Callable[[Callable[[Patient], AsyncIterator[None]]], Hand]:
    """Register what brings this fault about: an async generator that yields once, while the fault is there."""

    def register(generate: Callable[[Patient], AsyncIterator[None]]) -> Hand:
        HANDS[name] = asynccontextmanager(generate)
        return HANDS[name]

    return register
