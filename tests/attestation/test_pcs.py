"""The client against a server that speaks the PCS API v4 over HTTPS: what it takes, refuses, and tries again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from pcs_server import Reply, ServerTls, Site, serving, signed
from trio.testing import MockClock

from attestation import pcs
from attestation.collateral import Collateral
from attestation.collateral_key import CollateralKey, PckCa, Update, collateral_key
from attestation.errors import (
    AttestationError,
    CollateralUnavailableError,
    PckChainError,
    PcsAnswerError,
    PcsBusyError,
    PcsConnectionError,
    PcsNotFoundError,
    PcsSettingsError,
    PcsStatusError,
    PcsTimeoutError,
    PcsTlsError,
)
from attestation.pcs import PcsClient, PcsService
from attestation.providers.software import SOFTWARE_MACHINE

FMSPC = SOFTWARE_MACHINE.fmspc
KEY = CollateralKey(fmspc=FMSPC, ca=PckCa.PLATFORM)
CHAIN = "TCB-Info-Issuer-Chain"


@pytest.fixture
def clock() -> MockClock:
    """Jumps only when nothing has moved for a while: what is on its way through a real socket is not waited for."""
    return MockClock(autojump_threshold=0.05)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ServerTls:
    return ServerTls.make(tmp_path_factory.mktemp("tls"))


def site_of(collateral: Collateral, **changes: Any) -> Site:
    return Site({("platform", "standard"): collateral}, FMSPC.hex().upper(), **changes)


async def fetch(service: PcsService, key: CollateralKey = KEY) -> Collateral:
    return await PcsClient(service, rand=lambda: 0.5).fetch(key)


# What it takes.


@pytest.mark.parametrize("ca", list(PckCa))
@pytest.mark.parametrize("update", list(Update))
async def test_each_ca_and_update_is_fetched_for_what_it_is(
    forge: Any, tls: ServerTls, ca: PckCa, update: Update
) -> None:
    processor = forge.certificate("Intel SGX PCK Processor CA", forge.root, is_ca=True)
    forges = {"platform": forge, "processor": replace(forge, pck_issuer=processor, pck=forge.pck_of(processor))}
    numbers = {"early": 7, "standard": 6}
    held = {
        (name, when): each.collateral(lambda tree, n=number: tree.update(tcbEvaluationDataNumber=n))
        for name, each in forges.items()
        for when, number in numbers.items()
    }
    root_crl = held["platform", "early"].root_ca_crl
    site = Site({which: replace(each, root_ca_crl=root_crl) for which, each in held.items()}, FMSPC.hex().upper())
    key = collateral_key(forges[ca].quote(), root=forge.root.der, update=update)
    assert key == CollateralKey(fmspc=FMSPC, ca=ca, update=update)
    async with serving(site, tls) as service:
        fetched = await fetch(service, key)
    verified = forges[ca].verify(forges[ca].quote(), fetched)
    assert verified.tcb_evaluation == numbers[update]
    assert len(site.requests) == 4
    assert all(f"update={update}" in target for target in site.requests[:2])


@pytest.mark.parametrize(
    "dialect",
    [
        {},
        {"is_pccs": True},
        {"is_pccs": True, "sends_hex": True, "tcb_header": "SGX-TCB-Info-Issuer-Chain"},
    ],
    ids=["PCS", "PCCS", "old PCCS"],
)
async def test_pcs_and_pccs_give_the_same(forge: Any, tls: ServerTls, dialect: dict[str, Any]) -> None:
    collateral = forge.collateral()
    async with serving(site_of(collateral, **dialect), tls) as service:
        assert await fetch(service) == collateral


async def test_the_documents_are_the_bytes_that_were_sent(forge: Any, tls: ServerTls) -> None:
    plain = forge.collateral()
    spaced = plain.tcb_info.replace(b'"version": 3', b'"version"\t:\n   3 ').replace(b"SWTDX", b"SWTD\\u0058")
    collateral = forge.collateral(tcb_text=spaced)
    async with serving(site_of(collateral), tls) as service:
        fetched = await fetch(service)
    assert fetched.tcb_info == spaced
    assert forge.verify(collateral=fetched).tcb_evaluation == 1


async def test_a_base_url_may_have_a_path(forge: Any, tls: ServerTls) -> None:
    site = site_of(forge.collateral(), is_pccs=True)
    async with serving(site, tls) as service:
        with pytest.raises(PcsNotFoundError):
            await fetch(replace(service, base_url=service.base_url + "/below/"))
    assert site.requests[0].startswith("/below/tdx/certification/v4/tcb?")


# What it refuses, and how often it asks.


HTML = Reply(headers={"Content-Type": "text/html"}, body=b"<html>log in first</html>")
NO_HEADER = Reply(body=signed("tcbInfo", b"{}", bytes(64)))


@pytest.mark.parametrize(
    ("endpoint", "reply", "error", "asked"),
    [
        ("tcb", Reply(status=400), PcsStatusError, 1),
        ("tcb", Reply(status=401), PcsStatusError, 1),
        ("tcb", Reply(status=404), PcsNotFoundError, 1),
        ("tcb", Reply(status=302, headers={"Location": "https://127.0.0.1:1/"}), PcsStatusError, 1),
        ("tcb", Reply(status=429), PcsBusyError, 5),
        ("tcb", Reply(status=500), PcsBusyError, 5),
        ("tcb", Reply(status=503), PcsBusyError, 5),
        ("tcb", HTML, PcsAnswerError, 2),
        ("tcb", NO_HEADER, PcsAnswerError, 2),
        ("tcb", Reply(body=b"{}", headers={CHAIN: "x"}), PcsAnswerError, 2),
        ("tcb", Reply(body=b'{"tcbInfo":{},"signature":"ab"}', headers={CHAIN: "x"}), PcsAnswerError, 2),
        ("tcb", Reply(body=b'{"tcbInfo":{},"signature":1}', headers={CHAIN: "x"}), PcsAnswerError, 2),
        ("tcb", Reply(body=b'{"tcbInfo":' + b"[" * 100_000, headers={CHAIN: "x"}), PcsAnswerError, 2),
        ("tcb", Reply(body=b'{"tcbInfo"', length=5000), PcsAnswerError, 2),
        ("tcb", Reply(body=bytes(8192), endless=True), PcsAnswerError, 2),
        ("tcb", Reply(headers={"Filler": "f" * 200_000}), PcsAnswerError, 2),
        ("identity", HTML, PcsAnswerError, 2),
        ("identity", Reply(body=signed("enclaveIdentity", b"{}", bytes(64))), PcsAnswerError, 2),
        ("identity", Reply(body=NO_HEADER.body, headers={CHAIN: "x"}), PcsAnswerError, 2),
        ("pckcrl", HTML, PcsAnswerError, 2),
        ("pckcrl", Reply(body=b"\x30\x00"), PcsAnswerError, 2),
        ("pckcrl", Reply(status=404), PcsNotFoundError, 1),
        ("IntelSGXRootCA.der", HTML, PcsAnswerError, 2),
        ("IntelSGXRootCA.der", Reply(body=b"abcd"), PcsAnswerError, 2),
        ("IntelSGXRootCA.der", Reply(body="30\u00e9".encode()), PcsAnswerError, 2),
        ("IntelSGXRootCA.der", Reply(), PcsAnswerError, 2),
    ],
)
async def test_a_wrong_answer_is_refused(
    forge: Any, tls: ServerTls, clock: MockClock, endpoint: str, reply: Reply, error: type[AttestationError], asked: int
) -> None:
    site = site_of(forge.collateral())
    site.script[endpoint].extend([reply] * 9)
    async with serving(site, tls) as service:
        with pytest.raises(CollateralUnavailableError) as caught:
            await fetch(service)
    assert type(caught.value) is error
    assert f"{service.base_url}/" in str(caught.value)
    assert endpoint in str(caught.value)
    assert sum(f"/{endpoint}" in target for target in site.requests) == asked


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff" * 40,
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 50 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"TCB-Info-Issuer-Chain: \xff%zz%\r\n" * 2 + b"\r\n{}",
        b"HTTP/1.1 200 OK\r\nSet-Cookie: \xff=;expires=x;domain=[;path=\xfe\r\n\r\n{}",
        b"HTTP/1.1 302 Found\r\nLocation: https://[::1:x/\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: \xff://\xff:99999999/\r\n\r\n",
        b"HTTP/1.1 999 \xff\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 500,
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 429 Later\r\nRetry-After: -5\r\nRetry-After: 1e9\r\n\r\n",
    ],
)
async def test_no_bytes_raise_anything_else(forge: Any, tls: ServerTls, clock: MockClock, raw: bytes) -> None:
    site = site_of(forge.collateral())
    site.script["tcb"].extend([Reply(raw=raw)] * 9)
    async with serving(site, tls) as service:
        with pytest.raises(CollateralUnavailableError, match="/tcb"):
            await fetch(service)


@pytest.mark.parametrize("reply", [HTML, Reply(status=500), Reply(status=429), Reply(silent=True), Reply(length=9)])
async def test_what_passes_by_itself_is_tried_again(forge: Any, tls: ServerTls, clock: MockClock, reply: Reply) -> None:
    collateral = forge.collateral()
    site = site_of(collateral)
    for endpoint in ("tcb", "pckcrl"):
        site.script[endpoint].append(reply)
    async with serving(site, tls) as service:
        assert await fetch(service) == collateral
    assert len(site.requests) == 6


async def test_pauses_double_and_are_drawn(forge: Any, tls: ServerTls, clock: MockClock) -> None:
    site = site_of(forge.collateral())
    site.script["tcb"].extend([Reply(status=503)] * 9)
    draws = iter([0.0, 0.25, 0.5, 0.75, 0.5])
    async with serving(site, tls) as service:
        start_s = trio.current_time()
        with pytest.raises(PcsBusyError):
            await PcsClient(service, rand=lambda: next(draws)).fetch(KEY)
        assert trio.current_time() - start_s == pytest.approx(0.5 + 2 * 0.75 + 4 * 1.0 + 8 * 1.25)


async def test_retry_after_is_heeded(forge: Any, tls: ServerTls, clock: MockClock) -> None:
    site = site_of(forge.collateral())
    site.script["tcb"].append(Reply(status=429, headers={"Retry-After": "20"}))
    async with serving(site, tls) as service:
        start_s = trio.current_time()
        await fetch(service)
        assert trio.current_time() - start_s == pytest.approx(20)


async def test_a_pause_beyond_the_deadline_is_not_begun(forge: Any, tls: ServerTls, clock: MockClock) -> None:
    site = site_of(forge.collateral())
    site.script["tcb"].append(Reply(status=429, headers={"Retry-After": "3600"}))
    async with serving(site, tls) as service:
        start_s = trio.current_time()
        with pytest.raises(PcsBusyError) as caught:
            await fetch(service)
        assert trio.current_time() == start_s
    assert caught.value.retry_after_s == 3600


async def test_a_retry_after_that_is_no_number_is_passed_over(forge: Any, tls: ServerTls, clock: MockClock) -> None:
    site = site_of(forge.collateral())
    site.script["tcb"].append(Reply(status=503, headers={"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}))
    async with serving(site, tls) as service:
        start_s = trio.current_time()
        await fetch(service)
        assert trio.current_time() - start_s == pytest.approx(pcs.PAUSE_S)


async def test_a_silent_server_ends_with_the_deadline(forge: Any, tls: ServerTls, clock: MockClock) -> None:
    site = site_of(forge.collateral())
    site.script["tcb"].extend([Reply(silent=True)] * 9)
    async with serving(site, tls) as service:
        start_s = trio.current_time()
        with pytest.raises(PcsTimeoutError, match="/tcb"):
            await fetch(service)
        assert trio.current_time() - start_s == pytest.approx(pcs.DEADLINE_S)


async def test_all_requests_share_the_deadline(forge: Any, tls: ServerTls, clock: MockClock) -> None:
    site = site_of(forge.collateral())
    for endpoint in ("tcb", "identity", "pckcrl", "IntelSGXRootCA.der"):
        site.script[endpoint].append(Reply(silent=True))
    async with serving(site, tls) as service:
        start_s = trio.current_time()
        with pytest.raises(PcsTimeoutError, match="IntelSGXRootCA"):
            await fetch(service)
        assert trio.current_time() - start_s == pytest.approx(pcs.DEADLINE_S)


async def test_nobody_listens(tls: ServerTls, clock: MockClock) -> None:
    async with serving(Site({}, ""), tls) as service:
        pass
    with pytest.raises(PcsConnectionError) as caught:
        await fetch(service)
    assert f"{service.base_url}/tdx/certification/v4/tcb" in str(caught.value)


async def test_a_server_that_hangs_up_is_asked_again(forge: Any, tls: ServerTls, clock: MockClock) -> None:
    collateral = forge.collateral()
    site = site_of(collateral)
    site.script["tcb"].append(Reply(status=503, hang_up=True))
    async with serving(site, tls) as service:
        assert await fetch(service) == collateral


async def test_an_unknown_ca_is_not_trusted(forge: Any, tls: ServerTls) -> None:
    site = site_of(forge.collateral())
    async with serving(site, tls) as service:
        with pytest.raises(PcsTlsError, match=r"self-signed|unable to get local issuer"):
            await fetch(replace(service, ca_file=None))
    assert not site.requests


async def test_a_certificate_of_another_name_is_not_trusted(forge: Any, tls: ServerTls) -> None:
    site = site_of(forge.collateral())
    async with serving(site, tls) as service:
        with pytest.raises(PcsTlsError, match="localhost"):
            await fetch(replace(service, base_url=service.base_url.replace("127.0.0.1", "localhost")))
    assert not site.requests


async def test_plain_http_behind_the_port_is_no_connection(clock: MockClock, tls: ServerTls) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, listeners)
        port = listeners[0].socket.getsockname()[1]
        with pytest.raises(PcsConnectionError):
            await fetch(PcsService.pccs(f"https://127.0.0.1:{port}", ca_file=tls.ca_file))
        nursery.cancel_scope.cancel()


async def test_too_much_in_all_is_refused(forge: Any, tls: ServerTls) -> None:
    root_crl = forge.crl(forge.root, *range(1, 3000))
    site = site_of(forge.collateral(root_ca_crl=root_crl))
    site.script["pckcrl"].append(Reply(headers={"SGX-PCK-CRL-Issuer-Chain": "x"}, body=b"\x30" + bytes(100_000)))
    async with serving(site, tls) as service:
        with pytest.raises(PcsAnswerError, match="more than"):
            await fetch(service)


@pytest.mark.parametrize(
    ("headers", "padding"),
    [
        ({"Content-Encoding": "gzip"}, 0),
        ({}, pcs.ANSWER_BYTES_MAX),
        ({"Filler": "f" * 60_000}, pcs.ANSWER_BYTES_MAX - 60_000),
    ],
    ids=["compressed", "long", "long with its header"],
)
async def test_a_right_answer_in_a_wrong_dress_is_refused(
    forge: Any, tls: ServerTls, headers: dict[str, str], padding: int
) -> None:
    collateral = forge.collateral()
    right = site_of(collateral).answer(f"/tdx/certification/v4/tcb?fmspc={FMSPC.hex().upper()}&update=standard")
    site = site_of(collateral)
    dressed = replace(right, headers=right.headers | headers, body=right.body + b" " * padding)
    site.script["tcb"].extend([dressed] * 2)
    async with serving(site, tls) as service:
        with pytest.raises(PcsAnswerError, match=r"content encoding|more than"):
            await fetch(service)


async def test_cancellation_leaves_no_connection(forge: Any, tls: ServerTls, clock: MockClock) -> None:
    site = site_of(forge.collateral())
    site.script["tcb"].append(Reply(silent=True))
    async with serving(site, tls) as service:
        with trio.move_on_after(5) as scope:
            await fetch(service)
    assert scope.cancelled_caught


# The settings, and the key.


@pytest.mark.parametrize(
    "url", ["http://pccs.example", "pccs.example", "https://", "https://u:p@h", "https://h?x=1", "https://h:x", "\0"]
)
def test_only_https_urls_are_settings(url: str) -> None:
    with pytest.raises(PcsSettingsError):
        PcsService.pccs(url)


def test_a_bad_ca_file_is_the_operators_fault(tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("no certificate")
    for path in (tmp_path / "bad.pem", tmp_path / "missing.pem"):
        with pytest.raises(PcsSettingsError) as caught:
            PcsClient(PcsService.pccs("https://pccs.example", ca_file=path))
        assert str(path) in str(caught.value)


def test_a_quote_under_another_root_says_nothing(forge: Any) -> None:
    other = forge.certificate("Intel SGX Root CA", None, is_ca=True)
    with pytest.raises(PckChainError):
        collateral_key(forge.quote(), root=other.der)
