"""The dev network's live view: agents and the epoch's close, drawn from the agents' own statuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from contracts.model import NANO, RewardsState

BAR_WIDTH = 24
EVENTS_SHOWN = 10


def live_view(
    names: Sequence[str],
    statuses: Mapping[str, dict[str, Any] | None],
    rewards: RewardsState | None,
    now_s: int,
    events: Sequence[str],
) -> RenderableType:
    """One frame. A status is None while its agent does not answer."""
    return Group(_chain_line(rewards, now_s), _agents(names, statuses), _close(statuses), _events(events))


def _chain_line(rewards: RewardsState | None, now_s: int) -> RenderableType:
    if rewards is None:
        return Text("chain: waiting")
    left_s = max(0, rewards.current_end_s - now_s)
    landed = rewards.landed
    return Text.assemble(
        ("epoch ", "dim"),
        (str(rewards.current_epoch), "bold"),
        (f" ends in {left_s} s, pot so far {rewards.received_nanoton / NANO:.3f} TON   ", "dim"),
        ("settled ", "dim"),
        (str(landed.epoch), "bold green"),
        (f" root {landed.totals_root.hex()[:12]}" if landed.epoch else "", "dim"),
    )


def _agents(names: Sequence[str], statuses: Mapping[str, dict[str, Any] | None]) -> Table:
    table = Table(expand=False)
    for column in ("agent", "peers", "evidence", "tokens", "log head", "settled", "lag", "state"):
        table.add_column(column, justify="left" if column in ("agent", "evidence", "state") else "right")
    newest = max(((s or {}).get("settled") or {}).get("adopted_epoch", 0) for s in statuses.values()) if statuses else 0
    for name in names:
        status = statuses.get(name)
        if status is None:
            table.add_row(name, "-", "-", "-", "-", "-", "-", Text("down", "red"))
            continue
        peers = [peer for peer in status["peers"] if peer["in_roster"]]
        evidence = status["evidence"]
        adopted = (status["settled"] or {}).get("adopted_epoch", 0)
        error = (status["chain"] or {}).get("error") or status["work"]["error"]
        ready = status["is_own_log_known"] and not error
        table.add_row(
            name,
            f"{sum(peer['connected'] for peer in peers)}/{len(peers)}",
            Text("valid", "green") if evidence and evidence["valid"] else Text("none", "yellow"),
            f"{status['work']['tokens']:,}",
            str(status["work"]["head"]),
            str(adopted),
            str(newest - adopted),
            Text("taking part", "green") if ready else Text(error or "starting", "yellow"),
        )
    return table


def _close(statuses: Mapping[str, dict[str, Any] | None]) -> RenderableType:
    closes = [status["close"] for status in statuses.values() if status and status["close"]]
    if not closes:
        return Text("no epoch is closing", "dim")
    best = max(closes, key=lambda close: (close["epoch"], close["attested_weight"], close["observations"]))
    total = best["total_weight"]
    quorum = 2 * total // 3 + 1
    filled = BAR_WIDTH * best["attested_weight"] // total
    reached = best["attested_weight"] >= quorum
    return Text.assemble(
        (f"closing epoch {best['epoch']}  ", "bold"),
        f"view {'-' if best['view'] is None else best['view']}  observations {best['observations']}  attested ",
        ("█" * filled, "green" if reached else "yellow"),
        ("░" * (BAR_WIDTH - filled), "dim"),
        f" {best['attested_weight']}/{total} (quorum {quorum})",
        ("  certificate" if best["certified"] else "", "bold green"),
    )


def _events(events: Sequence[str]) -> RenderableType:
    return Text("\n".join(events[-EVENTS_SHOWN:]), "dim")
