"""What waits in the journal to become a record of the own log: closed work windows, and receipts that were handed in.

They wait while the own log cannot be written, as after a start, and become records in their order.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from agent.errors import InvalidSourceError
from agent.meter.work import WorkWindow
from gossip.records import ReceiptBody

Pending: TypeAlias = WorkWindow | ReceiptBody


class _Envelope(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    window: WorkWindow | None = None
    receipts: ReceiptBody | None = None


def encode_pending(item: Pending) -> bytes:
    """The journal's form."""
    if isinstance(item, WorkWindow):
        return msgspec.json.encode(_Envelope(window=item))
    return msgspec.json.encode(_Envelope(receipts=item))


def decode_pending(raw: bytes) -> Pending:
    """Read what `encode_pending` wrote.

    Raises:
        InvalidSourceError: it is not that: the journal is damaged, or of another version.
    """
    try:
        envelope = msgspec.json.decode(raw, type=_Envelope)
    except msgspec.DecodeError as error:
        raise InvalidSourceError(f"pending record: {error}") from error
    item = envelope.window or envelope.receipts
    if item is None:
        raise InvalidSourceError("pending record: neither a window nor receipts")
    return item
