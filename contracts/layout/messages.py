"""Bodies of the messages that the pool's contracts take, and the payload that a certificate settles.

Decides only how a value becomes bits; what it means is the contracts' part. Untrusted: the cell that
`settle_payload` reads. The certificate around a payload stands in `contracts.certificate`, the proof
inside a claim in `contracts.proof`.

Source: `contracts/schema.tlb`.
"""

from __future__ import annotations

from pytoniq_core import Builder, Cell

from contracts.errors import InvalidCellError, InvalidValueError
from contracts.layout import dictionary
from contracts.layout.cells import Reader, store_maybe_address
from contracts.model import (
    OPERATORS_MAX,
    ZERO_HASH,
    Address,
    CertificateKind,
    Leaf,
    Operator,
    OperatorSet,
    PoolParams,
    SettlePayload,
    require_bytes,
    require_uint,
)
from contracts.opcodes import Op


def payload_cell(payload: SettlePayload) -> Cell:
    """Write the payload of a settlement; its hash is what the next epoch names as `prev`."""
    tail = Builder().store_uint(payload.tasks, 64).store_uint(payload.tokens, 64)
    tail.store_bytes(payload.policy_hash).store_bytes(payload.cut_root)
    return (
        Builder()
        .store_uint(CertificateKind.SETTLE, 8)
        .store_uint(payload.epoch, 32)
        .store_bytes(payload.prev)
        .store_bytes(payload.totals_root)
        .store_uint(payload.count, 32)
        .store_uint(payload.total_score, 128)
        .store_coins(payload.total_earned_nanoton)
        .store_ref(tail.end_cell())
        .end_cell()
    )


def settle_payload(cell: Cell) -> SettlePayload:
    """Read the payload of a settlement.

    Raises:
        InvalidCellError: `cell` is anything else than exactly such a payload.
    """
    reader = Reader(cell, "settle payload")
    tail = Reader(reader.ref(), "settle payload's tail")
    reader.tag(CertificateKind.SETTLE, 8)
    payload = SettlePayload(
        epoch=reader.uint(32),
        prev=reader.octets(32),
        totals_root=reader.octets(32),
        count=reader.uint(32),
        total_score=reader.uint(128),
        total_earned_nanoton=reader.coins(),
        tasks=tail.uint(64),
        tokens=tail.uint(64),
        policy_hash=tail.octets(32),
        cut_root=tail.octets(32),
    )
    reader.end()
    tail.end()
    return payload


def store_leaf(builder: Builder, leaf: Leaf) -> None:
    """Append a leaf's value; its key in the dictionary is the participant's account hash."""
    builder.store_coins(leaf.earned_nanoton).store_uint(leaf.score, 128).store_uint(leaf.tokens, 64)
    builder.store_uint(leaf.tasks, 32).store_uint(leaf.uptime_s, 32)
    builder.store_uint(leaf.quality, 16).store_uint(leaf.reputation, 16).store_uint(leaf.flags, 8)


def read_leaf(key: int, reader: Reader) -> Leaf:
    """Read the leaf under `key` to its end. Raises `InvalidCellError`."""
    leaf = Leaf(
        participant=Address(0, key.to_bytes(32, "big")),
        earned_nanoton=reader.coins(),
        score=reader.uint(128),
        tokens=reader.uint(64),
        tasks=reader.uint(32),
        uptime_s=reader.uint(32),
        quality=reader.uint(16),
        reputation=reader.uint(16),
        flags=reader.uint(8),
    )
    reader.end()
    return leaf


def init_body(params: PoolParams, *, query_id: int = 0) -> Cell:
    """Owner -> pool, once: set the parameters and deploy registry and rewards."""
    cell = (
        Builder()
        .store_uint(params.fee_bps, 16)
        .store_coins(params.min_stake_nanoton)
        .store_uint(params.max_participants, 32)
        .store_bool(params.registration_open)
        .store_bytes(params.policy_hash)
        .store_coins(params.max_refund_nanoton)
        .end_cell()
    )
    return _body(Op.POOL_INIT, query_id).store_ref(cell).end_cell()


