"""Fetch collateral from Intel's Provisioning Certification Service (PCS), or from a cache of it (PCCS).

Four requests over HTTPS, API v4. Every answer is untrusted: here it is bounded and taken apart, and becomes a
`Collateral`, which is unverified; `CollateralStore.admit` verifies it before anything is kept.

1. The two signed documents are the bytes that stand in the answer, never JSON that was written again.
2. An answer has at most 256 KiB, header and body together. No redirection is followed, no compression asked for.
3. Tried again, with growing pauses, is what passes by itself: no connection, no answer in time, 429, 5xx.
   An answer with wrong content is asked for once more. Nothing else is; and nothing after the deadline.
4. The settings say whether it is a PCCS, which serves the root's revocation list itself. A PCCS, depending on
   its version, sends lists as hex or DER: DER starts with byte 0x30, so there is nothing to guess.

Source: Intel PCS API v4; Intel's PCCS, in intel/confidential-computing.tee.dcap.pccs (`service/controllers`,
`service/services`), before in intel/SGXDataCenterAttestationPrimitives.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import random
from typing import TypeVar
from urllib.parse import unquote_to_bytes

import httpx
import msgspec
import trio

from attestation.collateral import Collateral
from attestation.collateral_key import CollateralKey
from attestation.errors import (
    CollateralMalformedError,
    CollateralUnavailableError,
    PcsAnswerError,
    PcsBusyError,
    PcsConnectionError,
    PcsNotFoundError,
    PcsSettingsError,
    PcsStatusError,
    PcsTimeoutError,
    PcsTlsError,
)

INTEL_PCS_URL = "https://api.trustedservices.intel.com"
INTEL_ROOT_CRL_URL = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"

ANSWER_BYTES_MAX = 256 * 1024
ATTEMPTS_MAX = 5
ATTEMPT_TIMEOUT_S = 15.0
DEADLINE_S = 60.0
PAUSE_S = 1.0
"""The mean pause before the second attempt; it doubles each time, and is drawn between half and one and a half."""

_DER = 0x30
_SIGNATURE = re.compile(r"[0-9A-Fa-f]{128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PcsService:
    """Where to fetch: Intel's service by default; `PcsService.pccs` for a cache.

    `root_crl_url` is where the root's revocation list (DER) stands, None if `base_url` is that of a PCCS.
    `ca_file` holds the PEM certificates to trust the servers by, instead of the public CAs.
    """

    base_url: str = INTEL_PCS_URL
    root_crl_url: str | None = INTEL_ROOT_CRL_URL
    ca_file: Path | None = None

    def __post_init__(self) -> None:
        for text in filter(None, (self.base_url, self.root_crl_url)):
            try:
                url = httpx.URL(text)
            except httpx.InvalidURL as error:
                raise PcsSettingsError(f"{text}: not a URL: {error}") from error
            if url.scheme != "https" or not url.host or url.query or url.fragment or url.userinfo:
                raise PcsSettingsError(f"{text}: expected https://host[:port][/path] and nothing else")

    @classmethod
    def pccs(cls, base_url: str, *, ca_file: Path | None = None) -> PcsService:
        """A PCCS at `base_url` (what stands before /sgx/certification/v4)."""
        return cls(base_url=base_url, root_crl_url=None, ca_file=ca_file)


class PcsClient:
    """Fetches from one service. `rand` gives numbers in [0, 1); time is trio's."""

    def __init__(self, service: PcsService, *, rand: Callable[[], float] = random) -> None:
        """Read the CA file.

        Raises:
            PcsSettingsError: it is missing, or holds no certificate.
        """
        self._service = service
        self._tls = _tls(service.ca_file)
        self._rand = rand

    async def fetch(self, key: CollateralKey) -> Collateral:
        """Fetch the collateral of `key` within 60 s; nothing of it is verified. Cancellation leaves nothing behind.

        Raises:
            CollateralUnavailableError: the service cannot be reached, refuses, or answers something else.
        """
        async with httpx.AsyncClient(verify=self._tls, timeout=None, trust_env=False) as http:  # noqa: S113
            return await self._fetch(_Asker(http, trio.current_time() + DEADLINE_S, self._rand), key)

    async def _fetch(self, asker: _Asker, key: CollateralKey) -> Collateral:
        base = self._service.base_url.rstrip("/")
        fmspc = key.fmspc.hex().upper()
        tcb_info = await asker.ask(f"{base}/tdx/certification/v4/tcb?fmspc={fmspc}&update={key.update}", _read_tcb_info)
        qe_identity = await asker.ask(f"{base}/tdx/certification/v4/qe/identity?update={key.update}", _read_qe_identity)
        pck_crl = await asker.ask(f"{base}/sgx/certification/v4/pckcrl?ca={key.ca}&encoding=der", _read_pck_crl)
        root_crl_url = self._service.root_crl_url or f"{base}/sgx/certification/v4/rootcacrl"
        root_crl = await asker.ask(root_crl_url, _read_crl)
        try:
            return Collateral(
                pck_crl_issuer_chain=pck_crl.issuer_chain,
                root_ca_crl=root_crl,
                pck_crl=pck_crl.der,
                tcb_info_issuer_chain=tcb_info.issuer_chain,
                tcb_info=tcb_info.document,
                tcb_info_signature=tcb_info.signature,
                qe_identity_issuer_chain=qe_identity.issuer_chain,
                qe_identity=qe_identity.document,
                qe_identity_signature=qe_identity.signature,
            )
        except CollateralMalformedError as error:
            raise PcsAnswerError(f"{base}: {error}") from error


