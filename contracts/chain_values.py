"""Values of the chain client: what is asked, and what is believed once `chain_proofs` has checked it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pytoniq_core import Cell

from contracts.errors import InvalidValueError
from contracts.model import Address, require_bytes

MASTERCHAIN_SHARD = -(2**63)
WORKCHAINS = (-1, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServersStanding:
    """How the liteservers stand: how many there are, how many failed when they were asked last, how often one lied."""

    known: int
    failing: int
    conflicts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LiteServer:
    """Where a liteserver listens, and its Ed25519 key (32 bytes)."""

    host: str
    port: int
    public_key: bytes

    def __post_init__(self) -> None:
        require_bytes("public_key", self.public_key, 32)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A masterchain block: number, hashes of 32 bytes, unix time of its making in seconds."""

    seqno: int
    root_hash: bytes
    file_hash: bytes
    time_s: int
    global_id: int = 0

    def to_tl(self) -> dict[str, Any]:
        """The block's id as a liteserver's query wants it."""
        return {
            "workchain": -1,
            "shard": MASTERCHAIN_SHARD,
            "seqno": self.seqno,
            "root_hash": self.root_hash.hex(),
            "file_hash": self.file_hash.hex(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An account at some block, proven. `code_hash` and `data` stand only while it is active."""

    balance_nanoton: int
    active: bool
    code_hash: bytes | None
    data: Cell | None
    last_lt: int
    last_hash: bytes
    state: Cell | None = None
    """All of it, as the chain stores it (block.tlb `Account`): what an emulation starts from. None: absent."""
    frozen: bool = False
    """It owes so much rent that only the hash of its code and data is left: they may come back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionSummary:
    """One transaction. `exit_code` is None if no code ran, `action_code` if there was no action phase."""

    hash: bytes
    lt: int
    now_s: int
    exit_code: int | None
    action_code: int | None
    in_op: int | None
    source: Address | None
    """Who sent the message; None for an external one."""
    aborted: bool
    in_query_id: int | None = None
    """The 64 bits after the op, if the body has them: which request it belongs to."""
    in_body: Cell | None = None
    """What the message says."""


ABSENT = Account(balance_nanoton=0, active=False, code_hash=None, data=None, last_lt=0, last_hash=bytes(32))
"""What an account is that was never touched."""


def account_id(address: Address) -> dict[str, Any]:
    """The account as a liteserver's query wants it.

    Raises:
        InvalidValueError: it is of a workchain that is none of TON's. No server can prove anything of it: an honest
            answer would look like a lie.
    """
    if address.workchain not in WORKCHAINS:
        raise InvalidValueError(f"{address}: there is no workchain {address.workchain}")
    return {"workchain": address.workchain, "id": address.account.hex()}


def block_lookup(mode: int, seqno: int, utime: int | None = None) -> dict[str, Any]:
    """A `lookupBlock` query for the masterchain: by number (mode 1) or by unix time (mode 4)."""
    masterchain = {"workchain": -1, "shard": MASTERCHAIN_SHARD, "seqno": seqno}
    return {"mode": mode, "id": masterchain, "lt": None, "utime": utime}
