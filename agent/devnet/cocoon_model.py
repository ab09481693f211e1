"""The stand-in worker's books: what it counted in this life, and what it earned with each proxy.

Counts are exact: what is shown is what was served. Tokens are adjusted as Cocoon does it, rounded down part by part,
so that what a proxy owes is what the worker counted. A restart forgets the counts; the proxies do not forget.

Source: `ByteTokenCounter::usage`, `WorkerRunningRequest::finish_request` in github.com/TelegramMessenger/cocoon.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import trio

from agent.errors import OperationError
from contracts.model import Address

PARTS = ("prompt", "cached", "completion", "reasoning")
_CACHED_PERCENT, _REASONING_PERCENT = 25, 10
_TOKEN_S = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariff:
    """By what tokens are multiplied: the worker's coefficient per mille, the root contract's multipliers by 10,000."""

    coefficient: int = 1000
    params_version: int = 3
    multipliers: Mapping[str, int] = field(
        default_factory=lambda: {"prompt": 5_000, "cached": 1_000, "completion": 20_000, "reasoning": 20_000}
    )

    def adjusted(self, part: str, tokens: int) -> int:
        return tokens * self.coefficient * self.multipliers[part] // (1000 * 10_000)


@dataclass(slots=True, kw_only=True)
class Earnings:
    """The books with one proxy, in adjusted tokens: known >= in_database >= signed >= paid_out."""

    proxy: Address
    proxy_public_key: bytes
    worker: Address
    known: int = 0
    in_database: int = 0
    signed: int = 0
    paid_out: int = 0
    is_connected: bool = True


@dataclass(slots=True, kw_only=True)
class Life:
    """The counters between two restarts."""

    queries: int = 0
    succeeded: int = 0
    failed: int = 0
    adjusted: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PARTS, 0))


class WorkerModel:
    """A worker of `owner` that serves the given proxies, by seed. `error_per_mille` of its requests fail.

    An honest one has no `inflation`: its statistics count each token so many times. One that `is_idle` serves no proxy,
    whatever its statistics say.
    """

    def __init__(
        self,
        seed: int,
        owner: Address,
        proxies: Sequence[Earnings],
        tariff: Tariff | None = None,
        *,
        error_per_mille: int = 0,
        inflation: int = 1,
        is_idle: bool = False,
    ) -> None:
        self._random = random.Random(seed)
        self._error_per_mille = error_per_mille
        self._inflation = inflation
        self._is_idle = is_idle
        self.owner = owner
        self.proxies = list(proxies)
        self.tariff = Tariff() if tariff is None else tariff
        self.life = Life()
        self.running = 0
        self.is_engine_connected = True
        self.is_enabled = True

    def restart(self) -> None:
        self.life = Life()

    async def serve(self, prompt_tokens: int, tokens_max: int) -> None:
        """Answer one request for one of the proxies; cancelled, it was never there."""
        tokens = self._random.randint(1, tokens_max)
        is_failed = self._random.randrange(1000) < self._error_per_mille
        proxy = self._random.choice(self.proxies)
        # A restart in between must not mix two lives.
        life = self.life
        self.running += 1
        try:
            await trio.sleep(tokens * _TOKEN_S)
        finally:
            self.running -= 1
        life.queries += 1
        if is_failed:
            life.failed += 1
            return
        life.succeeded += 1
        cached, reasoning = prompt_tokens * _CACHED_PERCENT // 100, tokens * _REASONING_PERCENT // 100
        used = {"prompt": prompt_tokens - cached, "cached": cached, "completion": tokens - reasoning}
        for part, amount in {**used, "reasoning": reasoning}.items():
            adjusted = self.tariff.adjusted(part, amount)
            life.adjusted[part] += adjusted * self._inflation
            proxy.known += 0 if self._is_idle else adjusted

    def flush(self) -> None:
        """The proxies write down what they know."""
        for proxy in self.proxies:
            proxy.in_database = proxy.known

    def pay(self, proxy_public_key: bytes, tokens: int) -> None:
        """The proxy signed for `tokens` (all that was ever earned with it), and the chain took it.

        Raises:
            OperationError: there is no such proxy, or it never owed that much, or had paid more already.
        """
        proxy = next((p for p in self.proxies if p.proxy_public_key == proxy_public_key), None)
        if proxy is None:
            raise OperationError(f"proxy {proxy_public_key.hex()}: not one of this worker's")
        if not proxy.paid_out <= tokens <= proxy.in_database:
            raise OperationError(f"tokens: expected {proxy.paid_out} to {proxy.in_database}, got {tokens}")
        proxy.signed = proxy.paid_out = tokens
