"""The collateral for a quote, when it is needed: from the store, and from the service when that is due.

1. What is held is used until it is due (`Held.due_s`); then it is fetched anew, one fetch at a time per key.
2. What is fetched counts only if the store admits it.
3. If that fails, what is held is used as long as it is valid, and the error is shown in `error`.
4. After a failure, a minute passes before the next attempt. Hosts that started together do not renew together.

Elsewhere: what is admitted (`collateral_store`), how it is fetched (`pcs`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from random import random
from typing import Protocol

import trio

from attestation.collateral import Collateral
from attestation.collateral_key import CollateralKey, Held, Update, collateral_key, require_not_older
from attestation.collateral_store import CollateralStore
from attestation.errors import AttestationError, CollateralStoreError, InvalidCollateralError

FAILURE_PAUSE_S = 60

log = logging.getLogger(__name__)


class CollateralFetcher(Protocol):
    """Where collateral comes from; `PcsClient` is one."""

    async def fetch(self, key: CollateralKey) -> Collateral:
        """Fetch unverified collateral of `key`, or raise `CollateralUnavailableError`."""
        ...


@dataclass(slots=True)
class _Turn:
    """What is known of one key. There are as many as Intel has families of processors, at most."""

    lock: trio.Lock = field(default_factory=trio.Lock)
    failed_s: int = 0
    error: AttestationError | None = None
    unkept: Held | None = None
    """Admitted, while the disk is full."""

    def failed(self, key: CollateralKey, now_s: int, error: AttestationError) -> None:
        if str(error) != str(self.error):
            log.warning("collateral of %s is not renewed: %s", key, error)
        self.error, self.failed_s = error, now_s

    def pauses(self, now_s: int) -> bool:
        """Whether it is too soon after a failure to try again; never if the clock was put back since."""
        return self.error is not None and 0 <= now_s - self.failed_s < FAILURE_PAUSE_S


class CollateralSource:
    """Collateral for quotes up to `root` (DER). `rand` gives numbers in [0, 1) and is asked once."""

    def __init__(
        self,
        fetcher: CollateralFetcher,
        store: CollateralStore,
        *,
        root: bytes,
        update: Update = Update.STANDARD,
        rand: Callable[[], float] = random,
    ) -> None:
        self._fetcher = fetcher
        self._store = store
        self._root = root
        self._update = update
        self._advance = rand() / 5
        """By which part of its time this host renews early (rule 4)."""
        self._turns: dict[CollateralKey, _Turn] = {}

    @property
    def error(self) -> AttestationError | None:
        """What went wrong last, for the status; None when all went well since."""
        failed = [turn for turn in self._turns.values() if turn.error is not None]
        return max(failed, key=lambda turn: turn.failed_s).error if failed else None

    async def collateral(self, raw_quote: bytes, now_s: int) -> Collateral:
        """The newest collateral for `raw_quote` that can be used at `now_s` (Unix seconds).

        Cancellation leaves behind what was held, or what was fetched, whole.

        Raises:
            InvalidQuoteError: the quote does not say which collateral it needs.
            CollateralUnavailableError: none is held that is valid, and none can be fetched.
            InvalidCollateralError: likewise, and what was fetched is refused.
        """
        key = collateral_key(raw_quote, root=self._root, update=self._update)
        turn = self._turns.setdefault(key, _Turn())
        async with turn.lock:
            held = await self._held(key, turn, now_s)
            if held is not None and (now_s < self._renewal_s(held) or turn.pauses(now_s)):
                return held.collateral
            if turn.error is not None and turn.pauses(now_s):
                raise turn.error.with_traceback(None)
            try:
                held = await self._renew(key, turn, now_s)
            except AttestationError as error:
                turn.failed(key, now_s, error)
                if held is None:
                    raise
            return held.collateral

    async def _held(self, key: CollateralKey, turn: _Turn, now_s: int) -> Held | None:
        if turn.unkept is not None:
            try:
                turn.unkept.verified.require_valid(now_s)
            except InvalidCollateralError:
                turn.unkept = None
            else:
                return turn.unkept
        return await trio.to_thread.run_sync(self._store.newest, key, now_s)

    async def _renew(self, key: CollateralKey, turn: _Turn, now_s: int) -> Held:
        fetched = await self._fetcher.fetch(key)
        held = await trio.to_thread.run_sync(self._store.admit, key, fetched, now_s)
        if turn.unkept is not None:
            require_not_older(held.issue, turn.unkept.issue)
        try:
            await trio.to_thread.run_sync(self._store.keep, held)
        except CollateralStoreError as error:
            # It is as good as if it were on the disk, until the next start.
            turn.failed(key, now_s, error)
            turn.unkept = held
        else:
            turn.error = turn.unkept = None
        return held

    def _renewal_s(self, held: Held) -> float:
        return held.due_s - (held.due_s - held.kept_s) * self._advance
