"""What `gpupool score simulate` does: which settlement, which strategies, and how the outcome is said."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from agent import arguments
from agent.config import Config, load_config
from agent.errors import ConfigError, KeyFileError, OperationError
from agent.identity import load_key
from agent.output import answer, note
from agent.plotting import save_bars
from agent.policies import load_policies
from agent.score import simulating
from agent.score.simulating import STRATEGIES, Row, Simulation
from agent.screens import aligned, ton_exact
from agent.settlements import reading_settlements
from contracts.model import NANO, Address
from contracts.wallet import wallet_address
from gossip.policy import Score
from gossip.settlement import Base, Settlement

ROWS_SHOWN = 40
"""Participants in the table; `--json` has all."""
BARS_SHOWN = 16
"""Participants in the plot."""
_SETTLED = "settled"
_NAME_SHOWN = 10


def simulate(options: argparse.Namespace) -> int:
    """Show, and plot, what each strategy would have paid."""
    pot = None if options.pot is None else arguments.parse_ton("--pot", options.pot)
    if options.epoch_seconds is not None and options.epoch_seconds < 1:
        raise ConfigError(f"--epoch-seconds {options.epoch_seconds}: expected at least 1")
    chosen = [name for name in STRATEGIES if not options.strategy or name in options.strategy]
    config = load_config(options.config)
    settlement, before = _settlement(config, options.epoch)
    in_force = _in_force(config, settlement.payload.policy_hash)
    strategies = {name: in_force.get(name, STRATEGIES[name]) for name in chosen}
    found = simulating.simulate(settlement, before, strategies, pot_nanoton=pot, epoch_s=options.epoch_seconds)
    if options.plot is not None:
        _plot(options, found)
        note(f"wrote {options.plot}")
    own = _own(config)
    return answer(options, _value(found, strategies, in_force, own), _text(found, strategies, in_force, own))


def _settlement(config: Config, epoch: int | None) -> tuple[Settlement, Base]:
    """The epoch's settlement, by default the last one's, and the base on which it was counted."""
    with reading_settlements(config) as settled:
        if epoch is None:
            kept = settled.epochs()
            if not kept:
                raise OperationError(f"{settled.path}: no epoch has settled yet")
            epoch = kept[-1]
        settlement = settled.settlement(epoch)
        return settlement, settled.before(settlement)


def _own(config: Config) -> Address | None:
    """This agent's participant; None where its wallet key is not at hand, which this command can do without."""
    try:
        key = load_key(config.resolve(config.wallet.key_file))
    except KeyFileError:
        return None
    return wallet_address(key.public, config.wallet.version, global_id=config.pool.global_id)


def _in_force(config: Config, policy_hash: bytes) -> Mapping[str, Score]:
    """The strategy by which the epoch was settled, by name; none if its policy is not held here any more."""
    policy = load_policies(config).get(policy_hash)
    return {} if policy is None else {str(policy.score.__struct_config__.tag): policy.score}


def _plot(options: argparse.Namespace, found: Simulation) -> None:
    rows = found.rows[:BARS_SHOWN]
    if not rows:
        raise OperationError(f"nobody has a part in epoch {found.epoch}: there is nothing to draw")
    series = {_SETTLED: [row.settled_nanoton / NANO for row in rows]}
    for name in rows[0].amounts_nanoton:
        series[name] = [row.amounts_nanoton[name] / NANO for row in rows]
    more = f" (the {len(rows)} largest of {len(found.rows)})" if len(found.rows) > len(rows) else ""
    save_bars(
        options.plot,
        title=f"Epoch {found.epoch}: what each strategy would have paid{more}",
        unit="TON",
        labels=[str(row.participant)[:_NAME_SHOWN] for row in rows],
        series=series,
    )


def _value(
    found: Simulation, strategies: Mapping[str, Score], in_force: Mapping[str, Score], own: Address | None
) -> dict[str, Any]:
    return {
        "epoch": found.epoch,
        "pot_nanoton": found.pot_nanoton,
        "epoch_s": found.epoch_s,
        "in_force": next(iter(in_force), None),
        "strategies": {name: _parameters(strategy) for name, strategy in strategies.items()},
        "participants": [
            {
                "participant": str(row.participant),
                "is_own": row.participant == own,
                "tokens": row.leaf.tokens,
                "uptime_s": row.leaf.uptime_s,
                "tasks": row.leaf.tasks,
                "quality": row.leaf.quality,
                "reliability": row.reliability,
                "reputation": row.leaf.reputation,
                "settled_nanoton": row.settled_nanoton,
                "amounts_nanoton": dict(row.amounts_nanoton),
            }
            for row in found.rows
        ],
    }


def _text(
    found: Simulation, strategies: Mapping[str, Score], in_force: Mapping[str, Score], own: Address | None
) -> str:
    shown = [
        _cells(str(row.participant)[:_NAME_SHOWN] + "*" * (row.participant == own), row) for row in _rows(found, own)
    ]
    sums = [sum(row.settled_nanoton for row in found.rows)]
    sums += [sum(row.amounts_nanoton[name] for row in found.rows) for name in strategies]
    table = [["participant", _SETTLED, *strategies], *shown, ["all", *map(_amount, sums)]]
    lines = [f"epoch {found.epoch}: {ton_exact(found.pot_nanoton)} among {len(found.rows)} participants, in TON"]
    lines += aligned(table, left=1)
    if len(found.rows) > len(shown):
        lines.append(f"and {len(found.rows) - len(shown)} more, who were paid less (--json has all)")
    named = next(iter(in_force), None)
    lines.append(
        f"in force: {named}" if named else "in force: not known, the policy of that epoch is not held here any more"
    )
    lines.append(f"reliability: not in a settlement; taken as uptime of {found.epoch_s:,} s, which it is at least")
    return "\n".join(lines)


def _rows(found: Simulation, own: Address | None) -> list[Row]:
    """Those that are shown: the first ones, and this agent's wherever it stands."""
    return [row for i, row in enumerate(found.rows) if i < ROWS_SHOWN or row.participant == own]


def _cells(name: str, row: Row) -> list[str]:
    return [name, _amount(row.settled_nanoton), *map(_amount, row.amounts_nanoton.values())]


def _amount(nanoton: int) -> str:
    return f"{nanoton / NANO:,.3f}"


def _parameters(strategy: Score) -> dict[str, int]:
    return {name: getattr(strategy, name) for name in strategy.__struct_fields__}
