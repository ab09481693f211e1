"""Receipts: what gateways and clients signed for, and how much of it covers a participant's work.

Pure. A receipt comes through the log of the participant that it names; its signer is whoever the policy trusts to
know what was delivered, and nobody else's word counts. Signatures are not checked here: one that does not hold makes
the record invalid that the receipt stands in (`gossip.records`).

1. A receipt holds in the one log for which it was signed, and counts if the policy names its signer.
2. A receipt counts if it is dated inside a work window that counts in the same epoch. Windows of one log never
   overlap, so none counts in two epochs.
3. It counts once per (signer, job id) in the pool: the earliest, then the one of the lowest node key.
4. Per participant and epoch, the first `per_participant_max` in the order of its log are looked at, no more.

Source: PROTOCOL, "Records" (kind 3) and "Tally" (tokens).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from contracts.signing import SigningKey
from gossip import codec
from gossip.policy import PoolPolicy
from gossip.records import PoolId, Receipt, ReceiptBody, Record, WorkBody, receipt_text


def receipted_tokens(
    records: Mapping[bytes, Sequence[Record]], counted: Mapping[bytes, Sequence[WorkBody]], policy: PoolPolicy
) -> dict[bytes, int]:
    """Tokens that receipts cover, by node key.

    `records` are those of the cut, oldest first; `counted` the work windows that count, in the order of the log.
    """
    signers = frozenset(bytes.fromhex(signer) for signer in policy.receipts.signers)
    if not signers:
        return {}
    found: dict[tuple[bytes, bytes], tuple[int, bytes, int]] = {}
    for node_key, own in records.items():
        windows = [(body.start_s, body.end_s) for body in counted.get(node_key, ())]
        for receipt in islice(_receipts(own), policy.receipts.per_participant_max):
            claim = (receipt.time_s, node_key, receipt.tokens)
            if receipt.signer not in signers or not _is_inside(receipt.time_s, windows):
                continue
            found[receipt.id] = min(found.get(receipt.id, claim), claim)
    sums: dict[bytes, int] = {}
    for _, node_key, tokens in found.values():
        sums[node_key] = sums.get(node_key, 0) + tokens
    return sums


def make_receipt(key: SigningKey, pool: PoolId, node_key: bytes, *, job_id: bytes, time_s: int, tokens: int) -> Receipt:
    """Sign, as a gateway does, that the participant of `node_key` (32 bytes) spent `tokens` on a job."""
    unsigned = Receipt(signer=key.public, job_id=job_id, time_s=time_s, tokens=tokens, signature=bytes(64))
    signature = key.sign(receipt_text(pool, node_key, unsigned))
    return Receipt(signer=key.public, job_id=job_id, time_s=time_s, tokens=tokens, signature=signature)


def require_receipt(pool: PoolId, node_key: bytes, receipt: Receipt) -> None:
    """Return if the signer signed this for `node_key`: what to look at before a receipt goes into its log.

    Raises:
        InvalidMessageError: the signature does not hold.
    """
    codec.require_signature(receipt.signer, receipt_text(pool, node_key, receipt), receipt.signature)


def _receipts(records: Iterable[Record]) -> Iterator[Receipt]:
    for record in records:
        if isinstance(record.body, ReceiptBody):
            yield from record.body.receipts


def _is_inside(time_s: int, windows: Sequence[tuple[int, int]]) -> bool:
    """Whether one of the windows [start, end), ascending, holds this time."""
    place = bisect_right(windows, time_s, key=lambda window: window[0]) - 1
    return place >= 0 and time_s < windows[place][1]
