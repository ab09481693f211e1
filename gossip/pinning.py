"""Which operators settle an epoch: the set pinned to it when it began, from what the chain says alone.

Every operator decides this for itself, from finalized blocks, and comes to the same answer as the rewards
contract, which refuses a settlement by any other set (`not_pinned_set`).

1. The pinned set settles, also after a rotation: the pool keeps the set before the current one for this.
2. Set 0 is pinned to an epoch that began under the owner: whichever set stands now settles it.
3. `SET_FALLBACK_S` after the epoch was finalized its set counts as lost, and a newer one settles in its place.
4. A set that is neither the current nor the previous one can sign nothing any more: nobody settles until rule 3.

Source: PROTOCOL, "Words" and "Epoch close"; `contracts/src/reward_distribution.tolk`, which is the judge.
"""

from __future__ import annotations

from contracts.model import SET_FALLBACK_S, OpenEpoch, OperatorSet, PoolState


def settling_set(epoch: OpenEpoch, state: PoolState, now_s: int) -> OperatorSet | None:
    """The operators that settle `epoch` now, or None while nobody may. `now_s` is a finalized block's time."""
    current = state.operator_set
    if current is None or epoch.set_id == 0:
        return current
    if current.set_id > epoch.set_id and now_s >= epoch.finalized_s + SET_FALLBACK_S:
        return current
    return state.set_of(epoch.set_id)
