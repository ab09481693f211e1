"""What --dry-run forecasts is what happens then, but for the rent of the blocks between; and it says it in words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from emulated_chain import wallet_of
from pool_town import EPOCH_S, Town, open_town

from contracts.model import DAY_S, Address

ANN = str(wallet_of("ann"))


@pytest.fixture
def town(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Town]:
    with open_town(tmp_path, monkeypatch, capsys) as town:
        yield town


def ready(town: Town) -> None:
    town.deploy()
    town.register("ann", "bob")
    town.run("bob", "pay", "30")


def params(town: Town) -> None:
    (town.folder / "params.toml").write_text("fee_bps = 700\n")


def proposed(town: Town) -> None:
    params(town)
    town.run("owner", "params", "propose", "params.toml")
    town.chain.advance(3 * DAY_S)


def asked_back(town: Town) -> None:
    town.run("ann", "withdraw", "request", "all")
    town.chain.advance(7 * DAY_S)


def certified(town: Town) -> None:
    town.hand_over()
    town.run("ann", "slash", ANN, "--reason", "fork", "--out", "slash.json")
    town.run("bob", "certificate", "sign", "slash.json", "--yes")


def nothing(_town: Town) -> None:
    pass


def over(town: Town) -> None:
    town.chain.advance(EPOCH_S)


def with_fees(town: Town) -> None:
    over(town)
    town.run("bob", "finalize")


@pytest.mark.parametrize(
    ("name", "arguments", "prepare"),
    [
        ("cid", ["register", "--stake", "123.456789"], nothing),
        ("ann", ["stake", "add", "7.25"], nothing),
        ("ann", ["withdraw", "request", "all"], nothing),
        ("bob", ["withdraw", "complete", "--participant", ANN], asked_back),
        ("bob", ["pay", "12.5"], nothing),
        ("bob", ["finalize"], over),
        ("owner", ["slash", ANN, "--reason", "malice", "--amount", "3"], nothing),
        ("owner", ["fees-to", str(wallet_of("dan")), "0.1", "--yes"], with_fees),
        ("owner", ["params", "propose", "params.toml"], params),
        ("ann", ["params", "apply"], proposed),
        ("owner", ["hand-over", "--operators", "2", "--yes"], nothing),
        ("bob", ["certificate", "submit", "slash.json", "--yes"], certified),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_the_forecast_comes_true(town: Town, name: str, arguments: list[str], prepare: Callable[[Town], None]) -> None:
    ready(town)
    prepare(town)
    forecast = town.run(name, *arguments, "--dry-run")
    assert forecast["refusal"] is None
    changes = {Address.parse(each["address"]): each["change_nanoton"] for each in forecast["balances"]}
    state = town.state()
    looked_at = [*changes, state.registry, state.rewards, town.pool, *map(wallet_of, ("ann", "bob", "dan"))]
    before = {address: town.balance(address) for address in looked_at}
    town.run(name, *arguments)
    for address in looked_at:
        change = town.balance(address) - before[address]
        # Blocks that pass in between cost some nanoTON of rent.
        assert abs(change - changes.get(address, 0)) <= 20, address
    assert forecast["fees_nanoton"] == -sum(changes.values())


def test_numbers_that_have_a_name_are_told_by_it(town: Town) -> None:
    ready(town)
    params(town)
    _, said, _ = town.try_("owner", "params", "propose", "params.toml", "--dry-run")
    assert "event proposed: kind propose_params, " in said
    assert "not_before_s 18" in said
    assert " UTC)" in said
    _, said, _ = town.try_("owner", "slash", ANN, "--reason", "malice", "--dry-run")
    assert "reason malice" in said
    code, said, _ = town.try_("owner", "pause", "--dry-run", "--json")
    (event,) = [event for each in json.loads(said)["transactions"] for event in each["events"]]
    assert (code, event) == (0, {"event": "pool_paused", "values": {"until_s": None}})
