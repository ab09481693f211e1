"""Who hears whom: what the operators' observations of an epoch say of the time in which they heard one another.

Pure. Observations are signed by operators, any of whom may lie: what follows from them here is shown, never counted.

1. Readings are cumulative. What an operator heard in an epoch is what its reading grew by since its own reading of the
   epoch before, or since the settled one, whichever is more: a reading that lags is raised to the settled one.
2. What is known is kept until the next epoch closes: between two closes nothing newer is known.
3. Only of the keys that are asked for is anything kept.

Source: PROTOCOL, "Words" (observation); `gossip.witness`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gossip.epoch_close import EpochClose
from gossip.messages import Observation


class Hearing:
    """What one node knows of it; `epoch` is the one that it is of, None before the first."""

    def __init__(self) -> None:
        self.epoch: int | None = None
        self._looked_at: tuple[int, int, tuple[bytes, ...]] | None = None
        self._before: dict[bytes, dict[bytes, int]] = {}
        self._now: dict[bytes, dict[bytes, int]] = {}
        self._settled: dict[bytes, int] = {}

    def look(self, machine: EpochClose, keys: Sequence[bytes]) -> None:
        """Take what came of the open epoch, as far as it is about `keys`; nothing happens while none is open."""
        epoch = machine.closing
        if epoch is None:
            return
        observations = [message for message in machine.messages(epoch) if isinstance(message, Observation)]
        looked_at = (epoch, len(observations), tuple(keys))
        if not observations or looked_at == self._looked_at:
            return
        if epoch != self.epoch:
            self.epoch, self._before, self._now = epoch, self._now, {}
        self._settled = {key: machine.base.reading(key).witnessed_s for key in keys}
        for observation in observations:
            logs = observation.logs
            self._now[observation.operator] = {key: logs[key].witnessed_s for key in keys if key in logs}
        self._looked_at = looked_at

    def heard_s(self) -> Mapping[bytes, Mapping[bytes, int]]:
        """By operator who observed: in how many seconds of the epoch it heard each of the keys, itself left out."""
        return {
            operator: {key: self._grown(operator, key, value_s) for key, value_s in read.items() if key != operator}
            for operator, read in self._now.items()
        }

    def _grown(self, operator: bytes, key: bytes, value_s: int) -> int:
        before_s = max(self._before.get(operator, {}).get(key, 0), self._settled.get(key, 0))
        return max(0, value_s - before_s)
