"""`gpupool pool register`: no stake but one that was named, what is registered already, what comes next."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from emulated_chain import wallet_of
from pool_town import Town, open_town


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Town]:
    with open_town(tmp_path, monkeypatch, capsys) as town:
        town.deploy("--min-stake", "50")
        yield town


def test_without_an_amount_nothing_is_staked(pool: Town) -> None:
    sent = len(pool.chain.sent)
    code, out, errors = pool.try_("ann", "register")
    assert (code, out, len(pool.chain.sent)) == (2, "", sent)
    assert "nothing was done. This pool's least stake is 50 TON; it stays locked, and comes back 7 d after" in errors
    assert pool.run("ann", "register", "--dry-run")["refusal"] is None


def test_who_registers_is_told_the_transaction_and_what_comes_next(pool: Town) -> None:
    code, out, _ = pool.try_("ann", "register", "--stake", "60")
    registered, transaction, following = out.splitlines()
    newest = pool.chain.node.ledger.account(pool.state().registry).last_hash
    assert (code, registered) == (0, f"registered {wallet_of('ann')} with 60 TON")
    assert transaction == f"transaction {newest.hex()} of the registry"
    assert following.startswith("next: start the agent")


@pytest.mark.parametrize(
    ("copied", "said"),
    [
        ("wallet", "this wallet, 0:.*, is registered already, with another node key: .*: gpupool keys rotate"),
        ("node", "this node key, .*, is registered already, by another wallet: 0:"),
    ],
)
def test_what_is_registered_already_is_named(pool: Town, copied: str, said: str) -> None:
    pool.register("ann")
    shutil.copy(pool.folder / f"ann.{copied}", pool.folder / f"bob.{copied}")
    assert re.search(said, pool.refused("bob", "register"))
    both = f"this agent is registered already: wallet {wallet_of('ann')}, with this node key"
    assert both in pool.refused("ann", "register", "--stake", "60")