_T = TypeVar("_T")


class _Asker:
    """Rule 3: asks until there is an answer, the error is one that stays, or the time is over."""

    def __init__(self, http: httpx.AsyncClient, until_s: float, rand: Callable[[], float]) -> None:
        self._http = http
        self._until_s = until_s
        self._rand = rand

    async def ask(self, url: str, read: Callable[[_Answer], _T]) -> _T:
        """Get `url` and take the answer apart with `read`, which raises `PcsAnswerError`."""
        attempt = misread = 0
        while True:
            pause_s = PAUSE_S * 2**attempt * (0.5 + self._rand())
            attempt += 1
            try:
                return read(await _get(self._http, url, self._until_s))
            except PcsAnswerError as error:
                misread += 1
                failure: CollateralUnavailableError = error
            except PcsBusyError as error:
                failure = error
                pause_s = max(pause_s, error.retry_after_s or 0)
            except (PcsConnectionError, PcsTimeoutError) as error:
                failure = error
            # The reason is worth more than "too late": it is raised as soon as waiting can lead to nothing else.
            if misread > 1 or attempt >= ATTEMPTS_MAX or trio.current_time() + pause_s >= self._until_s:
                raise failure
            await trio.sleep(pause_s)


# One request.


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    url: str
    headers: httpx.Headers
    body: bytes


async def _get(http: httpx.AsyncClient, url: str, until_s: float) -> _Answer:
    limit_s = min(ATTEMPT_TIMEOUT_S, until_s - trio.current_time())
    try:
        with trio.fail_after(max(0, limit_s)):
            async with http.stream("GET", url, headers={"Accept-Encoding": "identity"}) as response:
                return await _read_answer(url, response)
    except trio.TooSlowError:
        raise PcsTimeoutError(f"{url}: no whole answer within {limit_s:.1f} s") from None
    except httpx.RemoteProtocolError as error:
        raise PcsAnswerError(f"{url}: {error}") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        distrust = _distrust(error)
        if distrust is not None:
            raise PcsTlsError(f"{url}: {distrust.verify_message}") from error
        raise PcsConnectionError(f"{url}: {str(error) or type(error).__name__}") from error


