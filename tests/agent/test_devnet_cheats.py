"""The dev network's sources, cheats and policy levels: what is refused, what is demanded, how stand-ins lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cocoon_stage import address, client_of, earnings, owed, proxy_key, source_of
from devnet_history import seats
from rich.console import Console, RenderableType
from trio.testing import MockClock

from agent.command_line import build_parser
from agent.devnet.cheats import CHEATS, HELD_BACK_S, LEVELS, cheating, is_stopped
from agent.devnet.cocoon_model import WorkerModel
from agent.devnet.cocoon_worker import WorkerServer
from agent.devnet.credits import Crediting, Credits, credits_view
from agent.devnet.layout import Tables, prepare_seats, write_policy
from agent.devnet.options import DevnetOptions, require_options
from agent.devnet.proxy import CocoonWorks
from agent.devnet.report import Share
from agent.devnet.works import EngineWorks, Works, load_arguments
from agent.errors import ConfigError
from agent.meter.cocoon import ADJUSTED_TOKENS
from gossip.policy import PoolPolicy, parse_policy


def works_of(directory: Path, **options: Any) -> Works:
    chosen = DevnetOptions(**options)
    require_options(chosen)
    works = CocoonWorks if chosen.source == "cocoon" else EngineWorks
    return works(chosen, directory, lambda text: None)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"cheat": "inflate", "agents": 1}, "needs at least 2 agents: somebody has to be honest"),
        ({"cheat": "clone", "agents": 2}, "needs at least 3 agents"),
        ({"cheat": "uptime", "agents": 3}, "needs at least 4 agents: two of three are no quorum"),
        ({"cheat": "idle", "chaos": "kill"}, "--chaos"),
        ({"cheat": "idle", "engine_url": "http://127.0.0.1:8000/metrics"}, "--engine"),
        ({"cheat": "forge", "source": "cocoon"}, "--cheat forge: needs --source engine"),
        ({"source": "cocoon", "receipts": True}, "--receipts: is for --source engine"),
        ({"source": "cocoon", "engine_url": "http://127.0.0.1:8000/metrics"}, "--engine: is for --source engine"),
        ({"source": "cocoon", "epochs": 1}, "needs --epochs 2 and --epoch-seconds 20"),
        ({"source": "cocoon", "epoch_s": 19}, "needs --epochs 2 and --epoch-seconds 20"),
        ({"source": "cocoon", "agents": 9, "epoch_s": 39}, "--epoch-seconds 40"),
        ({"receipts": True, "engine_url": "http://127.0.0.1:8000/metrics"}, "not together with receipts"),
        ({"policy_level": "receipted", "engine_url": "http://127.0.0.1:8000/metrics"}, "not together with receipts"),
    ],
)
def test_what_would_show_nothing_is_refused(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        require_options(DevnetOptions(**options))


@pytest.mark.parametrize("strategy", CHEATS)
def test_every_cheat_is_told_and_possible_with_four_agents(strategy: str) -> None:
    options = build_parser().parse_args(["devnet", "--cheat", strategy])
    assert options.cheat == strategy
    require_options(DevnetOptions(cheat=strategy))
    assert f"\n  {strategy:<10} {CHEATS[strategy]}" in options.parser.format_help()
    assert len(f"  {strategy:<10} {CHEATS[strategy]}") <= 120


@pytest.mark.parametrize("level", [None, *LEVELS])
@pytest.mark.parametrize("source", ["engine", "cocoon"])
@pytest.mark.parametrize("receipts", [False, True])
def test_what_is_demanded_is_a_policy(tmp_path: Path, source: str, level: str | None, receipts: bool) -> None:
    if source == "cocoon" and receipts:
        with pytest.raises(ConfigError):
            works_of(tmp_path, source=source, receipts=receipts)
        return
    works = works_of(tmp_path, source=source, policy_level=level, receipts=receipts)
    policy = parse_policy(write_policy(tmp_path / "policy.toml", 25, 4, works.demands))
    assert (policy.work.source, policy.work.token_units) == ((source, (3,)) if source == "cocoon" else (source, (1, 2)))
    assert policy.receipts.ceiling == ceiling_of(source, level, receipts)
    assert policy.work.machine_nodes_max == (4 if level == "open" else 1)
    assert (policy.work.tokens_per_s_max < 100_000) == (level == "capped")


def ceiling_of(source: str, level: str | None, receipts: bool) -> str:
    if level in ("open", "capped"):
        return "none"
    if source == "cocoon":
        return "worker-contract"
    return "receipts" if receipts or level == "receipted" else "none"


def capped(directory: Path, **options: Any) -> PoolPolicy:
    works = works_of(directory, policy_level="capped", **options)
    return parse_policy(write_policy(directory / "policy.toml", 25, 4, works.demands))


def test_the_cap_is_a_quarter_above_the_fastest_honest_load(tmp_path: Path) -> None:
    """132 tokens of a prompt and 52.5 of an answer on average, 4 times a second."""
    (tmp_path / "a").mkdir()
    assert capped(tmp_path, cheat="inflate").work.tokens_per_s_max == 923  # 4 x 184.5 x 1.25 = 922.5
    assert capped(tmp_path / "a").work.tokens_per_s_max == 2307  # the fourth has 2.5 times as much


def test_loads_are_equal_where_somebody_cheats() -> None:
    places = seats(4)
    usual = [load_arguments(DevnetOptions(), seat) for seat in places]
    assert [load[-1] for load in usual] == ["4.0", "6.0", "8.0", "10.0"]
    lying = [load_arguments(DevnetOptions(cheat="inflate"), seat) for seat in places]
    assert lying == [["--seed", "1000", "--rate", "4.0"]] * 3 + [
        ["--seed", "1000", "--rate", "4.0", "--inflation", "10"]
    ]
    split = [load_arguments(DevnetOptions(cheat="sybil"), seat) for seat in places]
    assert [load[-1] for load in split] == ["4.0", "4.0", "2.0", "2.0"]
    assert load_arguments(DevnetOptions(cheat="idle"), places[3])[-1] == "--idle"


def test_the_last_two_share_a_machine(tmp_path: Path) -> None:
    own = prepare_seats(tmp_path, 3, 1_800_000_000, are_last_on_one_machine=True)
    assert [seat.machine for seat in own] == ["platform", "platform", "../agent-1/platform"]
    assert (own[2].directory / own[2].machine / "pck.key").exists()
    ports = [port for seat in own for port in (seat.p2p_port, seat.web_port, seat.receipts_port)]
    assert len(set(ports)) == 9


@pytest.mark.parametrize(
    ("strategy", "into_s", "epoch", "expected"),
    [
        ("uptime", 4.9, 2, False),
        ("uptime", 5, 2, True),
        ("uptime", 14.9, 2, True),
        ("uptime", 15, 2, False),
        ("uptime", 30, 2, False),
        ("withhold", 11.9, 1, False),
        ("withhold", 12, 1, True),
        ("withhold", 23, 1, True),
        ("withhold", HELD_BACK_S - 1, 2, True),
        ("withhold", HELD_BACK_S, 2, False),
        ("withhold", 0, 1, False),
        ("withhold", 5, 3, True),
        ("withhold", 12, 3, False),
        ("withhold", 5, 4, False),
        ("uptime", 10, 3, False),
    ],
)
def test_when_an_agent_is_stopped(strategy: str, into_s: float, epoch: int, expected: bool) -> None:
    assert is_stopped(strategy, into_s=into_s, epoch_s=20, epoch=epoch, last_epoch=2) is expected


def test_who_cheats() -> None:
    assert list(cheating(None, 4)) == []
    assert list(cheating("idle", 4)) == [3]
    assert list(cheating("sybil", 4)) == [2, 3]


# Workers that lie.


async def test_an_inflating_worker_is_owed_what_it_served(autojump_clock: MockClock) -> None:
    books = earnings(0)
    model = WorkerModel(1, address("owner"), [books], inflation=10)
    async with client_of(WorkerServer(model)) as client:
        await model.serve(100, 50)
        model.flush()
        counted = (await source_of(client).sample()).counters.series[ADJUSTED_TOKENS]
        (proxy,) = (await owed(client))["proxies"]
    assert proxy["owed_tokens"] * 10 == counted > 0


async def test_an_idle_worker_is_owed_nothing(autojump_clock: MockClock) -> None:
    model = WorkerModel(1, address("owner"), [earnings(0)], is_idle=True)
    async with client_of(WorkerServer(model)) as client:
        await model.serve(100, 50)
        model.flush()
        counted = (await source_of(client).sample()).counters.series[ADJUSTED_TOKENS]
        (proxy,) = (await owed(client))["proxies"]
    assert counted > 0
    assert proxy["owed_tokens"] == 0
    assert proxy["proxy_public_key"] == proxy_key(0).public.hex()


async def test_a_worker_that_waits_begins_when_it_is_told() -> None:
    server = WorkerServer(WorkerModel(1, address("owner"), [earnings(0)]))
    assert not server.begun.is_set()
    async with client_of(server) as client:
        assert (await client.post("http://worker/devnet/begin")).status_code == 200
    assert server.begun.is_set()


# What came of it.


def share(i: int, tokens: int, part: float) -> Share:
    return Share(
        name=f"agent-{i}",
        address=f"0:{i}",
        tokens=tokens,
        uptime_s=40,
        score=10**9,
        share=part,
        earned_nanoton=int(part * 10**9),
        claimed_nanoton=int(part * 10**9),
    )


def status(tokens: int) -> dict[str, Any]:
    return {"work": {"tokens": tokens}}


def credited(directory: Path, strategy: str | None, **options: Any) -> Credits:
    """Three agents of which the last claims ten times what it is credited."""
    works = works_of(directory, cheat=strategy, agents=3, **options)
    rows = [share(0, 1000, 0.4), share(1, 1200, 0.4), share(2, 1100, 0.2)]
    statuses = {"agent-0": status(1050), "agent-2": status(11_000)}
    return Crediting(seats(3), works, strategy).so_far(rows, statuses)


def test_a_cheat_is_held_against_an_honest_share(tmp_path: Path) -> None:
    cheat = credited(tmp_path, "inflate").cheat
    assert cheat is not None
    assert (cheat.agents, cheat.claimed, cheat.credited) == (("agent-2",), 11_000, 1100)
    assert cheat.percent == pytest.approx(50)


def test_two_agents_of_one_cheat_are_taken_together(tmp_path: Path) -> None:
    cheat = credited(tmp_path, "clone").cheat
    assert cheat is not None
    assert (cheat.agents, cheat.credited) == (("agent-1", "agent-2"), 2300)
    assert cheat.percent == pytest.approx(150)
    assert cheat.claimed is None, "one of the two has not said"


def test_before_anything_is_settled_nobody_has_a_share(tmp_path: Path) -> None:
    works = works_of(tmp_path, cheat="inflate")
    cheat = Crediting(seats(4), works, "inflate").so_far([], {}).cheat
    assert cheat is not None
    assert (cheat.claimed, cheat.credited, cheat.percent) == (None, 0, None)


def drawn(what: RenderableType, width: int = 80) -> str:
    console = Console(width=width, force_terminal=False, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(what)
    return capture.get()


def test_the_table_names_the_cheat_within_80_columns(tmp_path: Path) -> None:
    text = drawn(credits_view(credited(tmp_path, "inflate", receipts=True)))
    assert "receipted" in text
    assert "agent-2: inflate: its engine reports ten times its tokens" in text
    assert "claimed 11,000, credited 1,100, share 20.0%: 50 % of an honest share" in text
    assert "…" not in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_the_table_of_honest_agents_shows_who_vouches(tmp_path: Path) -> None:
    found = credited(tmp_path, None, receipts=True)
    assert found.cheat is None
    assert found.value()["rows"][1] == {
        "name": "agent-1",
        "claimed": None,
        "vouched": None,
        "credited": 1200,
        "share": 0.4,
    }


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ({"agent-0": 500, "agent-1": 700}, []),
        ({"agent-0": 499}, ["agent-0 was credited 499 tokens, and paid 500 on chain"]),
        ({"agent-2": 0}, ["agent-2 was paid nothing on chain: the epochs are too short for that here"]),
    ],
)
def test_tokens_credited_are_tokens_paid_or_it_is_a_fault(
    tmp_path: Path, tokens: dict[str, int], expected: list[str]
) -> None:
    works = works_of(tmp_path, source="cocoon")
    assert isinstance(works, CocoonWorks)
    works.vouched |= {"agent-0": 500, "agent-1": 700}
    assert works.faults(tokens) == expected


def test_more_tokens_than_receipts_are_a_fault(tmp_path: Path) -> None:
    assert works_of(tmp_path, receipts=True).faults({"agent-0": 1}) == [
        "agent-0 was credited 1 tokens, more than the 0 of its receipts"
    ]


def test_without_a_ceiling_nothing_has_to_agree(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert works_of(tmp_path, source="cocoon", policy_level="open").faults({"agent-0": 1}) == []
    assert works_of(tmp_path / "a").faults({"agent-0": 1}) == []


def test_demands_change_keys_and_nothing_else(tmp_path: Path) -> None:
    demands: Tables = {"work": {"machine_nodes_max": 3}}
    usual, changed = (parse_policy(write_policy(tmp_path / "p", 25, 4, each)) for each in (None, demands))
    assert (usual.work.machine_nodes_max, changed.work.machine_nodes_max) == (1, 3)
    assert usual.work.token_units == changed.work.token_units
    assert usual.receipts == changed.receipts
