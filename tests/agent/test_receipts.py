"""Receipts on their way into the own log: each rule broken once, durable before they are answered for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from pool_fixture import POOL, START_S, key, policy

from agent.errors import InvalidReceiptError
from agent.journal import Journal, create_journal, open_journal
from agent.metrics.registry import Metrics
from agent.pending import decode_pending, encode_pending
from agent.receipts import BODY_BYTES_MAX, WAITING_MAX, Receipts, receipts_app
from gossip.log_chain import Head
from gossip.policy import PoolPolicy
from gossip.receipts import make_receipt
from gossip.records import RECEIPTS_MAX, Receipt, ReceiptBody, make_record
from gossip.settlement import Reading

OWN, GATEWAY = key(0), key(77)
NOW_S = START_S + 1000


def demanding(**changes: Any) -> PoolPolicy:
    return replace(policy(), receipts=msgspec_replace(policy().receipts, signers=(GATEWAY.public.hex(),), **changes))


def msgspec_replace(table: Any, **changes: Any) -> Any:
    return type(table)(**{name: changes.get(name, getattr(table, name)) for name in table.__struct_fields__})


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    path = tmp_path / "journal.sqlite"
    create_journal(path, node_key=OWN.public, pool=POOL)
    journal = open_journal(path, node_key=OWN.public, pool=POOL)
    yield journal
    journal.close()


def receipts_of(journal: Journal, rules: PoolPolicy | None = None) -> Receipts:
    rules = rules or demanding()
    return Receipts(POOL, OWN.public, lambda: rules, journal, Metrics(version="0", process=False), lambda: NOW_S)


def signed(job: int, *, time_s: int = NOW_S, tokens: int = 100) -> Receipt:
    return make_receipt(GATEWAY, POOL, OWN.public, job_id=b"job %d" % job, time_s=time_s, tokens=tokens)


def claim(receipt: Receipt, **changes: Any) -> dict[str, Any]:
    return {
        "signer": receipt.signer.hex(),
        "job_id": receipt.job_id.hex(),
        "time_s": receipt.time_s,
        "tokens": receipt.tokens,
        "signature": receipt.signature.hex(),
        **changes,
    }


def request(*claims: Any) -> bytes:
    return json.dumps({"receipts": claims}).encode()


def queued(journal: Journal) -> list[ReceiptBody]:
    bodies = []
    while (waiting := journal.next_window()) is not None:
        body = decode_pending(waiting[1])
        assert isinstance(body, ReceiptBody)
        bodies.append(body)
        journal.drop_window(waiting[0])
    return bodies


async def test_what_is_taken_is_durable_in_the_order_of_a_record(journal: Journal) -> None:
    receipts = receipts_of(journal)
    told: list[int] = []
    receipts.on_queued = lambda: told.append(journal.windows_waiting())
    taken = await receipts.take(request(claim(signed(2)), claim(signed(1))))
    assert (taken.taken, taken.known, taken.refused) == (2, 0, {})
    assert told == [1]
    (body,) = queued(journal)
    assert body.receipts == (signed(1), signed(2))
    assert make_record(OWN, POOL, 1, bytes(32), body).body == body
    assert receipts.tokens == 200


async def test_a_receipt_is_taken_once(journal: Journal) -> None:
    receipts = receipts_of(journal)
    await receipts.take(request(claim(signed(1))))
    taken = await receipts.take(request(claim(signed(1)), claim(signed(2)), claim(signed(2))))
    assert (taken.taken, taken.known) == (1, 2)
    assert [body.receipts for body in queued(journal)] == [(signed(1),), (signed(2),)]


async def test_another_receipt_of_a_job_is_refused_by_its_place(journal: Journal) -> None:
    receipts = receipts_of(journal)
    await receipts.take(request(claim(signed(1))))
    more, later = signed(1, tokens=101), signed(1, time_s=NOW_S - 1)
    again = [signed(1), more, signed(2), later, signed(2, tokens=7)]
    taken = await receipts.take(request(*(claim(each) for each in again)))
    assert (taken.taken, taken.known) == (1, 1)
    assert taken.refused.keys() == {1, 3, 4}
    assert all(reason.startswith("another receipt of this job is held") for reason in taken.refused.values())
    assert taken.refused[4].endswith(f"time_s {NOW_S}, tokens 100; sign a new one with a job id of its own")
    assert [body.receipts for body in queued(journal)] == [(signed(1),), (signed(2),)]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"signer": key(1).public.hex()}, "signer"),
        ({"time_s": NOW_S + 6}, "time_s"),
        ({"time_s": START_S - 1}, "time_s"),
        ({"tokens": 101}, "signature"),
        ({"tokens": -1}, "tokens"),
        ({"tokens": 0}, "tokens: expected 1"),
        ({"tokens": 1 << 48}, "tokens"),
        ({"job_id": "zz"}, "job_id"),
        ({"job_id": ""}, "job_id"),
        ({"job_id": "00" * 65}, "job_id"),
        ({"signature": "00" * 64}, "signature"),
        ({"signature": "00"}, "signature"),
    ],
)
async def test_one_that_breaks_a_rule_is_refused_alone(journal: Journal, changes: dict[str, Any], reason: str) -> None:
    receipts = receipts_of(journal)
    await receipts.settled(Reading(work_end_s=START_S))
    taken = await receipts.take(request(claim(signed(1), **changes), claim(signed(2))))
    assert taken.taken == 1
    assert taken.refused.keys() == {0}
    assert taken.refused[0].startswith(reason)
    assert [body.receipts for body in queued(journal)] == [(signed(2),)]


async def test_a_receipt_of_another_node_is_refused(journal: Journal) -> None:
    other = make_receipt(GATEWAY, POOL, key(1).public, job_id=b"job", time_s=NOW_S, tokens=5)
    taken = await receipts_of(journal).take(request(claim(other)))
    assert "this node key" in taken.refused[0]
    assert queued(journal) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"receipts":[]}',
        b'{"receipts":[{}]}',
        b'{"receipts":[{"signer":1}]}',
        b"[" * 10_000,
        request(*[claim(signed(1), tokens=1.5)]),
        request(*[claim(signed(1), more=1)]),
        request(*[claim(signed(1))] * (RECEIPTS_MAX + 1)),
        b"\xff\xfe",
    ],
)
async def test_what_is_no_request_is_refused_whole(journal: Journal, body: bytes) -> None:
    with pytest.raises(InvalidReceiptError):
        await receipts_of(journal).take(body)
    assert queued(journal) == []


async def test_no_more_are_taken_than_the_policy_counts(journal: Journal) -> None:
    receipts = receipts_of(journal, demanding(per_participant_max=3))
    taken = await receipts.take(request(*(claim(signed(i)) for i in range(5))))
    assert taken.taken == 3
    assert set(taken.refused) == {3, 4}
    assert "counts 3" in taken.refused[3]


async def test_nothing_is_taken_while_the_log_cannot_be_written(journal: Journal) -> None:
    for _ in range(WAITING_MAX + 1):
        journal.queue(b"window")
    with pytest.raises(InvalidReceiptError, match="later"):
        await receipts_of(journal).take(request(claim(signed(1))))


async def test_one_that_went_ahead_of_its_window_goes_into_the_log_again(journal: Journal) -> None:
    receipts = receipts_of(journal)
    early, counted = signed(1, time_s=NOW_S), signed(2, time_s=NOW_S - 100)
    await receipts.take(request(claim(early), claim(counted)))
    (body,) = queued(journal)
    record = make_record(OWN, POOL, 1, bytes(32), body)
    journal.append_own(record)
    settled = Reading(head=Head(1, record.hash), work_end_s=NOW_S - 50)
    await receipts.settled(settled)
    await receipts.settled(settled)
    await receipts.settled(Reading(work_end_s=NOW_S - 70))
    assert [body.receipts for body in queued(journal)] == [(early,)]
    taken = await receipts.take(request(claim(early), claim(counted)))
    assert (taken.taken, taken.known) == (0, 1)
    assert taken.refused[1].startswith("time_s")


async def test_after_a_restart_the_log_tells_what_is_known(journal: Journal) -> None:
    receipts = receipts_of(journal)
    record = make_record(OWN, POOL, 1, bytes(32), ReceiptBody((signed(1),)))
    journal.append_own(record)
    await receipts_of(journal).take(request(claim(signed(2))))
    await receipts.settled(Reading())
    assert receipts.tokens == 200
    taken = await receipts.take(request(claim(signed(1)), claim(signed(2))))
    assert (taken.taken, taken.known) == (0, 2), "one is in the log, the other waits"
    assert journal.windows_waiting() == 1


@pytest.mark.parametrize("found", ["nowhere", "waiting", "above"])
async def test_a_crash_after_a_settlement_loses_no_early_receipt_and_doubles_none(journal: Journal, found: str) -> None:
    early, counted = signed(1, time_s=NOW_S), signed(2, time_s=NOW_S - 100)
    first = make_record(OWN, POOL, 1, bytes(32), ReceiptBody((early, counted)))
    again = ReceiptBody((early,))
    journal.append_own(first)
    if found == "above":
        journal.append_own(make_record(OWN, POOL, 2, first.hash, again))
    if found == "waiting":
        journal.queue(encode_pending(again))
    receipts = receipts_of(journal)
    await receipts.settled(Reading(head=Head(1, first.hash), work_end_s=NOW_S - 50))
    assert receipts.tokens == 100
    assert [body.receipts for body in queued(journal)] == ([] if found == "above" else [(early,)])


async def test_who_hands_in_after_the_window_was_recorded_is_told(journal: Journal) -> None:
    receipts = receipts_of(journal)
    receipts.recorded_s = lambda: NOW_S - 10
    taken = await receipts.take(request(claim(signed(1, time_s=NOW_S - 11)), claim(signed(2, time_s=NOW_S - 10))))
    assert (taken.taken, taken.late) == (2, 1)
    taken = await receipts.take(request(claim(signed(1, time_s=NOW_S - 11))))
    assert (taken.known, taken.late) == (1, 0)


async def test_the_listener_answers_with_what_came_of_it(journal: Journal) -> None:
    receipts = receipts_of(journal)
    transport = httpx.ASGITransport(app=receipts_app(receipts))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        good = await client.post("/receipts", content=request(claim(signed(1))))
        assert (good.status_code, good.json()) == (200, {"taken": 1, "known": 0, "late": 0, "refused": {}})
        mixed = await client.post("/receipts", content=request(claim(signed(1)), claim(signed(2), tokens=7)))
        assert (mixed.status_code, mixed.json()["known"], list(mixed.json()["refused"])) == (422, 1, ["1"])
        assert (await client.post("/receipts", content=b"{}")).status_code == 400
        assert (await client.post("/receipts", content=b" " * (BODY_BYTES_MAX + 1))).status_code == 413
        about = (await client.get("/receipts")).json()
        assert about["node_key"] == OWN.public.hex()
        assert about["signers"] == [GATEWAY.public.hex()]
        assert (await client.put("/receipts", content=b"")).status_code == 405
