"""What PoolOperator answers to anyone who asks."""

from __future__ import annotations

from pytoniq_core import Builder

from contracts import layout
from contracts.commands import Close, Pause, SetRegistration
from contracts.devchain.network import DEVNET_GLOBAL_ID
from contracts.model import (
    DAY_S,
    Address,
    PoolMetadata,
    PoolStatus,
)
from contracts.opcodes import Refusal
from tests.contracts.command_samples import params
from tests.contracts.pool_scene import (
    ANYONE,
    GUARDIAN,
    OWNER,
    PARTICIPANTS,
    POLICY,
    STAKE,
    TERMS,
    Scene,
)

METADATA = PoolMetadata(name="A pool", description="d" * 256, website="https://pool.example", contact="@pool")
MASTERCHAIN_OWNER = Address(-1, OWNER.account)


def address_in(value: object) -> Address:
    loaded = value.load_address()
    return Address(loaded.wc, loaded.hash_part)


def test_get_methods_of_a_new_pool() -> None:
    scene = Scene()
    guarded = params(emergency=True, guardian=GUARDIAN)
    assert scene.deploy(guarded, metadata=METADATA, cocoon_root=ANYONE).refusal is None
    owner, pool_id, cocoon_root, *info = scene.get(scene.pool, "get_pool_info")
    assert (address_in(owner), pool_id, address_in(cocoon_root)) == (OWNER, 7, ANYONE)
    assert info == [PoolStatus.ACTIVE, 500, STAKE, 1000, -1]
    assert scene.get(scene.pool, "get_pool_statistics") == [0, 0, 0]
    references = [address_in(reference) for reference in scene.get(scene.pool, "get_contract_references")]
    assert references == [scene.registry, scene.rewards]
    assert scene.get(scene.pool, "get_version") == [1, 1]
    *governance, guardian = scene.get(scene.pool, "get_governance")
    assert (governance, address_in(guardian)) == ([0, 0, 0], GUARDIAN)
    assert scene.get(scene.pool, "get_pending") == [None]
    *values, guardian = scene.get(scene.pool, "get_params")
    assert address_in(guardian) == GUARDIAN
    policy = int.from_bytes(POLICY, "big")
    terms = [500, policy, TERMS.max_refund_nanoton, -1, 0]
    assert values == [*terms, STAKE, 1000, 7 * DAY_S, 0, 90, 1000, 3 * DAY_S, 8 * DAY_S, -1]
    name, description, website, contact, created, updated = scene.get(scene.pool, "get_metadata")
    assert name.bits.tobytes().decode() == METADATA.name
    assert (description.refs[0].bits.tobytes() + description.refs[0].refs[0].bits.tobytes()) == b"d" * 129
    assert (website.bits.tobytes(), contact.bits.tobytes()) == (METADATA.website.encode(), METADATA.contact.encode())
    assert (created, updated) == (scene.ledger.now, scene.ledger.now)
    for method in ("get_operator_set", "get_certificate_domain"):
        exit_code, _ = scene.ledger.get_method(scene.pool, method, [])
        assert exit_code == Refusal.QUORUM_NOT_ENABLED


def test_get_methods_after_the_hand_over(scene: Scene) -> None:
    operators = scene.new_set(1, 6, weight=3)
    assert scene.enable_quorum(operators).refusal is None
    set_id, count, total, members = scene.get(scene.pool, "get_operator_set")
    assert (set_id, count, total) == (1, 6, 18)
    assert members.hash == layout.operator_set_cell(operators).refs[0].hash
    global_id, pool, set_id = scene.get(scene.pool, "get_certificate_domain")
    assert (global_id, address_in(pool), set_id) == (DEVNET_GLOBAL_ID, scene.pool, 1)
    assert scene.get(scene.pool, "get_governance")[0] == 1


def can_register(scene: Scene, owner: Address = PARTICIPANTS[0], stake: int = STAKE) -> int:
    address = Builder().store_address(owner.friendly()).end_cell().begin_parse()
    [code] = scene.get(scene.pool, "can_register_participant", address, stake)
    assert isinstance(code, int)
    return code


def test_can_register_participant_foretells_the_refusal(scene: Scene) -> None:
    assert can_register(scene) == 0
    assert can_register(scene, stake=STAKE - 1) == Refusal.STAKE_BELOW_MINIMUM
    assert can_register(scene, MASTERCHAIN_OWNER) == Refusal.WRONG_WORKCHAIN
    for command, refusal in [
        (SetRegistration(gov_seqno=1, open=False), Refusal.REGISTRATION_CLOSED),
        (Pause(gov_seqno=2), Refusal.POOL_PAUSED),
        (Close(gov_seqno=3), Refusal.POOL_CLOSED),
    ]:
        assert scene.owner_command(command).refusal is None
        assert can_register(scene) == refusal
        assert scene.register(PARTICIPANTS[0]).refusal is refusal
