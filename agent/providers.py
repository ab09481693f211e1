"""Opens what this host proves itself with, as the settings say: quotes, collateral for them, GPU reports."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from agent.config import Config
from agent.errors import ConfigError
from attestation.collateral_key import Update
from attestation.collateral_source import CollateralSource
from attestation.collateral_store import CollateralStore
from attestation.errors import SoftwarePlatformError
from attestation.pcs import PcsClient, PcsService
from attestation.providers import CollateralProvider, QuoteProvider
from attestation.providers.cocoon_guest import CocoonGuest
from attestation.providers.configfs import ConfigfsTsm, KernelFiles
from attestation.providers.software import SoftwarePlatform
from attestation.roots import root_for

COLLATERAL_FOLDER = "collateral"


@dataclass(frozen=True, slots=True, kw_only=True)
class Providers:
    """Where this host's evidence comes from; `gpus` collects reports over a nonce of 32 bytes, None: no GPU reports."""

    quotes: QuoteProvider
    collateral: CollateralProvider
    gpus: Callable[[bytes], Awaitable[bytes]] | None = None


def open_providers(config: Config) -> Providers:
    """Open the providers that `config` names.

    Raises:
        ConfigError: a file of the attestation section cannot be read.
        AttestationError: the software platform, the PCCS's settings or the root cannot be used.
    """
    table = config.attestation
    gpus: Callable[[bytes], Awaitable[bytes]] | None = None
    if table.gpu:
        # Here, not above: hosts without NVIDIA GPUs need not load the library.
        from attestation.providers.nvml import collect_gpu_evidence

        gpus = collect_gpu_evidence
    if table.provider == "software":
        assert table.software_dir is not None
        try:
            platform = SoftwarePlatform.load(config.resolve(table.software_dir))
        except SoftwarePlatformError as error:
            advice = "`gpupool attest platform` makes a new machine"
            raise ConfigError(f"{config.path}: attestation.software_dir: {error}; {advice}") from error
        # With a service, its collateral is held and renewed as that of a real platform is.
        collateral = platform if table.pccs_url is None else open_collateral(config)
        return Providers(quotes=platform, collateral=collateral, gpus=gpus)
    return Providers(quotes=_open_quotes(config), collateral=open_collateral(config), gpus=gpus)


def _open_quotes(config: Config) -> QuoteProvider:
    table = config.attestation
    if table.provider == "configfs":
        return ConfigfsTsm(KernelFiles(config.resolve(table.tsm_dir)))
    place = urlsplit(f"//{table.guest_address}")
    assert place.hostname is not None
    assert place.port is not None
    return CocoonGuest(place.hostname, place.port, proof_of_work=table.guest_asks_for_work)


def open_collateral(config: Config) -> CollateralSource:
    """Open the collateral of real platforms: the store in the data folder, and the service to renew it from."""
    table = config.attestation
    root = pool_root(config)
    store = CollateralStore(config.data_dir / COLLATERAL_FOLDER, root=root)
    client = PcsClient(_service(config))
    return CollateralSource(client, store, root=root, update=Update(table.collateral_update))


def pool_root(config: Config) -> bytes:
    """The root certificate (DER) that evidence of this config's pool has to lead to.

    Raises:
        ConfigError: its file cannot be read.
        RootRefusedError: a private root on a public network.
    """
    name = config.attestation.software_root_file
    return root_for(config.pool.global_id, None if name is None else read_certificate(config.resolve(name)))


def _service(config: Config) -> PcsService:
    table = config.attestation
    if table.pccs_url is None:
        return PcsService()
    ca_file = None if table.pccs_ca_file is None else config.resolve(table.pccs_ca_file)
    return PcsService.pccs(table.pccs_url, ca_file=ca_file)


def read_certificate(path: Path) -> bytes:
    """DER of a certificate file (DER or PEM).

    Raises:
        ConfigError: it cannot be read, or holds no certificate.
    """
    try:
        raw = path.read_bytes()
        certificate = (
            x509.load_pem_x509_certificate(raw) if raw.startswith(b"-----") else x509.load_der_x509_certificate(raw)
        )
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not a certificate: {error}") from error
    return certificate.public_bytes(serialization.Encoding.DER)
