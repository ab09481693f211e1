"""Verifying a bundle: what holds, and that whatever is changed of what people said in it is found and named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio
from audit_bundles import fault, first, scene, second
from audit_scene import AuditScene, inflated
from pool_fixture import POOL, key, participant

from agent.audit.bundle import Bundle
from agent.audit.verifying import verify
from attestation.providers.software import SoftwareRoot
from contracts.model import Address, Signature
from gossip import codec
from gossip.epoch_events import Anchor
from gossip.log_chain import Head
from gossip.messages import make_observation, make_proposal, parse_observation, parse_proposal
from gossip.records import Record, WorkBody, make_record, parse_record

__all__ = ["first", "scene", "second"]

CHECKS = ["chain", "policy", "base", "settled", "certificate", "proposal", "records", "evidence", "totals"]


def test_an_honest_bundle_gives_what_landed(first: Bundle, second: Bundle) -> None:
    for bundle in (first, second):
        found = verify(bundle)
        assert found.is_same, found
        assert [step.name for step in found.steps] == CHECKS
        assert found.landed == found.recomputed
        assert found.differences == ()
        assert found.notes == ()
    assert first.base is None
    assert len(first.records) == 4 * 4
    assert "4 pieces judged anew and good" in next(s.text for s in verify(first).steps if s.name == "evidence")
    assert "signed by weight 4 of 4" in next(s.text for s in verify(first).steps if s.name == "certificate")


def test_without_the_signatures_they_are_believed(first: Bundle) -> None:
    found = verify(replace(first, signatures=()))
    assert found.is_same
    assert any("their signatures are not here" in text for text in found.believed)


# Records.


def with_record(bundle: Bundle, at: int, wire: bytes) -> Bundle:
    return replace(bundle, records=(*bundle.records[:at], wire, *bundle.records[at + 1 :]))


def work_record(bundle: Bundle) -> tuple[int, Record]:
    """Place and content of the first work record that another one follows."""
    for at, wire in enumerate(bundle.records):
        record = parse_record(wire, POOL)
        if isinstance(record.body, WorkBody):
            return at, record
    raise AssertionError("no work")


def richer(record: Record) -> WorkBody:
    """The same window with more tokens."""
    (reading,) = record.body.readings
    counters = tuple((unit, amount + 1) for unit, amount in reading.counters)
    return replace(record.body, readings=(replace(reading, counters=counters),))


def test_a_records_tokens_changed_under_its_signature(first: Bundle) -> None:
    at, record = work_record(first)
    forged = make_record(key(0), POOL, record.seq, record.prev_hash, richer(record))
    signed = codec.decode(forged.signed, bytes_max=1 << 20)
    as_owner = codec.encode((*signed[:3], record.node_key, *signed[4:]))
    step = fault(verify(with_record(first, at, codec.encode((as_owner, record.signature)))), "records")
    assert (
        f"record {at} of the bundle: number {record.seq} of node {record.node_key.hex()}: signature" in step.findings[0]
    )


def test_a_record_that_its_owner_signed_anew(first: Bundle) -> None:
    at, record = work_record(first)
    owner = next(key(i) for i in range(4) if key(i).public == record.node_key)
    forged = make_record(owner, POOL, record.seq, record.prev_hash, richer(record))
    step = fault(verify(with_record(first, at, forged.wire)), "records")
    assert any("the one before it is missing" in finding for finding in step.findings)
    assert any(
        f"of node {record.node_key.hex()} ({address(record.node_key)}): observed, and not all here" in finding
        for finding in step.findings
    )


def address(node_key: bytes) -> Address:
    return next(participant(i).address for i in range(4) if participant(i).node_key == node_key)


def test_records_that_are_missing_twice_or_of_nobody(first: Bundle, second: Bundle) -> None:
    last = parse_record(first.records[-1], POOL)
    step = fault(verify(replace(first, records=first.records[:-1])), "records")
    assert f"records 1 to {last.seq} of node {last.node_key.hex()}" in step.findings[0]
    step = fault(verify(replace(first, records=(*first.records, first.records[0]))), "records")
    assert "it stands twice" in step.findings[0]
    step = fault(verify(replace(second, records=(*first.records[:1], *second.records))), "records")
    assert "it was counted before" in step.findings[0]
    stranger = make_record(key(9), POOL, 1, bytes(32), richer(work_record(first)[1]))
    step = fault(verify(replace(first, records=(*first.records, stranger.wire))), "records")
    assert "no participant" in step.findings[0]
    step = fault(verify(replace(first, records=(b"garbage", *first.records))), "records")
    assert "record 0 of the bundle" in step.findings[0]
    step = fault(verify(replace(first, records=(b"garbage",) * 5000)), "records")
    assert len(step.findings) == 51
    assert step.findings[-1] == "and 950 more"


# What operators said.


def test_an_observation_that_was_changed(first: Bundle) -> None:
    wire = bytearray(first.observations[1])
    wire[-1] ^= 1
    changed = replace(first, observations=(first.observations[0], bytes(wire), *first.observations[2:]))
    step = fault(verify(changed), "proposal")
    assert "observation 1 of the bundle: signature" in step.findings[0]
    assert f"of operator 1, {key(1).public.hex()}: missing" in step.findings[1]


def test_an_observation_that_its_maker_signed_anew(first: Bundle) -> None:
    said = parse_observation(first.observations[2], POOL)
    logs = {node_key: replace(log, witnessed_s=log.witnessed_s + 9) for node_key, log in said.logs.items()}
    anew = make_observation(
        key(2),
        POOL,
        epoch=1,
        set_id=1,
        policy_hash=said.policy_hash,
        base=said.base,
        logs=logs,
        forks=(),
    )
    changed = replace(first, observations=(*first.observations[:2], anew.wire, first.observations[3]))
    step = fault(verify(changed), "proposal")
    assert step.findings == (f"observation {said.digest.hex()} of operator 2, {key(2).public.hex()}: missing",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": 2}, "of epoch 2"),
        ({"set_id": 2}, "of another operator set or policy"),
        ({"policy_hash": bytes(32)}, "of another operator set or policy"),
        ({"base": b"b" * 32}, "built on another settlement"),
        ({"logs": {}}, "does not name the registered participants"),
    ],
)
def test_an_observation_that_does_not_belong_here(first: Bundle, changes: dict[str, object], message: str) -> None:
    said = parse_observation(first.observations[0], POOL)
    fields = {"epoch": 1, "set_id": 1, "policy_hash": said.policy_hash, "base": said.base, "logs": said.logs}
    anew = make_observation(key(0), POOL, forks=(), **(fields | changes))
    step = fault(verify(replace(first, observations=(*first.observations, anew.wire))), "proposal")
    assert message in step.findings[0]


def test_a_proposal_that_is_not_the_one_that_landed(first: Bundle, second: Bundle) -> None:
    said = parse_proposal(first.proposal, POOL)
    leader = next(key(i) for i in range(4) if key(i).public == said.leader)
    fields = {"epoch": 1, "view": 0, "set_id": 1, "listed": said.listed, "cert_hash": said.cert_hash}
    for changes, message in (
        ({"cert_hash": bytes(32)}, "another certificate than the one that landed"),
        ({"epoch": 2}, "another certificate than the one that landed"),
        ({"view": 1}, "not by the leader of its view"),
        ({"listed": said.listed[:2]}, "too little weight"),
    ):
        anew = make_proposal(leader, POOL, **(fields | changes))
        step = fault(verify(replace(first, proposal=anew.wire)), "proposal")
        assert message in step.findings[0]
    assert not verify(replace(first, proposal=second.proposal)).is_same


def test_a_signature_that_does_not_hold_or_is_missing(first: Bundle) -> None:
    signature = first.signatures[3]
    wrong = Signature(index=3, signature=signature.signature[:-1] + bytes([signature.signature[-1] ^ 1]))
    step = fault(verify(replace(first, signatures=(*first.signatures[:3], wrong))), "certificate")
    assert f"signature of operator 3, {key(3).public.hex()}" in step.findings[0]
    step = fault(verify(replace(first, signatures=(replace(signature, index=9),))), "certificate")
    assert "operator 9" in step.findings[0]
    step = fault(verify(replace(first, signatures=first.signatures[:2] * 3)), "certificate")
    assert "weight 2 of 4 are no quorum" in step.findings[0]


# Evidence.


def test_collateral_that_was_changed_or_is_missing(first: Bundle) -> None:
    (collateral,) = first.attachments
    for attachments in ((), (collateral.replace(b"UpToDate", b"OutOfDate"),)):
        step = fault(verify(replace(first, attachments=attachments)), "evidence")
        assert len(step.findings) == 4
        assert all("evidence, record 1 of node" in finding for finding in step.findings)
        assert all("names the attachment" in finding for finding in step.findings)


def test_an_anchor_of_which_nothing_is_said(scene: AuditScene, first: Bundle) -> None:
    headers = tuple(header for header in first.chain.headers if header.seqno != scene.anchor.seqno)
    assert len(headers) == len(first.chain.headers) - 1
    found = verify(replace(first, chain=replace(first.chain, headers=headers)))
    step = fault(found, "evidence")
    assert f"is anchored in block {scene.anchor.seqno}:{scene.anchor.root_hash.hex()}" in step.findings[0]


def test_an_anchor_that_is_said_to_be_none_is_believed_and_makes_a_difference(scene: AuditScene, first: Bundle) -> None:
    headers = tuple(header for header in first.chain.headers if header.seqno != scene.anchor.seqno)
    said = Anchor(seqno=scene.anchor.seqno, root_hash=scene.anchor.root_hash, time_s=scene.anchor.time_s)
    found = verify(replace(first, chain=replace(first.chain, headers=headers), denied=(said,)))
    assert fault(found, "totals").findings
    assert any(f"{said.seqno}:{said.root_hash.hex()}" in text and "no block" in text for text in found.believed)
    assert len(found.notes) == 4
    assert all("refused" in note for note in found.notes)


def test_evidence_of_another_root_does_not_count(first: Bundle, tmp_path: Path) -> None:
    other = SoftwareRoot.create(tmp_path / "root", now_s=1_800_000_000)
    found = verify(replace(first, root=other.certificate))
    fault(found, "totals")
    assert len(found.notes) == 4
    assert {difference.figure for difference in found.differences} >= {"tokens", "uptime_s", "score"}
    assert len(verify(replace(first, root=b"no certificate")).notes) == 4


# What landed though it does not follow.


def test_what_lying_operators_let_land_is_named_figure_by_figure(tmp_path: Path) -> None:
    scene = AuditScene(tmp_path, landing=inflated)
    scene.run(1)
    found = verify(trio.run(scene.export, 1))
    step = fault(found, "totals")
    assert found.recomputed is not None
    assert found.recomputed != found.landed
    winner, loser = scene.participants[0], scene.participants[1]
    named = {(each.participant, each.figure): each for each in found.differences}
    tokens = named[winner.address, "tokens"]
    assert int(tokens.settled) == int(tokens.recomputed) + 1
    assert tokens.records == (1, 4)
    assert tokens.node_key == winner.node_key
    assert named[loser.address, "earned_nanoton"].settled == "0"
    assert (None, "totals_root") in named
    assert any(f"{winner.address}: tokens: settled {tokens.settled}" in finding for finding in step.findings)
    assert {each.participant for each in found.differences} == {winner.address, loser.address, None}


def test_another_head_in_everybodys_observation_needs_other_records(first: Bundle) -> None:
    said = parse_observation(first.observations[0], POOL)
    logs = {node_key: replace(log, head=Head(log.head.seq + 1, bytes(32))) for node_key, log in said.logs.items()}
    anew = make_observation(
        key(0), POOL, epoch=1, set_id=1, policy_hash=said.policy_hash, base=said.base, logs=logs, forks=()
    )
    listed = parse_proposal(first.proposal, POOL)
    leader = next(key(i) for i in range(4) if key(i).public == listed.leader)
    items = tuple(replace(item, digest=anew.digest) if item.index == 0 else item for item in listed.listed)
    proposal = make_proposal(leader, POOL, epoch=1, view=0, set_id=1, listed=items, cert_hash=listed.cert_hash)
    changed = replace(first, observations=(anew.wire, *first.observations[1:]), proposal=proposal.wire)
    step = fault(verify(changed), "records")
    assert len(step.findings) == 4
    assert all("observed, and not all here" in finding for finding in step.findings)