def register_body(
    *,
    stake_nanoton: int,
    node_key: bytes,
    worker: Address | None = None,
    gpu_spec_hash: bytes = ZERO_HASH,
    gpu_count: int = 0,
    query_id: int = 0,
) -> Cell:
    """Participant -> pool: stake and enter the registry as the message's sender.

    `node_key` (Ed25519, 32 bytes) signs the participant's records; `worker` is its Cocoon worker
    contract. The message carries at least the stake and `fees.REGISTRATION_NANOTON`; what is left comes back.
    """
    require_uint("stake_nanoton", stake_nanoton, 120)
    require_bytes("node_key", node_key, 32)
    require_bytes("gpu_spec_hash", gpu_spec_hash, 32)
    require_uint("gpu_count", gpu_count, 8)
    profile = Builder().store_bytes(node_key)
    store_maybe_address(profile, worker).store_bytes(gpu_spec_hash).store_uint(gpu_count, 8)
    body = _body(Op.POOL_REGISTER_PARTICIPANT, query_id).store_coins(stake_nanoton)
    return body.store_ref(profile.end_cell()).end_cell()


def enable_quorum_body(operator_set: OperatorSet, *, query_id: int = 0) -> Cell:
    """Owner -> pool, once and for ever: hand the pool over to these operators."""
    return _body(Op.POOL_ENABLE_QUORUM, query_id).store_ref(operator_set_cell(operator_set)).end_cell()


def receive_payment_body(*, query_id: int = 0) -> Cell:
    """Anyone -> rewards: credit the message's value, less its gas, to the running epoch."""
    return _body(Op.DISTRIBUTION_RECEIVE_PAYMENT, query_id).end_cell()


def finalize_body(*, query_id: int = 0) -> Cell:
    """Anyone -> rewards, once the running epoch is over: fix its pot and begin the next one."""
    return _body(Op.DISTRIBUTION_FINALIZE_EPOCH, query_id).end_cell()


def claim_body(participant: Address, proof: Cell, *, query_id: int = 0) -> Cell:
    """Anyone -> rewards: pay `participant` what the leaf in `proof` earned beyond what it was paid.

    `proof` comes from `contracts.proof.TotalsTree.prove`, against the last landed root or the one before.
    """
    if participant.workchain != 0:
        raise InvalidValueError("participant: only workchain 0 takes part")
    body = _body(Op.DISTRIBUTION_CLAIM_REWARDS, query_id).store_bytes(participant.account)
    return body.store_ref(proof).end_cell()


def top_up_body(*, query_id: int = 0) -> Cell:
    """Anyone -> any of the three contracts: pay for its storage; credited to nobody."""
    return _body(Op.TOP_UP, query_id).end_cell()


def operator_set_cell(operator_set: OperatorSet) -> Cell:
    """Write an operator set: number, count, total weight, index -> (node key, weight)."""

    def store_operator(builder: Builder, operator: Operator) -> None:
        builder.store_bytes(operator.node_key).store_uint(operator.weight, 32)

    operators = dictionary.build(dict(enumerate(operator_set.operators)), 16, store_operator)
    return (
        Builder()
        .store_uint(operator_set.set_id, 32)
        .store_uint(len(operator_set.operators), 16)
        .store_uint(operator_set.total_weight, 64)
        .store_maybe_ref(operators)
        .end_cell()
    )


def read_operator_set(cell: Cell) -> OperatorSet:
    """Read an operator set; count and total weight must be those of its operators.

    Raises:
        InvalidCellError: malformed, not numbered 0, 1, 2 ... or a sum is wrong.
    """
    reader = Reader(cell, "operator set")
    set_id, count, total_weight = reader.uint(32), reader.uint(16), reader.uint(64)
    root = reader.maybe_ref()
    reader.end()
    operators: list[Operator] = []
    for index, value in dictionary.entries(root, 16, entries_max=OPERATORS_MAX, name="operator"):
        if index != len(operators):
            raise InvalidCellError(f"operator set: expected operator {len(operators)}, got {index}")
        operators.append(Operator(node_key=value.octets(32), weight=value.uint(32)))
        value.end()
    operator_set = OperatorSet(set_id=set_id, operators=tuple(operators))
    if (count, total_weight) != (len(operators), operator_set.total_weight):
        raise InvalidCellError("operator set: count or total weight is not that of its operators")
    return operator_set


def _body(op: Op, query_id: int) -> Builder:
    require_uint("query_id", query_id, 64)
    return Builder().store_uint(op, 32).store_uint(query_id, 64)
