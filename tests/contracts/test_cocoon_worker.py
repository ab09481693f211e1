"""Cocoon's worker contract: what is read from an account, what counts, and the stand-in that a proxy's key pays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from emulated_chain import EmulatedChain, key, open_storage, wallet_of
from pytoniq_core import Builder, Cell

from contracts import layout
from contracts.chain_values import ABSENT, Account
from contracts.cocoon import (
    STORAGE,
    UnacceptableWorkerError,
    WorkerContract,
    WorkerRules,
    WorkerState,
    appraise_worker,
    read_worker,
    worker_state_init,
)
from contracts.devchain.cocoon_worker import PAYOUT_NANOTON, payout_body, stand_in_code, stand_in_init
from contracts.errors import ContractAbsentError, InvalidCellError, InvalidValueError, UnreadableStateError
from contracts.model import NANO, Address
from contracts.signing import SigningKey
from contracts.wallet import OutMessage
from tests.contracts.emulation import new_ledger
from tests.contracts.pool_scene import ANYONE, START_S, account

OWNER, PROXY = account("worker's owner"), account("proxy contract")
PROXY_KEY, OTHER_KEY = key("proxy"), key("another proxy")
CODE_HASH = stand_in_code().hash
RULES = WorkerRules(code_hashes=frozenset({CODE_HASH}), proxies=frozenset({PROXY_KEY.public}))
OLD_MESSAGE, LOW_VALUE, OTHER_QUERY, CLOSED, BAD_SIGNATURE, UNKNOWN_OP, OTHER_WORKER = (
    1000,
    1003,
    1005,
    1006,
    1007,
    1012,
    1015,
)


class Stage:
    """One stand-in contract, alone in an emulator; `storage` replaces what a new one begins with."""

    def __init__(self, storage: Cell | None = None) -> None:
        self.ledger = new_ledger(START_S)
        init = stand_in_init(owner=OWNER, proxy=PROXY, proxy_public_key=PROXY_KEY.public)
        if storage is not None:
            init = layout.state_init(stand_in_code(), storage)
        self.worker = layout.address_of(init)
        self.ledger.send_internal(ANYONE, self.worker, NANO, Cell.empty(), state_init=init)

    def send(self, body: Cell, value: int = PAYOUT_NANOTON) -> int | None:
        return self.ledger.send_internal(ANYONE, self.worker, value, body)[0].exit_code

    def pay(self, tokens: int, signer: SigningKey = PROXY_KEY, **over: Any) -> int | None:
        fields = {"worker": self.worker, "tokens": tokens, "query_id": 7, "excesses_to": ANYONE} | over
        return self.send(payout_body(signer, **fields))

    @property
    def tokens(self) -> int:
        data = self.ledger.account(self.worker).data
        assert data is not None
        tokens = STORAGE.parse(data)["tokens"]
        assert isinstance(tokens, int)
        return tokens


def storage(**over: object) -> Cell:
    fields = {
        "owner": OWNER,
        "proxy": PROXY,
        "proxy_public_key": PROXY_KEY.public,
        "state": WorkerState.OPEN,
        "tokens": 0,
        "params": Cell.empty(),
    }
    return STORAGE.cell(fields | over)


# ---- the stand-in ----


def test_the_proxy_s_key_raises_tokens() -> None:
    stage = Stage()
    assert stage.pay(1) == 0
    assert stage.pay(5_000) == 0
    assert stage.tokens == 5_000
    assert stage.pay(2**64 - 1) == 0
    assert stage.tokens == 2**64 - 1


def test_the_getter_says_what_the_storage_says() -> None:
    stage = Stage()
    assert stage.pay(42) == 0
    exit_code, (owner, proxy, public_key, state, tokens) = stage.ledger.get_method(
        stage.worker, "get_cocoon_worker_data"
    )
    assert exit_code == 0
    assert [layout.cells.Reader(s.to_cell(), "address").address() for s in (owner, proxy)] == [OWNER, PROXY]
    assert (public_key, state, tokens) == (int.from_bytes(PROXY_KEY.public, "big"), 0, 42)


def test_a_signed_message_works_once_and_tokens_never_fall() -> None:
    stage = Stage()
    body = payout_body(PROXY_KEY, worker=stage.worker, tokens=100, query_id=1, excesses_to=ANYONE)
    assert stage.send(body) == 0
    assert stage.send(body) == OLD_MESSAGE
    assert stage.pay(100) == stage.pay(99) == stage.pay(0) == OLD_MESSAGE
    assert stage.tokens == 100


def test_nobody_else_raises_tokens() -> None:
    stage = Stage()
    assert stage.pay(100, OTHER_KEY) == BAD_SIGNATURE
    assert stage.pay(100, worker=account("another worker")) == OTHER_WORKER
    signed = payout_body(PROXY_KEY, worker=stage.worker, tokens=100, query_id=1, excesses_to=ANYONE)
    other_query = Builder().store_bits(signed.bits[:32]).store_uint(2, 64).store_bits(signed.bits[96:])
    assert stage.send(other_query.store_ref(signed.refs[0]).end_cell()) == OTHER_QUERY
    assert stage.send(signed, value=NANO // 10) == LOW_VALUE
    assert stage.send(Builder().store_uint(0xF5F26A36, 32).end_cell()) == UNKNOWN_OP
    assert stage.send(Builder().store_cell(signed).store_bit(1).store_ref(signed.refs[0]).end_cell()) == 9
    assert stage.tokens == 0


def test_a_closed_contract_takes_nothing() -> None:
    stage = Stage(storage(state=WorkerState.CLOSED, tokens=9))
    assert stage.pay(10) == CLOSED
    assert stage.tokens == 9


def test_what_a_payout_leaves_goes_back() -> None:
    stage = Stage()
    before = stage.ledger.account(stage.worker).balance_nanoton
    body = payout_body(PROXY_KEY, worker=stage.worker, tokens=1, query_id=1, excesses_to=OWNER)
    sent = stage.ledger.send_internal(ANYONE, stage.worker, PAYOUT_NANOTON, body)
    assert sent[0].out_messages[0].dest == OWNER
    assert sent[0].out_messages[0].value_nanoton > PAYOUT_NANOTON * 9 // 10
    assert stage.ledger.account(stage.worker).balance_nanoton >= before - NANO // 1000


# ---- what is read ----


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[EmulatedChain]:
    with open_storage(tmp_path) as disk:
        yield EmulatedChain(disk, {wallet_of("anyone"): 100 * NANO})


async def deployed(chain: EmulatedChain, init: Cell) -> Address:
    worker = layout.address_of(init)
    message = OutMessage(dest=worker, value_nanoton=NANO, body=None, bounce=False, state_init=init)
    await chain.wallet("anyone").transfer([message])
    chain.advance(1)
    return worker


async def test_tokens_are_read_as_of_a_block(chain: EmulatedChain) -> None:
    init = stand_in_init(owner=OWNER, proxy=PROXY, proxy_public_key=PROXY_KEY.public)
    worker = await deployed(chain, init)
    unpaid = await chain.head()
    body = payout_body(PROXY_KEY, worker=worker, tokens=1_234_567, query_id=1, excesses_to=wallet_of("anyone"))
    await chain.wallet("anyone").transfer([OutMessage(dest=worker, value_nanoton=PAYOUT_NANOTON, body=body)])
    chain.advance(1)
    read = await read_worker(chain, worker)
    assert read == WorkerContract(
        address=worker,
        owner=OWNER,
        proxy=PROXY,
        proxy_public_key=PROXY_KEY.public,
        state=WorkerState.OPEN,
        tokens=1_234_567,
        code_hash=CODE_HASH,
        origin=worker,
    )
    appraise_worker(read, RULES, OWNER)
    assert (await read_worker(chain, worker, unpaid)).tokens == 0


async def test_tokens_that_a_contract_began_with_do_not_count(chain: EmulatedChain) -> None:
    worker = await deployed(chain, layout.state_init(stand_in_code(), storage(tokens=10**15)))
    read = await read_worker(chain, worker)
    assert read.tokens == 10**15
    assert read.origin != worker
    with pytest.raises(UnacceptableWorkerError, match="did not begin at zero"):
        appraise_worker(read, RULES, OWNER)


async def test_an_address_that_only_got_money_was_paid_nothing_yet(chain: EmulatedChain) -> None:
    init = stand_in_init(owner=OWNER, proxy=PROXY, proxy_public_key=PROXY_KEY.public)
    money = OutMessage(dest=layout.address_of(init), value_nanoton=NANO, body=None, bounce=False)
    await chain.wallet("anyone").transfer([money])
    chain.advance(1)
    assert (await chain.account(money.dest)).balance_nanoton > 0
    with pytest.raises(ContractAbsentError, match="no worker contract stands at"):
        await read_worker(chain, money.dest)
    assert await deployed(chain, init) == money.dest
    assert (await read_worker(chain, money.dest)).tokens == 0


async def test_a_contract_of_many_cells_is_not_parsed(chain: EmulatedChain) -> None:
    params = Cell.empty()
    for i in range(200):
        params = Builder().store_bytes(i.to_bytes(120, "big")).store_ref(params).end_cell()
    worker = await deployed(chain, layout.state_init(stand_in_code(), storage(params=params)))
    assert (await chain.account(worker)).active
    with pytest.raises(UnreadableStateError, match="at most 16384 are read"):
        await read_worker(chain, worker)


class Asked:
    """A chain that shows one account, and counts how often it was asked."""

    def __init__(self, shown: Account) -> None:
        self.shown = shown
        self.asked = 0

    async def foreign_account(self, _address: Address, _block: object = None) -> Account:
        self.asked += 1
        return self.shown


@pytest.mark.parametrize("workchain", [-1, 1, 5, -128])
async def test_an_address_of_another_workchain_is_not_asked_for(workchain: int) -> None:
    chain = Asked(ABSENT)
    with pytest.raises(UnacceptableWorkerError, match="not of workchain 0"):
        await read_worker(chain, Address(workchain, b"w" * 32))
    assert chain.asked == 0


async def test_a_frozen_contract_hides_its_tokens_and_is_not_one_at_zero() -> None:
    with pytest.raises(UnacceptableWorkerError, match="frozen"):
        await read_worker(Asked(replace(ABSENT, frozen=True)), OWNER)
    with pytest.raises(InvalidCellError, match="no code or no data"):
        await read_worker(Asked(replace(ABSENT, active=True)), OWNER)


async def test_what_is_no_worker_contract_is_an_error(chain: EmulatedChain) -> None:
    with pytest.raises(ContractAbsentError, match="no worker contract stands at"):
        await read_worker(chain, account("nobody"))
    wallet = await deployed(chain, stand_in_init(owner=OWNER, proxy=PROXY, proxy_public_key=PROXY_KEY.public))
    assert (await read_worker(chain, wallet)).tokens == 0
    with pytest.raises(InvalidCellError, match="CocoonWorker"):
        await read_worker(chain, wallet_of("anyone"))


def in_state(state: int) -> Cell:
    bits = storage().bits
    return (
        Builder().store_bits(bits[:790]).store_uint(state, 2).store_bits(bits[792:]).store_ref(Cell.empty()).end_cell()
    )


@pytest.mark.parametrize(
    "cell",
    [
        Cell.empty(),
        Builder().store_cell(storage()).store_bit(1).end_cell(),
        Builder().store_cell(storage()).store_ref(Cell.empty()).end_cell(),
        Builder().store_bits(storage().bits).end_cell(),
        Builder()
        .store_bits(storage().bits[:523])
        .store_uint(1, 2)
        .store_uint(0, 64)
        .store_ref(Cell.empty())
        .end_cell(),
        Builder()
        .store_bits(storage().bits[:523])
        .store_uint(3, 2)
        .store_uint(0, 64)
        .store_ref(Cell.empty())
        .end_cell(),
        Builder().store_uint(0, 2).store_bits(storage().bits[267:]).store_ref(Cell.empty()).end_cell(),
    ],
)
def test_storage_is_read_to_the_last_bit(cell: Cell) -> None:
    with pytest.raises(InvalidCellError, match="CocoonWorker"):
        STORAGE.parse(cell)
    assert STORAGE.parse(in_state(2))["state"] == WorkerState.CLOSED


# ---- what counts ----


def counting() -> WorkerContract:
    worker = layout.address_of(stand_in_init(owner=OWNER, proxy=PROXY, proxy_public_key=PROXY_KEY.public))
    return WorkerContract(
        address=worker,
        owner=OWNER,
        proxy=PROXY,
        proxy_public_key=PROXY_KEY.public,
        state=WorkerState.CLOSED,
        tokens=5,
        code_hash=CODE_HASH,
        origin=worker,
    )


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"code_hash": bytes(32)}, "does not allow its code"),
        ({"address": ANYONE}, "did not begin at zero"),
        ({"proxy_public_key": OTHER_KEY.public}, "does not allow its proxy"),
        ({"owner": ANYONE}, f"belongs to {ANYONE}, not to {OWNER}"),
    ],
)
def test_a_contract_that_breaks_a_rule_does_not_count(over: dict[str, Any], message: str) -> None:
    appraise_worker(counting(), RULES, OWNER)
    with pytest.raises(UnacceptableWorkerError, match=message):
        appraise_worker(replace(counting(), **over), RULES, OWNER)


def test_rules_name_hashes_and_keys() -> None:
    with pytest.raises(InvalidValueError, match="proxies: expected 32 bytes"):
        WorkerRules(code_hashes=frozenset({CODE_HASH}), proxies=frozenset({b"key"}))
    with pytest.raises(InvalidValueError, match="code_hashes"):
        WorkerRules(code_hashes=frozenset({b""}), proxies=frozenset())


def test_another_code_owner_proxy_or_price_stands_elsewhere() -> None:
    inits = [
        worker_state_init(stand_in_code(), OWNER, PROXY, PROXY_KEY.public, Cell.empty()),
        worker_state_init(layout.code("pool_operator"), OWNER, PROXY, PROXY_KEY.public, Cell.empty()),
        worker_state_init(stand_in_code(), ANYONE, PROXY, PROXY_KEY.public, Cell.empty()),
        worker_state_init(stand_in_code(), OWNER, ANYONE, PROXY_KEY.public, Cell.empty()),
        worker_state_init(stand_in_code(), OWNER, PROXY, OTHER_KEY.public, Cell.empty()),
        worker_state_init(stand_in_code(), OWNER, PROXY, PROXY_KEY.public, storage()),
    ]
    assert len({layout.address_of(init) for init in inits}) == len(inits)
