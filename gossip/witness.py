"""Witnessed uptime: in how many time buckets this node heard from each participant, ever.

A participant is heard when something that only its key could make arrives directly from it (an answer on
an authenticated stream) or when a new record of its log does. One sign of life credits its whole bucket.
Readings are cumulative, so a lost observation loses nothing.

Source: PROTOCOL, "Words" (observation) and "Tally".
"""

from __future__ import annotations

from collections.abc import Mapping


class Witness:
    """Cumulative witnessed seconds by node key; `bucket_s` is the policy's granularity."""

    def __init__(self, bucket_s: int, seconds: Mapping[bytes, int] | None = None) -> None:
        self._bucket_s = bucket_s
        self._seconds = dict(seconds or {})
        self._last_bucket: dict[bytes, int] = {}

    @property
    def seconds(self) -> Mapping[bytes, int]:
        """What an observation reports and the journal keeps."""
        return self._seconds

    def hear(self, node_key: bytes, now_s: int) -> None:
        """Credit the bucket of `now_s`, unless it was credited; a clock that stepped back credits nothing."""
        bucket = now_s // self._bucket_s
        if bucket > self._last_bucket.get(node_key, -1):
            self._last_bucket[node_key] = bucket
            self._seconds[node_key] = self._seconds.get(node_key, 0) + self._bucket_s
