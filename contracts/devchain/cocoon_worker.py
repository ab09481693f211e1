"""A stand-in for Cocoon's worker contract on the embedded chain, and what a proxy signs to pay it.

    init = stand_in_init(owner=..., proxy=..., proxy_public_key=key.public)
    body = payout_body(key, worker=layout.address_of(init), tokens=5_000, query_id=1, excesses_to=...)

Storage, getter and message are those of Cocoon's own contract, the code is not: `contracts/src/devnet/
cocoon_worker.tolk`. A payout brings more than `PAYOUT_NANOTON`; what is left of it goes to `excesses_to`.

Source: `signed_message_unpack_and_check_signature` in `utils`, github.com/AlphaCompute/cocoon-contracts (86fe8ab).
"""

from __future__ import annotations

import base64
import json
from functools import cache
from importlib import resources

from pytoniq_core import Builder, Cell

from contracts.cocoon import worker_state_init
from contracts.layout import parse_boc
from contracts.layout.cells import store_address
from contracts.model import Address, require_uint
from contracts.signing import SigningKey

PAYOUT_OP = 0xA040AD28
PAYOUT_NANOTON = 150_000_000
"""What a payout message carries; the contract takes none of 0.1 TON or less."""


@cache
def stand_in_code() -> Cell:
    """Code of the stand-in; its hash is what a dev network's policy allows."""
    text = resources.files("contracts").joinpath("artifacts", "devnet_cocoon_worker.json").read_text("utf-8")
    return parse_boc(base64.b64decode(json.loads(text)["code_boc_base64"]))


def stand_in_init(*, owner: Address, proxy: Address, proxy_public_key: bytes) -> Cell:
    """State init of a stand-in between a worker's `owner` and a proxy: open, without tokens."""
    return worker_state_init(stand_in_code(), owner, proxy, proxy_public_key, Cell.empty())


def payout_body(proxy_key: SigningKey, *, worker: Address, tokens: int, query_id: int, excesses_to: Address) -> Cell:
    """What raises a worker contract's tokens to `tokens` (all that was ever earned, 64 bits); anyone may send it.

    Raises:
        InvalidValueError: `tokens` or `query_id` does not fit 64 bits.
    """
    require_uint("tokens", tokens, 64)
    require_uint("query_id", query_id, 64)
    signed = Builder().store_uint(PAYOUT_OP, 32).store_uint(query_id, 64).store_uint(tokens, 64)
    payout = store_address(signed, worker).end_cell()
    body = store_address(Builder().store_uint(PAYOUT_OP, 32).store_uint(query_id, 64), excesses_to)
    return body.store_bytes(proxy_key.sign(payout.hash)).store_ref(payout).end_cell()
