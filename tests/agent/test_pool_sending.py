"""How a message is followed: taken, refused by somebody on its way, or never seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from emulated_chain import EmulatedChain, key, open_storage, wallet_of
from pool_town import EPOCH_S, open_town
from trio.testing import MockClock

from agent.errors import ConfigError, KeyFileError, OperationError
from agent.pool import owner, participant
from agent.pool.sending import Operation, perform, rehearse
from agent.pool.session import PoolSession
from agent.trace import RefusedError, Trace, require_taken
from contracts import layout
from contracts.chain_values import TransactionSummary
from contracts.devchain.network import DEVNET_GLOBAL_ID
from contracts.model import NANO, EpochTerms, PoolParams
from contracts.opcodes import Refusal

PARAMS = PoolParams(terms=EpochTerms(fee_bps=200, policy_hash=bytes(32)))


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[EmulatedChain]:
    with open_storage(tmp_path) as storage:
        yield EmulatedChain(storage, {wallet_of(name): 1000 * NANO for name in ("owner", "ann")})


def session(chain: EmulatedChain, name: str, **more: object) -> PoolSession:
    pool = layout.pool_address(wallet_of("owner"), 1, EPOCH_S)
    return PoolSession(chain, pool, global_id=DEVNET_GLOBAL_ID, wallet=chain.wallet(name), **more)  # type: ignore[arg-type]


async def deployed(chain: EmulatedChain) -> PoolSession:
    """The owner's session of a pool that stands."""
    made = session(chain, "owner")
    await perform(made, await owner.deployment(made, pool_id=1, epoch_duration_s=EPOCH_S, params=PARAMS))
    await owner.stands(made)
    return made


async def registration(of: PoolSession) -> Operation:
    return await participant.registration(of, node_key=key("node"), stake_nanoton=100 * NANO)


async def test_what_every_contract_took_is_done(chain: EmulatedChain) -> None:
    await deployed(chain)
    ann = session(chain, "ann")
    await perform(ann, await registration(ann))
    assert len(await ann.reader.registry()) == 1


async def test_the_contract_behind_the_first_one_refuses(chain: EmulatedChain) -> None:
    await deployed(chain)
    ann = session(chain, "ann")
    operation = await registration(ann)
    await perform(ann, operation)
    before = (await chain.account(ann.wallet.address)).balance_nanoton
    with pytest.raises(RefusedError, match=r"the registry refused: already_registered \(201\): this owner has") as told:
        await perform(ann, await _again(ann, operation))
    assert told.value.exit_code == Refusal.ALREADY_REGISTERED
    assert before - (await chain.account(ann.wallet.address)).balance_nanoton < NANO // 10, "the stake came back"


async def _again(of: PoolSession, operation: Operation) -> Operation:
    """The same message under another query id."""
    body = layout.read_body(operation.body)
    return replace(operation, body=layout.body_cell(body.op, **{**body.values, "query_id": 7}))


async def test_others_messages_are_not_mistaken_for_ones_own(chain: EmulatedChain) -> None:
    await deployed(chain)
    ann = session(chain, "ann")
    mine, other = await registration(ann), replace(await registration(ann), value_nanoton=NANO)
    trace = Trace(chain, await ann.contracts(), mine.query_id)  # type: ignore[arg-type]
    await trace.begin()
    with pytest.raises(RefusedError, match="insufficient_value"):
        await perform(ann, other)
    assert not await trace.is_taken_by(ann.pool)
    assert mine.final is not None
    await ann.wallet.transfer([mine.message])
    assert await trace.is_taken_by(mine.final)
    assert await trace.is_taken_by(ann.pool), "what was seen once stays seen"


async def test_a_message_that_nobody_shows_ends_in_time(chain: EmulatedChain, autojump_clock: MockClock) -> None:
    ann = session(chain, "ann")
    body = layout.heartbeat_body(query_id=1)
    operation = Operation(what="the heartbeat", dest=ann.pool, value_nanoton=NANO, body=body)
    with pytest.raises(OperationError, match="the heartbeat was not confirmed within 60 s; see"):
        await perform(ann, operation)
    with pytest.raises(OperationError, match="did not appear within 60 s"):
        await owner.stands(ann)


