"""A Cocoon worker as a source: its statistics, and whether its control port is open to others.

Decides what of a worker's word is counted, what is shown, and what its operator has to know. The worker is a guest on
this host that others wrote; `agent.meter.cocoon_stats` reads it. Only `/jsonstats` and `/stats` are ever asked for:
`/request/payout`, `enable`, `disable` and `change_coefficient` change the worker's state by a mere GET.

1. Answered queries are tasks. Adjusted tokens are a unit of their own: tokens times the worker's coefficient and the
   root contract's multipliers, rounded down query by query. The parts that they are made of are gauges, not counted.
2. A restart shows in that counters fall: the worker tells no start time.
3. The page is for the eyes: a worker that does not serve it is still counted.
4. QEMU's forwarding listens on every address of the host unless it is told not to. So from time to time the port is
   tried on the host's own addresses.

Source: METERING, "Cocoon jsonstats"; in github.com/AlphaCompute/cocoon `scripts/cocoon-launch` (ports, `hostfwd`) and
`BaseRunner::receive_http_request_outer` (`access_hash`).
"""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import trio

from agent.errors import ConfigError, InvalidSourceError, SourceUnavailableError
from agent.http_read import InvalidAnswerError, NoAnswerError, read_answer
from agent.meter.cocoon_stats import (
    REPORT_BYTES_MAX,
    ProxyEarnings,
    WorkerPage,
    WorkerReport,
    parse_jsonstats,
    parse_page,
)
from agent.meter.counters import CounterSample
from agent.meter.sources import SourceSample
from gossip.records import Source, Unit

TASKS, FAILED_TASKS, ADJUSTED_TOKENS = (
    unit.name.lower() for unit in (Unit.TASK, Unit.FAILED_TASK, Unit.ADJUSTED_TOKEN)
)
PORT, PORT_STEP = 12000, 10
"""Where the first worker of a host listens, and how far the next ones are from it."""
INSTANCE_MAX = 255
PROBE_INTERVAL_S = 600

_TIMEOUT_S = 5
_PROBE_TIMEOUT_S = 2
_ADDRESSES_MAX = 64
_ACCESS_HASH = re.compile(r"[\x21-\x7e]{1,256}")
_IPV4 = re.compile(r"\|-- (\S+)\n\s+/32 host LOCAL")
_IPV6 = re.compile(r"^([0-9a-f]{32}) ", re.MULTILINE)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """The control port answers on `address` of this host; `is_guarded`: only to who knows the access hash."""

    address: str
    is_guarded: bool


