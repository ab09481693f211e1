"""A fair order of n operators that everyone derives alike: for leaders, finalizers and submitters."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


def permutation(seed: bytes, length: int) -> tuple[int, ...]:
    """Shuffle 0..length-1 by Fisher-Yates, each swap drawn from SHA-256(seed || position) without bias.

    The draw is the 256-bit hash modulo at most 2**16: its bias is below 2**-240.
    """
    order = list(range(length))
    for position in range(length - 1, 0, -1):
        drawn = int.from_bytes(hashlib.sha256(seed + position.to_bytes(4, "big")).digest(), "big")
        other = drawn % (position + 1)
        order[position], order[other] = order[other], order[position]
    return tuple(order)


@dataclass(slots=True)
class TurnSchedule:
    """Whose turn it is to send what anyone may send: slot k of the order opens k * `stage_s` after `opened_s`.

    After the last slot the first one comes again: "sent" is not "landed", so the turns go on until the
    chain shows the result.
    """

    slot: int
    slots: int
    stage_s: int
    opened_s: int
    _taken: int = -1

    @classmethod
    def of(cls, seed: bytes, index: int, slots: int, *, stage_s: int, opened_s: int) -> TurnSchedule:
        """The schedule of operator `index` in the order that `seed` gives."""
        return cls(slot=permutation(seed, slots).index(index), slots=slots, stage_s=stage_s, opened_s=opened_s)

    def take(self, now_s: int) -> int | None:
        """Take the turn if one of this slot's has come since the last that was taken.

        Returns its number among the turns of all slots (0: the first of all), or None if it is not this slot's turn.
        """
        elapsed = (now_s - self.opened_s) // self.stage_s
        turn = (elapsed - self.slot) // self.slots
        if elapsed < self.slot or turn <= self._taken:
            return None
        self._taken = turn
        return self.slot + turn * self.slots
