"""Seeded load for the stand-in engine: who asks how much, and when.

The sequence of sizes and pauses follows from the seed alone; how it falls on the clock does not.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import trio

from agent.devnet.completions import Model

CONCURRENCY_MAX = 32
PROMPT_TOKENS = (8, 256)
TOKENS_MAX = (16, 192)
"""Least and most of what a request asks for; all between are equally likely."""
PROMPT_TOKENS_MEAN = sum(PROMPT_TOKENS) / 2
GENERATION_TOKENS_MEAN = (1 + sum(TOKENS_MAX) / 2) / 2
"""The model stops anywhere up to what was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """One request: seconds to wait before it, its sizes in tokens, and whether its client hangs up midway."""

    pause_s: float
    prompt_tokens: int
    tokens_max: int
    aborted: bool


def demands(seed: int, rate: float, abort_per_mille: int) -> Iterator[Demand]:
    """Requests without end, `rate` (> 0) a second on average, Poisson distributed."""
    source = random.Random(seed)
    while True:
        yield Demand(
            pause_s=source.expovariate(rate),
            prompt_tokens=source.randint(*PROMPT_TOKENS),
            tokens_max=source.randint(*TOKENS_MAX),
            aborted=source.randrange(1000) < abort_per_mille,
        )


async def generate_load(model: Model, seed: int, rate: float, abort_per_mille: int = 0) -> None:
    """Ask the model until cancelled; at most `CONCURRENCY_MAX` requests at once, as an engine's queue would."""
    slots = trio.Semaphore(CONCURRENCY_MAX)
    async with trio.open_nursery() as nursery:
        for demand in demands(seed, rate, abort_per_mille):
            await trio.sleep(demand.pause_s)
            await slots.acquire()
            nursery.start_soon(_ask, model, demand, slots)


async def _ask(model: Model, demand: Demand, slots: trio.Semaphore) -> None:
    try:
        with trio.CancelScope() as client:
            if demand.aborted:
                # Reaches the model while it reads the prompt.
                client.deadline = trio.current_time()
            await model.complete(demand.prompt_tokens, demand.tokens_max)
    finally:
        slots.release()
