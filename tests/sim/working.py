"""Who works how much in a simulated pool, by whose word: readings of several sources, receipts, payments on chain.

Nothing here is checked: it is what agents write into their logs and observe, drawn so that every rule of
`gossip.credit` and `gossip.receipts` has something to decide. Machines and GPUs are not simulated: each agent has its
own (`tests/gossip/test_tally_gpus.py` has those rules).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import replace
from random import Random

import pool_fixture
from pool_fixture import POLICY_TEXT, POOL, START_S, reading

from contracts.model import Address
from gossip import codec
from gossip.log_chain import Head
from gossip.policy import PoolPolicy, parse_policy
from gossip.receipts import make_receipt
from gossip.records import (
    RECORD_BYTES_MAX,
    Body,
    CloseBody,
    Kind,
    Receipt,
    ReceiptBody,
    Source,
    SourceWork,
    Unit,
    WorkBody,
    make_record,
)

key = functools.cache(pool_fixture.key)
"""Of participant `i`: made once, for they never change."""
GATEWAYS = (key(900), key(901))
CEILINGS = ("none", "receipts", "worker-contract")
WORKER_EPOCHS = 2
"""So many epochs on, a participant with an odd number names another worker contract."""
JOBS = 400
"""Few enough that two participants have receipts of one job now and then."""


@functools.cache
def policy(ceiling: str = "none") -> PoolPolicy:
    """The pool's policy, with this ceiling."""
    signers = ", ".join(f'"{gateway.public.hex()}"' for gateway in GATEWAYS)
    text = POLICY_TEXT
    if ceiling == "receipts":
        text = text.replace("signers = []", f"signers = [{signers}]")
    elif ceiling == "worker-contract":
        text = text.replace('source = "engine"\ntoken_units = [1, 2]', 'source = "cocoon"\ntoken_units = [3]')
        text = text.replace("worker_codes = []", f'worker_codes = ["{"0" * 64}"]')
        text = text.replace("worker_proxies = []", f"worker_proxies = [{signers}]")
    return parse_policy(text.replace('ceiling = "none"', f'ceiling = "{ceiling}"'))


def worker_of(i: int, epoch: int, ceiling: str) -> Address | None:
    """The worker contract that participant `i` names in the registry when this epoch is opened."""
    if ceiling != "worker-contract" or i % 4 == 3:
        return None
    return Address(0, bytes([i, 1 + (epoch // WORKER_EPOCHS) * (i % 2)]) + bytes(30))


def paid(worker: Address, now_s: int) -> int:
    """Cumulative tokens that the chain paid a worker contract."""
    i, place = worker.account[:2]
    return 1000 * place + 3 * (i + 1) * ((now_s - START_S) // 20 * 20)


def draw_work(rng: Random, i: int, start_s: int, end_s: int, evidence: bytes) -> WorkBody:
    """A window as agent `i` would have it: one engine or two, mostly, a Cocoon worker, GPUs; or nothing that counts."""
    length_s, tokens = end_s - start_s, 100 * (i + 1)
    readings = [
        reading(rng.choice((tokens, 2 * tokens, 0, 10**6)), instance=instance, gap_s=_gap_s(rng, length_s))
        for instance in range(rng.choice((1, 1, 1, 2, 0)))
    ]
    if rng.random() < 0.7:
        adjusted = rng.choice((tokens, tokens // 2, 5 * tokens))
        readings.append(_of(Source.COCOON, (Unit.ADJUSTED_TOKEN, adjusted), gap_s=_gap_s(rng, length_s)))
    if rng.random() < 0.3:
        readings.append(_of(Source.NVML, (Unit.GPU_BUSY_MS, 900 * length_s), (Unit.ENERGY_MJ, 10**6)))
    return WorkBody(start_s=start_s, end_s=end_s, readings=tuple(readings), evidence=evidence)


def draw_receipts(rng: Random, i: int, start_s: int, end_s: int) -> ReceiptBody | None:
    """What gateways say of a window of participant `i`; a few of it is dated outside."""
    made = {}
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        receipt = _receipt(rng, i, rng.randint(start_s, end_s - 1) + rng.choice((0, 0, 0, 0, -30)))
        made[receipt.id] = receipt
    return _body(made.values()) if made else None


def hostile_receipts(rng: Random, i: int, now_s: int, seen: list[Receipt]) -> ReceiptBody:
    """Receipts that count for nothing in the log of `i`, or once: of oneself, of another time, said before."""
    time_s = now_s - rng.randint(0, 40)
    good = _receipt(rng, i, time_s)
    tricks = [
        make_receipt(key(i), POOL, key(i).public, job_id=b"own", time_s=time_s, tokens=10**9),
        _receipt(rng, i, rng.choice((0, START_S, now_s - 10**6))),
        good,
        *rng.sample(seen, min(3, len(seen))),
    ]
    made = {receipt.id: receipt for receipt in rng.sample(tricks, rng.randint(1, len(tricks)))}
    return _body(made.values())


def falsely_receipted(rng: Random, i: int, head: Head, now_s: int) -> bytes:
    """A next record of the log of `i`, well signed but for the receipt in it: of another log, or of more tokens."""
    good = _receipt(rng, i, now_s)
    false = rng.choice((_receipt(rng, (i + 1) % 4, now_s), replace(good, tokens=10**9)))
    closing = make_record(key(i), POOL, head.seq + 1, head.hash, CloseBody())
    fields = codec.as_array(codec.decode(closing.signed, bytes_max=RECORD_BYTES_MAX), "record", 8)
    claim = (false.signer, false.job_id, false.time_s, false.tokens, false.signature)
    return codec.seal(codec.encode((*fields[:6], Kind.RECEIPT.value, ((claim,),))), key(i))


def varied(body: Body, by: int, node_key: bytes) -> Body:
    """The body of a record of this log with more work in it, or a receipt more; by 0, or of another kind, as it is."""
    match body:
        case WorkBody():
            more = (tuple((unit, amount + by) for unit, amount in reading.counters) for reading in body.readings)
            readings = zip(body.readings, more, strict=True)
            return replace(body, readings=tuple(replace(reading, counters=c) for reading, c in readings))
        case ReceiptBody(receipts) if by:
            claim = {"job_id": b"varied %d" % by, "time_s": receipts[0].time_s, "tokens": by}
            more = make_receipt(GATEWAYS[0], POOL, node_key, **claim)
            return _body({receipt.id: receipt for receipt in (*receipts, more)}.values())
        case _:
            return body


def _receipt(rng: Random, i: int, time_s: int) -> Receipt:
    job_id, tokens = b"job %d" % rng.randrange(JOBS), rng.choice((10, 50, 100 * (i + 1)))
    return make_receipt(rng.choice(GATEWAYS), POOL, key(i).public, job_id=job_id, time_s=time_s, tokens=tokens)


def _body(receipts: Iterable[Receipt]) -> ReceiptBody:
    return ReceiptBody(tuple(sorted(receipts, key=lambda receipt: receipt.id)))


def _of(source: Source, *counters: tuple[Unit, int], gap_s: int = 0) -> SourceWork:
    return SourceWork(source=source, provenance="simulated", counters=counters, gap_s=gap_s)


def _gap_s(rng: Random, length_s: int) -> int:
    return rng.choice((0, 0, 0, rng.randint(0, length_s)))
