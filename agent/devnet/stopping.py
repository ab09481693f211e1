"""Plays the cheats whose agent is stopped for a part of each epoch: `withhold` and `uptime`.

The process does not end, it stands still (SIGSTOP), as it would in a host that is suspended. Its engine works on.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

from agent.devnet.cheats import is_stopped
from agent.devnet.onlooker import POLL_S, Onlooker
from agent.devnet.processes import Child


async def stop_now_and_then(
    strategy: str,
    agent: Child,
    onlooker: Onlooker,
    epoch_s: int,
    last_epoch: Callable[[], int],
    now_s: Callable[[], float] = time.time,
) -> None:
    """Stop and resume `agent`, for ever, once it has work to its name; after the last epoch it goes on for good.

    Cancelled, it runs.
    """
    while not onlooker.has_worked(agent.name):  # noqa: ASYNC110 -- another process's state
        await trio.sleep(POLL_S)
    try:
        while True:
            rewards = onlooker.rewards
            if rewards is not None:
                into_s = epoch_s - (rewards.current_end_s - now_s())
                place = {"epoch": rewards.current_epoch, "last_epoch": last_epoch()}
                if is_stopped(strategy, into_s=into_s, epoch_s=epoch_s, **place):
                    agent.pause()
                else:
                    agent.resume()
            await trio.sleep(POLL_S)
    finally:
        agent.resume()
