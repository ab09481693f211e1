"""Receipts on their way into the own log: what gateways and clients hand in over HTTP, on this host.

Decides which receipts are taken. Whoever reaches the listener may send anything; what counts is the signature of a
signer whom the pool's policy names.

1. Checked cheapest first: size, form, signer, time, whether it is known, room, signature.
2. A receipt is dated in time that is not settled yet, and not ahead of this host's clock by more than peers tolerate
   of a record.
3. It is durable before it is answered for. Handed in again, it is known, which is a success, too. Another one of the
   same signer and job is refused: the tally counts one of them.
4. The tally counts a receipt in the epoch that counts the work window of its time. One that went into the log before
   its window did, with a cut between them, is put into the log once more, for the next epoch; after a crash, at the
   next start. One whose window is in the log already counts if no cut comes between: whoever handed it in is told.

Elsewhere: what receipts count for (`gossip.receipts`), when they become records (`agent.measuring`).

Source: PROTOCOL, "Records" (kind 3), "Tally"; METERING.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import trio
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agent.errors import InvalidReceiptError
from agent.journal import Journal
from agent.metrics.registry import Metrics
from agent.pending import decode_pending, encode_pending
from gossip.errors import InvalidMessageError
from gossip.log_chain import CLOCK_TOLERANCE_S
from gossip.policy import PoolPolicy
from gossip.receipts import require_receipt
from gossip.records import (
    JOB_ID_BYTES_MAX,
    RECEIPT_TAG,
    RECEIPTS_MAX,
    PoolId,
    Receipt,
    ReceiptBody,
    parse_record,
)
from gossip.settlement import Reading

BODY_BYTES_MAX = 64 * 1024
AHEAD_S = CLOCK_TOLERANCE_S
SEQ_MAX = (1 << 62) - 1
WAITING_MAX = 1000
"""Records that wait for the own log; beyond that nothing is taken: the oldest would give way."""

Id = tuple[bytes, bytes]


class _Claim(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A receipt as JSON: bytes are hex digits."""

    signer: str
    job_id: str
    time_s: int
    tokens: int
    signature: str


