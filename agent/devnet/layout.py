"""Where the dev network keeps its files, and the documents that it writes: policy, configs, genesis."""

from __future__ import annotations

import base64
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.setup import Answers, Peer, init_agent, make_keys, toml_table
from attestation.policy import AttestationPolicy
from attestation.providers.software import SOFTWARE_MEASUREMENT, SoftwarePlatform, SoftwareRoot
from contracts.chain import LiteServer
from contracts.devchain.network import DEVNET_GLOBAL_ID
from contracts.model import Address
from contracts.signing import SigningKey

GLOBAL_ID = DEVNET_GLOBAL_ID
WINDOW_S = 4
SAMPLE_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """One agent's place: its folder, keys and ports."""

    index: int
    directory: Path
    node_key: SigningKey
    wallet_key: SigningKey
    p2p_port: int
    web_port: int

    @property
    def name(self) -> str:
        return f"agent-{self.index}"

    @property
    def config(self) -> Path:
        return self.directory / "agent.toml"

    @property
    def log(self) -> Path:
        return self.directory / "agent.log"


def prepare_seats(directory: Path, count: int, now_s: int) -> list[Seat]:
    """Make keys and software TDX machines for `count` agents below `directory`."""
    root = SoftwareRoot.create(directory / "tdx-root", now_s=now_s)
    ports = free_ports(2 * count)
    seats = []
    for index in range(count):
        folder = directory / f"agent-{index}"
        node_key, wallet_key = make_keys(folder)
        SoftwarePlatform.create(folder / "platform", root=root)
        seats.append(
            Seat(
                index=index,
                directory=folder,
                node_key=node_key,
                wallet_key=wallet_key,
                p2p_port=ports[2 * index],
                web_port=ports[2 * index + 1],
            )
        )
    return seats


def write_policy(path: Path, epoch_s: int) -> str:
    """Write the pool's policy: short steps, so that an epoch settles in seconds; returns its text."""
    attestation = AttestationPolicy(
        measurements=(SOFTWARE_MEASUREMENT,), evidence_age_max_s=max(90, 4 * epoch_s)
    ).to_mapping()
    tables: dict[str, dict[str, Any]] = {
        "timing": {"settle_delay_s": 4, "collect_s": 3, "view_s": 8, "stage_s": 3},
        "work": {
            "window_max_s": 60,
            "token_units": [1, 2],
            "tokens_per_s_max": 100_000,
            "witness_bucket_s": 5,
            "witness_carry_s": 86_400,
            "anchor_age_max_s": 86_400,
            "machine_nodes_max": 1,
        },
        "score": {"strategy": "weighted", "tokens": 500, "uptime": 200, "tasks": 200, "quality": 100},
        "quality": {"latency_p95_target_ms": 5_000, "failure_max_per_mille": 100},
        "attestation": attestation,
    }
    text = "".join(toml_table(f"[{name}]", table) for name, table in tables.items())
    path.write_text(text)
    return text


def write_config(
    seat: Seat, seats: Sequence[Seat], pool: Address, policy: Path, root: Path, server: LiteServer, engine_url: str
) -> None:
    """Write a seat's config and empty journal, as `gpupool init` does."""
    init_agent(
        seat.directory,
        Answers(
            network=GLOBAL_ID,
            pool=str(pool),
            policy_file=str(policy),
            liteservers=[(server.host, server.port, base64.b64encode(server.public_key).decode())],
            engine_url=engine_url,
            attestation={"provider": "software", "software_dir": "platform", "software_root_file": str(root)},
            listen=[f"/ip4/127.0.0.1/tcp/{seat.p2p_port}"],
            peers=[
                Peer(node_key=other.node_key.public.hex(), addresses=[f"/ip4/127.0.0.1/tcp/{other.p2p_port}"])
                for other in seats
                if other is not seat
            ],
            web_port=seat.web_port,
            more={
                "chain": {"poll_interval_s": 1.0, "roster_interval_s": 5.0},
                "p2p": {"sync_interval_s": 2.0, "close_interval_s": 1.0},
                "engine": {"sample_interval_s": SAMPLE_INTERVAL_S, "window_s": WINDOW_S},
            },
        ),
    )


def free_ports(count: int) -> list[int]:
    """Ports that are free on loopback now; all are held at once, so they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for held in sockets:
            held.bind(("127.0.0.1", 0))
        return [held.getsockname()[1] for held in sockets]
    finally:
        for held in sockets:
            held.close()
