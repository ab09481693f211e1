"""The totals of a settlement as a dictionary: its root is what the operators sign, its proofs are claims.

Keys are participants' account hashes (256 bits), values are leaves. The contract accepts one leaf with
the cells on its path and the hashes beside it, so a claim stays small however many participants there
are. Nothing untrusted is read here; the contract checks the proofs.

1. No leaves: there is no dictionary, and the root is 32 zero bytes.
2. Each participant stands once.
3. The same leaves give the same root, in any order.

Source: CONTRACTS, "Cumulative entitlement"; `contracts/schema.tlb`.
"""

from __future__ import annotations

from collections.abc import Iterable

from pytoniq_core import Cell

from contracts.errors import InvalidValueError
from contracts.layout import dictionary
from contracts.layout.values import store_leaf
from contracts.model import ZERO_HASH, Address, Leaf

_KEY_BITS = 256


class TotalsTree:
    """The dictionary of one settlement's leaves. Build it with `totals_tree`."""

    __slots__ = ("_keys", "root", "root_hash")

    def __init__(self, root: Cell | None, keys: list[int]) -> None:
        self._keys = keys
        self.root = root
        self.root_hash: bytes = ZERO_HASH if root is None else root.hash

    def prove(self, participant: Address) -> Cell:
        """Merkle proof of this participant's leaf, as `layout.claim_body` takes it.

        Raises:
            InvalidValueError: the participant has no leaf.
        """
        return self.prove_many([participant])

    def prove_many(self, participants: Iterable[Address]) -> Cell:
        """One Merkle proof of all these participants' leaves, as `layout.push_body` takes it.

        Raises:
            InvalidValueError: nobody, or a participant that has no leaf.
        """
        wanted = list(participants)
        for participant in wanted:
            if self.root is None or participant.workchain != 0:
                raise InvalidValueError(f"{participant} has no leaf in these totals")
        if self.root is None:
            raise InvalidValueError("these totals have no leaves")
        return dictionary.prove(self.root, self._keys, [_key(participant) for participant in wanted], _KEY_BITS)


def totals_tree(leaves: Iterable[Leaf]) -> TotalsTree:
    """Build the dictionary of `leaves`, given in any order.

    Raises:
        InvalidValueError: a participant stands twice.
    """
    by_key: dict[int, Leaf] = {}
    for leaf in leaves:
        if by_key.setdefault(_key(leaf.participant), leaf) is not leaf:
            raise InvalidValueError(f"{leaf.participant} stands twice in the totals")
    return TotalsTree(dictionary.build(by_key, _KEY_BITS, store_leaf), sorted(by_key))


def _key(participant: Address) -> int:
    return int.from_bytes(participant.account, "big")
