"""The tables of the settings file, key by key: types, defaults and what each key means.

Whether values are in range, and fit together, is for `agent.config`. docs/configuration.md is written from this file
(`make settings`): each key has a docstring, in plain words, and a test holds `agent.config` to the ranges in it.
"""

from __future__ import annotations

import base64
from typing import Literal

import msgspec

from contracts.model import Address

NETWORKS = {"mainnet": -239, "testnet": -3}
"""TON's public networks by name, and their global ids."""


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file: no unknown key, no change after reading."""


class LiteServerTable(Table, frozen=True):
    """A liteserver of TON, through which the chain is read and written. Name two or more, of different operators."""

    host: str
    """Its name or address."""
    port: int
    """1 to 65535."""
    public_key: str
    """Ed25519 key, base64 (32 bytes), as in TON's global config."""

    @property
    def key(self) -> bytes:
        return base64.b64decode(self.public_key)


class PoolPlaceTable(Table, frozen=True):
    """Where a pool is: all that `gpupool pool` needs to know of it."""

    network: str | int
    """"mainnet", "testnet", or the global id of another network (a whole number)."""
    address: str
    """The PoolOperator contract, raw (`0:hex`) or friendly."""
    policy_file: str | None = None
    """The pool's policy document."""
    next_policy_file: str | None = None
    """The document that the pool is changing to: named before the change, until the old one's epochs have settled."""

    @property
    def global_id(self) -> int:
        return NETWORKS[self.network] if isinstance(self.network, str) else self.network

    @property
    def contract(self) -> Address:
        return Address.parse(self.address)


class PoolTable(PoolPlaceTable, frozen=True):
    """Which pool this agent belongs to. Required."""

    policy_file: str
    """The pool's policy document; its hash must be the one on chain."""


class IdentityTable(Table, frozen=True):
    """Who this node is: the key that signs its records and votes."""

    node_key_file: str = "node.key"
    """Key file (PKCS#8 PEM of an Ed25519 key) that only its owner can read; [keys.md](keys.md)."""


class WalletTable(Table, frozen=True):
    """The wallet that owns the registry entry, pays fees, and is paid."""

    key_file: str = "wallet.key"
    """Key file, as that of the node."""
    version: Literal["v5r1", "v4r2"] = "v5r1"
    """Which wallet contract stands, or will, at the key's address: another one has another address."""


class ChainTable(Table, frozen=True):
    """How the chain is read. Required: `liteservers`, `global_config`, or both."""

    liteservers: tuple[LiteServerTable, ...] = ()
    """Asked in this order; each is a `[[chain.liteservers]]`."""
    global_config: str | None = None
    """TON's global config (JSON) as the operator downloaded it: its liteservers are asked after those above."""
    trust_level: int = 1
    """1: everything is proven from the masterchain block down; 2: the server's shard block is believed."""
    timeout_s: float = 5.0
    """How long one liteserver has to answer before the next is asked, 0.1 to 9."""
    poll_interval_s: float = 3.0
    """Between two looks at the pool's rewards contract, 0.1 to 86400."""
    roster_interval_s: float = 60.0
    """Between two looks at the operator set and the registry, 0.1 to 86400."""


class PeerTable(Table, frozen=True):
    """Another agent of the pool. One that can be reached is enough; [networking.md](networking.md)."""

    node_key: str
    """64 hex digits: its public node key; ask its operator."""
    addresses: tuple[str, ...]
    """Multiaddrs, `/ip4/203.0.113.7/tcp/4001`: at least one; a peer id in one is this key's."""


class P2pTable(Table, frozen=True):
    """How this agent and others reach each other; [networking.md](networking.md)."""

    listen: tuple[str, ...] = ("/ip4/0.0.0.0/tcp/4001",)
    """IP addresses of this host. Empty: this node only dials; nobody can dial it."""
    announce: tuple[str, ...] = ()
    """Where others dial this node, `/dns4/agent.example.org/tcp/4001`, without peer id; absent: where it listens."""
    peers: tuple[PeerTable, ...] = ()
    """Seeds: with one of them reachable, the others are found. Tried before what a peer says of itself."""
    sync_interval_s: float = 30.0
    """Between two comparisons of all logs with some peer, 0.1 to 86400."""
    close_interval_s: float = 10.0
    """The same for what belongs to the close of an epoch, while one closes, 0.1 to 86400."""
    address_interval_s: float = 60.0
    """Between two questions to a peer where the others are, 0.1 to 86400."""


