"""Every command of PoolOperator in every place: by certificate, by the owner, past the pool, out of its turn."""

from __future__ import annotations

import pytest
from pytoniq_core import Builder, Cell

from contracts import certificate, fees, layout
from contracts.commands import (
    Command,
    Pause,
)
from contracts.model import (
    NANO,
    CertificateKind,
)
from contracts.opcodes import Event, Op, Refusal, describe_exit
from tests.contracts.command_samples import command_of, commands, every
from tests.contracts.pool_scene import (
    ANYONE,
    OWNER,
    PARTICIPANTS,
    Scene,
)

ALICE = PARTICIPANTS[0]


@pytest.fixture
def ready(ready: Scene) -> Scene:
    """Four operators in charge, Alice registered, one epoch finalized."""
    assert ready.register(ALICE).refusal is None
    ready.finish_epoch()
    return ready


def test_every_kind_is_here(ready: Scene) -> None:
    assert [command.kind for command in commands(ready)] == list(CertificateKind)


TO_REWARDS = {CertificateKind.SETTLE, CertificateKind.FEES_TO, CertificateKind.OWNER_MESSAGE}
TO_REGISTRY = {kind for kind in CertificateKind if CertificateKind.SETTLE < kind < CertificateKind.PROPOSE_SET}


@every(CertificateKind)
def test_trap_03_no_child_takes_a_command_but_from_the_pool(ready: Scene, kind: CertificateKind) -> None:
    command = command_of(ready, kind)
    body = relay(command)
    for child in (ready.registry, ready.rewards):
        for sender in (ANYONE, OWNER, ALICE):
            before = ready.state(), ready.registry_state()
            sent = ready.send(sender, child, NANO, body)
            assert sent.refusal is Refusal.NOT_POOL
            assert sent.received(sender) > NANO * 98 // 100
            assert (ready.state(), ready.registry_state()) == before


@every(CertificateKind)
def test_no_child_takes_a_command_of_another_kind(ready: Scene, kind: CertificateKind) -> None:
    """Even from the pool, which never relays one so."""
    command = command_of(ready, kind)
    for child, kinds in ((ready.registry, TO_REGISTRY), (ready.rewards, TO_REWARDS)):
        if kind in kinds:
            continue
        sent = ready.ledger.send_internal(ready.pool, child, NANO, relay(command))
        assert sent[0].exit_code == Refusal.UNKNOWN_KIND


def relay(command: Command) -> Cell:
    return layout.body_cell(
        Op.POOL_RELAY_CERTIFICATE,
        submitter=ANYONE,
        attached=NANO,
        set_id=1,
        kind=command.kind,
        payload=layout.command_cell(command),
    )


GOVERNED = [
    kind for kind in CertificateKind if kind >= CertificateKind.PROPOSE_SET and kind != CertificateKind.ACCEPT_SET
]


@every(GOVERNED)
@pytest.mark.parametrize("seqno", [0, 2, 2**32 - 1])
def test_a_command_of_the_pool_out_of_its_turn(ready: Scene, kind: CertificateKind, seqno: int) -> None:
    command = command_of(ready, kind)
    payload = layout.command_cell(command)
    other = Builder().store_bits(payload.bits[:8]).store_uint(seqno, 32).store_bits(payload.bits[40:])
    for cell in payload.refs:
        other.store_ref(cell)
    cell = certificate.certificate_cell(ready.domain, kind, other.end_cell())
    sent = ready.submit(cell)
    assert sent.refusal is Refusal.WRONG_GOV_SEQNO
    assert sent.received(ANYONE) > fees.submit_nanoton(4) - NANO // 50


@every(GOVERNED)
def test_an_order_without_signatures_is_nothing(ready: Scene, kind: CertificateKind) -> None:
    """One operator alone, and the pool stays as it is: the dispatcher comes after the signatures."""
    before = ready.pool_state()
    command = command_of(ready, kind)
    assert ready.command(command, [0]).refusal is Refusal.NO_QUORUM
    assert ready.pool_state() == before


# ---- the owner's commands ----

OF_THE_QUORUM = {CertificateKind.PROPOSE_SET, CertificateKind.ACCEPT_SET}


@every(CertificateKind)
def test_the_owner_is_powerless_after_the_hand_over(ready: Scene, kind: CertificateKind) -> None:
    before = ready.pool_state(), ready.state(), ready.registry_state()
    command = command_of(ready, kind)
    sent = ready.owner_command(command)
    assert sent.refusal is Refusal.QUORUM_ALREADY_ENABLED
    assert sent.received(OWNER) > fees.owner_command_nanoton(command) - NANO // 50
    assert (ready.pool_state(), ready.state(), ready.registry_state()) == before
    assert ready.owner_command(command, source=ANYONE).refusal is Refusal.NOT_OWNER


@every(CertificateKind)
def test_before_the_hand_over_the_owner_alone_commands(scene: Scene, kind: CertificateKind) -> None:
    assert scene.register(ALICE).refusal is None
    command = command_of(scene, kind)
    assert scene.owner_command(command, source=ANYONE).refusal is Refusal.NOT_OWNER
    refusal = scene.owner_command(command).refusal
    if kind in OF_THE_QUORUM:
        assert refusal is Refusal.QUORUM_NOT_ENABLED
    else:
        assert refusal not in (Refusal.NOT_OWNER, Refusal.UNKNOWN_KIND, Refusal.QUORUM_NOT_ENABLED)


# Nothing is held and nothing proposed that these could take back.
WITHOUT_EFFECT = {CertificateKind.CANCEL_SLASH, CertificateKind.CANCEL}


@every(kind for kind in CertificateKind if kind not in OF_THE_QUORUM | WITHOUT_EFFECT)
def test_owner_and_quorum_command_the_same(kind: CertificateKind) -> None:
    """The same command leaves the same children, the same events, and a pool that differs in phase and set alone."""
    outcomes = []
    for quorum in (False, True):
        scene = Scene()
        assert scene.deploy().refusal is None
        assert scene.register(ALICE).refusal is None
        scene.finish_epoch()
        if quorum:
            scene.hand_over()
        sent = scene.act(command_of(scene, kind))
        assert sent.refusal is None
        pool = scene.pool_state()
        facts = (pool.status, pool.gov_seqno, pool.pending, pool.metadata, pool.registration_open, pool.active_count)
        events = [(e.op, e.values) for e in sent.events if e.op != Event.EVENT_EPOCH_SETTLED]
        outcomes.append((facts, events, scene.registry_state(), scene.state().landed))
    assert outcomes[0] == outcomes[1]


def test_an_owner_command_needs_its_gas(scene: Scene) -> None:
    assert scene.owner_command(Pause(gov_seqno=1), value=NANO // 25).refusal is Refusal.INSUFFICIENT_VALUE


@pytest.mark.parametrize("bits", [0, 7, 8, 39])
def test_a_truncated_command(scene: Scene, bits: int) -> None:
    payload = layout.command_cell(Pause(gov_seqno=1))
    cell = Builder().store_bits(payload.bits[:bits]).end_cell()
    sent = scene.send(OWNER, scene.pool, NANO, layout.body_cell(Op.POOL_OWNER_COMMAND, payload=cell))
    assert describe_exit(sent.at(scene.pool).exit_code) == "cell_underflow"
    assert sent.received(OWNER) > NANO * 98 // 100
