"""Inference engines as a source: the Prometheus text that vLLM, SGLang, TGI and llama.cpp serve.

Decides which engine answers and what its counters read. The text comes from a process of this host; it is
bounded (bytes, lines, series) and everything that is not in the table below is skipped unread.

1. The one engine whose names stand in the text is the one that answers; none, or several, is an error.
2. Sample names are matched whole, never family names: parsers of the text format strip or add `_total`,
   and `vllm:iteration_tokens_total` is a histogram in spite of its name.
3. Every set of labels is a series of its own (`agent.meter.counters` says why); labels differ by version, and
   since SGLang 0.5 by what the clients say, who must not be able to stop the reading: labels that are too long
   go by their hash, and of more series than the bound allows each counter is summed over all of its labels, under
   another source's name, so that counting begins anew there. A line that is too long is left out, and a note says
   so. Latency is always summed, or it would fill every bound.
4. Counts are whole numbers, or the reading is refused as a whole. Gauges are shown, so a bad one is left out.
5. A counter that is not there is absent, not zero; and none is derived from one that means something else.
6. Prompt tokens include those that came from a cache: llama.cpp, which counts them apart, is added up.

Known limits of the engines are in docs/engines.md; ADR 0025 says what is not read, and why.

Source: METERING, "Engine counters". vLLM `vllm/engine/metrics.py` (0.6), `vllm/v1/metrics/loggers.py`
(0.10, 0.33); SGLang `srt/metrics/collector.py` (0.4), `srt/observability/metrics_collector.py` (0.5); TGI
`router/src/server.rs`, `router/src/validation.rs` (2, 3); llama.cpp `examples/server/server.cpp` (2024),
`tools/server/server-task.cpp` (2026).
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from types import MappingProxyType

import httpx
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from agent.errors import InvalidSourceError, SourceUnavailableError
from agent.http_read import InvalidAnswerError, NoAnswerError, read_answer
from agent.meter.counters import COUNT_MAX, SERIES_MAX, SERIES_NAME_MAX, SUMMED, CounterSample, exact_count
from agent.meter.sources import SourceSample
from gossip.records import Source, Unit

PROMPT_TOKENS = Unit.PROMPT_TOKEN.name.lower()
CACHED_TOKENS = Unit.CACHED_TOKEN.name.lower()
"""Those of the prompt tokens that were not computed, as a cache had them."""
GENERATION_TOKENS = Unit.GENERATION_TOKEN.name.lower()
REQUESTS_FINISHED = Unit.TASK.name.lower()
REQUESTS_FAILED = Unit.FAILED_TASK.name.lower()
LATENCY_BUCKET = "latency_le_us:"
"""Prefix of the counters of requests that took at most so many microseconds, end to end; `inf` is the last.

