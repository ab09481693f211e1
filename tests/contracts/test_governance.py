"""What has to wait in PoolOperator: the operators' rotation and new parameters, with their times and their refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from pytoniq_core import Builder, Cell

from contracts import certificate, layout
from contracts.commands import AcceptSet, CancelProposal, Pause, ProposeParams, ProposeSet, ProposeUpgrade
from contracts.model import (
    DAY_S,
    HOUR_S,
    NANO,
    PROPOSAL_LIFE_S,
    CertificateKind,
    Operator,
    OperatorSet,
    PoolParams,
    Proposal,
    Signature,
    UpgradeTarget,
)
from contracts.opcodes import Event, Refusal
from tests.contracts.pool_scene import ANYONE, PARAMS, PARTICIPANTS, TERMS, Scene, Sent, leaf, operator_keys
from tests.contracts.unchecked import unchecked

WAIT = PARAMS.parameter_delay_s
OTHER = replace(
    PARAMS,
    terms=replace(TERMS, fee_bps=900, policy_hash=b"\7" * 32),
    rules=replace(PARAMS.rules, slash_bps=2000, withdrawal_delay_s=2 * DAY_S),
    max_participants=2,
    upgrade_delay_s=7 * DAY_S,
)


def propose(scene: Scene, params: PoolParams) -> Sent:
    return scene.act(ProposeParams(gov_seqno=scene.gov_seqno, params=params))


def proposed(scene: Scene, kind: CertificateKind) -> Proposal | None:
    return next((p for p in scene.pool_state().pending if p.kind == kind), None)


# ---- parameters ----


def test_params_are_proposed_wait_and_apply(ready: Scene) -> None:
    sent = propose(ready, OTHER)
    assert sent.refusal is None
    cell, since = layout.params_cell(OTHER), ready.ledger.now
    expected = {"kind": CertificateKind.PROPOSE_PARAMS, "target": 0, "hash": cell.hash, "not_before": since + WAIT}
    assert [(e.op, e.values) for e in sent.events] == [(Event.EVENT_PROPOSED, expected)]
    waiting = Proposal(
        kind=CertificateKind.PROPOSE_PARAMS, hash=cell.hash, since_s=since, not_before_s=since + WAIT, params=OTHER
    )
    assert ready.pool_state().pending == (waiting,)
    assert ready.pool_state().params == PARAMS

    ready.advance(WAIT)
    sent = ready.apply_params()
    assert sent.refusal is None
    assert [e.op for e in sent.events] == [Event.EVENT_PARAMS_APPLIED, Event.EVENT_TERMS_UPDATED]
    assert ready.pool_state().params == OTHER
    assert ready.pool_state().pending == ()
    assert ready.registry_state().rules == OTHER.rules
    assert (ready.state().next.set_id, ready.state().next.terms) == (1, OTHER.terms)
    assert ready.apply_params().refusal is Refusal.NOTHING_PROPOSED


def test_trap_12_the_fee_of_a_running_epoch_never_changes(ready: Scene) -> None:
    ready.finish_epoch()
    assert propose(ready, OTHER).refusal is None
    ready.advance(WAIT)
    assert ready.apply_params().refusal is None
    assert ready.state().running.terms == TERMS
    ready.finish_epoch()
    assert (ready.state().open_epochs[1].fee_nanoton, ready.state().open_epochs[1].policy_hash) == (
        ready.state().open_epochs[0].fee_nanoton,
        TERMS.policy_hash,
    )
    assert ready.state().running.terms == OTHER.terms


def test_the_applier_gets_back_what_the_children_leave(ready: Scene) -> None:
    assert propose(ready, OTHER).refusal is None
    ready.advance(WAIT)
    contracts = (ready.pool, ready.registry, ready.rewards)
    for address in contracts:
        ready.send(ANYONE, address, NANO, layout.top_up_body())  # pays the rent until now
    balances = [ready.balance(address) for address in contracts]
    sent = ready.apply_params(value=NANO)
    assert sent.received(ANYONE) > NANO - NANO // 20
    assert [ready.balance(address) for address in contracts] == balances


def test_applying_needs_its_value(ready: Scene) -> None:
    """70,000 gas at 400 nanoTON and 0.05 TON are enough for all three contracts; less is refused."""
    assert propose(ready, OTHER).refusal is None
    ready.advance(WAIT)
    least = 70_000 * 400 + NANO // 20
    assert ready.apply_params(value=least - 1).refusal is Refusal.INSUFFICIENT_VALUE
    assert ready.apply_params(value=least).refusal is None


def test_a_proposal_has_to_be_a_valid_one(ready: Scene) -> None:
    sent = propose(ready, unchecked(OTHER, parameter_delay_s=HOUR_S - 1))
    assert sent.refusal is Refusal.INVALID_PARAMS
    assert (ready.pool_state().pending, ready.pool_state().gov_seqno) == ((), 0)


def test_params_are_checked_again_when_they_apply(ready: Scene) -> None:
    """They were proposed to other code, say, that allowed more."""
    assert propose(ready, OTHER).refusal is None
    ready.advance(WAIT)
    data = ready.ledger.account(ready.pool).data
    assert data is not None
    for params, refusal in [(OTHER, 0), (unchecked(OTHER, max_participants=12_001), Refusal.INVALID_PARAMS)]:
        tampered = replaced(data, layout.params_cell(OTHER).hash, layout.params_cell(params))
        init = layout.state_init(layout.code("pool_operator"), tampered)
        sent = ready.ledger.send_internal(ANYONE, layout.address_of(init), NANO, layout.apply_params_body(), init)
        assert sent[0].exit_code == refusal


def replaced(tree: Cell, old: bytes, new: Cell) -> Cell:
    """The same tree with another cell instead of the one with this hash."""
    if tree.hash == old:
        return new
    builder = Builder().store_bits(tree.bits)
    for cell in tree.refs:
        builder.store_ref(replaced(cell, old, new))
    return builder.end_cell()


# ---- times ----

Apply = Callable[[Scene], Sent]
CODE = layout.code("participant_registry")


def propose_params(scene: Scene) -> None:
    assert propose(scene, OTHER).refusal is None


def propose_upgrade(scene: Scene) -> None:
    command = ProposeUpgrade(gov_seqno=scene.gov_seqno, target=UpgradeTarget.REGISTRY, code_hash=CODE.hash)
    assert scene.act(command).refusal is None


def propose_set(scene: Scene) -> None:
    assert scene.propose_set(scene.new_set(2)).refusal is None


TIMELOCKS: dict[str, tuple[Callable[[Scene], None], Apply, int, CertificateKind]] = {
    "params": (propose_params, Scene.apply_params, WAIT, CertificateKind.PROPOSE_PARAMS),
    "upgrade": (
        propose_upgrade,
        lambda scene: scene.apply_upgrade(CODE),
        PARAMS.upgrade_delay_s,
        CertificateKind.PROPOSE_UPGRADE,
    ),
    "set": (propose_set, lambda scene: scene.accept_set(scene.new_set(2)), WAIT, CertificateKind.PROPOSE_SET),
}
each_timelock = pytest.mark.parametrize("name", TIMELOCKS)


@each_timelock
def test_trap_12_nothing_applies_before_its_time(ready: Scene, name: str) -> None:
    start, apply, wait, _ = TIMELOCKS[name]
    start(ready)
    assert apply(ready).refusal is Refusal.TOO_EARLY
    ready.advance(wait - 1)
    before = ready.pool_state()
    assert apply(ready).refusal is Refusal.TOO_EARLY
    assert ready.pool_state() == before
    ready.advance(1)
    assert apply(ready).refusal is None


@each_timelock
def test_trap_12_a_proposal_replaced_waits_anew(ready: Scene, name: str) -> None:
    start, apply, wait, _ = TIMELOCKS[name]
    start(ready)
    ready.advance(wait)
    start(ready)
    assert apply(ready).refusal is Refusal.TOO_EARLY
    assert len(ready.pool_state().pending) == 1
    ready.advance(wait)
    assert apply(ready).refusal is None


@each_timelock
def test_trap_12_a_cancelled_proposal_never_applies(ready: Scene, name: str) -> None:
    start, apply, wait, kind = TIMELOCKS[name]
    start(ready)
    ready.advance(wait)
    sent = ready.command(CancelProposal(gov_seqno=ready.gov_seqno, proposal=kind))
    assert [(e.op, e.values) for e in sent.events] == [(Event.EVENT_PROPOSAL_CANCELLED, {"kind": kind})]
    assert apply(ready).refusal is Refusal.NOTHING_PROPOSED
    again = ready.command(CancelProposal(gov_seqno=ready.gov_seqno, proposal=kind))
    assert again.refusal is Refusal.NOTHING_PROPOSED


@each_timelock
def test_a_proposal_dies_thirty_days_after_it_is_ready(ready: Scene, name: str) -> None:
    start, apply, wait, _ = TIMELOCKS[name]
    start(ready)
    ready.advance(wait + PROPOSAL_LIFE_S)
    saved = ready.pool_state()
    ready.advance(1)
    assert apply(ready).refusal is Refusal.EXPIRED
    assert ready.pool_state() == saved
    start(ready)
    ready.advance(wait + PROPOSAL_LIFE_S)
    assert apply(ready).refusal is None


def test_one_proposal_of_each_kind_waits_beside_the_others(ready: Scene) -> None:
    for start, *_ in TIMELOCKS.values():
        start(ready)
    kinds = [CertificateKind.PROPOSE_SET, CertificateKind.PROPOSE_PARAMS, CertificateKind.PROPOSE_UPGRADE]
    assert [p.kind for p in ready.pool_state().pending] == kinds
    [pending] = ready.get(ready.pool, "get_pending")
    assert pending is not None
    ready.command(CancelProposal(gov_seqno=ready.gov_seqno, proposal=kinds[1]))
    assert [p.kind for p in ready.pool_state().pending] == [kinds[0], kinds[2]]


def test_a_longer_delay_that_came_into_force_meanwhile_prolongs_the_wait(ready: Scene) -> None:
    longer = replace(PARAMS, upgrade_delay_s=20 * DAY_S)
    assert propose(ready, longer).refusal is None
    propose_upgrade(ready)
    ready.advance(PARAMS.upgrade_delay_s)
    assert ready.apply_params().refusal is None
    assert ready.apply_upgrade(CODE).refusal is Refusal.TOO_EARLY
    ready.advance(longer.upgrade_delay_s - PARAMS.upgrade_delay_s)
    assert ready.apply_upgrade(CODE).refusal is None


def test_only_proposals_can_be_cancelled(ready: Scene) -> None:
    propose_params(ready)
    for kind in (0, 0x13, 0x17, 0xFF):
        command = unchecked(
            CancelProposal(gov_seqno=ready.gov_seqno, proposal=CertificateKind.PROPOSE_SET), proposal=kind
        )
        assert ready.command(command).refusal is Refusal.NOTHING_PROPOSED


# ---- rotation ----


def test_rotation_in_two_steps(ready: Scene) -> None:
    current, following = ready.pool_state().operator_set, ready.new_set(2, 7)
    assert ready.propose_set(following).refusal is None
    cell = layout.operator_set_cell(following)
    assert proposed(ready, CertificateKind.PROPOSE_SET) == Proposal(
        kind=CertificateKind.PROPOSE_SET,
        hash=cell.hash,
        since_s=ready.ledger.now,
        not_before_s=ready.ledger.now + WAIT,
    )
    ready.advance(WAIT)
    sent = ready.accept_set(following)
    assert sent.refusal is None
    assert sent.events[0].op == Event.EVENT_SET_ACCEPTED
    assert sent.events[0].values == {"set_id": 2, "set_hash": cell.hash}
    pool = ready.pool_state()
    assert (pool.operator_set, pool.previous_set, pool.pending) == (following, current, ())
    assert (ready.state().running.set_id, ready.state().next.set_id, ready.state().next.terms) == (0, 2, TERMS)
    assert ready.accept_set(following).refusal is Refusal.NOTHING_PROPOSED


def test_the_new_set_signs_for_itself(ready: Scene) -> None:
    """Keys that nobody holds never come into force, and the old set goes on."""
    following = ready.new_set(2)
    assert ready.propose_set(following).refusal is None
    ready.advance(WAIT)
    domain = replace(ready.domain, set_id=2)
    cell = certificate.command_certificate(domain, AcceptSet(operator_set=following))
    by_the_old = [Signature(index=i, signature=key.sign(cell.hash)) for i, key in enumerate(ready.keys_of[1])]
    assert ready.submit(cell, signatures=by_the_old, value=NANO).refusal is Refusal.BAD_SIGNATURE
    assert ready.submit(cell, [0, 1], set_id=2, value=NANO).refusal is Refusal.NO_QUORUM
    assert ready.domain.set_id == 1
    assert ready.command(Pause(gov_seqno=ready.gov_seqno)).refusal is None
    assert ready.accept_set(following, [0, 1, 2]).refusal is None


def test_a_mistyped_set_fails_and_the_old_one_goes_on(ready: Scene) -> None:
    mistyped = ready.new_set(2)
    ready.keys_of[2] = operator_keys(4, set_id=9)
    assert ready.propose_set(mistyped).refusal is None
    ready.advance(WAIT)
    assert ready.accept_set(mistyped).refusal is Refusal.BAD_SIGNATURE
    mended = ready.new_set(2)
    mended = replace(mended, operators=mended.operators[:3])
    assert ready.propose_set(mended).refusal is None
    ready.advance(WAIT)
    assert ready.accept_set(mended, [0, 1, 2]).refusal is None


def test_a_set_that_was_not_proposed(ready: Scene) -> None:
    assert ready.propose_set(ready.new_set(2)).refusal is None
    ready.advance(WAIT)
    assert ready.accept_set(ready.new_set(2, 5)).refusal is Refusal.WRONG_PROPOSAL


@pytest.mark.parametrize("set_id", [0, 1, 3])
def test_the_next_set_has_the_next_number(ready: Scene, set_id: int) -> None:
    keys = ready.keys_of[1]
    following = OperatorSet(set_id=set_id, operators=tuple(Operator(node_key=k.public, weight=1) for k in keys))
    ready.keys_of[set_id] = keys
    assert ready.propose_set(following).refusal is None
    ready.advance(WAIT)
    assert ready.accept_set(following).refusal is Refusal.WRONG_SET


def test_the_certificate_names_the_set_in_its_payload(ready: Scene) -> None:
    following = ready.new_set(2)
    assert ready.propose_set(following).refusal is None
    ready.advance(WAIT)
    for set_id in (1, 3):
        ready.keys_of[set_id] = ready.keys_of[2]
        assert ready.command(AcceptSet(operator_set=following), set_id=set_id).refusal is Refusal.WRONG_SET


def test_a_malformed_set_is_not_accepted(ready: Scene) -> None:
    """Its hash was proposed, its own keys signed, and still it would stop the pool."""
    following = ready.new_set(2)
    plain = layout.operator_set_cell(following)
    wrong_total = Builder().store_bits(plain.bits[:48]).store_uint(1, 64).store_bits(plain.bits[112:])
    cell = wrong_total.store_ref(plain.refs[0]).end_cell()
    assert ready.command(ProposeSet(gov_seqno=1, set_hash=cell.hash)).refusal is None
    ready.advance(WAIT)
    payload = Builder().store_uint(CertificateKind.ACCEPT_SET, 8).store_ref(cell).end_cell()
    domain = replace(ready.domain, set_id=2)
    accept = certificate.certificate_cell(domain, CertificateKind.ACCEPT_SET, payload)
    assert ready.submit(accept, set_id=2, value=NANO).refusal is Refusal.INVALID_SET


def test_a_larger_set_needs_more_gas(ready: Scene) -> None:
    following = ready.new_set(2, 60)
    assert ready.propose_set(following).refusal is None
    ready.advance(WAIT)
    accept = AcceptSet(operator_set=following)
    base = (70_000 + 5_300 * 41) * 400 + NANO // 50
    least = base + 1_900 * 60 * 400
    signers = range(41)
    assert ready.command(accept, signers, set_id=2, value=least - 1).refusal is Refusal.INSUFFICIENT_VALUE
    assert ready.command(accept, signers, set_id=2, value=least).refusal is None


def test_after_the_rotation_the_old_set_settles_and_nothing_else() -> None:
    ready = Scene()
    assert ready.deploy(replace(PARAMS, parameter_delay_s=HOUR_S)).refusal is None
    ready.hand_over()
    ready.finish_epoch()  # began under the owner
    ready.finish_epoch()  # began under set 1
    ready.rotate()
    assert ready.settle([leaf(PARTICIPANTS[0], 1)], set_id=1).refusal is None
    assert ready.settle([leaf(PARTICIPANTS[0], 1)], set_id=2).refusal is Refusal.NOT_PINNED_SET
    assert ready.settle([leaf(PARTICIPANTS[0], 1)], set_id=1).refusal is None
    assert ready.command(Pause(gov_seqno=ready.gov_seqno), set_id=1).refusal is Refusal.WRONG_SET
    assert ready.command(Pause(gov_seqno=ready.gov_seqno), set_id=2).refusal is None


def test_two_rotations_later_the_oldest_set_settles_nothing(ready: Scene) -> None:
    ready.finish_epoch()
    ready.rotate()
    ready.rotate()
    assert ready.settle([], set_id=1).refusal is Refusal.WRONG_SET
    assert ready.settle([], set_id=2).refusal is None


def test_a_settlement_before_any_rotation_knows_one_set(ready: Scene) -> None:
    ready.finish_epoch()
    ready.keys_of[2] = ready.keys_of[1]
    assert ready.settle([], set_id=2).refusal is Refusal.WRONG_SET