class CocoonSource:
    """One worker of this host. `client` must not follow redirects, nor take proxies from the environment."""

    source = Source.COCOON

    def __init__(
        self,
        client: httpx.AsyncClient,
        instance: int = 0,
        *,
        url: str | None = None,
        access_hash: str | None = None,
        addresses: Callable[[], Sequence[str]] | None = None,
    ) -> None:
        """Args: url: without path; None: where the launcher forwards this instance. access_hash: the worker's
        `http_access_hash`, a secret. addresses: where to try the control port; None: on all of the host's own.

        Raises:
            ConfigError: an argument is out of range.
        """
        if not 0 <= instance <= INSTANCE_MAX:
            raise ConfigError(f"cocoon.instance: expected 0 to {INSTANCE_MAX}, got {instance}")
        if access_hash is not None and not _ACCESS_HASH.fullmatch(access_hash):
            raise ConfigError("cocoon.access_hash: expected up to 256 visible ASCII characters")
        self.instance = instance
        self.url = f"http://127.0.0.1:{PORT + PORT_STEP * instance}" if url is None else url.rstrip("/")
        self._client = client
        self._access_hash = access_hash
        self._addresses = host_addresses if addresses is None else addresses
        self._probed = -float("inf")
        self.report: WorkerReport | None = None
        """What the worker said last: for the status, and for reconciliation with receipts and the chain."""
        self.page: WorkerPage | None = None
        self.exposures: tuple[Exposure, ...] | None = None
        """On which addresses the control port answers; None: not tried yet."""
        self.tries_addresses = True
        """Whether the control port is tried there at all (rule 4)."""

    async def sample(self) -> SourceSample:
        """Read the worker, within 10 s; cancellation leaves nothing behind.

        Raises:
            SourceUnavailableError: it does not answer `/jsonstats`.
            InvalidSourceError: what it answers is of no known schema.
        """
        self.report = parse_jsonstats(await self._get("/jsonstats", _TIMEOUT_S))
        self.page = await self._read_page()
        await self._look_for_exposure()
        report = self.report
        series = {
            TASKS: report.succeeded,
            FAILED_TASKS: report.failed,
            ADJUSTED_TOKENS: report.adjusted_tokens,
        }
        return SourceSample(
            counters=CounterSample(source=f"cocoon at {self.url}", start_s=None, series=series),
            provenance=provenance(report),
            gauges=gauges(report, self.page),
            notes=(*notes(report, self.page), *exposure_notes(self.url, self.exposures or ())),
        )

    async def _read_page(self) -> WorkerPage | None:
        try:
            return parse_page(await self._get("/stats", _PROBE_TIMEOUT_S))
        except (SourceUnavailableError, InvalidSourceError) as error:
            log.debug("the worker's page is not read: %s", error)
            return None

    async def _look_for_exposure(self) -> None:
        if not self.tries_addresses or trio.current_time() < self._probed + PROBE_INTERVAL_S:
            return
        try:
            port = httpx.URL(self.url).port or 80
            self.exposures = await control_port_exposure(self._client, port, self._addresses())
        except SourceUnavailableError as error:
            log.debug("whether the control port is open to others is not known: %s", error)
        self._probed = trio.current_time()

    async def _get(self, path: str, timeout_s: float) -> bytes:
        url = f"{self.url}{path}"
        params = {} if self._access_hash is None else {"access_hash": self._access_hash}
        try:
            status, body = await read_answer(
                self._client, url, params=params, timeout_s=timeout_s, bytes_max=REPORT_BYTES_MAX
            )
        except NoAnswerError as error:
            raise SourceUnavailableError(f"{url}: {error}") from error
        except InvalidAnswerError as error:
            raise InvalidSourceError(f"{url}: {error}") from error
        if status == httpx.codes.FORBIDDEN:
            raise SourceUnavailableError(f"{url}: the worker wants its access hash; set cocoon.access_hash")
        if status != httpx.codes.OK:
            raise SourceUnavailableError(f"{url}: answered status {status}")
        return body


async def control_port_exposure(client: httpx.AsyncClient, port: int, addresses: Sequence[str]) -> tuple[Exposure, ...]:
    """On which of `addresses` a worker's control port answers, asking each for `/jsonstats` at once, within 2 s.

    Whoever reaches it there may disable the worker, change its price or have it spend on payouts. `addresses` are
    those of this host that others reach: `host_addresses()`. Cancellation leaves nothing behind.
    """
    found: list[Exposure] = []

    async def probe(address: str) -> None:
        host = f"[{address}]" if ":" in address else address
        with trio.move_on_after(_PROBE_TIMEOUT_S):
            try:
                async with client.stream("GET", f"http://{host}:{port}/jsonstats") as response:
                    status = response.status_code
            except (httpx.HTTPError, httpx.InvalidURL):
                return  # nobody, or nobody who speaks HTTP
            if status in (httpx.codes.OK, httpx.codes.FORBIDDEN):
                found.append(Exposure(address=address, is_guarded=status == httpx.codes.FORBIDDEN))

    async with trio.open_nursery() as nursery:
        for address in addresses[:_ADDRESSES_MAX]:
            nursery.start_soon(probe, address)
    return tuple(sorted(found, key=lambda exposure: exposure.address))


