"""Who of the operators is in reach: when that counts as lost, why nothing can settle then, and what the log says of it.

Pure. In reach is who is connected and of a version to work with; this node counts itself (`Roster.reach`).

1. An operator, or the quorum, counts as lost once it was out of reach for `HOLD_S` without a break, as a connection
   that is made anew is no news; it counts as back at once. Before the quorum was reached for the first time it is lost.
2. The quorum is more than two thirds of the weight. Each crossing of it is said, either way.
3. Who leaves the set of operators is forgotten without a word.

Source: PROTOCOL, "Epoch close".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from gossip.roster import Roster

HOLD_S = 10.0
NAMED_MAX = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """A line for the log. One operator of many is worth no warning."""

    is_warning: bool = False
    text: str


class ReachWatch:
    """What one node has seen of it. `obstacle` is why nothing can settle as seen from here, None if it can."""

    def __init__(self) -> None:
        self.obstacle: str | None = None
        self._was_reached = False
        self._is_short_said = False
        self._short_since_s: float | None = None
        self._gone_since_s: dict[bytes, float] = {}
        self._away: set[bytes] = set()

    def look(self, own: bytes, roster: Roster, connected: Collection[bytes], now_s: float) -> list[News]:
        """Take who is in reach at `now_s` (monotonic), and give what is new, if anything.

        `own` and `connected` are node keys; of the latter those that are no operators do not matter.
        """
        if not roster.weights:
            return []  # the chain has not been seen yet
        return [*self._look_at_each(own, roster, connected, now_s), *self._look_at_all(own, roster, connected, now_s)]

    def _look_at_each(self, own: bytes, roster: Roster, connected: Collection[bytes], now_s: float) -> list[News]:
        gone = {key for key in roster.weights if key != own and key not in connected}
        self._gone_since_s = {key: self._gone_since_s.get(key, now_s) for key in gone}
        away = {key for key, since_s in self._gone_since_s.items() if now_s - since_s >= HOLD_S}
        left, back = away - self._away, (self._away - gone) & roster.weights.keys()
        self._away = away
        news = []
        if left:
            news.append(News(text=f"operators are out of reach for {HOLD_S:.0f} s: {_names(left)}"))
        if back:
            news.append(News(text=f"operators are in reach again: {_names(back)}"))
        return news

    def _look_at_all(self, own: bytes, roster: Roster, connected: Collection[bytes], now_s: float) -> list[News]:
        weight, total = roster.reach(own, connected)
        if 3 * weight > 2 * total:
            is_news = self._is_short_said or not self._was_reached
            self.obstacle, self._was_reached, self._is_short_said, self._short_since_s = None, True, False, None
            text = f"operators with {weight} of {total} of the weight are in reach: as seen from here epochs can settle"
            return [News(text=text)] if is_news else []
        if self._short_since_s is None:
            self._short_since_s = now_s
        is_held = now_s - self._short_since_s >= HOLD_S
        if is_held or not self._was_reached:  # rule 1
            self.obstacle = f"operators with {weight} of {total} of the weight in reach, not more than two thirds"
            if not any(key in connected for key in roster.weights):
                self.obstacle = "no other operator connected" if own in roster.weights else "no operator connected"
        if not is_held or self._is_short_said:
            return []
        self._is_short_said = True
        short = f"operators with {weight} of {total} of the weight are in reach, not more than two thirds"
        return [News(is_warning=True, text=f"{short}: as seen from here no epoch can settle")]


def _names(keys: Iterable[bytes]) -> str:
    names = [key.hex()[:16] for key in sorted(keys)]
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    return ", ".join(names[:NAMED_MAX]) + more
