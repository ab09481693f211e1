"""The dev network's last word: who did what, who got what, and whether every nanoTON is accounted for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from agent.devnet.onlooker import Landing
from contracts.model import NANO, RewardsState
from gossip.settlement import Settlement


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One participant over all settled epochs."""

    name: str
    address: str
    tokens: int
    uptime_s: int
    score: int
    share: float
    """Of all earnings, 0..1."""
    earned_nanoton: int
    claimed_nanoton: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochBooks:
    """One settled epoch: what finalize fixed (fee and pot), what its settlement gave out, what was left over."""

    epoch: int
    fee_nanoton: int
    pot_nanoton: int
    earned_nanoton: int
    dust_nanoton: int
    """Goes into a later pot: less than one nanoTON per participant, or the whole pot if nobody worked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """Where the money of the settled epochs went, as the chain says."""

    epochs: tuple[EpochBooks, ...]
    earned_nanoton: int
    claimed_nanoton: int
    contract_nanoton: int
    liabilities_nanoton: int

    def total(self, name: str) -> int:
        """Sum of one column over the epochs."""
        return sum(getattr(epoch, name) for epoch in self.epochs)

    def faults(self, settlements: Sequence[Settlement]) -> list[str]:
        """What does not add up; empty if everything does."""
        faults = []
        if self.claimed_nanoton != self.total("pot_nanoton") - self.total("dust_nanoton"):
            faults.append("the claims are not the pots less dust")
        if self.claimed_nanoton != self.earned_nanoton:
            faults.append("not everything that was earned was claimed")
        if self.contract_nanoton < self.liabilities_nanoton:
            faults.append("the rewards contract holds less than it owes")
        for books, settlement in zip(self.epochs, settlements, strict=True):
            most = settlement.payload.count if settlement.payload.total_score else books.pot_nanoton
            if not 0 <= books.dust_nanoton <= most:
                faults.append(f"epoch {books.epoch} left {books.dust_nanoton} nanoTON over")
        return faults


def keep_books(landings: Sequence[Landing], rewards: RewardsState, contract_nanoton: int) -> Books:
    """The books of epochs 1..k, one landing for each."""
    epochs = []
    before = 0
    for landing in landings:
        pot, total = landing.pot, landing.settlement.payload.total_earned_nanoton
        earned, before = total - before, total
        epochs.append(
            EpochBooks(
                epoch=pot.epoch,
                fee_nanoton=pot.fee_nanoton,
                pot_nanoton=pot.pot_nanoton,
                earned_nanoton=earned,
                dust_nanoton=pot.pot_nanoton - earned,
            )
        )
    return Books(
        epochs=tuple(epochs),
        earned_nanoton=rewards.landed.total_earned_nanoton,
        claimed_nanoton=sum(rewards.paid_nanoton.values()),
        contract_nanoton=contract_nanoton,
        liabilities_nanoton=rewards.liabilities_nanoton,
    )


def shares(names: Mapping[bytes, str], settlements: Sequence[Settlement], paid: Mapping[bytes, int]) -> list[Share]:
    """Per participant (`names` by account hash): figures added up over the settlements, earnings of the last."""
    last = settlements[-1]
    total = last.payload.total_earned_nanoton
    result = []
    for leaf in last.leaves:
        account = leaf.participant.account
        own = [each for settlement in settlements for each in settlement.leaves if each.participant == leaf.participant]
        result.append(
            Share(
                name=names.get(account, account.hex()[:8]),
                address=str(leaf.participant),
                tokens=sum(each.tokens for each in own),
                uptime_s=sum(each.uptime_s for each in own),
                score=sum(each.score for each in own),
                share=leaf.earned_nanoton / total if total else 0.0,
                earned_nanoton=leaf.earned_nanoton,
                claimed_nanoton=paid.get(account, 0),
            )
        )
    return sorted(result, key=lambda share: share.name)


def report_value(
    rows: Sequence[Share], books: Books, landings: Sequence[Landing], faults: Sequence[str]
) -> dict[str, Any]:
    """The report as JSON."""
    return {
        "ok": not faults,
        "faults": list(faults),
        "settlements": [
            {
                "epoch": landing.settlement.payload.epoch,
                "root": landing.settlement.payload.totals_root.hex(),
                "payload_hash": landing.settlement.payload_hash.hex(),
                "certificate": landing.certificate.hex(),
                "submitter": landing.submitter,
                "transaction": landing.transaction.hex() if landing.transaction is not None else None,
                "landed_after_s": landing.after_s,
            }
            for landing in landings
        ],
        "participants": [asdict(row) for row in rows],
        "books": asdict(books),
    }


def report_table(rows: Sequence[Share], books: Books) -> RenderableType:
    """The report for people, within 80 columns."""
    table = Table(title="What everybody did and got", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("agent", "tokens", "uptime", "score", "share", "TON earned", "TON claimed"):
        table.add_column(name, justify="left" if name == "agent" else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.name,
            f"{row.tokens:,}",
            f"{row.uptime_s} s",
            f"{row.score / 10**9:,.1f}",
            f"{row.share:.1%}",
            _ton(row.earned_nanoton),
            _ton(row.claimed_nanoton),
        )
    sums = Table(box=None, show_header=False, pad_edge=False)
    sums.add_column()
    sums.add_column(justify="right")
    for name, amount_nanoton in (
        ("pots", books.total("pot_nanoton")),
        ("- dust, left for later pots", books.total("dust_nanoton")),
        ("= earned", books.earned_nanoton),
        ("claimed", books.claimed_nanoton),
        ("operators' fees", books.total("fee_nanoton")),
    ):
        sums.add_row(name, f"{_ton(amount_nanoton)} TON")
    return Group(table, sums)


def _ton(amount_nanoton: int) -> str:
    return f"{amount_nanoton // NANO}.{amount_nanoton % NANO:09d}"
