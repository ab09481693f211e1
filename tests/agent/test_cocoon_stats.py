"""What a Cocoon worker says of itself: both schemas and the page are read, and nothing that is none is believed.

`cocoon/*.json` and `cocoon/stats.html` are written by hand to the form that the sources give them (see
`agent.meter.cocoon_stats`), with their flaws; no worker was at hand to record.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cocoon_stage import address, worker_model
from hypothesis import given
from hypothesis import strategies as st

from agent.devnet.cocoon_texts import jsonstats, stats_page
from agent.errors import InvalidSourceError
from agent.meter import cocoon_stats
from agent.meter.cocoon_stats import PROXIES_MAX, REPORT_BYTES_MAX, parse_jsonstats, parse_page
from agent.meter.counters import COUNT_MAX
from contracts.model import Address

FIXTURES = Path(__file__).parent / "cocoon"
FIRST, SECOND, PAGE = ((FIXTURES / name).read_bytes() for name in ("first.json", "second.json", "stats.html"))


def test_first_schema() -> None:
    report = parse_jsonstats(FIRST)
    assert (report.schema, report.git_commit, report.running) == (1, None, None)
    assert (report.queries, report.succeeded, report.failed, report.is_failed_halved) == (1204, 1190, 11, True)
    assert report.adjusted_tokens == 1_284_467
    assert report.adjusted_parts == {"prompt": 301_122, "cached": 4_411, "completion": 978_934, "reasoning": 0}
    assert (report.model, report.coefficient, report.params_version) == ("Qwen/Qwen3-0.6B", 1500, 7)
    assert (report.owner, report.wallet_nanoton) == (address("owner"), 1_893_456_789)
    assert (report.is_image_listed, report.is_model_listed) == (True, True)
    first, second = report.proxies
    assert (first.signed, first.in_database, first.known, first.paid_out) == (900_000, 1_000_000, 1_010_467, 880_000)
    assert (second.proxy, second.worker) == (address("proxy 1"), address("worker 1"))


def test_second_schema_tells_its_commit_and_what_runs() -> None:
    report = parse_jsonstats(SECOND)
    assert (report.schema, report.running) == (2, 3)
    assert report.git_commit == "b75d4442f3a1c5e07d9b8a6c4e2f10d3b5a79688"
    assert report.proxies == parse_jsonstats(FIRST).proxies


def test_failures_are_halved_by_commit() -> None:
    fixed = edited(SECOND, ["status", "git_commit"], "0" * 40)
    assert (parse_jsonstats(SECOND).failed, parse_jsonstats(SECOND).is_failed_halved) == (11, True)
    assert (parse_jsonstats(fixed).failed, parse_jsonstats(fixed).is_failed_halved) == (22, False)


@pytest.mark.parametrize("commit", ["", "HEAD-HASH-NOTFOUND", "B75D444", "b75d44", "b" * 41])
def test_what_is_no_commit_is_not_told(commit: str) -> None:
    report = parse_jsonstats(edited(SECOND, ["status", "git_commit"], commit))
    assert (report.git_commit, report.failed) == (None, 22)


def test_what_is_not_checked_is_not_known() -> None:
    report = parse_jsonstats(edited(SECOND, ["localconfig", "check_image_hashes"], False))
    assert (report.is_image_listed, report.is_model_listed) == (None, None)


@pytest.mark.parametrize("path", [["root_contract_config"], ["status", "wallet_balance"], ["stats", "active_requests"]])
def test_what_may_be_missing_is_absent(path: list[str]) -> None:
    tree = json.loads(SECOND)
    del inner(tree, path[:-1])[path[-1]]
    report = parse_jsonstats(json.dumps(tree).encode())
    assert None in (report.params_version, report.wallet_nanoton, report.running)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["stats"], None),
        (["stats", "success"], 5),
        (["stats", "success"], [5.0]),
        (["stats", "success"], [5.0] * 8),
        (["stats", "success"], [0.5] * 7),
        (["stats", "success"], [-1.0] * 7),
        (["stats", "success"], [True] * 7),
        (["stats", "total_adjusted_tokens_used"], [float(COUNT_MAX + 1)] * 7),
        (["stats", "active_requests"], -1),
        (["localconfig", "coefficient"], -1),
        (["localconfig", "coefficient"], 1.5),
        (["localconfig", "owner_address"], "nowhere"),
        (["localconfig", "model"], "m" * 257),
        (["localconfig", "check_image_hashes"], "yes"),
        (["localconfig", "check_proxy_hash"], True),
        (["root_contract_config", "params_version"], 2**32),
        (["root_contract_config", "worker_code_hash"], "00"),
        (["proxies"], {}),
        (["proxies", 0], 3),
        (["proxies", 0, "proxy_public_key"], "z" * 64),
        (["proxies", 0, "sc_address"], ""),
        (["proxies", 0, "earned_tokens_max_known"], -1),
        (["proxies", 0, "earned_tokens_max_known"], 2**63),
    ],
)
def test_a_figure_that_is_none_refuses_the_reading(path: list[str | int], value: object) -> None:
    with pytest.raises(InvalidSourceError):
        parse_jsonstats(edited(SECOND, path, value))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"x":' * 100_000,
        SECOND[:-3],
        SECOND + b"{}",
        SECOND.replace(b"check_image_hashes", b"check_something"),
        SECOND.replace(b"1190.000000", b"NaN"),
        SECOND.replace(b"1190.000000", b"1e999"),
        SECOND.replace(b"1190.000000", b"1" * 100_000),
        SECOND.replace(b'"Qwen/Qwen3-0.6B"', b'"a"b"'),
        b" " * (REPORT_BYTES_MAX + 1),
    ],
)
def test_what_is_no_report_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidSourceError, match="jsonstats"):
        parse_jsonstats(raw)


def test_a_worker_has_so_many_proxies_at_most() -> None:
    tree = json.loads(SECOND)
    tree["proxies"] = tree["proxies"][:1] * PROXIES_MAX
    assert len(parse_jsonstats(json.dumps(tree).encode()).proxies) == PROXIES_MAX
    tree["proxies"] *= 2
    with pytest.raises(InvalidSourceError, match="proxies"):
        parse_jsonstats(json.dumps(tree).encode())


def test_a_worker_that_was_just_started_has_no_proxy() -> None:
    assert parse_jsonstats(edited(FIRST, ["proxies"], [])).proxies == ()


@given(st.data())
def test_no_bytes_break_the_reader(data: st.DataObject) -> None:
    raw = bytearray(data.draw(st.sampled_from([FIRST, SECOND, PAGE])))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place : place + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    for parse in (parse_jsonstats, parse_page):
        try:
            parsed: object = parse(bytes(raw))
        except InvalidSourceError as error:
            parsed = error
        assert parsed is not None


def test_the_page_says_what_the_json_does_not() -> None:
    page = parse_page(PAGE)
    assert (page.is_enabled, page.is_engine_connected) == (False, False)
    assert page.connected == {address("proxy 0"): True, address("proxy 1"): False}


def test_one_connection_of_several_is_a_connection() -> None:
    twice = PAGE.replace(friendly("proxy 1"), friendly("proxy 0"))
    assert parse_page(twice).connected == {address("proxy 0"): True}


def test_a_page_without_the_words_tells_nothing() -> None:
    page = parse_page(b"<html>enabled: yes</html>")
    assert (page.is_enabled, page.is_engine_connected, page.connected) == (None, None, {})


def test_a_page_made_to_be_slow_to_search_is_not() -> None:
    heading = b"<h1>PROXY CONNECTIONS</h1>"
    assert parse_page(heading * (REPORT_BYTES_MAX // len(heading))).connected == {}
    patterns = [each.pattern for each in vars(cocoon_stats).values() if isinstance(each, re.Pattern)]
    assert patterns
    assert not [pattern for pattern in patterns if re.search(r"[*+]|,\}", pattern)], "an endless repetition goes back"


@pytest.mark.parametrize(
    "raw", [b"\xff", b" " * (REPORT_BYTES_MAX + 1), PAGE.replace(b">ready</td><td>", b">ready</td><td>x")]
)
def test_what_is_no_page_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidSourceError):
        parse_page(raw)


@pytest.mark.parametrize("schema", [1, 2])
def test_the_stand_in_writes_what_is_read(schema: int) -> None:
    model = worker_model(proxies=2)
    model.life.failed, model.life.succeeded, model.life.queries = 3, 4, 7
    model.proxies[1].known = 50
    model.proxies[1].is_connected = model.is_engine_connected = False
    text = jsonstats(
        model, schema=schema, commit="1" * 40, doubles_failures=schema == 1, worker_code_hash=bytes(range(32))
    )
    report, page = parse_jsonstats(text.encode()), parse_page(stats_page(model).encode())
    assert (report.schema, report.queries, report.succeeded, report.failed) == (schema, 7, 4, 3)
    assert (report.owner, report.worker_code_hash) == (model.owner, bytes(range(32)))
    assert [proxy.known for proxy in report.proxies] == [0, 50]
    assert (page.is_enabled, page.is_engine_connected) == (True, False)
    assert page.connected == {address("proxy 0"): True, address("proxy 1"): False}


def edited(raw: bytes, path: list[Any], value: object) -> bytes:
    """The report with one value replaced; names that stood twice stand once."""
    tree = json.loads(raw)
    inner(tree, path[:-1])[path[-1]] = value
    return json.dumps(tree).encode()


def inner(tree: Any, path: list[Any]) -> Any:
    for step in path:
        tree = tree[step]
    return tree


def friendly(name: str) -> bytes:
    found: Address = address(name)
    return found.friendly(bounceable=False).encode()
