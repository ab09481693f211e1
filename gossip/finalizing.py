"""Finalizing: whose turn it is to close the running epoch on chain.

Anyone may, once the epoch has ended; so that not everybody pays for it, the operators take turns, in an order that
the epoch's number gives. Pure; operators and view are the chain's.

Source: PROTOCOL, "Epoch close" step 1.
"""

from __future__ import annotations

import hashlib

from contracts.model import OperatorSet
from contracts.permutation import TurnSchedule
from gossip.epoch_events import ChainView, Finalize


class Finalizing:
    """The turns of the operator with the key `own`, one slot each `stage_s`."""

    def __init__(self, own: bytes, stage_s: int) -> None:
        self._own = own
        self._stage_s = stage_s
        self._turns: tuple[int, TurnSchedule] | None = None

    def take(self, view: ChainView, operators: OperatorSet) -> list[Finalize]:
        """What to send at this block: one message when a turn has come that was not taken, else nothing."""
        index = operators.index_of(self._own)
        if index is None or view.now_s < view.current_end_s:
            return []
        if self._turns is None or self._turns[0] != view.current_epoch:
            seed = hashlib.sha256(b"finalize" + view.current_epoch.to_bytes(4, "big")).digest()
            slots = len(operators.operators)
            turns = TurnSchedule.of(seed, index, slots, stage_s=self._stage_s, opened_s=view.current_end_s)
            self._turns = (view.current_epoch, turns)
        return [Finalize(view.current_epoch)] if self._turns[1].take(view.now_s) is not None else []
