"""The links between rooms, the pure part: when the copies of a packet arrive at its destination, if any does.

Decides from seeded randomness and the time alone; `tests.chaos.switch` moves the packets. Each direction is a link of
its own. Rules:
1. A link that is cut takes nothing. Packets that are under way when it is cut are lost, too.
2. Loss, duplication and reordering are drawn per packet. Jitter is uniform and keeps the order, as a queue does;
   a packet that is drawn to be reordered overtakes all by taking no delay at all.
3. A rate makes packets queue up; what would wait longer than `QUEUE_S_MAX` is dropped, as a router's queue does.

Source: tc-netem(8), whose words are used; it is not needed, nor is any queueing discipline of the kernel.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

QUEUE_S_MAX = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One direction between two rooms. Shares are 0..1, the rate is in bytes a second (0: without limit)."""

    is_cut: bool = False
    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    rate: float = 0.0

    def __post_init__(self) -> None:
        if not all(0 <= share <= 1 for share in (self.loss, self.duplicate, self.reorder)):
            raise ValueError("loss, duplicate and reorder are shares: 0 to 1")
        if not 0 <= self.jitter_s <= self.delay_s or self.rate < 0:
            raise ValueError("jitter_s is 0 to delay_s, rate is 0 or more")


PLAIN = Link()


class Fabric:
    """All links of `ends` rooms, by number; those that were never set are plain. A seed replays its draws."""

    def __init__(self, ends: int, seed: int) -> None:
        self._ends = ends
        self._random = random.Random(seed)
        self._links: dict[tuple[int, int], Link] = {}
        self._free_s: dict[tuple[int, int], float] = {}
        self._last_s: dict[tuple[int, int], float] = {}

    def set(self, source: int, dest: int, link: Link) -> None:
        """Make the way from `source` to `dest` such a link from now on.

        Raises:
            ValueError: there is no such room.
        """
        if not (0 <= source < self._ends and 0 <= dest < self._ends):
            raise ValueError(f"no link from {source} to {dest}: there are {self._ends} rooms")
        self._links[source, dest] = link

    def is_cut(self, source: int, dest: int) -> bool:
        """Whether the way from `source` to `dest` is cut now."""
        return self._links.get((source, dest), PLAIN).is_cut

    def arrivals(self, source: int, dest: int, size: int, now_s: float) -> tuple[float, ...]:
        """When each copy of a packet of `size` bytes, sent at `now_s`, arrives; none if it is lost."""
        way = source, dest
        link = self._links.get(way, PLAIN)
        if link is PLAIN:
            return (now_s,)
        if link.is_cut or self._draw(link.loss):
            return ()
        copies = 2 if self._draw(link.duplicate) else 1
        at_s = now_s
        if link.rate:
            at_s = max(now_s, self._free_s.get(way, now_s))
            if at_s - now_s > QUEUE_S_MAX:
                return ()
            at_s += size / link.rate
            self._free_s[way] = at_s
        if self._draw(link.reorder):
            return (at_s,) * copies
        at_s += link.delay_s + self._random.uniform(-link.jitter_s, link.jitter_s)
        at_s = self._last_s[way] = max(at_s, self._last_s.get(way, at_s))
        return (at_s,) * copies

    def _draw(self, share: float) -> bool:
        return share > 0 and self._random.random() < share