async def _read_answer(url: str, response: httpx.Response) -> _Answer:
    _require_ok(url, response)
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise PcsAnswerError(f"{url}: answered with a content encoding that was not asked for")
    room = ANSWER_BYTES_MAX - sum(len(name) + len(value) for name, value in response.headers.raw)
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > room:
            raise PcsAnswerError(f"{url}: answered more than {ANSWER_BYTES_MAX} bytes")
    return _Answer(url=url, headers=response.headers, body=bytes(body))


def _require_ok(url: str, response: httpx.Response) -> None:
    status = response.status_code
    if status == httpx.codes.OK:
        return
    message = f"{url}: answered status {status}"
    if status == httpx.codes.NOT_FOUND:
        raise PcsNotFoundError(message)
    if status == httpx.codes.TOO_MANY_REQUESTS or status >= httpx.codes.INTERNAL_SERVER_ERROR:
        asked = response.headers.get("Retry-After", "")
        # Only seconds are read, which is what the PCS sends; for a date the own pauses do.
        raise PcsBusyError(message, retry_after_s=int(asked) if re.fullmatch(r"[0-9]{1,9}", asked) else None)
    raise PcsStatusError(message)


def _distrust(error: BaseException) -> ssl.SSLCertVerificationError | None:
    """What TLS found wrong with the server's certificate, if that is the cause of `error`."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    return cause


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    if ca_file is None:
        return httpx.create_ssl_context(trust_env=False)
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # also what is in the file: ssl.SSLError is one
        raise PcsSettingsError(f"{ca_file}: no CA certificates in PEM: {error.strerror or error}") from error


# What the answers hold.


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signed:
    issuer_chain: bytes
    document: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Crl:
    issuer_chain: bytes
    der: bytes


class _TcbInfo(msgspec.Struct):
    document: msgspec.Raw = msgspec.field(name="tcbInfo")
    signature: str


class _QeIdentity(msgspec.Struct):
    document: msgspec.Raw = msgspec.field(name="enclaveIdentity")
    signature: str


def _read_tcb_info(answer: _Answer) -> _Signed:
    # Some caches keep the name that the header has in API v3.
    return _read_signed(answer, _TcbInfo, "TCB-Info-Issuer-Chain", "SGX-TCB-Info-Issuer-Chain")


def _read_qe_identity(answer: _Answer) -> _Signed:
    return _read_signed(answer, _QeIdentity, "SGX-Enclave-Identity-Issuer-Chain")


def _read_signed(answer: _Answer, kind: type[_TcbInfo | _QeIdentity], *headers: str) -> _Signed:
    try:
        tree = msgspec.json.decode(answer.body, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _unexpected(answer, str(error)) from error
    if not _SIGNATURE.fullmatch(tree.signature):
        raise _unexpected(answer, "the signature is not 64 bytes in hex")
    return _Signed(
        issuer_chain=_issuer_chain(answer, *headers),
        document=bytes(tree.document),
        signature=bytes.fromhex(tree.signature),
    )


def _read_pck_crl(answer: _Answer) -> _Crl:
    return _Crl(issuer_chain=_issuer_chain(answer, "SGX-PCK-CRL-Issuer-Chain"), der=_read_crl(answer))


def _read_crl(answer: _Answer) -> bytes:
    if answer.body[:1] == bytes([_DER]):
        return answer.body
    try:
        der = bytes.fromhex(answer.body.decode("ascii"))
    except ValueError as error:
        raise _unexpected(answer, "no revocation list in DER or hex") from error
    if der[:1] != bytes([_DER]):
        raise _unexpected(answer, "no revocation list in DER or hex")
    return der


def _issuer_chain(answer: _Answer, *headers: str) -> bytes:
    for header in headers:
        if header in answer.headers:
            return unquote_to_bytes(answer.headers[header])
    raise _unexpected(answer, f"no header {headers[0]}")


def _unexpected(answer: _Answer, reason: str) -> PcsAnswerError:
    kind = answer.headers.get("Content-Type", "none")
    return PcsAnswerError(f"{answer.url}: {reason:.200} ({len(answer.body)} bytes, content type {kind!r:.60})")