async def test_without_enough_for_its_gas_nothing_runs(chain: EmulatedChain) -> None:
    made = await deployed(chain)
    operation = Operation(
        what="the payment", dest=(await made.reader.state()).rewards, value_nanoton=1000,
        body=layout.receive_payment_body(query_id=3),
    )  # fmt: skip
    with pytest.raises(OperationError, match="the rewards did not run: the message brought too little for its gas"):
        await perform(made, operation)


async def test_an_empty_wallet_sends_nothing(chain: EmulatedChain) -> None:
    ann = session(chain, "ann")
    operation = Operation(what="x", dest=ann.pool, value_nanoton=1000 * NANO, body=layout.heartbeat_body())
    with pytest.raises(OperationError, match="holds 1000 TON; this takes 1000 TON and gas"):
        await perform(ann, operation)
    assert chain.sent == []


async def test_who_interrupts_learns_that_it_may_have_been_sent(
    chain: EmulatedChain, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = await deployed(chain)
    operation = Operation(
        what="the payment", dest=(await made.reader.state()).rewards, value_nanoton=NANO,
        body=layout.receive_payment_body(query_id=3),
    )  # fmt: skip

    async def interrupted(_self: Trace, _contract: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(Trace, "taken_by", interrupted)
    with pytest.raises(KeyboardInterrupt):
        await perform(made, operation)
    assert capsys.readouterr().err.startswith("gpupool: interrupted; the payment may have been sent all the same")


async def test_a_rehearsal_tells_what_performing_does(chain: EmulatedChain) -> None:
    await deployed(chain)
    ann = session(chain, "ann")
    operation = await registration(ann)
    sent = len(chain.sent)
    forecast = await rehearse(ann, operation)
    assert len(chain.sent) == sent
    assert operation.final in [transaction.address for transaction in forecast.transactions]
    await perform(ann, operation)
    balance = (await chain.account(ann.wallet.address)).balance_nanoton
    assert abs(balance - forecast.after[ann.wallet.address]) < 10_000


def summary(**changes: object) -> TransactionSummary:
    taken = TransactionSummary(
        hash=bytes(32), lt=1, now_s=1, exit_code=0, action_code=0, in_op=1, source=None, aborted=False, in_query_id=1
    )
    return replace(taken, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("transaction", "said"),
    [
        (summary(aborted=True, exit_code=605), r"pool_paused \(605\): the pool is paused"),
        (summary(aborted=True, action_code=37), r"not_enough_toncoin \(37\)"),
        (summary(aborted=True, exit_code=-14), r"out_of_gas \(-14\)"),
        (summary(aborted=True, exit_code=None, action_code=None), "did not run"),
    ],
)
def test_refusals_are_named(transaction: TransactionSummary, said: str) -> None:
    with pytest.raises(OperationError, match=said):
        require_taken(transaction, "pool")


def test_what_was_taken_raises_nothing() -> None:
    require_taken(summary(), "pool")
    require_taken(summary(exit_code=1, action_code=None), "pool")


# What a session has.


def test_keys_are_asked_for_when_they_are_needed(chain: EmulatedChain, tmp_path: Path) -> None:
    bare = PoolSession(chain, wallet_of("owner"), global_id=DEVNET_GLOBAL_ID)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no wallet was named"):
        _ = bare.wallet
    with pytest.raises(ConfigError, match="no node key was named"):
        bare.node_key()
    assert bare.node_key_if_there() is None
    named = session(chain, "ann", node_key_file=tmp_path / "none.key")
    assert named.node_key_if_there() is None
    with pytest.raises(KeyFileError, match=r"none.key: missing"):
        named.node_key()


def test_servers_of_another_network_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_town(tmp_path, monkeypatch, capsys) as town:
        path = town.folder / "ann.toml"
        path.write_text(path.read_text().replace(str(DEVNET_GLOBAL_ID), '"testnet"'))
        code, _, errors = town.try_("ann", "status")
        assert (code, errors) == (2, "gpupool: the liteservers are of the network -217, not of -3\n")


def test_looking_needs_no_wallet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_town(tmp_path, monkeypatch, capsys) as town:
        town.deploy()
        (town.folder / "ann.wallet").unlink()
        assert town.run("ann", "status")["owner"] == str(wallet_of("owner"))
        assert town.try_("ann", "heartbeat")[0] == 2
