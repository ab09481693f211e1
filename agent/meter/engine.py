"""Inference engines as a source: the Prometheus text that vLLM, SGLang, TGI and llama.cpp serve.

Decides which engine answers and what its counters read. The text comes from a process of this host; it is
bounded (bytes, lines, series) and everything that is not in the table below is skipped unread.

1. Sample names are matched whole, never family names: parsers of the text format strip or add `_total`,
   and `vllm:iteration_tokens_total` is a histogram in spite of its name.
2. Every set of labels is a series of its own (`agent.meter.counters` says why); labels differ by version.
3. Counts are whole numbers, or the reading is refused as a whole.
4. A counter that is not there is absent, not zero.

Known limits of the engines: vLLM counts the prompt of an aborted request but not the request; llama.cpp
prints six significant digits, so its counters move in steps once they pass a million.

Source: METERING, "Engine counters". vLLM `vllm/engine/metrics.py` (0.6), `vllm/v1/metrics/loggers.py`
(0.9, 0.10); SGLang `srt/metrics/collector.py`; TGI `router/src/server.rs`; llama.cpp `tools/server`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from types import MappingProxyType

import httpx
import trio
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from agent.errors import InvalidSourceError, SourceUnavailableError
from agent.meter.counters import SERIES_MAX, SERIES_NAME_MAX, CounterSample, exact_count

PROMPT_TOKENS = "prompt_tokens"
GENERATION_TOKENS = "generation_tokens"
REQUESTS_FINISHED = "requests_finished"
REQUESTS_FAILED = "requests_failed"
LATENCY_BUCKET = "latency_le_us:"
"""Prefix of the counters of requests that took at most so many microseconds, end to end; `inf` is the last.

Not milliseconds: TGI has several buckets below one, and two series must not fall together."""

BODY_BYTES_MAX = 4 * 1024 * 1024
_LINES_MAX = 100_000
_LINE_CHARS_MAX = 8 * 1024
_LATENCY_S_MAX = 10**6
_TIMEOUT_S = 5
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
            "llamacpp:tokens_predicted_total": GENERATION_TOKENS,
        },
        latency=None,
        running="llamacpp:requests_processing",
        waiting="llamacpp:requests_deferred",
    ),
)
_BY_SAMPLE: Mapping[str, Engine] = MappingProxyType({name: e for e in ENGINES for name in e.names})


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSample:
    """What an exposition said: the counters, and how many requests run and wait (None: not told)."""

    counters: CounterSample
    running: int | None
    waiting: int | None


def parse_exposition(text: str) -> EngineSample:
    """Read a Prometheus text exposition (format 0.0.4).

    Raises:
        InvalidSourceError: no known engine or several of them, a malformed line, a value that is not a
            count, too many series.
    """
    if text.count("\n") > _LINES_MAX:
        raise InvalidSourceError(f"exposition: more than {_LINES_MAX} lines")
    engine = _detect(text)
    series: dict[str, int] = {}
    load: dict[str, int] = {}
    start_s = None
    for sample in _samples(text, engine):
        value = sample.value
        if sample.name == _START_TIME:
            start_s = exact_count(_START_TIME, value // 1)
        elif sample.name in (engine.running, engine.waiting):
            load[sample.name] = load.get(sample.name, 0) + exact_count(sample.name, value)
        else:
            name = _series_name(engine, sample)
            if name in series:
                raise InvalidSourceError(f"{name}: stands twice")
            series[name] = exact_count(name, value)
            if len(series) > SERIES_MAX:
                raise InvalidSourceError(f"{engine.name}: more than {SERIES_MAX} series")
    return EngineSample(
        counters=CounterSample(source=engine.name, start_s=start_s, series=series),
        running=load.get(engine.running),
        waiting=load.get(engine.waiting),
    )


async def scrape(client: httpx.AsyncClient, url: str) -> EngineSample:
    """Fetch and read the exposition at `url`, at most 4 MiB within 5 s; cancellation closes the connection.

    Raises:
        SourceUnavailableError: no answer in time, or another status than 200.
        InvalidSourceError: the answer is too long, compressed, not UTF-8, or not an engine's exposition.
    """
    try:
        with trio.fail_after(_TIMEOUT_S):
            # Compression is not asked for: a small answer could unfold beyond every bound.
            async with client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as response:
                body = await _read_body(url, response)
    except trio.TooSlowError:
        raise SourceUnavailableError(f"{url}: no answer within {_TIMEOUT_S} s") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise SourceUnavailableError(f"{url}: {str(error) or type(error).__name__}") from error
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise InvalidSourceError(f"{url}: not UTF-8 text") from error
    return parse_exposition(text)


async def _read_body(url: str, response: httpx.Response) -> bytes:
    if response.status_code != httpx.codes.OK:
        raise SourceUnavailableError(f"{url}: answered status {response.status_code}")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise InvalidSourceError(f"{url}: answered with a content encoding that was not asked for")
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            raise InvalidSourceError(f"{url}: answered more than {BODY_BYTES_MAX} bytes")
    return bytes(body)


def _detect(text: str) -> Engine:
    """The one engine whose names stand in the text; a fresh vLLM 0.6 has declared, but not used, its own."""
    declared = {match[1] for line in _lines(text) if (match := _TYPE.match(line))}
    names = declared | {name for line in _lines(text) if (name := _name(line)) in _BY_SAMPLE}
    found = [engine for engine in ENGINES if any(name.startswith(engine.prefix) for name in names)]
    if len(found) != 1:
        known = ", ".join(engine.name for engine in found or ENGINES)
        raise InvalidSourceError(f"exposition: expected the metrics of one engine, found {len(found)} of {known}")
    return found[0]


def _samples(text: str, engine: Engine) -> Iterator[Sample]:
    """The samples in the table, in order.

    Only their lines reach the parser, and no comments: so it keeps sample names as they are (rule 1).
    """
    wanted = [line for line in _lines(text) if (name := _name(line)) in engine.names or name == _START_TIME]
    if any(len(line) > _LINE_CHARS_MAX for line in wanted):
        raise InvalidSourceError(f"exposition: a line is longer than {_LINE_CHARS_MAX} characters")
    try:
        samples = [s for family in text_string_to_metric_families("\n".join(wanted)) for s in family.samples]
    except (ValueError, IndexError) as error:
        raise InvalidSourceError(f"exposition: {error}") from error
    for sample in samples:
        # The parser and `_name` need not agree on where a damaged line's name ends.
        if sample.name not in engine.names and sample.name != _START_TIME:
            raise InvalidSourceError(f"exposition: {sample.name!r:.80} is not a name of {engine.name}")
        yield sample


def _series_name(engine: Engine, sample: Sample) -> str:
    """`counter{label="value",...}`, labels in order: equal for equal series, whatever order they came in."""
    labels = dict(sample.labels)
    if sample.name == f"{engine.latency}_bucket":
        counter = LATENCY_BUCKET + _bound_us(labels.pop("le", ""))
    else:
        counter = engine.counters[sample.name]
        if labels.get("finished_reason") in engine.failed_reasons:
            counter = REQUESTS_FAILED
    pairs = ",".join(f"{key}={value!r}" for key, value in sorted(labels.items()))
    name = f"{counter}{{{pairs}}}"
    if len(name) > SERIES_NAME_MAX:
        raise InvalidSourceError(f"{name:.80}...: longer than {SERIES_NAME_MAX} characters")
    return name


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
