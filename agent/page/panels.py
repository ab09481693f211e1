"""The panels: what this node earns and proves, its last epochs, and what it sees of the chain.

Pure: from the status to elements. Texts of sources, peers and the chain are made legible here (`agent.texts`), and
escaped where they are written out.
Amounts of TON keep three decimals, and all of them in the title.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar
from xml.etree.ElementTree import Element

import msgspec

from agent import status_parts as parts
from agent.earnings.report import EpochEarnings, totals
from agent.page.facts import PageFacts
from agent.page.html import Child, code, facts, hint, moment, span, table, tag
from agent.screens import books_texts, policy_texts, pool_texts, ton, ton_exact
from agent.texts import legible

NAMES_SHOWN = 12

_Part = TypeVar("_Part")


def panel(identity: str, title: str, *children: Child, class_: str = "panel") -> Element:
    """A section of the page with its heading."""
    heading = tag("h2", title, id=f"{identity}-title")
    return tag("section", heading, *children, id=identity, class_=class_, aria_labelledby=f"{identity}-title")


def earnings_panel(page: PageFacts) -> Element:
    """What there is to claim, what was earned, and what the own entry says."""
    told, entry = part_of(page.status, parts.OwnPart), part_of(page.status, parts.EntryPart)["entry"]
    own, claimable_nanoton, lines = told["own"], told["claimable_nanoton"], page.epochs
    big = tag("p", _amount(claimable_nanoton), class_="big") if claimable_nanoton is not None else None
    how = tag("p", "to be claimed: ", code(page.spelled("gpupool pool claim"))) if claimable_nanoton else None
    if big is not None and how is None:
        is_paid = own is not None and own.get("earned_nanoton", 0) > 0
        how = tag("p", f"to be claimed: {'all that was earned is paid' if is_paid else 'nothing was earned yet'}")
    sum_nanoton = totals(lines).earned_nanoton if lines else None
    return panel(
        "earnings",
        "Earnings",
        big,
        how,
        facts(
            None if own is None else ("Earned ever", _amount(own.get("earned_nanoton", 0))),
            None if sum_nanoton is None else (f"Last {counted(len(lines), 'epoch')}", _amount(sum_nanoton)),
            None if own is None else ("Share", f"{_share(own):.1f} % of epoch {own['epoch']}"),
            None if entry is None else ("Stake", _amount(entry["stake_nanoton"])),
            None if entry is None else ("Entry", f"{entry['status']}, reputation {entry['reputation']}"),
        ),
        _entry_hints(entry, page),
        tag("p", "Nothing is known of the own entry yet.", class_="quiet") if own is None and entry is None else None,
    )


def _entry_hints(entry: parts.Entry | None, page: PageFacts) -> list[Element]:
    if entry is None:
        return []
    found = []
    if entry["withdraw_at_s"] is not None:
        found.append(
            tag("p", ton(entry["pending_nanoton"]), " asked back, paid ", moment(entry["withdraw_at_s"], page.now_s))
        )
    if entry["held_until_s"] is not None:
        held = f"{ton(entry['held_nanoton'])} slashed; an appeal is possible until"
        found.append(tag("p", held, " ", moment(entry["held_until_s"], page.now_s)))
    if entry["not_earning"]:
        found.append(hint(page.spelled(entry["not_earning"]), "problem"))
    return found


def evidence_panel(page: PageFacts) -> Element:
    """How the proof of this host stands."""
    evidence = part_of(page.status, parts.OwnEvidencePart)["evidence"]
    own, until_s = evidence["own"], evidence["valid_until_s"]
    is_valid = evidence["valid"] and until_s is not None
    hints = []
    if evidence["alarm"]:
        hints.append(hint(legible(evidence["alarm"]), "warning" if is_valid else "problem"))
    elif not is_valid:
        hints.append(hint("No evidence is in force: it is being made.", "warning"))
    if evidence["place_taken_by"]:
        what = "a GPU that this host proves" if evidence.get("is_gpu_taken") else "this machine"
        holder = evidence["place_taken_by"][:8]
        hints.append(hint(f"{holder} holds the place on {what}: work here earns nothing.", "problem"))
    if evidence["collateral_error"]:
        hints.append(hint(f"Collateral is not renewed: {legible(evidence['collateral_error']['message'])}", "warning"))
    proven: parts.Standing | dict[str, Any] = own if own is not None else {}
    return panel(
        "evidence",
        "Evidence",
        hints,
        facts(
            ("Runs out", moment(until_s, page.now_s)) if is_valid and until_s is not None else None,
            ("TCB", _tcb(proven)) if "tcb_status" in proven else None,
            ("Measurement", legible(str(proven["measurement"]))) if "measurement" in proven else None,
            ("GPUs proven", f"{proven['gpus']:,}") if "gpus" in proven else None,
            ("Machine", tag("code", str(proven["machine"])[:16], title=str(proven["machine"])))
            if "machine" in proven
            else None,
        ),
    )


def _tcb(proven: Mapping[str, Any]) -> str:
    advisories = ", ".join(legible(each) for each in proven.get("advisories", [])[:NAMES_SHOWN])
    return legible(str(proven["tcb_status"])) + (f" ({advisories})" if advisories else "")


def epochs_panel(page: PageFacts) -> Element:
    """The last epochs, newest first."""
    if not page.epochs:
        why = page.no_epochs or "No epoch has settled yet."
        return panel("epochs", "Last epochs", tag("p", legible(why), class_="quiet"), class_="panel wide")
    rows = [_epoch_row(line, page.now_s) for line in reversed(page.epochs)]
    headings = ("Epoch", "Landed", "Earned", "Share", "Credited", "Metered", "Why not more")
    more = tag("p", "All of them: ", code(page.spelled("gpupool earnings")), class_="quiet")
    return panel("epochs", "Last epochs", table("The last epochs", headings, rows), more, class_="panel wide")


def _epoch_row(line: EpochEarnings, now_s: int) -> tuple[Child, ...]:
    settled_s = line.settled_s
    return (
        str(line.epoch),
        "not known" if settled_s is None else moment(settled_s, now_s),
        "–" if line.earned_nanoton is None else _amount(line.earned_nanoton),
        f"{100 * line.share:.2f} %",
        f"{line.credited_tokens:,}",
        "–" if line.metered_tokens is None else f"{line.metered_tokens:,}",
        "; ".join(line.reasons) or "all of it counted",
    )


def pool_panel(page: PageFacts) -> Element:
    """The chain as this host sees it, what the pool is about to change, and this agent."""
    chain, agent = part_of(page.status, parts.ChainPart)["chain"], part_of(page.status, parts.AgentPart)
    wallet_nanoton = None if chain is None else chain.get("wallet_nanoton")
    lines = [
        *pool_texts(part_of(page.status, parts.PoolPart)),
        *policy_texts(part_of(page.status, parts.PoliciesPart)),
        *books_texts(part_of(page.status, parts.BooksPart)),
    ]
    wrong = [] if chain is None else [text for text in (chain["error"], chain["clock"]) if text]
    seqno = None if chain is None else chain["seqno"]
    return panel(
        "pool",
        "Chain and agent",
        [hint(legible(text), "warning") for text in wrong],
        [hint(legible(page.spelled(text))) for text in lines],
        hint("The chain was not reached yet.", "warning") if seqno is None and not wrong else None,
        facts(
            None if chain is None or seqno is None else ("Block", f"{seqno:,}, {span(chain['age_s'] or 0)} old"),
            None if wallet_nanoton is None else ("Wallet", _amount(wallet_nanoton)),
            None if chain is None or "participants" not in chain else ("Registered", f"{chain['participants']:,}"),
            ("Version", legible(agent["version"])),
            ("Runs for", span(agent["uptime_s"])),
            ("Node key", tag("code", agent["node_key"], class_="long")),
        ),
    )


def part_of(status: Mapping[str, Any], form: type[_Part]) -> _Part:
    """A part of the status in its form, which this very agent wrote."""
    return msgspec.convert(status, form)


def _share(own: parts.Own) -> float:
    score, total = own["score"], own["total_score"]
    return 100 * min(max(score, 0), total) / total if total > 0 else 0.0


def _amount(nanoton: int) -> Element:
    return tag("span", ton(nanoton), title=ton_exact(nanoton), class_="amount")


def counted(number: int, name: str) -> str:
    """So many of what is called `name`."""
    return f"{number:,} {name}{'' if number == 1 else 's'}"
