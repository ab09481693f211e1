"""PoolReader: believes an account's storage only where the account is the contract that it should be."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pytoniq_core import Cell

from contracts.chain import Account, Block
from contracts.errors import ContractAbsentError
from contracts.model import Address
from contracts.reader import PoolReader
from tests.contracts.pool_scene import ANYONE, PARTICIPANTS, Scene

BLOCK = Block(seqno=1, root_hash=bytes(32), file_hash=bytes(32), time_s=1_800_000_000, global_id=-3)


class Source:
    """The scene's accounts as a chain client would hand them out; `forged` replaces some."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.forged: dict[Address, dict[str, object]] = {}

    async def account(self, address: Address, block: Block | None = None) -> Account:
        state = self.scene.ledger.account(address)
        account = Account(
            balance_nanoton=state.balance_nanoton,
            active=state.code is not None,
            code_hash=None if state.code is None else state.code.hash,
            data=state.data,
            last_lt=0,
            last_hash=bytes(32),
        )
        return replace(account, **self.forged.get(address, {}))


async def test_a_pool_is_read(ready: Scene) -> None:
    assert ready.register(PARTICIPANTS[0]).refusal is None
    reader = PoolReader(Source(ready), ready.pool)
    assert await reader.rewards() == ready.state()
    assert await reader.state(BLOCK) == ready.pool_state()
    assert await reader.registry_state(BLOCK) == ready.registry_state()
    assert [p.address for p in await reader.registry()] == [PARTICIPANTS[0]]


async def test_what_is_not_this_contract_is_absent(ready: Scene) -> None:
    source = Source(ready)
    with pytest.raises(ContractAbsentError, match="is it deployed"):
        await PoolReader(source, ANYONE).state()
    with pytest.raises(ContractAbsentError, match="not a pool operator contract"):
        await PoolReader(source, ready.rewards).state()
    source.forged[ready.registry] = {"code_hash": bytes(32), "data": Cell.empty()}
    with pytest.raises(ContractAbsentError, match="not a participant registry"):
        await PoolReader(source, ready.pool).registry()


async def test_a_pool_that_was_never_initialised_is_absent() -> None:
    scene = Scene()
    source = Source(scene)
    source.forged[scene.pool] = {"active": True, "code_hash": scene.init.refs[0].hash, "data": scene.init.refs[1]}
    with pytest.raises(ContractAbsentError, match="pool_init"):
        await PoolReader(source, scene.pool).state()
