"""How much TON a message to the contracts has to carry. What an operation does not need comes back.

The contracts refuse less (`insufficient_value`) before they begin; the figures here lie above theirs,
which stand in `contracts/src/fees.tolk` and hold for 400 nanoTON per gas, basechain's price in the
configuration of mainnet since 2024. Tests send exactly these amounts.
"""

from __future__ import annotations

from contracts.commands import AcceptSet, Command, OwnerMessage
from contracts.model import NANO, OPERATORS_MAX, PAYOUTS_MAX, require_range, require_uint

INIT_NANOTON = 21 * NANO // 10
"""pool_init: 2 TON stay in the three contracts for storage."""

REGISTRATION_NANOTON = NANO // 5
"""pool_register_participant, beside the stake: 0.05 TON stay for storage."""

PAYEE_RENT_NANOTON = NANO // 100
"""Stays in the rewards contract, for storage, when it pays a participant for the first time."""

FINALIZE_NANOTON = NANO // 20
CLAIM_NANOTON = NANO // 20
"""distribution_claim_rewards, with the rent of a first claim."""

PAYMENT_NANOTON = 4_000 * 400
"""distribution_receive_payment: by so much less a payment is credited, for the gas of crediting it."""

ENTRY_NANOTON = NANO // 10
"""Every message to the registry; beside the amount for registry_increase_stake."""

APPLY_NANOTON = NANO // 5
"""pool_apply_params, pool_apply_upgrade, pool_guardian_pause: the children are told."""

_GAS_NANOTON = 400
_SUBMIT_GAS, _SUBMIT_GAS_PER_SIGNER = 100_000, 5_300
_OWNER_GAS = 100_000
_ENABLE_GAS, _ENABLE_GAS_PER_OPERATOR = 80_000, 2_000
_PUSH_GAS, _PUSH_GAS_PER_PAYOUT = 30_000, 20_000
_GAS_LIMIT = 1_000_000
"""No message burns more; where a push would, it fails: 85 payouts always fit, more where few were paid before."""
_PAYOUT_FORWARD_NANOTON = NANO // 1000
_MARGIN_NANOTON = NANO // 10


def submit_nanoton(signatures: int, command: Command | None = None) -> int:
    """pool_submit_certificate with so many signatures (1 to `OPERATORS_MAX`), of this command or a settlement."""
    require_uint("signatures", signatures, 8)
    return (_SUBMIT_GAS + _SUBMIT_GAS_PER_SIGNER * signatures) * _GAS_NANOTON + _MARGIN_NANOTON + _beside(command)


def owner_command_nanoton(command: Command) -> int:
    """pool_owner_command."""
    return _OWNER_GAS * _GAS_NANOTON + _MARGIN_NANOTON + _beside(command)


def enable_quorum_nanoton(operators: int = OPERATORS_MAX) -> int:
    """pool_enable_quorum with so many operators."""
    require_uint("operators", operators, 8)
    return (_ENABLE_GAS + _ENABLE_GAS_PER_OPERATOR * operators) * _GAS_NANOTON + _MARGIN_NANOTON


def push_nanoton(payouts: int) -> int:
    """distribution_execute_batch for so many participants (1 to `PAYOUTS_MAX`)."""
    require_range("payouts", payouts, 1, PAYOUTS_MAX)
    gas = min(_PUSH_GAS + _PUSH_GAS_PER_PAYOUT * payouts, _GAS_LIMIT)
    return gas * _GAS_NANOTON + (_PAYOUT_FORWARD_NANOTON + PAYEE_RENT_NANOTON) * payouts + _MARGIN_NANOTON


def _beside(command: Command | None) -> int:
    """What some commands need beyond the others."""
    match command:
        case OwnerMessage():
            # forwarded twice more, which the margin covers for a body of a hundred full cells
            return command.value_nanoton + _MARGIN_NANOTON
        case AcceptSet():
            return _ENABLE_GAS_PER_OPERATOR * len(command.operator_set.operators) * _GAS_NANOTON
        case _:
            return 0
