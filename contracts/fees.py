"""How much TON a message to the contracts has to carry. What an operation does not need comes back.

The contracts refuse less (`insufficient_value`) before they begin; the figures here lie above theirs,
which stand in `contracts/src/fees.tolk` and hold for 400 nanoTON per gas, basechain's price in the
configuration of mainnet since 2024. Tests send exactly these amounts.
"""

from __future__ import annotations

from contracts.model import NANO, OPERATORS_MAX, require_uint

INIT_NANOTON = 21 * NANO // 10
"""pool_init: 2 TON stay in the three contracts for storage."""

REGISTRATION_NANOTON = NANO // 10
"""pool_register_participant, beside the stake: 0.05 TON stay for storage."""

FINALIZE_NANOTON = NANO // 20
CLAIM_NANOTON = NANO // 20
PAYMENT_NANOTON = 4_000 * 400
"""distribution_receive_payment: by so much less a payment is credited, for the gas of crediting it."""

_GAS_NANOTON = 400
_SUBMIT_GAS, _SUBMIT_GAS_PER_SIGNER = 34_000, 5_300
_ENABLE_GAS, _ENABLE_GAS_PER_OPERATOR = 10_000, 1_100
_MARGIN_NANOTON = NANO // 20


def submit_nanoton(signatures: int) -> int:
    """pool_submit_certificate with so many signatures (1 to `OPERATORS_MAX`)."""
    require_uint("signatures", signatures, 8)
    return (_SUBMIT_GAS + _SUBMIT_GAS_PER_SIGNER * signatures) * _GAS_NANOTON + _MARGIN_NANOTON


def enable_quorum_nanoton(operators: int = OPERATORS_MAX) -> int:
    """pool_enable_quorum with so many operators."""
    require_uint("operators", operators, 8)
    return (_ENABLE_GAS + _ENABLE_GAS_PER_OPERATOR * operators) * _GAS_NANOTON + _MARGIN_NANOTON
