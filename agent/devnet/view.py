"""The dev network's live view: agents and the epoch's close, drawn from the agents' own statuses.

Every line fits 80 columns for a pool of 25 agents; what is longer than a word is told as an event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from agent.devnet.credits import Credits, credits_view
from agent.devnet.onlooker import Landing
from contracts.model import NANO, RewardsState

BAR_WIDTH = 24
EVENTS_SHOWN = 10
_HASH_SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What one frame shows. `statuses` holds each agent's last answer; `down` those that do not answer now."""

    names: Sequence[str]
    statuses: Mapping[str, dict[str, Any]]
    down: AbstractSet[str]
    rewards: RewardsState | None
    """As last seen."""
    is_chain_away: bool
    landing: Landing | None
    """The last settlement."""
    now_s: int
    events: Sequence[str]
    credits: Credits | None = None
    """What was credited so far, if there is more to see of it than tokens."""


def live_view(frame: Frame) -> RenderableType:
    """Draw one frame."""
    credited = [] if frame.credits is None else [credits_view(frame.credits)]
    parts = [_chain_line(frame), _landing_line(frame.landing), _agents(frame), *credited, _close(frame)]
    return Group(*parts, _events(frame.events))


def _chain_line(frame: Frame) -> RenderableType:
    rewards = frame.rewards
    if rewards is None:
        return Text("chain: waiting")
    if frame.is_chain_away:
        return Text(f"chain away, last seen in epoch {rewards.current_epoch}", "yellow")
    left_s = max(0, rewards.current_end_s - frame.now_s)
    return Text.assemble(
        ("epoch ", "dim"),
        (str(rewards.current_epoch), "bold"),
        (f" ends in {left_s} s, pot so far {rewards.received_nanoton / NANO:.3f} TON", "dim"),
    )


def _landing_line(landing: Landing | None) -> RenderableType:
    if landing is None:
        return Text("nothing is settled yet", "dim")
    payload = landing.settlement.payload
    transaction = _short(landing.transaction) if landing.transaction is not None else "unknown"
    return Text.assemble(
        ("settled ", "dim"),
        (str(payload.epoch), "bold green"),
        (f" in {landing.after_s} s: root ", "dim"),
        _short(payload.totals_root),
        (" certificate ", "dim"),
        _short(landing.certificate),
        (" tx ", "dim"),
        transaction,
        (" by ", "dim"),
        (landing.submitter or "unknown")[: _HASH_SHOWN + 2],
    )


def _agents(frame: Frame) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("agent", "peers", "evidence", "tokens", "log", "settled", "behind", "state"):
        table.add_column(column, justify="left" if column in ("agent", "evidence", "state") else "right", no_wrap=True)
    for name in frame.names:
        status = frame.statuses.get(name)
        if status is None:
            table.add_row(name, "-", "-", "-", "-", "-", "-", Text("starting", "yellow"))
            continue
        work = status["work"]
        tokens, head = f"{work['tokens']:,}", "-" if work["head"] is None else str(work["head"])
        adopted = (status["settled"] or {}).get("adopted_epoch", 0)
        if name in frame.down:
            table.add_row(name, "-", "-", tokens, head, str(adopted), "-", Text("down", "red"))
            continue
        peers = [peer for peer in status["peers"] if peer["in_roster"]]
        evidence = status["evidence"]
        table.add_row(
            name,
            f"{sum(peer['connected'] for peer in peers)}/{len(peers)}",
            Text("valid", "green") if evidence and evidence["valid"] else Text("none", "yellow"),
            tokens,
            head,
            str(adopted),
            _behind(adopted, frame),
            _state(status),
        )
    return table


def _behind(adopted_epoch: int, frame: Frame) -> str:
    """For how long the chain has shown a settlement that the agent has not adopted."""
    landed = frame.rewards.landed if frame.rewards is not None else None
    if landed is None or adopted_epoch >= landed.epoch:
        return "0 s"
    return f"{max(0, frame.now_s - landed.settled_s)} s"


def _state(status: Mapping[str, Any]) -> Text:
    if (status["chain"] or {}).get("error"):
        return Text("chain away", "yellow")
    if status["work"]["error"]:
        return Text(f"{status['work'].get('source', 'engine')} away", "yellow")
    if not status["is_own_log_known"]:
        return Text("starting", "yellow")
    return Text("taking part", "green")


def _close(frame: Frame) -> RenderableType:
    closes = [frame.statuses[name]["close"] for name in frame.statuses if name not in frame.down]
    closes = [close for close in closes if close]
    if not closes:
        return Text("no epoch is closing\n", "dim")
    best = max(closes, key=lambda close: (close["epoch"], close["attested_weight"], close["observations"]))
    total = best["total_weight"]
    quorum = 2 * total // 3 + 1
    filled = BAR_WIDTH * best["attested_weight"] // total
    reached = best["attested_weight"] >= quorum
    view = "-" if best["view"] is None else best["view"]
    return Text.assemble(
        (f"closing epoch {best['epoch']}", "bold"),
        f"  view {view}  observations {best['observations']} of {len(frame.names)}\nattested ",
        ("█" * filled, "green" if reached else "yellow"),
        ("░" * (BAR_WIDTH - filled), "dim"),
        f" {best['attested_weight']} of {total}, quorum {quorum}",
        ("  certificate" if best["certified"] else "", "bold green"),
    )


def _events(events: Sequence[str]) -> RenderableType:
    lines = [Text(line, "dim", no_wrap=True, overflow="ellipsis") for line in events[-EVENTS_SHOWN:]]
    return Group(*lines)


def _short(digest: bytes) -> str:
    return digest.hex()[:_HASH_SHOWN]
