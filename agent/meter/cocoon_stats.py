"""What a Cocoon worker says of itself: the JSON of `/jsonstats` in both schemas, and the page `/stats`.

Decides what the figures are. The text comes from a guest on this host; it is bounded in bytes, depth and numbers,
and what is not named below is skipped unread. Pure.

1. A statistic is [total, 1s, 10s, 1m, 10m, 1h, 1d]: only the total is a count, the others decay by the second.
2. The first schema tells no commit. The second one (`localconfig.check_image_hashes`) tells it, and later builds of it
   how many requests run.
3. A worker of the first schema counts every failed request twice, and so do some commits of the second one
   (`DOUBLING_COMMITS`). Their failures are halved.
4. `status.enabled` is true whatever happens, and of its uplinks the JSON says nothing. Both stand on the page.
5. Whether image and model are in the root contract is told as true when the worker does not check it: then it is None.
6. A name may stand twice in one object, the worker itself writes one so: the last one counts.

Source: `WorkerRunner::http_generate_json_stats` and `http_generate_main`, `AmortCounterList`, `WorkerProxyInfo`,
`RootContractConfig::store_stat`, `WorkerRunningRequest` in Cocoon: github.com/TelegramMessenger/cocoon (0f214d0) for
the first schema, github.com/AlphaCompute/cocoon (a647ff3, 76f57ec) and github.com/dungeon-master-666/cocoon (3818b01)
for the second. METERING, "Cocoon jsonstats".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from agent.errors import InvalidSourceError
from agent.meter.counters import COUNT_MAX, exact_count
from contracts.errors import InvalidValueError
from contracts.model import Address

REPORT_BYTES_MAX = 1024 * 1024
"""Of either page: the root contract's lists make up most of it."""
PROXIES_MAX = 256
DOUBLING_COMMITS = frozenset({"b75d444"})
"""Beginnings of commits that tell themselves and count a failed request twice."""

# Every repetition is bounded: a page made to be slow to search takes no longer than its length.
_COMMIT = re.compile(r"[0-9a-f]{7,40}")
_ENABLED = re.compile(r"<td>enabled</td><td><span[^>]{0,80}>(yes|no)\b")
_ENGINE = re.compile(r"<td>model connection</td><td><span[^>]{0,80}>(connected|disconnected)<")
_CONNECTIONS, _TABLE_END = "<h1>PROXY CONNECTIONS</h1>", "</table>"
_CONNECTION = re.compile(r"<tr><td>[^<]{0,80}</td><td>(ready|not ready)</td><td>([^<]{0,80})</td></tr>")

