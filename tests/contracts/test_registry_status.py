"""The status machine of a registry entry, in full: each situation, each operation, what comes of it."""

from __future__ import annotations

import pytest

from contracts.model import ParticipantStatus
from contracts.opcodes import Refusal
from tests.contracts.pool_scene import Scene, account
from tests.contracts.registry_cases import OPERATIONS, SITUATIONS, outcome

ACTIVE, INACTIVE = ParticipantStatus.ACTIVE, ParticipantStatus.INACTIVE
SUSPENDED, WITHDRAWING = ParticipantStatus.SUSPENDED, ParticipantStatus.WITHDRAWING
OVER, BELOW, NOTHING = Refusal.OVER_STAKE, Refusal.STAKE_BELOW_MINIMUM, Refusal.NOTHING_STAKED
NO_WITHDRAWAL, LOCKED, NOT_WHILE_SUSPENDED = Refusal.NO_WITHDRAWAL, Refusal.WITHDRAWAL_LOCKED, Refusal.SUSPENDED
NOT_HELD, STILL_HELD, TAKEN = Refusal.NOTHING_HELD, Refusal.STILL_HELD, Refusal.ALREADY_REGISTERED
GONE = None

# One column per situation, in the order of SITUATIONS.
TABLE = {
    "increase a little": (ACTIVE, ACTIVE, INACTIVE, WITHDRAWING, SUSPENDED, SUSPENDED, INACTIVE, SUSPENDED),
    "increase enough": (ACTIVE, ACTIVE, ACTIVE, WITHDRAWING, SUSPENDED, SUSPENDED, INACTIVE, SUSPENDED),
    "ask for one nanoTON": (ACTIVE, BELOW, BELOW, OVER, SUSPENDED, OVER, OVER, OVER),
    "ask for the minimum": (ACTIVE, WITHDRAWING, OVER, OVER, SUSPENDED, OVER, OVER, OVER),
    "ask for the rest": (WITHDRAWING, WITHDRAWING, WITHDRAWING, NOTHING, SUSPENDED, NOTHING, NOTHING, NOTHING),
    "cancel": (
        NO_WITHDRAWAL,
        ACTIVE,
        NO_WITHDRAWAL,
        ACTIVE,
        NOT_WHILE_SUSPENDED,
        NOT_WHILE_SUSPENDED,
        NO_WITHDRAWAL,
        NOT_WHILE_SUSPENDED,
    ),
    "complete early": (NO_WITHDRAWAL, LOCKED, NO_WITHDRAWAL, LOCKED, NO_WITHDRAWAL, LOCKED, NO_WITHDRAWAL, LOCKED),
    "complete": (NO_WITHDRAWAL, ACTIVE, NO_WITHDRAWAL, GONE, NO_WITHDRAWAL, GONE, NO_WITHDRAWAL, GONE),
    "slash a share": (ACTIVE, INACTIVE, INACTIVE, WITHDRAWING, SUSPENDED, SUSPENDED, NOTHING, SUSPENDED),
    "slash all": (INACTIVE, INACTIVE, INACTIVE, INACTIVE, SUSPENDED, SUSPENDED, NOTHING, SUSPENDED),
    "cancel the slash": (NOT_HELD, NOT_HELD, ACTIVE, NOT_HELD, NOT_HELD, NOT_HELD, ACTIVE, NOT_HELD),
    "sweep early": (NOT_HELD, NOT_HELD, STILL_HELD, NOT_HELD, NOT_HELD, NOT_HELD, STILL_HELD, NOT_HELD),
    "sweep": (NOT_HELD, NOT_HELD, INACTIVE, NOT_HELD, NOT_HELD, NOT_HELD, GONE, NOT_HELD),
    "set the reputation": (ACTIVE, ACTIVE, INACTIVE, WITHDRAWING, SUSPENDED, SUSPENDED, INACTIVE, SUSPENDED),
    "suspend": (SUSPENDED,) * 8,
    "lift the suspension": (ACTIVE, ACTIVE, INACTIVE, WITHDRAWING, ACTIVE, WITHDRAWING, INACTIVE, WITHDRAWING),
    "remove": (SUSPENDED,) * 8,
    "heartbeat": (ACTIVE, ACTIVE, INACTIVE, WITHDRAWING, SUSPENDED, SUSPENDED, INACTIVE, SUSPENDED),
    "change the worker": (ACTIVE, ACTIVE, INACTIVE, WITHDRAWING, SUSPENDED, SUSPENDED, INACTIVE, SUSPENDED),
    "register again": (TAKEN,) * 8,
}


@pytest.mark.parametrize(("column", "situation"), list(enumerate(SITUATIONS)), ids=list(SITUATIONS))
def test_status_machine(scene: Scene, column: int, situation: str) -> None:
    came = {}
    for operation, act in OPERATIONS.items():
        owner = account(f"{situation}: {operation}")
        SITUATIONS[situation].arrange(scene, owner)
        came[operation] = outcome(scene, owner, act(scene, owner))
    assert came == {operation: row[column] for operation, row in TABLE.items()}


def test_the_table_is_whole() -> None:
    assert set(TABLE) == set(OPERATIONS)
    assert all(len(row) == len(SITUATIONS) for row in TABLE.values())
