"""The wallet of an agent that was restarted: what the process before it signed may still land."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.devchain.errors import NotAcceptedError
from contracts.devchain.network import DEVNET_GLOBAL_ID
from contracts.devchain.node import Node
from contracts.devchain.storage import Storage
from contracts.errors import TransferExpiredError
from contracts.model import NANO
from contracts.wallet import OutMessage, Wallet
from tests.contracts.chain_scene import GENESIS, RECEIVER, SEED, START_S, FakeChain, message


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[FakeChain]:
    with Storage(tmp_path) as storage:
        yield FakeChain(Node(storage, GENESIS, now=START_S))


def new_process(chain: FakeChain) -> Wallet:
    return Wallet(chain, SEED, global_id=DEVNET_GLOBAL_ID)


def received(chain: FakeChain) -> int:
    return round(chain.node.ledger.account(RECEIVER).balance_nanoton / NANO)


async def test_a_message_of_the_process_before_cannot_land_after_ours(chain: FakeChain) -> None:
    chain.drops = 10**6
    with pytest.raises(TransferExpiredError):
        await new_process(chain).transfer([message()])
    chain.drops = 0
    before, start = chain.sent[0], chain.now
    await new_process(chain).transfer([message()])
    assert chain.now - start <= 2 * chain.block_s
    with pytest.raises(NotAcceptedError):
        chain.node.send(before, chain.now)
    assert received(chain) == 1


async def test_the_same_number_is_taken_once(chain: FakeChain) -> None:
    """Both processes signed for number 0, both messages reach the chain: one of them counts."""
    first, second = new_process(chain), new_process(chain)
    ours = first._external([message()], 0, START_S + 60, deploy=True)
    theirs = second._external([message(2 * NANO)], 0, START_S + 60, deploy=True)
    chain.node.send(ours, START_S)
    with pytest.raises(NotAcceptedError):
        chain.node.send(theirs, START_S)
    chain.node.seal(START_S + 5)
    await second.transfer([message(2 * NANO)])
    assert received(chain) == 3


async def test_a_payment_needs_no_body(chain: FakeChain) -> None:
    plain = OutMessage(dest=RECEIVER, value_nanoton=NANO, body=None, bounce=False)
    await new_process(chain).transfer([plain, plain])
    assert received(chain) == 2