class MeterTable(Table, frozen=True):
    """How work is measured, whatever the source; [metering.md](metering.md)."""

    sample_interval_s: float = 10.0
    """Between two readings of the sources, 0.1 to 86400."""
    window_s: int = 60
    """Length of a work window, 1 to half of the policy's `work.window_max_s`; idle ones grow longer."""
    disagreement_max: float = 0.2
    """An alarm is raised where own counters, receipts and the chain are farther apart than this share (above 0, at
    most 1)."""
    samples_kept_days: float = 7.0
    """How long readings are kept, so that a record can be explained, 0.1 to 365."""


class EngineTable(Table, frozen=True):
    """Inference engines whose own counters tell what they did: vLLM, SGLang, TGI, llama.cpp; [engines.md](engines.md).
    This table, or `[cocoon]`, is required."""

    url: str | tuple[str, ...]
    """The engine's Prometheus endpoint, `http://127.0.0.1:8000/metrics`, or a list of up to 8: one per engine."""

    @property
    def urls(self) -> tuple[str, ...]:
        return (self.url,) if isinstance(self.url, str) else self.url


class CocoonTable(Table, frozen=True):
    """Cocoon workers on this host, whose engines nobody outside of their guests can see; [cocoon.md](cocoon.md)."""

    workers: tuple[int, ...] = (0,)
    """Numbers of the workers, 0 to 255 each, at most 8: the n-th answers on port 12000 + 10 n."""
    host: str = "127.0.0.1"
    """The host on which they answer."""
    urls: tuple[str, ...] = ()
    """Where they answer, if not there: `http://127.0.0.1:12000`, in the order of `workers`."""
    access_hash: str | None = None
    """The worker's `access_hash`, if its port asks for one."""
    health: bool = True
    """Whether the guests' health service is asked, over vsock."""


class GpusTable(Table, frozen=True):
    """The host's own GPUs; [gpus.md](gpus.md). With a Cocoon worker they belong to the guest, and there is nothing to
    see."""

    nvml: bool = False
    """Whether NVIDIA's driver is read."""


class ReceiptsTable(Table, frozen=True):
    """Where gateways and clients hand in receipts, by HTTP; [metering.md](metering.md). Without it nobody can."""

    port: int
    """0 to 65535, another one than `web.port`; 0: any free one."""
    host: str = "127.0.0.1"
    """An IP address of this host to listen on; another one than loopback needs `allowed_hosts`."""
    allowed_hosts: tuple[str, ...] = ()
    """Names or addresses, without port, by which gateways reach it (the Host header), beside loopback's; others are
    refused, against DNS rebinding."""


class AttestationTable(Table, frozen=True):
    """What proves this host; [attestation.md](attestation.md). Required."""

    provider: Literal["configfs", "cocoon", "software"]
    """"configfs": this host is a TDX guest; "cocoon": a Cocoon worker's guest, over its TLS port; "software": a
    platform in software, for development networks only."""
    gpu: bool = False
    """Whether the GPUs (in confidential mode) report, too."""
    tsm_dir: str = "/sys/kernel/config/tsm/report"
    """configfs: the kernel's report folder."""
    guest_address: str | None = None
    """cocoon: HOST:PORT of the worker's TLS port."""
    guest_asks_for_work: bool = True
    """cocoon: whether that port asks for a proof of work first, as Cocoon's router does."""
    pccs_url: str | None = None
    """A cache of Intel's service to fetch collateral from; absent: Intel's service itself."""
    pccs_ca_file: str | None = None
    """PEM certificates to trust that cache by, if it has none of a public CA."""
    collateral_update: Literal["standard", "early"] = "standard"
    """Which TCB levels to ask for: "early" is stricter, and may be what the pool's policy wants."""
    software_dir: str | None = None
    """software: folder of this machine's software platform."""
    software_root_file: str | None = None
    """software: root certificate (DER or PEM) that the pool's operators accept."""


class WebTable(Table, frozen=True):
    """Where status, metrics and the status page are served, over HTTP without a password: leave it on loopback."""

    host: str = "127.0.0.1"
    """An IP address of this host to listen on; another one than loopback needs `allowed_hosts`."""
    port: int = 9464
    """0 to 65535; 0: any free one, which no command finds."""
    allowed_hosts: tuple[str, ...] = ()
    """Further names or addresses, without port, by which it may be asked (the Host header); others are refused, against
    DNS rebinding."""


class LogTable(Table, frozen=True):
    """What is logged, to standard error: JSON where that is no terminal."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least level that is written."""
