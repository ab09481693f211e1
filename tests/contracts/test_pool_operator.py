"""PoolOperator: its start, the hand-over to the operators, registration, and what it answers to anyone."""

from __future__ import annotations

import pytest
from pytoniq_core import Builder, Cell

from contracts import fees, layout
from contracts.commands import ProposeUpgrade
from contracts.model import (
    DAY_S,
    HOUR_S,
    NANO,
    Address,
    Operator,
    OperatorSet,
    PoolMetadata,
    PoolStatus,
    UpgradeTarget,
)
from contracts.opcodes import Event, Op, Refusal
from tests.contracts.command_samples import params
from tests.contracts.pool_scene import (
    ANYONE,
    GUARDIAN,
    OWNER,
    PARAMS,
    TERMS,
    Scene,
    operator_keys,
)

METADATA = PoolMetadata(name="A pool", description="d" * 256, website="https://pool.example", contact="@pool")
KEYS = operator_keys(6)
MASTERCHAIN_OWNER = Address(-1, OWNER.account)


def operators(*weights: int, set_id: int = 1) -> OperatorSet:
    members = zip(KEYS, weights, strict=False)
    return OperatorSet(set_id=set_id, operators=tuple(Operator(node_key=k.public, weight=w) for k, w in members))


# ---- start ----


def test_init_deploys_children_from_the_pools_own_state() -> None:
    scene = Scene()
    sent = scene.deploy(metadata=METADATA, cocoon_root=GUARDIAN, registration_open=False)
    assert sent.refusal is None
    pool, rewards, registry = scene.pool_state(), scene.state(), scene.registry_state()
    assert (pool.owner, pool.pool_id, pool.phase, pool.status) == (OWNER, 7, 0, PoolStatus.ACTIVE)
    assert (pool.params, pool.metadata, pool.cocoon_root) == (PARAMS, METADATA, GUARDIAN)
    assert (pool.operator_set, pool.previous_set, pool.pending, pool.gov_seqno) == (None, None, (), 0)
    assert not pool.registration_open
    assert (pool.created_s, pool.updated_s) == (scene.ledger.now, scene.ledger.now)
    assert (rewards.pool, rewards.registry) == (scene.pool, pool.registry)
    assert (rewards.current_epoch, rewards.current_start_s) == (1, scene.ledger.now)
    assert (rewards.running.set_id, rewards.running.terms, rewards.next) == (0, TERMS, rewards.running)
    assert (registry.pool, registry.rewards, registry.rules) == (scene.pool, pool.rewards, PARAMS.rules)
    assert registry.paused_until_s == 0
    assert scene.ledger.account(pool.rewards).code_hash == layout.code("reward_distribution").hash
    assert scene.ledger.account(pool.registry).code_hash == layout.code("participant_registry").hash
    assert [event.op for event in sent.events] == [Event.EVENT_POOL_INITIALISED]
    assert sent.events[0].values == {"registry": pool.registry, "rewards": pool.rewards}


