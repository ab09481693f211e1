"""Certificates in PoolOperator: every reason to refuse one, by name; and every command in every wrong place."""

from __future__ import annotations

import pytest
from pytoniq_core import Builder, Cell

from contracts import certificate, fees, layout
from contracts.commands import (
    Pause,
    Resume,
    SetRegistration,
    Suspend,
)
from contracts.devchain.emulator import TvmEmulator
from contracts.devchain.ledger import Ledger
from contracts.devchain.network import DEVNET_GLOBAL_ID, devnet_config
from contracts.model import (
    NANO,
    Address,
    CertificateDomain,
    CertificateKind,
    Operator,
    OperatorSet,
    PoolStatus,
    Signature,
)
from contracts.opcodes import Op, Refusal, describe_exit
from tests.contracts.command_samples import slash, target
from tests.contracts.pool_scene import (
    ANYONE,
    PARTICIPANTS,
    START_S,
    Scene,
    Sent,
    leaf,
    operator_keys,
)

KEYS = operator_keys(6)
ALICE = PARTICIPANTS[0]
FOREVER = certificate.VALID_FOREVER_S


@pytest.fixture
def ready(scene: Scene) -> Scene:
    """Operators of weights 1..6 in charge (total 21), Alice registered, one epoch finalized."""
    scene.keys_of[1] = KEYS
    members = tuple(Operator(node_key=key.public, weight=i + 1) for i, key in enumerate(KEYS))
    assert scene.register(ALICE).refusal is None
    assert scene.enable_quorum(OperatorSet(set_id=1, operators=members)).refusal is None
    scene.finish_epoch()
    return scene


def good(scene: Scene) -> Cell:
    pot = scene.state().open_epochs[0].pot_nanoton
    return scene.certificate(scene.payload([leaf(ALICE, pot)]))


