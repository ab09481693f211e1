"""The contracts' compiled code, and a pool's state init: what its address is made of.

A pool's address follows from its owner, its number, the length of its epochs and the code of all three
contracts; so whoever knows these knows the address, and nobody else can stand there.

Source: `contracts/artifacts/*.json`, written by `contracts/build.mjs`; block.tlb (`StateInit`).
"""

from __future__ import annotations

import base64
import json
from functools import cache
from importlib import resources
from typing import Literal

from pytoniq_core import Builder, Cell

from contracts.errors import InvalidCellError
from contracts.layout.cells import parse_boc
from contracts.layout.storage import SEED
from contracts.model import Address

ContractName = Literal["pool_operator", "reward_distribution", "participant_registry"]


@cache
def code(name: ContractName) -> Cell:
    """Code of one of the three contracts, from the artifact that ships with this package.

    Raises:
        InvalidCellError: the artifact's code does not have the hash that stands beside it.
    """
    text = resources.files("contracts").joinpath("artifacts", f"{name}.json").read_text("utf-8")
    artifact = json.loads(text)
    cell = parse_boc(base64.b64decode(artifact["code_boc_base64"]))
    if cell.hash.hex() != artifact["code_hash"]:
        raise InvalidCellError(f"{name}: the artifact's code does not have the hash that it states")
    return cell


def pool_state_init(owner: Address, pool_id: int, epoch_duration_s: int) -> Cell:
    """State init of a pool. Send it along with `init_body` from `owner` to `address_of` it."""
    seed = {
        "owner": owner,
        "pool_id": pool_id,
        "epoch_duration_s": epoch_duration_s,
        "registry_code": code("participant_registry"),
        "rewards_code": code("reward_distribution"),
    }
    return state_init(code("pool_operator"), SEED.cell(seed))


def pool_address(owner: Address, pool_id: int, epoch_duration_s: int) -> Address:
    """Where the pool of this owner and number stands, or will stand."""
    return address_of(pool_state_init(owner, pool_id, epoch_duration_s))


def state_init(code_cell: Cell, data: Cell) -> Cell:
    """A state init of code and data, without library, special flags or split depth."""
    return Builder().store_uint(0b00110, 5).store_ref(code_cell).store_ref(data).end_cell()


def address_of(init: Cell) -> Address:
    """Address in workchain 0 of the account that this state init makes."""
    return Address(0, init.hash)
