"""The stand-in's model: seeded completions, and the metrics that vLLM would show for them.

Names, labels, types and buckets are those of vLLM v1 (0.9 and 0.10, `vllm/v1/metrics/loggers.py`). As there,
an aborted request counts its prompt and nothing else. Counts are exact: what `/metrics` reports is what ran.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

import trio
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

MODEL = "devnet/tiny-random"
PROMPT_TOKENS_MAX = 8192
SERVED_KEPT_S = 3600
_TTFT_BUCKETS_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_E2E_BUCKETS_S = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0)
_LABELS = ("model_name", "engine")
_WORDS = ["the", "pool", "settles", "what", "its", "hosts", "have", "proven", "they", "computed", "in", "this", "epoch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """How long the model takes: seconds for the prompt, and per generated token."""

    prompt_s: float = 0.02
    token_s: float = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A finished request; `finish_reason` is `stop`, `length` or `error`."""

    text: str
    prompt_tokens: int
    generation_tokens: int
    finish_reason: str


class Model:
    """Completions by seed. `restart` is what a restarted engine looks like: counters at zero, a new start time.

    An honest one has no `inflation`: its metrics count each token so many times. One that `is_idle` serves nobody,
    whatever its metrics say.
    """

    def __init__(
        self, seed: int, speed: Speed, *, error_per_mille: int = 0, inflation: int = 1, is_idle: bool = False
    ) -> None:
        self._random = random.Random(seed)
        self._speed = speed
        self._error_per_mille = error_per_mille
        self._inflation = inflation
        self._is_idle = is_idle
        self.vllm = VllmMetrics()
        self.served: dict[int, int] = {}
        """What was delivered in truth: tokens by the second (Unix) in which their request ended; for a gateway."""

    def restart(self) -> None:
        self.vllm = VllmMetrics()

    async def complete(self, prompt_tokens: int, tokens_max: int) -> Completion:
        """Run one request; cancelled, it is an aborted one.

        `prompt_tokens` in [1, PROMPT_TOKENS_MAX], `tokens_max` >= 1.
        """
        tokens = self._random.randint(1, tokens_max)
        failed = self._random.randrange(1000) < self._error_per_mille
        # A restart in between must not mix two lives of the engine.
        vllm = self.vllm
        started = trio.current_time()
        vllm.running.inc()
        try:
            vllm.prompt_tokens.inc(prompt_tokens * self._inflation)
            await trio.sleep(self._speed.prompt_s)
            vllm.first_token.observe(trio.current_time() - started)
            await trio.sleep(tokens * self._speed.token_s)
        finally:
            vllm.running.dec()
        reason = "error" if failed else "length" if tokens == tokens_max else "stop"
        vllm.generation_tokens.inc(tokens * self._inflation)
        vllm.finished[reason].inc()
        if not (failed or self._is_idle):
            self._note_served(int(time.time()), prompt_tokens + tokens)
        vllm.latency.observe(trio.current_time() - started)
        text = " ".join(self._random.choices(_WORDS, k=tokens))
        return Completion(text=text, prompt_tokens=prompt_tokens, generation_tokens=tokens, finish_reason=reason)

    def _note_served(self, now_s: int, tokens: int) -> None:
        self.served[now_s] = self.served.get(now_s, 0) + tokens
        for time_s in [time_s for time_s in self.served if time_s < now_s - SERVED_KEPT_S]:
            del self.served[time_s]


class VllmMetrics:
    """One life of an engine: its registry, with the families that the agent reads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        start = Gauge(
            "process_start_time_seconds", "Start time of the process since unix epoch", registry=self.registry
        )
        start.set(time.time())
        labels = (MODEL, "0")
        self.running = self._gauge("num_requests_running", "Number of requests in model execution batches.")
        self.waiting = self._gauge("num_requests_waiting", "Number of requests waiting to be processed.")
        self.prompt_tokens = self._counter("prompt_tokens", "Number of prefill tokens processed.")
        self.generation_tokens = self._counter("generation_tokens", "Number of generation tokens processed.")
        finished = Counter(
            "vllm:request_success",
            "Count of successfully processed requests.",
            (*_LABELS, "finished_reason"),
            registry=self.registry,
        )
        self.finished = {r: finished.labels(*labels, r) for r in ("stop", "length", "abort", "error")}
        self.first_token = self._histogram(
            "time_to_first_token_seconds", "Histogram of time to first token in seconds.", _TTFT_BUCKETS_S
        )
        self.latency = self._histogram(
            "e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", _E2E_BUCKETS_S
        )

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"vllm:{name}", text, _LABELS, registry=self.registry).labels(MODEL, "0")

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"vllm:{name}", text, _LABELS, registry=self.registry).labels(MODEL, "0")

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        family = Histogram(f"vllm:{name}", text, _LABELS, buckets=buckets, registry=self.registry)
        return family.labels(MODEL, "0")
