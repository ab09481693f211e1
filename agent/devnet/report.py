"""The dev network's last word: who did what, who got what, and whether every nanoTON is accounted for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from contracts.model import NANO, OpenEpoch, RewardsState
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


def keep_books(
    pots: Mapping[int, OpenEpoch], settlements: Sequence[Settlement], rewards: RewardsState, contract_nanoton: int
) -> Books:
    """The books of epochs 1..k: `pots` as seen when they were finalized, one settlement for each."""
    epochs = []
    before = 0
    for settlement in settlements:
        pot, total = pots[settlement.payload.epoch], settlement.payload.total_earned_nanoton
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
    rows: Sequence[Share],
    books: Books,
    settled: Sequence[Settlement],
    landed_after_s: Mapping[int, int],
    faults: Sequence[str],
) -> dict[str, Any]:
    """The report as JSON; `landed_after_s` is from each epoch's end to its landing."""
    return {
        "ok": not faults,
        "faults": list(faults),
        "settlements": [
            {
                "epoch": s.payload.epoch,
                "root": s.payload.totals_root.hex(),
                "payload_hash": s.payload_hash.hex(),
                "landed_after_s": landed_after_s[s.payload.epoch],
            }
            for s in settled
        ],
        "participants": [asdict(row) for row in rows],
        "books": asdict(books),
    }


def report_table(rows: Sequence[Share], books: Books) -> Table:
    """The report for people."""
    table = Table(title="What everybody did and got", title_justify="left")
    for name in ("participant", "tokens", "uptime", "score", "share", "TON earned", "TON claimed"):
        table.add_column(name, justify="left" if name == "participant" else "right")
    for row in rows:
        table.add_row(
            row.name,
            f"{row.tokens:,}",
            f"{row.uptime_s} s",
            f"{row.score / 10**9:,.1f}",
            f"{row.share:.1%}",
            f"{row.earned_nanoton / NANO:.9f}",
            f"{row.claimed_nanoton / NANO:.9f}",
        )
    table.caption = (
        f"pots {books.total('pot_nanoton') / NANO:.9f} - dust {books.total('dust_nanoton')} nanoTON "
        f"= claimed {books.claimed_nanoton / NANO:.9f} TON; operators' fees {books.total('fee_nanoton') / NANO:.9f} TON"
    )
    table.caption_justify = "left"
    return table
