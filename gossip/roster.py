"""The roster: who belongs to the pool, and with whom a node stays connected.

1. Operators stay connected with everybody who is registered: they probe participants and take their records.
2. A participant that is no operator stays connected with the operators alone, of both sets that may sign: their
   number bounds its connections, and whatever others say reaches it through them.

Source: PROTOCOL, "Words" and "Spreading".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster:
    """Node keys of the pool, as the chain showed them last."""

    weights: Mapping[bytes, int] = field(default_factory=dict)
    """Of the operators of the current set."""
    operators: frozenset[bytes] = frozenset()
    """Of the current set and of the one before it."""
    participants: frozenset[bytes] = frozenset()
    """Everybody who is registered."""

    @property
    def members(self) -> frozenset[bytes]:
        """Everybody who may say something in this pool."""
        return self.operators | self.participants

    def peers_of(self, node_key: bytes) -> frozenset[bytes]:
        """With whom the node of this key stays connected (rules 1 and 2)."""
        return (self.members if node_key in self.operators else self.operators) - {node_key}

    def reach(self, node_key: bytes, connected: Collection[bytes]) -> tuple[int, int]:
        """The weight of the operators that are connected, the node itself included, and that of all of them."""
        reached = sum(weight for key, weight in self.weights.items() if key == node_key or key in connected)
        return reached, sum(self.weights.values())
