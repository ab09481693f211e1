"""The tables of the settings file, key by key: types, defaults and what each key means.

Whether values are in range, and fit together, is for `agent.config`.
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
    host: str
    port: int
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
    next_policy_file: str | None = None
    """The document that the pool is changing to: named before the change, until the old one's epochs have settled."""

    @property
    def global_id(self) -> int:
        return NETWORKS[self.network] if isinstance(self.network, str) else self.network

    @property
    def contract(self) -> Address:
        return Address.parse(self.address)


class PoolTable(PoolPlaceTable, frozen=True):
    policy_file: str
    """The pool's policy document; its hash must be the one on chain."""


class IdentityTable(Table, frozen=True):
    node_key_file: str = "node.key"


class WalletTable(Table, frozen=True):
    key_file: str = "wallet.key"
    version: Literal["v5r1", "v4r2"] = "v5r1"


class ChainTable(Table, frozen=True):
    liteservers: tuple[LiteServerTable, ...] = ()
    global_config: str | None = None
    """TON's global config (JSON) as the operator downloaded it: its liteservers are asked after those above."""
    trust_level: int = 1
    """1: everything is proven from the masterchain block down; 2: the server's shard block is believed."""
    timeout_s: float = 5.0
    poll_interval_s: float = 3.0
    """Between two looks at the pool's rewards contract."""
    roster_interval_s: float = 60.0
    """Between two looks at the operator set and the registry."""


class PeerTable(Table, frozen=True):
    node_key: str
    """64 hex digits."""
    addresses: tuple[str, ...]
    """Multiaddrs, `/ip4/203.0.113.7/tcp/4001`: at least one; a peer id in one is this key's."""


class P2pTable(Table, frozen=True):
    listen: tuple[str, ...] = ("/ip4/0.0.0.0/tcp/4001",)
    """IP addresses of this host. Empty: this node only dials; nobody can dial it."""
    announce: tuple[str, ...] = ()
    """Where others dial this node, `/dns4/agent.example.org/tcp/4001`, without peer id; absent: where it listens."""
    peers: tuple[PeerTable, ...] = ()
    """Seeds: with one of them reachable, the others are found. Tried before what a peer says of itself."""
    sync_interval_s: float = 30.0
    close_interval_s: float = 10.0
    address_interval_s: float = 60.0
    """Between two questions to a peer where the others are."""


class EngineTable(Table, frozen=True):
    url: str
    """The engine's Prometheus endpoint, `http://127.0.0.1:8000/metrics`."""
    sample_interval_s: float = 10.0
    window_s: int = 60


class AttestationTable(Table, frozen=True):
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
    host: str = "127.0.0.1"
    port: int = 9464
    allowed_hosts: tuple[str, ...] = ()


class LogTable(Table, frozen=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
