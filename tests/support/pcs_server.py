"""An HTTPS server on 127.0.0.1 that speaks the PCS API v4, or a PCCS's dialect, and gets things wrong on demand."""

from __future__ import annotations

import ipaddress
import ssl
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from attestation.collateral import Collateral
from attestation.pcs import PcsService


@dataclass(kw_only=True)
class Reply:
    """An answer. `length` is the Content-Length that it claims; `endless` sends the body for ever, `silent` nothing."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    length: int | None = None
    endless: bool = False
    silent: bool = False
    hang_up: bool = False
    raw: bytes | None = None
    """All that is sent, instead of anything else, before it hangs up."""


@dataclass
class Site:
    """What a service has: collateral by (CA, update), served as a PCS does, or as a PCCS of a new or an old version.

    `script` holds replies to give before the right ones, by the last part of the path; `requests` what was asked.
    """

    collateral: dict[tuple[str, str], Collateral]
    fmspc: str
    is_pccs: bool = False
    sends_hex: bool = False
    tcb_header: str = "TCB-Info-Issuer-Chain"
    script: defaultdict[str, deque[Reply]] = field(default_factory=lambda: defaultdict(deque))
    requests: list[str] = field(default_factory=list)

    def answer(self, target: str) -> Reply:
        """The next scripted reply, or the right one."""
        self.requests.append(target)
        split = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(split.query).items()}
        script = self.script[split.path.rsplit("/", 1)[-1]]
        return script.popleft() if script else self._right(split.path, query)

    def _right(self, path: str, query: dict[str, str]) -> Reply:
        by_update = {update: held for (_, update), held in self.collateral.items()}
        by_ca = {ca: held for (ca, _), held in self.collateral.items()}
        anyone = next(iter(self.collateral.values()))
        match path:
            case "/tdx/certification/v4/tcb" if query.get("fmspc") == self.fmspc:
                held = by_update[query["update"]]
                body = signed("tcbInfo", held.tcb_info, held.tcb_info_signature)
                return Reply(headers={self.tcb_header: quote(held.tcb_info_issuer_chain)}, body=body)
            case "/tdx/certification/v4/qe/identity":
                held = by_update[query["update"]]
                body = signed("enclaveIdentity", held.qe_identity, held.qe_identity_signature)
                chain = quote(held.qe_identity_issuer_chain)
                return Reply(headers={"SGX-Enclave-Identity-Issuer-Chain": chain}, body=body)
            case "/sgx/certification/v4/pckcrl" if query.get("encoding") == "der":
                held = by_ca[query["ca"]]
                body = held.pck_crl.hex().encode() if self.sends_hex else held.pck_crl
                return Reply(headers={"SGX-PCK-CRL-Issuer-Chain": quote(held.pck_crl_issuer_chain)}, body=body)
            case "/sgx/certification/v4/rootcacrl" if self.is_pccs:
                return Reply(body=anyone.root_ca_crl.hex().encode())
            case "/IntelSGXRootCA.der" if not self.is_pccs:
                return Reply(body=anyone.root_ca_crl)
        return Reply(status=404)


def signed(name: str, document: bytes, signature: bytes) -> bytes:
    """The body of a signed document, with spaces where nobody signs them."""
    return b'{ "%b" :\n%b , "signature":"%b"}' % (name.encode(), document, signature.hex().encode())


@dataclass(frozen=True)
class ServerTls:
    """A server's TLS, and the file of the CA that vouches for it."""

    context: ssl.SSLContext
    ca_file: Path

    @classmethod
    def load(cls, folder: Path) -> ServerTls:
        """What `make` left in `folder`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem")
        return cls(context=context, ca_file=folder / "ca.pem")

    @classmethod
    def make(cls, folder: Path) -> ServerTls:
        """Make a CA and a certificate for 127.0.0.1; the files go into `folder`."""
        ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        ca_name = _name("test CA")
        ca = _builder(ca_name, ca_name, ca_key).add_extension(x509.BasicConstraints(True, None), critical=True)
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))])
        leaf = _builder(_name("127.0.0.1"), ca_name, key).add_extension(address, critical=False)
        (folder / "ca.pem").write_bytes(_pem(ca.sign(ca_key, hashes.SHA256())))
        pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        private = key.private_bytes(serialization.Encoding.PEM, pkcs8, plain)
        (folder / "server.pem").write_bytes(private + _pem(leaf.sign(ca_key, hashes.SHA256())))
        return cls.load(folder)


@asynccontextmanager
async def serving(site: Site, tls: ServerTls, port: int = 0) -> AsyncIterator[PcsService]:
    """Serve `site` for the length of the block, at `port` (0: any); yields the settings that reach it."""

    async def serve(stream: trio.SSLStream[trio.SocketStream]) -> None:
        # The client hangs up when it likes: with too much in hand, or after its time is over.
        try:
            while (target := await _read_target(stream)) is not None:
                await _send(stream, site.answer(target))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_ssl_over_tcp_listeners(port, tls.context, host="127.0.0.1", https_compatible=True)
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        port = listeners[0].transport_listener.socket.getsockname()[1]
        base = f"https://127.0.0.1:{port}"
        root_crl_url = None if site.is_pccs else f"{base}/IntelSGXRootCA.der"
        yield PcsService(base_url=base, root_crl_url=root_crl_url, ca_file=tls.ca_file)
        nursery.cancel_scope.cancel()


async def _read_target(stream: trio.abc.ReceiveStream) -> str | None:
    head = b""
    while b"\r\n\r\n" not in head:
        chunk = await stream.receive_some()
        if not chunk:
            return None
        head += chunk
    return head.split(b" ", 2)[1].decode()


async def _send(stream: trio.abc.Stream, reply: Reply) -> None:
    if reply.silent:
        await trio.sleep_forever()
    if reply.raw is not None:
        await stream.send_all(reply.raw)
        raise trio.ClosedResourceError
    length = len(reply.body) if reply.length is None else reply.length
    lines = [f"HTTP/1.1 {reply.status} reason", *(f"{name}: {value}" for name, value in reply.headers.items())]
    lines.append("Transfer-Encoding: chunked" if reply.endless else f"Content-Length: {length}")
    await stream.send_all("\r\n".join([*lines, "", ""]).encode() + (b"" if reply.endless else reply.body))
    while reply.endless:
        await stream.send_all(b"%x\r\n%b\r\n" % (len(reply.body), reply.body))
    if length != len(reply.body) or reply.hang_up:
        raise trio.ClosedResourceError


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    start = datetime(2020, 1, 1, tzinfo=UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=36_500))
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
