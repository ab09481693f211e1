"""Observing: what an operator says of the logs when an epoch closes, and which forks it proves with it.

Pure. The observations looked at are peers': what they name need not exist.

1. Heads and readings are said once. What may be said again, with the same heads and readings, is a proof of
   forks that the first observation left out.
2. A fork blocks when an observation names a record at or above it that is not here: a hostile participant makes any
   number of branches, of which each node keeps a few, so that record may never come. Once the fork is proven in
   what is listed, nobody needs it.
3. Forks that block go first, those that the fewest others prove before the rest: an observation has room for
   `FORKS_MAX`, and those of the listed ones count together.

Elsewhere: what a proven fork excuses (`gossip.cut`), when to observe (`gossip.epoch_close`).

Source: PROTOCOL, "Epoch close" step 2; docs/adr/0022.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from contracts.signing import SigningKey
from gossip.log_chain import ForkProof, Head, Log, LogBook
from gossip.messages import FORKS_MAX, Observation, ObservedLog, make_observation
from gossip.records import PoolId
from gossip.settlement import Base
from gossip.tally import EpochFrame


def observe(
    key: SigningKey,
    pool: PoolId,
    frame: EpochFrame,
    base: Base,
    logs: LogBook,
    *,
    witnessed_s: Mapping[bytes, int],
    worker_tokens: Mapping[bytes, int],
    now_s: int,
) -> Observation:
    """Sign how far each log of the frame's registry reaches here at `now_s`, the chain's time.

    `witnessed_s` and `worker_tokens` are cumulative, by node key; the latter only of those that were read.
    """
    observed = {
        participant.node_key: ObservedLog(
            head=logs[participant.node_key].head_by(now_s),
            witnessed_s=witnessed_s.get(participant.node_key, 0),
            worker_tokens=worker_tokens.get(participant.node_key),
        )
        for participant in frame.participants
    }
    return make_observation(
        key,
        pool,
        epoch=frame.epoch,
        set_id=frame.operators.set_id,
        policy_hash=frame.policy.hash,
        base=base.payload_hash,
        logs=observed,
        forks=tuple(fork for fork in _countable(base, logs) if fork.node_key in observed),
    )


def observe_again(key: SigningKey, pool: PoolId, said: Observation, forks: Sequence[ForkProof]) -> Observation:
    """Sign the heads and readings of `said` once more, with these forks (rule 1)."""
    return make_observation(
        key,
        pool,
        epoch=said.epoch,
        set_id=said.set_id,
        policy_hash=said.policy_hash,
        base=said.base,
        logs=said.logs,
        forks=tuple(forks),
    )


def forks_to_add(
    said: Observation, base: Base, logs: LogBook, observations: Sequence[Observation]
) -> tuple[ForkProof, ...]:
    """The forks to prove in place of those of `said`, the own latest; none, if it proves all that block.

    `observations` are all that are held, the oldest first; the forks are at most `FORKS_MAX`.
    """
    blocking = [
        fork
        for fork in _countable(base, logs)
        if any(_is_blocked_by(fork, observation, logs[fork.node_key]) for observation in observations)
    ]
    proven = {(fork.node_key, fork.seq) for fork in said.forks}
    if all((fork.node_key, fork.seq) in proven for fork in blocking):
        return ()
    latest = {o.operator: o for o in observations if o.operator != said.operator}
    provers = Counter(fork.node_key for observation in latest.values() for fork in observation.forks)
    first = sorted(blocking, key=lambda fork: provers[fork.node_key])
    keys = {fork.node_key for fork in first}
    return (*first, *(fork for fork in said.forks if fork.node_key not in keys))[:FORKS_MAX]


def _countable(base: Base, logs: LogBook) -> list[ForkProof]:
    """The forks known here, but for those of logs that were cut at one already."""
    return [fork for fork in logs.forks() if not base.reading(fork.node_key).dead]


def _is_blocked_by(fork: ForkProof, observation: Observation, log: Log) -> bool:
    """Whether the observation needs a record at or above the fork that is not here (rule 2)."""
    observed = observation.logs.get(fork.node_key)
    named = [observed.head] if observed is not None else []
    named += [Head(f.seq - 1, f.first.prev_hash) for f in observation.forks if f.node_key == fork.node_key]
    return any(head.seq >= fork.seq and not log.holds(head) for head in named)
