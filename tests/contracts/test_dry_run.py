"""A dry run says what then happens, to the nanoTON, and changes nothing; its config is proven like its accounts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from emulated_chain import EmulatedChain, key, open_storage, wallet_of
from pytoniq_core import Builder, Cell

from contracts import certificate, dry_run, fees, layout
from contracts.chain_proofs import read_config
from contracts.devchain.boc import from_boc, to_boc
from contracts.devchain.errors import NotAcceptedError
from contracts.devchain.network import DEVNET_GLOBAL_ID, devnet_config
from contracts.dry_run import Forecast, ForecastError
from contracts.errors import ChainConflictError
from contracts.model import NANO, Address, EpochTerms, PoolParams
from contracts.opcodes import Refusal
from contracts.wallet import OutMessage, Wallet

STAKE = 100 * NANO
PARAMS = PoolParams(terms=EpochTerms(fee_bps=200, policy_hash=bytes(32)))


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[EmulatedChain]:
    with open_storage(tmp_path) as storage:
        rich = (wallet_of("owner"), wallet_of("ann"), wallet_of("ann", "v4r2"))
        yield EmulatedChain(storage, dict.fromkeys(rich, 1000 * NANO))


async def forecast(chain: EmulatedChain, wallet: Wallet, message: OutMessage) -> Forecast:
    return await dry_run.dry_run(chain, await wallet.rehearsal([message]), await chain.head())


def deployment(wallet: Wallet) -> OutMessage:
    init = layout.pool_state_init(wallet.address, 1, 3600)
    return OutMessage(
        dest=layout.address_of(init), value_nanoton=fees.INIT_NANOTON, body=layout.init_body(PARAMS), state_init=init
    )


def registration(wallet: Wallet, pool: Address, stake: int = STAKE) -> OutMessage:
    node_key = key("node")
    signature = certificate.prove_possession(node_key, global_id=DEVNET_GLOBAL_ID, pool=pool, owner=wallet.address)
    body = layout.register_body(stake_nanoton=stake, node_key=node_key.public, signature=signature)
    return OutMessage(dest=pool, value_nanoton=stake + fees.REGISTRATION_NANOTON, body=body)


async def test_what_is_forecast_happens(chain: EmulatedChain) -> None:
    owner, ann = chain.wallet("owner"), chain.wallet("ann")
    for wallet, message in ((owner, deployment(owner)), (ann, registration(ann, deployment(owner).dest))):
        told = await forecast(chain, wallet, message)
        again = await forecast(chain, wallet, message)
        assert told.after == again.after, "the first one changed nothing"
        assert told.refusal is None
        await wallet.transfer([message])
        ledger = chain.node.ledger
        balances = {address: ledger.account(address).balance_nanoton for address in told.after}
        # Between the forecast and the block, rent falls due: a few nanoTON.
        assert all(abs(balances[address] - expected) < 10_000 for address, expected in told.after.items())
        lost = sum(told.before.values()) - sum(told.after.values())
        assert lost == told.fees_nanoton > 0, "whatever the accounts lose, the network has"


async def test_a_refusal_is_forecast_with_its_contract_and_code(chain: EmulatedChain) -> None:
    owner, ann = chain.wallet("owner"), chain.wallet("ann")
    await owner.transfer([deployment(owner)])
    pool = deployment(owner).dest
    told = await forecast(chain, ann, registration(ann, pool, STAKE - 1))
    assert told.refusal is not None
    assert (told.refusal.address, told.refusal.exit_code) == (pool, Refusal.STAKE_BELOW_MINIMUM)
    assert told.before[ann.address] - told.after[ann.address] < NANO // 10, "the stake came back"
    await ann.transfer([registration(ann, pool)])
    told = await forecast(chain, ann, registration(ann, pool))
    assert told.refusal is not None
    assert told.refusal.exit_code == Refusal.ALREADY_REGISTERED
    assert told.refusal.address != pool, "the registry refused, after the pool had passed it on"


async def test_a_payment_to_nobody_is_no_refusal(chain: EmulatedChain) -> None:
    message = OutMessage(dest=Address(0, bytes(32)), value_nanoton=NANO, body=None, bounce=False)
    told = await forecast(chain, chain.wallet("ann"), message)
    assert told.refusal is None
    assert told.after[message.dest] == NANO
    bouncing = OutMessage(dest=message.dest, value_nanoton=NANO, body=None)
    told = await forecast(chain, chain.wallet("ann"), bouncing)
    assert told.refusal is not None


async def test_a_transfer_that_the_wallet_does_not_take_has_no_forecast(chain: EmulatedChain) -> None:
    ann = chain.wallet("ann")
    message = OutMessage(dest=chain.wallet("owner").address, value_nanoton=NANO, body=None, bounce=False)
    stale = await ann.rehearsal([message])
    await ann.transfer([message])
    with pytest.raises(NotAcceptedError):
        await dry_run.dry_run(chain, stale, await chain.head())


async def test_accounts_that_never_end_are_given_up(chain: EmulatedChain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry_run, "ROUNDS_MAX", 1)
    owner = chain.wallet("owner")
    with pytest.raises(ForecastError, match="new accounts in each of 1 rounds"):
        await forecast(chain, owner, deployment(owner))


async def test_the_older_wallet_rehearses_too(chain: EmulatedChain) -> None:
    old = chain.wallet("ann", "v4r2")
    told = await forecast(chain, old, deployment(old))
    assert (told.refusal, told.transactions[0].address) == (None, old.address)


async def test_a_rehearsal_is_never_sent(chain: EmulatedChain) -> None:
    owner = chain.wallet("owner")
    await forecast(chain, owner, deployment(owner))
    assert chain.sent == []


# The blockchain's config.


async def test_the_config_is_the_chains_own(chain: EmulatedChain) -> None:
    assert (await chain.config()).hash == devnet_config().hash


async def test_a_config_of_another_block_is_refused(chain: EmulatedChain) -> None:
    first = await chain.head()
    chain.advance(5)
    answered = chain.ask_config(first)
    with pytest.raises(ChainConflictError, match="it is of another block"):
        read_config(answered, await chain.head())
    answered["id"] = chain.ask_config(await chain.head())["id"]
    with pytest.raises(ChainConflictError, match="its header is of another block"):
        read_config(answered, await chain.head())


async def test_a_config_with_a_price_changed_is_refused(chain: EmulatedChain) -> None:
    block = await chain.head()
    answered = chain.ask_config(block)
    root = from_boc(answered["config_proof"])
    answered["config_proof"] = to_boc(_changed(root))
    with pytest.raises(ChainConflictError, match="config: "):
        read_config(answered, block)


async def test_a_config_that_leaves_a_part_out_is_refused(chain: EmulatedChain) -> None:
    block = await chain.head()
    answered = chain.ask_config(block)
    state = from_boc(answered["config_proof"]).refs[0]
    config = state.refs[3].refs[1]
    pruned = _pruned(config.refs[0])
    shown = Cell(config.bits, [pruned, *config.refs[1:]], -1)
    extra = Cell(state.refs[3].bits, [state.refs[3].refs[0], shown, *state.refs[3].refs[2:]], -1)
    proof = Cell(from_boc(answered["config_proof"]).bits, [Cell(state.bits, [*state.refs[:3], extra], -1)], 3)
    answered["config_proof"] = to_boc(proof)
    with pytest.raises(ChainConflictError, match="a part is left out"):
        read_config(answered, block)


def _changed(root: Cell) -> Cell:
    """The same proof with another bit in its deepest leftmost cell that is no proof itself."""
    if root.refs and root.type_ != 1:
        return Cell(root.bits, [*root.refs[:-1], _changed(root.refs[-1])], root.type_)
    bits = root.bits.copy()
    bits[-1] = not bits[-1]
    return Cell(bits, list(root.refs), root.type_)


def _pruned(cell: Cell) -> Cell:
    content = Builder().store_uint(1, 8).store_uint(1, 8).store_bytes(cell.hash).store_uint(cell.get_depth(0), 16)
    return Cell(content.end_cell().bits, [], 1)
