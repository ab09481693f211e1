"""Witnessed uptime: in how many time buckets this node heard from each participant, ever.

Decides what an observation says of a participant's uptime. The caller says who was heard; see `gossip.probing`.

1. One sign of life credits its whole bucket. Readings are cumulative, so a lost observation loses nothing.
2. Only an answer to a probe, whose moment this node drew, is a sign of life. A record is none: it can be made
   ahead and handed in by somebody else; nor is a request: whoever sends it chooses the moment, and could be off
   for the rest of each bucket.
3. A reading never lags behind the settled one, so an operator that is new, or lost its journal, counts from there.
   The bucket in which it was raised is not credited once more: whoever was ahead may have counted it. Nor is the
   bucket in which a node starts that kept its readings: it may have been credited before.
4. What is kept is bounded: keys that are registered, or that the base names.

Source: PROTOCOL, "Words" (observation) and "Tally".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping


class Witness:
    """Cumulative witnessed seconds by node key; `bucket_s` is the policy's granularity.

    A node that was started at `started_s` (Unix seconds) goes on from the `seconds` that it kept.
    """

    def __init__(
        self, bucket_s: int, seconds: Mapping[bytes, int] | None = None, *, started_s: int | None = None
    ) -> None:
        self.bucket_s = bucket_s
        self._seconds = dict(seconds or {})
        self._last_bucket = {} if started_s is None else dict.fromkeys(self._seconds, started_s // bucket_s)

    @property
    def seconds(self) -> Mapping[bytes, int]:
        """What an observation reports and the journal keeps."""
        return self._seconds

    def hear(self, node_key: bytes, now_s: int) -> None:
        """Credit the bucket of `now_s`, unless it was credited; a clock that stepped back credits nothing."""
        if not self.has_heard(node_key, now_s):
            self._last_bucket[node_key] = now_s // self.bucket_s
            self._seconds[node_key] = self._seconds.get(node_key, 0) + self.bucket_s

    def has_heard(self, node_key: bytes, now_s: int) -> bool:
        """Whether the bucket of `now_s`, or a later one, was credited."""
        return now_s // self.bucket_s <= self._last_bucket.get(node_key, -1)

    def settle(self, settled_s: Mapping[bytes, int], registered: Collection[bytes], now_s: int) -> None:
        """Catch up with the base (rule 3), and let go of keys that nothing names any more (rule 4).

        `settled_s` are the witnessed seconds of the base by node key.
        """
        for node_key, value_s in settled_s.items():
            if value_s > self._seconds.get(node_key, 0):
                self._seconds[node_key] = value_s
                self._last_bucket[node_key] = now_s // self.bucket_s
        for node_key in self._seconds.keys() - settled_s.keys() - set(registered):
            del self._seconds[node_key]
            self._last_bucket.pop(node_key, None)