Not milliseconds: TGI has several buckets below one, and two series must not fall together."""

REQUESTS_RUNNING = "requests_running"
REQUESTS_WAITING = "requests_waiting"
BODY_BYTES_MAX = 4 * 1024 * 1024
_LINES_MAX = 100_000
_LINE_CHARS_MAX = 8 * 1024
_SUMMED_NAME = "{}, labels summed"
"""The source, and its provenance, while its counters are summed over their labels."""
_LATENCY_S_MAX = 10**6
_TIMEOUT_S = 5
_HEADERS = {"Accept": "text/plain; version=0.0.4"}
_IS_ENABLED = "are its metrics enabled (SGLang: --enable-metrics, llama.cpp: --metrics), and is this their address?"
_HINTS: Mapping[int, str] = {
    401: "llama.cpp asks for its --api-key here too, and the agent has none: leave it to a proxy before the engine",
    404: _IS_ENABLED,
    501: _IS_ENABLED,
}
_START_TIME = "process_start_time_seconds"
_NAME = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*")
_TYPE = re.compile(r"# TYPE ([A-Za-z_:][A-Za-z0-9_:]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """How one kind of engine names its figures: exact sample names, without labels."""

    name: str
    prefix: str
    counters: Mapping[str, str]
    """Sample name -> counter."""
    latency: str | None
    """Histogram of whole requests, in seconds."""
    running: str
    waiting: str
    failed_reasons: frozenset[str] = frozenset()
    """Values of the label `finished_reason` that make a finished request a failed one."""
    cached_apart: bool = False
    """Whether its prompt tokens leave out the cached ones (rule 6)."""
    digits: int = 17
    """How many significant digits it prints."""
    names: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        buckets = () if self.latency is None else (f"{self.latency}_bucket",)
        names = frozenset((*self.counters, *buckets, self.running, self.waiting))
        object.__setattr__(self, "names", names)


ENGINES: Sequence[Engine] = (
    Engine(
        name="vllm",
        prefix="vllm:",
        counters={
            "vllm:prompt_tokens_total": PROMPT_TOKENS,
            "vllm:prompt_tokens_cached_total": CACHED_TOKENS,
            "vllm:generation_tokens_total": GENERATION_TOKENS,
            "vllm:request_success_total": REQUESTS_FINISHED,
        },
        latency="vllm:e2e_request_latency_seconds",
        running="vllm:num_requests_running",
        waiting="vllm:num_requests_waiting",
        failed_reasons=frozenset({"abort", "error"}),
    ),
    Engine(
        name="sglang",
        prefix="sglang:",
        counters={
            "sglang:prompt_tokens_total": PROMPT_TOKENS,
            "sglang:cached_tokens_total": CACHED_TOKENS,
            "sglang:generation_tokens_total": GENERATION_TOKENS,
            "sglang:num_requests_total": REQUESTS_FINISHED,
            "sglang:num_aborted_requests_total": REQUESTS_FAILED,
        },
        latency="sglang:e2e_request_latency_seconds",
        running="sglang:num_running_reqs",
        waiting="sglang:num_queue_reqs",
    ),
    Engine(
        name="tgi",
        prefix="tgi_",
        counters={
            "tgi_request_input_length_sum": PROMPT_TOKENS,
            "tgi_request_generated_tokens_sum": GENERATION_TOKENS,
            "tgi_request_success": REQUESTS_FINISHED,
            "tgi_request_failure": REQUESTS_FAILED,
        },
        latency="tgi_request_duration",
        running="tgi_batch_current_size",
        waiting="tgi_queue_size",
    ),
    Engine(
        name="llamacpp",
        prefix="llamacpp:",
        counters={
            "llamacpp:prompt_tokens_total": PROMPT_TOKENS,
            "llamacpp:prompt_tokens_cached_total": CACHED_TOKENS,
            "llamacpp:tokens_predicted_total": GENERATION_TOKENS,
        },
        latency=None,
        running="llamacpp:requests_processing",
        waiting="llamacpp:requests_deferred",
        cached_apart=True,
        digits=6,
    ),
)
_BY_SAMPLE: Mapping[str, Engine] = MappingProxyType({name: e for e in ENGINES for name in e.names})


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSample:
    """What an exposition said: the counters, and how many requests run and wait (None: not told)."""

    counters: CounterSample
    running: int | None
    waiting: int | None
    notes: tuple[str, ...] = ()


class EngineSource:
    """An engine's metrics as a source of the meter."""

    source = Source.ENGINE

    def __init__(self, client: httpx.AsyncClient, *, url: str, instance: int = 0) -> None:
        """Read `url` with `client`, which stays its owner's to close; `instance` is 0..255."""
        self._client = client
        self._url = url
        self.instance = instance

    async def sample(self) -> SourceSample:
        """Scrape it once, within 5 s; cancellation closes the connection.

        Raises:
            SourceUnavailableError: no answer in time, or another status than 200.
            InvalidSourceError: the answer is not the exposition of one engine.
        """
        reading = await scrape(self._client, self._url)
        told = {REQUESTS_RUNNING: reading.running, REQUESTS_WAITING: reading.waiting}
        return SourceSample(
            # An engine is told apart by where it answers, too: whoever changes the order of the URLs takes another's
            # past for its own otherwise.
            counters=replace(reading.counters, source=f"{reading.counters.source} at {self._url}"),
            provenance=reading.counters.source,
            gauges={name: value for name, value in told.items() if value is not None},
            notes=reading.notes,
        )


