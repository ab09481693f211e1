"""Messages and events: what is written reads back, has one form, and what is broken is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytoniq_core import Builder, Cell

from contracts import layout
from contracts.errors import InvalidCellError, InvalidValueError
from contracts.layout.bodies import EVENTS, MESSAGES
from contracts.layout.messages import account_chain
from contracts.model import PoolMetadata
from contracts.opcodes import Event, Op
from tests.contracts.cell_values import LIBRARY, mutated, values
from tests.contracts.pool_scene import ANYONE, OWNER, PARAMS, PARTICIPANTS, Scene

KEY = bytes(range(32))
PROOF = Builder().store_uint(7, 8).end_cell()
BODIES: list[tuple[Op, dict[str, Any], Cell]] = [
    (Op.POOL_APPLY_PARAMS, {}, layout.apply_params_body(query_id=9)),
    (Op.POOL_APPLY_UPGRADE, {"code": PROOF}, layout.apply_upgrade_body(PROOF, query_id=9)),
    (Op.POOL_GUARDIAN_PAUSE, {}, layout.guardian_pause_body(query_id=9)),
    (Op.REGISTRY_INCREASE_STAKE, {"amount": 5}, layout.increase_stake_body(5, query_id=9)),
    (Op.REGISTRY_REQUEST_WITHDRAWAL, {"amount": 6}, layout.request_withdrawal_body(6, query_id=9)),
    (Op.REGISTRY_CANCEL_WITHDRAWAL, {}, layout.cancel_withdrawal_body(query_id=9)),
    (Op.REGISTRY_COMPLETE_WITHDRAWAL, {"owner": OWNER}, layout.complete_withdrawal_body(OWNER, query_id=9)),
    (Op.REGISTRY_HEARTBEAT, {}, layout.heartbeat_body(query_id=9)),
    (Op.REGISTRY_UPDATE_WORKER_ADDRESS, {"worker": None}, layout.update_worker_body(None, query_id=9)),
    (
        Op.REGISTRY_ROTATE_NODE_KEY,
        {"node_key": KEY, "signature": bytes(64)},
        layout.rotate_node_key_body(KEY, bytes(64), query_id=9),
    ),
    (Op.REGISTRY_SWEEP_SLASHED, {"owner": OWNER}, layout.sweep_slashed_body(OWNER, query_id=9)),
    (
        Op.REGISTRY_UPDATE_CONTRIBUTION,
        {"owner": OWNER, "epoch": 3, "proof": PROOF},
        layout.update_contribution_body(OWNER, 3, PROOF, query_id=9),
    ),
    (Op.DISTRIBUTION_RECEIVE_PAYMENT, {}, layout.receive_payment_body(query_id=9)),
    (Op.DISTRIBUTION_FINALIZE_EPOCH, {}, layout.finalize_body(query_id=9)),
    (
        Op.DISTRIBUTION_CLAIM_REWARDS,
        {"participant": OWNER, "proof": PROOF},
        layout.claim_body(OWNER, PROOF, query_id=9),
    ),
    (
        Op.DISTRIBUTION_EXECUTE_BATCH,
        {"count": 2, "participants": account_chain(PARTICIPANTS[:2]), "proof": PROOF},
        layout.push_body(PARTICIPANTS[:2], PROOF, query_id=9),
    ),
    (
        Op.POOL_INIT,
        {"registration_open": False, "cocoon_root": ANYONE, "params": PARAMS, "metadata": PoolMetadata(name="n")},
        layout.init_body(
            PARAMS, registration_open=False, cocoon_root=ANYONE, metadata=PoolMetadata(name="n"), query_id=9
        ),
    ),
    (
        Op.POOL_REGISTER_PARTICIPANT,
        {"stake": 1, "signature": KEY * 2, "node_key": KEY, "worker": OWNER, "gpu_spec_hash": KEY, "gpu_count": 8},
        layout.register_body(
            stake_nanoton=1, node_key=KEY, signature=KEY * 2, worker=OWNER, gpu_spec_hash=KEY, gpu_count=8, query_id=9
        ),
    ),
    (Op.TOP_UP, {}, layout.top_up_body(query_id=9)),
]


@pytest.mark.parametrize(("op", "fields", "cell"), BODIES, ids=[op.name for op, _, _ in BODIES])
def test_a_body_says_what_was_asked(op: Op, fields: dict[str, Any], cell: Cell) -> None:
    assert layout.read_body(cell) == layout.Body(op=op, values={"query_id": 9, **fields})


@pytest.mark.parametrize("op", [*Op, *Event], ids=lambda op: op.name)
def test_a_body_survives(op: Op | Event) -> None:
    codec = MESSAGES[op] if isinstance(op, Op) else EVENTS[op]
    read = layout.read_body if isinstance(op, Op) else layout.read_event

    @settings(max_examples=20)
    @given(values(codec))
    def survives(fields: dict[str, Any]) -> None:
        cell = codec.cell(fields)
        assert read(layout.parse_boc(cell.to_boc())) == layout.Body(op=op, values=fields)

    survives()


@settings(max_examples=300)
@given(st.sampled_from(Op).flatmap(lambda op: values(MESSAGES[op]).map(MESSAGES[op].cell)), st.data())
def test_a_body_has_one_form(cell: Cell, data: st.DataObject) -> None:
    changed = mutated(cell, data)
    try:
        body = layout.read_body(changed)
    except InvalidCellError:
        return
    assert isinstance(body.op, Op)
    assert MESSAGES[body.op].cell(body.values).hash == changed.hash


@settings(max_examples=200)
@given(st.sampled_from(Event).flatmap(lambda event: values(EVENTS[event]).map(EVENTS[event].cell)), st.data())
def test_an_event_has_one_form(cell: Cell, data: st.DataObject) -> None:
    changed = mutated(cell, data)
    try:
        event = layout.read_event(changed)
    except InvalidCellError:
        return
    assert isinstance(event.op, Event)
    assert EVENTS[event.op].cell(event.values).hash == changed.hash


@pytest.mark.parametrize("cell", [Cell.empty(), Builder().store_uint(7, 32).end_cell(), LIBRARY])
def test_what_is_no_body(cell: Cell) -> None:
    for read in (layout.read_body, layout.read_event):
        with pytest.raises(InvalidCellError):
            read(cell)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 7, 200])
def test_accounts_are_chained_in_their_order(count: int) -> None:
    wanted = [PARTICIPANTS[i % 10] for i in range(count)]
    found, link = [], account_chain(wanted)
    while link is not None:
        reader = link.begin_parse()
        size = reader.load_uint(2)
        found += [reader.load_bytes(32) for _ in range(size)]
        link = reader.load_maybe_ref()
        assert size == 3 or link is None
    assert found == [participant.account for participant in wanted]


@pytest.mark.parametrize("participants", [[], [OWNER] * 201, [layout.pool_address(OWNER, 1, 1), OWNER] * 101])
def test_accounts_are_bounded(participants: list[Any]) -> None:
    with pytest.raises(InvalidValueError, match="1 to 200"):
        layout.push_body(participants, PROOF)


@pytest.mark.parametrize(
    "call",
    [
        lambda: layout.register_body(stake_nanoton=2**120, node_key=bytes(32), signature=bytes(64)),
        lambda: layout.register_body(stake_nanoton=1, node_key=bytes(31), signature=bytes(64)),
        lambda: layout.register_body(stake_nanoton=1, node_key=bytes(32), signature=bytes(63)),
        lambda: layout.increase_stake_body(-1),
        lambda: layout.finalize_body(query_id=2**64),
        lambda: layout.claim_body(type(OWNER)(-1, bytes(32)), Cell.empty()),
        lambda: layout.sweep_slashed_body(type(OWNER)(-1, bytes(32))),
        lambda: layout.push_body([type(OWNER)(-1, bytes(32))], Cell.empty()),
        lambda: layout.pool_state_init(OWNER, -1, 60),
    ],
)
def test_values_that_do_not_fit_are_refused(call: Any) -> None:
    with pytest.raises(InvalidValueError):
        call()


def test_a_pools_events_are_read(scene: Scene) -> None:
    """Whatever the contracts log is one of the schema's events: `Books.record` reads them all."""
    assert [event.op for event in scene.books.events] == [Event.EVENT_POOL_INITIALISED]
    assert scene.books.events[0].values == {"registry": scene.registry, "rewards": scene.rewards}
