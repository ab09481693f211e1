"""Expositions of real engines' forms, and what is no such thing. Each fixture names its source."""

import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from agent.errors import AgentError, InvalidSourceError, SourceUnavailableError
from agent.meter import engine as engine_module
from agent.meter.counters import SERIES_MAX, Deltas, advance
from agent.meter.engine import (
    BODY_BYTES_MAX,
    GENERATION_TOKENS,
    PROMPT_TOKENS,
    REQUESTS_FAILED,
    REQUESTS_FINISHED,
    EngineSample,
    parse_exposition,
    scrape,
)
from agent.meter.work import latency_quantiles_ms

EXPOSITIONS = Path(__file__).parent / "expositions"
URL = "http://127.0.0.1:8000/metrics"


def exposition(name: str) -> str:
    return (EXPOSITIONS / f"{name}.txt").read_text()


def totals(sample: EngineSample) -> dict[str, int]:
    """What the sample's run has counted by now: its difference to a run that had not begun."""
    empty = parse_exposition(f"# TYPE {PREFIX[sample.counters.source]}x counter").counters
    before, _ = advance(None, empty, 0)
    _, outcome = advance(before, sample.counters, 1)
    assert isinstance(outcome, Deltas)
    return dict(outcome.amounts)


PREFIX = {engine.name: engine.prefix for engine in engine_module.ENGINES}


@pytest.mark.parametrize(
    ("name", "source", "tokens", "requests", "load", "latency_ms"),
    [
        ("vllm_0_6", "vllm", (1_234_567, 89_012), (9, 1), (3, 1), (1000, 60_000, 60_000)),
        ("vllm_0_10", "vllm", (10_000, 2_000), (9, 3), (5, 4), (300, 120_000, 120_000)),
        ("sglang", "sglang", (8_128, 7_557), (25, 4), (6, 2), (600, 8_000, 8_000)),
        ("tgi", "tgi", (None, 1_111), (9, 3), (4, 0), (1298, 4_379, 4_379)),
        ("llamacpp", "llamacpp", (1_234_570, 24_920), (None, None), (1, 0), None),
    ],
)
def test_each_engine_reads(
    name: str,
    source: str,
    tokens: tuple[int | None, int],
    requests: tuple[int | None, int | None],
    load: tuple[int, int],
    latency_ms: tuple[int, int, int] | None,
) -> None:
    sample = parse_exposition(exposition(name))
    counted = totals(sample)
    assert sample.counters.source == source
    assert (counted.get(PROMPT_TOKENS), counted.get(GENERATION_TOKENS)) == tokens
    assert (counted.get(REQUESTS_FINISHED), counted.get(REQUESTS_FAILED)) == requests
    assert (sample.running, sample.waiting) == load
    assert latency_quantiles_ms(counted) == latency_ms


def test_start_time_is_read_where_it_is_told() -> None:
    assert parse_exposition(exposition("vllm_0_10")).counters.start_s == 1_755_331_200
    assert parse_exposition(exposition("sglang")).counters.start_s is None


def test_two_engines_of_one_server_are_two_series() -> None:
    series = parse_exposition(exposition("vllm_0_10")).counters.series
    assert sorted(value for name, value in series.items() if name.startswith(PROMPT_TOKENS)) == [3000, 7000]


def test_fresh_vllm_that_only_declares_its_metrics_is_recognised() -> None:
    sample = parse_exposition("# HELP vllm:prompt_tokens_total x\n# TYPE vllm:prompt_tokens_total counter\n")
    assert sample.counters.source == "vllm"
    assert sample.counters.series == {}
    assert sample.running is None


def test_label_order_is_of_no_account() -> None:
    one = parse_exposition('vllm:prompt_tokens_total{a="1",b="2"} 3\n')
    other = parse_exposition('vllm:prompt_tokens_total{b="2",a="1"} 3\n')
    assert one == other


def test_labels_are_not_confused_by_their_own_punctuation() -> None:
    text = 'vllm:prompt_tokens_total{a="1,b=2"} 3\nvllm:prompt_tokens_total{a="1",b="2"} 4\n'
    assert sorted(parse_exposition(text).counters.series.values()) == [3, 4]


def test_histogram_named_like_a_counter_is_not_one() -> None:
    text = (
        "# TYPE vllm:prompt_tokens_total histogram\n"
        'vllm:prompt_tokens_total_bucket{le="+Inf"} 7\n'
        "vllm:prompt_tokens_total_sum 900\n"
        "vllm:prompt_tokens_total_count 7\n"
    )
    assert parse_exposition(text).counters.series == {}


