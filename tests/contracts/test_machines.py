"""Epochs and set rotations, situation by situation; and the diagrams in the documentation."""

from __future__ import annotations

from contracts.opcodes import Refusal
from tests.contracts import machines
from tests.contracts.machines import EPOCH_OPERATIONS, EPOCH_SITUATIONS, SET_OPERATIONS, SET_SITUATIONS, fresh

EPOCHS = {
    "running": (Refusal.EPOCH_RUNNING, Refusal.EPOCH_NOT_FINALIZED),
    "ended": (None, Refusal.EPOCH_NOT_FINALIZED),
    "finalized, the one before unsettled": (Refusal.EPOCH_RUNNING, None),
    "finalized": (Refusal.EPOCH_RUNNING, None),
    "settled": (Refusal.EPOCH_RUNNING, Refusal.EPOCH_NOT_FINALIZED),
}
ROTATION = {
    "in charge": (None, Refusal.NOTHING_PROPOSED, Refusal.NOTHING_PROPOSED),
    "successor proposed": (None, Refusal.TOO_EARLY, None),
    "successor may take over": (None, None, None),
    "proposal too old": (None, Refusal.EXPIRED, None),
}


def test_epoch_machine() -> None:
    for situation, arrange in EPOCH_SITUATIONS.items():
        came = []
        for act in EPOCH_OPERATIONS.values():
            scene = fresh()
            arrange(scene)
            came.append(act(scene).refusal)
        assert tuple(came) == EPOCHS[situation], situation


def test_rotation_machine() -> None:
    for situation, arrange in SET_SITUATIONS.items():
        came = []
        for act in SET_OPERATIONS.values():
            scene = fresh()
            arrange(scene)
            came.append(act(scene).refusal)
        assert tuple(came) == ROTATION[situation], situation


def test_the_documented_diagrams_are_the_contracts() -> None:
    text = machines.DOCUMENT.read_text()
    assert machines.documented(text) == text
