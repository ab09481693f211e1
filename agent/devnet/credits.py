"""What each agent claimed, what others vouch for, and what it was credited; for a cheat, against an honest share.

Claims are told by the agents, while they run; in the end by their ledgers, as `gpupool earnings` tells them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from agent.config import load_config
from agent.devnet.cheats import CHEATS, cheating
from agent.devnet.layout import Seat, agent_name
from agent.devnet.report import Share
from agent.devnet.works import Works
from agent.ledger import ledger_file
from agent.ledger_reader import read_ledger
from contracts.chain import Chain
from gossip.records import PoolId


@dataclass(frozen=True, slots=True, kw_only=True)
class Credited:
    """One agent's tokens over all settled epochs. None is not known, or not there."""

    name: str
    claimed: int | None
    """By its own records of these epochs, whether evidence covers them or not; or all that it measured."""
    vouched: int | None
    """By receipts, or by what the chain paid."""
    credited: int
    share: float
    """Of all earnings, 0..1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cheat:
    """What cheating brought: the cheat's agents taken together; `percent` of what an honest agent got on average."""

    strategy: str
    agents: tuple[str, ...]
    claimed: int | None
    credited: int
    share: float
    percent: float | None
    """None while no honest agent has a share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credits:
    """All of them; `vouched_by` heads the column of what is vouched for, if anybody does."""

    rows: tuple[Credited, ...]
    vouched_by: str | None
    cheat: Cheat | None

    def value(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


class Crediting:
    """Follows what the agents of one network were credited; `strategy` is how the last of them cheat, if they do."""

    def __init__(self, seats: Sequence[Seat], works: Works, strategy: str | None) -> None:
        self._seats = seats
        self._works = works
        self._strategy = strategy
        self._cheats = frozenset(agent_name(index) for index in cheating(strategy, len(seats)))

    @property
    def is_shown(self) -> bool:
        """Whether there is more to see than tokens and shares: somebody vouches for work, or cheats."""
        return self._strategy is not None or self._works.vouched_by is not None

    def so_far(self, rows: Sequence[Share], statuses: Mapping[str, Mapping[str, Any]]) -> Credits:
        """By the agents' own words; `rows` are those of the settlements so far."""
        return self._credits(rows, _measured(statuses))

    async def final(
        self,
        rows: Sequence[Share],
        statuses: Mapping[str, Mapping[str, Any]],
        chain: Chain,
        running: Collection[str],
    ) -> tuple[Credits, list[str]]:
        """By ledgers, receipts and the chain; and what is wrong with what honest agents that still run got.

        Who took an epoch's settlement from others has no record of what it claimed in it: its own word stands instead.

        Raises:
            ContractsError: the chain cannot be read.
            OperationError: a ledger cannot be read.
        """
        await self._works.conclude(chain)
        claims = _measured(statuses)
        for seat in self._seats:
            if (tokens := claimed_tokens(seat)) is not None:
                claims[seat.name] = tokens
        found = self._credits(rows, claims)
        honest = {row.name: row.credited for row in found.rows if row.name in running and row.name not in self._cheats}
        return found, self._works.faults(honest)

    def _credits(self, rows: Sequence[Share], claims: Mapping[str, int]) -> Credits:
        known = {row.name: row for row in rows}
        found = []
        for name in (seat.name for seat in self._seats):
            own = known.get(name)
            found.append(
                Credited(
                    name=name,
                    claimed=claims.get(name),
                    vouched=self._works.vouched.get(name),
                    credited=0 if own is None else own.tokens,
                    share=0.0 if own is None else own.share,
                )
            )
        cheat = None if self._strategy is None else cheat_of(self._strategy, found, self._cheats)
        return Credits(rows=tuple(found), vouched_by=self._works.vouched_by, cheat=cheat)


def credits_view(credits_: Credits) -> RenderableType:
    """The table, and a line on the cheat, within 80 columns."""
    table = Table(title="What their work counted for", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    headings = ["agent", "tokens claimed", *([credits_.vouched_by] if credits_.vouched_by else []), "credited", "share"]
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "agent" else "right", no_wrap=True)
    for row in credits_.rows:
        vouched = [_count(row.vouched)] if credits_.vouched_by else []
        is_cheat = credits_.cheat is not None and row.name in credits_.cheat.agents
        cells = [row.name, _count(row.claimed), *vouched, f"{row.credited:,}", f"{row.share:.1%}"]
        table.add_row(*cells, style="red" if is_cheat else None)
    return table if credits_.cheat is None else Group(table, *map(Text, cheat_lines(credits_.cheat)))


def cheat_lines(cheat: Cheat) -> list[str]:
    """What cheating brought, in words."""
    who = " and ".join(cheat.agents)
    outcome = "nobody has earned anything yet" if cheat.percent is None else f"{cheat.percent:.0f} % of an honest share"
    return [
        f"{who}: {cheat.strategy}: {CHEATS[cheat.strategy]}",
        f"claimed {_count(cheat.claimed)}, credited {cheat.credited:,}, share {cheat.share:.1%}: {outcome}",
    ]


def claimed_tokens(seat: Seat) -> int | None:
    """What the agent's records of the settled epochs say; None if it did not compute each of them itself.

    Raises:
        OperationError: its ledger cannot be read.
    """
    config = load_config(seat.config)
    with read_ledger(ledger_file(config), PoolId(config.pool.global_id, config.pool.contract.account)) as ledger:
        rows = ledger.epochs()
    if not rows or not all(row.is_computed for row in rows):
        return None
    credits_ = [row.credit for row in rows if row.credit is not None]
    return sum(credit.metered_tokens + credit.uncovered_tokens for credit in credits_)


def _measured(statuses: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """What the agents measured since their start."""
    return {name: status["work"]["tokens"] for name, status in statuses.items()}


def cheat_of(strategy: str, rows: Sequence[Credited], cheats: Collection[str]) -> Cheat:
    """What the agents of these names got, taken together, against the average of the others."""
    own = [row for row in rows if row.name in cheats]
    honest = [row.share for row in rows if row.name not in cheats]
    average = sum(honest) / len(honest) if honest else 0.0
    claims = [row.claimed for row in own if row.claimed is not None]
    share = sum(row.share for row in own)
    return Cheat(
        strategy=strategy,
        agents=tuple(row.name for row in own),
        claimed=sum(claims) if claims and len(claims) == len(own) else None,
        credited=sum(row.credited for row in own),
        share=share,
        percent=100 * share / average if average else None,
    )


def _count(tokens: int | None) -> str:
    return "-" if tokens is None else f"{tokens:,}"
