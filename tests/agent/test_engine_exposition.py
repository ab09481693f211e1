"""Expositions of real engines' forms, and what is no such thing. Each fixture names its source.

The fixtures of vLLM, SGLang and TGI are of four requests: 3937 prompt tokens, of them 80 cached, and 631 generated
ones; the fourth, of 800 and 90, was aborted. `tests/engines` makes those of the first two, and llama.cpp's.
"""

import gzip
import re
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
from agent.meter.counters import SERIES_MAX, SERIES_NAME_MAX, Deltas, advance
from agent.meter.engine import (
    BODY_BYTES_MAX,
    CACHED_TOKENS,
    GENERATION_TOKENS,
    PROMPT_TOKENS,
    REQUESTS_FAILED,
    REQUESTS_FINISHED,
    EngineSample,
    EngineSource,
    parse_exposition,
    scrape,
)
from agent.meter.work import latency_quantiles_ms
from gossip.records import Source

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
    ("name", "tokens", "requests", "load", "latency_ms"),
    [
        ("vllm_0_6", (3937, None, 631), (3, 1), (3, 1), (1000, 10_000, 10_000)),
        # Two data-parallel engines, four requests each; their prefix cache hits are not what was saved (ADR 0025).
        ("vllm_0_10", (7874, None, 1262), (6, 2), (4, 2), (800, 10_000, 10_000)),
        ("vllm_0_33", (3937, 80, 631), (3, 1), (2, 1), (800, 10_000, 10_000)),
        # SGLang counts an aborted request among the finished ones, and 0.4 nowhere else.
        ("sglang_0_4", (3937, None, 631), (4, None), (6, 2), (1000, 10_000, 10_000)),
        ("sglang_0_5", (3937, 80, 631), (4, 1), (6, 2), (800, 10_000, 10_000)),
        # TGI counts the prompt of every request that it accepted, and what it generated for the successful ones.
        ("tgi_2", (3937, None, 541), (3, 1), (2, 1), (749, 12_784, 12_784)),
        ("tgi_3", (3937, None, 541), (3, 1), (2, 1), (749, 12_784, 12_784)),
        # As the answers of the 40 requests added up to; the older one does not count cached tokens.
        ("llamacpp_2024", (4547, None, 2031), (None, None), (0, 0), None),
        ("llamacpp_2026", (4581, 52, 2070), (None, None), (0, 0), None),
    ],
)
def test_each_engine_reads(
    name: str,
    tokens: tuple[int, int | None, int],
    requests: tuple[int | None, int | None],
    load: tuple[int, int],
    latency_ms: tuple[int, int, int] | None,
) -> None:
    sample = parse_exposition(exposition(name))
    counted = totals(sample)
    assert sample.counters.source == name.partition("_")[0]
    assert tuple(counted.get(name) for name in (PROMPT_TOKENS, CACHED_TOKENS, GENERATION_TOKENS)) == tokens
    assert (counted.get(REQUESTS_FINISHED), counted.get(REQUESTS_FAILED)) == requests
    assert (sample.running, sample.waiting) == load
    assert latency_quantiles_ms(counted) == latency_ms
    assert sample.notes == ()


@pytest.mark.parametrize("name", ["vllm_0_10", "vllm_0_33"])
def test_start_time_is_read_where_it_is_told(name: str) -> None:
    text = exposition(name)
    (told,) = re.findall(r"^process_start_time_seconds (.*)$", text, re.MULTILINE)
    assert parse_exposition(text).counters.start_s == int(float(told))


@pytest.mark.parametrize("name", ["vllm_0_6", "sglang_0_4", "sglang_0_5", "tgi_3", "llamacpp_2026"])
def test_start_time_is_none_where_it_is_not(name: str) -> None:
    assert parse_exposition(exposition(name)).counters.start_s is None


def test_two_engines_of_one_server_are_two_series() -> None:
    series = parse_exposition(exposition("vllm_0_10")).counters.series
    assert [value for name, value in series.items() if name.startswith(PROMPT_TOKENS)] == [3937, 3937]


def test_tokens_that_llamacpp_took_from_its_cache_are_prompt_tokens_too() -> None:
    text = "llamacpp:prompt_tokens_total 30\nllamacpp:prompt_tokens_cached_total 12\n"
    assert totals(parse_exposition(text)) == {PROMPT_TOKENS: 42, CACHED_TOKENS: 12}
    text = "vllm:prompt_tokens_total 42\nvllm:prompt_tokens_cached_total 12\n"
    assert totals(parse_exposition(text)) == {PROMPT_TOKENS: 42, CACHED_TOKENS: 12}


def test_labels_of_clients_do_not_fill_the_bound_with_buckets() -> None:
    buckets = "".join(
        f'sglang:e2e_request_latency_seconds_bucket{{le="{le}",priority="{i}"}} 1\n'
        for i in range(SERIES_MAX)
        for le in (1, "+Inf")
    )
    sample = parse_exposition(buckets)
    assert totals(sample) == {"latency_le_us:1000000": SERIES_MAX, "latency_le_us:inf": SERIES_MAX}


