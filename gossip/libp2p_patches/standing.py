"""What the patched classes ask and say about a peer: whether it is wanted here, and what it did wrong.

Joins `gossip.conduct` with the clock, the address that a peer came from, and the counters.
"""

from __future__ import annotations

from collections import Counter

import trio

from gossip.admission import ConnectionAdmission
from gossip.conduct import Conduct, Fault


class Standing:
    """The standing of the peers of one node."""

    def __init__(self, conduct: Conduct, admission: ConnectionAdmission, counters: Counter[str]) -> None:
        self._conduct = conduct
        self._admission = admission
        self._counters = counters

    def in_roster(self, node_key: bytes) -> bool:
        """Whether this node wants to be connected with the peer."""
        return self._conduct.in_roster(node_key)

    def is_muted(self, node_key: bytes) -> bool:
        """Whether gossip of this peer is not looked at for now."""
        return self._conduct.is_muted(node_key, trio.current_time())

    def blame(self, node_key: bytes, fault: Fault) -> None:
        """Count a fault and charge it to the peer."""
        self._counters[fault.counter] += 1
        self._conduct.blame(node_key, self._admission.address_of(node_key), fault, trio.current_time())
