"""Epochs and set rotations, situation by situation; and the diagrams in the documentation."""

from __future__ import annotations

from contracts.opcodes import Refusal
from tests.contracts import machines

# One column per operation, in the order of EPOCH_OPERATIONS and SET_OPERATIONS.
EPOCHS = {
    "running": (Refusal.EPOCH_RUNNING, Refusal.EPOCH_NOT_FINALIZED, Refusal.EPOCH_NOT_FINALIZED),
    "ended": (None, Refusal.EPOCH_NOT_FINALIZED, Refusal.EPOCH_NOT_FINALIZED),
    "finalized, the one before unsettled": (Refusal.EPOCH_RUNNING, None, None),
    "finalized": (Refusal.EPOCH_RUNNING, None, None),
    "settled": (Refusal.EPOCH_RUNNING, Refusal.EPOCH_NOT_FINALIZED, Refusal.EPOCH_NOT_FINALIZED),
}
ROTATION = {
    "in charge": (None, Refusal.NOTHING_PROPOSED, Refusal.NOTHING_PROPOSED),
    "successor proposed": (None, Refusal.TOO_EARLY, None),
    "successor may take over": (None, None, None),
    "proposal too old": (None, Refusal.EXPIRED, None),
}


def refusals(outcomes: list[machines.Came]) -> dict[str, tuple[Refusal | None, ...]]:
    """Row by row, as they were driven."""
    rows: dict[str, tuple[Refusal | None, ...]] = {}
    for came in outcomes:
        rows[came.situation] = (*rows.get(came.situation, ()), came.refusal)
    return rows


def test_epoch_machine() -> None:
    assert refusals(machines.epoch_outcomes()) == EPOCHS


def test_rotation_machine() -> None:
    assert refusals(machines.rotation_outcomes()) == ROTATION


def test_the_documented_diagrams_are_the_contracts() -> None:
    text = machines.DOCUMENT.read_text()
    assert machines.documented(text) == text
