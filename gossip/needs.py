"""Needs: what the open epoch's decisions wait for, without looking through all observations again every time.

A decision needs the chains behind thousands of observed heads, and is looked at anew with every record that arrives.
So what is missing is remembered: a look costs no more than what has arrived since the last one.

1. Records only arrive while an epoch is open, and proven forks only excuse heads: a need that is met stays met.
2. At most `NEEDS_MAX` missing heads of a decision are remembered; when these are here, the rest is looked for.
3. What a fork excuses that no listed observation proves, is not excused: a follower knows the list alone.
4. A settlement that lacks more than records (an anchor, an attachment) is not computed again before such a thing came.

Elsewhere: which heads are needed (`gossip.cut`), fetching them (`gossip.pull`).

Source: docs/adr/0022.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TypeAlias

from gossip.cut import ProvenFork, missing_range, needed_heads, proven_forks
from gossip.errors import DataUnavailableError, InvalidMessageError
from gossip.log_chain import Head, Log, LogBook
from gossip.messages import Observation
from gossip.settlement import Base

NEEDS_MAX = 512
"""Missing heads that are remembered of one decision."""
LISTS_MAX = 64
"""Lists of observations whose needs are remembered; the oldest gives way, and is looked through again."""

Scan: TypeAlias = Callable[[], Iterable[tuple[Log, Head]]]


class Readiness:
    """What is here of all that the observations of one epoch need, above `base` in `logs`."""

    def __init__(self, base: Base, logs: LogBook) -> None:
        self._base = base
        self._logs = logs
        self._forks: dict[bytes, ProvenFork] = {}
        """The lowest fork of each log that any observation proved."""
        self._of_one: dict[bytes, Needs] = {}
        self._of_lists: dict[frozenset[bytes], Needs] = {}
        self._blocked: dict[frozenset[bytes], frozenset[object]] = {}
        self._unmet: list[Needs] = []
        self._noted: set[object] = set()

    def begin(self) -> None:
        """Look at everything anew: `wanted` is what is found to be missing from now on."""
        self._unmet, self._noted = [], set()

    @property
    def is_waiting(self) -> bool:
        """Whether anything was found to be missing."""
        return bool(self._unmet or self._noted)

    @property
    def wanted(self) -> frozenset[object]:
        """What the last look found to be missing, and is not here yet: ranges of records, and whatever was noted."""
        return frozenset(self._noted).union(*(needs.missing() for needs in self._unmet))

    def note(self, missing: Iterable[object]) -> None:
        """Want these, too."""
        self._noted |= frozenset(missing)

    # Observations one by one: which of them a leader may list.

    def add(self, observation: Observation, *, in_place_of: Observation | None) -> None:
        """Take a fork that it proves into account: what lies above is not needed any more.

        What `in_place_of`, which is not held any more, proved stays proven.
        """
        if in_place_of is not None:
            self._of_one.pop(in_place_of.digest, None)
        for node_key, fork in proven_forks([observation]).items():
            known = self._forks.get(node_key)
            if known is None or fork.seq < known.seq:
                self._forks[node_key] = fork
                for needs in self._of_one.values():
                    needs.forget(node_key)

    def usable(
        self, observations: Iterable[Observation], index_of: Callable[[bytes], int | None]
    ) -> dict[int, Observation]:
        """One observation of each operator that may be listed with the others, by index: its first that is usable.

        What the others lack is wanted from now on.
        """
        usable: dict[int, Observation] = {}
        for observation in observations:
            index = index_of(observation.operator)
            # One that never is usable stays in the count of its operator's observations.
            with suppress(InvalidMessageError):
                if index is not None and index not in usable and self.is_usable(observation):
                    usable[index] = observation
        return self._listable(usable)

    def _listable(self, usable: dict[int, Observation]) -> dict[int, Observation]:
        """Those that stay usable by the forks that they prove themselves (rule 3)."""
        while True:
            forks = proven_forks(usable.values())
            excused = [key for key, fork in self._forks.items() if key not in forks or forks[key].seq > fork.seq]
            kept = {index: o for index, o in usable.items() if self._is_met_by(o, excused, forks)}
            if len(kept) == len(usable):
                return usable
            usable = kept

    def _is_met_by(
        self, observation: Observation, node_keys: Collection[bytes], forks: Mapping[bytes, ProvenFork]
    ) -> bool:
        """Whether all is here that is needed of these logs, given these forks alone; what is missing is wanted."""
        part = replace(observation, logs={k: observation.logs[k] for k in node_keys if k in observation.logs})
        try:
            needed = list(needed_heads(self._base, [part], self._logs, forks))
        except InvalidMessageError:  # it stays in the count of its operator's observations
            return False
        missing = [missing_range(log, head) for log, head in needed if not log.holds(head)]
        self.note(missing)
        return not missing

    def is_usable(self, observation: Observation) -> bool:
        """Whether all records are here that a cut needs of this observation, given every fork that was proven.

        Raises:
            InvalidMessageError: it never will be.
        """
        needs = self._of_one.get(observation.digest)
        if needs is None:
            scan = partial(needed_heads, self._base, [observation], self._logs, self._forks)
            needs = self._of_one[observation.digest] = Needs(scan)
        return self._are_met(needs)

    # Observations that are listed together: what may be computed.

    def require(self, observations: Sequence[Observation]) -> None:
        """Return if the settlement of these observations may be tried.

        Raises:
            DataUnavailableError: something is missing, and wanted from now on.
            InvalidMessageError: no settlement follows from them.
        """
        key = digests(observations)
        if key in self._blocked:
            raise DataUnavailableError("evidence cannot be judged yet", self._blocked[key])
        needs = self._of_lists.get(key)
        if needs is None:
            if len(self._of_lists) >= LISTS_MAX:
                del self._of_lists[next(iter(self._of_lists))]
            forks = proven_forks(observations)
            needs = self._of_lists[key] = Needs(partial(needed_heads, self._base, observations, self._logs, forks))
        if not self._are_met(needs):
            raise DataUnavailableError("records behind an observation are not here yet")

    def block(self, observations: Sequence[Observation], missing: frozenset[object]) -> None:
        """The settlement of these lacks `missing`, which are no records (rule 4)."""
        if len(self._blocked) >= LISTS_MAX:
            del self._blocked[next(iter(self._blocked))]
        self._blocked[digests(observations)] = missing

    def unblock(self) -> None:
        """Something came that is no record."""
        self._blocked.clear()

    def _are_met(self, needs: Needs) -> bool:
        if needs.are_met():
            return True
        self._unmet.append(needs)
        return False


class Needs:
    """The heads that `scan` names and that are not here. Raises what `scan` raises, when it is looked at."""

    def __init__(self, scan: Scan) -> None:
        self._scan = scan
        self._missing: list[tuple[Log, Head]] = []
        self._is_all = False
        self._refusal: str | None = None
        """Why they never will be met."""

    def are_met(self) -> bool:
        """Whether all of them are here by now."""
        if self._refusal is not None:
            raise InvalidMessageError(self._refusal)
        while True:
            while self._missing and _holds(*self._missing[-1]):
                self._missing.pop()
            if self._missing:
                return False
            if self._is_all:
                return True
            self._look()

    def _look(self) -> None:
        try:
            self._missing = list(islice((need for need in self._scan() if not _holds(*need)), NEEDS_MAX))
        except InvalidMessageError as error:
            self._refusal = str(error)
            raise
        self._is_all = len(self._missing) < NEEDS_MAX

    def missing(self) -> frozenset[object]:
        """The ranges of records to fetch for those that are remembered."""
        return frozenset(missing_range(log, head) for log, head in self._missing if not log.holds(head))

    def forget(self, node_key: bytes) -> None:
        """A fork of this log was proven: look anew, unless nothing of it is missing."""
        if any(log.node_key == node_key for log, _ in self._missing):
            self._missing, self._is_all = [], False


def digests(observations: Iterable[Observation]) -> frozenset[bytes]:
    """Names observations that are listed together, in whatever order."""
    return frozenset(observation.digest for observation in observations)


def _holds(log: Log, head: Head) -> bool:
    return log.holds(head)