def test_init_keeps_what_storage_costs_and_returns_the_rest() -> None:
    scene = Scene()
    sent = scene.deploy()
    kept = [scene.balance(address) for address in (scene.pool, scene.registry, scene.rewards)]
    assert kept[:2] == [NANO // 2, NANO // 2]
    assert kept[2] > NANO * 99 // 100
    assert sent.received(OWNER) > fees.INIT_NANOTON - 2 * NANO - NANO * 6 // 100


def test_trap_10_init_happens_once(scene: Scene) -> None:
    before = scene.pool_state()
    assert scene.deploy(params(fee_bps=9999)).refusal is Refusal.ALREADY_INITIALISED
    assert scene.pool_state() == before
    scene.hand_over()
    assert scene.deploy().refusal is Refusal.ALREADY_INITIALISED


def test_trap_10_a_stranger_cannot_init() -> None:
    scene = Scene()
    sent = scene.send(ANYONE, scene.pool, fees.INIT_NANOTON, layout.init_body(PARAMS), state_init=scene.init)
    assert sent.refusal is Refusal.NOT_OWNER
    assert sent.received(ANYONE) > fees.INIT_NANOTON - NANO // 50
    assert scene.deploy().refusal is None, "a refused start leaves the pool as it was"


def test_trap_10_children_stand_where_the_pools_code_says() -> None:
    """The same codes and owner make the same addresses, whatever else the owner sends."""
    one, other = Scene(), Scene()
    assert one.deploy().refusal is None
    assert other.deploy(params(max_participants=5), metadata=METADATA).refusal is None
    assert one.registry == other.registry
    assert one.rewards == other.rewards, "terms are the same, and they alone are in the child's first data"


def test_init_needs_its_value() -> None:
    scene = Scene()
    least = 2 * NANO + NANO * 3 // 100 + 35_000 * 400 + NANO // 20
    body = layout.init_body(PARAMS, metadata=METADATA)
    sent = scene.send(OWNER, scene.pool, least - 1, body, state_init=scene.init)
    assert sent.refusal is Refusal.INSUFFICIENT_VALUE
    assert scene.send(OWNER, scene.pool, least, body).refusal is None


IN_RANGE = [
    {"fee_bps": 0},
    {"fee_bps": 10_000},
    {"slash_bps": 10_000},
    {"min_uptime_pct": 100},
    {"max_participants": 10_000},
    {"min_stake_nanoton": 1},
    {"parameter_delay_s": HOUR_S},
    {"parameter_delay_s": 30 * DAY_S},
    {"withdrawal_delay_s": HOUR_S, "upgrade_delay_s": 7 * DAY_S},
    {"withdrawal_delay_s": 30 * DAY_S, "upgrade_delay_s": 31 * DAY_S},
    {"withdrawal_delay_s": 30 * DAY_S, "upgrade_delay_s": 90 * DAY_S},
]
OUT_OF_RANGE = [
    {"fee_bps": 10_001},
    {"slash_bps": 10_001},
    {"min_uptime_pct": 101},
    {"max_participants": 10_001},
    {"min_stake_nanoton": 0},
    {"parameter_delay_s": HOUR_S - 1},
    {"parameter_delay_s": 30 * DAY_S + 1},
    {"withdrawal_delay_s": HOUR_S - 1},
    {"withdrawal_delay_s": 30 * DAY_S + 1, "upgrade_delay_s": 40 * DAY_S},
    {"upgrade_delay_s": 8 * DAY_S - 1},
    {"withdrawal_delay_s": 30 * DAY_S, "upgrade_delay_s": 31 * DAY_S - 1},
    {"withdrawal_delay_s": HOUR_S, "upgrade_delay_s": 7 * DAY_S - 1},
    {"upgrade_delay_s": 90 * DAY_S + 1},
]


def named(over: dict[str, int]) -> str:
    return ",".join(f"{name}={value}" for name, value in over.items())


@pytest.mark.parametrize("over", IN_RANGE, ids=named)
def test_parameters_in_range(over: dict[str, int]) -> None:
    scene = Scene()
    assert scene.deploy(params(**over)).refusal is None
    assert scene.pool_state().params == params(**over)


@pytest.mark.parametrize("over", OUT_OF_RANGE, ids=named)
def test_parameters_out_of_range(over: dict[str, int]) -> None:
    scene = Scene()
    assert scene.deploy(params(**over)).refusal is Refusal.INVALID_PARAMS
    assert scene.deploy().refusal is None


def test_an_epoch_lasts_at_least_a_second() -> None:
    scene = Scene()
    scene.init = layout.pool_state_init(OWNER, 7, 0)
    scene.pool = layout.address_of(scene.init)
    assert scene.deploy().refusal is Refusal.INVALID_PARAMS


def test_nothing_works_before_init() -> None:
    bodies = [
        layout.register_body(stake_nanoton=1, node_key=KEYS[0].public, signature=bytes(64)),
        layout.enable_quorum_body(operators(1)),
        layout.apply_params_body(),
        layout.apply_upgrade_body(Cell.empty()),
        layout.guardian_pause_body(),
        layout.body_cell(Op.POOL_OWNER_COMMAND, payload=Cell.empty()),
        layout.body_cell(
            Op.POOL_SUBMIT_CERTIFICATE, signers_count=1, certificate=Cell.empty(), signatures=Cell.empty()
        ),
        layout.body_cell(Op.POOL_SYNC_COUNTERS, seqno=1, active_count=1, pooled_stake=1, excess_to=ANYONE),
    ]
    for body in bodies:
        scene = Scene()
        sent = scene.send(OWNER, scene.pool, NANO, body, state_init=scene.init)
        assert sent.refusal is Refusal.NOT_INITIALISED
        assert scene.deploy().refusal is None


# ---- messages of any kind ----


@pytest.mark.parametrize("body", [b"", b"\0", b"\0\0\0\0hello", b"\x12\x34\x56\x78" + bytes(8)])
def test_unknown_messages_give_the_value_back(scene: Scene, body: bytes) -> None:
    cell = Builder().store_bytes(body).end_cell()
    sent = scene.send(ANYONE, scene.pool, NANO, cell)
    assert sent.refusal is Refusal.UNKNOWN_OP
    assert sent.received(ANYONE) > NANO - NANO // 100


OF_OTHERS = [
    Op.REGISTRY_ADD_PARTICIPANT,
    Op.REGISTRY_CONFIGURE,
    Op.REGISTRY_SET_EPOCH_ROOT,
    Op.DISTRIBUTION_UPDATE_TERMS,
    Op.DISTRIBUTION_CLAIM_REWARDS,
    Op.POOL_RELAY_CERTIFICATE,
    Op.POOL_UPGRADE_CHILD,
    Op.PAYOUT,
    Op.EXCESSES,
]


@pytest.mark.parametrize("op", OF_OTHERS)
def test_the_pool_takes_nothing_that_is_for_its_children(scene: Scene, op: Op) -> None:
    body = Builder().store_uint(op, 32).store_uint(0, 64).end_cell()
    assert scene.send(ANYONE, scene.pool, NANO, body).refusal is Refusal.UNKNOWN_OP


def test_top_up_stays(scene: Scene) -> None:
    before = scene.balance(scene.pool)
    assert scene.send(ANYONE, scene.pool, NANO, layout.top_up_body()).refusal is None
    assert scene.balance(scene.pool) > before + NANO - NANO // 100


# ---- hand-over ----


def test_hand_over_is_one_way(scene: Scene) -> None:
    sent = scene.enable_quorum(operators(1, 2, 3))
    assert sent.refusal is None
    assert [event.op for event in sent.events] == [Event.EVENT_QUORUM_ENABLED, Event.EVENT_TERMS_UPDATED]
    cell = layout.operator_set_cell(operators(1, 2, 3))
    assert sent.events[0].values == {"set_id": 1, "set_hash": cell.hash}
    pool = scene.pool_state()
    assert pool.phase == 1
    assert pool.operator_set == operators(1, 2, 3)
    rewards = scene.state()
    assert (rewards.running.set_id, rewards.next.set_id, rewards.next.terms) == (0, 1, TERMS)
    assert scene.enable_quorum(operators(1)).refusal is Refusal.QUORUM_ALREADY_ENABLED
    assert scene.pool_state() == pool


def test_hand_over_by_the_owner_only(scene: Scene) -> None:
    assert scene.enable_quorum(operators(1), source=ANYONE).refusal is Refusal.NOT_OWNER
    body = layout.enable_quorum_body(operators(1))
    namesake = scene.ledger.send_internal(MASTERCHAIN_OWNER, scene.pool, NANO, body)
    assert namesake[0].exit_code == Refusal.NOT_OWNER


def test_hand_over_needs_its_gas(scene: Scene) -> None:
    body = layout.enable_quorum_body(operators(1, 1, 1))
    assert scene.send(OWNER, scene.pool, NANO // 50, body).refusal is Refusal.INSUFFICIENT_VALUE
    many = OperatorSet(set_id=1, operators=tuple(Operator(node_key=bytes([i]) * 32, weight=1) for i in range(180)))
    body = layout.enable_quorum_body(many)
    assert scene.send(OWNER, scene.pool, 18 * NANO // 100, body).refusal is Refusal.INSUFFICIENT_VALUE
    assert scene.enable_quorum(many).refusal is None


def set_cell(members: list[tuple[int, int, int]], *, count: int, total: int, set_id: int = 1) -> Cell:
    """An operator set of (index, key, weight) that need not be valid."""

    def store(builder: Builder, member: tuple[int, int]) -> None:
        builder.store_uint(member[0], 256).store_uint(member[1], 32)

    root = layout.dictionary.build({i: (key, weight) for i, key, weight in members}, 16, store)
    cell = Builder().store_uint(set_id, 32).store_uint(count, 16).store_uint(total, 64)
    return cell.store_maybe_ref(root).end_cell()


BROKEN = {
    "empty": set_cell([], count=0, total=0),
    "empty but counted": set_cell([], count=1, total=1),
    "gap": set_cell([(0, 5, 1), (2, 6, 1)], count=2, total=2),
    "not from 0": set_cell([(1, 5, 1)], count=1, total=1),
    "no weight": set_cell([(0, 5, 1), (1, 6, 0)], count=2, total=1),
    "count below": set_cell([(0, 5, 1), (1, 6, 1)], count=1, total=2),
    "count above": set_cell([(0, 5, 1), (1, 6, 1)], count=3, total=2),
    "total": set_cell([(0, 5, 1), (1, 6, 1)], count=2, total=1),
    "too many": set_cell([(i, i, 1) for i in range(181)], count=181, total=181),
    "number of the owner": set_cell([(0, 5, 1)], count=1, total=1, set_id=0),
    "not the first number": set_cell([(0, 5, 1)], count=1, total=1, set_id=2),
    "no number after it": set_cell([(0, 5, 1)], count=1, total=1, set_id=2**32 - 1),
}


def enable_body(cell: Cell) -> Cell:
    return Builder().store_uint(Op.POOL_ENABLE_QUORUM, 32).store_uint(0, 64).store_ref(cell).end_cell()


@pytest.mark.parametrize("name", BROKEN)
def test_hand_over_refuses_a_broken_set(scene: Scene, name: str) -> None:
    assert scene.send(OWNER, scene.pool, NANO, enable_body(BROKEN[name])).refusal is Refusal.INVALID_SET
    assert scene.pool_state().operator_set is None


def test_hand_over_refuses_a_set_that_its_maker_could_take_away(scene: Scene) -> None:
    """A library cell is read from its publisher's account: without it the pool could never check a signature."""
    plain = layout.operator_set_cell(operators(1, 1, 1))
    library = Builder(type_=2).store_uint(2, 8).store_bytes(plain.refs[0].hash).end_cell()
    cell = Builder().store_bits(plain.bits).store_ref(library).end_cell()
    assert scene.send(OWNER, scene.pool, NANO, enable_body(cell)).refusal is Refusal.INVALID_SET


def test_hand_over_drops_what_the_owner_has_proposed(scene: Scene) -> None:
    assert (
        scene.owner_command(ProposeUpgrade(gov_seqno=1, target=UpgradeTarget.POOL, code_hash=bytes(32))).refusal is None
    )
    scene.hand_over()
    assert scene.pool_state().pending == ()
    scene.advance(PARAMS.upgrade_delay_s)
    assert scene.apply_upgrade(Cell.empty()).refusal is Refusal.NOTHING_PROPOSED
