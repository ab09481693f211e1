"""Which heads another node lacks: compared by range of keys, and computed anew only where something changed.

Peers ask for it all the time, and in a large pool heads change all the time: few of them between two questions.
Untrusted: the digests of the asker, whose number was checked (`gossip.sync`).

1. A range is a part of all first bytes of keys; its digest is that of `sync.digest_heads`.
2. A digest is kept until a head in its range changes; an asker chooses among a handful of numbers of ranges.

Pure. Source: PROTOCOL, "Spreading".
"""

from __future__ import annotations

from collections.abc import Mapping

from gossip.log_chain import Head
from gossip.sync import RANGE_DIGEST_BYTES, digest_range

FIRST_BYTES = 256


class HeadIndex:
    """The heads of one node as of the last question, and the digests that were computed."""

    def __init__(self) -> None:
        self._heads: dict[bytes, Head] = {}
        self._by_first: tuple[dict[bytes, Head], ...] = tuple({} for _ in range(FIRST_BYTES))
        """The same by the first byte of the key."""
        self._digests: dict[int, dict[int, bytes]] = {}
        """By how many ranges there are, then by range."""

    def differing(self, heads: Mapping[bytes, Head], theirs: bytes) -> dict[bytes, Head]:
        """Those of `heads` (all there are now) in ranges whose digest is not as in `theirs`.

        `theirs` are `RANGE_DIGEST_BYTES` for each range; there are a power of two of them, at most `FIRST_BYTES`.
        """
        self._follow(heads)
        ranges = len(theirs) // RANGE_DIGEST_BYTES
        digests = self._digests.setdefault(ranges, {})
        found: dict[bytes, Head] = {}
        for number in range(ranges):
            held = self._by_first[number * FIRST_BYTES // ranges : (number + 1) * FIRST_BYTES // ranges]
            if number not in digests:
                digests[number] = digest_range({key: head for part in held for key, head in part.items()})
            if digests[number] != theirs[number * RANGE_DIGEST_BYTES : (number + 1) * RANGE_DIGEST_BYTES]:
                for part in held:
                    found |= part
        return found

    def _follow(self, heads: Mapping[bytes, Head]) -> None:
        # By identity, as a log keeps its head until it has another one: an equal one costs a digest, nothing else.
        changed = [key for key, head in heads.items() if self._heads.get(key) is not head]
        gone = self._heads.keys() - heads.keys()
        for key in changed:
            self._heads[key] = self._by_first[key[0]][key] = heads[key]
        for key in gone:
            del self._heads[key], self._by_first[key[0]][key]
        for first in {key[0] for key in (*changed, *gone)}:
            for ranges, digests in self._digests.items():
                digests.pop(first * ranges // FIRST_BYTES, None)
