"""How the last agent of a dev network may cheat, and what the pool's policy may demand of everybody.

What real processes can play, with agents that are not changed: an engine that lies, a machine that proves itself for
two nodes, a process that is stopped and goes on. Whatever else somebody may try needs an agent of their own making.
"""

from __future__ import annotations

from agent.errors import ConfigError

CHEATS = {
    "inflate": "its engine reports ten times its tokens",
    "idle": "its engine reports tokens that nobody asked for",
    "clone": "the last two agents are on one machine, and both report what its one engine does",
    "sybil": "the last two agents are on one machine, and share the load of one between them",
    "forge": "as inflate, with receipts for it: of its own signature, and a gateway's for another job (--receipts)",
    "withhold": "it is stopped from 60 % of each epoch until the others said what they hold: its records come late",
    "uptime": "it is stopped for the middle half of each epoch, while its engine counts on",
}
LEVELS = {
    "open": "what agents say of themselves counts, whatever machine they are on",
    "capped": "one node on a machine, and no more tokens per second than an honest load brings, and a quarter",
    "receipted": "one node on a machine, and no more tokens than receipts say, or the chain paid to the Cocoon worker",
}
INFLATION = 10
OF_TWO = ("clone", "sybil")
"""Strategies that take the last two agents."""
STOPPED = ("withhold", "uptime")
"""Strategies in which the agent's process is stopped (SIGSTOP) for some time of each epoch."""
HELD_BACK_S = 10
"""How far into the next epoch `withhold` stays away: beyond the settle delay, and the time for observations."""


def cheating(strategy: str | None, agents: int) -> range:
    """The numbers of the agents that cheat, of so many in all."""
    if strategy is None:
        return range(0)
    return range(agents - (2 if strategy in OF_TWO else 1), agents)


def require_cheat(strategy: str, *, agents: int, source: str, chaos: str | None, is_engine_real: bool) -> None:
    """Refuse what would show nothing.

    Raises:
        ConfigError: nobody honest is left to compare with, or something else is amiss with the cheat's own agents.
    """
    least = 4 if strategy in STOPPED else len(cheating(strategy, agents)) + 1
    if agents < least:
        why = "two of three are no quorum" if strategy in STOPPED else "somebody has to be honest"
        raise ConfigError(f"--cheat {strategy}: needs at least {least} agents: {why}")
    if chaos is not None:
        raise ConfigError("--cheat: not together with --chaos: both would take the last agent")
    if is_engine_real:
        raise ConfigError("--cheat: not together with --engine: an honest share is one of equal loads")
    if strategy == "forge" and source != "engine":
        raise ConfigError("--cheat forge: needs --source engine: a Cocoon worker's tokens take no receipts")


def is_stopped(strategy: str, *, into_s: float, epoch_s: int, epoch: int, last_epoch: int) -> bool:
    """Whether `withhold` or `uptime` has its agent stopped `into_s` after the beginning of `epoch` (1, 2, ...).

    An epoch that nobody has finalized yet goes on: `into_s` may be more than its length. In those after `last_epoch`
    nobody is paid: whoever stays away in them only holds up the end.
    """
    if strategy == "uptime":
        return epoch <= last_epoch and 0.25 <= into_s / epoch_s < 0.75
    is_held_back = 1 < epoch <= last_epoch + 1 and into_s < HELD_BACK_S
    return is_held_back or (epoch <= last_epoch and into_s / epoch_s >= 0.6)
