"""The dev network's books, options, tables and processes: what does not add up is said."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from devnet_history import History, end_s, landing, settlements
from pool_fixture import POT_NANOTON
from rich.console import Console, RenderableType

from agent.devnet.credits import Credited, Credits, cheat_of
from agent.devnet.options import DevnetOptions, require_options
from agent.devnet.processes import start
from agent.devnet.report import Books, keep_books, report_table, report_value, shares
from agent.devnet.view import Frame, live_view
from agent.errors import ConfigError, OperationError
from gossip.settlement import Settlement

FEE_NANOTON = 10**9 // 5


async def kept(settled: list[Settlement]) -> Books:
    """Books of a pool in which everybody claimed everything."""
    last = settled[-1]
    rewards = await History(settled, now_s=end_s(len(settled)) + 20).rewards()
    paid = {leaf.participant.account: leaf.earned_nanoton for leaf in last.leaves}
    claimed = replace(rewards, received_nanoton=0, distributed_nanoton=sum(paid.values()), paid_nanoton=paid)
    return keep_books([landing(each) for each in settled], claimed, 5)


async def test_sound_books_have_no_faults() -> None:
    settled = settlements(2)
    books = await kept(settled)
    assert books.faults(settled) == []
    assert books.total("pot_nanoton") == 2 * POT_NANOTON
    assert books.total("pot_nanoton") - books.total("dust_nanoton") == books.earned_nanoton == books.claimed_nanoton


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"claimed_nanoton": 3}, "not everything that was earned was claimed"),
        ({"claimed_nanoton": 3}, "the claims are not the pots less dust"),
        ({"earned_nanoton": 3}, "not everything that was earned was claimed"),
        ({"liabilities_nanoton": 6}, "the rewards contract holds less than it owes"),
    ],
)
async def test_books_that_do_not_balance_are_faulty(changes: dict[str, int], expected: str) -> None:
    settled = settlements(2)
    assert expected in replace(await kept(settled), **changes).faults(settled)


@pytest.mark.parametrize("dust_nanoton", [-1, 5, POT_NANOTON])
async def test_dust_is_less_than_a_nanoton_per_participant(dust_nanoton: int) -> None:
    settled = settlements(2, n=4)
    books = await kept(settled)
    wrong = replace(books, epochs=(books.epochs[0], replace(books.epochs[1], dust_nanoton=dust_nanoton)))
    assert f"epoch 2 left {dust_nanoton} nanoTON over" in wrong.faults(settled)


async def test_report_names_how_each_settlement_landed() -> None:
    settled = settlements(1)
    rows = shares({}, settled, {})
    value = report_value(rows, await kept(settled), [landing(each) for each in settled], ["a fault"])
    assert value["ok"] is False
    (entry,) = value["settlements"]
    assert entry["payload_hash"] == settled[0].payload_hash.hex()
    assert (entry["submitter"], entry["landed_after_s"]) == ("agent-0", 9)


def drawn(what: RenderableType, width: int) -> list[str]:
    console = Console(width=width, force_terminal=False, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(what)
    return [line.rstrip() for line in capture.get().splitlines()]


async def test_report_table_fits_80_columns_whole() -> None:
    settled = settlements(2)
    books = await kept(settled)
    rows = [replace(row, name=f"agent-{i}", tokens=12_345_678) for i, row in enumerate(shares({}, settled, {}))]
    lines = drawn(report_table(rows, books), 80)
    assert not any("…" in line for line in lines)
    assert sum("12,345,678" in line for line in lines) == 4
    assert f"{books.earned_nanoton / 10**9:.9f} TON" in next(line for line in lines if line.startswith("= earned"))


def status(**changes: object) -> dict[str, object]:
    whole = {
        "peers": [{"in_roster": True, "connected": True}] * 3,
        "evidence": {"valid": True},
        "work": {"tokens": 1_234_567, "head": 17, "error": None},
        "settled": {"adopted_epoch": 1},
        "chain": {"error": None},
        "is_own_log_known": True,
        "close": None,
    }
    return whole | changes


async def frame() -> Frame:
    settled = settlements(2)
    now_s = end_s(2) + 12
    closing = {
        "epoch": 3,
        "view": 0,
        "observations": 3,
        "attested_weight": 3,
        "total_weight": 4,
        "certified": True,
    }
    long = "127.0.0.1:36773: connect call failed ('127.0.0.1', 36773) and so on and on and on"
    return Frame(
        names=[f"agent-{i}" for i in range(5)],
        statuses={
            "agent-0": status(settled={"adopted_epoch": 2}, close=closing),
            "agent-1": status(),
            "agent-2": status(chain={"error": long}, close=closing | {"epoch": 9}),
            "agent-3": status(work={"tokens": 7, "head": None, "error": long}),
        },
        down={"agent-2", "agent-4"},
        rewards=await History(settled, now_s=now_s).rewards(),
        is_chain_away=False,
        landing=landing(settled[-1]),
        now_s=now_s,
        events=[f"  12.3 s  agent-1: {long}"],
    )


@pytest.mark.parametrize("width", [80, 120])
async def test_live_view_fits_and_says_what_matters(width: int) -> None:
    lines = drawn(live_view(await frame()), width)
    row = {line.split()[0]: line.split() for line in lines if line.strip().startswith("agent-")}
    assert row["agent-0"] == ["agent-0", "3/3", "valid", "1,234,567", "17", "2", "0", "s", "taking", "part"]
    assert row["agent-1"][6:8] == ["3", "s"], "behind since the settlement landed"
    assert row["agent-2"] == ["agent-2", "-", "-", "1,234,567", "17", "1", "-", "down"]
    assert row["agent-3"][-2:] == ["engine", "away"]
    assert row["agent-4"][-1] == "starting"
    text = "\n".join(lines)
    assert "observations 3 of 5" in text
    assert "3 of 4, quorum 3  certificate" in text
    assert "epoch 9" not in text, "an agent that is down closes nothing"
    assert "tx 66666666 by agent-0" in text
    assert sum("connect call failed" in line for line in lines) == 1, "the table has no room for it"


async def test_live_view_shows_a_chain_that_is_away() -> None:
    whole = await frame()
    lines = drawn(live_view(replace(whole, down=frozenset(), landing=None, is_chain_away=True)), 80)
    assert lines[0] == "chain away, last seen in epoch 3"
    assert any(line.startswith(" agent-2") and line.endswith("chain away") for line in lines)
    assert "nothing is settled yet" in lines


async def test_live_view_shows_what_was_credited() -> None:
    rows = (
        Credited(name="agent-0", claimed=1_000, vouched=900, credited=900, share=0.5),
        Credited(name="agent-1", claimed=10_000, vouched=900, credited=900, share=0.5),
    )
    found = Credits(rows=rows, vouched_by="paid on chain", cheat=cheat_of("inflate", rows, {"agent-1"}))
    lines = drawn(live_view(replace(await frame(), credits=found)), 80)
    assert any(line.split() == ["agent-1", "10,000", "900", "900", "50.0%"] for line in lines)
    assert "claimed 10,000, credited 900, share 50.0%: 100 % of an honest share" in lines
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"agents": 0}, "--agents"),
        ({"agents": 26}, "--agents"),
        ({"epochs": 0}, "--epochs"),
        ({"epoch_s": -3}, "--epoch-seconds"),
        ({"rate": -1.0}, "--rate"),
        ({"rate": float("nan")}, "--rate"),
        ({"rate": float("inf")}, "--rate"),
        ({"engine_url": "foo"}, "--engine foo: expected a URL like"),
        ({"engine_url": "http://127.0.0.1:0/metrics"}, "--engine http"),
        ({"chaos": "kill", "agents": 3}, "at least 4 agents"),
        ({"chaos": "restart", "epochs": 1}, "--epochs 2"),
        ({"directory": Path(__file__)}, "cannot be used as a folder"),
        ({"directory": Path(__file__).parent}, "not empty"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        require_options(DevnetOptions(**options))


def test_a_new_and_an_empty_folder_will_do(tmp_path: Path) -> None:
    require_options(DevnetOptions(directory=tmp_path))
    require_options(DevnetOptions(directory=tmp_path / "new" / "er", rate=0.0))
    assert list(tmp_path.iterdir()) == []  # looked at, not made


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX processes")
@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("import sys; sys.exit('no such key')", "no such key"),
        ("import sys; print('half a', end='')", "did not start"),
        ("print('not json')", "not a JSON object"),
        ("print('[]')", "not a JSON object"),
    ],
)
async def test_a_child_that_does_not_become_ready_is_named(tmp_path: Path, program: str, expected: str) -> None:
    child = await start("chain", ["-c", program], tmp_path / "chain.log", reads_ready=True)
    with pytest.raises(OperationError, match=f"chain.*{expected}"):
        await child.read_ready()
    await child.stop()
    assert child.code is not None


async def test_a_child_says_when_it_is_ready(tmp_path: Path) -> None:
    program = "import json, time; print(json.dumps({'port': 5}), flush=True); time.sleep(60)"
    child = await start("engine", ["-c", program], tmp_path / "engine.log", reads_ready=True)
    assert await child.read_ready() == {"port": 5}
    assert child.code is None
    await child.stop()
    assert child.code == -15
