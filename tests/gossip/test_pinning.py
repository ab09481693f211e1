"""Which set settles an epoch: the pinned one after a rotation, any for an owner's epoch, a newer one if it is lost."""

from __future__ import annotations

import pytest
from contract_states import open_epoch, pool_state
from pool_fixture import START_S, operator_set

from contracts.model import SET_FALLBACK_S
from gossip.pinning import settling_set

FINALIZED_S = START_S + 100
LOST_S = FINALIZED_S + SET_FALLBACK_S


@pytest.mark.parametrize(
    ("pinned", "previous", "current", "now_s", "expected"),
    [
        (1, None, 1, FINALIZED_S, 1),
        (1, None, 1, LOST_S, 1),
        (1, 1, 2, FINALIZED_S, 1),
        (1, 1, 2, LOST_S - 1, 1),
        (1, 1, 2, LOST_S, 2),
        (2, 1, 2, LOST_S, 2),
        (1, 2, 3, LOST_S - 1, None),
        (1, 2, 3, LOST_S, 3),
        (0, None, 1, FINALIZED_S, 1),
        (0, 1, 2, FINALIZED_S, 2),
        (0, None, None, LOST_S, None),
        (3, 1, 2, LOST_S, None),
    ],
)
def test_who_settles(pinned: int, previous: int | None, current: int | None, now_s: int, expected: int | None) -> None:
    epoch = open_epoch(1, start_s=START_S, end_s=FINALIZED_S, finalized_s=FINALIZED_S, set_id=pinned)
    sets = [operator_set(4, set_id=set_id) if set_id else None for set_id in (previous, current)]
    state = pool_state(previous_set=sets[0], operator_set=sets[1])
    settling = settling_set(epoch, state, now_s)
    assert (settling.set_id if settling is not None else None) == expected
