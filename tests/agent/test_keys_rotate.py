"""`gpupool keys rotate` on the real contracts: what moves, what stays, and that it can be cut short anywhere."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from emulated_chain import key, wallet_of
from pool_fixture import evidence
from pool_town import SERVER, Town, open_town, write_key

from agent.cli import main
from agent.config import Config
from agent.identity import load_key
from agent.journal import open_journal
from agent.keys import rotate_verb, rotating
from agent.ledger import ledger_file, open_ledger
from agent.ledger_reader import read_ledger
from agent.ledger_rows import EpochRow, PaidRow
from agent.setup import Answers, init_agent
from contracts.devchain.network import DEVNET_GLOBAL_ID
from contracts.model import DAY_S, NANO, Participant
from gossip.records import CloseBody, PoolId, make_record

OLD = key("node of ann")
KEPT = f"node.key.old-{OLD.public.hex()[:8]}"


@pytest.fixture
def town(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Town]:
    """Ann is registered, and has a host."""
    monkeypatch.setattr(rotating, "POLL_S", 0.0)
    with open_town(tmp_path, monkeypatch, capsys) as town:
        town.deploy()
        town.register("ann", "bob")
        yield town


@pytest.fixture
def host(town: Town) -> Config:
    folder = town.folder / "host"
    folder.mkdir()
    write_key(folder / "node.key", "node of ann")
    write_key(folder / "wallet.key", "ann")
    server = ("127.0.0.1", 4924, "hyHNnrPKZZSDpEw1IqKwbe28T1OFoFGjRDjJ8yTXPuE=")
    answers = Answers(
        network=DEVNET_GLOBAL_ID,
        pool=str(town.pool),
        policy_file="../policy.toml",
        liteservers=[server],
        work={"engine": {"url": "http://127.0.0.1:8000/metrics"}},
        attestation={"provider": "software", "software_dir": "platform", "software_root_file": "root.der"},
    )
    config = init_agent(folder, answers).config
    open_ledger(ledger_file(config), node_key=OLD.public, pool=pool_of(config)).close()
    return config


def pool_of(config: Config) -> PoolId:
    return PoolId(config.pool.global_id, config.pool.contract.account)


def rotate(*more: str) -> int:
    return main(["keys", "rotate", "--config", "host/agent.toml", *more])


def files(config: Config) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in config.path.parent.rglob("*") if path.is_file()}


def entry_of(town: Town, name: str = "ann") -> Participant:
    return next(each for each in town.registry().participants if each.address == wallet_of(name))


def registered(town: Town, name: str = "ann") -> bytes:
    return entry_of(town, name).node_key


def require_rotated(town: Town, config: Config) -> None:
    """Key, registry and journal are of one new key, and nothing of the old one is lost."""
    folder = config.path.parent
    new = load_key(folder / "node.key").public
    assert registered(town) == new != OLD.public
    assert load_key(folder / KEPT).public == OLD.public
    assert not (folder / "node.key.next").exists()
    with closing(open_journal(config.journal_file, node_key=new, pool=pool_of(config))) as journal:
        assert journal.is_own_log_known
    before = config.journal_file.with_name(f"journal.sqlite.old-{OLD.public.hex()[:8]}")
    open_journal(before, node_key=OLD.public, pool=pool_of(config)).close()
    assert ledger_file(config).with_name(f"ledger.sqlite.old-{OLD.public.hex()[:8]}").exists()


def test_a_rehearsal_changes_nothing(town: Town, host: Config, capsys: pytest.CaptureFixture[str]) -> None:
    sent, before = len(town.chain.sent), files(host)
    assert rotate("--dry-run", "--json") == 0
    forecast = json.loads(capsys.readouterr().out)
    assert forecast["refusal"] is None
    assert rotate("--dry-run") == 0
    assert "node_key_rotated" in capsys.readouterr().out
    assert (len(town.chain.sent), files(host)) == (sent, before)


def test_what_it_costs_is_said_first(town: Town, host: Config, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(host)
    assert rotate() == 2
    said = capsys.readouterr().err
    assert "when epoch 1 began, will not count" in said
    assert "nothing was done. Add --yes" in said
    assert rotate("--at-epoch-end") == 2
    said = capsys.readouterr().err
    assert "it is waited until epoch 1, which ends " in said
    assert "nothing was done. Add --yes" in said
    assert (registered(town), files(host)) == (OLD.public, before)


def test_a_rotation(town: Town, host: Config, capsys: pytest.CaptureFixture[str]) -> None:
    folder = host.path.parent
    (folder / "node.key.signed").write_text("[]\n")
    (folder / "node.key.backup").write_text("{}\n")
    assert rotate("--yes", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    require_rotated(town, host)
    assert (told["previous"], told["previous_file"]) == (OLD.public.hex(), str(folder / KEPT))
    assert (folder / f"{KEPT}.signed").exists()
    assert not (folder / "node.key.signed").exists(), "what the old key signed does not bind the new one"
    assert (folder / f"{KEPT}.backup").exists()
    assert rotate("--yes") == 1
    assert ", and that is done; it can be again from" in capsys.readouterr().err
    town.chain.advance(7 * DAY_S)
    first = registered(town)
    assert rotate("--yes") == 0
    assert registered(town) not in (first, OLD.public)


def test_a_forked_log_is_healed(town: Town, host: Config) -> None:
    """The new key begins a log of its own; stake, reputation and time of joining stay the entry's."""
    pool = pool_of(host)
    twins = [make_record(OLD, pool, 1, bytes(32), body) for body in (CloseBody(), evidence())]
    with closing(open_journal(host.journal_file, node_key=OLD.public, pool=pool)) as journal:
        journal.append(twins)
    before = entry_of(town)
    assert rotate("--yes") == 0
    require_rotated(town, host)
    new = load_key(host.path.parent / "node.key")
    with closing(open_journal(host.journal_file, node_key=new.public, pool=pool)) as journal:
        assert list(journal.all_records()) == []
        journal.append_own(make_record(new, pool, 1, bytes(32), CloseBody()))
    assert entry_of(town) == replace(before, node_key=new.public, rotated_s=entry_of(town).rotated_s)


