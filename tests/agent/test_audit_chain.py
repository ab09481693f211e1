"""Verifying what a bundle says of the chain: what is proven, what is believed, and that a lie is found and named."""

from __future__ import annotations

from dataclasses import replace

import contract_states
from audit_bundles import fault, first, scene, second, with_account
from audit_scene import REGISTRY_STORAGE, AuditScene, registry_of
from pool_fixture import POOL, participant

from agent.audit.bundle import Bundle
from agent.audit.verifying import Verification, verify
from contracts import layout

__all__ = ["first", "scene", "second"]


def blocks_believed(found: Verification) -> dict[int, str]:
    return {int(text.split()[1].split(":")[0]): text for text in found.believed if text.startswith("block ")}


def test_all_blocks_rest_on_the_one_after_the_landing(first: Bundle) -> None:
    found = verify(first)
    top = first.chain.headers[-1]
    assert top.seqno == first.chain.landed_seqno
    assert len(first.chain.headers) == 5
    assert [link.source for link in first.chain.links] == [top.seqno] * 2
    assert blocks_believed(found).keys() == {top.seqno}
    assert f"block {top.seqno}:{top.root_hash.hex()}, on which everything rests" in blocks_believed(found)[top.seqno]
    assert any("root certificate" in text and "not Intel's" in text for text in found.believed)
    assert any("what operators say they saw" in text for text in found.believed)
    assert any(f"0:{POOL.account.hex()}" in text for text in found.believed)


def test_a_block_is_believed_until_it_is_given(scene: AuditScene, first: Bundle) -> None:
    unlinked = replace(first, chain=replace(first.chain, links=()))
    found = verify(unlinked)
    assert found.is_same
    chain = first.chain
    believed = blocks_believed(found)
    assert believed.keys() == {scene.anchor.seqno, chain.registry_seqno, chain.landed_seqno}
    assert "evidence is anchored in" in believed[scene.anchor.seqno]
    assert "bears the registry" in believed[chain.registry_seqno]
    anchor = (scene.anchor.seqno, scene.anchor.root_hash)
    top = chain.headers[-1]
    known = verify(unlinked, [anchor, (top.seqno, top.root_hash)])
    assert known.is_same
    assert blocks_believed(known).keys() == {chain.registry_seqno}
    for wrong in ((top.seqno, bytes(32)), (top.seqno + 1, top.root_hash)):
        step = fault(verify(first, [wrong]), "chain")
        assert f"block {wrong[0]}: {wrong[1].hex()} was given" in step.findings[0]


def test_a_link_that_shows_something_else(first: Bundle, second: Bundle) -> None:
    link, other = first.chain.links
    for links, message in (
        ([replace(link, target=link.target + 1)], "the path to it is left out"),
        ([replace(link, target=1 << 20)], "no link leads from it back"),
        ([replace(link, source=1 << 20)], "no link leads from it back"),
        ([replace(link, source=other.target, target=0)], "before"),
        ([replace(link, state_proof=second.chain.links[0].state_proof)], "not of this block's state"),
        ([replace(link, proof=second.chain.links[0].proof)], "its header is of another block"),
        ([replace(link, state_proof=b"")], "before"),
        ([replace(link, source=link.target, target=link.source)], "no link leads from it back"),
    ):
        step = fault(verify(replace(first, chain=replace(first.chain, links=tuple(links)))), "chain")
        assert message in step.findings[0]


# What the chain said.


def test_a_policy_that_was_not_pinned(first: Bundle) -> None:
    found = verify(
        replace(first, policy=first.policy.replace("tokens = 500", "tokens = 400").replace("= 200", "= 250", 1))
    )
    step = fault(found, "policy")
    assert "policy" in step.findings[0]
    # What needs it is not looked at; all else is.
    assert {step.name: step.holds for step in found.steps} == {
        "chain": True,
        "policy": False,
        "base": True,
        "settled": True,
        "certificate": True,
        "proposal": None,
        "records": None,
        "evidence": None,
        "totals": None,
    }
    assert "policy:" in fault(verify(replace(first, policy="not toml [")), "policy").findings[0]


def test_a_policy_that_reads_the_same_is_the_same(first: Bundle) -> None:
    assert verify(replace(first, policy="# as agreed\n" + first.policy)).is_same


def test_a_registry_that_the_chain_never_had(first: Bundle) -> None:
    richer_entry = replace(participant(0), reputation=1000)
    others = tuple(participant(i) for i in range(1, 4))
    forged = registry_of(tuple(sorted((richer_entry, *others), key=lambda p: p.address)))
    kept = first.chain.accounts[3]
    account = layout.parse_boc(kept.state)
    data = REGISTRY_STORAGE.cell(forged)
    swapped = account.copy()
    swapped.refs[-1] = data
    assert kept.address == contract_states.REGISTRY
    rebuilt = swapped.begin_parse().to_cell().to_boc()
    step = fault(verify(with_account(first, 3, state=rebuilt)), "chain")
    assert f"state of {contract_states.REGISTRY}" in step.findings[0]


def test_states_of_another_block_or_contract(first: Bundle, second: Bundle) -> None:
    assert "is missing" in fault(verify(with_account(first, 3, seqno=first.chain.open_seqno)), "chain").findings[0]
    for at in range(4):
        other = second.chain.accounts[at]
        step = fault(verify(with_account(first, at, shard=other.shard, proof=other.proof, state=other.state)), "chain")
        assert "state of" in step.findings[0]
    accounts = replace(first.chain, accounts=first.chain.accounts[1:])
    assert "pool operator" in fault(verify(replace(first, chain=accounts)), "chain").findings[0]
    swapped = replace(first, pool=replace(POOL, account=contract_states.REWARDS.account))
    assert not verify(swapped).is_same


def test_blocks_that_are_missing_or_not_what_they_should_be(first: Bundle, second: Bundle) -> None:
    chain = first.chain
    for changes, message in (
        ({"headers": (chain.headers[0], *chain.headers[2:])}, "are not both here"),
        ({"headers": chain.headers[:-1]}, "header is missing"),
        ({"headers": (*chain.headers, chain.headers[0])}, "stands twice"),
        ({"registry_seqno": chain.landed_seqno}, "not the first one since the epoch was finalized"),
        ({"landed_seqno": chain.open_seqno}, "does not show epoch 1 as the last that settled"),
        ({"open_seqno": chain.landed_seqno}, ""),
    ):
        step = fault(verify(replace(first, chain=replace(chain, **changes))), "chain")
        assert message in step.findings[0]
    lied = replace(chain.headers[0], root_hash=bytes(32))
    step = fault(verify(replace(first, chain=replace(chain, headers=(lied, *chain.headers[1:])))), "chain")
    assert "block header" in step.findings[0]
    assert "next one to settle" in fault(verify(replace(first, epoch=2)), "chain").findings[0]
    assert "of network -217" in fault(verify(replace(first, pool=replace(POOL, network=-3))), "chain").findings[0]


def test_settlements_that_did_not_land(first: Bundle, second: Bundle) -> None:
    assert "not the payload that landed" in fault(verify(replace(first, settled=second.settled)), "settled").findings[0]
    assert "not the payload that landed" in fault(verify(replace(second, base=second.settled)), "base").findings[0]
    assert "epoch 1 is missing" in fault(verify(replace(second, base=None)), "base").findings[0]
    assert "nothing had landed" in fault(verify(replace(first, base=first.settled)), "base").findings[0]
    changed = bytearray(first.settled)
    changed[-1] ^= 1
    assert fault(verify(replace(first, settled=bytes(changed))), "settled").findings