def refused(sent: Sent, refusal: Refusal, value: int, *, at_most_lost: int = NANO // 20) -> bool:
    """This refusal, and the value back at the submitter."""
    assert sent.refusal is refusal
    assert sent.received(ANYONE) > value - at_most_lost
    return True


def test_certificate_settles(ready: Scene) -> None:
    cell = good(ready)
    sent = ready.submit(cell, [3, 4, 5])
    assert sent.refusal is None
    assert ready.state().landed.payload_hash == cell.refs[0].hash
    assert ready.pool_state().tasks == 60
    assert ready.registry_state().roots == {1: ready.state().landed.totals_root}
    assert sent.received(ANYONE) <= fees.submit_nanoton(3), "submitting costs; it never pays"


# ---- signatures ----


@pytest.mark.parametrize(
    ("signers", "refusal"),
    [
        ([2, 4, 5], Refusal.NO_QUORUM),  # 14 of 21: exactly two thirds
        ([5], Refusal.NO_QUORUM),
        ([3, 4, 5], None),  # 15 of 21
        ([0, 1, 2, 3, 4], None),
    ],
)
def test_more_than_two_thirds_of_the_weight(ready: Scene, signers: list[int], refusal: Refusal | None) -> None:
    assert ready.submit(good(ready), signers).refusal is refusal


def test_signatures_hold_for_exactly_these_bits(ready: Scene) -> None:
    cell = good(ready)
    signatures = [Signature(index=i, signature=key.sign(cell.hash)) for i, key in enumerate(KEYS)]
    other = ready.certificate(ready.payload([leaf(PARTICIPANTS[1], 1)]))
    assert ready.submit(other, signatures=signatures).refusal is Refusal.BAD_SIGNATURE
    last = signatures[5].signature
    flipped = [*signatures[:5], Signature(index=5, signature=bytes([last[0] ^ 1]) + last[1:])]
    assert ready.submit(cell, signatures=flipped).refusal is Refusal.BAD_SIGNATURE
    swapped = [Signature(index=s.index, signature=signatures[5 - s.index].signature) for s in signatures]
    assert ready.submit(cell, signatures=swapped).refusal is Refusal.BAD_SIGNATURE
    assert ready.submit(cell, signatures=signatures).refusal is None


def chain(cell: Cell, indexes: list[int], *, declared: int | None = None) -> Cell:
    """A submission whose chain of signatures stands in the order given."""
    link: Cell | None = None
    for index in reversed(indexes):
        signature = KEYS[index % len(KEYS)].sign(cell.hash)
        link = Builder().store_uint(index, 16).store_bytes(signature).store_maybe_ref(link).end_cell()
    return submission(cell, link or Cell.empty(), len(indexes) if declared is None else declared)


def submission(cell: Cell, signatures: Cell, declared: int = 1) -> Cell:
    return layout.body_cell(Op.POOL_SUBMIT_CERTIFICATE, signers_count=declared, certificate=cell, signatures=signatures)


@pytest.mark.parametrize(
    ("indexes", "declared", "refusal"),
    [
        ([5, 5, 5, 5], None, Refusal.SIGNERS_UNSORTED),
        ([3, 5, 4], None, Refusal.SIGNERS_UNSORTED),
        ([3, 4, 5, 6], None, Refusal.UNKNOWN_SIGNER),
        ([3, 4, 65535], None, Refusal.UNKNOWN_SIGNER),
        ([3, 4, 5], 2, Refusal.TOO_MANY_SIGNERS),
        ([3, 4, 5], 0, Refusal.TOO_MANY_SIGNERS),
        ([3, 4, 5], 9, None),
    ],
)
def test_signature_chain(ready: Scene, indexes: list[int], declared: int | None, refusal: Refusal | None) -> None:
    body = chain(good(ready), indexes, declared=declared)
    assert ready.send(ANYONE, ready.pool, NANO, body).refusal is refusal


@pytest.mark.parametrize(
    ("hidden", "declared", "refusal"),
    [
        (0, 1, Refusal.NO_QUORUM),  # the whole chain, of which one link is paid for: one is read
        (0, 6, Refusal.NO_QUORUM),
        (1, 1, Refusal.TOO_MANY_SIGNERS),
        (1, 2, Refusal.NO_QUORUM),
        (4, 4, Refusal.TOO_MANY_SIGNERS),
        (4, 5, None),  # five are a quorum without the sixth
        (5, 6, None),  # the last link: nothing hangs below it
    ],
)
def test_a_library_cell_hides_no_signers(hidden: int, declared: int, refusal: Refusal | None) -> None:
    """It has no depth, whatever it stands for; more signers would be read than the value was checked for.

    Who saw a certificate could pick a value at which the pool succeeds and the child that it tells runs out of gas.
    """
    emulator = TvmEmulator(devnet_config())
    scene = Scene()
    scene.ledger = Ledger(now=START_S, emulator=emulator)
    assert scene.deploy().refusal is None
    scene.hand_over(6)
    cell = certificate.command_certificate(scene.domain, Pause(gov_seqno=1))
    link: Cell | None = None
    for index in reversed(range(6)):
        signature = scene.keys_of[1][index].sign(cell.hash)
        link = Builder().store_uint(index, 16).store_bytes(signature).store_maybe_ref(link).end_cell()
        if index == hidden:
            emulator.publish(link)
            link = Builder(type_=2).store_uint(2, 8).store_bytes(link.hash).end_cell()
    assert link is not None
    sent = scene.send(ANYONE, scene.pool, NANO, submission(cell, link, declared))
    assert sent.refusal is refusal
    assert (scene.pool_state().status == PoolStatus.PAUSED) == (refusal is None)


@pytest.mark.parametrize("bits", [0, 15, 16, 527])
def test_a_truncated_signature(ready: Scene, bits: int) -> None:
    cell = good(ready)
    whole = Builder().store_uint(0, 16).store_bytes(KEYS[0].sign(cell.hash)).store_maybe_ref(None).end_cell()
    link = Builder().store_bits(whole.bits[:bits]).end_cell()
    sent = ready.send(ANYONE, ready.pool, NANO, submission(cell, link))
    assert describe_exit(sent.at(ready.pool).exit_code) == "cell_underflow"
    assert sent.received(ANYONE) > NANO * 98 // 100


# ---- the envelope ----


def envelope(
    scene: Scene,
    *,
    global_id: int = DEVNET_GLOBAL_ID,
    pool: Address | None = None,
    set_id: int = 1,
    kind: CertificateKind = CertificateKind.SETTLE,
    valid: int = FOREVER,
) -> Cell:
    domain = CertificateDomain(global_id=global_id, pool=pool or scene.pool, set_id=set_id)
    return certificate.certificate_cell(domain, kind, good(scene).refs[0], valid_until_s=valid)


@pytest.mark.parametrize(
    ("over", "refusal"),
    [
        ({"global_id": -239}, Refusal.WRONG_NETWORK),
        ({"global_id": 217}, Refusal.WRONG_NETWORK),
        ({"pool": ANYONE}, Refusal.WRONG_POOL),
        ({"set_id": 0}, Refusal.WRONG_SET),
        ({"set_id": 2}, Refusal.WRONG_SET),
        ({"valid": 1_800_000_000}, Refusal.EXPIRED),
        *(
            ({"kind": kind}, Refusal.MALFORMED_CERTIFICATE)
            for kind in CertificateKind
            if kind != CertificateKind.SETTLE
        ),
        ({}, None),
    ],
)
def test_certificate_of_another_domain(ready: Scene, over: dict[str, object], refusal: Refusal | None) -> None:
    """Every field of the envelope: it is signed by all, and still the pool refuses it."""
    before = ready.pool_state()
    sent = ready.submit(envelope(ready, **over))
    assert sent.refusal is refusal
    if refusal is not None:
        assert refused(sent, refusal, fees.submit_nanoton(6))
        assert ready.pool_state() == before


def test_a_certificate_holds_until_its_last_second(ready: Scene) -> None:
    assert ready.submit(envelope(ready, valid=ready.ledger.now - 1)).refusal is Refusal.EXPIRED
    assert ready.submit(envelope(ready, valid=ready.ledger.now)).refusal is None


def signed(scene: Scene, cell: Cell) -> Sent:
    """This cell as a certificate, signed by all."""
    signatures = [Signature(index=i, signature=key.sign(cell.hash)) for i, key in enumerate(KEYS)]
    return scene.submit(cell, signatures=signatures)


def test_another_tag_is_no_certificate(ready: Scene) -> None:
    cell = good(ready)
    other = Builder().store_uint(0x43455255, 32).store_bits(cell.bits[32:]).store_ref(cell.refs[0]).end_cell()
    assert signed(ready, other).refusal is Refusal.MALFORMED_CERTIFICATE


@pytest.mark.parametrize("bits", [31, 32, 64, 331, 363, 395, 402])
def test_a_truncated_certificate(ready: Scene, bits: int) -> None:
    cell = good(ready)
    assert len(cell.bits) == 403
    sent = signed(ready, Builder().store_bits(cell.bits[:bits]).store_ref(cell.refs[0]).end_cell())
    assert describe_exit(sent.at(ready.pool).exit_code) in ("cell_underflow", "malformed_certificate")
    assert sent.received(ANYONE) > fees.submit_nanoton(6) - NANO // 50
    assert ready.state().landed.epoch == 0


def test_a_certificate_of_an_unknown_kind(ready: Scene) -> None:
    for kind in (0x00, 0x07, 0x0F, 0x1C, 0xFF):
        payload = Builder().store_uint(kind, 8).store_uint(1, 32).end_cell()
        cell = good(ready)
        other = Builder().store_bits(cell.bits[:-8]).store_uint(kind, 8).store_ref(payload).end_cell()
        assert refused(signed(ready, other), Refusal.UNKNOWN_KIND, fees.submit_nanoton(6))


def test_submission_needs_its_gas(ready: Scene) -> None:
    assert ready.submit(good(ready), value=NANO // 25).refusal is Refusal.INSUFFICIENT_VALUE
    body = chain(good(ready), [3, 4, 5], declared=180)
    assert ready.send(ANYONE, ready.pool, 4 * NANO // 10, body).refusal is Refusal.INSUFFICIENT_VALUE


def test_the_least_value_that_the_pool_takes_is_enough_for_all_three_contracts(ready: Scene) -> None:
    """70,000 gas and 5,300 for each signature at 400 nanoTON, 0.02 TON for forwarding: as in fees.tolk."""
    least = (70_000 + 3 * 5_300) * 400 + NANO // 50
    assert ready.submit(good(ready), [3, 4, 5], value=least - 1).refusal is Refusal.INSUFFICIENT_VALUE
    assert ready.submit(good(ready), [3, 4, 5], value=least).refusal is None
    for command in (slash(ready), Suspend(target=target(ready, 2), suspended=True), Pause(gov_seqno=1)):
        assert ready.command(command, [3, 4, 5], value=least).refusal is None


def test_no_certificate_before_the_hand_over(scene: Scene) -> None:
    scene.keys_of[1] = KEYS
    scene.finish_epoch()
    assert scene.submit(good(scene)).refusal is Refusal.QUORUM_NOT_ENABLED


def test_a_certificate_works_once(ready: Scene) -> None:
    for command in (slash(ready), Pause(gov_seqno=1), SetRegistration(gov_seqno=2, open=True)):
        assert ready.command(command).refusal is None
    assert ready.command(Resume(gov_seqno=3)).refusal is None
    assert ready.command(slash(ready, seqno=1)).refusal is Refusal.WRONG_SEQNO
    assert ready.command(Pause(gov_seqno=1)).refusal is Refusal.WRONG_GOV_SEQNO
    cell = good(ready)
    assert ready.submit(cell).refusal is None
    assert ready.submit(cell).refusal is Refusal.ALREADY_SETTLED
