"""Cocoon's worker contract: how many tokens a proxy owes to a worker for ever, read from proven account state.

Decides what the account says, and by `appraise_worker` whether it counts for a participant. Untrusted: the account.
A participant chooses its address, and so what is read. A liteserver's word on `get_cocoon_worker_data` is not proven,
so the storage is read, and as strictly as our own. It counts if

1. its code is one that the policy allows: another code may raise `tokens` as it likes;
2. it began with no tokens: its address is the hash of this code with these parties, open and at zero. Anyone may
   deploy the allowed code with a `tokens` of their choice, but such a contract stands elsewhere. So an address where
   nothing stands yet was paid nothing: whatever comes to stand there, and counts, begins at zero;
3. its proxy's key is one that the policy allows: from zero on, only what that key signed for this very address
   raises `tokens`;
4. its owner is the participant: an owner that several could name, as the pool's own contract, would let each of them
   claim the same tokens;
5. it is of workchain 0, where Cocoon is; another address is not even asked for.

`tokens` counts for ever, also after the contract was closed; what an epoch brought is a difference of two readings.
That the proxy had the TON to pay for them is not looked at.

Source: `cocoon_worker` and `pack_cocoon_worker_data` in github.com/AlphaCompute/cocoon-contracts (FunC and Tolk,
86fe8ab); METERING, `worker-contract`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from pytoniq_core import Cell
from pytoniq_core.tlb.account import Account as RawAccount

from contracts import layout
from contracts.chain_values import Account, Block
from contracts.errors import ContractAbsentError, ContractsError, InvalidCellError
from contracts.layout.codec import ADDRESS, HASH, Field, choice, raw, record, uint
from contracts.model import Address, require_bytes

WORKCHAIN = 0


class WorkerState(IntEnum):
    """Whether more tokens can come."""

    OPEN = 0
    CLOSED = 2


STORAGE = record(
    "CocoonWorker",
    Field("owner", ADDRESS),
    Field("proxy", ADDRESS),
    Field("proxy_public_key", HASH),
    Field("state", choice(WorkerState, 2)),
    Field("tokens", uint(64)),
    Field("params", raw()),
)


class ForeignAccounts(Protocol):
    """The part of the chain client that reads addresses which others chose."""

    async def foreign_account(self, address: Address, block: Block | None = None) -> Account: ...


class UnacceptableWorkerError(ContractsError):
    """A worker contract does not count for a participant; the message says by which rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerContract:
    """One worker's contract with one proxy. `tokens`: adjusted tokens, all that the proxy ever signed for.

    `origin` is where this code stands with these parties if it began at zero: the contract's own address, or
    somebody made its storage up.
    """

    address: Address
    owner: Address
    proxy: Address
    proxy_public_key: bytes
    state: WorkerState
    tokens: int
    code_hash: bytes
    origin: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRules:
    """What a policy allows: hashes of worker contracts' code, and public keys of proxies, 32 bytes each."""

    code_hashes: frozenset[bytes]
    proxies: frozenset[bytes]

    def __post_init__(self) -> None:
        for name, values in (("code_hashes", self.code_hashes), ("proxies", self.proxies)):
            for value in values:
                require_bytes(name, value, 32)


async def read_worker(chain: ForeignAccounts, address: Address, block: Block | None = None) -> WorkerContract:
    """Read the worker contract at `address` as of `block` (None: the latest).

    Raises:
        UnacceptableWorkerError: it does not count, wherever it is from: it breaks rule 5, or is frozen.
        ContractAbsentError: it is proven that nothing stands there.
        InvalidCellError: what stands there is no worker contract.
        UnreadableStateError: it is too large for one, or does not decode.
        ChainUnavailableError, ChainConflictError: as the chain client raises them.
    """
    if address.workchain != WORKCHAIN:
        raise UnacceptableWorkerError(f"{address}: it is not of workchain {WORKCHAIN}, where Cocoon's workers are")
    account = await chain.foreign_account(address, block)
    if account.frozen:
        raise UnacceptableWorkerError(f"{address}: it is frozen, without its tokens; pay the rent that it owes")
    if not account.active:
        raise ContractAbsentError(f"no worker contract stands at {address}; has the worker met its proxy yet?")
    if account.data is None or account.code_hash is None:
        raise InvalidCellError(f"{address}: no worker contract, it has no code or no data")
    values = STORAGE.parse(account.data)
    owner, proxy, key, params = (values[name] for name in ("owner", "proxy", "proxy_public_key", "params"))
    return WorkerContract(
        address=address,
        owner=owner,
        proxy=proxy,
        proxy_public_key=key,
        state=values["state"],
        tokens=values["tokens"],
        code_hash=account.code_hash,
        origin=layout.address_of(worker_state_init(_code(account, address), owner, proxy, key, params)),
    )


def appraise_worker(worker: WorkerContract, rules: WorkerRules, owner: Address) -> None:
    """Return if the tokens of `worker` count for the participant `owner` (rules 1 to 4).

    Raises:
        UnacceptableWorkerError: they do not.
    """
    if worker.code_hash not in rules.code_hashes:
        raise UnacceptableWorkerError(f"{worker.address}: the policy does not allow its code {worker.code_hash.hex()}")
    if worker.origin != worker.address:
        raise UnacceptableWorkerError(f"{worker.address}: it did not begin at zero tokens, or was not made by Cocoon")
    if worker.proxy_public_key not in rules.proxies:
        key = worker.proxy_public_key.hex()
        raise UnacceptableWorkerError(f"{worker.address}: the policy does not allow its proxy {key}")
    if worker.owner != owner:
        raise UnacceptableWorkerError(f"{worker.address}: it belongs to {worker.owner}, not to {owner}")


def worker_state_init(code: Cell, owner: Address, proxy: Address, proxy_public_key: bytes, params: Cell) -> Cell:
    """State init of a new worker contract: open, without tokens. `layout.address_of` it is where it stands.

    Raises:
        InvalidValueError: `proxy_public_key` does not have 32 bytes.
    """
    data = STORAGE.cell(
        {
            "owner": owner,
            "proxy": proxy,
            "proxy_public_key": proxy_public_key,
            "state": WorkerState.OPEN,
            "tokens": 0,
            "params": params,
        }
    )
    return layout.state_init(code, data)


def _code(account: Account, address: Address) -> Cell:
    """The code of an active account; only its hash stands in `Account` itself."""
    if account.state is None:
        raise InvalidCellError(f"{address}: its state was read without its code")
    code: Cell = RawAccount.deserialize(account.state.begin_parse()).storage.state.state_init.code
    return code