def host_addresses(proc: Path = Path("/proc/net")) -> tuple[str, ...]:
    """This host's own addresses that others may reach: neither loopback nor link-local, ascending.

    Raises:
        SourceUnavailableError: the kernel does not tell them.
    """
    try:
        ipv4 = _IPV4.findall((proc / "fib_trie").read_text("ascii"))
        ipv6_file = proc / "if_inet6"
        ipv6 = _IPV6.findall(ipv6_file.read_text("ascii")) if ipv6_file.exists() else []
        found = {ipaddress.ip_address(a) for a in ipv4} | {ipaddress.ip_address(bytes.fromhex(a)) for a in ipv6}
    except (OSError, ValueError) as error:
        raise SourceUnavailableError(f"{proc}: this host's addresses: {error}") from error
    return tuple(sorted(str(address) for address in found if not (address.is_loopback or address.is_link_local)))


def provenance(report: WorkerReport) -> str:
    """Who counted what by which rules, for the record: unit, coefficient, params version, commit, failures."""
    commit = report.git_commit[:12] if report.git_commit else "unknown"
    params = "unknown" if report.params_version is None else report.params_version
    halved = "halved" if report.is_failed_halved else "as-told"
    return f"cocoon {commit} unit=adjusted coefficient={report.coefficient} params={params} failed={halved}"


def gauges(report: WorkerReport, page: WorkerPage | None) -> dict[str, float]:
    """How things stand with the worker; what it does not tell is not there."""
    shown: dict[str, float] = {
        "coefficient": report.coefficient,
        "queries": report.queries,
        "tokens_signed": sum(proxy.signed for proxy in report.proxies),
        "tokens_in_database": sum(proxy.in_database for proxy in report.proxies),
        "tokens_known": sum(proxy.known for proxy in report.proxies),
        "tokens_paid_out": sum(proxy.paid_out for proxy in report.proxies),
        "proxies": len(report.proxies),
    }
    shown |= {f"adjusted_{name}_tokens": amount for name, amount in report.adjusted_parts.items()}
    if report.running is not None:
        shown["requests_running"] = report.running
    if report.wallet_nanoton is not None:
        shown["wallet_nanoton"] = report.wallet_nanoton
    if page is not None:
        shown["proxies_connected"] = sum(page.connected.values())
        if page.is_engine_connected is not None:
            shown["engine_connected"] = int(page.is_engine_connected)
        if page.is_enabled is not None:
            shown["enabled"] = int(page.is_enabled)
    return shown


def notes(report: WorkerReport, page: WorkerPage | None) -> list[str]:
    """What keeps the worker from earning, one line each."""
    lines = []
    if report.is_image_listed is False:
        lines.append("its image is not in Cocoon's root contract: no proxy takes it; update the worker")
    if report.is_model_listed is False:
        lines.append(f"its model {report.model} is not in Cocoon's root contract: no proxy asks for it")
    if not report.is_failed_halved and report.succeeded + report.failed > report.queries:
        lines.append("it counts failures twice, and tells no commit that is known for it: its quality looks worse")
    if page is None:
        return lines
    if page.is_enabled is False:
        lines.append("it is disabled: proxies send it nothing; enable it on its control page")
    if page.is_engine_connected is False:
        lines.append("its connection to the model is down; look at the engine in the guest")
    if not any(page.connected.values()):
        lines.append("it is connected to no proxy; look at the guest's network and router")
    lines += [f"its uplink to proxy {_of(p)} is down" for p in report.proxies if page.connected.get(p.proxy) is False]
    return lines


def exposure_notes(url: str, exposures: Sequence[Exposure]) -> list[str]:
    """A line for each address on which strangers may control the worker."""
    port = httpx.URL(url).port
    return [
        f"its control port answers on {e.address}: whoever reaches it may disable the worker, change its price or "
        f"trigger payouts; forward port {port} to 127.0.0.1 only"
        for e in exposures
        if not e.is_guarded
    ]


def _of(proxy: ProxyEarnings) -> str:
    return proxy.proxy.friendly(bounceable=False)  # as the worker's own page has it
