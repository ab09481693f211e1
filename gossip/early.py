"""Early messages: what operators say of an epoch that is not open here yet, for a peer may see the chain move first.

Decides what of it is kept until then; it is judged when the epoch opens. Signatures were checked, nothing else.

1. Each maker fills its own share only, and no message is kept that gossip does not carry: a large observation is
   fetched when its epoch is open. What is lost here comes by anti-entropy.
2. What this node made durable itself is kept whole: it must not say it anew.
"""

from __future__ import annotations

from collections.abc import Iterable

from gossip.epoch_events import Message, maker_of

EARLY_PER_OPERATOR_MAX = 4
"""Messages kept of one operator for epochs that are not open here yet."""
EARLY_BYTES_MAX = 64 * 1024
"""Each of them."""


class EarlyMessages:
    """Messages that wait for their epoch."""

    def __init__(self) -> None:
        self._held: list[Message] = []
        self._restored: list[Message] = []

    def put(self, message: Message) -> None:
        """Keep a message, if its maker's share is not used up."""
        own = sum(maker_of(held) == maker_of(message) for held in self._held)
        if own < EARLY_PER_OPERATOR_MAX and len(message.wire) <= EARLY_BYTES_MAX:
            self._held.append(message)

    def restore(self, messages: Iterable[Message]) -> None:
        """Keep what was made durable here (rule 2)."""
        self._restored += messages

    def take(self, epoch: int) -> list[Message]:
        """What was kept for `epoch`, the restored messages first; only what is for later ones stays."""
        taken = [message for message in (*self._restored, *self._held) if message.epoch == epoch]
        self._restored = [message for message in self._restored if message.epoch > epoch]
        self._held = [message for message in self._held if message.epoch > epoch]
        return taken