BAD = {
    "empty": "",
    "html": "<html><body>not here</body></html>",
    "no engine": "# TYPE go_goroutines gauge\ngo_goroutines 7\n",
    "two engines": exposition("vllm_0_10") + exposition("tgi"),
    "nan": "vllm:prompt_tokens_total NaN\n",
    "infinite": "vllm:prompt_tokens_total +Inf\n",
    "negative": "vllm:prompt_tokens_total -1\n",
    "fraction": "vllm:prompt_tokens_total 1.5\n",
    "huge": "vllm:prompt_tokens_total 1e300\n",
    "no value": "vllm:prompt_tokens_total\n",
    "no number": "vllm:prompt_tokens_total many\n",
    "open labels": 'vllm:prompt_tokens_total{model_name="m 7\n',
    "series twice": "vllm:prompt_tokens_total 1\nvllm:prompt_tokens_total 2\n",
    "bound": 'vllm:e2e_request_latency_seconds_bucket{le="soon"} 1\n',
    "no bound": "vllm:e2e_request_latency_seconds_bucket 1\n",
    "nan bound": 'vllm:e2e_request_latency_seconds_bucket{le="NaN"} 1\n',
    "start": "vllm:prompt_tokens_total 1\nprocess_start_time_seconds NaN\n",
    "long line": f'vllm:prompt_tokens_total{{model_name="{"m" * 9000}"}} 1\n',
    "long label": f'vllm:prompt_tokens_total{{model_name="{"m" * 600}"}} 1\n',
    "many series": "".join(f'vllm:prompt_tokens_total{{i="{i}"}} 1\n' for i in range(SERIES_MAX + 1)),
    "many lines": "\n" * 200_000,
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_bad_expositions_are_refused(text: str) -> None:
    with pytest.raises(InvalidSourceError):
        parse_exposition(text)


@given(st.data())
def test_damaged_exposition_reads_or_is_refused(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([exposition("vllm_0_10"), exposition("tgi")]))
    at = data.draw(st.integers(0, len(text) - 1))
    damaged = text[:at] + data.draw(st.text(max_size=5)) + text[at + data.draw(st.integers(0, 5)) :]
    try:
        parse_exposition(damaged)
    except AgentError as error:
        assert isinstance(error, InvalidSourceError)


class Answer(httpx.AsyncBaseTransport):
    """Answers every request with the same response, or raises."""

    def __init__(self, answer: httpx.Response | Exception) -> None:
        self._answer = answer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


class Chunks(httpx.AsyncByteStream):
    def __init__(self, chunk: bytes, count: int = 1) -> None:
        self._chunk = chunk
        self._count = count

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self._count):
            yield self._chunk


async def test_scrape_reads_what_an_engine_serves() -> None:
    answer = httpx.Response(200, stream=Chunks(exposition("vllm_0_6").encode()))
    async with httpx.AsyncClient(transport=Answer(answer)) as client:
        sample = await scrape(client, URL)
    assert sample == parse_exposition(exposition("vllm_0_6"))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (httpx.ConnectError("refused"), SourceUnavailableError),
        (httpx.ReadTimeout("slow"), SourceUnavailableError),
        (httpx.RemoteProtocolError("not HTTP"), SourceUnavailableError),
        (httpx.Response(503), SourceUnavailableError),
        (httpx.Response(302, headers={"Location": "http://elsewhere/"}), SourceUnavailableError),
        (httpx.Response(200, stream=Chunks(b"\xff\xfe")), InvalidSourceError),
        (httpx.Response(200, stream=Chunks(b"#" * 65536, BODY_BYTES_MAX // 65536 + 1)), InvalidSourceError),
        (
            httpx.Response(200, headers={"Content-Encoding": "gzip"}, content=gzip.compress(b"#")),
            InvalidSourceError,
        ),
    ],
)
async def test_scrape_says_what_is_wrong(answer: httpx.Response | Exception, error: type[AgentError]) -> None:
    async with httpx.AsyncClient(transport=Answer(answer)) as client:
        with pytest.raises(error):
            await scrape(client, URL)


class Drip(httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            await trio.sleep(1)
            yield b"#"


async def test_scrape_of_a_dripping_answer_ends(autojump_clock: MockClock) -> None:
    async with httpx.AsyncClient(transport=Answer(httpx.Response(200, stream=Drip()))) as client:
        with pytest.raises(SourceUnavailableError, match="within 5 s"):
            await scrape(client, URL)


async def test_scrape_of_no_url_at_all() -> None:
    async with httpx.AsyncClient() as client:
        with pytest.raises(SourceUnavailableError):
            await scrape(client, "http://[::1/metrics")
