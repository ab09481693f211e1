"""The pool's policy documents: those that this agent holds, and those that the chain says it needs.

An epoch is counted by the policy that was pinned to it when it began, which the chain names by its hash.
Decides which document that is; a document is never guessed.

1. `pool.policy_file` is always there; `pool.next_policy_file` is added before a change, and stays until the
   last epoch of the older policy has settled. Which of the two is meant is told by the hashes alone.
2. The policy in force is that of the running epoch: own evidence is made for it.
3. Own work windows are as short as every document held asks for, so that they count on both sides of a change.

Source: PROTOCOL, "Words" (policy).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.config import Config
from agent.errors import ConfigError
from agent.meter.work import WindowLimits
from contracts.model import PoolState, RewardsState
from gossip.errors import InvalidPolicyError
from gossip.policy import PoolPolicy, Timing, parse_policy

VIEWS_USUAL = 5
LANDING_S = 60
"""What a certificate may take to land, beside the views."""


class Policies:
    """The documents held, by hash. `first` counts as in force until the chain says otherwise."""

    def __init__(self, first: PoolPolicy, *more: PoolPolicy) -> None:
        self._held = {policy.hash: policy for policy in (first, *more)}
        self.in_force = first

    def __iter__(self) -> Iterator[PoolPolicy]:
        return iter(self._held.values())

    def __contains__(self, policy_hash: object) -> bool:
        return policy_hash in self._held

    def get(self, policy_hash: bytes) -> PoolPolicy | None:
        """The document of this hash (32 bytes), or None if it is not held."""
        return self._held.get(policy_hash)

    def turn_to(self, policy_hash: bytes) -> None:
        """Put the policy of this hash in force (rule 2), if it is held."""
        self.in_force = self._held.get(policy_hash, self.in_force)

    @property
    def window_max_s(self) -> int:
        """The longest work window that counts under every document held (rule 3), in seconds."""
        return min(policy.work.window_max_s for policy in self)


@dataclass(frozen=True, slots=True, kw_only=True)
class NeededPolicy:
    """A policy by which epochs are counted, or will be: from `epoch` on, which begins at `from_s` or later.

    `epoch` is None while the change is only proposed.
    """

    policy_hash: bytes
    epoch: int | None
    from_s: int


def needed_policies(state: PoolState, rewards: RewardsState) -> tuple[NeededPolicy, ...]:
    """Every policy that an operator must hold, now or soon; the one that is needed first comes first."""
    pinned = [(epoch.policy_hash, epoch.epoch, epoch.start_s) for epoch in rewards.open_epochs]
    pinned.append((rewards.running.terms.policy_hash, rewards.current_epoch, rewards.current_start_s))
    pinned.append((rewards.next.terms.policy_hash, rewards.current_epoch + 1, rewards.current_end_s))
    needed: dict[bytes, NeededPolicy] = {}
    for policy_hash, epoch, from_s in pinned:
        needed.setdefault(policy_hash, NeededPolicy(policy_hash=policy_hash, epoch=epoch, from_s=from_s))
    for proposal in state.pending:
        if proposal.params is not None:
            policy_hash, from_s = proposal.params.terms.policy_hash, proposal.ready_s(state.params)
            needed.setdefault(policy_hash, NeededPolicy(policy_hash=policy_hash, epoch=None, from_s=from_s))
    return tuple(needed.values())


def settlement_due_s(end_s: int, timing: Timing) -> int:
    """By when (Unix seconds) an epoch that ended at `end_s` ought to be settled: later, something is wrong."""
    return end_s + timing.settle_delay_s + timing.collect_s + VIEWS_USUAL * timing.view_s + LANDING_S


def load_policies(config: Config) -> Policies:
    """Read the policy documents that the config names.

    Raises:
        ConfigError: a file is missing or is no policy; the message names file and key.
    """
    table = config.pool
    first = _read(config.resolve(table.policy_file), "pool.policy_file")
    if table.next_policy_file is None:
        return Policies(first)
    return Policies(first, _read(config.resolve(table.next_policy_file), "pool.next_policy_file"))


def require_window(config: Config, policies: Policies) -> None:
    """Check `meter.window_s`, which only the policy documents bound (rule 3).

    Raises:
        ConfigError: it is longer than half of the longest window that counts; the message names file and key.
    """
    try:
        WindowLimits(window_s=config.meter.window_s, window_max_s=policies.window_max_s)
    except ConfigError as error:
        raise ConfigError(f"{config.path}: {error}") from error


def _read(path: Path, key: str) -> PoolPolicy:
    try:
        return parse_policy(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {key}: cannot be read: {error}") from error
    except InvalidPolicyError as error:
        raise ConfigError(f"{path}: {key}: {error}") from error
