"""Where the dev network keeps its files, and the documents that it writes: policy, configs, genesis."""

from __future__ import annotations

import base64
import random
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from agent.setup import Answers, Peer, init_agent, make_keys, toml_table
from attestation.policy import AttestationPolicy
from attestation.providers.software import SOFTWARE_MEASUREMENT, SoftwarePlatform, SoftwareRoot
from contracts.chain import LiteServer
from contracts.devchain.network import DEVNET_GLOBAL_ID
from contracts.model import Address
from contracts.signing import SigningKey

Tables: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Keys of a config or a policy, by table."""

GLOBAL_ID = DEVNET_GLOBAL_ID
WINDOW_S = 4
AGENTS_AT_FULL_PACE = 8
"""What agents say to one another grows with the square of their number: above this they say it more seldom."""
SAMPLE_INTERVAL_S = 1.0
LOOPBACK = "127.0.0.1"
PORTS = range(12_000, 32_000)
"""Below those that outgoing connections get, one of which could take a port before its listener does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Where a part of the network runs: the address that the others reach it by, and what enters there.

    `prefix` goes before the command line of a process, as `ip netns exec NAME` would.
    """

    address: str = LOOPBACK
    prefix: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """One agent's place: its folder, keys and ports."""

    index: int
    directory: Path
    node_key: SigningKey
    wallet_key: SigningKey
    p2p_port: int
    web_port: int
    receipts_port: int = 0
    """Where a gateway hands in receipts, if there is one."""
    machine: str = "platform"
    """Folder of the software platform that it runs on, below or beside its own."""
    host: Host = Host()

    @property
    def name(self) -> str:
        return agent_name(self.index)

    @property
    def web(self) -> str:
        """URL of its status listener."""
        return f"http://{self.host.address}:{self.web_port}"

    @property
    def p2p_address(self) -> str:
        return f"/ip4/{self.host.address}/tcp/{self.p2p_port}"

    @property
    def config(self) -> Path:
        return self.directory / "agent.toml"

    @property
    def log(self) -> Path:
        return self.directory / "agent.log"


def agent_name(index: int) -> str:
    """What the agent with this number, from 0 on, is called."""
    return f"agent-{index}"


def prepare_seats(
    directory: Path,
    count: int,
    now_s: int,
    host_of: Callable[[str], Host] = lambda name: Host(),
    *,
    are_last_on_one_machine: bool = False,
) -> list[Seat]:
    """Make keys and software TDX machines for `count` agents below `directory`; `host_of` is asked by their names.

    With `are_last_on_one_machine` the last one has no machine of its own: it is on that of the one before.
    """
    root = SoftwareRoot.create(directory / "tdx-root", now_s=now_s)
    ports = free_ports(3 * count)
    seats = []
    for index in range(count):
        folder, machine = directory / agent_name(index), "platform"
        node_key, wallet_key = make_keys(folder)
        if are_last_on_one_machine and index == count - 1:
            machine = f"../{agent_name(index - 1)}/platform"
        else:
            SoftwarePlatform.create(folder / machine, root=root)
        seats.append(
            Seat(
                index=index,
                directory=folder,
                node_key=node_key,
                wallet_key=wallet_key,
                p2p_port=ports[3 * index],
                web_port=ports[3 * index + 1],
                receipts_port=ports[3 * index + 2],
                machine=machine,
                host=host_of(agent_name(index)),
            )
        )
    return seats


def write_policy(path: Path, epoch_s: int, agents: int, demands: Tables | None = None) -> str:
    """Write the pool's policy: short steps, so that an epoch settles in seconds; returns its text.

    `demands` are keys by table that are to be otherwise than usual.
    """
    attestation = AttestationPolicy(
        measurements=(SOFTWARE_MEASUREMENT,), evidence_age_max_s=max(90, 4 * epoch_s)
    ).to_mapping()
    tables: dict[str, dict[str, Any]] = {
        "timing": {"settle_delay_s": 4, "collect_s": 3, "view_s": 8, "stage_s": 3},
        "work": {
            "source": "engine",
            "window_max_s": 60,
            "token_units": [1, 2],
            "tokens_per_s_max": 100_000,
            "gpu_tokens_per_s": {},
            "tokens_per_task_min": 10,
            "witness_bucket_s": 5 * slower(agents),
            "witness_carry_s": 86_400,
            "anchor_age_max_s": 86_400,
            "machine_nodes_max": 1,
        },
        "receipts": {
            "ceiling": "none",
            "signers": [],
            "per_participant_max": 10_000,
            "worker_codes": [],
            "worker_proxies": [],
        },
        "score": {"strategy": "weighted", "tokens": 500, "uptime": 200, "tasks": 200, "quality": 100},
        "quality": {"latency_p95_target_ms": 5_000, "failure_max_per_mille": 100},
        "audit": {"outlier_mads": 6, "picks": 1},
        "reputation": {
            "settled": 2,
            "evidence_failed": 20,
            "offline": 10,
            "offline_after_s": 86_400,
            "forked": 200,
        },
        "attestation": attestation,
    }
    for name, keys in (demands or {}).items():
        tables[name] |= keys
    text = "".join(toml_table(f"[{name}]", table) for name, table in tables.items())
    path.write_text(text)
    return text


def write_config(
    seat: Seat, seats: Sequence[Seat], pool: Address, policy: Path, root: Path, server: LiteServer, work: Tables
) -> None:
    """Write a seat's config and empty journal, as `gpupool init` does. `work` are the tables of what it measures.

    The config names one other seat; where the rest are, the agents find out.
    """
    seeds = [other for other in seats if other is not seat][:1]
    pace = slower(len(seats))
    init_agent(
        seat.directory,
        Answers(
            network=GLOBAL_ID,
            pool=str(pool),
            policy_file=str(policy),
            liteservers=[(server.host, server.port, base64.b64encode(server.public_key).decode())],
            work=work,
            attestation={"provider": "software", "software_dir": seat.machine, "software_root_file": str(root)},
            listen=[seat.p2p_address],
            peers=[Peer(node_key=seed.node_key.public.hex(), addresses=[seed.p2p_address]) for seed in seeds],
            web_port=seat.web_port,
            more={
                "chain": {"poll_interval_s": 1.0, "roster_interval_s": 5.0},
                "p2p": {
                    "sync_interval_s": 2.0 * pace,
                    "close_interval_s": 1.0 * pace,
                    "address_interval_s": 1.0 * pace,
                },
                "meter": {"sample_interval_s": SAMPLE_INTERVAL_S, "window_s": WINDOW_S * pace},
                "web": _web_table(seat.host),
            },
        ),
    )


def slower(agents: int) -> int:
    """By how much so many agents say everything more seldom: 1 is at full pace."""
    return -(-agents // AGENTS_AT_FULL_PACE)


def _web_table(host: Host) -> dict[str, Any]:
    return {} if host.address == LOOPBACK else {"host": host.address, "allowed_hosts": [host.address]}


def free_ports(count: int) -> list[int]:
    """Ports that are free on loopback now, and different ones."""
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        if len(found) == count:
            break
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue  # taken
            found.append(port)
    return found
