"""Gas and value: what each operation burns, at small and at large sizes, stays below what its message must bring.

The figures of `GAS` are exact: a change of the contracts that moves one shows here. The bounds of
`contracts/src/fees.tolk`, read from the source, must lie above the largest of them.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from pytoniq_core import Builder, Cell

from contracts import fees, layout, proof
from contracts.layout import dictionary
from contracts.layout.cells import store_address
from contracts.model import NANO, Address, Operator, OperatorSet
from contracts.opcodes import Op
from tests.contracts.pool_scene import (
    ANYONE,
    DURATION_S,
    OWNER,
    PARTICIPANTS,
    STAKE,
    START_S,
    Scene,
    account,
    leaf,
    operator_keys,
)

FEES = (Path(layout.__file__).parent.parent / "src" / "fees.tolk").read_text()
BOUND = {name: int(gas) for name, gas in re.findall(r"const (GAS_\w+) = (\d+)", FEES)}
GAS_NANOTON = 400

# (signers, operators) -> gas of pool_enable_quorum, of the submission in the pool, of the settlement
CERTIFICATE_GAS = {
    (1, 1): (7592, 7399, 11890),
    (7, 10): (14639, 13783, 11890),
    (34, 50): (48409, 139411, 11890),
    (67, 100): (92409, 308948, 11890),
    (180, 180): (164349, 889980, 11890),
}
MAIN_PATH_GAS = {
    "init": 15200,
    "register": 4807,
    "add": 8746,
    "pay": 3516,
    "finalize": 9869,
    "claim": 11427,
    "claim for another": 13890,
}


def large(items: dict[int, object], write: object) -> Cell | None:
    return dictionary.build(items, 256, write)


def number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest(), "big")


@pytest.mark.parametrize(("signers", "count"), CERTIFICATE_GAS)
def test_gas_of_a_certificate(scene: Scene, signers: int, count: int) -> None:
    scene.keys = operator_keys(count)
    members = tuple(Operator(node_key=key.public, weight=10) for key in scene.keys)
    enabled = scene.enable_quorum(OperatorSet(set_id=1, operators=members))
    pot = scene.finish_epoch()
    cell = scene.certificate(scene.payload([leaf(PARTICIPANTS[0], pot)]))
    sent = scene.submit(cell, range(count - signers, count))
    assert sent.refusal is None
    gas = enabled.at(scene.pool).gas_used, sent.at(scene.pool).gas_used, sent.at(scene.rewards).gas_used
    assert gas == CERTIFICATE_GAS[signers, count]
    assert gas[0] <= BOUND["GAS_ENABLE_QUORUM"] + BOUND["GAS_ENABLE_QUORUM_PER_OPERATOR"] * count
    assert gas[1] <= BOUND["GAS_CERTIFICATE"] + BOUND["GAS_CERTIFICATE_PER_SIGNER"] * signers
    assert sent.received(ANYONE) <= fees.submit_nanoton(signers)


def test_gas_of_the_main_path(ready: Scene) -> None:
    fresh = Scene()
    gas = {"init": fresh.deploy().at(fresh.pool).gas_used}
    registered = ready.register(PARTICIPANTS[0])
    gas |= {"register": registered.at(ready.pool).gas_used, "add": registered.at(ready.registry).gas_used}
    gas["pay"] = ready.pay(100 * NANO).at(ready.rewards).gas_used
    ready.ledger.advance(START_S + DURATION_S)
    gas["finalize"] = ready.finalize().at(ready.rewards).gas_used
    pot = ready.state().open_epochs[0].pot_nanoton
    tree = ready.settle_shares(dict.fromkeys(PARTICIPANTS, pot // 10))
    gas["claim"] = ready.claim(PARTICIPANTS[0], tree).at(ready.rewards).gas_used
    relayed = ready.claim(PARTICIPANTS[1], tree, source=ANYONE)
    gas["claim for another"] = relayed.at(ready.rewards).gas_used
    assert gas == MAIN_PATH_GAS
    assert gas["init"] <= BOUND["GAS_INIT"]


def test_a_payment_pays_for_itself(scene: Scene) -> None:
    burnt = scene.pay(NANO).at(scene.rewards).gas_used
    assert burnt <= BOUND["GAS_CREDIT"]
    assert BOUND["GAS_CREDIT"] * GAS_NANOTON == fees.PAYMENT_NANOTON


def registry_of(scene: Scene, count: int) -> Address:
    """A registry of this pool that already has `count` participants."""
    profile = Builder().store_uint(1, 256).store_uint(0, 2 + 264).end_cell()
    owners = {number(f"owner {i}"): None for i in range(count)}
    keys = {number(f"key {i}"): owner for i, owner in enumerate(owners)}

    def entry(builder: Builder, _: object) -> None:
        builder.store_coins(STAKE).store_uint(0, 2).store_uint(500, 10).store_uint(1, 64).store_ref(profile)

    data = store_address(Builder(), scene.pool).store_uint(count, 32).store_coins(count * STAKE)
    data.store_maybe_ref(large(owners, entry)).store_maybe_ref(large(keys, lambda b, v: b.store_uint(v, 256)))
    return deployed(scene, "participant_registry", data.end_cell(), count * (STAKE + NANO // 20) + NANO)


def deployed(scene: Scene, name: layout.ContractName, data: Cell, nanoton: int) -> Address:
    init = layout.state_init(layout.code(name), data)
    address = layout.address_of(init)
    scene.ledger.send_internal(ANYONE, address, nanoton, layout.top_up_body(), state_init=init)
    return address


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_gas_of_a_registration_among_many(scene: Scene, count: int) -> None:
    registry = registry_of(scene, count)
    most = 0
    for i in range(3):
        profile = Builder().store_uint(number(f"new key {i}"), 256).store_uint(0, 2 + 264).end_cell()
        body = Builder().store_uint(Op.REGISTRY_ADD_PARTICIPANT, 32).store_uint(0, 64)
        body.store_uint(number(f"new {i}"), 256).store_coins(STAKE).store_uint(20_000, 32).store_ref(profile)
        value = STAKE + fees.REGISTRATION_NANOTON - NANO // 200
        added = scene.ledger.send_internal(scene.pool, registry, value, body.end_cell())[0]
        assert added.exit_code == 0
        most = max(most, added.gas_used)
    in_pool = MAIN_PATH_GAS["register"]
    assert most + in_pool <= BOUND["GAS_REGISTER"]


def rewards_of(scene: Scene, tree: proof.TotalsTree, total: int, paid: dict[int, int], open_count: int) -> Address:
    """RewardDistribution that landed `tree` (sum `total`), paid some of it, and has open epochs."""
    terms = store_address(store_address(Builder(), scene.pool), scene.registry)
    terms.store_uint(DURATION_S, 32).store_uint(500, 16).store_coins(NANO)
    landed = Builder().store_uint(1, 32).store_uint(START_S, 32).store_uint(1, 256).store_bytes(tree.root_hash)
    landed.store_uint(0, 256).store_coins(total)
    epochs = dictionary.build(
        {2 + i: None for i in range(open_count)},
        32,
        lambda b, _: b.store_uint(0, 96).store_coins(NANO).store_coins(NANO),
    )
    data = Builder().store_ref(terms.end_cell()).store_uint(2 + open_count, 32).store_uint(START_S, 32)
    data.store_uint(START_S + 1, 32).store_uint(0, 8).store_coins(open_count * NANO).store_coins(NANO)
    data.store_coins(sum(paid.values())).store_ref(landed.end_cell()).store_maybe_ref(epochs)
    data.store_maybe_ref(large(paid, lambda b, v: b.store_coins(v)))
    return deployed(scene, "reward_distribution", data.end_cell(), total + (open_count + 2) * NANO)


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_gas_of_a_claim_among_many(scene: Scene, count: int) -> None:
    everyone = [account(f"claimer {i}") for i in range(count)]
    tree = proof.totals_tree([leaf(p, 5 * NANO) for p in everyone])
    paid = {int.from_bytes(p.account, "big"): NANO for p in everyone[: count // 2]}
    rewards = rewards_of(scene, tree, 5 * NANO * count, paid, 63)
    for participant in (everyone[0], everyone[1], everyone[-1], everyone[-2]):
        body = layout.claim_body(participant, tree.prove(participant))
        for source in (ANYONE, participant):
            claimed = scene.ledger.send_internal(source, rewards, fees.CLAIM_NANOTON, body)[0]
            assert claimed.exit_code == (0 if source == ANYONE else 504)
            assert claimed.gas_used <= BOUND["GAS_CLAIM"]


def test_gas_of_epochs_with_64_open(scene: Scene) -> None:
    tree = proof.totals_tree([leaf(PARTICIPANTS[0], NANO)])
    rewards = rewards_of(scene, tree, NANO, {}, 63)
    scene.ledger.advance(START_S + 10)
    finalized = scene.ledger.send_internal(ANYONE, rewards, fees.FINALIZE_NANOTON, layout.finalize_body())[0]
    assert finalized.exit_code == 0
    assert finalized.gas_used <= BOUND["GAS_FINALIZE"]
    payload = scene.payload([leaf(PARTICIPANTS[0], NANO)], epoch=2, prev=(1).to_bytes(32, "big"))
    relay = Builder().store_uint(Op.POOL_RELAY_CERTIFICATE, 32).store_uint(0, 64)
    store_address(relay, OWNER).store_coins(NANO).store_uint(1, 8).store_ref(layout.payload_cell(payload))
    settled = scene.ledger.send_internal(scene.pool, rewards, NANO // 20, relay.end_cell())[0]
    assert settled.exit_code == 0
    assert settled.gas_used <= BOUND["GAS_SETTLE"]
