"""Values of `contracts.model` to and from cells: messages, storages, state inits, addresses."""

from contracts.layout import dictionary
from contracts.layout.cells import parse_boc
from contracts.layout.deploy import address_of, code, pool_address, pool_state_init, state_init
from contracts.layout.messages import (
    claim_body,
    enable_quorum_body,
    finalize_body,
    init_body,
    operator_set_cell,
    payload_cell,
    receive_payment_body,
    register_body,
    settle_payload,
    top_up_body,
)
from contracts.layout.storage import read_pool, read_registry, read_rewards

__all__ = [
    "address_of",
    "claim_body",
    "code",
    "dictionary",
    "enable_quorum_body",
    "finalize_body",
    "init_body",
    "operator_set_cell",
    "parse_boc",
    "payload_cell",
    "pool_address",
    "pool_state_init",
    "read_pool",
    "read_registry",
    "read_rewards",
    "receive_payment_body",
    "register_body",
    "settle_payload",
    "state_init",
    "top_up_body",
]
