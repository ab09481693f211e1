"""What is kept of a liteserver's answers: it is believed again from its bytes, and nothing else is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio
from handmade_chain import HandmadeChain

from contracts.chain import open_chain
from contracts.chain_kept import STATE_CELLS_MAX, KeptAccount, KeptHeader, KeptLink
from contracts.chain_values import ABSENT
from contracts.errors import ChainConflictError, ChainUnavailableError
from contracts.opcodes import Op
from contracts.wallet import Wallet
from tests.contracts.chain_scene import DEVNET_GLOBAL_ID, FUNDS, NOBODY, SEED, message, own_address, serving


async def test_what_the_client_keeps_is_believed_without_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, open_chain([server]) as chain:
        first = await chain.head()
        block = await chain.wait_next(first.seqno, 20)
        header, before = await chain.kept_header(block), await chain.kept_header(first)
        ours, nobody = await chain.kept_account(own_address(), block), await chain.kept_account(NOBODY, block)
        with pytest.raises(ChainUnavailableError, match=r"\(621\)"):
            await chain.kept_link(block, first)
        with pytest.raises(ChainConflictError, match="of another block"):
            await chain.kept_header(replace(block, time_s=block.time_s + 1))
    assert header.believe() == (block, first.root_hash)
    assert before.believe()[0] == first
    assert ours.believe(block).balance_nanoton == FUNDS
    assert nobody.believe(block) == ABSENT
    assert isinstance(header, KeptHeader)
    with pytest.raises(ChainConflictError, match="of another block"):
        ours.believe(first)
    with pytest.raises(ChainConflictError, match="of another block"):
        ours.believe(replace(block, root_hash=bytes(32)))
    with pytest.raises(ChainConflictError):
        replace(ours, state=b"").believe(block)
    with pytest.raises(ChainConflictError):
        replace(ours, shard=b"").believe(block)
    with pytest.raises(ChainConflictError):
        replace(header, proof=before.proof).believe()


async def test_transactions_as_of_a_block_with_what_their_messages_say(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, open_chain([server]) as chain:
        wallet = Wallet(chain, SEED, global_id=DEVNET_GLOBAL_ID)
        await wallet.transfer([message()])
        between = await chain.head()
        await wallet.transfer([message()])
        everything = await chain.transactions(wallet.address, 5)
        assert await chain.transactions(wallet.address, 5, between) == everything[1:]
        assert all(each.in_body is not None for each in everything)
        assert Op.POOL_SUBMIT_CERTIFICATE not in {each.in_op for each in everything}


def test_a_link_leads_back_to_every_earlier_block() -> None:
    chain = HandmadeChain()
    blocks = [chain.seal(1_800_000_000 + i) for i in range(40)]
    for target in (0, 1, 17, 38):
        link = trio.run(chain.kept_link, blocks[39], blocks[target])
        assert link.believe(blocks[39]) == blocks[target].root_hash
        with pytest.raises(ChainConflictError, match="from block 39, not 38"):
            link.believe(blocks[38])
        with pytest.raises(ChainConflictError, match=r"there is none|the path to it is left out"):
            replace(link, target=target + 64).believe(blocks[39])
    with pytest.raises(ChainConflictError, match="there is none"):
        trio.run(chain.kept_link, blocks[0], blocks[0]).believe(blocks[0])


def test_an_answer_that_is_no_single_link_back() -> None:
    chain = HandmadeChain()
    first, second = chain.seal(1_800_000_000), chain.seal(1_800_000_001)
    link = trio.run(chain.kept_link, second, first)
    back = {"proof": link.proof, "state_proof": link.state_proof}
    assert KeptLink.of({"steps": [back]}, second, first) == link
    for steps in ([], [back, back], [{"config_proof": b""}]):
        with pytest.raises(ChainUnavailableError, match="no link from block 1 back to 0"):
            KeptLink.of({"steps": steps}, second, first)


def test_an_account_of_another_address_is_not_believed() -> None:
    chain = HandmadeChain()
    block = chain.seal(1_800_000_000)
    kept = trio.run(chain.kept_account, NOBODY, block)
    assert isinstance(kept, KeptAccount)
    assert kept.believe(block) == ABSENT
    with pytest.raises(ChainConflictError, match="says that there is none"):
        replace(kept, state=b"more").believe(block)


def test_a_state_that_would_take_minutes_to_read_is_not_read() -> None:
    chain = HandmadeChain()
    block = chain.seal(1_800_000_000)
    kept = trio.run(chain.kept_account, NOBODY, block)
    bag = b"\xb5\xee\x9c\x72" + bytes([3, 3]) + STATE_CELLS_MAX.to_bytes(3, "big")
    with pytest.raises(ChainConflictError, match=r"proof does not hold|says that there is none"):
        replace(kept, state=bag).believe(block)
    bag = b"\xb5\xee\x9c\x72" + bytes([3, 3]) + (STATE_CELLS_MAX + 1).to_bytes(3, "big")
    with pytest.raises(ChainConflictError, match="of more cells than an account can have"):
        replace(kept, state=bag).believe(block)