@pytest.mark.parametrize(
    ("gauges", "running"),
    [
        ('sglang:num_running_reqs{priority=""} 5\nsglang:num_running_reqs{priority="1"} 5\n', 5),
        ('sglang:num_running_reqs{dp_rank="0"} 5\nsglang:num_running_reqs{dp_rank="1"} 2\n', 7),
        ("sglang:num_running_reqs NaN\n", None),
        ("sglang:num_running_reqs -1\n", None),
    ],
)
def test_gauges_are_shown_where_they_make_sense(gauges: str, running: int | None) -> None:
    assert parse_exposition("sglang:prompt_tokens_total 1\n" + gauges).running == running


def test_notes_say_what_an_engine_does_not_tell() -> None:
    sample = parse_exposition("llamacpp:prompt_tokens_total 1.23457e+08\n")
    assert sample.notes == (
        "llamacpp does not tell generation_token (yet): none are recorded",
        "llamacpp prints 6 digits: its counters move in steps of up to 1000 tokens",
    )


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


def test_labels_that_are_too_long_go_by_their_hash() -> None:
    long = "m" * 600
    text = f'vllm:prompt_tokens_total{{a="{long}",b="1"}} 7\nvllm:prompt_tokens_total{{a="{long}",b="2"}} 9\n'
    turned = f'vllm:prompt_tokens_total{{b="1",a="{long}"}} 7\nvllm:prompt_tokens_total{{b="2",a="{long}"}} 9\n'
    series = parse_exposition(text).counters.series
    assert sorted(series.values()) == [7, 9]
    assert all(len(name) <= SERIES_NAME_MAX for name in series)
    assert parse_exposition(turned).counters.series == series


def test_a_line_that_is_too_long_is_left_out_alone() -> None:
    text = f'vllm:prompt_tokens_total{{a="{"m" * 9000}"}} 7\nvllm:prompt_tokens_total{{a="1"}} 9\n'
    sample = parse_exposition(text)
    assert list(sample.counters.series.values()) == [9]
    assert any("1 lines of vllm are longer than 8192 characters: not counted" in note for note in sample.notes)


def test_too_many_sets_of_labels_are_summed_under_another_name() -> None:
    lines = [
        f'vllm:{counter}_tokens_total{{i="{i}"}} {i}\n' for counter in ("prompt", "generation") for i in range(513)
    ]
    latency = 'vllm:e2e_request_latency_seconds_bucket{le="+Inf"} 5\n'
    sample = parse_exposition("".join(lines) + latency)
    assert sample.counters.source == "vllm, labels summed"
    total = sum(range(513))
    assert sample.counters.series == {
        "prompt_token{*}": total,
        "generation_token{*}": total,
        "latency_le_us:inf{}": 5,
    }
    assert "vllm tells 1027 series: each counter is summed over its labels" in sample.notes


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
    "two engines": exposition("vllm_0_10") + exposition("tgi_3"),
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
    "many buckets": "".join(f'vllm:e2e_request_latency_seconds_bucket{{le="{i}"}} 1\n' for i in range(SERIES_MAX + 1)),
    "huge sum": "".join(f'vllm:prompt_tokens_total{{i="{i}"}} {2**47}\n' for i in range(SERIES_MAX + 1)),
    "many lines": "\n" * 200_000,
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_bad_expositions_are_refused(text: str) -> None:
    with pytest.raises(InvalidSourceError):
        parse_exposition(text)


def test_answer_of_no_engine_or_of_two_says_so() -> None:
    with pytest.raises(InvalidSourceError, match=r"no metrics of vllm, sglang, tgi, llamacpp.*--enable-metrics"):
        parse_exposition(BAD["no engine"])
    with pytest.raises(InvalidSourceError, match=r"several engines \(vllm, tgi\); name the address of one"):
        parse_exposition(BAD["two engines"])


@given(st.data())
def test_damaged_exposition_reads_or_is_refused(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([exposition("vllm_0_6"), exposition("tgi_3")]))
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


async def test_source_tells_who_counted_and_how_it_stands() -> None:
    answer = httpx.Response(200, stream=Chunks(exposition("sglang_0_5").encode()))
    async with httpx.AsyncClient(transport=Answer(answer)) as client:
        source = EngineSource(client, url=URL, instance=2)
        sample = await source.sample()
    assert (source.source, source.instance) == (Source.ENGINE, 2)
    counted = parse_exposition(exposition("sglang_0_5")).counters
    assert (sample.counters.source, sample.counters.start_s) == (f"sglang at {URL}", counted.start_s)
    assert sample.counters.series == counted.series
    assert (sample.provenance, sample.notes) == ("sglang", ())
    assert sample.gauges == {"requests_running": 6, "requests_waiting": 2}


async def test_gauges_that_are_not_told_are_absent() -> None:
    answer = httpx.Response(200, stream=Chunks(b"vllm:prompt_tokens_total 1\nvllm:generation_tokens_total 1\n"))
    async with httpx.AsyncClient(transport=Answer(answer)) as client:
        sample = await EngineSource(client, url=URL).sample()
    assert sample.gauges == {}


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (401, "status 401; llama.cpp asks for its --api-key"),
        (404, "status 404; are its metrics enabled"),
        (501, "status 501; are its metrics enabled"),
        (503, "status 503$"),
    ],
)
async def test_refusals_say_what_to_do(status: int, hint: str) -> None:
    async with httpx.AsyncClient(transport=Answer(httpx.Response(status))) as client:
        with pytest.raises(SourceUnavailableError, match=hint):
            await EngineSource(client, url=URL).sample()


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