_Count = Annotated[int, Meta(ge=0, le=COUNT_MAX)]
_Hex = Annotated[str, Meta(pattern="^[0-9A-Fa-f]{64}$")]
_Short = Annotated[str, Meta(max_length=128)]
_Statistic = tuple[float, float, float, float, float, float, float]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyEarnings:
    """What a worker earned with one proxy, in adjusted tokens since their contract began.

    `known` (what the proxy told last) is at least `in_database` (what it would still know after a crash), and that at
    least `signed` (for which the worker holds a payment that the chain takes); `paid_out` of them are on chain.
    """

    proxy: Address
    proxy_public_key: bytes
    worker: Address
    """The worker's contract with this proxy: `contracts.cocoon.read_worker` reads it."""
    signed: int
    in_database: int
    known: int
    paid_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReport:
    """What `/jsonstats` said. Counts are since the worker's start; None: not told, or not checked by the worker."""

    schema: int
    git_commit: str | None
    model: str
    owner: Address
    coefficient: int
    """Per mille, by which its tokens are multiplied."""
    params_version: int | None
    worker_code_hash: bytes | None
    wallet_nanoton: int | None
    is_image_listed: bool | None
    is_model_listed: bool | None
    chain_read_s: int | None
    queries: int
    succeeded: int
    failed: int
    """As corrected by rule 3."""
    is_failed_halved: bool
    running: int | None
    adjusted_tokens: int
    adjusted_parts: Mapping[str, int]
    """Of `adjusted_tokens`: prompt, cached, completion, reasoning."""
    proxies: tuple[ProxyEarnings, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPage:
    """What `/stats` said; None or absent: not told. `connected` is by the address of the proxy's contract."""

    is_enabled: bool | None
    is_engine_connected: bool | None
    connected: Mapping[Address, bool]


def parse_jsonstats(raw: bytes) -> WorkerReport:
    """Read the JSON of `/jsonstats`, of either schema.

    Raises:
        InvalidSourceError: it is too long, no JSON, of no known schema, or a figure in it is none.
    """
    told = _decode(raw)
    checks, schema = _schema(told.localconfig)
    stats = told.stats
    commit = told.status.git_commit if _COMMIT.fullmatch(told.status.git_commit or "") else None
    halved = schema == 1 or (commit is not None and any(commit.startswith(c) for c in DOUBLING_COMMITS))
    failed = _total("failed", stats.failed)
    root = told.root_contract_config
    parts = {
        "prompt": stats.prompt_adjusted_tokens_used,
        "cached": stats.cached_adjusted_tokens_used,
        "completion": stats.completion_adjusted_tokens_used,
        "reasoning": stats.reasoning_adjusted_tokens_used,
    }
    return WorkerReport(
        schema=schema,
        git_commit=commit,
        model=told.localconfig.model,
        owner=_address("owner_address", told.localconfig.owner_address),
        coefficient=told.localconfig.coefficient,
        params_version=None if root is None else root.params_version,
        worker_code_hash=None if root is None else bytes.fromhex(root.worker_code_hash),
        wallet_nanoton=told.status.wallet_balance,
        is_image_listed=told.status.actual_image_hash if checks else None,
        is_model_listed=told.status.actual_model if checks else None,
        chain_read_s=told.status.ton_last_synced_at,
        queries=_total("queries", stats.queries),
        succeeded=_total("success", stats.success),
        failed=failed // 2 if halved else failed,
        is_failed_halved=halved,
        running=stats.active_requests,
        adjusted_tokens=_total("total_adjusted_tokens_used", stats.total_adjusted_tokens_used),
        adjusted_parts={name: _total(f"{name}_adjusted_tokens_used", part) for name, part in parts.items()},
        proxies=tuple(_earnings(proxy) for proxy in told.proxies),
    )


def parse_page(raw: bytes) -> WorkerPage:
    """Read the page `/stats`: what it does not tell is absent.

    Raises:
        InvalidSourceError: it is too long, no text, or names what is no address.
    """
    if len(raw) > REPORT_BYTES_MAX:
        raise InvalidSourceError(f"stats: more than {REPORT_BYTES_MAX} bytes")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidSourceError("stats: not UTF-8 text") from error
    _, _, section = text.partition(_CONNECTIONS)
    table, end, _ = section.partition(_TABLE_END)
    rows = islice(_CONNECTION.finditer(table), PROXIES_MAX) if end else ()
    connected: dict[Address, bool] = {}
    for row in rows:
        state, name = row.groups()
        if name:
            proxy = _address("proxy connection", name)
            connected[proxy] = connected.get(proxy, False) or state == "ready"
    return WorkerPage(
        is_enabled=_choice(_ENABLED, text, lambda word: word == "yes"),
        is_engine_connected=_choice(_ENGINE, text, lambda word: word == "connected"),
        connected=connected,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Status:
    wallet_balance: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    actual_image_hash: bool | None = None
    actual_model: bool | None = None
    ton_last_synced_at: _Count | None = None
    git_commit: _Short | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stats:
    queries: _Statistic
    success: _Statistic
    failed: _Statistic
    total_adjusted_tokens_used: _Statistic
    prompt_adjusted_tokens_used: _Statistic
    cached_adjusted_tokens_used: _Statistic
    completion_adjusted_tokens_used: _Statistic
    reasoning_adjusted_tokens_used: _Statistic
    active_requests: _Count | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _LocalConfig:
    owner_address: _Short
    model: Annotated[str, Meta(max_length=256)]
    coefficient: Annotated[int, Meta(ge=0, lt=2**31)]
    check_proxy_hash: bool | None = None
    check_image_hashes: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _RootConfig:
    params_version: Annotated[int, Meta(ge=0, lt=2**32)]
    worker_code_hash: _Hex


@dataclass(frozen=True, slots=True, kw_only=True)
class _Proxy:
    proxy_sc_address: _Short
    proxy_public_key: _Hex
    sc_address: _Short
    earned_tokens_committed_to_blockchain: _Count
    earned_tokens_committed_to_proxy_db: _Count
    earned_tokens_max_known: _Count
    cached_out_tokens: _Count


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    status: _Status
    stats: _Stats
    localconfig: _LocalConfig
    proxies: Annotated[tuple[_Proxy, ...], Meta(max_length=PROXIES_MAX)]
    root_contract_config: _RootConfig | None = None


def _decode(raw: bytes) -> _Told:
    if len(raw) > REPORT_BYTES_MAX:
        raise InvalidSourceError(f"jsonstats: more than {REPORT_BYTES_MAX} bytes")
    try:
        return msgspec.json.decode(raw, type=_Told)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidSourceError(f"jsonstats: {error!s:.200}") from error
    except RecursionError:
        raise InvalidSourceError("jsonstats: nested too deeply") from None


def _schema(config: _LocalConfig) -> tuple[bool, int]:
    """Whether the worker checks hashes against the root contract, and which schema says so (rule 2)."""
    match config.check_proxy_hash, config.check_image_hashes:
        case bool(checks), None:
            return checks, 1
        case None, bool(checks):
            return checks, 2
        case _:
            raise InvalidSourceError("jsonstats: of no schema that is known; is this worker newer than the agent?")


def _total(name: str, statistic: _Statistic) -> int:
    return exact_count(f"jsonstats: {name}", statistic[0])


def _earnings(proxy: _Proxy) -> ProxyEarnings:
    return ProxyEarnings(
        proxy=_address("proxy_sc_address", proxy.proxy_sc_address),
        proxy_public_key=bytes.fromhex(proxy.proxy_public_key),
        worker=_address("sc_address", proxy.sc_address),
        signed=proxy.earned_tokens_committed_to_blockchain,
        in_database=proxy.earned_tokens_committed_to_proxy_db,
        known=proxy.earned_tokens_max_known,
        paid_out=proxy.cached_out_tokens,
    )


def _address(name: str, text: str) -> Address:
    try:
        return Address.parse(text)
    except InvalidValueError as error:
        raise InvalidSourceError(f"{name}: {error}") from error


def _choice(pattern: re.Pattern[str], text: str, of: Callable[[str], T]) -> T | None:
    match = pattern.search(text)
    return None if match is None else of(match[1])
