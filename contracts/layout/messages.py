"""Bodies of the messages that come to the pool's contracts from outside.

Decides only how a value becomes bits; what it means is the contracts' part. Certificates stand in
`contracts.certificate`, the proofs inside claims in `contracts.proof`, what the contracts say to each other and
what they log in `contracts.layout.bodies`.

Source: `contracts/schema.tlb`.
"""

from __future__ import annotations

from collections.abc import Sequence

from pytoniq_core import Builder, Cell

from contracts.commands import Command
from contracts.errors import InvalidValueError
from contracts.layout.bodies import body_cell
from contracts.layout.payloads import command_cell
from contracts.model import PAYOUTS_MAX, ZERO_HASH, Address, OperatorSet, PoolMetadata, PoolParams
from contracts.opcodes import Op

_ACCOUNTS_PER_CELL = 3

# ---- to the pool ----


def init_body(
    params: PoolParams,
    *,
    registration_open: bool = True,
    cocoon_root: Address | None = None,
    metadata: PoolMetadata | None = None,
    query_id: int = 0,
) -> Cell:
    """Owner -> pool, once: set the parameters and deploy registry and rewards."""
    return body_cell(
        Op.POOL_INIT,
        query_id=query_id,
        registration_open=registration_open,
        cocoon_root=cocoon_root,
        params=params,
        metadata=metadata or PoolMetadata(),
    )


def register_body(
    *,
    stake_nanoton: int,
    node_key: bytes,
    signature: bytes,
    worker: Address | None = None,
    gpu_spec_hash: bytes = ZERO_HASH,
    gpu_count: int = 0,
    query_id: int = 0,
) -> Cell:
    """Participant -> pool: stake and enter the registry as the message's sender.

    `node_key` (Ed25519, 32 bytes) signs the participant's records; `signature` is its own over
    `certificate.possession_hash` (`certificate.prove_possession` makes it); `worker` is its Cocoon worker
    contract. The message carries at least the stake and `fees.REGISTRATION_NANOTON`; what is left comes back.
    """
    return body_cell(
        Op.POOL_REGISTER_PARTICIPANT,
        query_id=query_id,
        stake=stake_nanoton,
        signature=signature,
        node_key=node_key,
        worker=worker,
        gpu_spec_hash=gpu_spec_hash,
        gpu_count=gpu_count,
    )


def enable_quorum_body(operator_set: OperatorSet, *, query_id: int = 0) -> Cell:
    """Owner -> pool, once and for ever: hand the pool over to these operators."""
    return body_cell(Op.POOL_ENABLE_QUORUM, query_id=query_id, set=operator_set)


def owner_command_body(command: Command, *, query_id: int = 0) -> Cell:
    """Owner -> pool, before the hand-over: what a certificate would command afterwards."""
    return body_cell(Op.POOL_OWNER_COMMAND, query_id=query_id, payload=command_cell(command))


def apply_params_body(*, query_id: int = 0) -> Cell:
    """Anyone -> pool, once the proposed parameters waited long enough."""
    return body_cell(Op.POOL_APPLY_PARAMS, query_id=query_id)


def apply_upgrade_body(code: Cell, *, query_id: int = 0) -> Cell:
    """Anyone -> pool, once the proposed code waited long enough; `code` is it."""
    return body_cell(Op.POOL_APPLY_UPGRADE, query_id=query_id, code=code)


def guardian_pause_body(*, query_id: int = 0) -> Cell:
    """Guardian -> pool: pause it for 14 days at most; once until a command resumes it."""
    return body_cell(Op.POOL_GUARDIAN_PAUSE, query_id=query_id)


# ---- to the registry, from an owner about its own entry ----


def increase_stake_body(amount_nanoton: int, *, query_id: int = 0) -> Cell:
    """The message carries the amount and `fees.STAKE_NANOTON`; what is left comes back."""
    return body_cell(Op.REGISTRY_INCREASE_STAKE, query_id=query_id, amount=amount_nanoton)


def request_withdrawal_body(amount_nanoton: int, *, query_id: int = 0) -> Cell:
    """Ask for all of the stake, or for what leaves at least the minimum; the whole waits from now."""
    return body_cell(Op.REGISTRY_REQUEST_WITHDRAWAL, query_id=query_id, amount=amount_nanoton)


def cancel_withdrawal_body(*, query_id: int = 0) -> Cell:
    return body_cell(Op.REGISTRY_CANCEL_WITHDRAWAL, query_id=query_id)


