"""The verdict: whether this node earns, in one sentence, and what to do if not. Pure.

1. The doctor's answer counts while it is current: no older than a round that comes in time leaves it, and not from
   before an epoch that settled since. One that is not current says nothing here.
2. A current answer is the headline, unless it says that nothing is wrong and the agent itself knows better now.
   Besides an answer that agrees with it the agent's own word is said, too: it may be newer.
3. Without one the agent's own word stands: what is wrong with it, or what the last settled epoch brought.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from xml.etree.ElementTree import Element

import msgspec

from agent import status_parts as parts
from agent.page.diagnosing import INTERVAL_S, ROUND_S
from agent.page.facts import Diagnosis, PageFacts, Said
from agent.page.html import code, hint, moment, tag
from agent.texts import legible

CURRENT_S = INTERVAL_S + ROUND_S
"""How old an answer may be; the next one is there by then, if the doctor answers at all."""
STARTING_S = 120
"""Uptime in seconds below which it is no failure that the node is not ready."""
_MARKS = {"good": "M5 12.5l4.5 4.5L19 7.5", "bad": "M7 7l10 10M17 7L7 17", "open": "M6 12h.1M12 12h.1M18 12h.1"}
"""Strokes in a box of 24 by 24: a tick, a cross, three dots."""


class Level(StrEnum):
    """How the node stands."""

    GOOD = "good"
    BAD = "bad"
    OPEN = "open"
    """Not known, or nothing settled yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The headline, why it is so, and what to do about it, if anything."""

    level: Level
    headline: str
    reason: str
    fix: str = ""


def verdict_of(facts: PageFacts) -> Verdict:
    """What to say first."""
    found = _current(facts)
    if found is None or (facts.trouble is not None and found.earns is not False):
        return _by_the_agent(facts)
    headline, colon, reason = found.verdict.partition(": ")
    if found.earns is None or not colon:
        return Verdict(level=Level.OPEN, headline="Nothing keeps you from earning", reason=_sentence(found.verdict))
    if found.earns:
        return Verdict(level=Level.GOOD, headline=_capital(headline), reason=_sentence(reason))
    cause = _cause(found)
    if cause is None:
        return Verdict(level=Level.BAD, headline=_capital(headline), reason=_sentence(reason))
    return Verdict(
        level=Level.BAD, headline=_capital(headline), reason=_sentence(cause.cause), fix=_sentence(cause.fix)
    )


def _current(facts: PageFacts) -> Diagnosis | None:
    """The doctor's last answer, if it still says something (rule 1)."""
    found, own = facts.diagnosis, msgspec.convert(facts.status, parts.OwnPart)["own"]
    if found is None or not 0 <= facts.now_s - found.found_s <= CURRENT_S:
        return None
    is_overtaken = own is not None and found.epoch is not None and found.epoch < own["epoch"]
    return None if is_overtaken else found


def _cause(found: Diagnosis) -> Said | None:
    """The problem that the verdict is about, if it is about one."""
    return next((each for each in found.findings if each.severity == "problem"), None) if not found.earns else None


def _by_the_agent(facts: PageFacts) -> Verdict:
    if facts.trouble is not None:
        is_starting = msgspec.convert(facts.status, parts.AgentPart)["uptime_s"] < STARTING_S
        level = Level.OPEN if is_starting else Level.BAD
        return Verdict(level=level, headline="Not ready to earn", reason=_sentence(facts.spelled(facts.trouble)))
    own = msgspec.convert(facts.status, parts.OwnPart)["own"]
    if own is None:
        headline = "Not known yet" if facts.epochs else "Nothing settled yet"
        return Verdict(level=Level.OPEN, headline=headline, reason="The agent runs and takes part.")
    if not own["score"]:
        why = "; ".join(own["reasons"]) or "the agent runs and takes part"
        return Verdict(level=Level.OPEN, headline=f"Nothing earned in epoch {own['epoch']}", reason=_sentence(why))
    share = 100 * own["score"] / max(own["total_score"], own["score"])
    reason = f"Epoch {own['epoch']} credited {own['tokens']:,} tokens, a share of {share:.1f} %."
    return Verdict(level=Level.GOOD, headline="You earn", reason=reason)


def verdict_section(facts: PageFacts) -> Element:
    """The head of the page: the verdict, what the agent knows besides, and the doctor's lines."""
    said, found = verdict_of(facts), _current(facts)
    live = tag(
        "div",
        tag("h1", _mark(said.level), said.headline, id="verdict"),
        tag("p", legible(said.reason), class_="reason"),
        tag("p", tag("b", "What to do: "), legible(said.fix), class_="reason") if said.fix else None,
        tag("p", id="away", hidden=""),
        role="status",
        aria_live="polite",
        class_=f"verdict {said.level}",
    )
    trouble = facts.trouble
    besides = None
    if trouble is not None and found is not None and found.earns is False:  # else it is the headline
        besides = hint(f"The agent says now: {legible(facts.spelled(trouble))}", "warning")
    return tag("section", live, besides, _findings(found), _footnote(facts, found), aria_labelledby="verdict")


def _mark(level: Level) -> Element:
    path = tag("path", d=_MARKS[level])
    return tag("svg", path, viewBox="0 0 24 24", class_="mark", aria_hidden="true", focusable="false")


def _findings(found: Diagnosis | None) -> Element | None:
    shown = [] if found is None else [each for each in found.findings if each is not _cause(found)]
    if not shown:
        return None
    return tag(
        "ul",
        (
            tag(
                "li",
                tag("span", each.severity, class_=f"badge {each.severity}"),
                tag("p", legible(each.cause), " ", tag("code", each.code, class_="quiet")),
                tag("p", tag("b", "What to do: "), legible(each.fix)) if each.fix else None,
            )
            for each in shown
        ),
        class_="findings",
        aria_label="What the doctor found",
    )


def _footnote(facts: PageFacts, found: Diagnosis | None) -> Element:
    late = f"; its next look failed: {legible(facts.silence)}" if facts.silence else ""
    if found is None:
        text = "The doctor is looking: this takes a few seconds" if not late else f"The doctor says nothing{late}"
        return tag("p", text, ".", class_="quiet")
    counts = f": {found.fine} checks are fine" + (f", {found.unknown} could not be made" if found.unknown else "")
    looked = moment(found.found_s, facts.now_s)
    everything = code(facts.spelled("gpupool doctor --all"))
    return tag("p", "The doctor looked ", looked, counts, late, ". All: ", everything, class_="quiet")


def _sentence(text: str) -> str:
    return _capital(text.rstrip(".")) + "." if text else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
