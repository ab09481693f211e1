"""Plays every way to cheat under every level, and the tables of `docs/cheating.md`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from pool_fixture import START_S

from gossip.policy import PoolPolicy
from tests.cheating.strategies import CHEATS, WINDOWS, Cheat, Play
from tests.cheating.world import EPOCH_S, LEVELS, OPERATORS, STRATEGIES, WINDOW_S, Stretch, World, level_policy

DOCUMENT = Path(__file__).parents[2] / "docs" / "cheating.md"


def gain_per_cent(cheat: Cheat, level: str, strategy: str = "weighted") -> int:
    """What the cheater earned, in per cent of what the same owner earns with the truth."""
    honest = cheat.honest()
    honest_income = _income(honest.play, tuple(honest.nodes), tuple(honest.pots_ton), level, strategy)
    return round(100 * play(cheat, level_policy(level, strategy)).income() / honest_income)


@cache
def _income(
    honest_play: Play, nodes: tuple[tuple[bytes, bytes], ...], pots_ton: tuple[int, ...], level: str, strategy: str
) -> int:
    truth = Cheat(text="", play=honest_play, nodes=nodes, pots_ton=pots_ton)
    return play(truth, level_policy(level, strategy)).income()


def play(cheat: Cheat, policy: PoolPolicy) -> World:
    """Let the pool live through an honest epoch and then through the cheat's."""
    world = World(policy, cheat.made())
    for node in world.nodes:
        world.prove(node, START_S - 1000)
    truth = _truth(1)
    for node in world.nodes:
        for stretch in truth:
            world.record(node, stretch)
    world.settle(1, cheat.pots_ton[0])
    world.begin()
    kept: list[Stretch] = []
    for epoch, pot_ton in enumerate(cheat.pots_ton, 2):
        truth = _truth(epoch)
        for node in world.nodes[:OPERATORS]:
            for stretch in truth:
                world.record(node, stretch)
        told = [cheat.play(stretch, number) for number, stretch in enumerate(truth)]
        if cheat.holds_back and epoch % 2 == 0:
            kept = told
            for node in world.cheaters:
                node.witnessed_s += WINDOW_S * len(told)  # operators' probes reach it all the same
        else:
            for node in world.cheaters:
                node.witnessed_s -= WINDOW_S * len(kept)  # which `record` will count now
                for stretch in (*kept, *told):
                    world.record(node, stretch, cheat.forger)
                    if cheat.replays:
                        world.replay(node)
            kept = []
        world.settle(epoch, pot_ton, cheat.liars)
    return world


def _truth(epoch: int) -> list[Stretch]:
    began_s = START_S + EPOCH_S * (epoch - 1)
    return [Stretch(start_s=began_s + WINDOW_S * number) for number in range(WINDOWS)]


@cache
def gains() -> Mapping[str, Mapping[str, int]]:
    """Cheat -> level -> per cent of an honest share, under the default score strategy."""
    return {name: {level: gain_per_cent(cheat, level) for level in LEVELS} for name, cheat in CHEATS.items()}


@cache
def gains_by_strategy(level: str = "receipted") -> Mapping[str, Mapping[str, int]]:
    """Cheat -> score strategy -> per cent of an honest share, under one level."""
    return {
        name: {strategy: gain_per_cent(cheat, level, strategy) for strategy in STRATEGIES}
        for name, cheat in CHEATS.items()
    }


def table(found: Mapping[str, Mapping[str, int]], *, says_what: bool = True) -> str:
    """A table in Markdown, a row per cheat."""
    columns: Sequence[str] = list(next(iter(found.values())))
    what = ["what it does"] if says_what else []
    rows = [["cheat", *what, *columns], ["---", *("---" for _ in what), *("---:" for _ in columns)]]
    for name, by_column in found.items():
        text = [CHEATS[name].text] if says_what else []
        rows.append([name, *text, *(str(by_column[column]) for column in columns)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def page(text: str) -> str:
    """The document with its tables as they are now."""
    parts = {"levels": table(gains()), "strategies": table(gains_by_strategy(), says_what=False)}
    for name, content in parts.items():
        text = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)",
            lambda found, content=content: f"{found[1]}\n{content}\n\n{found[2]}",
            text,
            flags=re.DOTALL,
        )
    return text