def heartbeat_body(*, query_id: int = 0) -> Cell:
    return body_cell(Op.REGISTRY_HEARTBEAT, query_id=query_id)


def update_worker_body(worker: Address | None, *, query_id: int = 0) -> Cell:
    """Name another Cocoon worker contract, or none."""
    return body_cell(Op.REGISTRY_UPDATE_WORKER_ADDRESS, query_id=query_id, worker=worker)


def rotate_node_key_body(node_key: bytes, signature: bytes, *, query_id: int = 0) -> Cell:
    """Replace the entry's node key by this one; `signature` as for `register_body`. Once in a withdrawal's wait."""
    return body_cell(Op.REGISTRY_ROTATE_NODE_KEY, query_id=query_id, node_key=node_key, signature=signature)


# ---- to the registry, from anyone ----


def complete_withdrawal_body(owner: Address, *, query_id: int = 0) -> Cell:
    """Pay `owner` the stake that it asked back, once it waited long enough."""
    return body_cell(Op.REGISTRY_COMPLETE_WITHDRAWAL, query_id=query_id, owner=owner)


def sweep_slashed_body(owner: Address, *, query_id: int = 0) -> Cell:
    """Move the slashed stake of `owner` to the rewards, once no appeal is possible any more."""
    return body_cell(Op.REGISTRY_SWEEP_SLASHED, query_id=query_id, owner=owner)


def update_contribution_body(owner: Address, epoch: int, proof: Cell, *, query_id: int = 0) -> Cell:
    """Add what `owner` did in a settled epoch; `proof` is of its leaf, against that epoch's totals root."""
    return body_cell(Op.REGISTRY_UPDATE_CONTRIBUTION, query_id=query_id, owner=owner, epoch=epoch, proof=proof)


# ---- to the rewards contract, from anyone ----


def receive_payment_body(*, query_id: int = 0) -> Cell:
    """Credit the message's value, less its gas, to the running epoch."""
    return body_cell(Op.DISTRIBUTION_RECEIVE_PAYMENT, query_id=query_id)


def finalize_body(*, query_id: int = 0) -> Cell:
    """Once the running epoch is over: fix its pot and begin the next one."""
    return body_cell(Op.DISTRIBUTION_FINALIZE_EPOCH, query_id=query_id)


def claim_body(participant: Address, proof: Cell, *, query_id: int = 0) -> Cell:
    """Pay `participant` what the leaf in `proof` earned beyond what it was paid.

    `proof` comes from `contracts.proof.TotalsTree.prove`, against the last landed root or the one before.
    """
    return body_cell(Op.DISTRIBUTION_CLAIM_REWARDS, query_id=query_id, participant=participant, proof=proof)


def push_body(participants: Sequence[Address], proof: Cell, *, query_id: int = 0) -> Cell:
    """Pay many participants (1 to `PAYOUTS_MAX`) at once what they earned beyond what they were paid.

    `proof` comes from `contracts.proof.TotalsTree.prove_many` of the same participants.
    """
    return body_cell(
        Op.DISTRIBUTION_EXECUTE_BATCH,
        query_id=query_id,
        count=len(participants),
        participants=account_chain(participants),
        proof=proof,
    )


def account_chain(participants: Sequence[Address]) -> Cell:
    """Chain accounts in the given order, three to a cell but the last: `count:uint2 account... next:(Maybe ^)`.

    Raises:
        InvalidValueError: none, more than `PAYOUTS_MAX`, or one outside workchain 0.
    """
    if not 1 <= len(participants) <= PAYOUTS_MAX:
        raise InvalidValueError(f"participants: expected 1 to {PAYOUTS_MAX}, got {len(participants)}")
    if any(participant.workchain != 0 for participant in participants):
        raise InvalidValueError("participants: only workchain 0 takes part")
    starts = range(0, len(participants), _ACCOUNTS_PER_CELL)
    link = Cell.empty()
    for start in reversed(starts):
        accounts = participants[start : start + _ACCOUNTS_PER_CELL]
        builder = Builder().store_uint(len(accounts), 2)
        for participant in accounts:
            builder.store_bytes(participant.account)
        link = builder.store_maybe_ref(None if start == starts[-1] else link).end_cell()
    return link


def top_up_body(*, query_id: int = 0) -> Cell:
    """Anyone -> any of the three contracts: pay for its storage; credited to nobody."""
    return body_cell(Op.TOP_UP, query_id=query_id)
