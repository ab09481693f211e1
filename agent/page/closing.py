"""The panel of the epoch: how far the one that closes is from its quorum, else how far the running one is. Pure.

An epoch closes in minutes and runs for days: so most of the time the bar shows the time that is over, and how the last
close went stands below. That is what this agent saw of it (`agent.page.looking`): of a close before its start it knows
only that it settled.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from agent import status_parts as parts
from agent.page.facts import LastClose, PageFacts
from agent.page.html import Child, facts, moment, short, tag
from agent.page.panels import NAMES_SHOWN, counted, panel, part_of


def close_panel(page: PageFacts) -> Element:
    """The epoch that closes, if one does, and the one that runs."""
    close, chain = part_of(page.status, parts.ClosePart)["close"], part_of(page.status, parts.ChainPart)["chain"]
    if close is None or close["total_weight"] <= 0:
        quiet, elapsed = tag("p", "No epoch is closing."), None if chain is None else _elapsed(chain, page.now_s)
        bar = None if chain is None or elapsed is None else _time_bar(chain, elapsed)
        return _panel(quiet, _running(chain, page.now_s, elapsed), bar, _last_close(page))
    total = close["total_weight"]
    weight = min(max(0, close["attested_weight"]), total)
    text = f"{_attested(weight, total)}: {'certified' if close['certified'] else 'no quorum yet'}"
    missing = close.get("unattested", []) if weight else close.get("unseen", [])
    leader, view = close.get("leader"), close["view"]
    return _panel(
        tag("p", f"Epoch {close['epoch']} closes: {text}."),
        _weight_bar(weight, total, text),
        facts(
            ("Observations", f"{close['observations']} of {close.get('operators', 0)} operators"),
            ("View", "not open yet" if view is None else str(view)),
            None if leader is None else ("Leader", short(leader)),
            ("Missing", _names(missing)) if missing else None,
            ("Waits for", counted(close["waiting_for"], "object") + " of others") if close["waiting_for"] else None,
        ),
        _running(chain, page.now_s),
    )


def _panel(*children: Child) -> Element:
    return panel("close", "Epoch and quorum", *children)


def _quorum(total: int) -> int:
    """The least weight that is more than two thirds of `total`."""
    return 2 * total // 3 + 1


def _attested(weight: int, total: int) -> str:
    return f"{weight:,} of {total:,} attested ({100 * weight // total} %), {_quorum(total):,} needed"


def _elapsed(chain: parts.Chain, now_s: int) -> float | None:
    """Which part of the running epoch's time is over, 0 to 1; None if that is not known."""
    start_s, end_s = chain.get("epoch_start_s"), chain.get("epoch_end_s")
    if chain["epoch"] is None or start_s is None or end_s is None or end_s <= start_s:
        return None
    return min(max(0.0, (now_s - start_s) / (end_s - start_s)), 1.0)


def _running(chain: parts.Chain | None, now_s: int, elapsed: float | None = None) -> Element | None:
    end_s = None if chain is None else chain.get("epoch_end_s")
    if chain is None or chain["epoch"] is None or end_s is None:
        return None
    verb = "ends" if end_s > now_s else "ended"
    over = "" if elapsed is None or end_s <= now_s else f"; {100 * elapsed:.0f} % of its time is over"
    return tag("p", f"Epoch {chain['epoch']} runs; it {verb} ", moment(end_s, now_s), f"{over}.")


def _last_close(page: PageFacts) -> Element | None:
    """How the last close went, as far as it was seen here, and when the last epoch settled."""
    settled, last = part_of(page.status, parts.SettledPart)["settled"], page.last_close
    settled_s = None if settled is None or not settled["epoch"] else settled.get("settled_s")
    if last is None and settled_s is None:
        return None
    return facts(
        None if last is None else (f"Close of epoch {last.epoch}", _reached(last)),
        None
        if settled is None or settled_s is None
        else ("Settled last", [f"epoch {settled['epoch']}, ", moment(settled_s, page.now_s)]),
    )


def _reached(last: LastClose) -> str:
    # What came between the last look and the landing was not seen: the chain took a quorum all the same.
    return _attested(last.attested_weight, last.total_weight) + ("" if last.is_quorum else ", as seen here")


def _weight_bar(weight: int, total: int, text: str) -> Element:
    """How much of the weight attested, with a mark where the quorum begins."""
    mark = f"{200 / 3:.2f}"
    line = tag("line", x1=mark, x2=mark, y1=0, y2=6, class_="mark")
    return _bar(weight / total, text, "fill full" if weight >= _quorum(total) else "fill", line)


def _time_bar(chain: parts.Chain, elapsed: float) -> Element:
    return _bar(elapsed, f"{100 * elapsed:.0f} % of the time of epoch {chain['epoch']} is over", "fill time")


def _bar(part: float, text: str, class_: str, *marks: Element) -> Element:
    """A bar of 100 by 6 units, filled by `part` of 1; `text` says the same."""
    return tag(
        "svg",
        tag("title", text),
        tag("rect", width=100, height=6, class_="track"),
        tag("rect", width=f"{100 * part:.2f}", height=6, class_=class_),
        *marks,
        viewBox="0 0 100 6",
        preserveAspectRatio="none",
        class_="bar",
        role="img",
    )


def _names(keys: Sequence[str]) -> list[Element | str]:
    shown: list[Element | str] = []
    for key in keys[:NAMES_SHOWN]:
        shown += [", ", short(key)] if shown else [short(key)]
    return [*shown, f" and {len(keys) - NAMES_SHOWN} more"] if len(keys) > NAMES_SHOWN else shown