def test_earnings_are_the_wallets_whatever_key_earned_them(
    town: Town, host: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    account = wallet_of("ann").account
    paid = PaidRow(time_s=9, epoch=2, account=account, paid_nanoton=NANO)
    with closing(open_ledger(ledger_file(host), node_key=OLD.public, pool=pool_of(host))) as ledger:
        for number in (1, 2):
            ledger.keep_epoch(
                EpochRow(epoch=number, account=account, cumulative_nanoton=number * NANO, is_computed=True, head_seq=40)
            )
        ledger.keep_paid(paid)
    assert rotate("--yes") == 0
    with read_ledger(ledger_file(host), pool_of(host)) as reader:
        rows, payments = reader.epochs(), reader.paid()
        assert reader.node_key == registered(town)
    assert [(row.epoch, row.cumulative_nanoton) for row in rows] == [(1, NANO), (2, 2 * NANO)]
    assert [row.head_seq for row in rows] == [0, 0], "the new key has written no record yet"
    assert payments == [paid]


def test_a_damaged_ledger_does_not_keep_a_key_in_place(
    town: Town, host: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger_file(host).write_bytes(b"no ledger")
    assert rotate("--yes") == 0
    require_rotated(town, host)
    assert "the history of earnings begins anew: " in capsys.readouterr().err


STEPS = [
    (rotate_verb, "next_key", 1),
    (rotate_verb, "carry_out", 1),
    (rotate_verb, "shown", 1),
    (rotate_verb, "exchange", 1),
    (rotating, "_link", 1),
    (rotating, "_move", 1),
    (rotating, "_move", 3),
    (rotating, "_move", 6),
    (rotating, "new_journal", 1),
    (rotating, "_carry_history", 1),
    (rotating, "sync_folder", 1),
]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(("module", "step", "count"), STEPS, ids=[f"{name} {count}" for _, name, count in STEPS])
def test_it_can_be_cut_short_anywhere(
    town: Town, host: Config, monkeypatch: pytest.MonkeyPatch, module: object, step: str, count: int, moment: str
) -> None:
    (host.path.parent / "node.key.signed").write_text("[]\n")
    with monkeypatch.context() as patch:
        patch.setattr(module, step, cut_short(getattr(module, step), count, moment))
        assert rotate("--yes") == 130
    is_done = (step, moment) == ("exchange", "after") or step == "sync_folder"
    assert rotate("--yes") == (1 if is_done else 0)
    require_rotated(town, host)


def cut_short(function: Callable[..., Any], count: int, moment: str) -> Callable[..., Any]:
    """The function, which at its call of this number ends everything, before it does anything or after."""
    calls = itertools.count(1)

    def run(*given: Any, **named: Any) -> Any:
        is_last = next(calls) == count
        if is_last and moment == "before":
            raise KeyboardInterrupt
        result = function(*given, **named)
        if not is_last:
            return result
        if step_is_async(result):
            return interrupted(result)
        raise KeyboardInterrupt

    return run


def step_is_async(result: object) -> bool:
    return hasattr(result, "__await__")


async def interrupted(awaitable: Any) -> None:
    await awaitable
    raise KeyboardInterrupt


def test_an_agent_that_runs_is_to_be_stopped(town: Town, host: Config, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(open_journal(host.journal_file, node_key=OLD.public, pool=pool_of(host))):
        assert rotate("--yes") == 0, "the first of two steps is done"
        said = capsys.readouterr().out
        assert f"the registry names the new node key, {registered(town).hex()}" in said
        assert f"next: stop the agent, gpupool keys rotate --yes --config {host.path}, start the agent" in said
        assert rotate("--yes") == 1
        assert "the agent still runs with the old one: stop it, run this again" in capsys.readouterr().err
    assert load_key(host.path.with_name("node.key")).public == OLD.public
    assert rotate("--yes") == 0
    require_rotated(town, host)


def test_an_operators_key_is_replaced_in_the_set_first(
    town: Town, host: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    town.hand_over()
    sent = len(town.chain.sent)
    assert rotate("--yes") == 1
    said = capsys.readouterr().err
    new = load_key(host.path.with_name("node.key.next")).public
    assert f"with {new.hex()} in the place of {OLD.public.hex()}" in said
    assert (registered(town), len(town.chain.sent)) == (OLD.public, sent)


def test_an_operator_rotates_once_its_set_has(town: Town, host: Config) -> None:
    town.hand_over()
    assert rotate("--yes") == 1
    new = load_key(host.path.with_name("node.key.next")).public
    keys = (new, key("node of bob").public)
    (town.folder / "set.toml").write_text("\n".join(f'[[operators]]\nnode_key = "{each.hex()}"\n' for each in keys))
    town.run("ann", "set", "propose", "set.toml", "--out", "propose.json")
    town.run("bob", "certificate", "sign", "propose.json", "--yes")
    town.run("bob", "certificate", "submit", "propose.json")
    town.chain.advance(3 * DAY_S)
    town.run("bob", "set", "accept", "set.toml", "--out", "accept.json")
    by_hand = ["--pool", str(town.pool), "--network", str(DEVNET_GLOBAL_ID), "--liteserver", SERVER]
    signed = ["pool", "certificate", "sign", "accept.json", "--yes", "--node-key", "host/node.key.next", *by_hand]
    assert main(signed) == 0
    town.run("bob", "certificate", "submit", "accept.json", "--yes")
    assert rotate("--yes") == 0
    require_rotated(town, host)
    operators = town.state().operator_set
    assert operators is not None
    assert operators.index_of(registered(town)) == 0


def test_the_key_of_another_host_is_not_replaced(town: Town, host: Config, capsys: pytest.CaptureFixture[str]) -> None:
    write_key(host.path.with_name("node.key"), "another")
    assert rotate("--yes") == 1
    assert f"the registry names the node key {OLD.public.hex()}" in capsys.readouterr().err
    write_key(host.path.with_name("wallet.key"), "cid")
    assert rotate("--yes") == 1
    assert "is not registered" in capsys.readouterr().err


def test_nothing_is_overwritten(town: Town, host: Config, capsys: pytest.CaptureFixture[str]) -> None:
    (host.path.with_name(KEPT)).write_text("something else")
    assert rotate("--yes") == 2
    assert "cannot be moved: File exists" in capsys.readouterr().err
    assert load_key(host.path.with_name("node.key")).public == OLD.public
    (host.path.with_name(KEPT)).unlink()
    assert rotate("--yes") == 0


async def test_the_end_of_an_epoch_is_waited_for(autojump_clock: trio.abc.Clock) -> None:
    landed = [3, 3, 3, 4, 5]

    async def rewards() -> SimpleNamespace:
        return SimpleNamespace(current_epoch=5, landed=SimpleNamespace(epoch=landed.pop(0)))

    await rotating.epoch_settled(SimpleNamespace(reader=SimpleNamespace(rewards=rewards)))  # type: ignore[arg-type]
    assert landed == []