class _Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    receipts: list[_Claim]


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What came of a request: how many were taken, how many were known, and why others were refused, by place.

    `late` of those taken are of a time whose window is a record already (rule 4).
    """

    taken: int
    known: int
    late: int
    refused: dict[int, str]


class Receipts:
    """The receipts of one agent, from their arrival until the epoch of their time has settled."""

    def __init__(
        self,
        pool: PoolId,
        node_key: bytes,
        policy: Callable[[], PoolPolicy],
        journal: Journal,
        metrics: Metrics,
        now_s: Callable[[], int],
    ) -> None:
        self._pool = pool
        self._node_key = node_key
        self._policy = policy
        self._journal = journal
        self._metrics = metrics
        self._now_s = now_s
        self._held: dict[Id, Receipt] = {}
        """Taken, and of a time that has not settled yet."""
        self._settled_s = 0
        self._turn = trio.Lock()
        self.on_queued: Callable[[], None] = lambda: None
        self.recorded_s: Callable[[], int] = lambda: 0
        """Up to when (Unix seconds) the own log has work windows."""

    @property
    def tokens(self) -> int:
        """Of all that was taken and has not settled yet."""
        return sum(receipt.tokens for receipt in self._held.values())

    async def take(self, body: bytes) -> Taken:
        """Take what a request holds; what is taken is durable when this returns.

        Raises:
            InvalidReceiptError: the request as a whole is refused; the message says why.
        """
        claims = _parse(body)
        async with self._turn:
            if await trio.to_thread.run_sync(self._journal.windows_waiting) > WAITING_MAX:
                raise InvalidReceiptError("the own log cannot be written now; try again later")
            fresh, known, refused = self._sort(claims)
            if fresh:
                await self._queue(fresh.values())
        self._metrics.receipts.inc("taken", len(fresh))
        self._metrics.receipts.inc("known", known)
        self._metrics.receipts.inc("refused", len(refused))
        late = sum(receipt.time_s < self.recorded_s() for receipt in fresh.values())
        return Taken(taken=len(fresh), known=known, late=late, refused=refused)

    def about(self) -> dict[str, Any]:
        """What a signer has to know, as JSON: what the signed text names, whose word counts, and which times."""
        return {
            "tag": RECEIPT_TAG,
            "network": self._pool.network,
            "pool": self._pool.account.hex(),
            "node_key": self._node_key.hex(),
            "signers": list(self._policy().receipts.signers),
            "from_s": self._settled_s,
            "until_s": self._now_s() + AHEAD_S,
            "receipts_max": RECEIPTS_MAX,
        }

    async def settled(self, reading: Reading) -> None:
        """Go on from a settlement that counted the own log up to `reading`: the last one known, at a start.

        All that follows is in the journal, so cancellation and crashes leave nothing undone that the next call does not
        find (rule 4).
        """
        async with self._turn:
            if reading.work_end_s < self._settled_s:
                return
            held, early = await trio.to_thread.run_sync(self._look, reading)
            self._settled_s, self._held = reading.work_end_s, held
            for start in range(0, len(early), RECEIPTS_MAX):
                await self._queue(early[start : start + RECEIPTS_MAX])

    def _look(self, reading: Reading) -> tuple[dict[Id, Receipt], list[Receipt]]:
        """What waits or stands in the own log above the reading, by id; and what stands below it alone, though later.

        Blocks as long as the disk takes.
        """
        # What waits is looked at first: it may become a record meanwhile.
        waiting = (decode_pending(raw) for raw in self._journal.waiting())
        held = {receipt.id: receipt for item in waiting if isinstance(item, ReceiptBody) for receipt in item.receipts}
        early: dict[Id, Receipt] = {}
        for wire in self._journal.records(self._node_key, 1, SEQ_MAX):
            record = parse_record(wire, self._pool)
            for receipt in record.body.receipts if isinstance(record.body, ReceiptBody) else ():
                if record.seq > reading.head.seq:
                    held[receipt.id] = receipt
                elif receipt.time_s >= reading.work_end_s:
                    early[receipt.id] = receipt
        return held, [receipt for receipt in early.values() if receipt.id not in held]

    async def _queue(self, receipts: Iterable[Receipt]) -> None:
        body = ReceiptBody(tuple(sorted(receipts, key=lambda receipt: receipt.id)))
        await trio.to_thread.run_sync(self._journal.queue, encode_pending(body))
        self._held |= {receipt.id: receipt for receipt in body.receipts}
        self.on_queued()

    def _sort(self, claims: Sequence[_Claim]) -> tuple[dict[Id, Receipt], int, dict[int, str]]:
        """What is new, how many are known, and why the others are refused."""
        policy = self._policy().receipts
        room = policy.per_participant_max - len(self._held)
        fresh: dict[Id, Receipt] = {}
        known, refused = 0, {}
        for place, claim in enumerate(claims):
            try:
                receipt = self._receipt(claim, policy.signers)
                other = self._held.get(receipt.id) or fresh.get(receipt.id)
                if other is not None:
                    _require_same(receipt, other)
                    known += 1
                    continue
                if len(fresh) >= room:
                    raise InvalidReceiptError(f"the policy counts {policy.per_participant_max} in an epoch, no more")
                _require_signature(self._pool, self._node_key, receipt)
            except InvalidReceiptError as error:
                refused[place] = str(error)
            else:
                fresh[receipt.id] = receipt
        return fresh, known, refused

    def _receipt(self, claim: _Claim, signers: Sequence[str]) -> Receipt:
        """The receipt, all but its signature checked."""
        if claim.signer not in signers:
            raise InvalidReceiptError("signer: not one of the pool's policy (receipts.signers)")
        now_s = self._now_s()
        if not self._settled_s <= claim.time_s <= now_s + AHEAD_S:
            raise InvalidReceiptError(f"time_s: expected {self._settled_s} (settled until then) to {now_s + AHEAD_S}")
        if not 1 <= claim.tokens < 1 << 48:
            raise InvalidReceiptError("tokens: expected 1 to 2^48 - 1")
        return Receipt(
            signer=bytes.fromhex(claim.signer),
            job_id=_hex("job_id", claim.job_id, JOB_ID_BYTES_MAX),
            time_s=claim.time_s,
            tokens=claim.tokens,
            signature=_hex("signature", claim.signature, 64),
        )


def _parse(body: bytes) -> list[_Claim]:
    try:
        claims = msgspec.json.decode(body, type=_Request).receipts
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidReceiptError(f"not receipts: {error}") from error
    if not 0 < len(claims) <= RECEIPTS_MAX:
        raise InvalidReceiptError(f"receipts: expected 1 to {RECEIPTS_MAX}, got {len(claims)}")
    return claims


def _hex(key: str, text: str, bytes_max: int) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError:
        raise InvalidReceiptError(f"{key}: expected hex digits") from None
    if not 0 < len(value) <= bytes_max:
        raise InvalidReceiptError(f"{key}: expected 1 to {bytes_max} bytes, got {len(value)}")
    return value


def _require_same(receipt: Receipt, held: Receipt) -> None:
    """Return if both say the same; a signature may differ, and is looked at no more."""
    if (receipt.time_s, receipt.tokens) != (held.time_s, held.tokens):
        raise InvalidReceiptError(
            f"another receipt of this job is held: time_s {held.time_s}, tokens {held.tokens}; "
            "sign a new one with a job id of its own"
        )


def _require_signature(pool: PoolId, node_key: bytes, receipt: Receipt) -> None:
    try:
        require_receipt(pool, node_key, receipt)
    except InvalidMessageError as error:
        raise InvalidReceiptError("signature: does not hold for this pool, this node key and these figures") from error


def receipts_app(receipts: Receipts) -> Starlette:
    """`POST /receipts`, and what a signer has to know by `GET /receipts`."""

    async def hand_in(request: Request) -> Response:
        body = bytearray()
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > BODY_BYTES_MAX:
                    return JSONResponse({"error": f"longer than {BODY_BYTES_MAX} bytes"}, status_code=413)
            taken = await receipts.take(bytes(body))
        except ClientDisconnect:
            return Response(status_code=400)
        except InvalidReceiptError as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        value = {
            "taken": taken.taken,
            "known": taken.known,
            "late": taken.late,
            "refused": {str(place): reason for place, reason in taken.refused.items()},
        }
        return JSONResponse(value, status_code=200 if not taken.refused else 422)

    async def about(_: Request) -> Response:
        return JSONResponse(receipts.about())

    return Starlette(
        routes=[
            Route("/receipts", hand_in, methods=["POST"]),
            Route("/receipts", about, methods=["GET"]),
        ]
    )