def parse_exposition(text: str) -> EngineSample:
    """Read a Prometheus text exposition (format 0.0.4).

    Raises:
        InvalidSourceError: no known engine or several of them, a malformed line, a value that is not a
            count, too many buckets.
    """
    if text.count("\n") > _LINES_MAX:
        raise InvalidSourceError(f"exposition: more than {_LINES_MAX} lines")
    engine = _detect(text)
    series: dict[str, int] = {}
    load: dict[str, int] = {}
    start_s = None
    wanted, left_out = _wanted(text, engine)
    for sample in _samples(wanted, engine):
        if sample.name == _START_TIME:
            start_s = exact_count(_START_TIME, sample.value // 1)
        elif sample.name in (engine.running, engine.waiting):
            _add_gauge(load, sample)
        elif sample.name == f"{engine.latency}_bucket":
            name = f"{LATENCY_BUCKET}{_bound_us(sample.labels.get('le', ''))}{{}}"
            series[name] = series.get(name, 0) + exact_count(name, sample.value)
        else:
            _add_series(series, engine, sample)
    name, notes = engine.name, _notes(engine, series, left_out)
    if len(series) > SERIES_MAX:
        notes += (f"{engine.name} tells {len(series)} series: each counter is summed over its labels",)
        name, series = _SUMMED_NAME.format(engine.name), _summed(series)
    if len(series) > SERIES_MAX:
        raise InvalidSourceError(f"{engine.name}: more than {SERIES_MAX} series")
    return EngineSample(
        counters=CounterSample(source=name, start_s=start_s, series=series),
        running=load.get(engine.running),
        waiting=load.get(engine.waiting),
        notes=notes,
    )


async def scrape(client: httpx.AsyncClient, url: str) -> EngineSample:
    """Fetch and read the exposition at `url`, at most 4 MiB within 5 s; cancellation closes the connection.

    Raises:
        SourceUnavailableError: no answer in time, or another status than 200.
        InvalidSourceError: the answer is too long, compressed, not UTF-8, or not an engine's exposition.
    """
    try:
        status, body = await read_answer(client, url, timeout_s=_TIMEOUT_S, bytes_max=BODY_BYTES_MAX, headers=_HEADERS)
    except NoAnswerError as error:
        raise SourceUnavailableError(f"{url}: {error}") from error
    except InvalidAnswerError as error:
        raise InvalidSourceError(f"{url}: {error}") from error
    if status != httpx.codes.OK:
        hint = _HINTS.get(status)
        raise SourceUnavailableError(f"{url}: answered status {status}" + (f"; {hint}" if hint else ""))
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise InvalidSourceError(f"{url}: not UTF-8 text") from error
    return parse_exposition(text)


def _detect(text: str) -> Engine:
    """The one engine whose names stand in the text; a fresh vLLM 0.6 has declared, but not used, its own."""
    declared = {match[1] for line in _lines(text) if (match := _TYPE.match(line))}
    names = declared | {name for line in _lines(text) if (name := _name(line)) in _BY_SAMPLE}
    found = [engine for engine in ENGINES if any(name.startswith(engine.prefix) for name in names)]
    if not found:
        known = ", ".join(engine.name for engine in ENGINES)
        raise InvalidSourceError(f"exposition: no metrics of {known} in it; {_IS_ENABLED}")
    if len(found) > 1:
        several = ", ".join(engine.name for engine in found)
        raise InvalidSourceError(f"exposition: metrics of several engines ({several}); name the address of one")
    return found[0]


def _wanted(text: str, engine: Engine) -> tuple[list[str], int]:
    """The lines of the table, in order, and how many are left out (rule 3)."""
    found = [line for line in _lines(text) if (name := _name(line)) in engine.names or name == _START_TIME]
    wanted = [line for line in found if len(line) <= _LINE_CHARS_MAX]
    return wanted, len(found) - len(wanted)


def _samples(wanted: Sequence[str], engine: Engine) -> Iterator[Sample]:
    """The samples of the wanted lines.

    Only these reach the parser, and no comments: so it keeps sample names as they are (rule 2).
    """
    try:
        samples = [s for family in text_string_to_metric_families("\n".join(wanted)) for s in family.samples]
    except (ValueError, IndexError) as error:
        raise InvalidSourceError(f"exposition: {error}") from error
    for sample in samples:
        # The parser and `_name` need not agree on where a damaged line's name ends.
        if sample.name not in engine.names and sample.name != _START_TIME:
            raise InvalidSourceError(f"exposition: {sample.name!r:.80} is not a name of {engine.name}")
        yield sample


def _add_series(series: dict[str, int], engine: Engine, sample: Sample) -> None:
    counter = engine.counters[sample.name]
    if sample.labels.get("finished_reason") in engine.failed_reasons:
        counter = REQUESTS_FAILED
    _add_one(series, counter, sample.labels, sample.value)
    if counter == CACHED_TOKENS and engine.cached_apart:
        _add_one(series, PROMPT_TOKENS, {**sample.labels, "cached": "true"}, sample.value)


def _add_one(series: dict[str, int], counter: str, labels: Mapping[str, str], value: float) -> None:
    """`counter{label="value",...}`, labels in order: equal for equal series, whatever order they came in."""
    pairs = ",".join(f"{key}={value!r}" for key, value in sorted(labels.items()))
    if len(counter) + len(pairs) + 2 > SERIES_NAME_MAX:
        pairs = hashlib.sha256(pairs.encode()).hexdigest()
    name = f"{counter}{{{pairs}}}"
    if name in series:
        raise InvalidSourceError(f"{name}: stands twice")
    series[name] = exact_count(name, value)


def _summed(series: Mapping[str, int]) -> dict[str, int]:
    """One series for each counter."""
    sums: dict[str, int] = {}
    for name, value in series.items():
        counter, _, _ = name.partition("{")
        # Buckets of the latency are sums already; they stay what they are.
        total = name if counter.startswith(LATENCY_BUCKET) else counter + SUMMED
        sums[total] = exact_count(total, sums.get(total, 0) + value)
    return sums


def _add_gauge(load: dict[str, int], sample: Sample) -> None:
    """Sum a gauge over its labels; SGLang's shares of one priority are in the total beside them already."""
    if math.isfinite(sample.value) and 0 <= sample.value <= COUNT_MAX and not sample.labels.get("priority"):
        load[sample.name] = load.get(sample.name, 0) + round(sample.value)


def _notes(engine: Engine, series: Mapping[str, int], left_out: int) -> tuple[str, ...]:
    """What the operator cannot see elsewhere: tokens that this engine does not count, or only roughly."""
    counted = {name.partition("{")[0] for name in series}
    missing = [name for name in (PROMPT_TOKENS, GENERATION_TOKENS) if name not in counted]
    notes = [f"{engine.name} does not tell {name} (yet): none are recorded" for name in missing]
    if left_out:
        notes.append(f"{left_out} lines of {engine.name} are longer than {_LINE_CHARS_MAX} characters: not counted")
    largest = max(series.values(), default=0)
    if largest >= 10**engine.digits:
        step = 10 ** (len(str(largest)) - engine.digits)
        notes.append(f"{engine.name} prints {engine.digits} digits: its counters move in steps of up to {step} tokens")
    return tuple(notes)


def _bound_us(le: str) -> str:
    """A bucket's upper bound, from decimal seconds to microseconds, rounded up; or `inf`."""
    if le == "+Inf":
        return "inf"
    try:
        seconds = Decimal(le)
    except InvalidOperation as error:
        raise InvalidSourceError(f"le: {le!r:.40} is not a bound") from error
    if not (seconds.is_finite() and 0 <= seconds <= _LATENCY_S_MAX):
        raise InvalidSourceError(f"le: {le!r:.40} is not a bound")
    return str(int((seconds * 10**6).to_integral_value(ROUND_CEILING)))


def _name(line: str) -> str:
    match = _NAME.match(line)
    return match[0] if match else ""


def _lines(text: str) -> Iterator[str]:
    """Lines as the text format ends them: `str.splitlines` would also split inside label values."""
    return (line.strip(" \t\r") for line in text.split("\n"))
